//! Deliveries that leave the queue without an attempt: cancelled with their endpoint, or expired. And the attempts of
//! lost claims.
//!
//! Writes `due`.

use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::time::Timestamp;
use postrider_store::queue::attempt::{abandoned, attempt_under_way};
use postrider_store::queue::lane::{lane_key, lane_of};
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;
use postrider_store::{Lane, LaneKind};

use super::{endpoint_health, lane, order};
use crate::log::{attempt, delivery};
use crate::machinery::writer::WriteTx;

/// Rows cancelled in one step. The rest of a long lane is cancelled by later claims, one step each.
const CANCELLED_PER_STEP: usize = 1_000;

/// Cancels the queued deliveries of an endpoint that is being deleted.
pub fn cancel_lanes(tx: &mut WriteTx<'_>, workspace_key: RowKey, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    for kind in [LaneKind::Events, LaneKind::Tests] {
        let lane = Lane { workspace_key, endpoint_key, kind };
        cancel_from_lane(tx, lane)?;
        lane::raise_next_at(tx, lane)?;
    }
    order::remove(tx, endpoint_key)?;
    lane::release(tx, endpoint_key)
}

/// Fails deliveries that waited too long in a lane that is held, paused or a listener's, or whose order has stopped.
pub fn expire_waiting(tx: &mut WriteTx<'_>, limit: usize) -> Result<usize, rusqlite::Error> {
    let too_long_ago = tx.now.minus(limits::WAITING_MAX).millis();
    let waiting = tx
        .connection
        .prepare_cached(
            "SELECT delivery_key, attempts, claimed_at
             FROM (SELECT lane_key FROM lanes WHERE held_since IS NOT NULL AND held_since <= ?1
                   UNION SELECT lane_key FROM lanes WHERE paused_since IS NOT NULL AND paused_since <= ?1
                   UNION SELECT lane_key FROM lanes WHERE not_before = 9223372036854775807) AS waiting
             JOIN due ON due.lane_key = waiting.lane_key
             WHERE due_at <= ?1 AND sequence IS NULL LIMIT ?2",
        )?
        .query_map(params![too_long_ago, limit], unsent_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    for unsent in &waiting {
        end_unsent(tx, unsent, DeliveryStatus::Failed, EndReason::Expired)?;
    }
    Ok(waiting.len() + order::expire_waiting(tx, limit - waiting.len())?)
}

/// How far a step through a lane got.
#[derive(PartialEq, Eq)]
pub enum LaneStep {
    Done,
    /// The endpoint is deleted, and there may be more deliveries to cancel.
    MoreToCancel,
}

/// Cancels deliveries of a deleted endpoint, one step's worth. A delivery under way is left to its holder.
pub fn cancel_from_lane(tx: &mut WriteTx<'_>, lane: Lane) -> Result<LaneStep, rusqlite::Error> {
    let rows = tx
        .connection
        .prepare_cached(
            "SELECT delivery_key, attempts, claimed_at FROM due
             WHERE lane_key = ?1 AND NOT (claim_token IS NOT NULL AND due_at > ?2) ORDER BY due_at LIMIT ?3",
        )?
        .query_map(params![lane_key(lane), tx.now.millis(), CANCELLED_PER_STEP], unsent_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    for row in &rows {
        end_unsent(tx, row, DeliveryStatus::Cancelled, EndReason::EndpointDeleted)?;
    }
    Ok(if rows.len() == CANCELLED_PER_STEP { LaneStep::MoreToCancel } else { LaneStep::Done })
}

/// Cancels those of these deliveries that are queued: the content of their event is being erased. An attempt under way
/// loses its claim, so that its outcome, which may repeat the content, is not recorded. Returns how many were queued.
pub fn cancel_erased(tx: &mut WriteTx<'_>, deliveries: &[RowKey]) -> Result<u64, rusqlite::Error> {
    let mut cancelled = 0;
    for key in deliveries {
        let queued = tx
            .connection
            .prepare_cached(
                "SELECT due.attempts, claimed_at, sequence, due_at, lane_key, workspace_key
                 FROM due JOIN deliveries ON deliveries.key = delivery_key WHERE delivery_key = ?1",
            )?
            .query_row([key.as_i64()], |row| {
                let claimed_at = row.get::<_, Option<i64>>(1)?.map(Timestamp::from_millis);
                let lane = lane_of(row.get(4)?, RowKey::from_i64(row.get(5)?));
                let due_at = Timestamp::from_millis(row.get(3)?);
                Ok((row.get::<_, u32>(0)?, claimed_at, row.get::<_, Option<i64>>(2)?, due_at, lane))
            })
            .optional()?;
        let Some((attempts, claimed_at, sequence, due_at, lane)) = queued else { continue };
        cancelled += 1;
        if let Some(claimed_at) = claimed_at
            && let Some(counted) = delivery::find_counted(tx.connection, *key)?
        {
            record_abandoned(tx, counted, *key, &attempt_under_way(attempts, claimed_at))?;
            endpoint_health::probe_again(tx, lane)?;
        }
        let unsent = Unsent { delivery_key: *key, attempts, lost_claim_at: None };
        end_unsent(tx, &unsent, DeliveryStatus::Cancelled, EndReason::Erased)?;
        // Only the head of an order is ever due.
        if let Some(sequence) = sequence.filter(|_| due_at != NOT_YET) {
            order::after_head(tx, *key, sequence, Some(EndReason::Erased))?;
        }
    }
    Ok(cancelled)
}

/// A queued delivery that nobody is attempting.
pub struct Unsent {
    pub delivery_key: RowKey,
    pub attempts: u32,
    pub lost_claim_at: Option<Timestamp>,
}

pub fn unsent_from_row(row: &Row<'_>) -> Result<Unsent, rusqlite::Error> {
    Ok(Unsent {
        delivery_key: RowKey::from_i64(row.get(0)?),
        attempts: row.get(1)?,
        lost_claim_at: row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis),
    })
}

pub fn end_unsent(
    tx: &mut WriteTx<'_>,
    unsent: &Unsent,
    status: DeliveryStatus,
    reason: EndReason,
) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached("DELETE FROM due WHERE delivery_key = ?1")?.execute([unsent.delivery_key.as_i64()])?;
    let Some(counted) = delivery::find_counted(tx.connection, unsent.delivery_key)? else { return Ok(()) };
    if let Some(claimed_at) = unsent.lost_claim_at {
        let lost = abandoned(unsent.attempts, claimed_at, None);
        record_abandoned(tx, counted, unsent.delivery_key, &lost)?;
    }
    let end = DeliveryEnd { status, reason: Some(reason) };
    delivery::finish_unsent(tx, unsent.delivery_key, counted, end, unsent.attempts)
}

/// Records the attempt of a claim whose holder died.
pub fn record_abandoned(
    tx: &mut WriteTx<'_>,
    counted: Counted,
    delivery_key: RowKey,
    lost: &Attempt,
) -> Result<(), rusqlite::Error> {
    // It has no bytes to count.
    attempt::insert(tx, counted, delivery_key, lost).map(drop)
}
