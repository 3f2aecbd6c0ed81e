//! Claims due deliveries, returns claims unused, and releases the claims of a process that has ended.
//!
//! Differs from PostgreSQL: one writer claims at a time, so no lane is locked. No other process delivers from this
//! store, so claims found at start are released at once.
//!
//! Writes `due`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;
use postrider_store::column::mode_from_code;
use postrider_store::queue::attempt::abandoned;
use postrider_store::queue::lane::lane_key;
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;
use postrider_store::{Claim, ClaimToken, Claimed, EndpointTarget, Lane, LaneKind, LaneQuota};

use super::unsent::{LaneStep, Unsent, cancel_from_lane, end_unsent, record_abandoned};
use super::{endpoint_health, lane, order};
use crate::machinery::column::coded;
use crate::machinery::writer::WriteTx;

/// Lanes served in one claim. The rest wait for the next claim.
const LANES_PER_CLAIM: usize = 1_024;

pub const SELECT_READY_LANES: &str = "SELECT lane_key, workspace_key, paused_since FROM lanes
     WHERE held_since IS NULL AND next_at <= ?1 ORDER BY next_at";

pub const SELECT_DUE: &str =
    "SELECT delivery_key, event_key, due.mode, cause, attempts, step, claimed_at, secret_version,
            also_secret_version, sequence, envelope, traceparent
     FROM due LEFT JOIN events ON events.key = event_key
     WHERE lane_key = ?1 AND due_at <= ?2 ORDER BY due_at LIMIT ?3";

pub const CLAIM: &str =
    "UPDATE due SET due_at = ?2, claim_token = ?3, claimed_at = ?4, attempts = ?5 WHERE delivery_key = ?1";

pub const SELECT_NEXT_LANES: &str =
    "SELECT lane_key, workspace_key, next_at FROM lanes WHERE held_since IS NULL ORDER BY next_at";

pub const GIVE_BACK: &str = "UPDATE due SET due_at = ?3, claim_token = NULL, claimed_at = NULL, attempts = attempts - 1
     WHERE delivery_key = ?1 AND claim_token = ?2
     RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key)";

/// How many more deliveries of each endpoint this claim may take, over both of its lanes.
type RemainingQuota = HashMap<RowKey, usize>;

pub fn claim(
    tx: &mut WriteTx<'_>,
    limit: usize,
    lease: Duration,
    quota: &Arc<dyn LaneQuota>,
) -> Result<Claimed, rusqlite::Error> {
    let (mut lanes, mut remaining) = ready_lanes(tx, quota.as_ref())?;
    let mut claims = Vec::new();
    let some_must_wait = lanes.len() > limit || lanes.len() == LANES_PER_CLAIM;
    // Lanes are served in rounds, so that a long lane takes nothing that another lane could have had.
    let mut share = (limit / lanes.len().max(1)).max(1);
    while claims.len() < limit && !lanes.is_empty() {
        let mut next_round = Vec::new();
        for ready in lanes {
            let ReadyLane { lane, paused_since } = ready;
            let Some(remaining) = remaining.get_mut(&lane.endpoint_key) else { continue };
            // The quota is asked again: claims of other endpoints may have used up a shared limit.
            let wanted = share.min(*remaining).min(limit - claims.len()).min(quota.quota(lane));
            let wanted = if paused_since.is_some() { wanted.min(1) } else { wanted };
            if wanted == 0 {
                continue;
            }
            let wanted = match tx.matching.target(tx.connection, lane.endpoint_key)? {
                Some(target) if target.id.is_listener() => {
                    lane::give_to_listener(tx, lane)?;
                    continue;
                }
                Some(target) => quota.allowance(lane, &target, wanted),
                None => wanted,
            };
            if wanted == 0 {
                *remaining = 0;
                continue;
            }
            let before = claims.len();
            if claim_from_lane(tx, ready, wanted, lease, &mut claims)? == LaneStep::MoreToCancel {
                continue;
            }
            let claimed = claims.len() - before;
            *remaining -= claimed;
            (0..claimed).for_each(|_| tx.claims.count(quota, lane));
            if claimed < wanted {
                lane::raise_next_at(tx, lane)?;
                continue;
            }
            if paused_since.is_some() {
                // One probe at a time. If its holder dies, the next probe goes when the lease has ended.
                lane::delay(tx, lane, tx.now.plus(lease), paused_since)?;
                continue;
            }
            if some_must_wait {
                lane::move_behind_others(tx, lane)?;
            }
            next_round.push(ready);
        }
        lanes = next_round;
        share *= 2;
    }
    Ok(Claimed { next_due_in: next_due_in(tx, quota.as_ref(), &remaining)?, claims })
}

