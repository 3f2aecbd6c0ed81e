//! Claiming due deliveries, returning claims, and counting. Writes `due`.
//!
//! **Lanes.** A lane is one endpoint's rows in `due`. `lanes.next_at` is a lower bound on when the lane has something
//! due. A claim visits only lanes whose bound has passed, so its cost depends neither on the backlog nor on one
//! endpoint's share of it. The bound also gives the order: the lane that has been ready longest is served first. It
//! goes behind the others when not all can be served.
//!
//! **Concurrency.** Lanes are locked with SKIP LOCKED, so two nodes that claim at once divide the lanes between them. A
//! claim also skips a lane into which a transaction is just enqueueing a due row. To make progress all the same, a
//! claim that locked no lane waits for the lanes that have been ready longest.
//!
//! **Leases.** A claim moves `due_at` to the end of its lease. When its holder dies, the row becomes due by itself. The
//! next claim finds the lost token and records the attempt as abandoned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;
use postrider_store::column::mode_from_code;
use postrider_store::queue::attempt::abandoned;
use postrider_store::queue::lane::{lane_key, lane_of};
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;
use postrider_store::{Claim, ClaimToken, Claimed, EndpointTarget, Lane, LaneKind, LaneQuota, Lease};

use super::lane::{self, lower_next_at, move_behind_others, paused_since, raise_next_at};
use super::unsent::{LaneStep, Unsent, cancel_from_lane, end_unsent};
use super::{endpoint_health, order};
use crate::log::attempt::{self, NewAttempt};
use crate::machinery::column::{coded, get, instant, int, key, number, opt_instant, opt_int, opt_number};
use crate::machinery::fault::PgError;
use crate::machinery::time::CLOCK_IS_OFF;
use crate::machinery::transaction::WriteTx;
use crate::publish::matching;

/// Lanes served in one claim. The next claim serves the rest.
const LANES_PER_CLAIM: usize = 1_024;
/// Lanes read at once in the search for lanes that this node may serve.
const LANES_PER_READ: usize = 2_048;
/// Lanes that a claim waits for when it could lock none without waiting.
const LANES_WAITED_FOR: usize = 16;

/// How many more deliveries of each endpoint may be claimed now, over both of its lanes.
type RemainingQuota = HashMap<RowKey, usize>;

/// A lane whose bound has passed.
#[derive(Clone, Copy)]
struct ReadyLane {
    lane: Lane,
    /// Set when the endpoint is paused: one delivery is claimed, as a probe.
    paused_since: Option<Timestamp>,
}

/// Claims up to `limit` due deliveries.
///
/// # Errors
/// When the node's clock is off. This transaction has just read the database's clock, so the answer is current.
pub async fn claim(
    tx: &mut WriteTx,
    limit: usize,
    lease: Duration,
    quota: &Arc<dyn LaneQuota>,
) -> Result<Claimed, PgError> {
    if tx.database.time.is_off() {
        return Err(PgError::Unavailable(CLOCK_IS_OFF));
    }
    let (candidates, remaining) = ready_lanes(tx, quota.as_ref()).await?;
    let (claims, updates) = (Vec::new(), LaneUpdates::default());
    let mut run = ClaimRun { limit, lease, quota, remaining, claims, updates };
    if !candidates.is_empty() && limit > 0 {
        run.serve(tx, candidates).await?;
    }
    Ok(Claimed { next_due_in: next_due_in(tx, quota.as_ref(), &run.remaining).await?, claims: run.claims })
}

/// Claims due deliveries of a listener, whose lane the engine does not visit. The transaction shares the workspace.
pub async fn claim_of_listener(
    tx: &mut WriteTx,
    lane: Lane,
    wanted: usize,
    lease: Duration,
) -> Result<Vec<Claim>, PgError> {
    let quota: Arc<dyn LaneQuota> = Arc::new(NoQuota);
    let target = matching::target(tx, lane).await?;
    let (claims, updates, remaining) = (Vec::new(), LaneUpdates::default(), RemainingQuota::new());
    let mut run = ClaimRun { limit: wanted, lease, quota: &quota, remaining, claims, updates };
    run.take(tx, &[LaneShare { ready: ReadyLane { lane, paused_since: None }, target, wanted }]).await?;
    Ok(run.claims)
}

