//! Strict order: an endpoint's deliveries one at a time, in the order in which their events were accepted. The only
//! file that writes `ordered_lanes`; it also moves `due_at` of rows in an order. The rules stand in
//! `postrider_store::queue::order`.
//!
//! Differs from SQLite: the row in `ordered_lanes` is the lock of an order. A transaction locks it before it reads the
//! order, both to accept into it and to end its head. Of two concurrent transactions the second sees the effect of the
//! first, so an order with waiting deliveries always has a head.

use std::collections::HashMap;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{Delivery, DeliveryStatus, EndReason};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::id::{DeliveryId, RowKey};
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::log::changes;
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::{NOT_YET, blocks};
use postrider_store::{Lane, LaneKind, SkipDeliveryError};

use super::lane::{self, lower_one};
use super::unsent::{Unsent, end_unsent, unsent_from_row};
use crate::log::{audit, delivery};
use crate::machinery::column::{get, instant, int, key};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;
use crate::publish::matching;
use crate::stats;

/// Allocates positions in each of these lanes, `wanted` as (lane key, count). Returns by lane key the last position,
/// and whether the first one is the head.
pub async fn allocate_positions(tx: &WriteTx, wanted: &[(i64, i64)]) -> Result<HashMap<i64, (i64, bool)>, PgError> {
    let (keys, counts): (Vec<i64>, Vec<i64>) = wanted.iter().copied().unzip();
    let sql = "INSERT INTO ordered_lanes (lane_key, last_sequence)
               SELECT * FROM unnest($1, $2) AS new (lane_key, count) ORDER BY lane_key
               ON CONFLICT (lane_key) DO UPDATE SET last_sequence = ordered_lanes.last_sequence + excluded.last_sequence
               RETURNING lane_key, last_sequence, blocked_by IS NOT NULL AS is_blocked";
    let positions = tx.query(sql, &[&keys, &counts]).await?;
    let sql = "SELECT lane_key FROM unnest($1) AS lane (lane_key)
               WHERE EXISTS (SELECT 1 FROM due WHERE due.lane_key = lane.lane_key AND sequence IS NOT NULL)";
    let waiting = tx.query(sql, &[&keys]).await?;
    let waiting = waiting.iter().map(|row| int(row, "lane_key")).collect::<Result<Vec<_>, _>>()?;
    positions
        .iter()
        .map(|row| {
            let lane_key = int(row, "lane_key")?;
            let first_is_head = !get::<bool>(row, "is_blocked")? && !waiting.contains(&lane_key);
            Ok((lane_key, (int(row, "last_sequence")?, first_is_head)))
        })
        .collect()
}

/// Locks the orders of these lanes. Required before a head is removed from the queue.
pub async fn lock(tx: &WriteTx, lane_keys: &Vec<i64>) -> Result<(), PgError> {
    if !lane_keys.is_empty() {
        let sql = "SELECT 1 FROM ordered_lanes WHERE lane_key = ANY($1) ORDER BY lane_key FOR UPDATE";
        tx.query(sql, &[lane_keys]).await?;
    }
    Ok(())
}

/// Continues an order whose head has ended and left the queue: the next delivery moves up, or the order is blocked. The
/// order is locked.
pub async fn after_head(
    tx: &mut WriteTx,
    delivery_key: RowKey,
    sequence: i64,
    reason: Option<EndReason>,
) -> Result<(), PgError> {
    let sql = "SELECT endpoint_key AS lane_key, workspace_key FROM deliveries WHERE key = $1";
    let lane = lane::from_row(&tx.query_one(sql, &[&delivery_key.as_i64()]).await?)?;
    if blocks(reason) && is_strict(tx, lane).await? {
        block(tx, lane, delivery_key, sequence).await
    } else {
        move_up(tx, lane).await
    }
}

/// Makes the head due by `at` instead of at its next step. In a strict order only the head can be a paused endpoint's
/// probe.
pub async fn advance_head(tx: &mut WriteTx, lane: Lane, at: Timestamp) -> Result<(), PgError> {
    if !is_strict(tx, lane).await? {
        return Ok(());
    }
    let Some(head) = find_first(tx, lane).await? else { return Ok(()) };
    let sql = "UPDATE due SET due_at = $2
               WHERE delivery_key = $1 AND due_at > $2 AND due_at < $3 AND claim_token IS NULL";
    tx.execute(sql, &[&head.as_i64(), &at.millis(), &NOT_YET.millis()]).await?;
    Ok(())
}

