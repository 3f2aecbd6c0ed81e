//! Strict order: an endpoint's deliveries one at a time, as their events were accepted. The only file that writes
//! `ordered_lanes`.
//!
//! A delivery in the order has a place, a number allocated under its lane's row in the transaction that accepts the event: so
//! the order of places is the order of commits. Of the rows with a place only the first of the lane, its head, is ever due. The
//! others are parked, with a `due_at` that never comes; when the head has ended, the next one is given a real one. So a claim
//! looks for what is due, as in any lane, finds at most the head, and costs the same whatever waits behind it; an endpoint
//! without order pays a column that is null. A head that waits for its retry, is under way, was given back or lost its
//! claim goes on being the head, and holds the rest by merely being there.
//!
//! A head that fails blocks its lane: the lane remembers it and its place, and nothing in the order goes on until it is
//! skipped, or retried by hand, which puts the new delivery into the same place. What waits too long behind an endpoint that is
//! off, or behind such a block, expires from the front, and the last to expire then blocks the lane: what is lost to the
//! order is lost in one piece at its front, and never passed over unseen.
//!
//! Outside of the order, in the same lane: replays and other retries by hand, and what a test key published. Tests
//! have a lane of their own. Switched off, the order ends for what is accepted from then on; what has a place keeps it,
//! but no longer blocks.
//!
//! While the endpoint is paused its probe is the head, whatever its schedule says.
//!
//! It must not walk a lane: each step here touches the head and the next one, or a bounded number that expire.

