//! Lanes: one row for each endpoint with something in the queue. The only file that writes `lanes`.
//!
//! **The row is the lock.** A transaction that enqueues a due row inserts the row first and then lowers the lane's
//! `next_at`. To lower it, the transaction waits for a claim that holds the lane. A claim that holds the lane reads its
//! rows before it raises `next_at`. So a claim that raises the bound has seen the row, or the writer of the row comes
//! later and lowers the bound again.
//!
//! **Most rows are not due when they are enqueued.** They were handed over and fall due when their lease ends. For
//! these it is enough that the lane stays and is visited in time. So their writers share the lane (`FOR KEY SHARE`)
//! with each other and with a claim (`FOR NO KEY UPDATE`), and commits for one endpoint run in parallel. In return, a
//! claim raises `next_at` by at most [`VISIT_INTERVAL`] unless it has the lane to itself (`FOR UPDATE`). Only then may
//! it delete the lane.
//!
//! Several lanes are locked in the order of their keys.
//!
//! Differs from SQLite: there one writer runs at a time, so a lane needs no lock and no interval.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio_postgres::Row;

use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::Lane;
use postrider_store::queue::lane::{LaneBound, lane_key, lane_of};
use postrider_store::queue::order::NOT_YET;

use crate::machinery::column::{get, instant, int, key, opt_instant};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;

/// The bounds of lanes, by lane key.
pub type LaneBounds = HashMap<i64, LaneBound>;

/// By lane key: the lane's workspace, and when something in it falls due.
pub type LaneDueTimes = BTreeMap<i64, (RowKey, Timestamp)>;

/// The current bounds of these lanes, without a lock. A lane without a row is missing from the result.
pub async fn bounds(session: &Session, lane_keys: &Vec<i64>) -> Result<LaneBounds, PgError> {
    read_bounds(session, lane_keys, "").await
}

/// Locks these lanes and returns their bounds.
pub async fn lock(session: &Session, lane_keys: &Vec<i64>) -> Result<LaneBounds, PgError> {
    read_bounds(session, lane_keys, "ORDER BY lane_key FOR NO KEY UPDATE").await
}

/// Locks these lanes also against transactions that share them.
pub async fn lock_exclusively(tx: &WriteTx, lane_keys: &Vec<i64>) -> Result<(), PgError> {
    tx.query("SELECT 1 FROM lanes WHERE lane_key = ANY($1) ORDER BY lane_key FOR UPDATE", &[lane_keys]).await?;
    Ok(())
}

async fn read_bounds(session: &Session, lane_keys: &Vec<i64>, how: &str) -> Result<LaneBounds, PgError> {
    let sql = format!(
        "SELECT lane_key, next_at, held_since IS NOT NULL OR not_before IS NOT NULL AS held
         FROM lanes WHERE lane_key = ANY($1) {how}"
    );
    let rows = session.query(&sql, &[lane_keys]).await?;
    rows.iter()
        .map(|row| {
            let next_at = Timestamp::from_millis(int(row, "next_at")?);
            let bound = if get(row, "held")? { LaneBound::Held } else { LaneBound::NotBefore(next_at) };
            Ok((int(row, "lane_key")?, bound))
        })
        .collect()
}

/// How often a lane with claimed rows is visited. A row handed over during a visit falls due after twice as long.
const VISIT_INTERVAL: Duration = Duration::from_secs(limits::LEASE.as_secs() / 2);

/// Ensures that lanes with new rows are visited by these instants. A lane that is visited in time anyway is only
/// shared, not updated.
pub async fn ensure_visited_by(tx: &WriteTx, mut lanes: LaneDueTimes) -> Result<(), PgError> {
    let later = lanes.iter().filter(|(_, (_, at))| *at > tx.now);
    let (keys, instants): (Vec<i64>, Vec<i64>) = later.map(|(key, (_, at))| (*key, at.millis())).unzip();
    if !keys.is_empty() {
        let sql = "SELECT lane_key FROM lanes JOIN unnest($1, $2) AS new (lane_key, at) USING (lane_key)
                   WHERE next_at <= at ORDER BY lane_key FOR KEY SHARE OF lanes";
        for row in tx.query(sql, &[&keys, &instants]).await? {
            lanes.remove(&int(&row, "lane_key")?);
        }
    }
    lower_next_at(tx, &lanes).await
}

