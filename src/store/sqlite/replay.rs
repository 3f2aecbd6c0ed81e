//! Replays: jobs that walk an endpoint's log and queue again what it did not get.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::access::Mode;
use crate::domain::audit::{AuditAction, Author};
use crate::domain::delivery::{DeliveryCause, DeliveryStatus};
use crate::domain::id::{EndpointId, ReplayId, RowKey, StoreTag};
use crate::domain::page::{Page, PageRequest};
use crate::domain::replay::{Replay, ReplayCount, ReplayRange, ReplayStatus};
use crate::domain::time::Timestamp;
use crate::store::NewReplay;

use super::access::{mode_code, mode_from_code};
use super::column::{coded, parsed, unexpected};
use super::requeue::{Again, RequeueRefusal, queue_again};
use super::writer::WriteTx;
use super::{audit, due, endpoint};

/// Log rows looked at in one step, whatever comes of them: a few milliseconds.
const ROWS_PER_STEP: usize = 500;
/// Rows counted in one read.
const ROWS_PER_COUNT: usize = 20_000;
/// A replay waits while this many deliveries of its endpoint are due: live traffic comes first.
const LIVE_FIRST: usize = 50;

/// One row of the log, seen by a replay.
struct Candidate {
    key: RowKey,
    event_key: RowKey,
    matches: bool,
    has_payload: bool,
}

/// The next rows of the log after `after`, in order, each with whether the replay sends it.
fn candidates(
    connection: &Connection,
    endpoint_key: RowKey,
    range: &ReplayRange,
    after: RowKey,
    limit: usize,
) -> Result<Vec<Candidate>, rusqlite::Error> {
    let after = after.as_i64().max(RowKey::first_at(range.since).as_i64() - 1);
    connection
        .prepare_cached(
            "SELECT d.key, d.event_key, d.status, d.cause = ?7 AND NOT EXISTS (
                        SELECT 1 FROM deliveries later
                        WHERE later.event_key = d.event_key AND later.endpoint_key = d.endpoint_key
                          AND later.key > d.key AND later.status IN (?5, ?6)),
                    EXISTS (SELECT 1 FROM events WHERE events.key = d.event_key)
             FROM deliveries d WHERE d.endpoint_key = ?1 AND d.key > ?2 AND d.key < ?3 ORDER BY d.key LIMIT ?4",
        )?
        .query_map(
            params![
                endpoint_key.as_i64(),
                after,
                RowKey::first_at(range.until).as_i64(),
                limit,
                DeliveryStatus::Pending.code(),
                DeliveryStatus::Delivered.code(),
                DeliveryCause::Event.code(),
            ],
            |row| {
                let status = DeliveryStatus::from_code(row.get(2)?).ok_or_else(|| unexpected("deliveries.status"))?;
                Ok(Candidate {
                    key: RowKey::from_i64(row.get(0)?),
                    event_key: RowKey::from_i64(row.get(1)?),
                    matches: range.statuses.contains(&status) && row.get(3)?,
                    has_payload: row.get(4)?,
                })
            },
        )?
        .collect()
}

pub fn count(
    connection: &Connection,
    endpoint_key: RowKey,
    range: &ReplayRange,
    after: RowKey,
) -> Result<(ReplayCount, Option<RowKey>), rusqlite::Error> {
    let rows = candidates(connection, endpoint_key, range, after, ROWS_PER_COUNT)?;
    let mut count = ReplayCount::default();
    for row in rows.iter().filter(|row| row.matches) {
        count.total += 1;
        count.unavailable += u64::from(!row.has_payload);
    }
    let more = rows.len() == ROWS_PER_COUNT;
    Ok((count, rows.last().filter(|_| more).map(|row| row.key)))
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
    let statuses: Vec<String> = new.range.statuses.iter().map(|status| status.code().to_string()).collect();
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
            statuses.join(" "),
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
    let statuses: String = row.get("statuses")?;
    let statuses = statuses
        .split(' ')
        .map(|code| code.parse().ok().and_then(DeliveryStatus::from_code).ok_or_else(|| unexpected("replays.statuses")))
        .collect::<Result<_, _>>()?;
    Ok(ReplayRange {
        since: Timestamp::from_millis(row.get("since")?),
        until: Timestamp::from_millis(row.get("until")?),
        statuses,
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
) -> Result<Option<Replay>, rusqlite::Error> {
    if find(tx.connection, tx.tag, workspace_key, endpoint_id, id)?.is_some() {
        end(tx, id.key(), ReplayStatus::Stopped)?;
        audit::append(tx, workspace_key, author, AuditAction::ReplayStopped, id)?;
    }
    find(tx.connection, tx.tag, workspace_key, endpoint_id, id)
}

/// Ends a replay, unless it has ended already.
fn end(tx: &WriteTx<'_>, key: RowKey, status: ReplayStatus) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE replays SET status = ?2, completed_at = ?3 WHERE key = ?1 AND status = ?4")?
        .execute(params![key.as_i64(), status.code(), tx.now.millis(), ReplayStatus::Running.code()])?;
    Ok(())
}

/// A replay that runs.
struct Running {
    key: RowKey,
    workspace_key: RowKey,
    endpoint_key: RowKey,
    mode: Mode,
    range: ReplayRange,
    cursor: RowKey,
}

pub fn advance(tx: &mut WriteTx<'_>) -> Result<Option<usize>, rusqlite::Error> {
    let running = tx
        .connection
        .prepare_cached(
            "SELECT key, workspace_key, endpoint_key, mode, since, until, statuses, cursor FROM replays
             WHERE status = 0 ORDER BY key",
        )?
        .query_map([], |row| {
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
        return Ok(None);
    }
    let mut queued = 0;
    for replay in &running {
        queued += advance_one(tx, replay)?;
        if queued >= ROWS_PER_STEP {
            break;
        }
    }
    Ok(Some(queued))
}

fn advance_one(tx: &mut WriteTx<'_>, replay: &Running) -> Result<usize, rusqlite::Error> {
    if due::count_due(tx, replay.endpoint_key, LIVE_FIRST)? >= LIVE_FIRST {
        return Ok(0);
    }
    let rows = candidates(tx.connection, replay.endpoint_key, &replay.range, replay.cursor, ROWS_PER_STEP)?;
    let (mut queued, mut unavailable, mut cursor) = (0, 0, replay.cursor);
    for row in &rows {
        if row.matches && row.has_payload {
            let again = Again {
                workspace_key: replay.workspace_key,
                endpoint_key: replay.endpoint_key,
                event_key: row.event_key,
                mode: replay.mode,
                cause: DeliveryCause::Replay,
                retry_of: Some(row.key),
            };
            match queue_again(tx, &again)? {
                Ok(_) => queued += 1,
                // What is left waits until the endpoint is on again.
                Err(RequeueRefusal::EndpointOff) => break,
                Err(RequeueRefusal::EndpointDeleted | RequeueRefusal::NotFound) => {
                    end(tx, replay.key, ReplayStatus::Stopped)?;
                    break;
                }
            }
        } else if row.matches {
            unavailable += 1;
        }
        cursor = row.key;
    }
    tx.connection
        .prepare_cached(
            "UPDATE replays SET cursor = ?2, replayed = replayed + ?3, unavailable = unavailable + ?4 WHERE key = ?1",
        )?
        .execute(params![replay.key.as_i64(), cursor.as_i64(), queued, unavailable])?;
    if rows.len() < ROWS_PER_STEP && rows.last().is_none_or(|last| last.key == cursor) {
        end(tx, replay.key, ReplayStatus::Completed)?;
    }
    Ok(queued)
}
