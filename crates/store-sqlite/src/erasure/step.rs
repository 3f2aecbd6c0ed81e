//! The steps of an erasure that empty rows. A step looks on a read connection first, so that the only writer is not
//! held up, and then empties a few rows.
//!
//! Writes `erasures`.

use rusqlite::{Connection, Row, params};

use postrider_domain::erasure::{ErasureStatus, PendingDeliveries};
use postrider_domain::id::RowKey;
use postrider_domain::payload::PayloadState;
use postrider_domain::time::Timestamp;
use postrider_store::StoreError;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::erasure::{
    ANSWERS_PER_LOOK, AfterStep, EMPTIED_PER_STEP, Emptied, JOBS_PER_STEP, Pass, Phase, ROWS_PER_LOOK, RunningErasure,
    Walked,
};

use super::files;
use crate::log::attempt;
use crate::machinery::column::{coded, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::schema::overwriting_freed_pages;
use crate::machinery::writer::{JobSize, WriteTx};
use crate::publish::event;
use crate::queue::{order, unsent};
use crate::{SqliteStore, idempotency};

/// Looks for answers before their position is written.
const LOOKS_PER_STEP: usize = 8;

/// One step of [`Upkeep::advance_erasures`](postrider_store::Upkeep::advance_erasures).
pub async fn advance(store: &SqliteStore) -> Result<Option<usize>, StoreError> {
    let now = store.clock.now();
    let Some(unfinished) = store.read(move |tx| find_unfinished(tx.connection, now)).await? else { return Ok(None) };
    let mut done = 0;
    if !unfinished.jobs.is_empty() {
        let jobs = unfinished.jobs;
        let plans = store.read(move |tx| plan_all(tx, jobs)).await?;
        let rows = plans.iter().map(|plan| 8 * plan.rows().len() + 1).sum();
        let carry_out =
            move |tx: &mut WriteTx<'_>| plans.iter().map(|plan| carry_out(tx, plan)).sum::<Result<usize, _>>();
        let overwriting = move |tx: &mut WriteTx<'_>| overwriting_freed_pages(tx, &carry_out);
        done = store.write(JobSize { rows, bytes: 0 }, overwriting).await?;
    }
    Ok(Some(done + files::advance(store, unfinished.furthest).await?))
}

/// What is to be done.
struct Unfinished {
    /// Some of the jobs that walk or look for answers.
    jobs: Vec<RunningErasure>,
    /// The phase of the job that has come furthest.
    furthest: Phase,
}

fn find_unfinished(connection: &Connection, now: Timestamp) -> Result<Option<Unfinished>, rusqlite::Error> {
    let furthest = connection
        .prepare_cached("SELECT MAX(phase) AS phase FROM erasures INDEXED BY erasures_running WHERE status < 2")?
        .query_row([], |row| row.get::<_, Option<i64>>(0))?;
    let Some(furthest) = furthest else { return Ok(None) };
    let furthest = Phase::from_code(furthest).ok_or_else(|| unexpected("erasures.phase"))?;
    let jobs = connection
        .prepare_cached(
            "SELECT key, workspace_key, mode, event_key, project_id, endpoint_key, pending, phase, cursor, pass_began,
                    waiting_from, waiting
             FROM erasures INDEXED BY erasures_running
             WHERE status < 2 AND phase < ?1 AND resume_at <= ?2 ORDER BY random() LIMIT ?3",
        )?
        .query_map(params![Phase::Emptied.code(), now.millis(), JOBS_PER_STEP], job_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(Unfinished { jobs, furthest }))
}

fn job_from_row(row: &Row<'_>) -> Result<RunningErasure, rusqlite::Error> {
    let key = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(RowKey::from_i64));
    let walked = match (key("event_key")?, row.get("project_id")?, key("endpoint_key")?) {
        (Some(event), ..) => Walked::Event(event),
        (None, Some(project), _) => Walked::Project(project),
        (None, None, Some(endpoint)) => Walked::Endpoint(endpoint),
        (None, None, None) => return Err(unexpected("erasures.event_key")),
    };
    Ok(RunningErasure {
        key: RowKey::from_i64(row.get("key")?),
        workspace: RowKey::from_i64(row.get("workspace_key")?),
        mode: coded(row, "mode", mode_from_code)?,
        walked,
        pending: coded(row, "pending", PendingDeliveries::from_code)?,
        phase: coded(row, "phase", Phase::from_code)?,
        pass: Pass {
            cursor: RowKey::from_i64(row.get("cursor")?),
            began: row.get::<_, Option<i64>>("pass_began")?.map(Timestamp::from_millis),
            waiting_from: key("waiting_from")?,
            waiting: row.get("waiting")?,
        },
    })
}

