//! The queue: claim, give back, count. What is put into it stands in `enqueue.rs`, what leaves it in `outcome.rs` and `unsent.rs`.
//!
//! A lane is one endpoint's rows in `due`. `lanes.next_at` says from when on the lane may have something due, so that
//! looking for work touches only lanes that may have some: it costs the same whatever the backlog, and whatever one
//! endpoint's share of it. It also says whose turn it is: the lane that has been ready longest is served first, and goes
//! to the end of the line when not all can be served.
//!
//! Lanes are taken with SKIP LOCKED: two nodes that claim at once share the lanes between them. A lane into which something is just
//! being put that is due is passed over too; so that this cannot go on for ever, a claim that got nothing but was in somebody's way waits
//! for the lane that has been ready longest.
//!
//! A claim moves `due_at` to the end of its lease; a claim whose holder died becomes due by itself, and whoever claims
//! it next finds the lost token and records the attempt as abandoned.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio_postgres::Row;

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::id::{DeliveryId, EventId, RowKey};
use postrider_domain::time::Timestamp;
use postrider_store::column::mode_from_code;
use postrider_store::queue::attempt::abandoned;
use postrider_store::{Claim, ClaimToken, Claimed, EndpointTarget, Lane, LaneKind, LaneQuota};

use super::column::{coded, get, instant, int, key, number, opt_instant, opt_int, opt_number};
use super::fault::PgError;
use super::lane::{
    self, lane_from_row, lane_key, lane_of, lower_next_at, move_behind_others, paused_since, raise_next_at,
};
use super::outcome::insert_attempts;
use super::transaction::WriteTx;
use super::unsent::{LaneState, Unsent, cancel_from_lane, end_unsent};
use super::{health, matching, order};

/// How many deliveries of an endpoint are due now, counted up to `enough`.
pub async fn count_due(tx: &WriteTx, endpoint_key: RowKey, enough: usize) -> Result<usize, PgError> {
    let sql = "SELECT COUNT(*) AS count FROM (SELECT 1 FROM due WHERE lane_key = $1 AND due_at <= $2 LIMIT $3) AS due";
    let enough = i64::try_from(enough).unwrap_or(i64::MAX);
    number(&tx.query_one(sql, &[&endpoint_key.as_i64(), &tx.now.millis(), &enough]).await?, "count")
}

/// Lanes served in one claim; the rest come next time.
const LANES_PER_CLAIM: usize = 1_024;
/// Lanes read at once while looking for some that this node may serve.
const LANES_PER_READ: usize = 2_048;
/// Lanes that a claim waits for when it got none without waiting.
const LANES_WAITED_FOR: usize = 16;

/// How many more deliveries of each endpoint may be claimed now, whichever of its lanes they come from.
type Room = HashMap<RowKey, usize>;

/// A lane whose turn it is.
#[derive(Clone, Copy)]
struct ReadyLane {
    lane: Lane,
    /// Its endpoint is paused: one delivery is sent, as a probe.
    paused_since: Option<Timestamp>,
}

pub async fn claim(
    tx: &mut WriteTx,
    limit: usize,
    lease: Duration,
    quota: &Arc<dyn LaneQuota>,
) -> Result<Claimed, PgError> {
    let (candidates, mut room) = ready_lanes(tx, quota.as_ref()).await?;
    let mut claims = Vec::new();
    if !candidates.is_empty() && limit > 0 {
        tx.share_workspaces(candidates.iter().map(|ready| ready.lane.workspace_key)).await?;
        let some_must_wait = candidates.len() > limit || candidates.len() == LANES_PER_CLAIM;
        let lanes = lock_lanes(tx, candidates, limit).await?;
        let workspaces: Vec<RowKey> = lanes.iter().map(|ready| ready.lane.workspace_key).collect();
        matching::load(tx, &workspaces).await?;
        let mut look = Look { lease, quota, room: &mut room, claims: &mut claims, limit, ended: Ended::default() };
        look.at_lanes(tx, lanes, some_must_wait).await?;
        let Look { ended, .. } = look;
        ended.settle(tx, lease).await?;
    }
    Ok(Claimed { next_due_in: next_due_in(tx, quota.as_ref(), &room).await?, claims })
}

/// Lanes that may have something due, the one that has waited longest first, from a place on.
pub const READY: &str = "SELECT lane_key, workspace_key, paused_since, next_at FROM lanes
     WHERE held_since IS NULL AND next_at <= $1 AND (next_at, lane_key) > ($2, $3)
     ORDER BY next_at, lane_key LIMIT $4";

