//! Replays: jobs that walk an endpoint's log and queue again what it did not receive.
//!
//! Writes `replays`.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{EndpointId, ReplayId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplayStatus};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::replay::{
    Candidate, LIVE_FIRST, REPLAYS_PER_STEP, ROWS_PER_COUNT, ROWS_PER_STEP, RunningReplay, Verdict, counted,
    project_from, statuses_from_text, statuses_to_text, step_rows,
};
use postrider_store::{NewReplay, ReplayScope, Replays, RequeueError, StopReplayError, StoreError, Write, Written};

use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::{broken, coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};
use crate::publish::requeue;
use crate::queue::due;
use crate::registry::endpoint;
use crate::stored_bytes;

#[async_trait]
impl Replays for SqliteStore {
    async fn count_replayable(
        &self,
        scope: ReplayScope,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError> {
        self.read(move |tx| {
            let rows = candidates(tx.connection, &scope, after, ROWS_PER_COUNT)?;
            Ok(counted(&rows, ROWS_PER_COUNT))
        })
        .await
    }

    async fn create_replay(&self, write: Write<Replay>, new: NewReplay) -> Result<Written<Replay>, RequeueError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| create(tx, write.tenant, write.author, &new)).await
    }

    async fn list_replays(
        &self,
        tenant: Tenant,
        endpoint_id: EndpointId,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError> {
        self.read(move |tx| list(tx, tenant, endpoint_id, page)).await
    }

    async fn find_replay(
        &self,
        tenant: Tenant,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError> {
        self.read(move |tx| find(tx, tenant, endpoint_id, id)).await
    }

    async fn stop_replay(
        &self,
        write: Write<Replay>,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Written<Replay>, StopReplayError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| {
            if let Some(replay) = find(tx.as_read(), write.tenant, endpoint_id, id)? {
                end(tx, id.key(), ReplayStatus::Stopped)?;
                let stopped = changes::replay_stopped(replay.status);
                audit::append(tx, write.tenant.workspace, write.author, AuditAction::ReplayStopped, id, &stopped)?;
            }
            Ok(find(tx.as_read(), write.tenant, endpoint_id, id)?.ok_or(StopReplayError::NotFound))
        })
        .await
    }
}

/// The next rows of the log after `after`, in order, each with its verdict. Only deliveries of the replay's own mode
/// count: stores from before endpoints had a mode hold deliveries of test mode to live endpoints.
fn candidates(
    connection: &Connection,
    scope: &ReplayScope,
    after: RowKey,
    limit: usize,
) -> Result<Vec<Candidate>, rusqlite::Error> {
    let ReplayScope { endpoint_key, mode, range, project } = scope;
    let statuses = statuses_to_text(range).replace(' ', ", ");
    let sql = format!(
        "SELECT d.key, d.event_key,
                CASE WHEN d.cause = ?5 AND d.mode = ?6 AND d.status IN ({statuses})
                          AND (?9 IS NULL OR EXISTS
                              (SELECT 1 FROM events WHERE key = d.event_key AND project_id = ?9))
                          AND NOT EXISTS (
                         SELECT 1 FROM deliveries later
                         WHERE later.event_key = d.event_key AND later.endpoint_key = d.endpoint_key
                           AND later.key > d.key AND later.mode = ?6 AND later.status IN (?7, ?8))
                     THEN 1 + EXISTS (SELECT 1 FROM events WHERE events.key = d.event_key) ELSE 0 END AS verdict
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
                mode_code(*mode),
                DeliveryStatus::Pending.code(),
                DeliveryStatus::Delivered.code(),
                project.as_ref().map(ProjectId::as_str),
            ],
            |row| {
                Ok(Candidate {
                    key: RowKey::from_i64(row.get(0)?),
                    event_key: RowKey::from_i64(row.get(1)?),
                    verdict: coded(row, "verdict", Verdict::from_code)?,
                })
            },
        )?
        .collect()
}

fn create(tx: &mut WriteTx<'_>, tenant: Tenant, author: Author, new: &NewReplay) -> WriteResult<Replay, RequeueError> {
    let Some(endpoint) = endpoint::find(tx.connection, tenant, new.endpoint_id)? else {
        return Ok(Err(RequeueError::NotFound));
    };
    if !endpoint.is_active {
        return Ok(Err(RequeueError::EndpointOff));
    }
    if let Some(max) = stored_bytes::exceeded_budget(tx, tenant.workspace, 0)? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    let key = tx.next_key();
    tx.connection
        .prepare_cached(
            "INSERT INTO replays (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total,
                                  project_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10)",
        )?
        .execute(params![
            key.as_i64(),
            tenant.workspace.as_i64(),
            endpoint.key.as_i64(),
            mode_code(tenant.mode),
            new.range.since.millis(),
            new.range.until.millis(),
            statuses_to_text(&new.range),
            ReplayStatus::Running.code(),
            i64::try_from(new.total).unwrap_or(i64::MAX),
            tenant.project_text(),
        ])?;
    let id = ReplayId::new(key, tx.tag);
    let found = find(tx.as_read(), tenant, new.endpoint_id, id)?;
    let replay = found.ok_or_else(|| unexpected("replays.key"))?;
    let started = changes::replay_started(&replay);
    audit::append(tx, tenant.workspace, author, AuditAction::ReplayStarted, id, &started)?;
    Ok(Ok(replay))
}

