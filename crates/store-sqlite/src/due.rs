//! The queue: enqueue, claim, give back, record. What leaves it unsent stands in `unsent.rs`; no other file writes `due`.
//!
//! A lane is one endpoint's rows in `due`. `lanes.next_at` says from when on the lane may have something due, so that
//! looking for work touches only lanes that may have some: it costs the same whatever the backlog, and whatever one
//! endpoint's share of it. It also says whose turn it is: the lane that has been ready longest is served first, and goes
//! to the end of the line when not all can be served.
//!
//! A claim moves `due_at` to the end of its lease; a claim whose holder died becomes due by itself, and whoever claims
//! it next finds the lost token and records the attempt as abandoned.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::id::{DeliveryId, EventId, RowKey};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_store::{
    AfterAttempt, Claim, ClaimToken, Claimed, EndpointTarget, Lane, LaneKind, LaneQuota, OutcomeRecord, Recorded,
};

use super::column::coded;
use super::delivery::NewDelivery;
use super::lane::{
    hold_lane, lane_from_row, lane_key, leave_alone, lower_next_at, may_have_due, move_behind_others, raise_next_at,
};
use super::unsent::{LaneState, Unsent, cancel_from_lane, end_unsent, record_abandoned};
use super::writer::WriteTx;
use super::{delivery, endpoint, health, operation, order};
use postrider_store::column::{mode_code, mode_from_code};

/// Puts a delivery into the queue. `payload` are the bytes of an event that is being accepted: then the delivery is handed
/// over at once, claimed in this very transaction, if there is room and nothing older is due in its lane.
pub fn enqueue(
    tx: &mut WriteTx<'_>,
    new: &NewDelivery,
    target: &Arc<EndpointTarget>,
    also_secret_version: Option<SecretVersion>,
    payload: Option<&Bytes>,
) -> Result<(), rusqlite::Error> {
    let place = order::take_place(tx, new.lane, new.standing)?;
    let has_turn = place.as_ref().is_none_or(|place| place.is_head);
    let handed = match payload {
        Some(payload)
            if has_turn && !new.is_held && tx.claims.has_room(new.lane, target) && !may_have_due(tx, new.lane)? =>
        {
            Some(payload)
        }
        _ => None,
    };
    let token = handed.map(|_| ClaimToken(tx.next_key().as_i64()));
    let due_at = match handed {
        Some(_) => tx.now.plus(limits::LEASE),
        None if has_turn => tx.now,
        None => order::NOT_YET,
    };
    tx.connection
        .prepare_cached(
            "INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version, also_secret_version,
                              attempts, claim_token, claimed_at, sequence)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?
        .execute(params![
            new.key.as_i64(),
            lane_key(new.lane),
            new.event_key.as_i64(),
            due_at.millis(),
            mode_code(new.mode),
            new.cause.code(),
            target.secret_version.0,
            also_secret_version.map(|version| version.0),
            u32::from(handed.is_some()),
            token.map(|token| token.0),
            token.map(|_| tx.now.millis()),
            place.map(|place| place.sequence),
        ])?;
    lower_next_at(tx, new.lane, due_at)?;
    if new.is_held {
        hold_lane(tx, new.lane.endpoint_key)?;
    }
    let (Some(payload), Some(token)) = (handed, token) else {
        tx.claims.left_due = true;
        return Ok(());
    };
    let claim = Claim {
        delivery_id: DeliveryId::new(new.key, tx.tag),
        event_id: EventId::new(new.event_key, tx.tag),
        token,
        mode: new.mode,
        cause: new.cause,
        attempt: 1,
        step: 0,
        endpoint: Arc::clone(target),
        secret_version: target.secret_version,
        also_secret_version,
        envelope: payload.clone(),
        probe: false,
    };
    tx.claims.hand_over(claim, new.lane);
    Ok(())
}

/// How many deliveries of an endpoint are due now, counted up to `enough`.
pub fn count_due(tx: &WriteTx<'_>, endpoint_key: RowKey, enough: usize) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached("SELECT COUNT(*) FROM (SELECT 1 FROM due WHERE lane_key = ?1 AND due_at <= ?2 LIMIT ?3)")?
        .query_row(params![endpoint_key.as_i64(), tx.now.millis(), enough], |row| row.get(0))
}

