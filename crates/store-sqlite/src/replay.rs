//! Replays: jobs that walk an endpoint's log and queue again what it did not get.

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::id::{EndpointId, ReplayId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplayStatus};
use postrider_domain::time::Timestamp;
use postrider_store::NewReplay;

use super::column::{broken, coded, parsed, unexpected};
use super::requeue::queue_again;
use super::writer::WriteTx;
use super::{audit, due, endpoint};
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::publish::requeue::RequeueRefusal;
use postrider_store::replay::{
    Candidate, Fate, LIVE_FIRST, REPLAYS_PER_STEP, ROWS_PER_COUNT, ROWS_PER_STEP, Running, Scope, counted,
    statuses_from_text, statuses_to_text, stretch,
};

/// The next rows of the log after `after`, in order, each with what becomes of it. What a test key published was never meant
/// to arrive: only a replay with a test key, which sends nothing, looks at it.
fn candidates(
    connection: &Connection,
    scope: Scope<'_>,
    after: RowKey,
    limit: usize,
) -> Result<Vec<Candidate>, rusqlite::Error> {
    let Scope { endpoint_key, mode, range } = scope;
    let statuses = statuses_to_text(range).replace(' ', ", ");
    let sql = format!(
        "SELECT d.key, d.event_key,
                CASE WHEN d.cause = ?5 AND d.mode <= ?6 AND d.status IN ({statuses}) AND NOT EXISTS (
                         SELECT 1 FROM deliveries later
                         WHERE later.event_key = d.event_key AND later.endpoint_key = d.endpoint_key
                           AND later.key > d.key AND later.mode <= ?6 AND later.status IN (?7, ?8))
                     THEN 1 + EXISTS (SELECT 1 FROM events WHERE events.key = d.event_key) ELSE 0 END AS fate
         FROM deliveries d WHERE d.endpoint_key = ?1 AND d.key > ?2 AND d.key < ?3 ORDER BY d.key LIMIT ?4"
    );
    connection
        .prepare_cached(&sql)?
        .query_map(
            params![
                endpoint_key.as_i64(),
                scope.from(after),
                RowKey::first_at(range.until).as_i64(),
                limit,
                DeliveryCause::Event.code(),
                mode_code(mode),
                DeliveryStatus::Pending.code(),
                DeliveryStatus::Delivered.code(),
            ],
            |row| {
                Ok(Candidate {
                    key: RowKey::from_i64(row.get(0)?),
                    event_key: RowKey::from_i64(row.get(1)?),
                    fate: coded(row, "fate", Fate::from_code)?,
                })
            },
        )?
        .collect()
}

pub fn count(
    connection: &Connection,
    scope: Scope<'_>,
    after: RowKey,
) -> Result<(ReplayCount, Option<RowKey>), rusqlite::Error> {
    let rows = candidates(connection, scope, after, ROWS_PER_COUNT)?;
    Ok(counted(&rows, ROWS_PER_COUNT))
}

pub fn create(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    new: &NewReplay,
) -> Result<Result<Replay, RequeueRefusal>, rusqlite::Error> {
    let Some(endpoint) = endpoint::find(tx.connection, workspace_key, endpoint_id)? else {
        return Ok(Err(RequeueRefusal::NotFound));
    };
    if !endpoint.is_active {
        return Ok(Err(RequeueRefusal::EndpointOff));
    }
    let key = tx.next_key();
    tx.connection
        .prepare_cached(
            "INSERT INTO replays (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9)",
        )?
        .execute(params![
            key.as_i64(),
            workspace_key.as_i64(),
            endpoint.key.as_i64(),
            mode_code(new.author.mode),
            new.range.since.millis(),
            new.range.until.millis(),
            statuses_to_text(&new.range),
            ReplayStatus::Running.code(),
            i64::try_from(new.total).unwrap_or(i64::MAX),
        ])?;
    let id = ReplayId::new(key, tx.tag);
    audit::append(tx, workspace_key, new.author, AuditAction::ReplayStarted, id)?;
    let found = find(tx.connection, tx.tag, workspace_key, endpoint_id, id)?;
    found.map(Ok).ok_or_else(|| unexpected("replays.key"))
}

const REPLAY_SELECT: &str =
    "SELECT r.key, ep.id AS endpoint_id, r.since, r.until, r.statuses, r.status, r.total, r.replayed,
            r.unavailable, r.completed_at
     FROM replays r JOIN endpoints ep ON ep.key = r.endpoint_key";

fn replay_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Replay, rusqlite::Error> {
    Ok(Replay {
        id: ReplayId::new(RowKey::from_i64(row.get("key")?), tag),
        endpoint_id: parsed(row, "endpoint_id")?,
        range: range_from_row(row)?,
        status: coded(row, "status", ReplayStatus::from_code)?,
        total: row.get("total")?,
        replayed: row.get("replayed")?,
        unavailable: row.get("unavailable")?,
        completed_at: row.get::<_, Option<i64>>("completed_at")?.map(Timestamp::from_millis),
    })
}

fn range_from_row(row: &Row<'_>) -> Result<ReplayRange, rusqlite::Error> {
    Ok(ReplayRange {
        since: Timestamp::from_millis(row.get("since")?),
        until: Timestamp::from_millis(row.get("until")?),
        statuses: statuses_from_text(row.get_ref("statuses")?.as_str()?).map_err(broken)?,
    })
}

