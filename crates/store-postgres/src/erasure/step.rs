//! The steps of an erasure that empty rows. Any node advances any job: it locks the job's row.
//!
//! Differs from SQLite: the rows of a step are emptied by statements for all of them. An event is locked before its
//! deliveries are looked at, so that none is queued for it meanwhile (`queue/enqueue.rs`).
//!
//! Writes `erasures`.

use std::collections::{BTreeSet, HashSet};

use tokio_postgres::Row;

use postrider_domain::erasure::{ErasureStatus, PendingDeliveries};
use postrider_domain::id::RowKey;
use postrider_domain::payload::PayloadState;
use postrider_domain::time::{Day, Timestamp};
use postrider_store::StoreError;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::erasure::{
    ANSWERS_PER_LOOK, AfterStep, EMPTIED_PER_STEP, Emptied, JOBS_PER_STEP, Pass, Phase, ROWS_PER_LOOK, RunningErasure,
    Walked,
};

use super::files::{self, Round};
use crate::log::attempt;
use crate::machinery::column::{coded, get, int, key, number, opt_instant, opt_int, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::{WriteTx, effect};
use crate::publish::event;
use crate::queue::{order, unsent};
use crate::{PostgresStore, idempotency};

/// One step of [`Upkeep::advance_erasures`](postrider_store::Upkeep::advance_erasures).
pub async fn advance(store: &PostgresStore) -> Result<Option<usize>, StoreError> {
    let unfinished = "SELECT 1 FROM erasures WHERE status < 2 LIMIT 1";
    let exists = store.read(move |session| Box::pin(session.query_opt(unfinished, &[]))).await?.is_some();
    if !exists {
        return Ok(None);
    }
    match store.write(effect!(|tx| step(tx))).await? {
        Stepped::Rows(rows) => Ok(Some(rows)),
        Stepped::Vacuum(round) => files::vacuum(store, round).await.map(Some),
    }
}

/// What a step did.
enum Stepped {
    Rows(usize),
    /// There is nothing to empty now. These jobs wait for a vacuum.
    Vacuum(Round),
}

/// A job, and the days that it has touched.
struct Job {
    running: RunningErasure,
    days: BTreeSet<Day>,
}

async fn step(tx: &mut WriteTx) -> Result<Stepped, PgError> {
    let rows = tx
        .query(
            "SELECT key, workspace_key, mode, event_key, project_id, endpoint_key, pending, phase, cursor, pass_began,
                    waiting_from, waiting, days
             FROM erasures WHERE status < 2 AND phase < $1 AND resume_at <= $2 ORDER BY random() LIMIT $3
             FOR UPDATE SKIP LOCKED",
            &[&Phase::Emptied.code(), &tx.now.millis(), &as_i64(JOBS_PER_STEP)],
        )
        .await?;
    if rows.is_empty() {
        return Ok(files::begin(tx).await?.map_or(Stepped::Rows(0), Stepped::Vacuum));
    }
    let mut jobs = rows.iter().map(job_from_row).collect::<Result<Vec<_>, _>>()?;
    tx.share_workspaces(jobs.iter().map(|job| job.running.workspace)).await?;
    // A look must read its rows in index order and stop at the limit, however few rows the planner expects.
    tx.batch("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off").await?;
    let (mut done, limit) = (0, (EMPTIED_PER_STEP / jobs.len()).max(1));
    for job in &mut jobs {
        done += match job.running.phase {
            Phase::Walk => walk(tx, job, limit).await?,
            _ => remove_answers(tx, job).await?,
        };
    }
    Ok(Stepped::Rows(done))
}

fn job_from_row(row: &Row) -> Result<Job, PgError> {
    let opt_key = |column| Ok::<_, PgError>(opt_int(row, column)?.map(RowKey::from_i64));
    let walked = match (opt_key("event_key")?, get::<Option<String>>(row, "project_id")?, opt_key("endpoint_key")?) {
        (Some(event), ..) => Walked::Event(event),
        (None, Some(project), _) => Walked::Project(project),
        (None, None, Some(endpoint)) => Walked::Endpoint(endpoint),
        (None, None, None) => return Err(unexpected("erasures.event_key")),
    };
    let running = RunningErasure {
        key: key(row, "key")?,
        workspace: key(row, "workspace_key")?,
        mode: coded(row, "mode", mode_from_code)?,
        walked,
        pending: coded(row, "pending", PendingDeliveries::from_code)?,
        phase: coded(row, "phase", Phase::from_code)?,
        pass: Pass {
            cursor: key(row, "cursor")?,
            began: opt_instant(row, "pass_began")?,
            waiting_from: opt_key("waiting_from")?,
            waiting: number(row, "waiting")?,
        },
    };
    Ok(Job { running, days: files::days_from(get(row, "days")?)? })
}

/// Rows to empty, and the last row that was looked at. `None` at the end.
struct Look {
    found: Vec<i64>,
    to: Option<RowKey>,
}

async fn look(tx: &WriteTx, job: &RunningErasure, emptied: usize) -> Result<Look, PgError> {
    let erased = PayloadState::Erased.code();
    let (workspace, mode) = (job.workspace.as_i64(), mode_code(job.mode));
    let (after, before, limit) = (job.pass.cursor.as_i64(), job.before().as_i64(), as_i64(ROWS_PER_LOOK));
    let rows = match &job.walked {
        Walked::Event(event) => {
            let sql = "SELECT key FROM events WHERE key = $1 AND payload <> $2";
            let found = tx.query_opt(sql, &[&event.as_i64(), &erased]).await?;
            let found = found.iter().map(|row| int(row, "key")).collect::<Result<_, _>>()?;
            return Ok(Look { found, to: None });
        }
        Walked::Project(project) => {
            let sql = "SELECT key, COALESCE(project_id = $5 AND payload <> $6, FALSE) AS is_wanted FROM events
                       WHERE workspace_key = $1 AND mode = $2 AND key > $3 AND key < $4 ORDER BY key LIMIT $7";
            tx.query(sql, &[&workspace, &mode, &after, &before, project, &erased, &limit]).await?
        }
        Walked::Endpoint(endpoint) => {
            let sql = "SELECT key, workspace_key = $1 AND mode = $2 AS is_wanted FROM deliveries
                       WHERE endpoint_key = $5 AND key > $3 AND key < $4 ORDER BY key LIMIT $6";
            tx.query(sql, &[&workspace, &mode, &after, &before, &endpoint.as_i64(), &limit]).await?
        }
    };
    let mut found = Vec::new();
    for row in &rows {
        if get(row, "is_wanted")? {
            found.push(int(row, "key")?);
        }
        if found.len() == emptied {
            return Ok(Look { found, to: Some(key(row, "key")?) });
        }
    }
    let last = rows.last().filter(|_| rows.len() == ROWS_PER_LOOK);
    Ok(Look { found, to: last.map(|row| key(row, "key")).transpose()? })
}

async fn walk(tx: &mut WriteTx, job: &mut Job, limit: usize) -> Result<usize, PgError> {
    let look = look(tx, &job.running, limit).await?;
    job.running.pass.begin(tx.now);
    let mut emptied = Emptied::default();
    let waiting = match job.running.walked {
        Walked::Endpoint(_) => empty_deliveries(tx, job, &look.found, &mut emptied).await?,
        Walked::Event(_) | Walked::Project(_) => empty_events(tx, job, &look.found, &mut emptied).await?,
    };
    waiting.into_iter().for_each(|row| job.running.pass.wait_for(row));
    let resume_at = match job.running.pass.after_step(look.to, tx.now) {
        AfterStep::GoesOn => Timestamp::default(),
        AfterStep::PassesAgain(at) => {
            save(tx, job, at, emptied).await?;
            return Ok(0);
        }
        AfterStep::Done => {
            (job.running.phase, job.running.pass.cursor) = (Phase::Answers, job.running.answers().0);
            Timestamp::default()
        }
    };
    save(tx, job, resume_at, emptied).await?;
    Ok(look.found.len() + 1)
}

/// Returns the events that wait for their deliveries.
async fn empty_events(
    tx: &mut WriteTx,
    job: &mut Job,
    found: &Vec<i64>,
    emptied: &mut Emptied,
) -> Result<Vec<RowKey>, PgError> {
    let Some(first) = found.first() else { return Ok(Vec::new()) };
    let locked = tx.query("SELECT key FROM events WHERE key = ANY ($1) ORDER BY key FOR UPDATE", &[found]).await?;
    let mut events = locked.iter().map(|row| int(row, "key")).collect::<Result<Vec<_>, _>>()?;
    let mut waiting = BTreeSet::new();
    if job.running.pending == PendingDeliveries::Finish {
        let queued = tx.query("SELECT event_key FROM due WHERE event_key = ANY ($1)", &[&events]).await?;
        waiting = queued.iter().map(|row| int(row, "event_key")).collect::<Result<_, _>>()?;
        events.retain(|key| !waiting.contains(key));
    }
    // The deliveries of an event are newer.
    let sql = "SELECT key FROM deliveries WHERE event_key = ANY ($1) AND key >= $2";
    let deliveries = tx.query(sql, &[&events, first]).await?;
    let deliveries = deliveries.iter().map(|row| int(row, "key")).collect::<Result<Vec<_>, _>>()?;
    let left = empty_deliveries(tx, job, &deliveries, emptied).await?;
    debug_assert!(left.is_empty(), "an event with queued deliveries was left out");
    order::unblock_erased(tx, &deliveries).await?;
    event::erase(tx, &events).await?;
    job.touch(&events);
    emptied.events += events.len() as u64;
    Ok(waiting.into_iter().map(RowKey::from_i64).collect())
}

/// Empties all attempts of these deliveries. Returns the deliveries that must be finished first.
async fn empty_deliveries(
    tx: &mut WriteTx,
    job: &mut Job,
    found: &[i64],
    emptied: &mut Emptied,
) -> Result<Vec<RowKey>, PgError> {
    let mut deliveries = found.to_vec();
    let mut waiting = HashSet::new();
    match job.running.pending {
        PendingDeliveries::Cancel => emptied.cancelled += unsent::cancel_erased(tx, &deliveries).await?,
        PendingDeliveries::Finish => {
            let queued = tx.query("SELECT delivery_key FROM due WHERE delivery_key = ANY ($1)", &[&deliveries]).await?;
            waiting = queued.iter().map(|row| int(row, "delivery_key")).collect::<Result<_, _>>()?;
            deliveries.retain(|key| !waiting.contains(key));
        }
    }
    emptied.attempts += attempt::erase(tx, &deliveries).await?;
    job.touch(&deliveries);
    let waits = found.iter().filter(|key| waiting.contains(key));
    Ok(waits.copied().map(RowKey::from_i64).collect())
}

impl Job {
    fn touch(&mut self, rows: &[i64]) {
        self.days.extend(rows.iter().map(|key| Day::containing(RowKey::from_i64(*key).created_at())));
    }
}

/// Writes how far a job has come. Upkeep goes on with it at `resume_at`.
async fn save(tx: &WriteTx, job: &Job, resume_at: Timestamp, emptied: Emptied) -> Result<(), PgError> {
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let RunningErasure { key, phase, pass, .. } = &job.running;
    tx.execute(
        "UPDATE erasures SET status = $2, phase = $3, cursor = $4, pass_began = $5, waiting_from = $6, waiting = $7,
             resume_at = $8, events = events + $9, attempts = attempts + $10, cancelled = cancelled + $11,
             answers = answers + $12, days = $13
         WHERE key = $1",
        &[
            &key.as_i64(),
            &ErasureStatus::Running.code(),
            &phase.code(),
            &pass.cursor.as_i64(),
            &pass.began.map(Timestamp::millis),
            &pass.waiting_from.map(RowKey::as_i64),
            &number(pass.waiting),
            &resume_at.millis(),
            &number(emptied.events),
            &number(emptied.attempts),
            &number(emptied.cancelled),
            &number(emptied.answers),
            &files::days_to(&job.days),
        ],
    )
    .await?;
    Ok(())
}

async fn remove_answers(tx: &mut WriteTx, job: &mut Job) -> Result<usize, PgError> {
    let (found, next) = idempotency::find_of_erased(tx, &job.running, tx.tag, ANSWERS_PER_LOOK).await?;
    let answers = idempotency::remove(tx, &found).await?;
    match next {
        Some(next) => job.running.pass.cursor = next,
        None => job.running.phase = Phase::Emptied,
    }
    save(tx, job, Timestamp::default(), Emptied { answers, ..Emptied::default() }).await?;
    Ok(1)
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