/// Lanes served in one claim; the rest come next time.
const LANES_PER_CLAIM: usize = 1_024;

/// How many more deliveries of each endpoint may be claimed now, whichever of its lanes they come from.
type Room = HashMap<RowKey, usize>;

pub fn claim(
    tx: &mut WriteTx<'_>,
    limit: usize,
    lease: Duration,
    quota: &Arc<dyn LaneQuota>,
) -> Result<Claimed, rusqlite::Error> {
    let (mut lanes, mut room) = ready_lanes(tx, quota.as_ref())?;
    let mut claims = Vec::new();
    let some_must_wait = lanes.len() > limit || lanes.len() == LANES_PER_CLAIM;
    // Round by round, so that no lane takes what another could have had.
    let mut share = (limit / lanes.len().max(1)).max(1);
    while claims.len() < limit && !lanes.is_empty() {
        let mut left = Vec::new();
        for ready in lanes {
            let ReadyLane { lane, paused_since } = ready;
            let Some(room) = room.get_mut(&lane.endpoint_key) else { continue };
            // The quota is asked again: what other endpoints were given may have left less.
            let wanted = share.min(*room).min(limit - claims.len()).min(quota.quota(lane));
            let wanted = if paused_since.is_some() { wanted.min(1) } else { wanted };
            if wanted == 0 {
                continue;
            }
            let wanted = match tx.matching.target(tx.connection, lane.endpoint_key)? {
                Some(target) => quota.allowance(lane, &target, wanted),
                None => wanted,
            };
            if wanted == 0 {
                *room = 0;
                continue;
            }
            let before = claims.len();
            if claim_from_lane(tx, ready, wanted, lease, &mut claims)? == LaneState::MoreToCancel {
                continue;
            }
            let taken = claims.len() - before;
            *room -= taken;
            (0..taken).for_each(|_| tx.claims.count(quota, lane));
            if taken < wanted {
                raise_next_at(tx, lane)?;
                continue;
            }
            if paused_since.is_some() {
                // One probe at a time; should its holder die, the next one goes when its lease has run out.
                leave_alone(tx, lane, tx.now.plus(lease), paused_since)?;
                continue;
            }
            if some_must_wait {
                move_behind_others(tx, lane)?;
            }
            left.push(ready);
        }
        lanes = left;
        share *= 2;
    }
    Ok(Claimed { next_due_in: next_due_in(tx, quota.as_ref(), &room)?, claims })
}

/// The lanes whose turn it is, the one that has waited longest first. One that may not be claimed takes nobody's place.
/// Tests come first: they are few, and someone waits for each, while an endpoint's backlog could take all its room for hours.
fn ready_lanes(tx: &WriteTx<'_>, quota: &dyn LaneQuota) -> Result<(Vec<ReadyLane>, Room), rusqlite::Error> {
    let mut statement = tx.connection.prepare_cached(
        "SELECT lane_key, workspace_key, paused_since FROM lanes
         WHERE held_since IS NULL AND next_at <= ?1 ORDER BY next_at",
    )?;
    let mut rows = statement.query([tx.now.millis()])?;
    let (mut lanes, mut room) = (Vec::new(), Room::new());
    while lanes.len() < LANES_PER_CLAIM
        && let Some(row) = rows.next()?
    {
        let lane = lane_from_row(row)?;
        let allowance = quota.quota(lane);
        if allowance > 0 {
            let paused_since = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis);
            lanes.push(ReadyLane { lane, paused_since });
            room.insert(lane.endpoint_key, allowance);
        }
    }
    lanes.sort_by_key(|ready| ready.lane.kind != LaneKind::Tests);
    Ok((lanes, room))
}

/// A lane whose turn it is.
#[derive(Clone, Copy)]
struct ReadyLane {
    lane: Lane,
    /// Its endpoint is paused: one delivery is sent, as a probe.
    paused_since: Option<Timestamp>,
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
    sequence: Option<i64>,
    /// `None` when the event is gone.
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
        sequence: row.get("sequence")?,
        envelope: row.get("envelope")?,
    })
}