pub fn list(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    page: PageRequest,
) -> Result<Option<Page<Replay>>, rusqlite::Error> {
    let Some(endpoint) = endpoint::find(connection, workspace_key, endpoint_id)? else { return Ok(None) };
    let items = connection
        .prepare_cached(&format!(
            "{REPLAY_SELECT} WHERE r.endpoint_key = ?1 AND r.key < ?2 ORDER BY r.key DESC LIMIT ?3"
        ))?
        .query_map(params![endpoint.key.as_i64(), page.before().as_i64(), page.limit() + 1], |row| {
            replay_from_row(row, tag)
        })?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(page.cut(items, |replay| replay.id.key())))
}

pub fn find(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    id: ReplayId,
) -> Result<Option<Replay>, rusqlite::Error> {
    if id.tag() != tag {
        return Ok(None);
    }
    connection
        .prepare_cached(&format!("{REPLAY_SELECT} WHERE r.key = ?1 AND r.workspace_key = ?2 AND ep.id = ?3"))?
        .query_row(params![id.key().as_i64(), workspace_key.as_i64(), endpoint_id.to_string()], |row| {
            replay_from_row(row, tag)
        })
        .optional()
}

pub fn stop(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    id: ReplayId,
    author: Author,
) -> Result<Result<Replay, endpoint::NotFound>, rusqlite::Error> {
    if find(tx.connection, tx.tag, workspace_key, endpoint_id, id)?.is_some() {
        end(tx, id.key(), ReplayStatus::Stopped)?;
        audit::append(tx, workspace_key, author, AuditAction::ReplayStopped, id)?;
    }
    Ok(find(tx.connection, tx.tag, workspace_key, endpoint_id, id)?.ok_or(endpoint::NotFound))
}

/// Ends a replay, unless it has ended already.
fn end(tx: &WriteTx<'_>, key: RowKey, status: ReplayStatus) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE replays SET status = ?2, completed_at = ?3 WHERE key = ?1 AND status = ?4")?
        .execute(params![key.as_i64(), status.code(), tx.now.millis(), ReplayStatus::Running.code()])?;
    Ok(())
}

pub fn advance(tx: &mut WriteTx<'_>) -> Result<Option<usize>, rusqlite::Error> {
    let running = tx
        .connection
        .prepare_cached(
            "SELECT r.key, r.workspace_key, r.endpoint_key, r.mode, r.since, r.until, r.statuses, r.cursor
             FROM replays r JOIN endpoints e ON e.key = r.endpoint_key
             WHERE r.status = 0 AND (e.is_active = 1 OR e.deleted_at IS NOT NULL) ORDER BY random() LIMIT ?1",
        )?
        .query_map([REPLAYS_PER_STEP], |row| {
            Ok(Running {
                key: RowKey::from_i64(row.get("key")?),
                workspace_key: RowKey::from_i64(row.get("workspace_key")?),
                endpoint_key: RowKey::from_i64(row.get("endpoint_key")?),
                mode: coded(row, "mode", mode_from_code)?,
                range: range_from_row(row)?,
                cursor: RowKey::from_i64(row.get("cursor")?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    if running.is_empty() {
        // What is left, if anything, waits for its endpoint to be active again.
        let mut waiting = tx.connection.prepare_cached("SELECT 1 FROM replays WHERE status = 0 LIMIT 1")?;
        return Ok(waiting.exists([])?.then_some(0));
    }
    let rows_each = ROWS_PER_STEP / running.len();
    let mut passed = 0;
    for replay in &running {
        passed += advance_one(tx, replay, rows_each)?;
    }
    Ok(Some(passed))
}

/// Takes one replay up to `limit` rows further and returns how many it went.
fn advance_one(tx: &mut WriteTx<'_>, replay: &Running, limit: usize) -> Result<usize, rusqlite::Error> {
    if due::count_due(tx, replay.endpoint_key, LIVE_FIRST)? >= LIVE_FIRST {
        return Ok(0);
    }
    let rows = candidates(tx.connection, replay.scope(), replay.cursor, limit)?;
    let (mut queued, mut unavailable, mut passed) = (0, 0, 0_usize);
    for row in stretch(&rows) {
        match row.fate {
            Fate::Passed => {}
            Fate::Unavailable => unavailable += 1,
            Fate::Sent => match queue_again(tx, &replay.again(row))? {
                Ok(_) => queued += 1,
                // What is left waits until the endpoint is on again.
                Err(RequeueRefusal::EndpointOff) => break,
                Err(RequeueRefusal::EndpointDeleted | RequeueRefusal::NotFound) => {
                    end(tx, replay.key, ReplayStatus::Stopped)?;
                    break;
                }
            },
        }
        passed += 1;
    }
    let cursor = passed.checked_sub(1).map_or(replay.cursor, |last| rows[last].key);
    tx.connection
        .prepare_cached(
            "UPDATE replays SET cursor = ?2, replayed = replayed + ?3, unavailable = unavailable + ?4 WHERE key = ?1",
        )?
        .execute(params![replay.key.as_i64(), cursor.as_i64(), queued, unavailable])?;
    if rows.len() < limit && passed == rows.len() {
        end(tx, replay.key, ReplayStatus::Completed)?;
    }
    Ok(passed)
}