/// The consumers of a listener limit themselves.
struct NoQuota;

impl LaneQuota for NoQuota {
    fn quota(&self, _lane: Lane) -> usize {
        usize::MAX
    }
}

/// The lease of a delivery that a consumer holds: the claim, its instant and its end.
pub const SELECT_LEASED: &str =
    "SELECT delivery_key, lane_key, event_key, mode, cause, step, secret_version, also_secret_version, sequence,
            claim_token, due_at AS was_due_at, claimed_at AS lost_claim_at, attempts - 1 AS attempts_before,
            (SELECT ARRAY[envelope, traceparent] FROM events WHERE events.key = event_key) AS event
     FROM due WHERE delivery_key = ANY($1) AND claim_token = ANY($2) AND lane_key = $3";

/// Reads [`SELECT_LEASED`]. `None` when the event is gone.
pub fn lease_from_row(row: &Row, tag: StoreTag, target: &Arc<EndpointTarget>) -> Result<Option<Lease>, PgError> {
    let leased = claimed_from_row(row)?;
    let (claimed_at, ends_at) = (leased.lost_claim_at.unwrap_or_default(), leased.due_at);
    Ok(leased.into_claim(tag, target, false).map(|claim| Lease { claim, claimed_at, ends_at }))
}

/// Returns claims unused. The rows are due at once.
pub async fn give_back(tx: &mut WriteTx, claims: &[(DeliveryId, ClaimToken)]) -> Result<(), PgError> {
    let sql = "UPDATE due SET due_at = $3, claim_token = NULL, claimed_at = NULL, attempts = due.attempts - 1
               FROM unnest($1, $2) AS claim (key, token)
               WHERE due.delivery_key = claim.key AND due.claim_token = claim.token
               RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key) AS workspace_key";
    let keys: Vec<i64> = claims.iter().map(|(id, _)| id.key().as_i64()).collect();
    let tokens: Vec<i64> = claims.iter().map(|(_, token)| token.0).collect();
    let rows = tx.query(sql, &[&keys, &tokens, &tx.now.millis()]).await?;
    let lanes = rows
        .iter()
        .map(|row| Ok((int(row, "lane_key")?, lane::from_row(row)?)))
        .collect::<Result<BTreeMap<i64, Lane>, PgError>>()?;
    for lane in lanes.values() {
        endpoint_health::probe_again(tx, *lane).await?;
    }
    if !lanes.is_empty() {
        let at = lanes.iter().map(|(key, lane)| (*key, (lane.workspace_key, tx.now))).collect();
        lower_next_at(tx, &at).await?;
        tx.claims.left_due = true;
    }
    Ok(())
}

/// How many deliveries of an endpoint are due now, counted up to `enough`.
pub async fn count_due(tx: &WriteTx, endpoint_key: RowKey, enough: usize) -> Result<usize, PgError> {
    let sql = "SELECT COUNT(*) AS count FROM (SELECT 1 FROM due WHERE lane_key = $1 AND due_at <= $2 LIMIT $3) AS due";
    let enough = i64::try_from(enough).unwrap_or(i64::MAX);
    number(&tx.query_one(sql, &[&endpoint_key.as_i64(), &tx.now.millis(), &enough]).await?, "count")
}

/// Ready lanes behind a position, the one ready longest first.
pub const SELECT_READY_LANES: &str = "SELECT lane_key, workspace_key, paused_since, next_at FROM lanes
     WHERE held_since IS NULL AND next_at <= $1 AND (next_at, lane_key) > ($2, $3)
     ORDER BY next_at, lane_key LIMIT $4";

