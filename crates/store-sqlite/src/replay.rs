//! Replays: jobs that walk the log and queue again what an endpoint did not receive, or what passes a filter.
//!
//! Writes `replays`.

use std::collections::HashSet;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{EndpointId, ReplayId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplaySelection, ReplayStatus};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::filter_replay::{
    FOLLOWING_PER_STEP, FOLLOWING_QUEUED_PER_STEP, FilterScope, Found, LeftBehind, Plan, RunningFilterReplay,
    filter_from_text, filter_to_text,
};
use postrider_store::log::changes;
use postrider_store::replay::{
    Candidate, LIVE_FIRST, QUEUED_PER_STEP, REPLAYS_PER_STEP, ROWS_PER_COUNT, ROWS_PER_STEP, RunningReplay, Verdict,
    counted, project_from, statuses_from_text, statuses_to_text, step_rows,
};
use postrider_store::{NewReplay, ReplayScope, Replays, RequeueError, StopReplayError, StoreError, Write, Written};

use crate::SqliteStore;
use crate::log::{ahead, audit};
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

    async fn count_filtered(
        &self,
        scope: FilterScope,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError> {
        self.read(move |tx| Ok(find_filtered(tx, &scope, after, ROWS_PER_COUNT)?.counted(&scope))).await
    }

    async fn create_replay(&self, write: Write<Replay>, new: NewReplay) -> Result<Written<Replay>, RequeueError> {
        self.disk.check_growth()?;
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| create(tx, write.tenant, write.author, &new)).await
    }

    async fn list_replays(
        &self,
        tenant: Tenant,
        endpoint_id: Option<EndpointId>,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError> {
        self.read(move |tx| list(tx, tenant, endpoint_id, page)).await
    }

    async fn find_replay(
        &self,
        tenant: Tenant,
        endpoint_id: Option<EndpointId>,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError> {
        self.read(move |tx| find(tx, tenant, endpoint_id, id)).await
    }

    async fn stop_replay(
        &self,
        write: Write<Replay>,
        endpoint_id: Option<EndpointId>,
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
                     THEN 1 + EXISTS (SELECT 1 FROM events WHERE events.key = d.event_key AND payload = 0) ELSE 0 END AS verdict
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
                    endpoint_key: *endpoint_key,
                    event_key: RowKey::from_i64(row.get(1)?),
                    verdict: coded(row, "verdict", Verdict::from_code)?,
                })
            },
        )?
        .collect()
}

fn create(tx: &mut WriteTx<'_>, tenant: Tenant, author: Author, new: &NewReplay) -> WriteResult<Replay, RequeueError> {
    let (endpoint, filter) = match &new.selection {
        ReplaySelection::Filter(filter) => (None, Some(filter_to_text(filter))),
        ReplaySelection::Endpoint { id, range } => {
            let Some(endpoint) = endpoint::find(tx.connection, tenant, *id)? else {
                return Ok(Err(RequeueError::NotFound));
            };
            if !endpoint.is_active {
                return Ok(Err(RequeueError::EndpointOff));
            }
            (Some((endpoint.key, range)), None)
        }
    };
    if let Some(max) = stored_bytes::exceeded_budget(tx, tenant.workspace, 0)? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    let key = tx.next_key();
    tx.connection
        .prepare_cached(
            "INSERT INTO replays (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total,
                                  project_id, filter, counted_to)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            key.as_i64(),
            tenant.workspace.as_i64(),
            endpoint.map(|(key, _)| key.as_i64()),
            mode_code(tenant.mode),
            endpoint.map(|(_, range)| range.since.millis()),
            endpoint.map(|(_, range)| range.until.millis()),
            endpoint.map(|(_, range)| statuses_to_text(range)),
            ReplayStatus::Running.code(),
            i64::try_from(new.count.total).unwrap_or(i64::MAX),
            tenant.project_text(),
            filter,
            new.count.counted_to.map(Timestamp::millis),
        ])?;
    let id = ReplayId::new(key, tx.tag);
    let found = find(tx.as_read(), tenant, None, id)?;
    let replay = found.ok_or_else(|| unexpected("replays.key"))?;
    let started = changes::replay_started(&replay);
    audit::append(tx, tenant.workspace, author, AuditAction::ReplayStarted, id, &started)?;
    Ok(Ok(replay))
}

const REPLAY_SELECT: &str =
    "SELECT r.key, ep.id AS endpoint_id, r.mode, r.since, r.until, r.statuses, r.filter, r.status, r.total, r.counted_to,
            r.replayed, r.unavailable, r.completed_at
     FROM replays r LEFT JOIN endpoints ep ON ep.key = r.endpoint_key";

/// A tenant narrowed to a project sees the replays of its endpoints, and those by filter that were asked for within it.
const IS_OF_PROJECT: &str = "(?1 IS NULL OR ep.project_id = ?1 OR (r.endpoint_key IS NULL AND r.project_id = ?1))";

