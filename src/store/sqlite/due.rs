//! The queue: enqueue, claim, give back, record. The only file that writes `due` and `lanes`.
//!
//! A lane is one endpoint's rows in `due`. `lanes.next_at` is a lower bound on when the lane has something due, so that
//! looking for work touches only lanes that may have some: it costs the same whatever the backlog, and whatever one
//! endpoint's share of it. A claim moves `due_at` to the end of its lease; a claim whose holder died becomes due by
//! itself, and whoever claims it next finds the lost token and records the attempt as abandoned.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use crate::domain::access::Mode;
use crate::domain::attempt::{Attempt, AttemptOutcome};
use crate::domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use crate::domain::endpoint::SecretVersion;
use crate::domain::id::{DeliveryId, EventId, RowKey};
use crate::domain::limits;
use crate::domain::time::Timestamp;
use crate::store::{
    AfterAttempt, Claim, ClaimToken, Claimed, EndpointTarget, Lane, LaneKind, LaneQuota, OutcomeRecord, Recorded,
};

use super::access::{mode_code, mode_from_code};
use super::column::coded;
use super::delivery::NewDelivery;
use super::writer::WriteTx;
use super::{delivery, endpoint};

/// Puts a delivery into the queue, due at once.
pub fn enqueue(
    tx: &WriteTx<'_>,
    new: &NewDelivery,
    secret_version: SecretVersion,
    also_secret_version: Option<SecretVersion>,
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version, also_secret_version)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            new.key.as_i64(),
            lane_key(new.lane),
            new.event_key.as_i64(),
            tx.now.millis(),
            mode_code(new.mode),
            new.cause.code(),
            secret_version.0,
            also_secret_version.map(|version| version.0),
        ])?;
    lower_next_at(tx, new.lane, tx.now)
}

/// Makes sure that a lane is looked at by `at`.
fn lower_next_at(tx: &WriteTx<'_>, lane: Lane, at: Timestamp) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (?1, ?2, ?3)
             ON CONFLICT (lane_key) DO UPDATE SET next_at = excluded.next_at WHERE next_at > excluded.next_at",
        )?
        .execute(params![lane_key(lane), lane.workspace_key.as_i64(), at.millis()])?;
    Ok(())
}

/// Lanes looked at in one claim; the rest come next time.
const LANES_PER_CLAIM: usize = 1_024;

pub fn claim(
    tx: &mut WriteTx<'_>,
    limit: usize,
    lease: Duration,
    quota: &dyn LaneQuota,
) -> Result<Claimed, rusqlite::Error> {
    let mut lanes = ready_lanes(tx)?;
    let mut claims = Vec::new();
    // Round by round, so that no lane takes what another could have had.
    let mut share = (limit / lanes.len().max(1)).max(1);
    let mut allowed: Vec<usize> = lanes.iter().map(|lane| quota.quota(*lane)).collect();
    while claims.len() < limit && !lanes.is_empty() {
        let mut left = Vec::new();
        let mut left_allowed = Vec::new();
        for (lane, allowance) in lanes.into_iter().zip(allowed) {
            let wanted = share.min(allowance).min(limit - claims.len());
            let before = claims.len();
            if wanted > 0 {
                claim_from_lane(tx, lane, wanted, lease, &mut claims)?;
            }
            let taken = claims.len() - before;
            if wanted > 0 && taken == wanted && allowance > taken {
                left.push(lane);
                left_allowed.push(allowance - taken);
            } else if taken < wanted {
                raise_next_at(tx, lane)?;
            }
        }
        (lanes, allowed) = (left, left_allowed);
        share *= 2;
    }
    Ok(Claimed { next_due_in: next_due_in(tx, quota)?, claims })
}

fn ready_lanes(tx: &WriteTx<'_>) -> Result<Vec<Lane>, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "SELECT lane_key, workspace_key FROM lanes
             WHERE held_since IS NULL AND next_at <= ?1 ORDER BY next_at LIMIT ?2",
        )?
        .query_map(params![tx.now.millis(), LANES_PER_CLAIM], lane_from_row)?
        .collect()
}

