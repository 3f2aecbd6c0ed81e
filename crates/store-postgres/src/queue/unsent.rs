//! Deliveries that leave the queue without an attempt: cancelled with their endpoint, or expired. Writes `due`.

use tokio_postgres::Row;

use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::time::Timestamp;
use postrider_store::queue::attempt::{abandoned, attempt_under_way};
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::NOT_YET;
use postrider_store::{Lane, LaneKind};

use super::{endpoint_health, lane, order};
use crate::log::attempt::NewAttempt;
use crate::log::{attempt, delivery};
use crate::machinery::column::{int, key, number, opt_instant, opt_int};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;

/// Rows that the deletion of an endpoint cancels itself. Later claims that visit the lane cancel the rest of a long
/// queue.
const CANCELLED_PER_STEP: i64 = 1_000;

/// Cancels the queue of an endpoint that has just been deleted.
pub async fn cancel_lanes(tx: &mut WriteTx, workspace_key: RowKey, endpoint_key: RowKey) -> Result<(), PgError> {
    let lanes = vec![-endpoint_key.as_i64(), endpoint_key.as_i64()];
    lane::lock_exclusively(tx, &lanes).await?;
    for kind in [LaneKind::Events, LaneKind::Tests] {
        cancel_from_lane(tx, Lane { workspace_key, endpoint_key, kind }).await?;
    }
    lane::raise_next_at(tx, &lanes).await?;
    order::remove(tx, endpoint_key).await?;
    lane::release(tx, endpoint_key).await
}

/// Fails deliveries that have waited too long in lanes that are held, paused or a listener's, or in
/// a blocked order.
pub async fn expire_waiting(tx: &mut WriteTx, limit: usize) -> Result<usize, PgError> {
    let oldest_allowed = tx.now.minus(limits::WAITING_MAX).millis();
    let sql = "SELECT delivery_key, attempts, claimed_at
               FROM (SELECT lane_key FROM lanes WHERE held_since IS NOT NULL AND held_since <= $1
                     UNION SELECT lane_key FROM lanes WHERE paused_since IS NOT NULL AND paused_since <= $1
                     UNION SELECT lane_key FROM lanes WHERE not_before = 9223372036854775807) AS waiting
               JOIN due ON due.lane_key = waiting.lane_key
               WHERE due_at <= $1 AND sequence IS NULL LIMIT $2 FOR UPDATE OF due SKIP LOCKED";
    let rows = tx.query(sql, &[&oldest_allowed, &i64::try_from(limit).unwrap_or(i64::MAX)]).await?;
    let waited = rows.iter().map(unsent_from_row).collect::<Result<Vec<_>, _>>()?;
    end_unsent(tx, &waited, DeliveryStatus::Failed, EndReason::Expired).await?;
    Ok(rows.len() + order::expire_waiting(tx, limit - rows.len()).await?)
}

/// How much of a deleted endpoint's lane one step has cancelled.
#[derive(PartialEq, Eq)]
pub enum LaneStep {
    Done,
    /// More rows than one step cancels.
    MoreToCancel,
}

/// Cancels up to [`CANCELLED_PER_STEP`] rows of a deleted endpoint. An attempt under way ends by itself.
pub async fn cancel_from_lane(tx: &WriteTx, lane: Lane) -> Result<LaneStep, PgError> {
    let sql = "SELECT delivery_key, attempts, claimed_at FROM due
               WHERE lane_key = $1 AND NOT (claim_token IS NOT NULL AND due_at > $2) ORDER BY due_at LIMIT $3
               FOR UPDATE SKIP LOCKED";
    let rows = tx.query(sql, &[&lane_key(lane), &tx.now.millis(), &CANCELLED_PER_STEP]).await?;
    let waited = rows.iter().map(unsent_from_row).collect::<Result<Vec<_>, _>>()?;
    end_unsent(tx, &waited, DeliveryStatus::Cancelled, EndReason::EndpointDeleted).await?;
    let all = i64::try_from(rows.len()).unwrap_or(i64::MAX) < CANCELLED_PER_STEP;
    Ok(if all { LaneStep::Done } else { LaneStep::MoreToCancel })
}