fn claim_from_lane(
    tx: &mut WriteTx<'_>,
    ReadyLane { lane, paused_since }: ReadyLane,
    wanted: usize,
    lease: Duration,
    claims: &mut Vec<Claim>,
) -> Result<LaneState, rusqlite::Error> {
    let Some(target) = tx.matching.target(tx.connection, lane.endpoint_key)? else {
        return cancel_from_lane(tx, lane);
    };
    let rows = tx
        .connection
        .prepare_cached(
            "SELECT delivery_key, event_key, due.mode, cause, attempts, step, claimed_at, secret_version,
                    also_secret_version, sequence, envelope
             FROM due LEFT JOIN events ON events.key = event_key
             WHERE lane_key = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3",
        )?
        .query_map(params![lane_key(lane), tx.now.millis(), wanted], due_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    for mut row in rows {
        match row.envelope.take() {
            Some(envelope) => {
                let claim = claim_row(tx, &target, row, envelope.into(), lease)?;
                claims.push(Claim { probe: paused_since.is_some(), ..claim });
            }
            None => end_without_event(tx, &row)?,
        }
    }
    Ok(LaneState::Looked)
}

/// Fails what has nothing left to send: an empty body must never go out in an event's place.
fn end_without_event(tx: &mut WriteTx<'_>, row: &DueRow) -> Result<(), rusqlite::Error> {
    let delivery_id = DeliveryId::new(row.delivery_key, tx.tag);
    tracing::error!(%delivery_id, "a delivery failed because its event is gone from the store");
    let unsent = Unsent { delivery_key: row.delivery_key, attempts: row.attempts, lost_claim_at: row.lost_claim_at };
    end_unsent(tx, &unsent, DeliveryStatus::Failed, EndReason::EventGone)?;
    match row.sequence {
        Some(sequence) => order::after_head(tx, row.delivery_key, sequence, Some(EndReason::EventGone)),
        None => Ok(()),
    }
}

fn claim_row(
    tx: &mut WriteTx<'_>,
    target: &Arc<EndpointTarget>,
    row: DueRow,
    envelope: Bytes,
    lease: Duration,
) -> Result<Claim, rusqlite::Error> {
    if let Some(claimed_at) = row.lost_claim_at {
        record_abandoned(tx, row.delivery_key, row.attempts, claimed_at, Some(tx.now))?;
    }
    let token = ClaimToken(tx.next_key().as_i64());
    let attempt = row.attempts + 1;
    tx.connection
        .prepare_cached(
            "UPDATE due SET due_at = ?2, claim_token = ?3, claimed_at = ?4, attempts = ?5 WHERE delivery_key = ?1",
        )?
        .execute(params![row.delivery_key.as_i64(), tx.now.plus(lease).millis(), token.0, tx.now.millis(), attempt])?;
    // Secrets that were revoked for what is queued give way to the newest.
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
        also_secret_version: row.also_secret_version.filter(|_| !revoked),
        envelope,
        probe: false,
    })
}

/// When the next lane that has room falls due. `room` is what this claim has left of what it found.
fn next_due_in(tx: &WriteTx<'_>, quota: &dyn LaneQuota, room: &Room) -> Result<Option<Duration>, rusqlite::Error> {
    let has_room = |lane: Lane| match room.get(&lane.endpoint_key) {
        Some(room) => *room > 0,
        None => quota.quota(lane) > 0,
    };
    let mut statement = tx.connection.prepare_cached(
        "SELECT lane_key, workspace_key, next_at FROM lanes WHERE held_since IS NULL ORDER BY next_at",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let at = Timestamp::from_millis(row.get(2)?);
        if at == order::NOT_YET {
            break;
        }
        let lane = lane_from_row(row)?;
        if at > tx.now || has_room(lane) {
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
            health::probe_again(tx, lane)?;
            lower_next_at(tx, lane, tx.now)?;
            tx.claims.left_due = true;
        }
    }
    Ok(())
}

/// So many outcomes are worth a commit of their own.
const WORTH_A_COMMIT: usize = 16;