/// Claims due deliveries of a listener, whose lane the engine does not visit.
pub fn claim_of_listener(
    tx: &mut WriteTx<'_>,
    lane: Lane,
    wanted: usize,
    lease: Duration,
) -> Result<Vec<Claim>, rusqlite::Error> {
    let mut claims = Vec::new();
    claim_from_lane(tx, ReadyLane { lane, paused_since: None }, wanted, lease, &mut claims)?;
    Ok(claims)
}

pub fn give_back(tx: &mut WriteTx<'_>, claims: &[(DeliveryId, ClaimToken)]) -> Result<(), rusqlite::Error> {
    for (id, token) in claims {
        let lane = tx
            .connection
            .prepare_cached(GIVE_BACK)?
            .query_row(params![id.key().as_i64(), token.0, tx.now.millis()], lane::from_row)
            .optional()?;
        if let Some(lane) = lane {
            endpoint_health::probe_again(tx, lane)?;
            lane::lower_next_at(tx, lane, tx.now)?;
            tx.claims.left_due = true;
        }
    }
    Ok(())
}

/// How many deliveries of an endpoint are due now, counted up to `enough`.
pub fn count_due(tx: &WriteTx<'_>, endpoint_key: RowKey, enough: usize) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached("SELECT COUNT(*) FROM (SELECT 1 FROM due WHERE lane_key = ?1 AND due_at <= ?2 LIMIT ?3)")?
        .query_row(params![endpoint_key.as_i64(), tx.now.millis(), enough], |row| row.get(0))
}

