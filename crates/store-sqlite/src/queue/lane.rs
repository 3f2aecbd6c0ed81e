//! Lanes: one row for each endpoint with something in the queue.
//!
//! The writer caches the bounds of lanes. It alone writes `lanes`, so its cache is exact until a rollback, which clears
//! it. The cache saves a statement for each delivery whose lane has a low enough bound already.
//!
//! Differs from PostgreSQL: there several nodes write `lanes`, so a lane needs a lock, and no bound is cached.
//!
//! Writes `lanes`.

use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::Lane;
use postrider_store::queue::lane::{LaneBound, lane_key, lane_of};
use postrider_store::queue::order::NOT_YET;

use crate::machinery::writer::WriteTx;

pub const SELECT_BOUND: &str =
    "SELECT next_at, held_since IS NOT NULL OR not_before IS NOT NULL FROM lanes WHERE lane_key = ?1";

pub const LOWER_NEXT_AT: &str = "INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (?1, ?2, ?3)
     ON CONFLICT (lane_key) DO UPDATE SET next_at = max(excluded.next_at, ifnull(not_before, excluded.next_at))
     WHERE next_at > excluded.next_at";

/// As [`LOWER_NEXT_AT`], for a lane of which nothing is known. The result tells whether it is a listener's.
pub const LOWER_UNKNOWN: &str = "INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (?1, ?2, ?3)
     ON CONFLICT (lane_key) DO UPDATE SET next_at = max(excluded.next_at, ifnull(not_before, excluded.next_at))
     WHERE next_at > excluded.next_at RETURNING next_at";

pub const SELECT_EARLIEST: &str = "SELECT due_at FROM due WHERE lane_key = ?1 ORDER BY due_at LIMIT 1";

pub const RAISE_NEXT_AT: &str = "UPDATE lanes SET next_at = max(?2, ifnull(not_before, ?2)) WHERE lane_key = ?1";

/// Whether something in the lane may be due now, so that a newer delivery must not overtake it.
pub fn may_have_due(tx: &mut WriteTx<'_>, lane: Lane) -> Result<bool, rusqlite::Error> {
    let bound = match tx.lanes.get(lane_key(lane)) {
        Some(bound) => bound,
        None => {
            let bound = find_bound(tx, lane)?;
            tx.lanes.set(lane_key(lane), bound);
            bound
        }
    };
    Ok(bound.may_have_due(tx.now))
}

fn find_bound(tx: &WriteTx<'_>, lane: Lane) -> Result<LaneBound, rusqlite::Error> {
    let found = tx
        .connection
        .prepare_cached(SELECT_BOUND)?
        .query_row([lane_key(lane)], |row| {
            let next_at = Timestamp::from_millis(row.get(0)?);
            Ok(if row.get(1)? { LaneBound::Held } else { LaneBound::NotBefore(next_at) })
        })
        .optional()?;
    Ok(found.unwrap_or(LaneBound::Empty))
}

/// Lowers the bound to `at`, so that claims look at the lane by then. Creates the lane if it has no row.
pub fn lower_next_at(tx: &mut WriteTx<'_>, lane: Lane, at: Timestamp) -> Result<(), rusqlite::Error> {
    let parameters = params![lane_key(lane), lane.workspace_key.as_i64(), at.millis()];
    match tx.lanes.get(lane_key(lane)) {
        Some(LaneBound::NotBefore(next_at)) if next_at <= at => {}
        Some(LaneBound::NotBefore(_) | LaneBound::Empty) => {
            tx.lanes.set(lane_key(lane), LaneBound::NotBefore(at));
            tx.connection.prepare_cached(LOWER_NEXT_AT)?.execute(parameters)?;
        }
        Some(LaneBound::OfListener) => wake_listener(tx, lane, at),
        Some(LaneBound::Held) | None => {
            let mut statement = tx.connection.prepare_cached(LOWER_UNKNOWN)?;
            let next_at: Option<i64> = statement.query_row(parameters, |row| row.get(0)).optional()?;
            if next_at == Some(NOT_YET.millis()) && at != NOT_YET {
                tx.lanes.set(lane_key(lane), LaneBound::OfListener);
                wake_listener(tx, lane, at);
            }
        }
    }
    Ok(())
}

/// What is parked behind a head wakes nobody.
fn wake_listener(tx: &WriteTx<'_>, lane: Lane, at: Timestamp) {
    if at != NOT_YET {
        tx.claims.wake_listener(lane.endpoint_key);
    }
}

/// Leaves a lane to the consumers of a listener: the engine never visits it, and its row stays until the listener is
/// deleted.
pub fn give_to_listener(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.lanes.set(lane_key(lane), LaneBound::OfListener);
    tx.connection
        .prepare_cached(
            "INSERT INTO lanes (lane_key, workspace_key, next_at, not_before) VALUES (?1, ?2, ?3, ?3)
             ON CONFLICT (lane_key) DO UPDATE SET not_before = excluded.not_before, next_at = excluded.next_at,
                                                  paused_since = NULL",
        )?
        .execute(params![lane_key(lane), lane.workspace_key.as_i64(), NOT_YET.millis()])?;
    wake_listener(tx, lane, tx.now);
    Ok(())
}

