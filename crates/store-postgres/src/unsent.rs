//! What leaves the queue without being sent: cancelled with its endpoint, or expired. And the attempts that nobody ended.

use tokio_postgres::Row;

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::queue::attempt::abandoned;
use postrider_store::{Lane, LaneKind};

use super::column::{key, number, opt_instant};
use super::fault::PgError;
use super::lane::{lane_key, raise_next_at, release_lane};
use super::order;
use super::outcome::insert_attempts;
use super::transaction::WriteTx;

/// Rows that a DELETE cancels itself; what is left of a long queue is cancelled by and by, when its lane is looked at.
const CANCELLED_AT_ONCE: i64 = 1_000;

/// Cancels what waits for an endpoint that has just been deleted.
pub async fn cancel_lanes(tx: &mut WriteTx, workspace_key: RowKey, endpoint_key: RowKey) -> Result<(), PgError> {
    let lanes = vec![-endpoint_key.as_i64(), endpoint_key.as_i64()];
    tx.query("SELECT 1 FROM lanes WHERE lane_key = ANY($1) ORDER BY lane_key FOR UPDATE", &[&lanes]).await?;
    for kind in [LaneKind::Events, LaneKind::Tests] {
        cancel_from_lane(tx, Lane { workspace_key, endpoint_key, kind }).await?;
    }
    raise_next_at(tx, &lanes).await?;
    order::forget_lane(tx, endpoint_key).await?;
    release_lane(tx, endpoint_key).await
}

/// Fails what has waited too long in lanes that are held or paused, or whose order is blocked.
pub async fn expire_waiting(tx: &mut WriteTx, limit: usize) -> Result<usize, PgError> {
    let too_long_ago = tx.now.minus(limits::WAITING_MAX).millis();
    let sql = "SELECT delivery_key, attempts, claimed_at
               FROM (SELECT lane_key FROM lanes WHERE held_since IS NOT NULL AND held_since <= $1
                     UNION SELECT lane_key FROM lanes WHERE paused_since IS NOT NULL AND paused_since <= $1) AS waiting
               JOIN due ON due.lane_key = waiting.lane_key
               WHERE due_at <= $1 AND sequence IS NULL LIMIT $2 FOR UPDATE OF due SKIP LOCKED";
    let rows = tx.query(sql, &[&too_long_ago, &i64::try_from(limit).unwrap_or(i64::MAX)]).await?;
    let waited = rows.iter().map(unsent_from_row).collect::<Result<Vec<_>, _>>()?;
    end_unsent(tx, &waited, DeliveryStatus::Failed, EndReason::Expired).await?;
    Ok(rows.len() + order::expire_waiting(tx, limit - rows.len()).await?)
}

/// What a look into a lane came to.
#[derive(PartialEq, Eq)]
pub enum LaneState {
    Looked,
    /// Its endpoint is deleted, and more than one step's worth waited for it.
    MoreToCancel,
}

/// Cancels what waits for an endpoint that is deleted, a step's worth. What is being attempted ends by itself.
pub async fn cancel_from_lane(tx: &WriteTx, lane: Lane) -> Result<LaneState, PgError> {
    let sql = "SELECT delivery_key, attempts, claimed_at FROM due
               WHERE lane_key = $1 AND NOT (claim_token IS NOT NULL AND due_at > $2) ORDER BY due_at LIMIT $3
               FOR UPDATE SKIP LOCKED";
    let rows = tx.query(sql, &[&lane_key(lane), &tx.now.millis(), &CANCELLED_AT_ONCE]).await?;
    let waited = rows.iter().map(unsent_from_row).collect::<Result<Vec<_>, _>>()?;
    end_unsent(tx, &waited, DeliveryStatus::Cancelled, EndReason::EndpointDeleted).await?;
    let all = i64::try_from(rows.len()).unwrap_or(i64::MAX) < CANCELLED_AT_ONCE;
    Ok(if all { LaneState::Looked } else { LaneState::MoreToCancel })
}

/// A delivery that nobody is attempting.
pub struct Unsent {
    pub delivery_key: RowKey,
    pub attempts: u32,
    pub lost_claim_at: Option<Timestamp>,
}

pub fn unsent_from_row(row: &Row) -> Result<Unsent, PgError> {
    Ok(Unsent {
        delivery_key: key(row, "delivery_key")?,
        attempts: number(row, "attempts")?,
        lost_claim_at: opt_instant(row, "claimed_at")?,
    })
}

pub async fn end_unsent(
    tx: &WriteTx,
    unsent: &[Unsent],
    status: DeliveryStatus,
    reason: EndReason,
) -> Result<(), PgError> {
    let lost: Vec<(RowKey, Attempt)> = unsent
        .iter()
        .filter_map(|unsent| Some((unsent.delivery_key, abandoned(unsent.attempts, unsent.lost_claim_at?, None))))
        .collect();
    insert_attempts(tx, &lost).await?;
    let keys: Vec<i64> = unsent.iter().map(|unsent| unsent.delivery_key.as_i64()).collect();
    let attempts: Vec<i64> = unsent.iter().map(|unsent| i64::from(unsent.attempts)).collect();
    tx.execute("DELETE FROM due WHERE delivery_key = ANY($1)", &[&keys]).await?;
    let sql = "UPDATE deliveries SET status = $3, reason = $4, attempts = ended.attempts, completed_at = $5
               FROM unnest($1, $2) AS ended (key, attempts) WHERE deliveries.key = ended.key";
    tx.execute(sql, &[&keys, &attempts, &status.code(), &reason.code(), &tx.now.millis()]).await?;
    Ok(())
}
