//! Strict order: the deliveries of an endpoint one at a time, in the order in which their events were accepted.
//!
//! - **Position.** A delivery in the order has a number, `due.sequence`. It is allocated under the row of its lane, in
//!   the transaction that accepts the event. So positions have the order of commits.
//! - **Head.** Only the first row of the order is ever due. The rows behind it are parked at `NOT_YET`. When the head
//!   ends, the next row becomes due. So a claim finds at most the head, and costs the same whatever is parked behind
//!   it. An endpoint without order pays one null column. A head stays the head while it is under way or waits for its
//!   retry, when it is given back, and when its claim is lost.
//! - **Block.** A head that fails stops the order. The lane stores its key and its position. Nothing in the order
//!   proceeds until that delivery is skipped, or retried by hand: the new delivery takes the position.
//! - **Expiry.** Deliveries that wait too long behind an inactive endpoint or a block expire, from the front. The last
//!   to expire blocks the lane. So the order loses one piece at its front, and never a delivery in between that nobody
//!   noticed.
//! - **Outside the order**, in the same lane: replays, other retries by hand, and events of test mode. Tests have a
//!   lane of their own. When strict order is switched off, new deliveries have no position. A delivery that has one
//!   keeps it, but no longer blocks.
//! - **Probe.** While the endpoint is paused its probe is the head, whatever the schedule of the head says.
//!
//! No step here may walk a lane: each touches the head and the next row, or a bounded number of rows that expire.
//!
//! Writes `ordered_lanes`, and `due_at` in `due`.