/// Stops claims of an inactive endpoint's deliveries. Its tests are still claimed.
pub fn hold(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.lanes.remove(endpoint_key.as_i64());
    tx.connection
        .prepare_cached("UPDATE lanes SET held_since = ?2 WHERE lane_key = ?1 AND held_since IS NULL")?
        .execute(params![endpoint_key.as_i64(), tx.now.millis()])?;
    Ok(())
}

/// Claims nothing of the lane before `until`. From then on, if its endpoint is paused, one claim at a time. A delayed
/// lane keeps its row even when it is empty.
pub fn delay(
    tx: &mut WriteTx<'_>,
    lane: Lane,
    until: Timestamp,
    paused_since: Option<Timestamp>,
) -> Result<(), rusqlite::Error> {
    tx.lanes.set(lane_key(lane), LaneBound::Held);
    tx.connection
        .prepare_cached(
            "INSERT INTO lanes (lane_key, workspace_key, next_at, not_before, paused_since) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (lane_key) DO UPDATE SET not_before = excluded.not_before,
                                                  paused_since = excluded.paused_since,
                                                  next_at = max(next_at, excluded.not_before)",
        )?
        .execute(params![
            lane_key(lane),
            lane.workspace_key.as_i64(),
            NOT_YET.millis(),
            until.millis(),
            paused_since.map(Timestamp::millis),
        ])?;
    // The old bound may be later than the first row that is due after the delay.
    raise_next_at(tx, lane)
}

/// Ends a [`delay`].
pub fn resume(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.claims.left_due = true;
    tx.lanes.remove(lane_key(lane));
    tx.connection
        .prepare_cached(
            "UPDATE lanes SET not_before = NULL, paused_since = NULL, next_at = min(next_at, ?2)
             WHERE lane_key = ?1 AND not_before IS NOT NULL",
        )?
        .execute(params![lane_key(lane), tx.now.millis()])?;
    Ok(())
}

/// Allows claims of an endpoint's deliveries again, whatever stopped them.
pub fn release(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.claims.left_due = true;
    tx.lanes.remove(endpoint_key.as_i64());
    tx.connection
        .prepare_cached(
            "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = min(next_at, ?2)
             WHERE lane_key = ?1",
        )?
        .execute(params![endpoint_key.as_i64(), tx.now.millis()])?;
    Ok(())
}

/// Releases all lanes of a deleted workspace, so that the next claims cancel their deliveries.
pub fn release_of_workspace(tx: &mut WriteTx<'_>, workspace: RowKey) -> Result<(), rusqlite::Error> {
    tx.claims.left_due = true;
    tx.lanes.clear();
    tx.connection
        .prepare_cached(
            "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = min(next_at, ?2)
             WHERE workspace_key = ?1",
        )?
        .execute(params![workspace.as_i64(), tx.now.millis()])?;
    Ok(())
}

/// Serves every other lane that has something due before this one. Lanes are served in the order of `next_at`, so this
/// write pays only when not all lanes can be served at once.
pub fn move_behind_others(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.lanes.set(lane_key(lane), LaneBound::NotBefore(tx.now));
    tx.connection
        .prepare_cached("UPDATE lanes SET next_at = ?2 WHERE lane_key = ?1")?
        .execute(params![lane_key(lane), tx.now.millis()])?;
    Ok(())
}

pub fn from_row(row: &Row<'_>) -> Result<Lane, rusqlite::Error> {
    Ok(lane_of(row.get(0)?, RowKey::from_i64(row.get(1)?)))
}

/// Sets a lane's bound to its first due row. An empty lane loses its row, unless it is delayed or paused.
pub fn raise_next_at(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    tx.lanes.remove(lane_key(lane));
    let earliest: Option<i64> =
        tx.connection.prepare_cached(SELECT_EARLIEST)?.query_row([lane_key(lane)], |row| row.get(0)).optional()?;
    match earliest {
        Some(at) => tx.connection.prepare_cached(RAISE_NEXT_AT)?.execute(params![lane_key(lane), at])?,
        None => {
            let kept = tx
                .connection
                .prepare_cached(
                    "UPDATE lanes SET next_at = ?2
                     WHERE lane_key = ?1 AND (paused_since IS NOT NULL OR not_before > ?3)",
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

/// Lanes in the cache.
const LANES_CACHED: usize = 100_000;

/// The writer's cache of lane bounds, by lane key.
pub struct LaneCache(BoundedCache<i64, LaneBound>);

impl LaneCache {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn get(&self, lane_key: i64) -> Option<LaneBound> {
        self.0.get(&lane_key).copied()
    }

    fn set(&mut self, lane_key: i64, bound: LaneBound) {
        self.0.insert(lane_key, bound);
    }

    fn remove(&mut self, lane_key: i64) {
        self.0.remove(&lane_key);
    }
}

impl Default for LaneCache {
    fn default() -> Self {
        Self(BoundedCache::new(LANES_CACHED))
    }
}