/// The lanes whose turn it is, the one that has waited longest first. One that may not be claimed takes nobody's place.
/// Tests come first: they are few, and someone waits for each, while an endpoint's backlog could take all its room for hours.
async fn ready_lanes(tx: &WriteTx, quota: &dyn LaneQuota) -> Result<(Vec<ReadyLane>, Room), PgError> {
    let per_read = i64::try_from(LANES_PER_READ).unwrap_or(i64::MAX);
    let (mut lanes, mut room) = (Vec::new(), Room::new());
    let mut after = (i64::MIN, i64::MIN);
    loop {
        let rows = tx.query(READY, &[&tx.now.millis(), &after.0, &after.1, &per_read]).await?;
        for row in &rows {
            let lane = lane_from_row(row)?;
            let allowance = quota.quota(lane);
            if allowance > 0 && lanes.len() < LANES_PER_CLAIM {
                lanes.push(ReadyLane { lane, paused_since: paused_since(row)? });
                room.insert(lane.endpoint_key, allowance);
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
    Ok((lanes, room))
}

/// Those of the candidates that are still ready and nobody else has, locked; more than can be served are not locked.
async fn lock_lanes(tx: &WriteTx, candidates: Vec<ReadyLane>, limit: usize) -> Result<Vec<ReadyLane>, PgError> {
    let wanted = &candidates[..candidates.len().min(limit)];
    let keys: Vec<i64> = wanted.iter().map(|ready| lane_key(ready.lane)).collect();
    let sql = "SELECT lane_key, workspace_key, paused_since FROM lanes
               WHERE lane_key = ANY($1) AND held_since IS NULL AND next_at <= $2 ORDER BY lane_key";
    let free = tx.query(&format!("{sql} FOR NO KEY UPDATE SKIP LOCKED"), &[&keys, &tx.now.millis()]).await?;
    let rows = if free.is_empty() {
        let first = keys[..keys.len().min(LANES_WAITED_FOR)].to_vec();
        tx.query(&format!("{sql} FOR NO KEY UPDATE"), &[&first, &tx.now.millis()]).await?
    } else {
        free
    };
    let mut locked = rows
        .iter()
        .map(|row| {
            Ok((int(row, "lane_key")?, ReadyLane { lane: lane_from_row(row)?, paused_since: paused_since(row)? }))
        })
        .collect::<Result<HashMap<_, _>, PgError>>()?;
    // In the order of their turn, as the candidates were.
    Ok(keys.iter().filter_map(|key| locked.remove(key)).collect())
}

/// A lane, how to call its endpoint unless that is gone, and how many are to be taken of it.
type Asked = (ReadyLane, Option<Arc<EndpointTarget>>, usize);

/// What becomes of the lanes that were looked at.
#[derive(Default)]
struct Ended {
    /// Fewer were due than there was room for.
    exhausted: Vec<i64>,
    probed: Vec<ReadyLane>,
    behind: Vec<i64>,
}

/// A claim under way.
struct Look<'c> {
    lease: Duration,
    quota: &'c Arc<dyn LaneQuota>,
    room: &'c mut Room,
    claims: &'c mut Vec<Claim>,
    limit: usize,
    ended: Ended,
}

impl Look<'_> {
    /// Round by round, so that no lane takes what another could have had.
    async fn at_lanes(
        &mut self,
        tx: &mut WriteTx,
        mut lanes: Vec<ReadyLane>,
        some_must_wait: bool,
    ) -> Result<(), PgError> {
        let mut share = (self.limit / lanes.len().max(1)).max(1);
        while self.claims.len() < self.limit && !lanes.is_empty() {
            let (asked, passed_over) = self.shares(tx, &lanes, share).await?;
            if asked.is_empty() {
                break;
            }
            let taken = self.take(tx, &asked).await?;
            lanes = passed_over;
            for (ready, target, wanted) in asked {
                let (lane, taken) = (ready.lane, taken.get(&lane_key(ready.lane)).copied().unwrap_or_default());
                if let Some(room) = self.room.get_mut(&lane.endpoint_key) {
                    *room = room.saturating_sub(taken);
                }
                if target.is_none() {
                    if cancel_from_lane(tx, lane).await? == LaneState::Looked {
                        self.ended.exhausted.push(lane_key(lane));
                    }
                } else if taken < wanted {
                    self.ended.exhausted.push(lane_key(lane));
                } else if ready.paused_since.is_some() {
                    self.ended.probed.push(ready);
                } else {
                    if some_must_wait {
                        self.ended.behind.push(lane_key(lane));
                    }
                    lanes.push(ready);
                }
            }
            share *= 2;
        }
        Ok(())
    }

    /// How many of each lane to take in this round; a lane whose endpoint is gone has no target. And the lanes that get nothing
    /// for now, because those before them may take it all.
    async fn shares(
        &mut self,
        tx: &mut WriteTx,
        lanes: &[ReadyLane],
        share: usize,
    ) -> Result<(Vec<Asked>, Vec<ReadyLane>), PgError> {
        let (mut asked, mut passed_over) = (Vec::new(), Vec::new());
        let mut left = self.limit - self.claims.len();
        // What earlier lanes of this round are about to take, endpoint by endpoint.
        let mut spoken_for = HashMap::<RowKey, usize>::new();
        for ready in lanes {
            let lane = ready.lane;
            let spoken_for = spoken_for.entry(lane.endpoint_key).or_default();
            let room = self.room.get(&lane.endpoint_key).copied().unwrap_or_default().saturating_sub(*spoken_for);
            // The quota is asked again: what other endpoints were given may have left less.
            let quota = self.quota.quota(lane);
            let wanted = share.min(room).min(left).min(quota);
            let wanted = if ready.paused_since.is_some() { wanted.min(1) } else { wanted };
            if wanted == 0 {
                if !asked.is_empty() {
                    passed_over.push(*ready);
                }
                continue;
            }
            let target = matching::target(tx, lane).await?;
            let wanted = target.as_ref().map_or(wanted, |target| self.quota.allowance(lane, target, wanted));
            if wanted == 0 {
                self.room.insert(lane.endpoint_key, 0);
                continue;
            }
            if target.is_some() {
                // Counted at once, so that the quotas of the lanes after it are what is really left.
                (0..wanted).for_each(|_| tx.claims.count(self.quota, lane));
                *spoken_for += wanted;
                left -= wanted;
            }
            asked.push((*ready, target, wanted));
        }
        Ok((asked, passed_over))
    }

    /// Claims what is due in these lanes. Returns how many of each.
    async fn take(&mut self, tx: &mut WriteTx, asked: &[Asked]) -> Result<HashMap<i64, usize>, PgError> {
        let with_target = || asked.iter().filter(|(_, target, _)| target.is_some());
        let lanes: Vec<i64> = with_target().map(|(ready, _, _)| lane_key(ready.lane)).collect();
        let wanted: Vec<i64> = with_target().map(|(_, _, wanted)| i64::try_from(*wanted).unwrap_or(i64::MAX)).collect();
        let total: usize = with_target().map(|(_, _, wanted)| wanted).sum();
        let tokens: Vec<i64> = (0..total).map(|_| tx.next_key().as_i64()).collect();
        let mut taken = HashMap::new();
        if lanes.is_empty() {
            return Ok(taken);
        }
        let until = tx.now.plus(self.lease).millis();
        let rows = tx.query(TAKE, &[&lanes, &wanted, &tx.now.millis(), &until, &tokens]).await?;
        let targets: HashMap<i64, (&Arc<EndpointTarget>, bool)> = with_target()
            .filter_map(|(ready, target, _)| {
                Some((lane_key(ready.lane), (target.as_ref()?, ready.paused_since.is_some())))
            })
            .collect();
        let mut claimed = rows.iter().map(claimed_from_row).collect::<Result<Vec<_>, _>>()?;
        claimed.sort_by_key(|claimed| claimed.due_at);
        let mut lost = Vec::new();
        for claimed in claimed {
            let Some((target, probe)) = targets.get(&claimed.lane_key) else { continue };
            *taken.entry(claimed.lane_key).or_default() += 1;
            if claimed.envelope.is_none() {
                end_without_event(tx, &claimed).await?;
                tx.claims.uncount(self.quota, lane_of(claimed.lane_key, target.lane.workspace_key));
                continue;
            }
            if let Some(claimed_at) = claimed.lost_claim_at {
                lost.push((claimed.delivery_key, abandoned(claimed.attempts, claimed_at, Some(tx.now))));
            }
            self.claims.extend(claimed.into_claim(tx, target, *probe));
        }
        insert_attempts(tx, &lost as &[(RowKey, Attempt)]).await?;
        for (ready, _, wanted) in with_target() {
            let taken = taken.get(&lane_key(ready.lane)).copied().unwrap_or_default();
            (taken..*wanted).for_each(|_| tx.claims.uncount(self.quota, ready.lane));
        }
        Ok(taken)
    }
}

/// Takes what is due in lanes, so many of each, earliest first, with the events. A row that somebody has just locked is passed over.
pub const TAKE: &str = "
    UPDATE due SET due_at = $4, claim_token = ($5)[found.place], claimed_at = $3, attempts = due.attempts + 1
    FROM (
        SELECT next.delivery_key, next.due_at, next.claimed_at, next.attempts,
               (row_number() OVER ())::int AS place,
               (SELECT envelope FROM events WHERE events.key = next.event_key) AS envelope
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
              found.claimed_at AS lost_claim_at, found.attempts AS attempts_before, found.envelope";

/// A row of `due` that has just been claimed.
struct ClaimedRow {
    delivery_key: RowKey,
    lane_key: i64,
    event_key: RowKey,
    mode: postrider_domain::access::Mode,
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
}

fn claimed_from_row(row: &Row) -> Result<ClaimedRow, PgError> {
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
        envelope: get::<Option<Vec<u8>>>(row, "envelope")?.map(Bytes::from),
    })
}

