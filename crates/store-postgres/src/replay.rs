//! Replays: jobs that walk an endpoint's log and queue again what it did not get.
//!
//! Any node takes any replay further. Who does holds its row, and its endpoint against other replays of it: of two that walk at
//! once, the second is to see what the first has queued. What a walk may pass over unseen is what was not yet committed when it
//! was made, and it is made under the workspace's lock: everything accepted before has been committed then.

use std::collections::HashSet;

use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::id::{EndpointId, ReplayId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange, ReplayStatus};
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::publish::requeue::{Again, RequeueRefusal};
use postrider_store::replay::{
    Candidate, Fate, LIVE_FIRST, REPLAYS_PER_STEP, ROWS_PER_COUNT, ROWS_PER_STEP, Running, counted, statuses_from_text,
    statuses_to_text, stretch,
};
use postrider_store::{NewReplay, RequeueError, StopReplayError};

use super::column::{coded, get, instant, key, number, opt_instant, parsed, unexpected};
use super::fault::PgError;
use super::lane::Bounds;
use super::session::Session;
use super::transaction::WriteTx;
use super::{audit, due, endpoint, enqueue, matching, requeue};

pub use postrider_store::replay::Scope;

/// The next rows of the log after `after`, in order, each with what becomes of it. What a test key published was never meant
/// to arrive: only a replay with a test key, which sends nothing, looks at it.
async fn candidates(
    session: &Session,
    scope: Scope<'_>,
    after: RowKey,
    limit: usize,
) -> Result<Vec<Candidate>, PgError> {
    let Scope { endpoint_key, mode, range } = scope;
    // `+ 0`: of an endpoint there are many later deliveries, of an event few, and the statistics of a new day know neither.
    let statuses: Vec<i64> = range.statuses.iter().map(|status| status.code()).collect();
    let rows = session
        .query(
            "SELECT d.key, d.event_key,
                    CASE WHEN d.cause = $5 AND d.mode <= $6 AND d.status = ANY($9) AND NOT EXISTS (
                             SELECT 1 FROM deliveries later
                             WHERE later.event_key = d.event_key AND later.endpoint_key + 0 = d.endpoint_key
                               AND later.key > d.key AND later.mode <= $6 AND later.status IN ($7, $8))
                         THEN 1 + (EXISTS (SELECT 1 FROM events WHERE events.key = d.event_key))::int ELSE 0 END AS fate
             FROM deliveries d WHERE d.endpoint_key = $1 AND d.key > $2 AND d.key < $3 ORDER BY d.key LIMIT $4",
            &[
                &endpoint_key.as_i64(),
                &scope.from(after),
                &RowKey::first_at(range.until).as_i64(),
                &as_i64(limit),
                &DeliveryCause::Event.code(),
                &mode_code(mode),
                &DeliveryStatus::Pending.code(),
                &DeliveryStatus::Delivered.code(),
                &statuses,
            ],
        )
        .await?;
    let candidate = |row| {
        Ok(Candidate {
            key: key(row, "key")?,
            event_key: key(row, "event_key")?,
            fate: coded(row, "fate", Fate::from_code)?,
        })
    };
    rows.iter().map(candidate).collect()
}

pub async fn count(
    session: &Session,
    scope: Scope<'_>,
    after: RowKey,
) -> Result<(ReplayCount, Option<RowKey>), PgError> {
    Ok(counted(&candidates(session, scope, after, ROWS_PER_COUNT).await?, ROWS_PER_COUNT))
}

pub async fn create(
    tx: &mut WriteTx,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    new: &NewReplay,
) -> Result<Result<Replay, RequeueError>, PgError> {
    // Waits for what is being accepted, whose keys lie before `until` and which the walk is not to miss.
    tx.lock_workspace(workspace_key).await?;
    let Some(endpoint) = endpoint::find(tx, workspace_key, endpoint_id).await? else {
        return Ok(Err(RequeueError::NotFound));
    };
    if !endpoint.is_active {
        return Ok(Err(RequeueError::EndpointOff));
    }
    let key = tx.next_key();
    tx.execute(
        "INSERT INTO replays (key, workspace_key, endpoint_key, mode, since, until, statuses, status, cursor, total)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 0, $9)",
        &[
            &key.as_i64(),
            &workspace_key.as_i64(),
            &endpoint.key.as_i64(),
            &mode_code(new.author.mode),
            &new.range.since.millis(),
            &new.range.until.millis(),
            &statuses_to_text(&new.range),
            &ReplayStatus::Running.code(),
            &i64::try_from(new.total).unwrap_or(i64::MAX),
        ],
    )
    .await?;
    let id = ReplayId::new(key, tx.tag);
    audit::append(tx, workspace_key, new.author, AuditAction::ReplayStarted, id).await?;
    let found = find(tx, tx.tag, workspace_key, endpoint_id, id).await?;
    found.map(Ok).ok_or_else(|| unexpected("replays.key"))
}