/// Cancels those of these deliveries that are queued: the content of their event is being erased. An attempt under way
/// loses its claim, so that its outcome, which may repeat the content, is not recorded. Returns how many were queued.
pub async fn cancel_erased(tx: &mut WriteTx, deliveries: &Vec<i64>) -> Result<u64, PgError> {
    let sql = "SELECT DISTINCT lane_key FROM due WHERE delivery_key = ANY ($1) AND sequence IS NOT NULL";
    let ordered = tx.query(sql, &[deliveries]).await?;
    order::lock(tx, &ordered.iter().map(|row| int(row, "lane_key")).collect::<Result<Vec<_>, _>>()?).await?;
    let sql = "SELECT delivery_key, due.attempts, claimed_at, sequence, due_at, lane_key, workspace_key
               FROM due JOIN deliveries ON deliveries.key = delivery_key
               WHERE delivery_key = ANY ($1) ORDER BY delivery_key FOR UPDATE OF due";
    let rows = tx.query(sql, &[deliveries]).await?;
    if rows.is_empty() {
        return Ok(0);
    }
    let queued = rows.iter().map(unsent_from_row).collect::<Result<Vec<_>, _>>()?;
    let keys: Vec<i64> = queued.iter().map(|unsent| unsent.delivery_key.as_i64()).collect();
    let attempts: Vec<i64> = queued.iter().map(|unsent| i64::from(unsent.attempts)).collect();
    let is_lost: Vec<bool> = queued.iter().map(|unsent| unsent.lost_claim_at.is_some()).collect();
    tx.execute("DELETE FROM due WHERE delivery_key = ANY($1)", &[&keys]).await?;
    let end = DeliveryEnd { status: DeliveryStatus::Cancelled, reason: Some(EndReason::Erased) };
    let ended = delivery::finish_all(tx, &keys, &attempts, &is_lost, end).await?;
    let under_way = queued.iter().filter_map(|Unsent { delivery_key, attempts, lost_claim_at }| {
        Some((*ended.get(delivery_key)?, *delivery_key, attempt_under_way(*attempts, (*lost_claim_at)?)))
    });
    attempt::insert(tx, &under_way.collect::<Vec<NewAttempt>>()).await?;
    for (row, unsent) in rows.iter().zip(&queued) {
        // Only the head of an order is ever due.
        let sequence = opt_int(row, "sequence")?.filter(|_| int(row, "due_at").is_ok_and(|at| at != NOT_YET.millis()));
        if let Some(sequence) = sequence {
            order::after_head(tx, unsent.delivery_key, sequence, Some(EndReason::Erased)).await?;
        }
        if unsent.lost_claim_at.is_some() {
            endpoint_health::probe_again(tx, lane::from_row(row)?).await?;
        }
    }
    Ok(queued.len() as u64)
}

/// A queued delivery without an attempt under way.
pub struct Unsent {
    pub delivery_key: RowKey,
    pub attempts: u32,
    /// Set when a claim was lost: its attempt is recorded as abandoned.
    pub lost_claim_at: Option<Timestamp>,
}

pub fn unsent_from_row(row: &Row) -> Result<Unsent, PgError> {
    Ok(Unsent {
        delivery_key: key(row, "delivery_key")?,
        attempts: number(row, "attempts")?,
        lost_claim_at: opt_instant(row, "claimed_at")?,
    })
}

/// Removes deliveries from the queue and ends them in the log.
pub async fn end_unsent(
    tx: &WriteTx,
    unsent: &[Unsent],
    status: DeliveryStatus,
    reason: EndReason,
) -> Result<(), PgError> {
    let keys: Vec<i64> = unsent.iter().map(|unsent| unsent.delivery_key.as_i64()).collect();
    let attempts: Vec<i64> = unsent.iter().map(|unsent| i64::from(unsent.attempts)).collect();
    tx.execute("DELETE FROM due WHERE delivery_key = ANY($1)", &[&keys]).await?;
    let is_lost: Vec<bool> = unsent.iter().map(|unsent| unsent.lost_claim_at.is_some()).collect();
    let end = DeliveryEnd { status, reason: Some(reason) };
    let ended = delivery::finish_all(tx, &keys, &attempts, &is_lost, end).await?;
    let lost: Vec<NewAttempt> = unsent
        .iter()
        .filter_map(|Unsent { delivery_key, attempts, lost_claim_at }| {
            let counted = *ended.get(delivery_key)?;
            Some((counted, *delivery_key, abandoned(*attempts, (*lost_claim_at)?, None)))
        })
        .collect();
    attempt::insert(tx, &lost).await.map(drop)
}
