//! The stored failures of endpoints. The only file that writes `endpoint_health`.

use tokio_postgres::Row;

use postrider_domain::endpoint_health::{FailureStreak, Pause, Signal};
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::OperationalEvent;
use postrider_store::queue::endpoint_health::{HealthStep, steps};
use postrider_store::{EndpointTarget, Lane, LaneKind};

use super::{lane, operational_event, order};
use crate::machinery::column::{get, number, opt_instant};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;
use crate::registry::endpoint;
use crate::stats;

pub const HEALTH_COLUMNS: &str = "first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at";

/// Applies an attempt's signal to its endpoint. The signal counts only while the endpoint has the URL that was called.
pub async fn record(tx: &mut WriteTx, called: &EndpointTarget, signal: Signal) -> Result<(), PgError> {
    let key = called.endpoint_key;
    if signal == Signal::Success && find(tx, key).await?.is_none() {
        return Ok(());
    }
    // Differs from SQLite: two nodes may record failures of one endpoint at once, so a lock comes before the read.
    let lock = "SELECT pg_advisory_xact_lock(hashint8extended($1, $2))";
    tx.query(lock, &[&key.as_i64(), &i64::from(tx.database.lock_class)]).await?;
    let sql = "SELECT url FROM endpoints WHERE key = $1 AND deleted_at IS NULL";
    match tx.query_opt(sql, &[&key.as_i64()]).await? {
        Some(row) if get::<&str>(&row, "url")? == called.url => {}
        _ => return Ok(()),
    }
    let before = find(tx, key).await?;
    for step in steps(before, signal, tx.now) {
        apply(tx, called, step).await?;
    }
    Ok(())
}

async fn apply(tx: &mut WriteTx, called: &EndpointTarget, step: HealthStep) -> Result<(), PgError> {
    let lane = called.lane(LaneKind::Events);
    match step {
        HealthStep::Forget => forget(tx, called.endpoint_key).await,
        HealthStep::Keep(streak) => store(tx, called.endpoint_key, &streak).await,
        HealthStep::AdvanceHead(at) => order::advance_head(tx, lane, at).await,
        HealthStep::DelayLane { until, paused_since } => lane::delay(tx, lane, until, paused_since).await,
        HealthStep::ResumeLane => lane::resume(tx, lane).await,
        HealthStep::Report(what) => {
            if what == OperationalEvent::EndpointRecovered {
                stats::trouble_ended(tx, called.endpoint_key).await?;
            }
            operational_event::report_endpoint(tx, called, what).await
        }
        HealthStep::Disable(reason) => endpoint::disable(tx, called, reason).await,
    }
}

/// Schedules the probe of a paused endpoint again, at the instant it had: the claim ended without evidence about the
/// endpoint.
pub async fn probe_again(tx: &mut WriteTx, lane: Lane) -> Result<(), PgError> {
    if lane.kind == LaneKind::Tests {
        return Ok(());
    }
    if let Some(pause) = find(tx, lane.endpoint_key).await?.and_then(|streak| streak.pause) {
        lane::delay(tx, lane, pause.next_probe_at, Some(pause.since)).await?;
        tx.claims.left_due = true;
    }
    Ok(())
}

/// Deletes an endpoint's failures: an attempt succeeded, or the endpoint was enabled or got another URL.
pub async fn forget(tx: &mut WriteTx, endpoint_key: RowKey) -> Result<(), PgError> {
    tx.execute("DELETE FROM endpoint_health WHERE endpoint_key = $1", &[&endpoint_key.as_i64()]).await?;
    Ok(())
}

/// Deletes the failures of all endpoints of a workspace that has just been deleted.
pub async fn forget_of_workspace(tx: &mut WriteTx, workspace_key: RowKey) -> Result<(), PgError> {
    let sql = "DELETE FROM endpoint_health WHERE endpoint_key IN (SELECT key FROM endpoints WHERE workspace_key = $1)";
    tx.execute(sql, &[&workspace_key.as_i64()]).await?;
    Ok(())
}

/// The stored failures of an endpoint. `None` when its last attempt did not fail.
pub async fn find(session: &Session, endpoint_key: RowKey) -> Result<Option<FailureStreak>, PgError> {
    let sql = format!("SELECT {HEALTH_COLUMNS} FROM endpoint_health WHERE endpoint_key = $1");
    match session.query_opt(&sql, &[&endpoint_key.as_i64()]).await? {
        Some(row) => from_row(&row),
        None => Ok(None),
    }
}

/// Reads [`HEALTH_COLUMNS`]. They are null for an endpoint without failures.
pub fn from_row(row: &Row) -> Result<Option<FailureStreak>, PgError> {
    let Some(first_failure_at) = opt_instant(row, "first_failure_at")? else { return Ok(None) };
    let pause = match (opt_instant(row, "paused_since")?, opt_instant(row, "next_probe_at")?) {
        (Some(since), Some(next_probe_at)) => {
            Some(Pause { since, failed_probes: number(row, "failed_probes")?, next_probe_at })
        }
        _ => None,
    };
    Ok(Some(FailureStreak { first_failure_at, failures: number(row, "failures")?, pause, warned: get(row, "warned")? }))
}

async fn store(tx: &WriteTx, endpoint_key: RowKey, streak: &FailureStreak) -> Result<(), PgError> {
    let pause = streak.pause;
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
            &streak.first_failure_at.millis(),
            &i64::from(streak.failures),
            &streak.warned,
            &pause.map(|pause| pause.since.millis()),
            &pause.map_or(0, |pause| i64::from(pause.failed_probes)),
            &pause.map(|pause| pause.next_probe_at.millis()),
        ],
    )
    .await?;
    Ok(())
}