/// Ensures that lanes are visited by these instants.
pub async fn lower_next_at(tx: &WriteTx, lanes: &LaneDueTimes) -> Result<(), PgError> {
    if lanes.is_empty() {
        return Ok(());
    }
    let keys: Vec<i64> = lanes.keys().copied().collect();
    let workspaces: Vec<i64> = lanes.values().map(|(workspace, _)| workspace.as_i64()).collect();
    let instants: Vec<i64> = lanes.values().map(|(_, at)| at.millis()).collect();
    let sql = "INSERT INTO lanes (lane_key, workspace_key, next_at)
               SELECT * FROM unnest($1, $2, $3) AS new (lane_key, workspace_key, next_at) ORDER BY lane_key
               ON CONFLICT (lane_key) DO UPDATE
               SET next_at = GREATEST(excluded.next_at, COALESCE(lanes.not_before, excluded.next_at))
               WHERE lanes.next_at > excluded.next_at RETURNING lane_key, next_at";
    for row in tx.query(sql, &[&keys, &workspaces, &instants]).await? {
        // A listener's lane: its bound stays where it is, and its consumers wait for what is in it.
        if instant(&row, "next_at")? == NOT_YET {
            let lane_key = int(&row, "lane_key")?;
            if let Some((workspace, _)) = lanes.get(&lane_key).filter(|(_, at)| *at != NOT_YET) {
                tx.claims.wake_listener(lane_of(lane_key, *workspace).endpoint_key);
            }
        }
    }
    Ok(())
}

/// Leaves a lane to the consumers of a listener: the engine never visits it, and its row stays until the listener is
/// deleted.
pub async fn give_to_listener(tx: &WriteTx, lane: Lane) -> Result<(), PgError> {
    let sql = "INSERT INTO lanes (lane_key, workspace_key, next_at, not_before) VALUES ($1, $2, $3, $3)
               ON CONFLICT (lane_key) DO UPDATE
               SET not_before = excluded.not_before, next_at = excluded.next_at, paused_since = NULL";
    tx.execute(sql, &[&lane_key(lane), &lane.workspace_key.as_i64(), &NOT_YET.millis()]).await?;
    tx.claims.wake_listener(lane.endpoint_key);
    Ok(())
}

/// Ensures that a lane is visited by `at`.
pub async fn lower_one(tx: &WriteTx, lane: Lane, at: Timestamp) -> Result<(), PgError> {
    lower_next_at(tx, &LaneDueTimes::from([(lane_key(lane), (lane.workspace_key, at))])).await
}

/// Keeps an endpoint's queue from being claimed. Its tests are claimed all the same.
pub async fn hold(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    let sql = "UPDATE lanes SET held_since = $2 WHERE lane_key = $1 AND held_since IS NULL";
    tx.execute(sql, &[&endpoint_key.as_i64(), &tx.now.millis()]).await?;
    Ok(())
}

/// Holds the lanes of several endpoints, as [`hold`] does.
pub async fn hold_all(tx: &WriteTx, endpoint_keys: &Vec<i64>) -> Result<(), PgError> {
    if !endpoint_keys.is_empty() {
        let sql = "UPDATE lanes SET held_since = $2 WHERE lane_key = ANY($1) AND held_since IS NULL";
        tx.execute(sql, &[endpoint_keys, &tx.now.millis()]).await?;
    }
    Ok(())
}

/// Keeps a lane from being claimed before `until`. From then on a paused endpoint gets one claim at a time. Such a lane
/// keeps its row even when it is empty.
pub async fn delay(
    tx: &mut WriteTx,
    lane: Lane,
    until: Timestamp,
    paused_since: Option<Timestamp>,
) -> Result<(), PgError> {
    let sql =
        "INSERT INTO lanes (lane_key, workspace_key, next_at, not_before, paused_since) VALUES ($1, $2, $3, $4, $5)
               ON CONFLICT (lane_key) DO UPDATE
               SET not_before = excluded.not_before, paused_since = excluded.paused_since,
                   next_at = GREATEST(lanes.next_at, excluded.not_before)";
    let paused_since = paused_since.map(Timestamp::millis);
    let workspace_key = lane.workspace_key.as_i64();
    tx.execute(sql, &[&lane_key(lane), &workspace_key, &NOT_YET.millis(), &until.millis(), &paused_since]).await?;
    // The new bound may lie behind a row that is due by then.
    raise_next_at(tx, &vec![lane_key(lane)]).await
}

/// Ends [`delay`].
pub async fn resume(tx: &mut WriteTx, lane: Lane) -> Result<(), PgError> {
    tx.claims.left_due = true;
    let sql = "UPDATE lanes SET not_before = NULL, paused_since = NULL, next_at = LEAST(next_at, $2)
               WHERE lane_key = $1 AND not_before IS NOT NULL";
    tx.execute(sql, &[&lane_key(lane), &tx.now.millis()]).await?;
    Ok(())
}

/// Ends [`hold`] and [`delay`].
pub async fn release(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.claims.left_due = true;
    let sql = "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = LEAST(next_at, $2)
               WHERE lane_key = $1";
    tx.execute(sql, &[&endpoint_key.as_i64(), &tx.now.millis()]).await?;
    Ok(())
}

