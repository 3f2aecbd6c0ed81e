//! Replays: jobs that walk the log and queue again what an endpoint did not receive, or what passes a filter. Writes
//! `replays`.
//!
//! Differs from SQLite: any node advances any replay. It locks the replay's row, and each endpoint that it queues for
//! against other replays: of two concurrent walks the second must see what the first has queued.
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
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplaySelection, ReplayStatus};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::filter_replay::{
    FOLLOWING_PER_STEP, FOLLOWING_QUEUED_PER_STEP, FilterScope, Found, LeftBehind, Plan, RunningFilterReplay,
    filter_from_text, filter_to_text,
};
use postrider_store::log::changes;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::publish::requeue::Requeue;
use postrider_store::replay::{
    Candidate, LIVE_FIRST, QUEUED_PER_STEP, REPLAYS_PER_STEP, ROWS_PER_COUNT, ROWS_PER_STEP, RunningReplay, Verdict,
    counted, project_from, statuses_from_text, statuses_to_text, step_rows,
};
use postrider_store::{NewReplay, ReplayScope, Replays, RequeueError, StopReplayError, StoreError, Write, Written};

use crate::PostgresStore;
use crate::log::{ahead, audit};
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

    async fn count_filtered(
        &self,
        scope: FilterScope,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError> {
        let tag = self.database.tag;
        self.read(move |session| {
            Box::pin(async move {
                let range = (after, RowKey::from_i64(i64::MAX));
                Ok(ahead::find(session, tag, &scope, None, range, ROWS_PER_COUNT).await?.counted(&scope))
            })
        })
        .await
    }

    async fn create_replay(&self, write: Write<Replay>, new: NewReplay) -> Result<Written<Replay>, RequeueError> {
        self.disk.check_growth()?;
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, new| create(tx, tenant, author, &new))).await
    }

    async fn list_replays(
        &self,
        tenant: Tenant,
        endpoint_id: Option<EndpointId>,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(list(session, tag, tenant, endpoint_id, page))).await
    }

    async fn find_replay(
        &self,
        tenant: Tenant,
        endpoint_id: Option<EndpointId>,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(find(session, tag, tenant, endpoint_id, id))).await
    }

    async fn stop_replay(
        &self,
        write: Write<Replay>,
        endpoint_id: Option<EndpointId>,
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
                         THEN 1 + (EXISTS (SELECT 1 FROM events WHERE key = d.event_key AND payload = 0 OFFSET 0))::int
                         ELSE 0 END AS verdict
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
            endpoint_key: *endpoint_key,
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
    let (endpoint, filter) = match &new.selection {
        ReplaySelection::Filter(filter) => (None, Some(filter_to_text(filter))),
        ReplaySelection::Endpoint { id, range } => {
            let Some(endpoint) = endpoint::find(tx, tenant, *id).await? else {
                return Ok(Err(RequeueError::NotFound));
            };
            if !endpoint.is_active {
                return Ok(Err(RequeueError::EndpointOff));
            }
            (Some((endpoint.key, range)), None)
        }
    };
    if let Some(max) = stored_bytes::exceeded_budget(tx, tenant.workspace, 0).await? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    let key = tx.next_key();
    tx.execute(
        "INSERT INTO replays (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total,
                              project_id, filter, counted_to)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9, $10, $11, $12)",
        &[
            &key.as_i64(),
            &tenant.workspace.as_i64(),
            &endpoint.map(|(key, _)| key.as_i64()),
            &mode_code(tenant.mode),
            &endpoint.map(|(_, range)| range.since.millis()),
            &endpoint.map(|(_, range)| range.until.millis()),
            &endpoint.map(|(_, range)| statuses_to_text(range)),
            &ReplayStatus::Running.code(),
            &i64::try_from(new.count.total).unwrap_or(i64::MAX),
            &tenant.project_text(),
            &filter,
            &new.count.counted_to.map(Timestamp::millis),
        ],
    )
    .await?;
    let id = ReplayId::new(key, tx.tag);
    let found = find(tx, tx.tag, tenant, None, id).await?;
    let replay = found.ok_or_else(|| unexpected("replays.key"))?;
    let started = changes::replay_started(&replay);
    audit::append(tx, tenant.workspace, author, AuditAction::ReplayStarted, id, &started).await?;
    Ok(Ok(replay))
}