impl ClaimedRow {
    fn into_claim(self, tx: &WriteTx, target: &Arc<EndpointTarget>, probe: bool) -> Option<Claim> {
        // Secrets that were revoked for what is queued give way to the newest.
        let revoked = self.secret_version < target.oldest_secret_version;
        Some(Claim {
            delivery_id: DeliveryId::new(self.delivery_key, tx.tag),
            event_id: EventId::new(self.event_key, tx.tag),
            token: self.token,
            mode: self.mode,
            cause: self.cause,
            attempt: self.attempts + 1,
            step: self.step,
            endpoint: Arc::clone(target),
            secret_version: if revoked { target.secret_version } else { self.secret_version },
            also_secret_version: self.also_secret_version.filter(|_| !revoked),
            envelope: self.envelope?,
            probe,
        })
    }
}

/// Fails what has nothing left to send: an empty body must never go out in an event's place.
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

impl Ended {
    /// Writes down when each lane is to be looked at next.
    async fn settle(self, tx: &mut WriteTx, lease: Duration) -> Result<(), PgError> {
        let exhausted: HashSet<i64> = self.exhausted.iter().copied().collect();
        let behind: Vec<i64> = self.behind.into_iter().filter(|lane| !exhausted.contains(lane)).collect();
        move_behind_others(tx, &behind).await?;
        raise_next_at(tx, &exhausted.into_iter().collect()).await?;
        for ready in self.probed {
            // One probe at a time; should its holder die, the next one goes when its lease has run out.
            lane::leave_alone(tx, ready.lane, tx.now.plus(lease), ready.paused_since).await?;
        }
        Ok(())
    }
}