/// The ready lanes, the one ready longest first. A lane without quota does not use up the limit.
///
/// Tests come first. They are few and a person waits for each, while an endpoint's backlog could use all its quota
/// for hours.
async fn ready_lanes(tx: &WriteTx, quota: &dyn LaneQuota) -> Result<(Vec<ReadyLane>, RemainingQuota), PgError> {
    let per_read = i64::try_from(LANES_PER_READ).unwrap_or(i64::MAX);
    let (mut lanes, mut remaining) = (Vec::new(), RemainingQuota::new());
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let rows = tx.query(SELECT_READY_LANES, &[&tx.now.millis(), &after.0, &after.1, &per_read]).await?;
        for row in &rows {
            let lane = lane::from_row(row)?;
            let allowed = quota.quota(lane);
            if allowed > 0 && lanes.len() < LANES_PER_CLAIM {
                lanes.push(ReadyLane { lane, paused_since: paused_since(row)? });
                remaining.insert(lane.endpoint_key, allowed);
            }
        }
        match rows.last() {
            Some(last) if rows.len() == LANES_PER_READ && lanes.len() < LANES_PER_CLAIM => {
                after = (int(last, "next_at")?, int(last, "lane_key")?);
            }
            _ => break,
        }
    }
    lanes.sort_by_key(|ready| ready.lane.kind != LaneKind::Tests);
    Ok((lanes, remaining))
}

/// The lanes among these that are still ready. A lock clause follows.
pub const LOCK_LANES: &str = "SELECT lane_key, workspace_key, paused_since FROM lanes
               WHERE lane_key = ANY($1) AND held_since IS NULL AND next_at <= $2 ORDER BY lane_key";

/// Locks those candidates that are still ready and that no other transaction holds, up to `limit`.
async fn lock_lanes(tx: &WriteTx, candidates: Vec<ReadyLane>, limit: usize) -> Result<Vec<ReadyLane>, PgError> {
    let wanted = &candidates[..candidates.len().min(limit)];
    let keys: Vec<i64> = wanted.iter().map(|ready| lane_key(ready.lane)).collect();
    let free = tx.query(&format!("{LOCK_LANES} FOR NO KEY UPDATE SKIP LOCKED"), &[&keys, &tx.now.millis()]).await?;
    let rows = if free.is_empty() {
        let first = keys[..keys.len().min(LANES_WAITED_FOR)].to_vec();
        tx.query(&format!("{LOCK_LANES} FOR NO KEY UPDATE"), &[&first, &tx.now.millis()]).await?
    } else {
        free
    };
    let mut locked = rows
        .iter()
        .map(|row| {
            Ok((int(row, "lane_key")?, ReadyLane { lane: lane::from_row(row)?, paused_since: paused_since(row)? }))
        })
        .collect::<Result<HashMap<_, _>, PgError>>()?;
    // Back in the order of the candidates.
    Ok(keys.iter().filter_map(|key| locked.remove(key)).collect())
}

/// How many deliveries to take from one lane in one round.
struct LaneShare {
    ready: ReadyLane,
    /// `None` when the endpoint is deleted.
    target: Option<Arc<EndpointTarget>>,
    wanted: usize,
}

/// One claim in progress.
struct ClaimRun<'q> {
    limit: usize,
    lease: Duration,
    quota: &'q Arc<dyn LaneQuota>,
    remaining: RemainingQuota,
    claims: Vec<Claim>,
    updates: LaneUpdates,
}