const REPLAY_SELECT: &str =
    "SELECT r.key, ep.id AS endpoint_id, r.mode, r.since, r.until, r.statuses, r.status, r.total, r.replayed,
            r.unavailable, r.completed_at
     FROM replays r JOIN endpoints ep ON ep.key = r.endpoint_key";

fn replay_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Replay, rusqlite::Error> {
    Ok(Replay {
        id: ReplayId::new(RowKey::from_i64(row.get("key")?), tag),
        endpoint_id: parsed(row, "endpoint_id")?,
        mode: coded(row, "mode", mode_from_code)?,
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

fn list(
    tx: ReadTx<'_>,
    tenant: Tenant,
    endpoint_id: EndpointId,
    page: PageRequest,
) -> Result<Option<Page<Replay>>, rusqlite::Error> {
    let Some(endpoint) = endpoint::find(tx.connection, tenant, endpoint_id)? else { return Ok(None) };
    let items = tx
        .connection
        .prepare_cached(&format!(
            "{REPLAY_SELECT} WHERE r.endpoint_key = ?1 AND r.mode = ?2 AND r.key < ?3 ORDER BY r.key DESC LIMIT ?4"
        ))?
        .query_map(
            params![endpoint.key.as_i64(), mode_code(tenant.mode), page.before().as_i64(), page.limit() + 1],
            |row| replay_from_row(row, tx.tag),
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(page.cut(items, |replay| replay.id.key())))
}

fn find(
    tx: ReadTx<'_>,
    tenant: Tenant,
    endpoint_id: EndpointId,
    id: ReplayId,
) -> Result<Option<Replay>, rusqlite::Error> {
    if id.tag() != tx.tag {
        return Ok(None);
    }
    tx.connection
        .prepare_cached(&format!(
            "{REPLAY_SELECT} WHERE r.key = ?1 AND r.workspace_key = ?2 AND ep.id = ?3 AND r.mode = ?4 AND ep.mode = ?4
               AND (?5 IS NULL OR ep.project_id = ?5)"
        ))?
        .query_row(
            params![
                id.key().as_i64(),
                tenant.workspace.as_i64(),
                endpoint_id.to_string(),
                mode_code(tenant.mode),
                tenant.project_text(),
            ],
            |row| replay_from_row(row, tx.tag),
        )
        .optional()
}

/// Ends a replay, unless it has ended already.
fn end(tx: &WriteTx<'_>, key: RowKey, status: ReplayStatus) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE replays SET status = ?2, completed_at = ?3 WHERE key = ?1 AND status = ?4")?
        .execute(params![key.as_i64(), status.code(), tx.now.millis(), ReplayStatus::Running.code()])?;
    Ok(())
}

/// One step of [`Upkeep::advance_replays`](postrider_store::Upkeep::advance_replays).
pub fn advance(tx: &mut WriteTx<'_>) -> Result<Option<usize>, rusqlite::Error> {
    let running = tx
        .connection
        .prepare_cached(
            "SELECT r.key, r.workspace_key, r.endpoint_key, r.mode, r.since, r.until, r.statuses, r.cursor,
                    r.project_id
             FROM replays r JOIN endpoints e ON e.key = r.endpoint_key
             WHERE r.status = 0 AND (e.is_active = 1 OR e.deleted_at IS NOT NULL) ORDER BY random() LIMIT ?1",
        )?
        .query_map([REPLAYS_PER_STEP], |row| {
            Ok(RunningReplay {
                key: RowKey::from_i64(row.get("key")?),
                workspace: RowKey::from_i64(row.get("workspace_key")?),
                scope: ReplayScope {
                    endpoint_key: RowKey::from_i64(row.get("endpoint_key")?),
                    mode: coded(row, "mode", mode_from_code)?,
                    range: range_from_row(row)?,
                    project: project_from(row.get_ref("project_id")?.as_str_or_null()?).map_err(broken)?,
                },
                cursor: RowKey::from_i64(row.get("cursor")?),
            })
        })?
        .collect::<Result<Vec<_>, _>>()?;
    if running.is_empty() {
        // A replay that is left waits until its endpoint is active.
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

/// Advances one replay by up to `limit` rows. Returns the number of rows passed.
fn advance_one(tx: &mut WriteTx<'_>, replay: &RunningReplay, limit: usize) -> Result<usize, rusqlite::Error> {
    if due::count_due(tx, replay.scope.endpoint_key, LIVE_FIRST)? >= LIVE_FIRST {
        return Ok(0);
    }
    let rows = candidates(tx.connection, &replay.scope, replay.cursor, limit)?;
    let (mut queued, mut unavailable, mut passed) = (0, 0, 0_usize);
    for row in step_rows(&rows) {
        match row.verdict {
            Verdict::Ignored => {}
            Verdict::Unavailable => unavailable += 1,
            Verdict::Sent => match requeue::queue(tx, &replay.requeue(row))? {
                Ok(_) => queued += 1,
                // The rest waits until the endpoint is active.
                Err(RequeueError::EndpointOff | RequeueError::WorkspaceFull { .. }) => break,
                Err(RequeueError::EndpointDeleted | RequeueError::NotFound) => {
                    end(tx, replay.key, ReplayStatus::Stopped)?;
                    break;
                }
                Err(RequeueError::Store(error)) => {
                    return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error)));
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