const REPLAY_SELECT: &str =
    "SELECT r.key, ep.id AS endpoint_id, r.mode, r.since, r.until, r.statuses, r.filter, r.status, r.total, r.counted_to,
            r.replayed, r.unavailable, r.completed_at
     FROM replays r LEFT JOIN endpoints ep ON ep.key = r.endpoint_key";

/// A tenant narrowed to a project sees the replays of its endpoints, and those by filter that were asked for within it.
const IS_OF_PROJECT: &str =
    "($1::text IS NULL OR ep.project_id = $1 OR (r.endpoint_key IS NULL AND r.project_id = $1))";

fn replay_from_row(row: &Row, tag: StoreTag) -> Result<Replay, PgError> {
    let selection = match get::<Option<&str>>(row, "filter")? {
        Some(filter) => ReplaySelection::Filter(Box::new(filter_from_text(filter)?)),
        None => ReplaySelection::Endpoint { id: parsed(row, "endpoint_id")?, range: range_from_row(row)? },
    };
    Ok(Replay {
        id: ReplayId::new(key(row, "key")?, tag),
        selection,
        mode: coded(row, "mode", mode_from_code)?,
        status: coded(row, "status", ReplayStatus::from_code)?,
        total: number(row, "total")?,
        counted_to: opt_instant(row, "counted_to")?,
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
    endpoint_id: Option<EndpointId>,
    page: PageRequest,
) -> Result<Option<Page<Replay>>, PgError> {
    let (of, of_key) = match endpoint_id {
        None => ("r.workspace_key = $5", tenant.workspace),
        Some(id) => match endpoint::find(session, tenant, id).await? {
            Some(endpoint) => ("r.endpoint_key = $5", endpoint.key),
            None => return Ok(None),
        },
    };
    let sql = format!(
        "{REPLAY_SELECT} WHERE {IS_OF_PROJECT} AND {of} AND r.mode = $2 AND r.key < $3 ORDER BY r.key DESC LIMIT $4"
    );
    let parameters: [&dyn Parameter; 5] = [
        &tenant.project_text(),
        &mode_code(tenant.mode),
        &page.before().as_i64(),
        &(i64::from(page.limit()) + 1),
        &of_key.as_i64(),
    ];
    let rows = session.query(&sql, &parameters).await?;
    let items = rows.iter().map(|row| replay_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(page.cut(items, |replay| replay.id.key())))
}

async fn find(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    endpoint_id: Option<EndpointId>,
    id: ReplayId,
) -> Result<Option<Replay>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!(
        "{REPLAY_SELECT} WHERE {IS_OF_PROJECT} AND r.key = $2 AND r.workspace_key = $3 AND r.mode = $4
           AND (ep.mode IS NULL OR ep.mode = $4) AND ($5::text IS NULL OR ep.id = $5)"
    );
    let (key, endpoint) = (id.key().as_i64(), endpoint_id.map(|id| id.to_string()));
    let parameters: [&dyn Parameter; 5] =
        [&tenant.project_text(), &key, &tenant.workspace.as_i64(), &mode_code(tenant.mode), &endpoint];
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

/// A replay that may advance.
enum Running {
    OfEndpoint(RunningReplay),
    ByFilter(Box<RunningFilterReplay>),
}

impl Running {
    const fn workspace(&self) -> RowKey {
        match self {
            Self::OfEndpoint(replay) => replay.workspace,
            Self::ByFilter(replay) => replay.scope.tenant.workspace,
        }
    }
}

fn running_from_row(row: &Row) -> Result<Running, PgError> {
    let (replay_key, workspace, cursor) = (key(row, "key")?, key(row, "workspace_key")?, key(row, "cursor")?);
    let mode = coded(row, "mode", mode_from_code)?;
    let project = project_from(get(row, "project_id")?)?;
    let Some(filter) = get::<Option<&str>>(row, "filter")? else {
        let scope = ReplayScope { endpoint_key: key(row, "endpoint_key")?, mode, range: range_from_row(row)?, project };
        return Ok(Running::OfEndpoint(RunningReplay { key: replay_key, workspace, scope, cursor }));
    };
    Ok(Running::ByFilter(Box::new(RunningFilterReplay {
        key: replay_key,
        scope: FilterScope {
            tenant: Tenant { workspace, mode, project },
            filter: filter_from_text(filter)?,
            asked_at: replay_key.created_at(),
        },
        cursor,
        left_behind: LeftBehind::from_text(get(row, "left_behind")?)?,
        is_orphan: get(row, "is_orphan")?,
    })))
}

/// Advances the running replays by one step. Returns the number of log rows passed, `None` when no replay runs.
pub async fn advance(tx: &mut WriteTx) -> Result<Option<usize>, PgError> {
    let rows = tx
        .query(
            "SELECT r.key, r.workspace_key, r.endpoint_key, r.mode, r.since, r.until, r.statuses, r.cursor,
                    r.project_id, r.filter, r.left_behind, w.deleted_at IS NOT NULL AS is_orphan
             FROM replays r JOIN workspaces w ON w.key = r.workspace_key
             LEFT JOIN endpoints e ON e.key = r.endpoint_key
             WHERE r.status = 0 AND (e.key IS NULL OR e.is_active OR e.deleted_at IS NOT NULL)
             ORDER BY random() LIMIT $1
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
    let endpoints = running.iter().filter_map(|replay| match replay {
        Running::OfEndpoint(replay) => Some(replay.scope.endpoint_key),
        Running::ByFilter(_) => None,
    });
    let locked = lock_endpoints(tx, endpoints.collect()).await?;
    running.retain(|replay| match replay {
        Running::OfEndpoint(replay) => locked.contains(&replay.scope.endpoint_key),
        Running::ByFilter(_) => true,
    });
    if running.is_empty() {
        return Ok(Some(0));
    }
    let workspaces: HashSet<RowKey> = running.iter().map(Running::workspace).collect();
    tx.share_workspaces(workspaces.iter().copied()).await?;
    matching::load(tx, &workspaces.into_iter().collect::<Vec<_>>()).await?;
    let rows_each = ROWS_PER_STEP / running.len();
    let mut passed = 0;
    for replay in running {
        passed += match replay {
            Running::OfEndpoint(replay) => advance_one(tx, &replay, rows_each).await?,
            Running::ByFilter(replay) => advance_filtered(tx, *replay, rows_each).await?,
        };
    }
    Ok(Some(passed))
}

/// Locks endpoints. Returns those that no other node replays for.
async fn lock_endpoints(tx: &WriteTx, endpoints: HashSet<RowKey>) -> Result<HashSet<RowKey>, PgError> {
    if endpoints.is_empty() {
        return Ok(endpoints);
    }
    let keys: Vec<i64> = endpoints.iter().map(|endpoint| endpoint.as_i64()).collect();
    let locks: Vec<i32> = endpoints.iter().map(|endpoint| lock_of(*endpoint)).collect();
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

/// Advances one replay by filter: first endpoints that it has left behind, then the walk. Returns the number of rows
/// queued, and one more for each walk that moved.
async fn advance_filtered(tx: &mut WriteTx, mut replay: RunningFilterReplay, limit: usize) -> Result<usize, PgError> {
    if replay.is_orphan {
        end(tx, replay.key, ReplayStatus::Stopped).await?;
        return Ok(1);
    }
    let (mut queued, mut unavailable, mut passed) = (0, 0, 0);
    let left: HashSet<RowKey> = replay.left_behind.0.iter().map(|(endpoint, _)| *endpoint).collect();
    let ready = ready(tx, left).await?;
    let mut following = replay.left_behind.0.clone();
    following.retain(|(endpoint, _)| ready.contains(endpoint));
    following.truncate(FOLLOWING_PER_STEP);
    let limit = (limit / (following.len() + 1)).max(1);
    for (endpoint, after) in following {
        let range = (after, replay.cursor);
        let found = ahead::find(tx, tx.tag, &replay.scope, Some(endpoint), range, limit).await?;
        let plan = replay.plan_following(endpoint, &found, FOLLOWING_QUEUED_PER_STEP.saturating_sub(queued));
        passed += usize::from(plan.to > after);
        carry_out(tx, &replay, &found, &plan, (&mut queued, &mut unavailable)).await?;
    }
    let walked = replay.cursor;
    if walked.as_i64() + 1 < replay.scope.before().as_i64() {
        let range = (walked, RowKey::from_i64(i64::MAX));
        let mut found = ahead::find(tx, tx.tag, &replay.scope, None, range, limit).await?;
        let ready = self::ready(tx, found.rows.iter().map(|row| row.endpoint_key).collect()).await?;
        if !ready.is_empty() {
            // Until the locks were taken, another replay may have queued some of these rows.
            found = ahead::find(tx, tx.tag, &replay.scope, None, range, limit).await?;
        }
        let plan = replay.plan(&found, &ready, QUEUED_PER_STEP.saturating_sub(queued));
        passed += usize::from(plan.to > walked);
        carry_out(tx, &replay, &found, &plan, (&mut queued, &mut unavailable)).await?;
    }
    tx.execute(
        "UPDATE replays SET cursor = $2, left_behind = $3, replayed = replayed + $4, unavailable = unavailable + $5
         WHERE key = $1",
        &[
            &replay.key.as_i64(),
            &replay.cursor.as_i64(),
            &replay.left_behind.to_text(),
            &as_i64(queued),
            &i64::try_from(unavailable).unwrap_or(i64::MAX),
        ],
    )
    .await?;
    if replay.is_complete() {
        end(tx, replay.key, ReplayStatus::Completed).await?;
    }
    Ok(passed + queued)
}

/// Those of the endpoints that no other node replays for, and that have so few live deliveries due that a replay may
/// queue more. Locks them.
async fn ready(tx: &WriteTx, endpoints: HashSet<RowKey>) -> Result<HashSet<RowKey>, PgError> {
    let locked = lock_endpoints(tx, endpoints).await?;
    if locked.is_empty() {
        return Ok(locked);
    }
    let keys: Vec<i64> = locked.iter().map(|endpoint| endpoint.as_i64()).collect();
    let sql = "SELECT key FROM unnest($1::bigint[]) AS asked (key)
               WHERE (SELECT COUNT(*) FROM (SELECT 1 FROM due WHERE lane_key = asked.key AND due_at <= $2 LIMIT $3) due)
                     < $3";
    let rows = tx.query(sql, &[&keys, &tx.now.millis(), &as_i64(LIVE_FIRST)]).await?;
    rows.iter().map(|row| key(row, "key")).collect()
}

/// Queues the rows of a plan, and counts. Rows of endpoints that are gone count as unavailable.
async fn carry_out(
    tx: &mut WriteTx,
    replay: &RunningFilterReplay,
    found: &Found,
    plan: &Plan,
    (queued, unavailable): (&mut usize, &mut u64),
) -> Result<(), PgError> {
    *unavailable += plan.unavailable;
    if plan.queued.is_empty() {
        return Ok(());
    }
    let subscribers = matching::subscribers(tx, replay.scope.tenant.workspace).await?;
    let mut new = Vec::with_capacity(plan.queued.len());
    for position in &plan.queued {
        let requeue = replay.requeue(&found.rows[*position]);
        match requeue.receiver(subscribers.get(requeue.endpoint_key)) {
            Ok(subscriber) => new.push(NewDelivery::of_requeue(tx.next_key(), &requeue, subscriber, tx.now)),
            Err(_) => *unavailable += 1,
        }
    }
    *queued += new.len();
    enqueue::insert(tx, new, LaneBounds::new()).await
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