const REPLAY_SELECT: &str =
    "SELECT r.key, ep.id AS endpoint_id, r.since, r.until, r.statuses, r.status, r.total, r.replayed,
            r.unavailable, r.completed_at
     FROM replays r JOIN endpoints ep ON ep.key = r.endpoint_key";

fn replay_from_row(row: &Row, tag: StoreTag) -> Result<Replay, PgError> {
    Ok(Replay {
        id: ReplayId::new(key(row, "key")?, tag),
        endpoint_id: parsed(row, "endpoint_id")?,
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

pub async fn list(
    session: &Session,
    tag: StoreTag,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    page: PageRequest,
) -> Result<Option<Page<Replay>>, PgError> {
    let Some(endpoint) = endpoint::find(session, workspace_key, endpoint_id).await? else { return Ok(None) };
    let sql = format!("{REPLAY_SELECT} WHERE r.endpoint_key = $1 AND r.key < $2 ORDER BY r.key DESC LIMIT $3");
    let rows =
        session.query(&sql, &[&endpoint.key.as_i64(), &page.before().as_i64(), &(i64::from(page.limit()) + 1)]).await?;
    let items = rows.iter().map(|row| replay_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(page.cut(items, |replay| replay.id.key())))
}

pub async fn find(
    session: &Session,
    tag: StoreTag,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    id: ReplayId,
) -> Result<Option<Replay>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!("{REPLAY_SELECT} WHERE r.key = $1 AND r.workspace_key = $2 AND ep.id = $3");
    let values = (id.key().as_i64(), workspace_key.as_i64(), endpoint_id.to_string());
    let found = session.query_opt(&sql, &[&values.0, &values.1, &values.2]).await?;
    found.map(|row| replay_from_row(&row, tag)).transpose()
}

pub async fn stop(
    tx: &mut WriteTx,
    workspace_key: RowKey,
    endpoint_id: EndpointId,
    id: ReplayId,
    author: Author,
) -> Result<Result<Replay, StopReplayError>, PgError> {
    if find(tx, tx.tag, workspace_key, endpoint_id, id).await?.is_some() {
        end(tx, id.key(), ReplayStatus::Stopped).await?;
        audit::append(tx, workspace_key, author, AuditAction::ReplayStopped, id).await?;
    }
    Ok(find(tx, tx.tag, workspace_key, endpoint_id, id).await?.ok_or(StopReplayError::NotFound))
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

fn running_from_row(row: &Row) -> Result<Running, PgError> {
    Ok(Running {
        key: key(row, "key")?,
        workspace_key: key(row, "workspace_key")?,
        endpoint_key: key(row, "endpoint_key")?,
        mode: coded(row, "mode", mode_from_code)?,
        range: range_from_row(row)?,
        cursor: key(row, "cursor")?,
    })
}

pub async fn advance(tx: &mut WriteTx) -> Result<Option<usize>, PgError> {
    let rows = tx
        .query(
            "SELECT r.key, r.workspace_key, r.endpoint_key, r.mode, r.since, r.until, r.statuses, r.cursor
             FROM replays r JOIN endpoints e ON e.key = r.endpoint_key
             WHERE r.status = 0 AND (e.is_active OR e.deleted_at IS NOT NULL) ORDER BY random() LIMIT $1
             FOR UPDATE OF r SKIP LOCKED",
            &[&as_i64(REPLAYS_PER_STEP)],
        )
        .await?;
    if rows.is_empty() {
        // What is left, if anything, waits for its endpoint to be active again, or is taken further by another node.
        let waiting = tx.query_opt("SELECT 1 FROM replays WHERE status = 0 LIMIT 1", &[]).await?;
        return Ok(waiting.map(|_| 0));
    }
    let mut running = rows.iter().map(running_from_row).collect::<Result<Vec<_>, _>>()?;
    let endpoints = take_endpoints(tx, &running).await?;
    running.retain(|replay| endpoints.contains(&replay.endpoint_key));
    if running.is_empty() {
        return Ok(Some(0));
    }
    let workspaces: HashSet<RowKey> = running.iter().map(|replay| replay.workspace_key).collect();
    tx.share_workspaces(workspaces.iter().copied()).await?;
    matching::load(tx, &workspaces.into_iter().collect::<Vec<_>>()).await?;
    let rows_each = ROWS_PER_STEP / running.len();
    let mut passed = 0;
    for replay in &running {
        passed += advance_one(tx, replay, rows_each).await?;
    }
    Ok(Some(passed))
}

/// Those of the replays' endpoints that no other node replays for.
async fn take_endpoints(tx: &WriteTx, running: &[Running]) -> Result<HashSet<RowKey>, PgError> {
    let keys: Vec<i64> = running.iter().map(|replay| replay.endpoint_key.as_i64()).collect();
    let locks: Vec<i32> = running.iter().map(|replay| lock_of(replay.endpoint_key)).collect();
    let sql = "SELECT key, pg_try_advisory_xact_lock($1, lock) AS is_taken FROM unnest($2, $3) AS asked (key, lock)";
    let rows = tx.query(sql, &[&tx.shared.lock_class, &keys, &locks]).await?;
    let mut taken = HashSet::new();
    for row in &rows {
        if get(row, "is_taken")? {
            taken.insert(key(row, "key")?);
        }
    }
    Ok(taken)
}

/// A number that neither a workspace nor those who make days have. Of two endpoints with the same one, one waits for a step of
/// the other's.
fn lock_of(endpoint_key: RowKey) -> i32 {
    i32::try_from(-2 - endpoint_key.as_i64().rem_euclid((1 << 31) - 1)).unwrap_or(i32::MIN)
}

/// Takes one replay up to `limit` rows further and returns how many it went.
async fn advance_one(tx: &mut WriteTx, replay: &Running, limit: usize) -> Result<usize, PgError> {
    if due::count_due(tx, replay.endpoint_key, LIVE_FIRST).await? >= LIVE_FIRST {
        return Ok(0);
    }
    let rows = candidates(tx, replay.scope(), replay.cursor, limit).await?;
    let step = stretch(&rows);
    let passed = match queue(tx, replay, step).await? {
        Ok(()) => step,
        Err(refusal) => {
            if !matches!(refusal, RequeueRefusal::EndpointOff) {
                end(tx, replay.key, ReplayStatus::Stopped).await?;
            }
            // What is left waits until the endpoint is on again.
            &step[..step.iter().position(|row| row.fate == Fate::Sent).unwrap_or(step.len())]
        }
    };
    let of = |fate| as_i64(passed.iter().filter(|row| row.fate == fate).count());
    tx.execute(
        "UPDATE replays SET cursor = $2, replayed = replayed + $3, unavailable = unavailable + $4 WHERE key = $1",
        &[
            &replay.key.as_i64(),
            &passed.last().map_or(replay.cursor, |row| row.key).as_i64(),
            &of(Fate::Sent),
            &of(Fate::Unavailable),
        ],
    )
    .await?;
    if rows.len() < limit && passed.len() == rows.len() {
        end(tx, replay.key, ReplayStatus::Completed).await?;
    }
    Ok(passed.len())
}

/// Queues again what is to be sent of these rows: all of it or, if the endpoint does not get anything now, nothing.
async fn queue(tx: &mut WriteTx, replay: &Running, rows: &[Candidate]) -> Result<Result<(), RequeueRefusal>, PgError> {
    let agains: Vec<Again> = rows.iter().filter(|row| row.fate == Fate::Sent).map(|row| replay.again(row)).collect();
    let Some(first) = agains.first() else { return Ok(Ok(())) };
    let subscribers = matching::subscribers(tx, replay.workspace_key).await?;
    let subscriber = match requeue::receiver(subscribers.get(replay.endpoint_key), first) {
        Ok(subscriber) => subscriber,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let new = agains.iter().map(|again| requeue::new_delivery(tx, again, subscriber)).collect();
    enqueue::insert(tx, new, Bounds::new()).await?;
    Ok(Ok(()))
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoints_lock_is_no_others() {
        for key in [0, 1, (1 << 31) - 2, (1 << 31) - 1, 1 << 31, i64::MAX] {
            assert!(lock_of(RowKey::from_i64(key)) < -1, "{key}");
        }
        assert_ne!(lock_of(RowKey::from_i64(1)), lock_of(RowKey::from_i64(2)));
    }
}