fn lane_from_row(row: &Row<'_>) -> Result<Lane, rusqlite::Error> {
    let key: i64 = row.get(0)?;
    Ok(Lane {
        endpoint_key: RowKey::from_i64(key.abs()),
        workspace_key: RowKey::from_i64(row.get(1)?),
        kind: if key < 0 { LaneKind::Tests } else { LaneKind::Events },
    })
}

/// The number by which the tables know a lane.
const fn lane_key(lane: Lane) -> i64 {
    match lane.kind {
        LaneKind::Events => lane.endpoint_key.as_i64(),
        LaneKind::Tests => -lane.endpoint_key.as_i64(),
    }
}

/// A row of `due` that may be claimed.
struct DueRow {
    delivery_key: RowKey,
    event_key: RowKey,
    mode: Mode,
    cause: DeliveryCause,
    attempts: u32,
    step: u32,
    lost_claim_at: Option<Timestamp>,
    secret_version: SecretVersion,
    also_secret_version: Option<SecretVersion>,
    envelope: Option<Vec<u8>>,
}

fn due_from_row(row: &Row<'_>) -> Result<DueRow, rusqlite::Error> {
    Ok(DueRow {
        delivery_key: RowKey::from_i64(row.get("delivery_key")?),
        event_key: RowKey::from_i64(row.get("event_key")?),
        mode: coded(row, "mode", mode_from_code)?,
        cause: coded(row, "cause", DeliveryCause::from_code)?,
        attempts: row.get("attempts")?,
        step: row.get("step")?,
        lost_claim_at: row.get::<_, Option<i64>>("claimed_at")?.map(Timestamp::from_millis),
        secret_version: SecretVersion(row.get("secret_version")?),
        also_secret_version: row.get::<_, Option<u32>>("also_secret_version")?.map(SecretVersion),
        envelope: row.get("envelope")?,
    })
}