/// Whether these outcomes may share a commit that comes a moment later.
pub fn can_wait(outcomes: &[OutcomeRecord]) -> bool {
    outcomes.len() < WORTH_A_COMMIT && outcomes.iter().all(OutcomeRecord::can_wait)
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
                .prepare_cached("DELETE FROM due WHERE delivery_key = ?1 AND claim_token = ?2 RETURNING sequence")?
                .query_row(params![key.as_i64(), outcome.token.0], |row| row.get(0))
                .optional()?;
            let Some(sequence) = held else { return Ok(Recorded::ClaimLost) };
            delivery::finish(tx, key, status, reason, attempt.number)?;
            if let Some(sequence) = sequence {
                order::after_head(tx, key, sequence, reason)?;
            }
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
            if tx.matching.target(tx.connection, lane.endpoint_key)?.is_some() {
                lower_next_at(tx, lane, at)?;
                // It may fall due earlier than what the engine waits for.
                tx.claims.left_due = true;
                attempt.next_attempt_at = Some(at);
            } else {
                // The endpoint was deleted while it was being called: there is nothing to try again.
                let unsent = Unsent { delivery_key: key, attempts: attempt.number, lost_claim_at: None };
                end_unsent(tx, &unsent, DeliveryStatus::Cancelled, EndReason::EndpointDeleted)?;
            }
        }
    }
    delivery::insert_attempt(tx, key, &attempt)?;
    health::record(tx, &outcome.endpoint, outcome.signal)?;
    if attempt.outcome == AttemptOutcome::Simulated {
        health::probe_again(tx, outcome.endpoint.lane)?;
    }
    if let Some(reason) = outcome.disable {
        endpoint::disable(tx, &outcome.endpoint, reason)?;
    }
    // A test is not tried again whatever came of it, which is nothing to be told of.
    let is_exhausted = matches!(outcome.after, AfterAttempt::Finish { reason: Some(EndReason::Exhausted), .. });
    if is_exhausted && outcome.cause != DeliveryCause::Test {
        operation::report_exhausted(tx, &outcome.endpoint, outcome.delivery_id, attempt.number)?;
    }
    Ok(Recorded::Done)
}

