//! Lanes: one row for each endpoint with something in the queue. The only file that writes `lanes`.
//!
//! A lane's row is also its lock. Whoever puts a row into the lane's queue that is due lowers its `next_at` afterwards, in the same
//! transaction, which waits for whoever has the lane; a claim that has the lane reads what lies in it before it raises `next_at`. So
//! a claim that raises it has seen the row, or the row's writer comes after it and lowers it again.
//!
//! Most rows are not due when they are put in: they were handed over, and are looked at when their lease runs out. For these it is
//! enough that the lane stays and is looked at in time, and so their writers share it (`FOR KEY SHARE`), with each other and with a
//! claim (`FOR NO KEY UPDATE`): commits for one endpoint run side by side. In return a claim raises `next_at` no further than
//! [`LOOKED_AT_EVERY`] unless it has the lane to itself (`FOR UPDATE`), and only then may the lane go.
//!
//! Rows of several lanes are locked in the order of their keys.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio_postgres::Row;

use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::Lane;

pub use postrider_store::queue::lane::{lane_key, lane_of};

use super::column::{get, int, key, opt_instant};
use super::fault::PgError;
use super::order::NOT_YET;
use super::session::Session;
use super::transaction::WriteTx;

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

impl LaneBound {
    /// Whether something in the lane may be due now, so that a newer delivery must not overtake it.
    pub fn may_have_due(self, now: Timestamp) -> bool {
        match self {
            Self::Empty => false,
            Self::NotBefore(next_at) => next_at <= now,
            Self::Held => true,
        }
    }
}

/// Lanes by their keys.
pub type Bounds = HashMap<i64, LaneBound>;

/// Lanes by their keys, each with its workspace and when something in it falls due.
pub type Lanes = BTreeMap<i64, (RowKey, Timestamp)>;

/// The bounds of these lanes as they are now; those that have no row are empty. Nothing is locked.
pub async fn bounds(session: &Session, lane_keys: &Vec<i64>) -> Result<Bounds, PgError> {
    read_bounds(session, lane_keys, "").await
}

/// Waits for whoever has these lanes, has them from then on, and tells their bounds as they are then.
pub async fn lock(session: &Session, lane_keys: &Vec<i64>) -> Result<Bounds, PgError> {
    read_bounds(session, lane_keys, "ORDER BY lane_key FOR NO KEY UPDATE").await
}

