//! Lanes: one row for each endpoint with something in the queue. The only file that writes `lanes`.
//!
//! The writer also remembers `lanes.next_at` of the lanes it wrote. It alone writes them, so what it remembers is exact
//! until a rollback, which forgets everything; it spares a statement for each delivery where the bound in the table is low
//! enough already.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::Lane;
use postrider_store::queue::lane::lane_of;

pub use postrider_store::queue::lane::lane_key;

use super::order::NOT_YET;
use super::writer::WriteTx;

/// Whether something in the lane may be due now, so that a newer delivery must not overtake it.
pub fn may_have_due(tx: &mut WriteTx<'_>, lane: Lane) -> Result<bool, rusqlite::Error> {
    let bound = match tx.lanes.get(lane_key(lane)) {
        Some(bound) => bound,
        None => {
            let bound = tx
                .connection
                .prepare_cached(
                    "SELECT next_at, held_since IS NOT NULL OR not_before IS NOT NULL FROM lanes WHERE lane_key = ?1",
                )?
                .query_row([lane_key(lane)], |row| {
                    let next_at = Timestamp::from_millis(row.get(0)?);
                    Ok(if row.get(1)? { LaneBound::Held } else { LaneBound::NotBefore(next_at) })
                })
                .optional()?
                .unwrap_or(LaneBound::Empty);
            tx.lanes.set(lane_key(lane), bound);
            bound
        }
    };
    Ok(match bound {
        LaneBound::Empty => false,
        LaneBound::NotBefore(next_at) => next_at <= tx.now,
        LaneBound::Held => true,
    })
}

/// Makes sure that a lane is looked at by `at`.
pub fn lower_next_at(tx: &mut WriteTx<'_>, lane: Lane, at: Timestamp) -> Result<(), rusqlite::Error> {
    match tx.lanes.get(lane_key(lane)) {
        Some(LaneBound::NotBefore(next_at)) if next_at <= at => return Ok(()),
        Some(LaneBound::NotBefore(_) | LaneBound::Empty) => tx.lanes.set(lane_key(lane), LaneBound::NotBefore(at)),
        Some(LaneBound::Held) | None => {}
    }
    tx.connection
        .prepare_cached(
            "INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (lane_key) DO UPDATE SET next_at = max(excluded.next_at, ifnull(not_before, excluded.next_at))
             WHERE next_at > excluded.next_at",
        )?
        .execute(params![lane_key(lane), lane.workspace_key.as_i64(), at.millis()])?;
    Ok(())
}

/// Keeps what waits for an endpoint from being claimed; tests go on.
pub fn hold_lane(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.lanes.forget(endpoint_key.as_i64());
    tx.connection
        .prepare_cached("UPDATE lanes SET held_since = ?2 WHERE lane_key = ?1 AND held_since IS NULL")?
        .execute(params![endpoint_key.as_i64(), tx.now.millis()])?;
    Ok(())
}

/// Leaves a lane alone until this instant; from then on, if its endpoint is paused, but for one claim at a time. Such a lane
/// stays when it is empty.
pub fn leave_alone(
    tx: &mut WriteTx<'_>,
    lane: Lane,
    until: Timestamp,
    paused_since: Option<Timestamp>,
) -> Result<(), rusqlite::Error> {
    tx.lanes.set(lane_key(lane), LaneBound::Held);
    tx.connection
        .prepare_cached(
            "INSERT INTO lanes (lane_key, workspace_key, next_at, not_before, paused_since) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (lane_key) DO UPDATE SET not_before = excluded.not_before, paused_since = excluded.paused_since,
                                                  next_at = max(next_at, excluded.not_before)",
        )?
        .execute(params![
            lane_key(lane),
            lane.workspace_key.as_i64(),
            NOT_YET.millis(),
            until.millis(),
            paused_since.map(Timestamp::millis),
        ])?;
    // The bound may lie beyond what is due by then.
    raise_next_at(tx, lane)
}