impl ClaimRun<'_> {
    async fn serve(&mut self, tx: &mut WriteTx, candidates: Vec<ReadyLane>) -> Result<(), PgError> {
        tx.share_workspaces(candidates.iter().map(|ready| ready.lane.workspace_key)).await?;
        let some_must_wait = candidates.len() > self.limit || candidates.len() == LANES_PER_CLAIM;
        let lanes = lock_lanes(tx, candidates, self.limit).await?;
        let workspaces: Vec<RowKey> = lanes.iter().map(|ready| ready.lane.workspace_key).collect();
        matching::load(tx, &workspaces).await?;
        self.claim_in_rounds(tx, lanes, some_must_wait).await?;
        std::mem::take(&mut self.updates).write(tx, self.lease).await
    }

    /// Claims in rounds with growing shares, so that no lane takes what another could have had.
    async fn claim_in_rounds(
        &mut self,
        tx: &mut WriteTx,
        mut lanes: Vec<ReadyLane>,
        some_must_wait: bool,
    ) -> Result<(), PgError> {
        let mut share = (self.limit / lanes.len().max(1)).max(1);
        while self.claims.len() < self.limit && !lanes.is_empty() {
            let (shares, postponed) = self.shares(tx, &lanes, share).await?;
            if shares.is_empty() {
                break;
            }
            let taken = self.take(tx, &shares).await?;
            lanes = postponed;
            for LaneShare { ready, target, wanted } in shares {
                let (lane, taken) = (ready.lane, taken.get(&lane_key(ready.lane)).copied().unwrap_or_default());
                if let Some(left) = self.remaining.get_mut(&lane.endpoint_key) {
                    *left = left.saturating_sub(taken);
                }
                if target.is_none() {
                    if cancel_from_lane(tx, lane).await? == LaneStep::Done {
                        self.updates.drained.push(lane_key(lane));
                    }
                } else if taken < wanted {
                    self.updates.drained.push(lane_key(lane));
                } else if ready.paused_since.is_some() {
                    self.updates.probed.push(ready);
                } else {
                    if some_must_wait {
                        self.updates.served.push(lane_key(lane));
                    }
                    lanes.push(ready);
                }
            }
            share *= 2;
        }
        Ok(())
    }

    /// How many deliveries to take from each lane in this round. Also returns the lanes that get no share because
    /// earlier lanes may use up the limit.
    async fn shares(
        &mut self,
        tx: &mut WriteTx,
        lanes: &[ReadyLane],
        share: usize,
    ) -> Result<(Vec<LaneShare>, Vec<ReadyLane>), PgError> {
        let (mut shares, mut postponed) = (Vec::new(), Vec::new());
        let mut left = self.limit - self.claims.len();
        // What earlier lanes of this round are about to take, by endpoint.
        let mut reserved = HashMap::<RowKey, usize>::new();
        for ready in lanes {
            let lane = ready.lane;
            let reserved = reserved.entry(lane.endpoint_key).or_default();
            let remaining =
                self.remaining.get(&lane.endpoint_key).copied().unwrap_or_default().saturating_sub(*reserved);
            // Asked again: the shares of other endpoints may have left less.
            let quota = self.quota.quota(lane);
            let wanted = share.min(remaining).min(left).min(quota);
            let wanted = if ready.paused_since.is_some() { wanted.min(1) } else { wanted };
            if wanted == 0 {
                if !shares.is_empty() {
                    postponed.push(*ready);
                }
                continue;
            }
            let target = matching::target(tx, lane).await?;
            if target.as_ref().is_some_and(|target| target.id.is_listener()) {
                lane::give_to_listener(tx, lane).await?;
                continue;
            }
            let wanted = target.as_ref().map_or(wanted, |target| self.quota.allowance(lane, target, wanted));
            if wanted == 0 {
                self.remaining.insert(lane.endpoint_key, 0);
                continue;
            }
            if target.is_some() {
                // Counted at once, so that the quotas of later lanes are current.
                (0..wanted).for_each(|_| tx.claims.count(self.quota, lane));
                *reserved += wanted;
                left -= wanted;
            }
            shares.push(LaneShare { ready: *ready, target, wanted });
        }
        Ok((shares, postponed))
    }

    /// Claims what is due in these lanes. Returns how many of each.
    async fn take(&mut self, tx: &mut WriteTx, shares: &[LaneShare]) -> Result<HashMap<i64, usize>, PgError> {
        let with_target = || shares.iter().filter_map(|share| Some((share, share.target.as_ref()?)));
        let lanes: Vec<i64> = with_target().map(|(share, _)| lane_key(share.ready.lane)).collect();
        let wanted: Vec<i64> =
            with_target().map(|(share, _)| i64::try_from(share.wanted).unwrap_or(i64::MAX)).collect();
        let total: usize = with_target().map(|(share, _)| share.wanted).sum();
        let tokens: Vec<i64> = (0..total).map(|_| tx.next_key().as_i64()).collect();
        let mut taken = HashMap::new();
        if lanes.is_empty() {
            return Ok(taken);
        }
        let until = tx.now.plus(self.lease).millis();
        let rows = tx.query(CLAIM, &[&lanes, &wanted, &tx.now.millis(), &until, &tokens]).await?;
        let targets: HashMap<i64, (&Arc<EndpointTarget>, bool)> = with_target()
            .map(|(share, target)| (lane_key(share.ready.lane), (target, share.ready.paused_since.is_some())))
            .collect();
        let mut claimed = rows.iter().map(claimed_from_row).collect::<Result<Vec<_>, _>>()?;
        claimed.sort_by_key(|claimed| claimed.due_at);
        let mut lost: Vec<NewAttempt> = Vec::new();
        for claimed in claimed {
            let Some((target, probe)) = targets.get(&claimed.lane_key) else { continue };
            *taken.entry(claimed.lane_key).or_default() += 1;
            if claimed.envelope.is_none() {
                end_without_event(tx, &claimed).await?;
                tx.claims.uncount(self.quota, lane_of(claimed.lane_key, target.workspace_key));
                continue;
            }
            if let Some(claimed_at) = claimed.lost_claim_at {
                let attempt = abandoned(claimed.attempts, claimed_at, Some(tx.now));
                lost.push((Counted::of(target, claimed.mode), claimed.delivery_key, attempt));
            }
            self.claims.extend(claimed.into_claim(tx.tag, target, *probe));
        }
        attempt::insert(tx, &lost).await?;
        for (share, _) in with_target() {
            let taken = taken.get(&lane_key(share.ready.lane)).copied().unwrap_or_default();
            (taken..share.wanted).for_each(|_| tx.claims.uncount(self.quota, share.ready.lane));
        }
        Ok(taken)
    }
}