/// Makes every claim of a process that is gone due at once. The next claim of each records the lost attempt.
pub fn release_predecessors_claims(tx: &mut WriteTx<'_>) -> Result<usize, rusqlite::Error> {
    release_probes(tx)?;
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

/// A paused lane waits for the lease of a probe whose holder is gone.
fn release_probes(tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
    let paused = tx
        .connection
        .prepare("SELECT lane_key, workspace_key FROM lanes WHERE paused_since IS NOT NULL")?
        .query_map([], lane_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    paused.into_iter().try_for_each(|lane| health::probe_again(tx, lane))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::super::health::HealthCache;
    use super::super::lane::LaneBounds;
    use super::super::matching::MatchingCache;
    use super::super::schema;
    use super::super::unsent::expire_waiting;
    use super::super::writer::{KeyMaker, SharedKeys};
    use super::*;
    use postrider_domain::attempt::Attempt;
    use postrider_domain::endpoint_health::Signal;
    use postrider_domain::id::{KeySequence, StoreTag};
    use postrider_store::queue::claim_ledger::ClaimLedger;

    const START: Timestamp = Timestamp::from_millis(1_000_000_000_000);

    struct Unlimited;

    impl LaneQuota for Unlimited {
        fn quota(&self, _lane: Lane) -> usize {
            usize::MAX
        }
    }

    struct Queue {
        connection: rusqlite::Connection,
        matching: MatchingCache,
        lanes: LaneBounds,
        health: HealthCache,
        claims: ClaimLedger,
        keys: SharedKeys,
        now: Timestamp,
        /// Steps that SQLite's virtual machine has taken: what something costs, on any machine.
        steps: Arc<AtomicU64>,
        _directory: tempfile::TempDir,
    }

    impl Queue {
        /// A queue in which the endpoint 1 has `backlog` deliveries due, and `idle` others have one each in an hour.
        fn new(backlog: u32, idle: u32) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut connection = schema::connect(&schema::database_path(directory.path())).unwrap();
            schema::migrate(&mut connection).unwrap();
            let now = START.millis();
            let rows = format!(
                "BEGIN;
                 INSERT INTO workspaces (key, id, name) VALUES (1, 'org_0000000000000000', 'w');
                 INSERT INTO events (key, workspace_key, mode, type, deliveries, envelope)
                     VALUES (1, 1, 0, 'post.created', 1, x'7b7d');
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i <= {idle})
                 INSERT INTO endpoints (key, id, workspace_key, name, url, events, is_active, secret_version,
                                        secret_last4, updated_at)
                     SELECT i, 'whe_' || substr('0000000000000000' || i, -16), 1, 'n', 'https://example.com/',
                            'post.created', 1, 1, '0000', 0 FROM n;
                 INSERT INTO lanes (lane_key, workspace_key, next_at)
                     SELECT key, 1, iif(key = 1, {now}, {now} + 3600000) FROM endpoints;
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {backlog} + {idle})
                 INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version)
                     SELECT i, max(1, i - {backlog} + 1), 1, iif(i <= {backlog}, {now} - 1000 + i % 1000,
                            {now} + 3600000), 0, 0, 1 FROM n;
                 INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, cause)
                     SELECT delivery_key, 1, lane_key, event_key, 0, 0, 0 FROM due;
                 COMMIT;"
            );
            connection.execute_batch(&rows).unwrap();
            let steps = Arc::new(AtomicU64::new(0));
            let counter = Arc::clone(&steps);
            let count = move || {
                counter.fetch_add(1, Ordering::Relaxed);
                false
            };
            connection.progress_handler(1, Some(count)).unwrap();
            Self {
                connection,
                matching: MatchingCache::default(),
                lanes: LaneBounds::default(),
                health: HealthCache::default(),
                claims: ClaimLedger::default(),
                keys: Arc::new(KeyMaker::new(KeySequence::new(1))),
                now: START,
                steps,
                _directory: directory,
            }
        }

        fn run<T>(&mut self, effect: impl FnOnce(&mut WriteTx<'_>) -> Result<T, rusqlite::Error>) -> T {
            let mut tx = WriteTx {
                connection: &self.connection,
                matching: &mut self.matching,
                lanes: &mut self.lanes,
                health: &mut self.health,
                claims: &mut self.claims,
                tag: StoreTag::from_u32(1),
                now: self.now,
                keys: &self.keys,
                operations: None,
            };
            effect(&mut tx).unwrap()
        }

        fn claim(&mut self, limit: usize) -> Vec<Claim> {
            let quota: Arc<dyn LaneQuota> = Arc::new(Unlimited);
            self.run(|tx| claim(tx, limit, limits::LEASE, &quota)).claims
        }

        /// Lets the endpoint 1 have its backlog in order.
        fn put_in_order(&mut self) {
            self.run(|tx| {
                tx.connection.execute_batch(
                    "UPDATE endpoints SET ordering = 1 WHERE key = 1;
                     INSERT INTO ordered_lanes (lane_key, last_sequence) SELECT 1, MAX(delivery_key) FROM due;
                     UPDATE due SET sequence = delivery_key, due_at = iif(delivery_key = 1, due_at, 9223372036854775807)
                         WHERE lane_key = 1;",
                )
            });
        }

        fn deliver(&mut self, claim: &Claim) -> Recorded {
            let attempt = Attempt {
                number: claim.attempt,
                started_at: self.now,
                duration_ms: 1,
                outcome: AttemptOutcome::Delivered,
                request_headers: Vec::new(),
                response_status: Some(200),
                response_headers: Vec::new(),
                response_body: None,
                error: None,
                next_attempt_at: None,
                phases: None,
            };
            let outcome = OutcomeRecord {
                delivery_id: claim.delivery_id,
                token: claim.token,
                attempt,
                cause: claim.cause,
                after: AfterAttempt::Finish { status: DeliveryStatus::Delivered, reason: None },
                endpoint: Arc::clone(&claim.endpoint),
                signal: Signal::Success,
                disable: None,
            };
            self.run(|tx| record_outcome(tx, &outcome))
        }

        fn steps(&mut self, effect: impl FnOnce(&mut Self)) -> u64 {
            let before = self.steps.load(Ordering::Relaxed);
            effect(self);
            self.steps.load(Ordering::Relaxed) - before
        }

        fn steps_of_a_claim(&mut self) -> u64 {
            self.steps(|queue| assert_eq!(queue.claim(10).len(), 10))
        }

        /// The ends of deliveries 1, 2, 3 … as (status, attempts, attempts in the log).
        fn ends(&mut self) -> Vec<(i64, u32, u32)> {
            self.run(|tx| {
                tx.connection
                    .prepare(
                        "SELECT status, attempts, (SELECT COUNT(*) FROM attempts WHERE delivery_key = key)
                         FROM deliveries ORDER BY key",
                    )?
                    .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
                    .collect()
            })
        }
    }

    #[test]
    fn a_claim_costs_the_same_whatever_the_backlog() {
        let cheap = Queue::new(20, 5).steps_of_a_claim();
        let dear = Queue::new(30_000, 5).steps_of_a_claim();
        assert!(cheap > 100, "the steps were counted: {cheap}");
        assert!(dear <= cheap + cheap / 20, "{cheap} steps with 20 deliveries due, {dear} with 30,000");
    }

    #[test]
    fn a_claim_costs_the_same_however_many_lanes_have_nothing_due() {
        let cheap = Queue::new(20, 5).steps_of_a_claim();
        let dear = Queue::new(20, 5_000).steps_of_a_claim();
        assert!(dear <= cheap + cheap / 20, "{cheap} steps beside 5 idle lanes, {dear} beside 5,000");
    }

    #[test]
    fn looking_in_vain_costs_next_to_nothing_however_many_lanes_there_are() {
        let costs = |idle| {
            let mut queue = Queue::new(0, idle);
            queue.claim(10);
            let look = queue.steps(|queue| assert!(queue.claim(10).is_empty()));
            let expire = queue.steps(|queue| assert_eq!(queue.run(|tx| expire_waiting(tx, 10)), 0));
            (look, expire)
        };
        let (look, expire) = costs(5_000);
        assert!(look < 100 && expire < 150, "{look} steps to find nothing due, {expire} to find nothing expired");
        assert_eq!((look, expire), costs(5));
    }

    #[test]
    fn a_turn_in_strict_order_costs_the_same_whatever_waits_behind_the_head() {
        let steps_of_a_turn = |backlog| {
            let mut queue = Queue::new(backlog, 5);
            queue.put_in_order();
            queue.steps(|queue| {
                let head = queue.claim(10).remove(0);
                assert_eq!(queue.deliver(&head), Recorded::Done);
                assert_eq!(queue.claim(10).len(), 1);
            })
        };
        let (cheap, dear) = (steps_of_a_turn(20), steps_of_a_turn(30_000));
        assert!(dear <= cheap + cheap / 20, "{cheap} steps with 20 in order, {dear} with 30,000");
    }

    #[test]
    fn an_endpoint_without_order_pays_next_to_nothing_for_those_that_have_one() {
        let mut queue = Queue::new(20, 5);
        let cheap = queue.steps_of_a_claim();
        let rows = "INSERT INTO ordered_lanes (lane_key, last_sequence) SELECT i * 1000, 1 FROM
                        (WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n);
                    INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version, sequence)
                        SELECT lane_key, lane_key, 1, 9223372036854775807, 0, 0, 1, 1 FROM ordered_lanes;
                    INSERT INTO lanes (lane_key, workspace_key, next_at)
                        SELECT lane_key, 1, 9223372036854775807 FROM ordered_lanes;";
        let mut queue = Queue::new(20, 5);
        queue.run(|tx| tx.connection.execute_batch(rows));
        let dear = queue.steps_of_a_claim();
        assert!(dear <= cheap + cheap / 20, "{cheap} steps alone, {dear} beside 5,000 whose order is stopped");
    }

    #[test]
    fn what_waits_for_a_deleted_endpoint_is_cancelled_but_not_under_its_holder() {
        let mut queue = Queue::new(2, 0);
        let under_way = queue.claim(1).remove(0);
        queue.run(|tx| tx.connection.execute_batch("UPDATE endpoints SET deleted_at = 1"));
        queue.matching.forget_everything();
        assert!(queue.claim(10).is_empty());
        let (pending, cancelled) = (DeliveryStatus::Pending.code(), DeliveryStatus::Cancelled.code());
        assert_eq!(under_way.delivery_id.key(), RowKey::from_i64(1));
        assert_eq!(queue.ends(), [(pending, 0, 0), (cancelled, 0, 0)]);
        queue.now = queue.now.plus(limits::LEASE);
        assert!(queue.claim(10).is_empty());
        assert_eq!(queue.ends(), [(cancelled, 1, 1), (cancelled, 0, 0)], "the lost attempt is in the log");
    }
}