/// Rows to empty, and the last row that was looked at. `None` at the end.
struct Look {
    found: Vec<RowKey>,
    to: Option<RowKey>,
}

/// What a step does for one job.
enum Plan {
    Empty(RunningErasure, Look),
    /// Answers to remove.
    Forget(RunningErasure, Look),
}

impl Plan {
    fn rows(&self) -> &[RowKey] {
        match self {
            Self::Empty(_, look) | Self::Forget(_, look) => &look.found,
        }
    }
}

fn plan_all(tx: ReadTx<'_>, jobs: Vec<RunningErasure>) -> Result<Vec<Plan>, rusqlite::Error> {
    let (rows, looks) = ((EMPTIED_PER_STEP / jobs.len()).max(1), (LOOKS_PER_STEP / jobs.len()).max(1));
    let plan = |job: RunningErasure| match job.phase {
        Phase::Walk => look(tx, &job, rows).map(|look| Plan::Empty(job, look)),
        _ => look_for_answers(tx, &job, rows, looks).map(|look| Plan::Forget(job, look)),
    };
    jobs.into_iter().map(plan).collect()
}

fn carry_out(tx: &mut WriteTx<'_>, plan: &Plan) -> Result<usize, rusqlite::Error> {
    match plan {
        Plan::Empty(job, look) => empty(tx, job.clone(), look),
        Plan::Forget(job, look) => remove_answers(tx, job.clone(), look),
    }
}

fn look(tx: ReadTx<'_>, job: &RunningErasure, limit: usize) -> Result<Look, rusqlite::Error> {
    let erased = PayloadState::Erased.code();
    let (sql, of) = match &job.walked {
        Walked::Event(event) => {
            let mut select = tx.connection.prepare_cached("SELECT 1 FROM events WHERE key = ?1 AND payload <> ?2")?;
            let found = if select.exists([event.as_i64(), erased])? { vec![*event] } else { Vec::new() };
            return Ok(Look { found, to: None });
        }
        Walked::Project(project) => (
            "SELECT key, project_id = ?7 AND payload <> ?5 FROM events INDEXED BY events_by_workspace
             WHERE workspace_key = ?1 AND mode = ?2 AND key > ?3 AND key < ?4 ORDER BY key LIMIT ?6",
            rusqlite::types::Value::from(project.clone()),
        ),
        Walked::Endpoint(endpoint) => (
            "SELECT key, ?5 IS NOT NULL FROM deliveries INDEXED BY deliveries_by_endpoint
             WHERE workspace_key = ?1 AND mode = ?2 AND key > ?3 AND key < ?4 AND endpoint_key = ?7
             ORDER BY key LIMIT ?6",
            rusqlite::types::Value::from(endpoint.as_i64()),
        ),
    };
    let mut select = tx.connection.prepare_cached(sql)?;
    let mut rows = select.query(params![
        job.workspace.as_i64(),
        mode_code(job.mode),
        job.pass.cursor.as_i64(),
        job.before().as_i64(),
        erased,
        ROWS_PER_LOOK,
        of,
    ])?;
    let (mut found, mut last, mut count) = (Vec::new(), None, 0);
    while let Some(row) = rows.next()? {
        let key = RowKey::from_i64(row.get(0)?);
        (last, count) = (Some(key), count + 1);
        if row.get::<_, Option<bool>>(1)? == Some(true) {
            found.push(key);
        }
        if found.len() == limit {
            return Ok(Look { found, to: last });
        }
    }
    Ok(Look { found, to: last.filter(|_| count == ROWS_PER_LOOK) })
}