/// Claims the earliest due rows of each lane, up to a number per lane, and reads their envelopes. Skips rows that
/// another transaction has just locked.
pub const CLAIM: &str = "
    UPDATE due SET due_at = $4, claim_token = ($5)[found.place], claimed_at = $3, attempts = due.attempts + 1
    FROM (
        SELECT next.delivery_key, next.due_at, next.claimed_at, next.attempts,
               (row_number() OVER ())::int AS place,
               (SELECT ARRAY[envelope, traceparent] FROM events WHERE events.key = next.event_key) AS event
        FROM unnest($1, $2) AS lane (lane_key, wanted)
        CROSS JOIN LATERAL (
            SELECT delivery_key, event_key, due_at, claimed_at, attempts FROM due
            WHERE due.lane_key = lane.lane_key AND due.due_at <= $3
            ORDER BY due.due_at LIMIT lane.wanted FOR UPDATE SKIP LOCKED
        ) AS next
    ) AS found
    WHERE due.delivery_key = found.delivery_key
    RETURNING due.delivery_key, due.lane_key, due.event_key, due.mode, due.cause, due.step, due.secret_version,
              due.also_secret_version, due.sequence, due.claim_token, found.due_at AS was_due_at,
              found.claimed_at AS lost_claim_at, found.attempts AS attempts_before, found.event";

/// A row of `due` that has just been claimed.
struct ClaimedRow {
    delivery_key: RowKey,
    lane_key: i64,
    event_key: RowKey,
    mode: Mode,
    cause: DeliveryCause,
    /// Before this claim.
    attempts: u32,
    step: u32,
    due_at: Timestamp,
    lost_claim_at: Option<Timestamp>,
    secret_version: SecretVersion,
    also_secret_version: Option<SecretVersion>,
    sequence: Option<i64>,
    token: ClaimToken,
    /// `None` when the event is gone.
    envelope: Option<Bytes>,
    trace: Option<TraceContext>,
}

fn claimed_from_row(row: &Row) -> Result<ClaimedRow, PgError> {
    let mut event = get::<Option<Vec<Option<Vec<u8>>>>>(row, "event")?.unwrap_or_default().into_iter();
    let (envelope, trace) = (event.next().flatten(), event.next().flatten());
    Ok(ClaimedRow {
        delivery_key: key(row, "delivery_key")?,
        lane_key: int(row, "lane_key")?,
        event_key: key(row, "event_key")?,
        mode: coded(row, "mode", mode_from_code)?,
        cause: coded(row, "cause", DeliveryCause::from_code)?,
        attempts: number(row, "attempts_before")?,
        step: number(row, "step")?,
        due_at: instant(row, "was_due_at")?,
        lost_claim_at: opt_instant(row, "lost_claim_at")?,
        secret_version: SecretVersion(number(row, "secret_version")?),
        also_secret_version: opt_number(row, "also_secret_version")?.map(SecretVersion),
        sequence: opt_int(row, "sequence")?,
        token: ClaimToken(int(row, "claim_token")?),
        envelope: envelope.map(Bytes::from),
        trace: trace.and_then(|bytes| TraceContext::from_bytes(&bytes)),
    })
}