fn claim_from_lane(
    tx: &mut WriteTx<'_>,
    lane: Lane,
    wanted: usize,
    lease: Duration,
    claims: &mut Vec<Claim>,
) -> Result<(), rusqlite::Error> {
    let Some(target) = tx.matching.target(tx.connection, lane.endpoint_key)? else {
        return cancel_from_lane(tx, lane, wanted);
    };
    let rows = tx
        .connection
        .prepare_cached(
            "SELECT delivery_key, event_key, due.mode, cause, attempts, step, claimed_at, secret_version,
                    also_secret_version, envelope
             FROM due LEFT JOIN events ON events.key = event_key
             WHERE lane_key = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
        )?
        .query_map(params![lane_key(lane), tx.now.millis(), wanted], due_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    for row in rows {
        claims.push(claim_row(tx, &target, row, lease)?);
    }
    Ok(())
}

/// Cancels what waits for an endpoint that is deleted, as much at a time as would have been claimed.
fn cancel_from_lane(tx: &mut WriteTx<'_>, lane: Lane, wanted: usize) -> Result<(), rusqlite::Error> {
    let rows: Vec<(i64, u32)> = tx
        .connection
        .prepare_cached("SELECT delivery_key, attempts FROM due WHERE lane_key = ?1 ORDER BY due_at LIMIT ?2")?
        .query_map(params![lane_key(lane), wanted], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (key, attempts) in rows {
        end_unsent(tx, key, attempts, DeliveryStatus::Cancelled, EndReason::EndpointDeleted)?;
    }
    Ok(())
}

/// Ends a delivery that nobody is attempting.
fn end_unsent(
    tx: &WriteTx<'_>,
    key: i64,
    attempts: u32,
    status: DeliveryStatus,
    reason: EndReason,
) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached("DELETE FROM due WHERE delivery_key = ?1")?.execute([key])?;
    delivery::finish(tx, RowKey::from_i64(key), status, Some(reason), attempts)
}

fn claim_row(
    tx: &mut WriteTx<'_>,
    target: &Arc<EndpointTarget>,
    row: DueRow,
    lease: Duration,
) -> Result<Claim, rusqlite::Error> {
    if let Some(claimed_at) = row.lost_claim_at {
        record_abandoned(tx, &row, claimed_at)?;
    }
    let token = ClaimToken(tx.next_key().as_i64());
    let attempt = row.attempts + 1;
    tx.connection
        .prepare_cached(
            "UPDATE due SET due_at = ?2, claim_token = ?3, claimed_at = ?4, attempts = ?5 WHERE delivery_key = ?1",
        )?
        .execute(params![row.delivery_key.as_i64(), tx.now.plus(lease).millis(), token.0, tx.now.millis(), attempt])?;
    // A secret that was revoked for what is queued gives way to the newest.
    let revoked = row.secret_version < target.oldest_secret_version;
    Ok(Claim {
        delivery_id: DeliveryId::new(row.delivery_key, tx.tag),
        event_id: EventId::new(row.event_key, tx.tag),
        token,
        mode: row.mode,
        cause: row.cause,
        attempt,
        step: row.step,
        endpoint: Arc::clone(target),
        secret_version: if revoked { target.secret_version } else { row.secret_version },
        also_secret_version: row.also_secret_version.filter(|also| *also >= target.oldest_secret_version),
        envelope: Bytes::from(row.envelope.unwrap_or_default()),
    })
}

fn record_abandoned(tx: &WriteTx<'_>, row: &DueRow, claimed_at: Timestamp) -> Result<(), rusqlite::Error> {
    let attempt = Attempt {
        number: row.attempts,
        started_at: claimed_at,
        duration_ms: 0,
        outcome: AttemptOutcome::Abandoned,
        request_headers: Vec::new(),
        response_status: None,
        response_headers: Vec::new(),
        response_body: None,
        error: Some("the process that had started this attempt stopped before recording its outcome".to_owned()),
        next_attempt_at: Some(tx.now),
    };
    delivery::insert_attempt(tx, row.delivery_key, &attempt)
}

/// Sets a lane's bound to what it really holds; a lane that holds nothing goes.
fn raise_next_at(tx: &WriteTx<'_>, lane: Lane) -> Result<(), rusqlite::Error> {
    let earliest: Option<i64> = tx
        .connection
        .prepare_cached("SELECT due_at FROM due WHERE lane_key = ?1 ORDER BY due_at LIMIT 1")?
        .query_row([lane_key(lane)], |row| row.get(0))
        .optional()?;
    match earliest {
        Some(at) => tx
            .connection
            .prepare_cached("UPDATE lanes SET next_at = ?2 WHERE lane_key = ?1")?
            .execute(params![lane_key(lane), at])?,
        None => tx.connection.prepare_cached("DELETE FROM lanes WHERE lane_key = ?1")?.execute([lane_key(lane)])?,
    };
    Ok(())
}

/// When the next lane that has room falls due.
fn next_due_in(tx: &WriteTx<'_>, quota: &dyn LaneQuota) -> Result<Option<Duration>, rusqlite::Error> {
    let mut statement = tx.connection.prepare_cached(
        "SELECT lane_key, workspace_key, next_at FROM lanes WHERE held_since IS NULL ORDER BY next_at LIMIT ?1",
    )?;
    let mut rows = statement.query(params![LANES_PER_CLAIM])?;
    while let Some(row) = rows.next()? {
        let at = Timestamp::from_millis(row.get(2)?);
        if at > tx.now || quota.quota(lane_from_row(row)?) > 0 {
            return Ok(Some(at.since(tx.now)));
        }
    }
    Ok(None)
}

pub fn give_back(tx: &mut WriteTx<'_>, claims: &[(DeliveryId, ClaimToken)]) -> Result<(), rusqlite::Error> {
    for (id, token) in claims {
        let lane = tx
            .connection
            .prepare_cached(
                "UPDATE due SET due_at = ?3, claim_token = NULL, claimed_at = NULL, attempts = attempts - 1
                 WHERE delivery_key = ?1 AND claim_token = ?2
                 RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key)",
            )?
            .query_row(params![id.key().as_i64(), token.0, tx.now.millis()], lane_from_row)
            .optional()?;
        if let Some(lane) = lane {
            lower_next_at(tx, lane, tx.now)?;
        }
    }
    Ok(())
}