/// When the next lane that has room falls due. `room` is what this claim has left of what it found.
async fn next_due_in(tx: &WriteTx, quota: &dyn LaneQuota, room: &Room) -> Result<Option<Duration>, PgError> {
    let has_room = |lane: Lane| match room.get(&lane.endpoint_key) {
        Some(room) => *room > 0,
        None => quota.quota(lane) > 0,
    };
    let sql = "SELECT lane_key, workspace_key, next_at FROM lanes
               WHERE held_since IS NULL AND next_at < $1 AND (next_at, lane_key) > ($2, $3)
               ORDER BY next_at, lane_key LIMIT $4";
    let mut after = (i64::MIN, i64::MIN);
    // Most often the first few say it.
    let mut limit = 64;
    loop {
        let rows = tx.query(sql, &[&order::NOT_YET.millis(), &after.0, &after.1, &limit]).await?;
        for row in &rows {
            let at = instant(row, "next_at")?;
            if at > tx.now || has_room(lane_from_row(row)?) {
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
        .map(|row| Ok((int(row, "lane_key")?, lane_from_row(row)?)))
        .collect::<Result<BTreeMap<i64, Lane>, PgError>>()?;
    for lane in lanes.values() {
        health::probe_again(tx, *lane).await?;
    }
    if !lanes.is_empty() {
        let at = lanes.iter().map(|(key, lane)| (*key, (lane.workspace_key, tx.now))).collect();
        lower_next_at(tx, &at).await?;
        tx.claims.left_due = true;
    }
    Ok(())
}