impl ClaimedRow {
    fn into_claim(self, tag: StoreTag, target: &Arc<EndpointTarget>, probe: bool) -> Option<Claim> {
        let (secret_version, also_secret_version) =
            target.signing_versions(self.secret_version, self.also_secret_version);
        Some(Claim {
            lane: lane_of(self.lane_key, target.workspace_key),
            delivery_id: DeliveryId::new(self.delivery_key, tag),
            event_id: EventId::new(self.event_key, tag),
            token: self.token,
            mode: self.mode,
            cause: self.cause,
            attempt: self.attempts + 1,
            step: self.step,
            endpoint: Arc::clone(target),
            secret_version,
            also_secret_version,
            envelope: self.envelope?,
            trace: self.trace,
            probe,
        })
    }
}

/// Fails a delivery whose event is gone: an empty body must never be sent instead.
async fn end_without_event(tx: &mut WriteTx, row: &ClaimedRow) -> Result<(), PgError> {
    let delivery_id = DeliveryId::new(row.delivery_key, tx.tag);
    tracing::error!(%delivery_id, "a delivery failed because its event is gone from the store");
    if row.sequence.is_some() {
        order::lock(tx, &vec![row.lane_key]).await?;
    }
    let unsent = Unsent { delivery_key: row.delivery_key, attempts: row.attempts, lost_claim_at: row.lost_claim_at };
    end_unsent(tx, &[unsent], DeliveryStatus::Failed, EndReason::EventGone).await?;
    match row.sequence {
        Some(sequence) => order::after_head(tx, row.delivery_key, sequence, Some(EndReason::EventGone)).await,
        None => Ok(()),
    }
}

/// How the bounds of the visited lanes change.
#[derive(Default)]
struct LaneUpdates {
    /// Lanes with fewer due rows than wanted.
    drained: Vec<i64>,
    probed: Vec<ReadyLane>,
    /// Lanes that got their share while others wait.
    served: Vec<i64>,
}

impl LaneUpdates {
    async fn write(self, tx: &mut WriteTx, lease: Duration) -> Result<(), PgError> {
        let drained: HashSet<i64> = self.drained.iter().copied().collect();
        let behind: Vec<i64> = self.served.into_iter().filter(|lane| !drained.contains(lane)).collect();
        move_behind_others(tx, &behind).await?;
        raise_next_at(tx, &drained.into_iter().collect()).await?;
        for ready in self.probed {
            // One probe at a time. If its holder dies, the next probe goes when its lease has ended.
            lane::delay(tx, ready.lane, tx.now.plus(lease), ready.paused_since).await?;
        }
        Ok(())
    }
}

/// When the next lane with quota falls due. `remaining` is the quota that this claim has left for the lanes it found.
async fn next_due_in(
    tx: &WriteTx,
    quota: &dyn LaneQuota,
    remaining: &RemainingQuota,
) -> Result<Option<Duration>, PgError> {
    let has_quota = |lane: Lane| match remaining.get(&lane.endpoint_key) {
        Some(left) => *left > 0,
        None => quota.quota(lane) > 0,
    };
    let sql = "SELECT lane_key, workspace_key, next_at FROM lanes
               WHERE held_since IS NULL AND next_at < $1 AND (next_at, lane_key) > ($2, $3)
               ORDER BY next_at, lane_key LIMIT $4";
    let mut after = (i64::MIN, i64::MIN);
    // The first few lanes usually suffice.
    let mut limit = 64;
    loop {
        let rows = tx.query(sql, &[&NOT_YET.millis(), &after.0, &after.1, &limit]).await?;
        for row in &rows {
            let at = instant(row, "next_at")?;
            if at > tx.now || has_quota(lane::from_row(row)?) {
                return Ok(Some(at.since(tx.now)));
            }
        }
        match rows.last() {
            Some(last) if i64::try_from(rows.len()).is_ok_and(|count| count == limit) => {
                after = (int(last, "next_at")?, int(last, "lane_key")?);
                limit = i64::try_from(LANES_PER_READ).unwrap_or(i64::MAX);
            }
            _ => return Ok(None),
        }
    }
}
