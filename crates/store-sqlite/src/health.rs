//! How endpoints do, written as outcomes are recorded. The only file that writes `endpoint_health`.
//!
//! The writer remembers what it read, so that a success of an endpoint without a failure streak costs no statement.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::endpoint::DisabledReason;
use postrider_domain::endpoint_health::{Failure, FailureStreak, HealthChange, Pause, Signal};
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::time::Timestamp;
use postrider_store::{EndpointTarget, Lane, LaneKind};

use super::writer::WriteTx;
use super::{endpoint, lane, operation, order};

pub const HEALTH_COLUMNS: &str = "first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at";

/// What an attempt said of its endpoint. It counts only as long as the endpoint points at the URL that was called.
pub fn record(tx: &mut WriteTx<'_>, called: &EndpointTarget, signal: Signal) -> Result<(), rusqlite::Error> {
    if signal == Signal::Nothing {
        return Ok(());
    }
    let key = called.lane.endpoint_key;
    let before = failure_streak(tx, key)?;
    if signal == Signal::Success && before.is_none() {
        return Ok(());
    }
    match tx.matching.target(tx.connection, key)? {
        Some(now) if now.url == called.url => {}
        _ => return Ok(()),
    }
    match (signal, before) {
        (Signal::Failure(failure), _) => record_failure(tx, called, before, failure),
        (_, Some(before)) => record_success(tx, called, &before),
        (_, None) => Ok(()),
    }
}

fn record_success(
    tx: &mut WriteTx<'_>,
    called: &EndpointTarget,
    before: &FailureStreak,
) -> Result<(), rusqlite::Error> {
    forget(tx, called.lane.endpoint_key)?;
    lane::leave_alone_no_more(tx, called.lane)?;
    match before.since() {
        Some(_) => operation::report_endpoint(tx, called, OperationalEvent::EndpointRecovered),
        None => Ok(()),
    }
}

fn record_failure(
    tx: &mut WriteTx<'_>,
    called: &EndpointTarget,
    before: Option<FailureStreak>,
    failure: Failure,
) -> Result<(), rusqlite::Error> {
    let after = FailureStreak::after_failure(before, tx.now, failure);
    keep(tx, called.lane.endpoint_key, &after.failure_streak)?;
    // A probe may be under way; what was sent before the pause says nothing about when the next one goes.
    let goes_on = before.is_some_and(|before| before.pause.is_some()) && !failure.probe;
    if let Some(until) = after.not_before.filter(|until| !goes_on || *until > tx.now) {
        if let Some(pause) = after.failure_streak.pause {
            order::bring_forward(tx, called.lane, pause.next_probe_at)?;
        }
        lane::leave_alone(tx, called.lane, until, after.failure_streak.pause.map(|pause| pause.since))?;
    }
    match after.change {
        None => Ok(()),
        Some(HealthChange::Disable) => endpoint::disable(tx, called, DisabledReason::Failing),
        Some(HealthChange::Failing | HealthChange::DisabledSoon) => {
            operation::report_endpoint(tx, called, OperationalEvent::EndpointFailing)
        }
        Some(HealthChange::Paused) => operation::report_endpoint(tx, called, OperationalEvent::EndpointPaused),
    }
}

/// A claim of a paused endpoint's came to nothing that says how it does: its next probe goes when it was to go.
pub fn probe_again(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    if lane.kind == LaneKind::Tests {
        return Ok(());
    }
    if let Some(pause) = failure_streak(tx, lane.endpoint_key)?.and_then(|failure_streak| failure_streak.pause) {
        lane::leave_alone(tx, lane, pause.next_probe_at, Some(pause.since))?;
        tx.claims.left_due = true;
    }
    Ok(())
}

/// Forgets an endpoint's failures: an attempt succeeded, or it was switched on or given another URL.
pub fn forget(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.health.remember(endpoint_key, None);
    tx.connection
        .prepare_cached("DELETE FROM endpoint_health WHERE endpoint_key = ?1")?
        .execute([endpoint_key.as_i64()])?;
    Ok(())
}

/// Forgets the failures of all endpoints of a workspace that has just been deleted.
pub fn forget_workspace(tx: &mut WriteTx<'_>, workspace_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.health.forget_everything();
    tx.connection
        .prepare_cached(
            "DELETE FROM endpoint_health WHERE endpoint_key IN (SELECT key FROM endpoints WHERE workspace_key = ?1)",
        )?
        .execute([workspace_key.as_i64()])?;
    Ok(())
}

/// What is kept of an endpoint, if its last attempt failed.
pub fn failure_streak(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<Option<FailureStreak>, rusqlite::Error> {
    if let Some(known) = tx.health.0.get(&endpoint_key) {
        return Ok(*known);
    }
    let sql = format!("SELECT {HEALTH_COLUMNS} FROM endpoint_health WHERE endpoint_key = ?1");
    let found = tx
        .connection
        .prepare_cached(&sql)?
        .query_row([endpoint_key.as_i64()], failure_streak_from_row)
        .optional()?
        .flatten();
    tx.health.remember(endpoint_key, found);
    Ok(found)
}

/// Reads [`HEALTH_COLUMNS`], which are empty for an endpoint without a failure streak.
pub fn failure_streak_from_row(row: &Row<'_>) -> Result<Option<FailureStreak>, rusqlite::Error> {
    let instant = |name: &str| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(name)?.map(Timestamp::from_millis));
    let Some(first_failure_at) = instant("first_failure_at")? else { return Ok(None) };
    let pause = match (instant("paused_since")?, instant("next_probe_at")?) {
        (Some(since), Some(next_probe_at)) => {
            Some(Pause { since, failed_probes: row.get("failed_probes")?, next_probe_at })
        }
        _ => None,
    };
    Ok(Some(FailureStreak { first_failure_at, failures: row.get("failures")?, pause, warned: row.get("warned")? }))
}

fn keep(tx: &mut WriteTx<'_>, endpoint_key: RowKey, failure_streak: &FailureStreak) -> Result<(), rusqlite::Error> {
    tx.health.remember(endpoint_key, Some(*failure_streak));
    let pause = failure_streak.pause;
    tx.connection
        .prepare_cached(
            "INSERT OR REPLACE INTO endpoint_health
                 (endpoint_key, first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            endpoint_key.as_i64(),
            failure_streak.first_failure_at.millis(),
            failure_streak.failures,
            failure_streak.warned,
            pause.map(|pause| pause.since.millis()),
            pause.map_or(0, |pause| pause.failed_probes),
            pause.map(|pause| pause.next_probe_at.millis()),
        ])?;
    Ok(())
}

/// Endpoints remembered; beyond it all are forgotten and read again when needed.
const ENDPOINTS_KEPT: usize = 100_000;

/// What the writer knows of endpoints; exact until a rollback, which forgets everything.
#[derive(Default)]
pub struct HealthCache(HashMap<RowKey, Option<FailureStreak>>);

impl HealthCache {
    pub fn forget_everything(&mut self) {
        self.0.clear();
    }

    fn remember(&mut self, endpoint_key: RowKey, failure_streak: Option<FailureStreak>) {
        if self.0.len() >= ENDPOINTS_KEPT {
            self.0.clear();
        }
        self.0.insert(endpoint_key, failure_streak);
    }
}