/// Makes every claim of a process that has ended due at once. The next claim of each records the lost attempt. Returns
/// the number of claims.
pub fn release_predecessors_claims(tx: &mut WriteTx<'_>) -> Result<usize, rusqlite::Error> {
    release_probes(tx)?;
    let lanes = tx
        .connection
        // The holders of leases are not in the process that has ended.
        .prepare("SELECT lane_key, workspace_key FROM lanes WHERE not_before IS NOT ?1")?
        .query_map([NOT_YET.millis()], lane::from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    let mut released = 0;
    for lane in lanes {
        // A claim ends at most one lease from now. The rows due later need no look.
        let in_lane = tx
            .connection
            .prepare_cached(
                "UPDATE due SET due_at = ?2
                 WHERE lane_key = ?1 AND due_at > ?2 AND due_at <= ?3 AND claim_token IS NOT NULL",
            )?
            .execute(params![lane_key(lane), tx.now.millis(), tx.now.plus(limits::LEASE).millis()])?;
        if in_lane > 0 {
            lane::lower_next_at(tx, lane, tx.now)?;
        }
        released += in_lane;
    }
    Ok(released)
}

/// A paused lane is delayed until the lease of its probe ends. The holder is gone, so the delay ends now.
fn release_probes(tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
    let paused = tx
        .connection
        .prepare("SELECT lane_key, workspace_key FROM lanes WHERE paused_since IS NOT NULL")?
        .query_map([], lane::from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    paused.into_iter().try_for_each(|lane| endpoint_health::probe_again(tx, lane))
}

/// A lane that may have something due.
#[derive(Clone, Copy)]
struct ReadyLane {
    lane: Lane,
    /// Set while the endpoint is paused: one delivery is claimed, as a probe.
    paused_since: Option<Timestamp>,
}

/// The lanes to serve, the one that has waited longest first. A lane without quota is left out, so that it takes no
/// other's place among the [`LANES_PER_CLAIM`]. Tests come first: they are few and a person waits for each, while an
/// endpoint's backlog could use its quota for hours.
fn ready_lanes(tx: &WriteTx<'_>, quota: &dyn LaneQuota) -> Result<(Vec<ReadyLane>, RemainingQuota), rusqlite::Error> {
    let mut statement = tx.connection.prepare_cached(SELECT_READY_LANES)?;
    let mut rows = statement.query([tx.now.millis()])?;
    let (mut lanes, mut remaining) = (Vec::new(), RemainingQuota::new());
    while lanes.len() < LANES_PER_CLAIM
        && let Some(row) = rows.next()?
    {
        let lane = lane::from_row(row)?;
        let allowed = quota.quota(lane);
        if allowed > 0 {
            let paused_since = row.get::<_, Option<i64>>(2)?.map(Timestamp::from_millis);
            lanes.push(ReadyLane { lane, paused_since });
            remaining.insert(lane.endpoint_key, allowed);
        }
    }
    lanes.sort_by_key(|ready| ready.lane.kind != LaneKind::Tests);
    Ok((lanes, remaining))
}

fn claim_from_lane(
    tx: &mut WriteTx<'_>,
    ready: ReadyLane,
    wanted: usize,
    lease: Duration,
    claims: &mut Vec<Claim>,
) -> Result<LaneStep, rusqlite::Error> {
    let lane = ready.lane;
    let Some(target) = tx.matching.target(tx.connection, lane.endpoint_key)? else {
        return cancel_from_lane(tx, lane);
    };
    let rows = tx
        .connection
        .prepare_cached(SELECT_DUE)?
        .query_map(params![lane_key(lane), tx.now.millis(), wanted], due_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    for row in rows {
        if row.envelope.is_none() {
            end_without_event(tx, &row)?;
            continue;
        }
        let token = claim_row(tx, &target, &row, lease)?;
        let claim = row.into_claim(tx.tag, lane, &target, token);
        claims.extend(claim.map(|claim| Claim { probe: ready.paused_since.is_some(), ..claim }));
    }
    Ok(LaneStep::Done)
}

fn claim_row(
    tx: &mut WriteTx<'_>,
    target: &EndpointTarget,
    row: &DueRow,
    lease: Duration,
) -> Result<ClaimToken, rusqlite::Error> {
    if let Some(claimed_at) = row.lost_claim_at {
        let lost = abandoned(row.attempts, claimed_at, Some(tx.now));
        record_abandoned(tx, Counted::of(target, row.mode), row.delivery_key, &lost)?;
    }
    let token = ClaimToken(tx.next_key().as_i64());
    tx.connection.prepare_cached(CLAIM)?.execute(params![
        row.delivery_key.as_i64(),
        tx.now.plus(lease).millis(),
        token.0,
        tx.now.millis(),
        row.attempts + 1,
    ])?;
    Ok(token)
}

/// Fails a delivery whose event is gone: an empty body must never be sent in place of an event.
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

/// When the next lane with quota has something due. `remaining` is the quota that this claim has left of the lanes it
/// found.
fn next_due_in(
    tx: &WriteTx<'_>,
    quota: &dyn LaneQuota,
    remaining: &RemainingQuota,
) -> Result<Option<Duration>, rusqlite::Error> {
    let has_quota = |lane: Lane| match remaining.get(&lane.endpoint_key) {
        Some(remaining) => *remaining > 0,
        None => quota.quota(lane) > 0,
    };
    let mut statement = tx.connection.prepare_cached(SELECT_NEXT_LANES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let at = Timestamp::from_millis(row.get(2)?);
        if at == NOT_YET {
            break;
        }
        let lane = lane::from_row(row)?;
        if at > tx.now || has_quota(lane) {
            return Ok(Some(at.since(tx.now)));
        }
    }
    Ok(None)
}

/// A row of `due` that may be claimed.
pub struct DueRow {
    delivery_key: RowKey,
    event_key: RowKey,
    mode: Mode,
    cause: DeliveryCause,
    /// Before the claim.
    pub attempts: u32,
    step: u32,
    pub lost_claim_at: Option<Timestamp>,
    secret_version: SecretVersion,
    also_secret_version: Option<SecretVersion>,
    sequence: Option<i64>,
    /// `None` when the event is gone.
    envelope: Option<Bytes>,
    trace: Option<TraceContext>,
}

impl DueRow {
    /// The claim of this row. `None` when the event is gone.
    pub fn into_claim(
        self,
        tag: StoreTag,
        lane: Lane,
        target: &Arc<EndpointTarget>,
        token: ClaimToken,
    ) -> Option<Claim> {
        let (secret_version, also_secret_version) =
            target.signing_versions(self.secret_version, self.also_secret_version);
        Some(Claim {
            lane,
            delivery_id: DeliveryId::new(self.delivery_key, tag),
            event_id: EventId::new(self.event_key, tag),
            token,
            mode: self.mode,
            cause: self.cause,
            attempt: self.attempts + 1,
            step: self.step,
            endpoint: Arc::clone(target),
            secret_version,
            also_secret_version,
            envelope: self.envelope?,
            trace: self.trace,
            probe: false,
        })
    }
}

pub fn due_from_row(row: &Row<'_>) -> Result<DueRow, rusqlite::Error> {
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
        envelope: row.get::<_, Option<Vec<u8>>>("envelope")?.map(Bytes::from),
        trace: row.get_ref("traceparent")?.as_blob_or_null().ok().flatten().and_then(TraceContext::from_bytes),
    })
}
