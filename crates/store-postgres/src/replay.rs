//! Replays: jobs that walk an endpoint's log and queue again what it did not receive. Writes `replays`.
//!
//! Differs from SQLite: any node advances any replay. It locks the replay's row, and its endpoint against other replays
//! of that endpoint: of two concurrent walks the second must see what the first has queued.
//!
//! A walk could miss rows that were not yet committed when the replay was created. So a replay is created under the
//! workspace's lock: everything accepted before is committed by then.

use std::collections::HashSet;

use async_trait::async_trait;
use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{EndpointId, ReplayId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplayStatus};
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::publish::requeue::Requeue;
use postrider_store::replay::{
    Candidate, LIVE_FIRST, REPLAYS_PER_STEP, ROWS_PER_COUNT, ROWS_PER_STEP, RunningReplay, Verdict, counted,
    project_from, statuses_from_text, statuses_to_text, step_rows,
};
use postrider_store::{NewReplay, ReplayScope, Replays, RequeueError, StopReplayError, StoreError, Write, Written};

use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{coded, get, instant, key, number, opt_instant, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};
use crate::machinery::transaction::{WriteTx, effect};
use crate::publish::matching;
use crate::queue::lane::LaneBounds;
use crate::queue::{due, enqueue};
use crate::registry::endpoint;
use crate::stored_bytes;

#[async_trait]
impl Replays for PostgresStore {
    async fn count_replayable(
        &self,
        scope: ReplayScope,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError> {
        self.read(move |session| {
            Box::pin(
                async move { Ok(counted(&candidates(session, &scope, after, ROWS_PER_COUNT).await?, ROWS_PER_COUNT)) },
            )
        })
        .await
    }

    async fn create_replay(&self, write: Write<Replay>, new: NewReplay) -> Result<Written<Replay>, RequeueError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, new| create(tx, tenant, author, &new))).await
    }

    async fn list_replays(
        &self,
        tenant: Tenant,
        endpoint_id: EndpointId,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(list(session, tag, tenant, endpoint_id, page))).await
    }

    async fn find_replay(
        &self,
        tenant: Tenant,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(find(session, tag, tenant, endpoint_id, id))).await
    }

    async fn stop_replay(
        &self,
        write: Write<Replay>,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Written<Replay>, StopReplayError> {
        let Write { tenant, author, recording } = write;
        self.write_once(
            recording,
            effect!(|tx| async move {
                if let Some(replay) = find(tx, tx.tag, tenant, endpoint_id, id).await? {
                    end(tx, id.key(), ReplayStatus::Stopped).await?;
                    let stopped = changes::replay_stopped(replay.status);
                    audit::append(tx, tenant.workspace, author, AuditAction::ReplayStopped, id, &stopped).await?;
                }
                Ok(find(tx, tx.tag, tenant, endpoint_id, id).await?.ok_or(StopReplayError::NotFound))
            }),
        )
        .await
    }
}

