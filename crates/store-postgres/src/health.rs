//! How endpoints do, written as outcomes are recorded. The only file that writes `endpoint_health`.

use tokio_postgres::Row;

use postrider_domain::endpoint::DisabledReason;
use postrider_domain::endpoint_health::{Failure, FailureStreak, HealthChange, Pause, Signal};
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::OperationalEvent;
use postrider_store::{EndpointTarget, Lane, LaneKind};

use super::column::{get, number, opt_instant};
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use super::{endpoint, lane, operation, order};

pub const HEALTH_COLUMNS: &str = "first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at";

/// What an attempt said of its endpoint. It counts only as long as the endpoint points at the URL that was called.
pub async fn record(tx: &mut WriteTx, called: &EndpointTarget, signal: Signal) -> Result<(), PgError> {
    if signal == Signal::Nothing {
        return Ok(());
    }
    let key = called.lane.endpoint_key;
    if signal == Signal::Success && failure_streak(tx, key).await?.is_none() {
        return Ok(());
    }
    // Locked before what is kept is read: two nodes may each have a failure of this endpoint to tell.
    let lock = "SELECT pg_advisory_xact_lock(hashint8extended($1, $2))";
    tx.query(lock, &[&key.as_i64(), &i64::from(tx.shared.lock_class)]).await?;
    let sql = "SELECT url FROM endpoints WHERE key = $1 AND deleted_at IS NULL";
    match tx.query_opt(sql, &[&key.as_i64()]).await? {
        Some(row) if get::<&str>(&row, "url")? == called.url => {}
        _ => return Ok(()),
    }
    match (signal, failure_streak(tx, key).await?) {
        (Signal::Failure(failure), before) => record_failure(tx, called, before, failure).await,
        (_, Some(before)) => record_success(tx, called, &before).await,
        (_, None) => Ok(()),
    }
}

async fn record_success(tx: &mut WriteTx, called: &EndpointTarget, before: &FailureStreak) -> Result<(), PgError> {
    forget(tx, called.lane.endpoint_key).await?;
    lane::leave_alone_no_more(tx, called.lane).await?;
    match before.since() {
        Some(_) => operation::report_endpoint(tx, called, OperationalEvent::EndpointRecovered).await,
        None => Ok(()),
    }
}

async fn record_failure(
    tx: &mut WriteTx,
    called: &EndpointTarget,
    before: Option<FailureStreak>,
    failure: Failure,
) -> Result<(), PgError> {
    let after = FailureStreak::after_failure(before, tx.now, failure);
    keep(tx, called.lane.endpoint_key, &after.failure_streak).await?;
    // A probe may be under way; what was sent before the pause says nothing about when the next one goes.
    let goes_on = before.is_some_and(|before| before.pause.is_some()) && !failure.probe;
    if let Some(until) = after.not_before.filter(|until| !goes_on || *until > tx.now) {
        if let Some(pause) = after.failure_streak.pause {
            order::bring_forward(tx, called.lane, pause.next_probe_at).await?;
        }
        lane::leave_alone(tx, called.lane, until, after.failure_streak.pause.map(|pause| pause.since)).await?;
    }
    match after.change {
        None => Ok(()),
        Some(HealthChange::Disable) => endpoint::disable(tx, called, DisabledReason::Failing).await,
        Some(HealthChange::Failing | HealthChange::DisabledSoon) => {
            operation::report_endpoint(tx, called, OperationalEvent::EndpointFailing).await
        }
        Some(HealthChange::Paused) => operation::report_endpoint(tx, called, OperationalEvent::EndpointPaused).await,
    }
}

/// A claim of a paused endpoint's came to nothing that says how it does: its next probe goes when it was to go.
pub async fn probe_again(tx: &mut WriteTx, lane: Lane) -> Result<(), PgError> {
    if lane.kind == LaneKind::Tests {
        return Ok(());
    }
    if let Some(pause) = failure_streak(tx, lane.endpoint_key).await?.and_then(|failure_streak| failure_streak.pause) {
        lane::leave_alone(tx, lane, pause.next_probe_at, Some(pause.since)).await?;
        tx.claims.left_due = true;
    }
    Ok(())
}

/// Forgets an endpoint's failures: an attempt succeeded, or it was switched on or given another URL.
pub async fn forget(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.execute("DELETE FROM endpoint_health WHERE endpoint_key = $1", &[&endpoint_key.as_i64()]).await?;
    Ok(())
}

/// Forgets the failures of all endpoints of a workspace that has just been deleted.
pub async fn forget_workspace(tx: &mut WriteTx, workspace_key: RowKey) -> Result<(), PgError> {
    let sql = "DELETE FROM endpoint_health WHERE endpoint_key IN (SELECT key FROM endpoints WHERE workspace_key = $1)";
    tx.execute(sql, &[&workspace_key.as_i64()]).await?;
    Ok(())
}

/// What is kept of an endpoint, if its last attempt failed.
pub async fn failure_streak(session: &Session, endpoint_key: RowKey) -> Result<Option<FailureStreak>, PgError> {
    let sql = format!("SELECT {HEALTH_COLUMNS} FROM endpoint_health WHERE endpoint_key = $1");
    match session.query_opt(&sql, &[&endpoint_key.as_i64()]).await? {
        Some(row) => failure_streak_from_row(&row),
        None => Ok(None),
    }
}

/// Reads [`HEALTH_COLUMNS`], which are empty for an endpoint without a failure streak.
pub fn failure_streak_from_row(row: &Row) -> Result<Option<FailureStreak>, PgError> {
    let Some(first_failure_at) = opt_instant(row, "first_failure_at")? else { return Ok(None) };
    let pause = match (opt_instant(row, "paused_since")?, opt_instant(row, "next_probe_at")?) {
        (Some(since), Some(next_probe_at)) => {
            Some(Pause { since, failed_probes: number(row, "failed_probes")?, next_probe_at })
        }
        _ => None,
    };
    Ok(Some(FailureStreak { first_failure_at, failures: number(row, "failures")?, pause, warned: get(row, "warned")? }))
}

async fn keep(tx: &WriteTx, endpoint_key: RowKey, failure_streak: &FailureStreak) -> Result<(), PgError> {
    let pause = failure_streak.pause;
    let sql = "INSERT INTO endpoint_health
                   (endpoint_key, first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at)
               VALUES ($1, $2, $3, $4, $5, $6, $7)
               ON CONFLICT (endpoint_key) DO UPDATE
               SET first_failure_at = excluded.first_failure_at, failures = excluded.failures, warned = excluded.warned,
                   paused_since = excluded.paused_since, failed_probes = excluded.failed_probes,
                   next_probe_at = excluded.next_probe_at";
    tx.execute(
        sql,
        &[
            &endpoint_key.as_i64(),
            &failure_streak.first_failure_at.millis(),
            &i64::from(failure_streak.failures),
            &failure_streak.warned,
            &pause.map(|pause| pause.since.millis()),
            &pause.map_or(0, |pause| i64::from(pause.failed_probes)),
            &pause.map(|pause| pause.next_probe_at.millis()),
        ],
    )
    .await?;
    Ok(())
}