/// Ends [`leave_alone`].
pub fn leave_alone_no_more(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.claims.left_due = true;
    tx.lanes.forget(lane_key(lane));
    tx.connection
        .prepare_cached(
            "UPDATE lanes SET not_before = NULL, paused_since = NULL, next_at = min(next_at, ?2)
             WHERE lane_key = ?1 AND not_before IS NOT NULL",
        )?
        .execute(params![lane_key(lane), tx.now.millis()])?;
    Ok(())
}

/// Lets what waits for an endpoint go on.
pub fn release_lane(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.claims.left_due = true;
    tx.lanes.forget(endpoint_key.as_i64());
    tx.connection
        .prepare_cached(
            "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = min(next_at, ?2)
             WHERE lane_key = ?1",
        )?
        .execute(params![endpoint_key.as_i64(), tx.now.millis()])?;
    Ok(())
}

/// Lets the next claims cancel what waits for the endpoints of a workspace, which have just been deleted.
pub fn release_workspace(tx: &mut WriteTx<'_>, workspace_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.claims.left_due = true;
    tx.lanes.forget_everything();
    tx.connection
        .prepare_cached(
            "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = min(next_at, ?2)
             WHERE workspace_key = ?1",
        )?
        .execute(params![workspace_key.as_i64(), tx.now.millis()])?;
    Ok(())
}

/// Lets every other lane that has something due go first. Only `next_at` says whose turn it is, so this is worth a write
/// when not all lanes can be served at once.
pub fn move_behind_others(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.lanes.set(lane_key(lane), LaneBound::NotBefore(tx.now));
    tx.connection
        .prepare_cached("UPDATE lanes SET next_at = ?2 WHERE lane_key = ?1")?
        .execute(params![lane_key(lane), tx.now.millis()])?;
    Ok(())
}

pub fn lane_from_row(row: &Row<'_>) -> Result<Lane, rusqlite::Error> {
    Ok(lane_of(row.get(0)?, RowKey::from_i64(row.get(1)?)))
}

/// Sets a lane's bound to what it really holds; a lane that holds nothing goes, unless its endpoint is being left alone.
pub fn raise_next_at(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.lanes.forget(lane_key(lane));
    let earliest: Option<i64> = tx
        .connection
        .prepare_cached("SELECT due_at FROM due WHERE lane_key = ?1 ORDER BY due_at LIMIT 1")?
        .query_row([lane_key(lane)], |row| row.get(0))
        .optional()?;
    match earliest {
        Some(at) => tx
            .connection
            .prepare_cached("UPDATE lanes SET next_at = max(?2, ifnull(not_before, ?2)) WHERE lane_key = ?1")?
            .execute(params![lane_key(lane), at])?,
        None => {
            let kept = tx
                .connection
                .prepare_cached(
                    "UPDATE lanes SET next_at = ?2 WHERE lane_key = ?1 AND (paused_since IS NOT NULL OR not_before > ?3)",
                )?
                .execute(params![lane_key(lane), NOT_YET.millis(), tx.now.millis()])?;
            if kept > 0 {
                return Ok(());
            }
            tx.connection.prepare_cached("DELETE FROM lanes WHERE lane_key = ?1")?.execute([lane_key(lane)])?
        }
    };
    Ok(())
}

/// Lanes remembered; beyond it all are forgotten and read again when needed.
const LANES_KEPT: usize = 100_000;

/// What is known of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneBound {
    /// Nothing lies in it.
    Empty,
    /// Nothing in it is due before this instant.
    NotBefore(Timestamp),
    /// Its endpoint is off, or is being left alone.
    Held,
}

#[derive(Default)]
pub struct LaneBounds(HashMap<i64, LaneBound>);

impl LaneBounds {
    pub fn get(&self, lane_key: i64) -> Option<LaneBound> {
        self.0.get(&lane_key).copied()
    }

    pub fn set(&mut self, lane_key: i64, bound: LaneBound) {
        if self.0.len() >= LANES_KEPT {
            self.0.clear();
        }
        self.0.insert(lane_key, bound);
    }

    pub fn forget(&mut self, lane_key: i64) {
        self.0.remove(&lane_key);
    }

    pub fn forget_everything(&mut self) {
        self.0.clear();
    }
}