fn replay_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Replay, rusqlite::Error> {
    let selection = match row.get_ref("filter")?.as_str_or_null()? {
        Some(filter) => ReplaySelection::Filter(Box::new(filter_from_text(filter).map_err(broken)?)),
        None => ReplaySelection::Endpoint { id: parsed(row, "endpoint_id")?, range: range_from_row(row)? },
    };
    Ok(Replay {
        id: ReplayId::new(RowKey::from_i64(row.get("key")?), tag),
        selection,
        mode: coded(row, "mode", mode_from_code)?,
        status: coded(row, "status", ReplayStatus::from_code)?,
        total: row.get("total")?,
        counted_to: row.get::<_, Option<i64>>("counted_to")?.map(Timestamp::from_millis),
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
    endpoint_id: Option<EndpointId>,
    page: PageRequest,
) -> Result<Option<Page<Replay>>, rusqlite::Error> {
    let endpoint_key = match endpoint_id {
        None => None,
        Some(id) => match endpoint::find(tx.connection, tenant, id)? {
            Some(endpoint) => Some(endpoint.key.as_i64()),
            None => return Ok(None),
        },
    };
    let of = if endpoint_key.is_some() { "r.endpoint_key = ?5" } else { "?5 IS NULL AND r.workspace_key = ?6" };
    let items = tx
        .connection
        .prepare_cached(&format!(
            "{REPLAY_SELECT} WHERE {IS_OF_PROJECT} AND {of} AND ?6 IS NOT NULL AND r.mode = ?2 AND r.key < ?3
             ORDER BY r.key DESC LIMIT ?4"
        ))?
        .query_map(
            params![
                tenant.project_text(),
                mode_code(tenant.mode),
                page.before().as_i64(),
                page.limit() + 1,
                endpoint_key,
                tenant.workspace.as_i64(),
            ],
            |row| replay_from_row(row, tx.tag),
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(page.cut(items, |replay| replay.id.key())))
}

fn find(
    tx: ReadTx<'_>,
    tenant: Tenant,
    endpoint_id: Option<EndpointId>,
    id: ReplayId,
) -> Result<Option<Replay>, rusqlite::Error> {
    if id.tag() != tx.tag {
        return Ok(None);
    }
    tx.connection
        .prepare_cached(&format!(
            "{REPLAY_SELECT} WHERE {IS_OF_PROJECT} AND r.key = ?2 AND r.workspace_key = ?3 AND r.mode = ?4
               AND (ep.mode IS NULL OR ep.mode = ?4) AND (?5 IS NULL OR ep.id = ?5)"
        ))?
        .query_row(
            params![
                tenant.project_text(),
                id.key().as_i64(),
                tenant.workspace.as_i64(),
                mode_code(tenant.mode),
                endpoint_id.map(|id| id.to_string()),
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

/// A replay that may advance.
enum Running {
    OfEndpoint(RunningReplay),
    ByFilter(Box<RunningFilterReplay>),
}

/// One step of [`Upkeep::advance_replays`](postrider_store::Upkeep::advance_replays).
pub fn advance(tx: &mut WriteTx<'_>) -> Result<Option<usize>, rusqlite::Error> {
    let running = tx
        .connection
        .prepare_cached(
            "SELECT r.key, r.workspace_key, r.endpoint_key, r.mode, r.since, r.until, r.statuses, r.cursor,
                    r.project_id, r.filter, r.left_behind, w.deleted_at IS NOT NULL AS is_orphan
             FROM replays r JOIN workspaces w ON w.key = r.workspace_key
             LEFT JOIN endpoints e ON e.key = r.endpoint_key
             WHERE r.status = 0 AND (e.key IS NULL OR e.is_active = 1 OR e.deleted_at IS NOT NULL)
             ORDER BY random() LIMIT ?1",
        )?
        .query_map([REPLAYS_PER_STEP], running_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    if running.is_empty() {
        // A replay that is left waits until its endpoint is active.
        let mut waiting = tx.connection.prepare_cached("SELECT 1 FROM replays WHERE status = 0 LIMIT 1")?;
        return Ok(waiting.exists([])?.then_some(0));
    }
    let rows_each = ROWS_PER_STEP / running.len();
    let mut passed = 0;
    for replay in running {
        passed += match replay {
            Running::OfEndpoint(replay) => advance_one(tx, &replay, rows_each)?,
            Running::ByFilter(replay) => advance_filtered(tx, *replay, rows_each)?,
        };
    }
    Ok(Some(passed))
}

fn running_from_row(row: &Row<'_>) -> Result<Running, rusqlite::Error> {
    let (key, workspace) = (RowKey::from_i64(row.get("key")?), RowKey::from_i64(row.get("workspace_key")?));
    let (mode, cursor) = (coded(row, "mode", mode_from_code)?, RowKey::from_i64(row.get("cursor")?));
    let project = project_from(row.get_ref("project_id")?.as_str_or_null()?).map_err(broken)?;
    let Some(filter) = row.get_ref("filter")?.as_str_or_null()? else {
        let endpoint_key = RowKey::from_i64(row.get("endpoint_key")?);
        let scope = ReplayScope { endpoint_key, mode, range: range_from_row(row)?, project };
        return Ok(Running::OfEndpoint(RunningReplay { key, workspace, scope, cursor }));
    };
    Ok(Running::ByFilter(Box::new(RunningFilterReplay {
        key,
        scope: FilterScope {
            tenant: Tenant { workspace, mode, project },
            filter: filter_from_text(filter).map_err(broken)?,
            asked_at: key.created_at(),
        },
        cursor,
        left_behind: LeftBehind::from_text(row.get_ref("left_behind")?.as_str_or_null()?).map_err(broken)?,
        is_orphan: row.get("is_orphan")?,
    })))
}

/// Advances one replay by up to `limit` rows. Returns the number of rows passed.
fn advance_one(tx: &mut WriteTx<'_>, replay: &RunningReplay, limit: usize) -> Result<usize, rusqlite::Error> {
    if !has_room(tx, replay.scope.endpoint_key)? {
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
                Err(RequeueError::PayloadGone) => unavailable += 1,
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

/// The rows to repeat behind `after`, to any endpoint.
fn find_filtered(tx: ReadTx<'_>, scope: &FilterScope, after: RowKey, limit: usize) -> Result<Found, rusqlite::Error> {
    ahead::find(tx, scope, None, (after, RowKey::from_i64(i64::MAX)), limit)
}

/// Advances one replay by filter: first endpoints that it has left behind, then the walk. Returns the number of rows
/// passed, and one for a walk that found none.
fn advance_filtered(
    tx: &mut WriteTx<'_>,
    mut replay: RunningFilterReplay,
    limit: usize,
) -> Result<usize, rusqlite::Error> {
    if replay.is_orphan {
        end(tx, replay.key, ReplayStatus::Stopped)?;
        return Ok(1);
    }
    let (mut queued, mut unavailable, mut passed) = (0, 0, 0);
    let mut following = Vec::new();
    for (endpoint, after) in replay.left_behind.0.clone() {
        if following.len() < FOLLOWING_PER_STEP && has_room(tx, endpoint)? {
            following.push((endpoint, after));
        }
    }
    let limit = (limit / (following.len() + 1)).max(1);
    for (endpoint, after) in following {
        let found = ahead::find(tx.as_read(), &replay.scope, Some(endpoint), (after, replay.cursor), limit)?;
        let plan = replay.plan_following(endpoint, &found, FOLLOWING_QUEUED_PER_STEP.saturating_sub(queued));
        passed += usize::from(plan.to > after);
        carry_out(tx, &replay, &found, &plan, (&mut queued, &mut unavailable))?;
    }
    let walked = replay.cursor;
    if walked.as_i64() + 1 < replay.scope.before().as_i64() {
        let found = find_filtered(tx.as_read(), &replay.scope, walked, limit)?;
        let mut ready = HashSet::new();
        for endpoint in found.rows.iter().map(|row| row.endpoint_key).collect::<HashSet<_>>() {
            if has_room(tx, endpoint)? {
                ready.insert(endpoint);
            }
        }
        let plan = replay.plan(&found, &ready, QUEUED_PER_STEP.saturating_sub(queued));
        passed += usize::from(plan.to > walked);
        carry_out(tx, &replay, &found, &plan, (&mut queued, &mut unavailable))?;
    }
    tx.connection
        .prepare_cached(
            "UPDATE replays SET cursor = ?2, left_behind = ?3, replayed = replayed + ?4, unavailable = unavailable + ?5
             WHERE key = ?1",
        )?
        .execute(params![
            replay.key.as_i64(),
            replay.cursor.as_i64(),
            replay.left_behind.to_text(),
            queued,
            unavailable,
        ])?;
    if replay.is_complete() {
        end(tx, replay.key, ReplayStatus::Completed)?;
    }
    Ok(passed + queued)
}

/// Whether an endpoint has so few live deliveries due that a replay may queue more.
fn has_room(tx: &WriteTx<'_>, endpoint_key: RowKey) -> Result<bool, rusqlite::Error> {
    Ok(due::count_due(tx, endpoint_key, LIVE_FIRST)? < LIVE_FIRST)
}

/// Queues the rows of a plan, and counts.
fn carry_out(
    tx: &mut WriteTx<'_>,
    replay: &RunningFilterReplay,
    found: &Found,
    plan: &Plan,
    (queued, unavailable): (&mut usize, &mut u64),
) -> Result<(), rusqlite::Error> {
    *unavailable += plan.unavailable;
    for position in &plan.queued {
        match requeue::queue(tx, &replay.requeue(&found.rows[*position]))? {
            Ok(_) => *queued += 1,
            // Its endpoint is gone.
            Err(RequeueError::EndpointDeleted | RequeueError::NotFound | RequeueError::PayloadGone) => {
                *unavailable += 1
            }
            Err(error) => return Err(rusqlite::Error::ToSqlConversionFailure(Box::new(error))),
        }
    }
    Ok(())
}