async fn read_bounds(session: &Session, lane_keys: &Vec<i64>, how: &str) -> Result<Bounds, PgError> {
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

/// How often a lane in which claims are under way is looked at: what was handed over while a claim looked falls due after twice
/// as long.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(limits::LEASE.as_secs() / 2);

/// Makes sure that lanes in which something new lies are looked at by these instants.
pub async fn look_by(tx: &WriteTx, mut lanes: Lanes) -> Result<(), PgError> {
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

/// Makes sure that lanes are looked at by these instants.
pub async fn lower_next_at(tx: &WriteTx, lanes: &Lanes) -> Result<(), PgError> {
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
               WHERE lanes.next_at > excluded.next_at";
    tx.execute(sql, &[&keys, &workspaces, &instants]).await?;
    Ok(())
}

/// Makes sure that a lane is looked at by `at`.
pub async fn lower_one(tx: &WriteTx, lane: Lane, at: Timestamp) -> Result<(), PgError> {
    lower_next_at(tx, &Lanes::from([(lane_key(lane), (lane.workspace_key, at))])).await
}

/// Keeps what waits for an endpoint from being claimed; tests go on.
pub async fn hold_lane(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    let sql = "UPDATE lanes SET held_since = $2 WHERE lane_key = $1 AND held_since IS NULL";
    tx.execute(sql, &[&endpoint_key.as_i64(), &tx.now.millis()]).await?;
    Ok(())
}

/// Leaves a lane alone until this instant; from then on, if its endpoint is paused, but for one claim at a time. Such a lane
/// stays when it is empty.
pub async fn leave_alone(
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
    // The bound may lie beyond what is due by then.
    raise_next_at(tx, &vec![lane_key(lane)]).await
}

/// Ends [`leave_alone`].
pub async fn leave_alone_no_more(tx: &mut WriteTx, lane: Lane) -> Result<(), PgError> {
    tx.claims.left_due = true;
    let sql = "UPDATE lanes SET not_before = NULL, paused_since = NULL, next_at = LEAST(next_at, $2)
               WHERE lane_key = $1 AND not_before IS NOT NULL";
    tx.execute(sql, &[&lane_key(lane), &tx.now.millis()]).await?;
    Ok(())
}

/// Lets what waits for an endpoint go on.
pub async fn release_lane(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.claims.left_due = true;
    let sql = "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = LEAST(next_at, $2)
               WHERE lane_key = $1";
    tx.execute(sql, &[&endpoint_key.as_i64(), &tx.now.millis()]).await?;
    Ok(())
}

/// Lets the next claims cancel what waits for the endpoints of a workspace, which have just been deleted.
pub async fn release_workspace(tx: &mut WriteTx, workspace_key: RowKey) -> Result<(), PgError> {
    tx.claims.left_due = true;
    let sql = "UPDATE lanes SET held_since = NULL, not_before = NULL, paused_since = NULL, next_at = LEAST(next_at, $2)
               WHERE lane_key IN (SELECT sign * key FROM endpoints, unnest(ARRAY[1, -1]) AS sign WHERE workspace_key = $1)";
    tx.execute(sql, &[&workspace_key.as_i64(), &tx.now.millis()]).await?;
    Ok(())
}

/// Lets every other lane that has something due go first.
pub async fn move_behind_others(tx: &WriteTx, lane_keys: &Vec<i64>) -> Result<(), PgError> {
    if !lane_keys.is_empty() {
        tx.execute("UPDATE lanes SET next_at = $2 WHERE lane_key = ANY($1)", &[lane_keys, &tx.now.millis()]).await?;
    }
    Ok(())
}

/// Sets the bounds of lanes by the earliest of what lies in each, but to no later than `$3`, and tells of each whether that was so.
pub const RAISE: &str =
    "UPDATE lanes SET next_at = GREATEST(LEAST(COALESCE(earliest.due_at, $2), $3), COALESCE(not_before, 0))
               FROM unnest($1) AS chosen (lane_key) CROSS JOIN LATERAL
                    (SELECT (SELECT due_at FROM due WHERE due.lane_key = chosen.lane_key ORDER BY due_at LIMIT 1)) AS earliest (due_at)
               WHERE lanes.lane_key = chosen.lane_key
               RETURNING lanes.lane_key, COALESCE(earliest.due_at, $2) > $3 AS is_later";

/// Sets the bounds of lanes to what they really hold, as far as nobody is handing over into them; one that holds nothing goes, unless
/// its endpoint is being left alone. The transaction has them locked, by a statement before this one.
pub async fn raise_next_at(tx: &WriteTx, lane_keys: &Vec<i64>) -> Result<(), PgError> {
    if lane_keys.is_empty() {
        return Ok(());
    }
    let (never, soon) = (NOT_YET.millis(), tx.now.plus(LOOKED_AT_EVERY).millis());
    let mut later = Vec::new();
    for row in tx.query(RAISE, &[lane_keys, &never, &soon]).await? {
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
    tx.query(RAISE, &[&own, &never, &never]).await?;
    let sql = "DELETE FROM lanes WHERE lane_key = ANY($1) AND paused_since IS NULL AND COALESCE(not_before, 0) <= $2
               AND NOT EXISTS (SELECT 1 FROM due WHERE due.lane_key = lanes.lane_key)";
    tx.execute(sql, &[&own, &tx.now.millis()]).await?;
    Ok(())
}

/// Sets the bounds of lanes whose claims and probes were released, when nobody uses the store: a paused lane waits for its next
/// probe again, not for the end of a probe's lease.
pub async fn settle_released(session: &Session) -> Result<(), PgError> {
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
pub fn lane_from_row(row: &Row) -> Result<Lane, PgError> {
    Ok(lane_of(int(row, "lane_key")?, key(row, "workspace_key")?))
}

/// Since when a lane's endpoint is paused.
pub fn paused_since(row: &Row) -> Result<Option<Timestamp>, PgError> {
    opt_instant(row, "paused_since")
}