/// Releases all lanes of a workspace that has just been deleted, so that the next claims cancel their rows.
pub async fn release_of_workspace(tx: &mut WriteTx, workspace_key: RowKey) -> Result<(), PgError> {
    tx.claims.left_due = true;
    let sql = "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = LEAST(next_at, $2)
               WHERE lane_key IN (SELECT sign * key FROM endpoints, unnest(ARRAY[1, -1]) AS sign WHERE workspace_key = $1)";
    tx.execute(sql, &[&workspace_key.as_i64(), &tx.now.millis()]).await?;
    Ok(())
}

/// Moves lanes behind all other ready lanes.
pub async fn move_behind_others(tx: &WriteTx, lane_keys: &Vec<i64>) -> Result<(), PgError> {
    if !lane_keys.is_empty() {
        tx.execute("UPDATE lanes SET next_at = $2 WHERE lane_key = ANY($1)", &[lane_keys, &tx.now.millis()]).await?;
    }
    Ok(())
}

/// Sets the bound of each lane to its earliest row, but to no later than `$3`. Returns for each lane whether its
/// earliest row is later.
pub const RAISE_NEXT_AT: &str =
    "UPDATE lanes SET next_at = GREATEST(LEAST(COALESCE(earliest.due_at, $2), $3), COALESCE(not_before, 0))
               FROM unnest($1) AS chosen (lane_key) CROSS JOIN LATERAL
                    (SELECT (SELECT due_at FROM due WHERE due.lane_key = chosen.lane_key ORDER BY due_at LIMIT 1)) AS earliest (due_at)
               WHERE lanes.lane_key = chosen.lane_key
               RETURNING lanes.lane_key, COALESCE(earliest.due_at, $2) > $3 AS is_later";

/// Raises the bounds of lanes to their earliest rows, as far as concurrent handovers permit. Deletes an empty lane
/// unless it is delayed.
///
/// The transaction must hold the lanes, locked by an earlier statement.
pub async fn raise_next_at(tx: &WriteTx, lane_keys: &Vec<i64>) -> Result<(), PgError> {
    if lane_keys.is_empty() {
        return Ok(());
    }
    let (never, soon) = (NOT_YET.millis(), tx.now.plus(VISIT_INTERVAL).millis());
    let mut later = Vec::new();
    for row in tx.query(RAISE_NEXT_AT, &[lane_keys, &never, &soon]).await? {
        if get::<bool>(&row, "is_later")? {
            later.push(int(&row, "lane_key")?);
        }
    }
    if later.is_empty() {
        return Ok(());
    }
    let sql = "SELECT lane_key FROM lanes WHERE lane_key = ANY($1) ORDER BY lane_key FOR UPDATE SKIP LOCKED";
    let own = tx.query(sql, &[&later]).await?;
    let own = own.iter().map(|row| int(row, "lane_key")).collect::<Result<Vec<_>, _>>()?;
    if own.is_empty() {
        return Ok(());
    }
    tx.query(RAISE_NEXT_AT, &[&own, &never, &never]).await?;
    let sql = "DELETE FROM lanes WHERE lane_key = ANY($1) AND paused_since IS NULL AND COALESCE(not_before, 0) <= $2
               AND NOT EXISTS (SELECT 1 FROM due WHERE due.lane_key = lanes.lane_key)";
    tx.execute(sql, &[&own, &tx.now.millis()]).await?;
    Ok(())
}

/// Resets the bounds of lanes whose claims were released while no node uses the store. A paused lane waits for its next
/// probe again instead of the end of a probe's lease.
pub async fn reset_released(session: &Session) -> Result<(), PgError> {
    let sql = "UPDATE lanes SET not_before = health.next_probe_at FROM endpoint_health AS health
               WHERE health.endpoint_key = lanes.lane_key AND lanes.paused_since IS NOT NULL AND health.next_probe_at IS NOT NULL";
    session.execute(sql, &[]).await?;
    let sql = "UPDATE lanes SET next_at = GREATEST(COALESCE(
                   (SELECT due_at FROM due WHERE due.lane_key = lanes.lane_key ORDER BY due_at LIMIT 1), $1), COALESCE(not_before, 0))
               WHERE paused_since IS NOT NULL OR lane_key IN (SELECT lane_key FROM due WHERE claim_token IS NOT NULL)";
    session.execute(sql, &[&NOT_YET.millis()]).await?;
    Ok(())
}

/// The lane in `lane_key` and `workspace_key`.
pub fn from_row(row: &Row) -> Result<Lane, PgError> {
    Ok(lane_of(int(row, "lane_key")?, key(row, "workspace_key")?))
}

/// Since when a lane's endpoint is paused.
pub fn paused_since(row: &Row) -> Result<Option<Timestamp>, PgError> {
    opt_instant(row, "paused_since")
}