/// Takes over the position of a delivery that blocks its lane, and ends the block. `None` when it blocks none.
pub async fn take_blocked_position(tx: &mut WriteTx, delivery_key: RowKey) -> Result<Option<i64>, PgError> {
    let sql = "SELECT lane_key, blocked_sequence FROM ordered_lanes WHERE blocked_by = $1 FOR UPDATE";
    let Some(row) = tx.query_opt(sql, &[&delivery_key.as_i64()]).await? else { return Ok(None) };
    remove_block(tx, int(&row, "lane_key")?).await?;
    int(&row, "blocked_sequence").map(Some)
}

/// Ends the block of an order, if it is blocked. The next delivery moves up.
pub async fn unblock(tx: &mut WriteTx, lane: Lane) -> Result<(), PgError> {
    if remove_block(tx, lane_key(lane)).await? {
        move_up(tx, lane).await?;
    }
    Ok(())
}

/// Gives up the delivery at which its endpoint's order has stopped.
pub async fn skip(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    id: DeliveryId,
) -> Result<Result<Delivery, SkipDeliveryError>, PgError> {
    let sql = "SELECT lane_key FROM ordered_lanes WHERE blocked_by = $1 FOR UPDATE";
    let blocked = tx.query_opt(sql, &[&id.key().as_i64()]).await?;
    let Some(delivery) = delivery::find_one(tx, tx.tag, tenant, id).await? else {
        return Ok(Err(SkipDeliveryError::NotFound));
    };
    let Some(blocked) = blocked.filter(|_| delivery.is_blocking) else {
        return Ok(Err(SkipDeliveryError::NotBlocking));
    };
    let endpoint_key = key(&blocked, "lane_key")?;
    unblock(tx, Lane { workspace_key: tenant.workspace, endpoint_key, kind: LaneKind::Events }).await?;
    audit::append(tx, tenant.workspace, author, AuditAction::DeliverySkipped, id, &changes::delivery_skipped()).await?;
    Ok(Ok(Delivery { is_blocking: false, ..delivery }))
}

/// Lets the orders proceed that have stopped at one of these deliveries: their content is erased, so that nothing could
/// be retried or shown.
pub async fn unblock_erased(tx: &mut WriteTx, deliveries: &Vec<i64>) -> Result<(), PgError> {
    let sql = "SELECT lane_key, workspace_key FROM ordered_lanes JOIN deliveries ON deliveries.key = blocked_by
               WHERE blocked_by = ANY ($1) ORDER BY lane_key FOR UPDATE OF ordered_lanes";
    for row in &tx.query(sql, &[deliveries]).await? {
        unblock(tx, lane::from_row(row)?).await?;
    }
    Ok(())
}

/// Deletes the order of an endpoint that has just been deleted.
pub async fn remove(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.execute("DELETE FROM ordered_lanes WHERE lane_key = $1", &[&endpoint_key.as_i64()]).await?;
    Ok(())
}

/// Deletes the orders of all endpoints of a workspace that has just been deleted.
pub async fn remove_of_workspace(tx: &mut WriteTx, workspace_key: RowKey) -> Result<(), PgError> {
    let sql = "DELETE FROM ordered_lanes WHERE lane_key IN (SELECT key FROM endpoints WHERE workspace_key = $1)";
    tx.execute(sql, &[&workspace_key.as_i64()]).await?;
    Ok(())
}

/// Fails deliveries that have waited too long in an order: behind an inactive or paused endpoint, or behind a block.
/// They fail from the front, so that the rest has no gap.
pub async fn expire_waiting(tx: &mut WriteTx, limit: usize) -> Result<usize, PgError> {
    let oldest_allowed = tx.now.minus(limits::WAITING_MAX);
    let sql = "SELECT l.lane_key, l.workspace_key FROM lanes l JOIN ordered_lanes o ON o.lane_key = l.lane_key
               WHERE l.held_since IS NOT NULL AND l.held_since <= $1
               UNION
               SELECT l.lane_key, l.workspace_key FROM lanes l JOIN ordered_lanes o ON o.lane_key = l.lane_key
               WHERE l.paused_since IS NOT NULL AND l.paused_since <= $1
               UNION
               SELECT l.lane_key, l.workspace_key FROM lanes l JOIN ordered_lanes o ON o.lane_key = l.lane_key
               WHERE l.not_before = 9223372036854775807
               UNION
               SELECT l.lane_key, l.workspace_key FROM ordered_lanes o JOIN lanes l ON l.lane_key = o.lane_key
               WHERE o.blocked_since IS NOT NULL AND o.blocked_since <= $1";
    let lanes = tx.query(sql, &[&oldest_allowed.millis()]).await?;
    let mut expired = 0;
    for row in &lanes {
        if expired == limit {
            break;
        }
        expired += expire_from_lane(tx, lane::from_row(row)?, oldest_allowed, limit - expired).await?;
    }
    Ok(expired)
}