/// The next rows of the log after `after`, in order, each with its verdict.
///
/// Only deliveries of the replay's own mode count: stores from before endpoints had a mode hold deliveries of test mode
/// to live endpoints.
async fn candidates(
    session: &Session,
    scope: &ReplayScope,
    after: RowKey,
    limit: usize,
) -> Result<Vec<Candidate>, PgError> {
    let ReplayScope { endpoint_key, mode, range, project } = scope;
    // `+ 0` keeps the planner from the index by endpoint: an endpoint has many later deliveries, an event few, and a
    // new day has no statistics. `OFFSET 0` keeps it from reading all events into a hash table.
    let statuses: Vec<i64> = range.statuses.iter().map(|status| status.code()).collect();
    let rows = session
        .query(
            "SELECT d.key, d.event_key,
                    CASE WHEN d.cause = $5 AND d.mode = $6 AND d.status = ANY($9)
                              AND ($10 IS NULL OR EXISTS
                                  (SELECT 1 FROM events WHERE key = d.event_key AND project_id = $10 OFFSET 0))
                              AND NOT EXISTS (
                             SELECT 1 FROM deliveries later
                             WHERE later.event_key = d.event_key AND later.endpoint_key + 0 = d.endpoint_key
                               AND later.key > d.key AND later.mode = $6 AND later.status IN ($7, $8))
                         THEN 1 + (EXISTS (SELECT 1 FROM events WHERE key = d.event_key OFFSET 0))::int ELSE 0 END AS verdict
             FROM deliveries d WHERE d.endpoint_key = $1 AND d.key > $2 AND d.key < $3 ORDER BY d.key LIMIT $4",
            &[
                &endpoint_key.as_i64(),
                &scope.from(after),
                &RowKey::first_at(range.until).as_i64(),
                &as_i64(limit),
                &DeliveryCause::Event.code(),
                &mode_code(*mode),
                &DeliveryStatus::Pending.code(),
                &DeliveryStatus::Delivered.code(),
                &statuses,
                &project.as_ref().map(ProjectId::as_str),
            ],
        )
        .await?;
    let candidate = |row| {
        Ok(Candidate {
            key: key(row, "key")?,
            event_key: key(row, "event_key")?,
            verdict: coded(row, "verdict", Verdict::from_code)?,
        })
    };
    rows.iter().map(candidate).collect()
}

async fn create(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    new: &NewReplay,
) -> Result<Result<Replay, RequeueError>, PgError> {
    // Waits for concurrent accepts: their keys lie before `until`, and the walk must not miss them.
    tx.lock_workspace(tenant.workspace).await?;
    let Some(endpoint) = endpoint::find(tx, tenant, new.endpoint_id).await? else {
        return Ok(Err(RequeueError::NotFound));
    };
    if !endpoint.is_active {
        return Ok(Err(RequeueError::EndpointOff));
    }
    if let Some(max) = stored_bytes::exceeded_budget(tx, tenant.workspace, 0).await? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    let key = tx.next_key();
    tx.execute(
        "INSERT INTO replays (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total,
                              project_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10)",
        &[
            &key.as_i64(),
            &tenant.workspace.as_i64(),
            &endpoint.key.as_i64(),
            &mode_code(tenant.mode),
            &new.range.since.millis(),
            &new.range.until.millis(),
            &statuses_to_text(&new.range),
            &ReplayStatus::Running.code(),
            &i64::try_from(new.total).unwrap_or(i64::MAX),
            &tenant.project_text(),
        ],
    )
    .await?;
    let id = ReplayId::new(key, tx.tag);
    let found = find(tx, tx.tag, tenant, new.endpoint_id, id).await?;
    let replay = found.ok_or_else(|| unexpected("replays.key"))?;
    let started = changes::replay_started(&replay);
    audit::append(tx, tenant.workspace, author, AuditAction::ReplayStarted, id, &started).await?;
    Ok(Ok(replay))
}

const REPLAY_SELECT: &str =
    "SELECT r.key, ep.id AS endpoint_id, r.mode, r.since, r.until, r.statuses, r.status, r.total, r.replayed,
            r.unavailable, r.completed_at
     FROM replays r JOIN endpoints ep ON ep.key = r.endpoint_key";