use rusqlite::{OptionalExtension, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{Delivery, DeliveryStatus, EndReason};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::id::{DeliveryId, RowKey};
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::log::changes;
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::{NOT_YET, OrderPlacement, Position, blocks};
use postrider_store::{Lane, LaneKind, SkipDeliveryError};

use super::lane;
use super::unsent::{Unsent, end_unsent, unsent_from_row};
use crate::log::{audit, delivery};
use crate::machinery::writer::{WriteResult, WriteTx};
use crate::stats;

/// The position of a new delivery. `None` outside the order.
pub fn allocate_position(
    tx: &WriteTx<'_>,
    lane: Lane,
    placement: OrderPlacement,
) -> Result<Option<Position>, rusqlite::Error> {
    match placement {
        OrderPlacement::Outside => Ok(None),
        OrderPlacement::InPlaceOf(sequence) => Ok(Some(Position { sequence, is_head: true })),
        OrderPlacement::Last => {
            let (sequence, is_blocked) = tx
                .connection
                .prepare_cached(
                    "INSERT INTO ordered_lanes (lane_key, last_sequence) VALUES (?1, 1)
                     ON CONFLICT (lane_key) DO UPDATE SET last_sequence = last_sequence + 1
                     RETURNING last_sequence, blocked_by IS NOT NULL",
                )?
                .query_row([lane_key(lane)], |row| Ok((row.get(0)?, row.get::<_, bool>(1)?)))?;
            let is_head = !is_blocked && find_first(tx, lane)?.is_none();
            Ok(Some(Position { sequence, is_head }))
        }
    }
}

/// The head has ended and left the queue: the next delivery becomes the head, or the order stops.
pub fn after_head(
    tx: &mut WriteTx<'_>,
    delivery_key: RowKey,
    sequence: i64,
    reason: Option<EndReason>,
) -> Result<(), rusqlite::Error> {
    let lane = tx
        .connection
        .prepare_cached("SELECT endpoint_key, workspace_key FROM deliveries WHERE key = ?1")?
        .query_row([delivery_key.as_i64()], lane::from_row)?;
    if blocks(reason) && is_strict(tx, lane)? { block(tx, lane, delivery_key, sequence) } else { move_up(tx, lane) }
}

/// Makes the head due by `at` instead of at its next step. A paused endpoint's probe is the head: nothing else in the
/// order may be sent.
pub fn advance_head(tx: &mut WriteTx<'_>, lane: Lane, at: Timestamp) -> Result<(), rusqlite::Error> {
    if !is_strict(tx, lane)? {
        return Ok(());
    }
    let Some(head) = find_first(tx, lane)? else { return Ok(()) };
    tx.connection
        .prepare_cached(
            "UPDATE due SET due_at = ?2
             WHERE delivery_key = ?1 AND due_at > ?2 AND due_at < ?3 AND claim_token IS NULL",
        )?
        .execute(params![head.as_i64(), at.millis(), NOT_YET.millis()])?;
    Ok(())
}

/// Removes the block of this delivery, if it blocks, and returns its position for the caller to take.
pub fn take_blocked_position(tx: &mut WriteTx<'_>, delivery_key: RowKey) -> Result<Option<i64>, rusqlite::Error> {
    let found = tx
        .connection
        .prepare_cached("SELECT lane_key, blocked_sequence FROM ordered_lanes WHERE blocked_by = ?1")?
        .query_row([delivery_key.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((lane_key, _)) = found {
        remove_block(tx, lane_key)?;
    }
    Ok(found.map(|(_, sequence)| sequence))
}

/// Lets the order of a lane proceed, whatever failed before.
pub fn unblock(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    if remove_block(tx, lane_key(lane))? {
        move_up(tx, lane)?;
    }
    Ok(())
}

/// Gives up the delivery at which its endpoint's order has stopped.
pub fn skip(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: DeliveryId,
) -> WriteResult<Delivery, SkipDeliveryError> {
    let workspace = tenant.workspace;
    let Some(delivery) = delivery::find_one(tx.as_read(), tenant, id)? else {
        return Ok(Err(SkipDeliveryError::NotFound));
    };
    if !delivery.is_blocking {
        return Ok(Err(SkipDeliveryError::NotBlocking));
    }
    let endpoint_key = tx
        .connection
        .prepare_cached("SELECT lane_key FROM ordered_lanes WHERE blocked_by = ?1")?
        .query_row([id.key().as_i64()], |row| Ok(RowKey::from_i64(row.get(0)?)))?;
    unblock(tx, Lane { workspace_key: workspace, endpoint_key, kind: LaneKind::Events })?;
    audit::append(tx, workspace, author, AuditAction::DeliverySkipped, id, &changes::delivery_skipped())?;
    Ok(Ok(Delivery { is_blocking: false, ..delivery }))
}

/// Lets the orders proceed that have stopped at one of these deliveries: their content is erased, so that nothing could
/// be retried or shown.
pub fn unblock_erased(tx: &mut WriteTx<'_>, deliveries: &[RowKey]) -> Result<(), rusqlite::Error> {
    for key in deliveries {
        let lane = tx
            .connection
            .prepare_cached(
                "SELECT lane_key, workspace_key FROM ordered_lanes JOIN deliveries ON deliveries.key = blocked_by
                 WHERE blocked_by = ?1",
            )?
            .query_row([key.as_i64()], lane::from_row)
            .optional()?;
        if let Some(lane) = lane {
            unblock(tx, lane)?;
        }
    }
    Ok(())
}

/// Removes the order of a deleted endpoint.
pub fn remove(tx: &WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached("DELETE FROM ordered_lanes WHERE lane_key = ?1")?.execute([endpoint_key.as_i64()])?;
    Ok(())
}

/// Removes the order of every endpoint of a deleted workspace.
pub fn remove_of_workspace(tx: &WriteTx<'_>, workspace_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM ordered_lanes WHERE lane_key IN (SELECT key FROM endpoints WHERE workspace_key = ?1)",
        )?
        .execute([workspace_key.as_i64()])?;
    Ok(())
}

/// Fails deliveries in strict order that waited too long behind an inactive or paused endpoint, or behind a block. They
/// expire from the front, so that the rest of the order has no gap.
pub fn expire_waiting(tx: &mut WriteTx<'_>, limit: usize) -> Result<usize, rusqlite::Error> {
    let too_long_ago = tx.now.minus(limits::WAITING_MAX);
    let lanes = tx
        .connection
        .prepare_cached(
            // Differs from PostgreSQL: the indexes and the join order are fixed. The planner has no statistics here,
            // and might walk all lanes.
            "SELECT l.lane_key, l.workspace_key FROM lanes l INDEXED BY lanes_held
                 CROSS JOIN ordered_lanes o ON o.lane_key = l.lane_key
             WHERE l.held_since IS NOT NULL AND l.held_since <= ?1
             UNION
             SELECT l.lane_key, l.workspace_key FROM lanes l INDEXED BY lanes_paused
                 CROSS JOIN ordered_lanes o ON o.lane_key = l.lane_key
             WHERE l.paused_since IS NOT NULL AND l.paused_since <= ?1
             UNION
             SELECT l.lane_key, l.workspace_key FROM lanes l INDEXED BY lanes_of_listeners
                 CROSS JOIN ordered_lanes o ON o.lane_key = l.lane_key
             WHERE l.not_before = 9223372036854775807
             UNION
             SELECT l.lane_key, l.workspace_key FROM ordered_lanes o INDEXED BY ordered_lanes_by_age
                 CROSS JOIN lanes l ON l.lane_key = o.lane_key
             WHERE o.blocked_since IS NOT NULL AND o.blocked_since <= ?1",
        )?
        .query_map([too_long_ago.millis()], lane::from_row)?
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
    tracing::warn!(
        %delivery_id,
        "the strict order of an endpoint stops at a failed delivery; it proceeds when that is skipped or retried"
    );
    tx.connection
        .prepare_cached(
            "UPDATE ordered_lanes SET blocked_by = ?2, blocked_sequence = ?3,
                                      blocked_since = COALESCE(blocked_since, ?4)
             WHERE lane_key = ?1",
        )?
        .execute(params![lane_key(lane), delivery_key.as_i64(), sequence, tx.now.millis()])?;
    Ok(())
}

/// Returns whether there was a block.
fn remove_block(tx: &mut WriteTx<'_>, lane_key: i64) -> Result<bool, rusqlite::Error> {
    let changed = tx
        .connection
        .prepare_cached(
            "UPDATE ordered_lanes SET blocked_by = NULL, blocked_sequence = NULL, blocked_since = NULL
             WHERE lane_key = ?1 AND blocked_by IS NOT NULL",
        )?
        .execute([lane_key])?;
    if changed > 0 {
        stats::trouble_ended(tx, RowKey::from_i64(lane_key))?;
    }
    Ok(changed > 0)
}

/// Whether the order of an endpoint has stopped.
pub fn is_blocked(tx: &WriteTx<'_>, endpoint_key: RowKey) -> Result<bool, rusqlite::Error> {
    tx.connection
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM ordered_lanes WHERE lane_key = ?1 AND blocked_by IS NOT NULL)")?
        .query_row([endpoint_key.as_i64()], |row| row.get(0))
}

/// Makes the first row of the order due. It is due since it was accepted, so that it is sent before a replay queued
/// since. Its lane is ready from now, as any other.
fn move_up(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    let Some(first) = find_first(tx, lane)? else { return Ok(()) };
    let due_at = first.created_at().min(tx.now);
    let moved = tx
        .connection
        .prepare_cached("UPDATE due SET due_at = ?2 WHERE delivery_key = ?1 AND due_at = ?3")?
        .execute(params![first.as_i64(), due_at.millis(), NOT_YET.millis()])?;
    if moved > 0 {
        lane::lower_next_at(tx, lane, tx.now)?;
        tx.claims.left_due = true;
    }
    Ok(())
}

fn find_first(tx: &WriteTx<'_>, lane: Lane) -> Result<Option<RowKey>, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "SELECT delivery_key FROM due WHERE lane_key = ?1 AND sequence IS NOT NULL ORDER BY sequence LIMIT 1",
        )?
        .query_row([lane_key(lane)], |row| Ok(RowKey::from_i64(row.get(0)?)))
        .optional()
}