pub fn record_outcomes(tx: &mut WriteTx<'_>, outcomes: &[OutcomeRecord]) -> Result<Vec<Recorded>, rusqlite::Error> {
    outcomes.iter().map(|outcome| record_outcome(tx, outcome)).collect()
}

fn record_outcome(tx: &mut WriteTx<'_>, outcome: &OutcomeRecord) -> Result<Recorded, rusqlite::Error> {
    let key = outcome.delivery_id.key();
    let mut attempt = outcome.attempt.clone();
    match outcome.after {
        AfterAttempt::Finish { status, reason } => {
            let held = tx
                .connection
                .prepare_cached("DELETE FROM due WHERE delivery_key = ?1 AND claim_token = ?2")?
                .execute(params![key.as_i64(), outcome.token.0])?;
            if held == 0 {
                return Ok(Recorded::ClaimLost);
            }
            delivery::finish(tx, key, status, reason, attempt.number)?;
        }
        AfterAttempt::Retry { after, uses_step } => {
            let at = tx.now.plus(after);
            let lane = tx
                .connection
                .prepare_cached(
                    "UPDATE due SET due_at = ?3, claim_token = NULL, claimed_at = NULL, step = step + ?4
                     WHERE delivery_key = ?1 AND claim_token = ?2
                     RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key)",
                )?
                .query_row(params![key.as_i64(), outcome.token.0, at.millis(), uses_step], lane_from_row)
                .optional()?;
            let Some(lane) = lane else { return Ok(Recorded::ClaimLost) };
            lower_next_at(tx, lane, at)?;
            attempt.next_attempt_at = Some(at);
        }
    }
    delivery::insert_attempt(tx, key, &attempt)?;
    if let Some((target, reason)) = &outcome.disable {
        endpoint::disable(tx, target, *reason)?;
    }
    Ok(Recorded::Done)
}

/// Makes every claim of a process that is gone due at once. The next claim of each records the lost attempt.
pub fn release_predecessors_claims(tx: &mut WriteTx<'_>) -> Result<usize, rusqlite::Error> {
    let lanes = tx
        .connection
        .prepare("SELECT lane_key, workspace_key FROM lanes")?
        .query_map([], lane_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    let mut released = 0;
    for lane in lanes {
        // A claim ends at most one lease from now, so only that stretch of the lane is looked at.
        let in_lane = tx
            .connection
            .prepare_cached(
                "UPDATE due SET due_at = ?2
                 WHERE lane_key = ?1 AND due_at > ?2 AND due_at <= ?3 AND claim_token IS NOT NULL",
            )?
            .execute(params![lane_key(lane), tx.now.millis(), tx.now.plus(limits::LEASE).millis()])?;
        if in_lane > 0 {
            lower_next_at(tx, lane, tx.now)?;
        }
        released += in_lane;
    }
    Ok(released)
}

/// Fails what has waited too long in lanes that are held.
pub fn expire_waiting(tx: &mut WriteTx<'_>, limit: usize) -> Result<usize, rusqlite::Error> {
    let too_long_ago = tx.now.minus(limits::WAITING_MAX).millis();
    let waiting: Vec<(i64, u32)> = tx
        .connection
        .prepare_cached(
            "SELECT delivery_key, attempts FROM lanes JOIN due ON due.lane_key = lanes.lane_key
             WHERE held_since IS NOT NULL AND held_since <= ?1 AND due_at <= ?1 LIMIT ?2",
        )?
        .query_map(params![too_long_ago, limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    for (key, attempts) in &waiting {
        end_unsent(tx, *key, *attempts, DeliveryStatus::Failed, EndReason::Expired)?;
    }
    Ok(waiting.len())
}