fn empty(tx: &mut WriteTx<'_>, mut job: RunningErasure, look: &Look) -> Result<usize, rusqlite::Error> {
    job.pass.begin(tx.now);
    let mut emptied = Emptied::default();
    for row in &look.found {
        let waits = match job.walked {
            Walked::Endpoint(_) => empty_deliveries(tx, &job, &[*row], &mut emptied)?,
            Walked::Event(_) | Walked::Project(_) => empty_event(tx, &job, *row, &mut emptied)?,
        };
        if waits {
            job.pass.wait_for(*row);
        }
    }
    match job.pass.after_step(look.to, tx.now) {
        AfterStep::GoesOn => save(tx, &job, Timestamp::default(), emptied)?,
        AfterStep::PassesAgain(at) => {
            save(tx, &job, at, emptied)?;
            return Ok(0);
        }
        AfterStep::Done => {
            (job.phase, job.pass.cursor) = (Phase::Answers, job.answers().0);
            save(tx, &job, Timestamp::default(), emptied)?;
        }
    }
    Ok(look.found.len() + 1)
}

/// Returns whether the event waits for its deliveries.
fn empty_event(
    tx: &mut WriteTx<'_>,
    job: &RunningErasure,
    key: RowKey,
    emptied: &mut Emptied,
) -> Result<bool, rusqlite::Error> {
    let deliveries = tx
        .connection
        .prepare_cached("SELECT key FROM deliveries INDEXED BY deliveries_by_event WHERE event_key = ?1")?
        .query_map([key.as_i64()], |row| row.get(0).map(RowKey::from_i64))?
        .collect::<Result<Vec<_>, _>>()?;
    if empty_deliveries(tx, job, &deliveries, emptied)? {
        return Ok(true);
    }
    order::unblock_erased(tx, &deliveries)?;
    event::erase(tx, key)?;
    emptied.events += 1;
    Ok(false)
}

/// Empties all attempts of some deliveries, unless one of them must be finished first. Returns whether that is so.
fn empty_deliveries(
    tx: &mut WriteTx<'_>,
    job: &RunningErasure,
    deliveries: &[RowKey],
    emptied: &mut Emptied,
) -> Result<bool, rusqlite::Error> {
    match job.pending {
        PendingDeliveries::Cancel => emptied.cancelled += unsent::cancel_erased(tx, deliveries)?,
        PendingDeliveries::Finish => {
            let mut queued = tx.connection.prepare_cached("SELECT 1 FROM due WHERE delivery_key = ?1")?;
            for key in deliveries {
                if queued.exists([key.as_i64()])? {
                    return Ok(true);
                }
            }
        }
    }
    for key in deliveries {
        emptied.attempts += attempt::erase(tx, job.workspace, *key)?;
    }
    Ok(false)
}

/// Writes how far a job has come. Upkeep goes on with it at `resume_at`.
fn save(tx: &WriteTx<'_>, job: &RunningErasure, resume_at: Timestamp, emptied: Emptied) -> Result<(), rusqlite::Error> {
    let Pass { cursor, began, waiting_from, waiting } = job.pass;
    tx.connection
        .prepare_cached(
            "UPDATE erasures SET status = ?2, phase = ?3, cursor = ?4, pass_began = ?5, waiting_from = ?6, waiting = ?7,
                 resume_at = ?8, events = events + ?9, attempts = attempts + ?10, cancelled = cancelled + ?11,
                 answers = answers + ?12
             WHERE key = ?1",
        )?
        .execute(params![
            job.key.as_i64(),
            ErasureStatus::Running.code(),
            job.phase.code(),
            cursor.as_i64(),
            began.map(Timestamp::millis),
            waiting_from.map(RowKey::as_i64),
            waiting,
            resume_at.millis(),
            emptied.events,
            emptied.attempts,
            emptied.cancelled,
            emptied.answers,
        ])?;
    Ok(())
}

fn look_for_answers(tx: ReadTx<'_>, job: &RunningErasure, limit: usize, looks: usize) -> Result<Look, rusqlite::Error> {
    let mut look = Look { found: Vec::new(), to: Some(job.pass.cursor) };
    for _ in 0..looks {
        let Some(after) = look.to.filter(|_| look.found.len() < limit) else { break };
        let (mut found, next) = idempotency::find_of_erased(tx, job, after, ANSWERS_PER_LOOK)?;
        look.found.append(&mut found);
        look.to = next;
    }
    Ok(look)
}

fn remove_answers(tx: &mut WriteTx<'_>, mut job: RunningErasure, look: &Look) -> Result<usize, rusqlite::Error> {
    let answers = idempotency::remove(tx, &look.found)?;
    match look.to {
        Some(next) => job.pass.cursor = next,
        None => job.phase = Phase::Emptied,
    }
    save(tx, &job, Timestamp::default(), Emptied { answers, ..Emptied::default() })?;
    Ok(1)
}
