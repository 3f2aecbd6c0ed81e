//! The health of endpoints, updated as outcomes are recorded.
//!
//! `postrider_store::queue::endpoint_health` decides what changes; this file applies it. The writer caches what it
//! read, so that a success of a healthy endpoint costs no statement.
//!
//! Writes `endpoint_health`.

use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::endpoint_health::{FailureStreak, Pause, Signal};
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::time::Timestamp;
use postrider_store::queue::endpoint_health::{HealthStep, steps};
use postrider_store::{EndpointTarget, Lane, LaneKind};

use super::{lane, operational_event, order};
use crate::machinery::writer::WriteTx;
use crate::registry::endpoint;
use crate::stats;

pub const HEALTH_COLUMNS: &str = "first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at";

/// Applies what an attempt says about its endpoint, as long as the endpoint still has the URL that was called.
pub fn record(tx: &mut WriteTx<'_>, called: &EndpointTarget, signal: Signal) -> Result<(), rusqlite::Error> {
    let before = find(tx, called.endpoint_key)?;
    let steps = steps(before, signal, tx.now);
    if steps.is_empty() {
        return Ok(());
    }
    match tx.matching.target(tx.connection, called.endpoint_key)? {
        Some(now) if now.url == called.url => {}
        _ => return Ok(()),
    }
    let lane = called.lane(LaneKind::Events);
    for step in steps {
        match step {
            HealthStep::Forget => forget(tx, called.endpoint_key)?,
            HealthStep::Keep(failures) => store(tx, called.endpoint_key, &failures)?,
            HealthStep::AdvanceHead(at) => order::advance_head(tx, lane, at)?,
            HealthStep::DelayLane { until, paused_since } => lane::delay(tx, lane, until, paused_since)?,
            HealthStep::ResumeLane => lane::resume(tx, lane)?,
            HealthStep::Report(what) => {
                if what == OperationalEvent::EndpointRecovered {
                    stats::trouble_ended(tx, called.endpoint_key)?;
                }
                operational_event::report_endpoint(tx, called, what)?;
            }
            HealthStep::Disable(reason) => endpoint::disable(tx, called, reason)?,
        }
    }
    Ok(())
}

/// The probe of a paused endpoint ended without evidence about it. Schedules the next probe for the instant it had
/// before.
pub fn probe_again(tx: &mut WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    if lane.kind == LaneKind::Tests {
        return Ok(());
    }
    if let Some(pause) = find(tx, lane.endpoint_key)?.and_then(|failures| failures.pause) {
        lane::delay(tx, lane, pause.next_probe_at, Some(pause.since))?;
        tx.claims.left_due = true;
    }
    Ok(())
}

/// Deletes an endpoint's failures: an attempt succeeded, or it was switched on or given another URL.
pub fn forget(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.health.set(endpoint_key, None);
    tx.connection
        .prepare_cached("DELETE FROM endpoint_health WHERE endpoint_key = ?1")?
        .execute([endpoint_key.as_i64()])?;
    Ok(())
}

/// Deletes the failures of every endpoint of a deleted workspace.
pub fn forget_of_workspace(tx: &mut WriteTx<'_>, workspace_key: RowKey) -> Result<(), rusqlite::Error> {
    tx.health.clear();
    tx.connection
        .prepare_cached(
            "DELETE FROM endpoint_health WHERE endpoint_key IN (SELECT key FROM endpoints WHERE workspace_key = ?1)",
        )?
        .execute([workspace_key.as_i64()])?;
    Ok(())
}

/// The stored failures of an endpoint. `None` if its last attempt succeeded.
pub fn find(tx: &mut WriteTx<'_>, endpoint_key: RowKey) -> Result<Option<FailureStreak>, rusqlite::Error> {
    if let Some(known) = tx.health.0.get(&endpoint_key) {
        return Ok(*known);
    }
    let sql = format!("SELECT {HEALTH_COLUMNS} FROM endpoint_health WHERE endpoint_key = ?1");
    let found = tx.connection.prepare_cached(&sql)?.query_row([endpoint_key.as_i64()], from_row).optional()?.flatten();
    tx.health.set(endpoint_key, found);
    Ok(found)
}

/// Reads [`HEALTH_COLUMNS`]. They are null for a healthy endpoint.
pub fn from_row(row: &Row<'_>) -> Result<Option<FailureStreak>, rusqlite::Error> {
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

fn store(tx: &mut WriteTx<'_>, endpoint_key: RowKey, failures: &FailureStreak) -> Result<(), rusqlite::Error> {
    tx.health.set(endpoint_key, Some(*failures));
    let pause = failures.pause;
    tx.connection
        .prepare_cached(
            "INSERT OR REPLACE INTO endpoint_health
                 (endpoint_key, first_failure_at, failures, warned, paused_since, failed_probes, next_probe_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            endpoint_key.as_i64(),
            failures.first_failure_at.millis(),
            failures.failures,
            failures.warned,
            pause.map(|pause| pause.since.millis()),
            pause.map_or(0, |pause| pause.failed_probes),
            pause.map(|pause| pause.next_probe_at.millis()),
        ])?;
    Ok(())
}

/// Endpoints in the cache.
const ENDPOINTS_CACHED: usize = 100_000;

/// The writer's cache of endpoint health. It is exact until a rollback, which clears it.
pub struct HealthCache(BoundedCache<RowKey, Option<FailureStreak>>);

impl HealthCache {
    pub fn clear(&mut self) {
        self.0.clear();
    }

    fn set(&mut self, endpoint_key: RowKey, failures: Option<FailureStreak>) {
        self.0.insert(endpoint_key, failures);
    }
}

impl Default for HealthCache {
    fn default() -> Self {
        Self(BoundedCache::new(ENDPOINTS_CACHED))
    }
}