fn replay_from_row(row: &Row, tag: StoreTag) -> Result<Replay, PgError> {
    Ok(Replay {
        id: ReplayId::new(key(row, "key")?, tag),
        endpoint_id: parsed(row, "endpoint_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        range: range_from_row(row)?,
        status: coded(row, "status", ReplayStatus::from_code)?,
        total: number(row, "total")?,
        replayed: number(row, "replayed")?,
        unavailable: number(row, "unavailable")?,
        completed_at: opt_instant(row, "completed_at")?,
    })
}

fn range_from_row(row: &Row) -> Result<ReplayRange, PgError> {
    Ok(ReplayRange {
        since: instant(row, "since")?,
        until: instant(row, "until")?,
        statuses: statuses_from_text(get(row, "statuses")?)?,
    })
}

async fn list(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    endpoint_id: EndpointId,
    page: PageRequest,
) -> Result<Option<Page<Replay>>, PgError> {
    let Some(endpoint) = endpoint::find(session, tenant, endpoint_id).await? else { return Ok(None) };
    let sql = format!(
        "{REPLAY_SELECT} WHERE r.endpoint_key = $1 AND r.mode = $2 AND r.key < $3 ORDER BY r.key DESC LIMIT $4"
    );
    let values = (endpoint.key.as_i64(), mode_code(tenant.mode), page.before().as_i64(), i64::from(page.limit()) + 1);
    let rows = session.query(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    let items = rows.iter().map(|row| replay_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(page.cut(items, |replay| replay.id.key())))
}

async fn find(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    endpoint_id: EndpointId,
    id: ReplayId,
) -> Result<Option<Replay>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!(
        "{REPLAY_SELECT} WHERE r.key = $1 AND r.workspace_key = $2 AND ep.id = $3 AND r.mode = $4 AND ep.mode = $4
           AND ($5 IS NULL OR ep.project_id = $5)"
    );
    let (key, endpoint) = (id.key().as_i64(), endpoint_id.to_string());
    let parameters: [&dyn Parameter; 5] =
        [&key, &tenant.workspace.as_i64(), &endpoint, &mode_code(tenant.mode), &tenant.project_text()];
    let found = session.query_opt(&sql, &parameters).await?;
    found.map(|row| replay_from_row(&row, tag)).transpose()
}

/// Ends a replay, unless it has ended already.
async fn end(tx: &WriteTx, key: RowKey, status: ReplayStatus) -> Result<(), PgError> {
    tx.execute(
        "UPDATE replays SET status = $2, completed_at = $3 WHERE key = $1 AND status = $4",
        &[&key.as_i64(), &status.code(), &tx.now.millis(), &ReplayStatus::Running.code()],
    )
    .await?;
    Ok(())
}

fn running_from_row(row: &Row) -> Result<RunningReplay, PgError> {
    Ok(RunningReplay {
        key: key(row, "key")?,
        workspace: key(row, "workspace_key")?,
        scope: ReplayScope {
            endpoint_key: key(row, "endpoint_key")?,
            mode: coded(row, "mode", mode_from_code)?,
            range: range_from_row(row)?,
            project: project_from(get(row, "project_id")?)?,
        },
        cursor: key(row, "cursor")?,
    })
}

/// Advances the running replays by one step. Returns the number of log rows passed, `None` when no replay runs.
pub async fn advance(tx: &mut WriteTx) -> Result<Option<usize>, PgError> {
    let rows = tx
        .query(
            "SELECT r.key, r.workspace_key, r.endpoint_key, r.mode, r.since, r.until, r.statuses, r.cursor,
                    r.project_id
             FROM replays r JOIN endpoints e ON e.key = r.endpoint_key
             WHERE r.status = 0 AND (e.is_active OR e.deleted_at IS NOT NULL) ORDER BY random() LIMIT $1
             FOR UPDATE OF r SKIP LOCKED",
            &[&as_i64(REPLAYS_PER_STEP)],
        )
        .await?;
    if rows.is_empty() {
        // Any replay left waits until its endpoint is active again, or another node advances it.
        let waiting = tx.query_opt("SELECT 1 FROM replays WHERE status = 0 LIMIT 1", &[]).await?;
        return Ok(waiting.map(|_| 0));
    }
    let mut running = rows.iter().map(running_from_row).collect::<Result<Vec<_>, _>>()?;
    let endpoints = lock_endpoints(tx, &running).await?;
    running.retain(|replay| endpoints.contains(&replay.scope.endpoint_key));
    if running.is_empty() {
        return Ok(Some(0));
    }
    let workspaces: HashSet<RowKey> = running.iter().map(|replay| replay.workspace).collect();
    tx.share_workspaces(workspaces.iter().copied()).await?;
    matching::load(tx, &workspaces.into_iter().collect::<Vec<_>>()).await?;
    let rows_each = ROWS_PER_STEP / running.len();
    let mut passed = 0;
    for replay in &running {
        passed += advance_one(tx, replay, rows_each).await?;
    }
    Ok(Some(passed))
}

/// Locks the replays' endpoints. Returns those that no other node replays for.
async fn lock_endpoints(tx: &WriteTx, running: &[RunningReplay]) -> Result<HashSet<RowKey>, PgError> {
    let keys: Vec<i64> = running.iter().map(|replay| replay.scope.endpoint_key.as_i64()).collect();
    let locks: Vec<i32> = running.iter().map(|replay| lock_of(replay.scope.endpoint_key)).collect();
    let sql = "SELECT key, pg_try_advisory_xact_lock($1, lock) AS is_taken FROM unnest($2, $3) AS asked (key, lock)";
    let rows = tx.query(sql, &[&tx.database.lock_class, &keys, &locks]).await?;
    let mut taken = HashSet::new();
    for row in &rows {
        if get(row, "is_taken")? {
            taken.insert(key(row, "key")?);
        }
    }
    Ok(taken)
}

/// The number of an endpoint's advisory lock, below those of workspaces and of the creation of days. Two endpoints may
/// share a number: then one skips a step of the other's.
fn lock_of(endpoint_key: RowKey) -> i32 {
    i32::try_from(-2 - endpoint_key.as_i64().rem_euclid((1 << 31) - 1)).unwrap_or(i32::MIN)
}

/// Advances one replay by up to `limit` rows. Returns how many it passed.
async fn advance_one(tx: &mut WriteTx, replay: &RunningReplay, limit: usize) -> Result<usize, PgError> {
    if due::count_due(tx, replay.scope.endpoint_key, LIVE_FIRST).await? >= LIVE_FIRST {
        return Ok(0);
    }
    let rows = candidates(tx, &replay.scope, replay.cursor, limit).await?;
    let step = step_rows(&rows);
    let passed = match queue(tx, replay, step).await? {
        Ok(()) => step,
        Err(refusal) => {
            if !matches!(refusal, RequeueError::EndpointOff) {
                end(tx, replay.key, ReplayStatus::Stopped).await?;
            }
            // The rest waits until the endpoint is active again.
            &step[..step.iter().position(|row| row.verdict == Verdict::Sent).unwrap_or(step.len())]
        }
    };
    let of = |verdict| as_i64(passed.iter().filter(|row| row.verdict == verdict).count());
    tx.execute(
        "UPDATE replays SET cursor = $2, replayed = replayed + $3, unavailable = unavailable + $4 WHERE key = $1",
        &[
            &replay.key.as_i64(),
            &passed.last().map_or(replay.cursor, |row| row.key).as_i64(),
            &of(Verdict::Sent),
            &of(Verdict::Unavailable),
        ],
    )
    .await?;
    if rows.len() < limit && passed.len() == rows.len() {
        end(tx, replay.key, ReplayStatus::Completed).await?;
    }
    Ok(passed.len())
}

/// Queues again the rows to send: all of them, or none when the endpoint accepts nothing now.
async fn queue(
    tx: &mut WriteTx,
    replay: &RunningReplay,
    rows: &[Candidate],
) -> Result<Result<(), RequeueError>, PgError> {
    let requeues: Vec<Requeue> =
        rows.iter().filter(|row| row.verdict == Verdict::Sent).map(|row| replay.requeue(row)).collect();
    let Some(first) = requeues.first() else { return Ok(Ok(())) };
    let subscribers = matching::subscribers(tx, replay.workspace).await?;
    let subscriber = match first.receiver(subscribers.get(replay.scope.endpoint_key)) {
        Ok(subscriber) => subscriber,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let new =
        requeues.iter().map(|requeue| NewDelivery::of_requeue(tx.next_key(), requeue, subscriber, tx.now)).collect();
    enqueue::insert(tx, new, LaneBounds::new()).await?;
    Ok(Ok(()))
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_lock_has_a_number_of_its_own_kind() {
        for key in [0, 1, (1 << 31) - 2, (1 << 31) - 1, 1 << 31, i64::MAX] {
            assert!(lock_of(RowKey::from_i64(key)) < -1, "{key}");
        }
        assert_ne!(lock_of(RowKey::from_i64(1)), lock_of(RowKey::from_i64(2)));
    }
}