async fn expire_from_lane(
    tx: &mut WriteTx,
    lane: Lane,
    oldest_allowed: Timestamp,
    limit: usize,
) -> Result<usize, PgError> {
    lock(tx, &vec![lane_key(lane)]).await?;
    let sql = "SELECT delivery_key, attempts, claimed_at, sequence, due_at FROM due
               WHERE lane_key = $1 AND sequence IS NOT NULL ORDER BY sequence LIMIT $2 FOR UPDATE";
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = tx.query(sql, &[&lane_key(lane), &limit]).await?;
    let (mut waited, mut last) = (Vec::<Unsent>::new(), None);
    for row in &rows {
        let (unsent, due_at) = (unsent_from_row(row)?, instant(row, "due_at")?);
        let is_old = unsent.delivery_key.created_at() <= oldest_allowed;
        if !is_old || (due_at != NOT_YET && due_at > oldest_allowed) {
            break;
        }
        last = Some((unsent.delivery_key, int(row, "sequence")?));
        waited.push(unsent);
    }
    end_unsent(tx, &waited, DeliveryStatus::Failed, EndReason::Expired).await?;
    if let Some((delivery_key, sequence)) = last {
        after_head(tx, delivery_key, sequence, Some(EndReason::Expired)).await?;
    }
    Ok(waited.len())
}

async fn is_strict(tx: &mut WriteTx, lane: Lane) -> Result<bool, PgError> {
    let target = matching::target(tx, Lane { kind: LaneKind::Events, ..lane }).await?;
    Ok(target.is_some_and(|target| target.options.ordering == DeliveryOrder::Strict))
}

async fn block(tx: &WriteTx, lane: Lane, delivery_key: RowKey, sequence: i64) -> Result<(), PgError> {
    let delivery_id = DeliveryId::new(delivery_key, tx.tag);
    tracing::warn!(%delivery_id, "a strict order stopped at a failed delivery; skip or retry it to continue");
    let sql = "UPDATE ordered_lanes
               SET blocked_by = $2, blocked_sequence = $3, blocked_since = COALESCE(blocked_since, $4) WHERE lane_key = $1";
    tx.execute(sql, &[&lane_key(lane), &delivery_key.as_i64(), &sequence, &tx.now.millis()]).await?;
    Ok(())
}

/// Whether the lane was blocked.
async fn remove_block(tx: &WriteTx, lane_key: i64) -> Result<bool, PgError> {
    let sql = "UPDATE ordered_lanes SET blocked_by = NULL, blocked_sequence = NULL, blocked_since = NULL
               WHERE lane_key = $1 AND blocked_by IS NOT NULL";
    let was_blocked = tx.execute(sql, &[&lane_key]).await? > 0;
    if was_blocked {
        stats::trouble_ended(tx, RowKey::from_i64(lane_key)).await?;
    }
    Ok(was_blocked)
}

/// Whether the order of an endpoint has stopped.
pub async fn is_blocked(tx: &WriteTx, endpoint_key: RowKey) -> Result<bool, PgError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM ordered_lanes WHERE lane_key = $1 AND blocked_by IS NOT NULL) AS found";
    get(&tx.query_one(sql, &[&endpoint_key.as_i64()]).await?, "found")
}

/// Makes the first delivery of the order due. Its `due_at` is the instant of its acceptance, so it goes before a replay
/// queued later. Its lane is ready from now on, like any other.
async fn move_up(tx: &mut WriteTx, lane: Lane) -> Result<(), PgError> {
    let Some(first) = find_first(tx, lane).await? else { return Ok(()) };
    let due_at = first.created_at().min(tx.now);
    let sql = "UPDATE due SET due_at = $2 WHERE delivery_key = $1 AND due_at = $3";
    let moved = tx.execute(sql, &[&first.as_i64(), &due_at.millis(), &NOT_YET.millis()]).await?;
    if moved > 0 {
        lower_one(tx, lane, tx.now).await?;
        tx.claims.left_due = true;
    }
    Ok(())
}

/// The delivery with the lowest position.
async fn find_first(session: &Session, lane: Lane) -> Result<Option<RowKey>, PgError> {
    let sql = "SELECT delivery_key FROM due WHERE lane_key = $1 AND sequence IS NOT NULL ORDER BY sequence LIMIT 1";
    session.query_opt(sql, &[&lane_key(lane)]).await?.map(|row| key(&row, "delivery_key")).transpose()
}