use rusqlite::{OptionalExtension, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{Delivery, DeliveryStatus, EndReason};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::id::{DeliveryId, RowKey};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::{Lane, LaneKind};

pub use postrider_store::queue::order::{NOT_YET, OrderPlacement, Place, SkipRefusal, is_ordered};

use super::lane::{lane_from_row, lane_key, lower_next_at};
use super::unsent::{Unsent, end_unsent, unsent_from_row};
use super::writer::WriteTx;
use super::{audit, delivery};

/// The place of a new delivery, if it has one.
pub fn take_place(tx: &WriteTx<'_>, lane: Lane, standing: OrderPlacement) -> Result<Option<Place>, rusqlite::Error> {
    match standing {
        OrderPlacement::Outside => Ok(None),
        OrderPlacement::InPlaceOf(sequence) => Ok(Some(Place { sequence, is_head: true })),
        OrderPlacement::Last => {
            let (sequence, is_blocked) = tx
                .connection
                .prepare_cached(
                    "INSERT INTO ordered_lanes (lane_key, last_sequence) VALUES (?1, 1)
                     ON CONFLICT (lane_key) DO UPDATE SET last_sequence = last_sequence + 1
                     RETURNING last_sequence, blocked_by IS NOT NULL",
                )?
                .query_row([lane_key(lane)], |row| Ok((row.get(0)?, row.get::<_, bool>(1)?)))?;
            let is_head = !is_blocked && first_in(tx, lane)?.is_none();
            Ok(Some(Place { sequence, is_head }))
        }
    }
}

/// The delivery at the head has ended and left the queue: the next one moves up, or nothing does until someone decides.
pub fn after_head(
    tx: &mut WriteTx<'_>,
    delivery_key: RowKey,
    sequence: i64,
    reason: Option<EndReason>,
) -> Result<(), rusqlite::Error> {
    let lane = tx
        .connection
        .prepare_cached("SELECT endpoint_key, workspace_key FROM deliveries WHERE key = ?1")?
        .query_row([delivery_key.as_i64()], lane_from_row)?;
    // Without its event there is nothing that could be tried again, or shown to whoever should decide.
    let may_block = matches!(reason, Some(EndReason::Exhausted | EndReason::Expired));
    if may_block && is_strict(tx, lane)? { block(tx, lane, delivery_key, sequence) } else { move_up(tx, lane) }
}

/// Makes the head due by `at` instead of at its next step: a paused endpoint's probe is the head, and nothing else in the order
/// could be one.
pub fn bring_forward(tx: &mut WriteTx<'_>, lane: Lane, at: Timestamp) -> Result<(), rusqlite::Error> {
    if !is_strict(tx, lane)? {
        return Ok(());
    }
    let Some(head) = first_in(tx, lane)? else { return Ok(()) };
    tx.connection
        .prepare_cached(
            "UPDATE due SET due_at = ?2
             WHERE delivery_key = ?1 AND due_at > ?2 AND due_at < ?3 AND claim_token IS NULL",
        )?
        .execute(params![head.as_i64(), at.millis(), NOT_YET.millis()])?;
    Ok(())
}

/// The place of a delivery that blocks its lane. From now on it no longer does: whoever asks takes the place.
pub fn take_blocked_place(tx: &WriteTx<'_>, delivery_key: RowKey) -> Result<Option<i64>, rusqlite::Error> {
    let found = tx
        .connection
        .prepare_cached("SELECT lane_key, blocked_sequence FROM ordered_lanes WHERE blocked_by = ?1")?
        .query_row([delivery_key.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((lane_key, _)) = found {
        forget_block(tx, lane_key)?;
    }
    Ok(found.map(|(_, sequence)| sequence))
}

/// Lets what waits in the order go on, whatever failed before it.
pub fn unblock(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    if forget_block(tx, lane_key(lane))? {
        move_up(tx, lane)?;
    }
    Ok(())
}

/// Gives up the delivery at which its endpoint's order has stopped.
pub fn skip(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    id: DeliveryId,
    author: Author,
) -> Result<Result<Delivery, SkipRefusal>, rusqlite::Error> {
    let Some(delivery) = delivery::find_one(tx.connection, tx.tag, workspace_key, id)? else {
        return Ok(Err(SkipRefusal::NotFound));
    };
    if !delivery.is_blocking {
        return Ok(Err(SkipRefusal::NotBlocking));
    }
    let endpoint_key = tx
        .connection
        .prepare_cached("SELECT lane_key FROM ordered_lanes WHERE blocked_by = ?1")?
        .query_row([id.key().as_i64()], |row| Ok(RowKey::from_i64(row.get(0)?)))?;
    unblock(tx, Lane { workspace_key, endpoint_key, kind: LaneKind::Events })?;
    audit::append(tx, workspace_key, author, AuditAction::DeliverySkipped, id)?;
    Ok(Ok(Delivery { is_blocking: false, ..delivery }))
}

/// Forgets the order of an endpoint that has just been deleted.
pub fn forget_lane(tx: &WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached("DELETE FROM ordered_lanes WHERE lane_key = ?1")?.execute([endpoint_key.as_i64()])?;
    Ok(())
}

/// Forgets the order of all endpoints of a workspace that has just been deleted.
pub fn forget_workspace(tx: &WriteTx<'_>, workspace_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM ordered_lanes WHERE lane_key IN (SELECT key FROM endpoints WHERE workspace_key = ?1)",
        )?
        .execute([workspace_key.as_i64()])?;
    Ok(())
}

/// Fails what has waited too long in the order behind an endpoint that is off or paused, or behind a block: from the front, so that
/// what is left has nothing missing in between.
pub fn expire_waiting(tx: &mut WriteTx<'_>, limit: usize) -> Result<usize, rusqlite::Error> {
    let too_long_ago = tx.now.minus(limits::WAITING_MAX);
    let lanes = tx
        .connection
        .prepare_cached(
            // The joins are told where to begin: the planner knows no sizes and might walk all lanes.
            "SELECT l.lane_key, l.workspace_key FROM lanes l INDEXED BY lanes_held
                 CROSS JOIN ordered_lanes o ON o.lane_key = l.lane_key
             WHERE l.held_since IS NOT NULL AND l.held_since <= ?1
             UNION
             SELECT l.lane_key, l.workspace_key FROM lanes l INDEXED BY lanes_paused
                 CROSS JOIN ordered_lanes o ON o.lane_key = l.lane_key
             WHERE l.paused_since IS NOT NULL AND l.paused_since <= ?1
             UNION
             SELECT l.lane_key, l.workspace_key FROM ordered_lanes o INDEXED BY ordered_lanes_by_age
                 CROSS JOIN lanes l ON l.lane_key = o.lane_key
             WHERE o.blocked_since IS NOT NULL AND o.blocked_since <= ?1",
        )?
        .query_map([too_long_ago.millis()], lane_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    let mut expired = 0;
    for lane in lanes {
        if expired == limit {
            break;
        }
        expired += expire_from_lane(tx, lane, too_long_ago, limit - expired)?;
    }
    Ok(expired)
}

fn expire_from_lane(
    tx: &mut WriteTx<'_>,
    lane: Lane,
    too_long_ago: Timestamp,
    limit: usize,
) -> Result<usize, rusqlite::Error> {
    let rows = tx
        .connection
        .prepare_cached(
            "SELECT delivery_key, attempts, claimed_at, sequence, due_at FROM due
             WHERE lane_key = ?1 AND sequence IS NOT NULL ORDER BY sequence LIMIT ?2",
        )?
        .query_map(params![lane_key(lane), limit], |row| {
            Ok((unsent_from_row(row)?, row.get::<_, i64>(3)?, Timestamp::from_millis(row.get(4)?)))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    let has_waited = |(unsent, _, due_at): &&(Unsent, i64, Timestamp)| {
        unsent.delivery_key.created_at() <= too_long_ago && (*due_at == NOT_YET || *due_at <= too_long_ago)
    };
    let waited = rows.iter().take_while(has_waited).count();
    for (unsent, _, _) in &rows[..waited] {
        end_unsent(tx, unsent, DeliveryStatus::Failed, EndReason::Expired)?;
    }
    if let Some((last, sequence, _)) = rows[..waited].last() {
        after_head(tx, last.delivery_key, *sequence, Some(EndReason::Expired))?;
    }
    Ok(waited)
}

fn is_strict(tx: &mut WriteTx<'_>, lane: Lane) -> Result<bool, rusqlite::Error> {
    let target = tx.matching.target(tx.connection, lane.endpoint_key)?;
    Ok(target.is_some_and(|target| target.options.ordering == DeliveryOrder::Strict))
}

fn block(tx: &WriteTx<'_>, lane: Lane, delivery_key: RowKey, sequence: i64) -> Result<(), rusqlite::Error> {
    let delivery_id = DeliveryId::new(delivery_key, tx.tag);
    tracing::warn!(%delivery_id, "an endpoint with strict order stops at a delivery that failed, until it is skipped or retried");
    tx.connection
        .prepare_cached(
            "UPDATE ordered_lanes SET blocked_by = ?2, blocked_sequence = ?3, blocked_since = COALESCE(blocked_since, ?4)
             WHERE lane_key = ?1",
        )?
        .execute(params![lane_key(lane), delivery_key.as_i64(), sequence, tx.now.millis()])?;
    Ok(())
}

/// Whether there was one.
fn forget_block(tx: &WriteTx<'_>, lane_key: i64) -> Result<bool, rusqlite::Error> {
    let changed = tx
        .connection
        .prepare_cached(
            "UPDATE ordered_lanes SET blocked_by = NULL, blocked_sequence = NULL, blocked_since = NULL
             WHERE lane_key = ?1 AND blocked_by IS NOT NULL",
        )?
        .execute([lane_key])?;
    Ok(changed > 0)
}

/// Makes the first in the order the head. It has been due since it was accepted, and so goes before a replay queued since;
/// its lane has its turn from now, as any other.
fn move_up(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    let Some(first) = first_in(tx, lane)? else { return Ok(()) };
    let due_at = first.created_at().min(tx.now);
    let moved = tx
        .connection
        .prepare_cached("UPDATE due SET due_at = ?2 WHERE delivery_key = ?1 AND due_at = ?3")?
        .execute(params![first.as_i64(), due_at.millis(), NOT_YET.millis()])?;
    if moved > 0 {
        lower_next_at(tx, lane, tx.now)?;
        tx.claims.left_due = true;
    }
    Ok(())
}

fn first_in(tx: &WriteTx<'_>, lane: Lane) -> Result<Option<RowKey>, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "SELECT delivery_key FROM due WHERE lane_key = ?1 AND sequence IS NOT NULL ORDER BY sequence LIMIT 1",
        )?
        .query_row([lane_key(lane)], |row| Ok(RowKey::from_i64(row.get(0)?)))
        .optional()
}
