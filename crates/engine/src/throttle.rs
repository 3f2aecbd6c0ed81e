//! How many attempts may be under way at once: in all, of one workspace, and to one endpoint.
//!
//! Whoever is slow must not be able to take the places of whoever is quick:
//! - An endpoint counts as quick once its answers take less than a second. All others, new ones too, share half of the
//!   places, beside the first place of each workspace.
//! - A workspace may take places only as long as enough are left for another (a *dynamic threshold*: what it has may grow to a
//!   multiple of what is free). So the first place of a workspace that comes along is always there, and nothing need be
//!   known about how many workspaces there are.
//! - An endpoint has a cap that follows it: it grows with every quick answer, and shrinks when the endpoint slows down or says
//!   that it has too much to do. To one that is very quick, a few times as many are claimed ahead and wait here for their turn: a claim
//!   takes as long as the disk, and such an endpoint would be idle meanwhile.
//! - An attempt that is over leaves its place to the next before its outcome is on disk. But when the store falls behind, no more
//!   is claimed for an endpoint than what may be sent a second time after a crash.
//!
//! - An endpoint that asks for a rate is sent no more a second, spread out evenly (a token bucket that holds a tenth of a second's
//!   worth, or one).
//!
//! All of this is in memory and about this process alone; it steers, and promises nothing. Of several nodes each takes an equal part
//! of an endpoint's cap and rate. What an endpoint does, and whether it is paused, stands in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::endpoint_health::is_busy;
use postrider_domain::endpoint_options::DeliveryRate;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::{EndpointTarget, Lane, LaneKind, LaneQuota};

/// Counts the attempts under way. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Slots(Arc<Shared>);

struct Shared {
    total: usize,
    /// The most that may be under way to one endpoint, from all nodes together.
    per_endpoint: usize,
    /// Nodes that send, as last seen.
    nodes: AtomicUsize,
    taken: Mutex<Taken>,
    /// Told when a place is given back for which somebody had to be turned away.
    released: Notify,
    clock: Arc<dyn Clock>,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Taken {
    all: Share,
    by_workspace: HashMap<RowKey, Share>,
    paces: HashMap<RowKey, Pace>,
    turned_away: bool,
    /// When the next token falls to an endpoint that somebody was turned away from for its rate.
    next_token_at: Option<Timestamp>,
}

/// Places that are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Share {
    count: usize,
    /// Of these, by endpoints that are not known to be quick.
    not_quick: usize,
}

/// One endpoint's claims, and what is known of it.
#[derive(Debug)]
struct Pace {
    /// Claimed: under way, or waiting for its turn.
    taken: usize,
    under_way: usize,
    /// Claims that wait for their turn, first come first served.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// Claims whose attempt is over, and whose outcome is not on disk yet.
    unrecorded: usize,
    manner: Manner,
    /// Of an endpoint that asked for a rate.
    bucket: Option<Bucket>,
}

/// A node's part of an endpoint's rate, in thousandths of a delivery a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NodeRate(u64);

/// What an endpoint's rate lets go.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    rate: NodeRate,
    micro_tokens: u64,
    filled_at: Timestamp,
}

/// How an endpoint answers, and what may go to it.
#[derive(Clone, Copy, Debug)]
struct Manner {
    /// Attempts that may be under way to it at once.
    cap: usize,
    quick: bool,
    /// A running mean of how long its exchanges take; `None` before the first.
    mean_ms: Option<f32>,
}

/// What one exchange showed of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Observation {
    pub outcome: AttemptOutcome,
    pub status: Option<u16>,
    pub took: Duration,
    /// The endpoint was paused.
    pub probe: bool,
}

/// One claim's place; given back on drop.
pub struct Slot {
    slots: Slots,
    lane: Lane,
    turn: Turn,
}

#[derive(Debug)]
enum Turn {
    NotAsked,
    Waiting(oneshot::Receiver<()>),
    /// Its attempt is under way.
    Had,
    /// Its attempt is over.
    Over,
}

/// A claim whose outcome is yet to be recorded; dropped when it is.
pub struct Unrecorded {
    slots: Slots,
    lane: Lane,
}

/// Endpoints whose pace is remembered before the idle ones are forgotten.
const PACES_KEPT: usize = 100_000;
/// How much of the running mean one exchange makes up.
const MEAN_WEIGHT: f32 = 0.2;

impl Slots {
    /// No place is given any more once `closed` is cancelled.
    pub fn new(total: usize, per_endpoint: usize, clock: Arc<dyn Clock>, closed: CancellationToken) -> Self {
        let taken = Mutex::new(Taken::default());
        let nodes = AtomicUsize::new(1);
        Self(Arc::new(Shared { total, per_endpoint, nodes, taken, released: Notify::new(), clock, closed }))
    }

    /// From now on what one endpoint may have, at once and a second, is shared by so many nodes.
    pub fn share_among(&self, nodes: usize) {
        self.0.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    /// When somebody who was turned away for an endpoint's rate may ask again.
    pub fn next_token_at(&self) -> Option<Timestamp> {
        self.0.taken().next_token_at.take()
    }

    /// Places that nobody has.
    pub fn free(&self) -> usize {
        let mut taken = self.0.taken();
        let free = self.0.total.saturating_sub(taken.all.count);
        taken.turned_away |= free == 0;
        free
    }

    /// The place of a claim, which was counted when the claim was made.
    pub fn slot(&self, lane: Lane) -> Slot {
        Slot { slots: self.clone(), lane, turn: Turn::NotAsked }
    }

    /// Completes when a place has been given back since somebody was turned away.
    pub async fn released(&self) {
        self.0.released.notified().await;
    }

    fn give_back(&self, lane: Lane, was_under_way: bool) {
        let mut taken = self.0.taken();
        taken.give_back(lane, was_under_way, self.0.per_endpoint());
        self.tell_of_place(&mut taken);
    }

    fn tell_of_place(&self, taken: &mut Taken) {
        if std::mem::take(&mut taken.turned_away) {
            self.0.released.notify_one();
        }
    }
}

impl Slot {
    /// Waits until one more attempt may be under way to the endpoint. Tests need not wait.
    pub async fn turn(&mut self) {
        if self.lane.kind == LaneKind::Tests {
            return;
        }
        let waiting = self.slots.0.taken().ask_turn(self.lane, self.slots.0.per_endpoint());
        self.turn = waiting.map_or(Turn::Had, Turn::Waiting);
        if let Turn::Waiting(turn) = &mut self.turn {
            // Whoever gives turns outlives this: it is part of what this holds.
            let _ = turn.await;
            self.turn = Turn::Had;
        }
    }

    /// Leaves its place to another, now that its attempt is over, and learns from that what may go to its endpoint next.
    pub fn finish(mut self, seen: Observation) -> Unrecorded {
        let (slots, lane) = (self.slots.clone(), self.lane);
        let was_under_way = matches!(std::mem::replace(&mut self.turn, Turn::Over), Turn::Had);
        let mut taken = slots.0.taken();
        let per_endpoint = slots.0.per_endpoint();
        taken.observe(lane, seen, per_endpoint);
        taken.give_back(lane, was_under_way, per_endpoint);
        taken.pace(lane.endpoint_key, per_endpoint).unrecorded += 1;
        slots.tell_of_place(&mut taken);
        drop(taken);
        Unrecorded { slots, lane }
    }
}

impl Drop for Unrecorded {
    fn drop(&mut self) {
        let shared = &self.slots.0;
        let mut taken = shared.taken();
        let pace = taken.pace(self.lane.endpoint_key, shared.per_endpoint());
        let held_others_back = pace.claims() >= limits::CLAIMS_PER_ENDPOINT;
        pace.unrecorded = pace.unrecorded.saturating_sub(1);
        if held_others_back {
            self.slots.tell_of_place(&mut taken);
        }
    }
}

impl LaneQuota for Slots {
    fn quota(&self, lane: Lane) -> usize {
        if self.0.closed.is_cancelled() {
            return 0;
        }
        let mut taken = self.0.taken();
        if taken.tokens(lane, self.0.clock.as_ref(), 1) == 0 {
            return 0;
        }
        let quota = taken.quota(lane, self.0.total, self.0.per_endpoint());
        taken.turned_away |= quota == 0;
        quota
    }

    fn allowance(&self, lane: Lane, target: &EndpointTarget, wanted: usize) -> usize {
        let mut taken = self.0.taken();
        let rate = target.options.rate_limit.map(|rate| NodeRate::of(rate, self.0.nodes()));
        taken.set_rate(lane, rate, self.0.per_endpoint(), self.0.clock.as_ref());
        taken.tokens(lane, self.0.clock.as_ref(), wanted)
    }

    fn claimed(&self, lane: Lane) {
        let mut taken = self.0.taken();
        taken.count(lane, self.0.per_endpoint(), Change::Take);
        if let Some(bucket) = taken.bucket(lane) {
            bucket.micro_tokens = bucket.micro_tokens.saturating_sub(WHOLE_TOKEN);
        }
    }

    fn unclaimed(&self, lane: Lane) {
        if let Some(bucket) = self.0.taken().bucket(lane) {
            bucket.micro_tokens += WHOLE_TOKEN;
        }
        self.give_back(lane, false);
    }
}

impl Shared {
    fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }

    /// This node's share of what may be under way to one endpoint.
    fn per_endpoint(&self) -> usize {
        (self.per_endpoint / self.nodes()).max(1)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let was_under_way = match &mut self.turn {
            Turn::NotAsked => false,
            // A turn may have been given just now.
            Turn::Waiting(turn) => {
                turn.close();
                turn.try_recv().is_ok()
            }
            Turn::Had => true,
            Turn::Over => return,
        };
        self.slots.give_back(self.lane, was_under_way);
    }
}

#[derive(Clone, Copy)]
enum Change {
    Take,
    GiveBack,
}

impl Taken {
    fn quota(&self, lane: Lane, total: usize, per_endpoint: usize) -> usize {
        let pace = self.paces.get(&lane.endpoint_key);
        let (held, claims) = pace.map_or((0, 0), |pace| (pace.taken, pace.claims()));
        let manner = pace.map_or_else(|| Manner::unknown(per_endpoint), |pace| pace.manner);
        // What is claimed of an endpoint with a rate has had its token: it must not pile up and go out all at once.
        let ahead = pace.filter(|pace| pace.bucket.is_none()).map_or(0, |pace| pace.manner.ahead());
        let workspace = self.by_workspace.get(&lane.workspace_key).copied().unwrap_or_default();
        // Someone waits for a test; it need not wait for what is under way.
        let beside = if lane.kind == LaneKind::Tests { limits::TESTS_BESIDE } else { 0 };
        let claims_left = (limits::CLAIMS_PER_ENDPOINT + beside).saturating_sub(claims);
        let of_endpoint = (manner.cap + ahead + beside).saturating_sub(held).min(claims_left);
        let free = total.saturating_sub(self.all.count);
        let of_workspace = share_left(free, total / KEPT_FOR_NEWCOMERS, workspace.count, WORKSPACE_MULTIPLE);
        let quota = of_endpoint.min(of_workspace);
        if manner.quick {
            return quota;
        }
        let free = (total / 2).max(1).saturating_sub(self.all.not_quick);
        let left = share_left(free, 0, workspace.not_quick, NOT_QUICK_MULTIPLE);
        // The half may be full of what others took when they were alone. A workspace that has nothing yet need not wait for them.
        let is_newcomer = workspace.count == 0 && self.all.not_quick < total * 3 / 4;
        quota.min(if is_newcomer { left.max(1) } else { left })
    }

    fn count(&mut self, lane: Lane, per_endpoint: usize, change: Change) {
        let apply = |count: &mut usize| match change {
            Change::Take => *count += 1,
            Change::GiveBack => *count = count.saturating_sub(1),
        };
        let pace = self.pace(lane.endpoint_key, per_endpoint);
        apply(&mut pace.taken);
        let quick = pace.manner.quick;
        let workspace = self.by_workspace.entry(lane.workspace_key).or_default();
        for share in [workspace, &mut self.all] {
            apply(&mut share.count);
            if !quick {
                apply(&mut share.not_quick);
            }
        }
        if self.by_workspace.get(&lane.workspace_key) == Some(&Share::default()) {
            self.by_workspace.remove(&lane.workspace_key);
        }
    }

    fn give_back(&mut self, lane: Lane, was_under_way: bool, per_endpoint: usize) {
        self.count(lane, per_endpoint, Change::GiveBack);
        if was_under_way {
            let pace = self.pace(lane.endpoint_key, per_endpoint);
            pace.under_way = pace.under_way.saturating_sub(1);
            pace.give_turns();
        }
    }

    fn pace(&mut self, endpoint_key: RowKey, per_endpoint: usize) -> &mut Pace {
        if self.paces.len() >= PACES_KEPT {
            self.paces.retain(|_, pace| pace.claims() > 0);
        }
        self.paces.entry(endpoint_key).or_insert_with(|| Pace {
            taken: 0,
            under_way: 0,
            waiting: VecDeque::new(),
            unrecorded: 0,
            manner: Manner::unknown(per_endpoint),
            bucket: None,
        })
    }

    /// The bucket of the lane's endpoint, if it has one that counts: tests are not held back by a rate.
    fn bucket(&mut self, lane: Lane) -> Option<&mut Bucket> {
        if lane.kind == LaneKind::Tests {
            return None;
        }
        self.paces.get_mut(&lane.endpoint_key)?.bucket.as_mut()
    }

    fn set_rate(&mut self, lane: Lane, rate: Option<NodeRate>, per_endpoint: usize, clock: &dyn Clock) {
        if rate.is_none() && self.paces.get(&lane.endpoint_key).is_none_or(|pace| pace.bucket.is_none()) {
            return;
        }
        let pace = self.pace(lane.endpoint_key, per_endpoint);
        if pace.bucket.map(|bucket| bucket.rate) != rate {
            pace.bucket = rate.map(|rate| Bucket::full(rate, clock.now()));
        }
    }

    /// How many of `wanted` the endpoint's rate lets go now. Notes when there will be more for whoever gets none.
    fn tokens(&mut self, lane: Lane, clock: &dyn Clock, wanted: usize) -> usize {
        let Some(bucket) = self.bucket(lane) else { return wanted };
        let now = clock.now();
        bucket.fill(now);
        let whole = usize::try_from(bucket.micro_tokens / WHOLE_TOKEN).unwrap_or(usize::MAX);
        if whole < wanted {
            let at = bucket.next_at();
            let other = self.next_token_at.filter(|other| *other > now);
            self.next_token_at = Some(other.map_or(at, |other| other.min(at)));
        }
        wanted.min(whole)
    }

    /// `None` when it is this claim's turn already.
    fn ask_turn(&mut self, lane: Lane, per_endpoint: usize) -> Option<oneshot::Receiver<()>> {
        let pace = self.pace(lane.endpoint_key, per_endpoint);
        if pace.under_way < pace.manner.cap && pace.waiting.is_empty() {
            pace.under_way += 1;
            return None;
        }
        let (give, turn) = oneshot::channel();
        pace.waiting.push_back(give);
        pace.give_turns();
        Some(turn)
    }

    /// What an endpoint has taken moves with it from one half to the other.
    fn observe(&mut self, lane: Lane, seen: Observation, per_endpoint: usize) {
        let pace = self.pace(lane.endpoint_key, per_endpoint);
        let was_quick = pace.manner.quick;
        pace.manner = pace.manner.after(seen, per_endpoint);
        pace.give_turns();
        let (quick, held) = (pace.manner.quick, pace.taken);
        if was_quick == quick {
            return;
        }
        let workspace = self.by_workspace.entry(lane.workspace_key).or_default();
        for share in [workspace, &mut self.all] {
            share.not_quick = if quick { share.not_quick.saturating_sub(held) } else { share.not_quick + held };
        }
    }
}

/// In millionths, so that a millisecond brings as many of them as the rate has thousandths of a delivery.
const WHOLE_TOKEN: u64 = 1_000_000;

impl NodeRate {
    fn of(rate: DeliveryRate, nodes: usize) -> Self {
        let nodes = u64::try_from(nodes.max(1)).unwrap_or(u64::MAX);
        Self((u64::from(rate.per_second()) * 1_000 / nodes).max(1))
    }
}

impl Bucket {
    fn full(rate: NodeRate, now: Timestamp) -> Self {
        let mut bucket = Self { rate, micro_tokens: 0, filled_at: now };
        bucket.micro_tokens = bucket.most();
        bucket
    }

    /// A tenth of a second's worth, so that a claim need not be made for each delivery of a high rate.
    fn most(&self) -> u64 {
        (self.rate.0 * WHOLE_TOKEN / 1_000 / 10).max(WHOLE_TOKEN)
    }

    fn fill(&mut self, now: Timestamp) {
        let elapsed_ms = u64::try_from(now.since(self.filled_at).as_millis()).unwrap_or(u64::MAX);
        let brought = elapsed_ms.saturating_mul(self.rate.0);
        self.micro_tokens = self.micro_tokens.saturating_add(brought).min(self.most());
        self.filled_at = now;
    }

    /// When there is one more, if nothing is taken until then.
    fn next_at(&self) -> Timestamp {
        let missing = WHOLE_TOKEN - self.micro_tokens % WHOLE_TOKEN;
        self.filled_at.plus(Duration::from_millis(missing.div_ceil(self.rate.0)))
    }
}

impl Pace {
    /// All of its claims that are not over in the store.
    fn claims(&self) -> usize {
        self.taken + self.unrecorded
    }

    fn give_turns(&mut self) {
        while self.under_way < self.manner.cap
            && let Some(turn) = self.waiting.pop_front()
        {
            // One that has gone away leaves its turn to the next.
            self.under_way += usize::from(turn.send(()).is_ok());
        }
    }
}

/// A workspace may have up to twice what is free: two thirds of all when it is alone.
const WORKSPACE_MULTIPLE: usize = 2;
/// Of the half that is not for quick endpoints, as much as is free of it: half of that when it is alone.
const NOT_QUICK_MULTIPLE: usize = 1;

/// One place in so many is kept for workspaces that have none yet.
const KEPT_FOR_NEWCOMERS: usize = 16;

/// How many more places may be taken, so that what is had then is at most `multiple` times what is free then. Whoever has
/// none gets one as long as there is one.
fn share_left(free: usize, kept: usize, had: usize, multiple: usize) -> usize {
    let more = (multiple * free.saturating_sub(kept)).saturating_sub(had) / (multiple + 1);
    if had == 0 { more.max(1).min(free) } else { more }
}

impl Manner {
    fn unknown(per_endpoint: usize) -> Self {
        Self { cap: limits::SLOTS_AT_FIRST.min(per_endpoint), quick: false, mean_ms: None }
    }

    /// Claims beyond those under way: as many as get their turn while the store makes the next ones.
    fn ahead(&self) -> usize {
        match self.mean_ms {
            Some(mean_ms) if self.quick => {
                let turns = limits::CLAIMED_AHEAD.as_secs_f32() * 1000.0 / mean_ms.max(0.1);
                // A few at most, so nothing is cut off.
                self.cap * (turns as usize).min(limits::CLAIMED_AHEAD_TURNS)
            }
            _ => 0,
        }
    }

    fn after(self, seen: Observation, per_endpoint: usize) -> Self {
        let Observation { outcome, status, took, probe } = seen;
        let overloaded = match outcome {
            AttemptOutcome::Delivered
            | AttemptOutcome::HttpError
            | AttemptOutcome::Redirect
            | AttemptOutcome::Gone
            | AttemptOutcome::InvalidResponse => status.is_some_and(is_busy),
            AttemptOutcome::Timeout
            | AttemptOutcome::ConnectFailed
            | AttemptOutcome::ConnectionClosed
            | AttemptOutcome::TlsFailed
            | AttemptOutcome::DnsFailed => true,
            AttemptOutcome::SsrfBlocked
            | AttemptOutcome::Simulated
            | AttemptOutcome::Abandoned
            | AttemptOutcome::ProxyFailed
            | AttemptOutcome::ProxyRefused
            | AttemptOutcome::InternalError => return self,
        };
        let took_ms = took.as_secs_f32() * 1000.0;
        let mean_ms = self.mean_ms.map_or(took_ms, |mean| mean + MEAN_WEIGHT * (took_ms - mean));
        let quick = Duration::from_secs_f32(mean_ms / 1000.0) < limits::QUICK;
        let cap = if overloaded {
            self.cap / 2
        } else if probe {
            // It was paused, and comes back step by step.
            1
        } else if took < limits::QUICK {
            self.cap + 1
        } else {
            (self.cap * 3 / 4).max(limits::SLOTS_WHEN_SLOW.min(self.cap))
        };
        Self { cap: cap.clamp(1, per_endpoint), quick, mean_ms: Some(mean_ms) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use postrider_domain::endpoint::SecretVersion;
    use postrider_domain::endpoint_options::EndpointOptions;
    use postrider_domain::id::EndpointId;

    const QUICK: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_secs(14);

    /// Stands where it was set.
    #[derive(Clone, Default)]
    struct TestClock(Arc<std::sync::atomic::AtomicU64>);

    impl TestClock {
        fn set(&self, millis: u64) {
            self.0.store(millis, std::sync::atomic::Ordering::Relaxed);
        }
    }

    impl Clock for TestClock {
        fn now(&self) -> Timestamp {
            Timestamp::from_millis(0).plus(Duration::from_millis(self.0.load(std::sync::atomic::Ordering::Relaxed)))
        }

        fn sleep_until(&self, _at: Timestamp) -> postrider_domain::time::Sleep<'_> {
            Box::pin(std::future::pending())
        }
    }

    fn target_with_rate(lane: Lane, per_second: Option<u64>) -> EndpointTarget {
        let rate_limit = per_second.map(|rate| DeliveryRate::parse(rate).unwrap());
        EndpointTarget {
            lane,
            id: EndpointId::from_letters([b'a'; 16]),
            url: "https://example.com/".to_owned(),
            secret_version: SecretVersion::FIRST,
            oldest_secret_version: SecretVersion::FIRST,
            options: Arc::new(EndpointOptions { rate_limit, ..EndpointOptions::default() }),
        }
    }

    fn lane_of(workspace: i64, endpoint: i64) -> Lane {
        Lane {
            workspace_key: RowKey::from_i64(workspace),
            endpoint_key: RowKey::from_i64(endpoint),
            kind: LaneKind::Events,
        }
    }

    fn lane(endpoint: i64) -> Lane {
        lane_of(1, endpoint)
    }

    fn slots(total: usize, per_endpoint: usize) -> Slots {
        Slots::new(total, per_endpoint, Arc::new(TestClock::default()), CancellationToken::new())
    }

    fn take(slots: &Slots, lane: Lane) -> Slot {
        slots.claimed(lane);
        slots.slot(lane)
    }

    /// What an exchange shows while others are under way.
    fn observe(slot: &Slot, seen: Observation) {
        slot.slots.0.taken().observe(slot.lane, seen, slot.slots.0.per_endpoint());
    }

    /// Takes all that the lane may have.
    fn fill(slots: &Slots, lane: Lane) -> Vec<Slot> {
        let mut held = Vec::new();
        while slots.quota(lane) > 0 {
            held.push(take(slots, lane));
        }
        held
    }

    #[test]
    fn several_nodes_share_what_one_endpoint_may_have() {
        let alone = slots(512, 64);
        let shared = slots(512, 64);
        shared.share_among(4);
        for slots in [&alone, &shared] {
            let held = take(slots, lane(1));
            (0..200).for_each(|_| observe(&held, answered(SLOW / 14)));
        }
        let under_way = |slots: &Slots| slots.0.taken().pace(lane(1).endpoint_key, 0).manner.cap;
        assert!(under_way(&shared) <= 16, "{} of 64", under_way(&shared));
        assert!(under_way(&alone) >= under_way(&shared));
        let rate = target_with_rate(lane(2), Some(100));
        let let_go = |slots: &Slots| slots.allowance(lane(2), &rate, 1_000);
        assert_eq!((let_go(&alone), let_go(&shared)), (10, 2), "a tenth of a second's worth, and a quarter of it");
        shared.share_among(1_000);
        assert_eq!(fill(&shared, lane(3)).len(), 1, "never nothing");
    }

    fn answered(took: Duration) -> Observation {
        Observation { outcome: AttemptOutcome::Delivered, status: Some(200), took, probe: false }
    }

    fn failed(outcome: AttemptOutcome, status: Option<u16>) -> Observation {
        Observation { outcome, status, took: QUICK, probe: false }
    }

    /// Makes the endpoint known by so many exchanges.
    fn known(slots: &Slots, lane: Lane, count: usize, took: Duration) {
        for _ in 0..count {
            drop(take(slots, lane).finish(answered(took)));
        }
    }

    fn cap(slots: &Slots, lane: Lane) -> usize {
        slots.0.taken().paces[&lane.endpoint_key].manner.cap
    }

    #[test]
    fn an_endpoint_gets_no_more_than_its_cap_and_gets_it_back() {
        let slots = slots(300, 2);
        let held = [take(&slots, lane(1)), take(&slots, lane(1))];
        assert_eq!((slots.quota(lane(1)), slots.quota(lane(2))), (0, 2));
        drop(held);
        assert_eq!((slots.free(), slots.quota(lane(1))), (300, 2));
        assert!(slots.0.taken().by_workspace.is_empty());
    }

    #[tokio::test]
    async fn an_attempt_that_is_over_leaves_its_place_before_its_outcome_is_recorded_but_not_without_end() {
        let slots = slots(300, 2);
        let mut unrecorded = Vec::new();
        while slots.quota(lane(1)) > 0 {
            let mut slot = take(&slots, lane(1));
            slot.turn().await;
            unrecorded.push(slot.finish(answered(QUICK)));
            assert_eq!(slots.free(), 300);
        }
        assert_eq!(unrecorded.len(), limits::CLAIMS_PER_ENDPOINT);
        assert!(slots.quota(lane(2)) > 0, "another endpoint's outcomes are its own");
        let tests = Lane { kind: LaneKind::Tests, ..lane(1) };
        assert_eq!(slots.quota(tests), limits::TESTS_BESIDE);
        unrecorded.pop();
        tokio::time::timeout(Duration::from_secs(10), slots.released()).await.unwrap();
        assert_eq!(slots.quota(lane(1)), 1);
        drop(unrecorded);
        assert_eq!(slots.0.taken().paces[&lane(1).endpoint_key].unrecorded, 0);
    }

    #[test]
    fn a_claim_that_was_rolled_back_leaves_its_place() {
        let slots = slots(30, 2);
        slots.claimed(lane(1));
        slots.unclaimed(lane(1));
        assert_eq!((slots.free(), slots.quota(lane(1))), (30, 2));
    }

    #[test]
    fn a_cap_grows_with_quick_answers_and_shrinks_with_slow_ones() {
        let slots = slots(512, 64);
        let endpoint = lane(1);
        known(&slots, endpoint, 1, QUICK);
        assert_eq!(cap(&slots, endpoint), limits::SLOTS_AT_FIRST + 1);
        known(&slots, endpoint, 100, QUICK);
        assert_eq!(cap(&slots, endpoint), 64);
        known(&slots, endpoint, 100, SLOW);
        assert_eq!(cap(&slots, endpoint), limits::SLOTS_WHEN_SLOW, "a slow endpoint that answers keeps a few");
    }

    #[test]
    fn what_tells_of_overload_halves_the_cap_and_what_does_not_leaves_it() {
        let slots = slots(512, 64);
        let endpoint = lane(1);
        known(&slots, endpoint, 100, QUICK);
        drop(take(&slots, endpoint).finish(failed(AttemptOutcome::HttpError, Some(503))));
        assert_eq!(cap(&slots, endpoint), 32);
        drop(take(&slots, endpoint).finish(failed(AttemptOutcome::ConnectFailed, None)));
        assert_eq!(cap(&slots, endpoint), 16);
        for _ in 0..9 {
            drop(take(&slots, endpoint).finish(failed(AttemptOutcome::Timeout, None)));
        }
        assert_eq!(cap(&slots, endpoint), 1);
        drop(take(&slots, endpoint).finish(failed(AttemptOutcome::InternalError, None)));
        assert_eq!(cap(&slots, endpoint), 1, "a fault of ours says nothing");
        drop(take(&slots, endpoint).finish(failed(AttemptOutcome::HttpError, Some(500))));
        assert_eq!(cap(&slots, endpoint), 2, "a 500 answers quickly all the same");
    }

    #[test]
    fn a_resumed_endpoint_starts_from_one() {
        let slots = slots(512, 64);
        known(&slots, lane(1), 100, QUICK);
        drop(take(&slots, lane(1)).finish(Observation { probe: true, ..answered(QUICK) }));
        assert_eq!(cap(&slots, lane(1)), 1);
        known(&slots, lane(1), 1, QUICK);
        assert_eq!(cap(&slots, lane(1)), 2);
    }

    #[test]
    fn a_workspace_alone_may_have_two_thirds_and_another_always_finds_a_place() {
        let slots = slots(512, 64);
        let mut held = Vec::new();
        for endpoint in 1..100 {
            known(&slots, lane_of(1, endpoint), 100, QUICK);
            held.extend(fill(&slots, lane_of(1, endpoint)));
        }
        assert!((300..=341).contains(&held.len()), "{}", held.len());
        for workspace in 2..20 {
            let endpoint = lane_of(workspace, 1000 + workspace);
            known(&slots, endpoint, 1, QUICK);
            let more = fill(&slots, endpoint);
            assert!(!more.is_empty(), "workspace {workspace} found no place");
            held.extend(more);
        }
        assert!(held.len() <= 512);
    }

    #[test]
    fn five_hundred_slow_endpoints_leave_the_other_half_alone() {
        let slots = slots(512, 64);
        let mut held = Vec::new();
        for workspace in 1..=50 {
            for endpoint in 0..10 {
                held.extend(fill(&slots, lane_of(workspace, workspace * 100 + endpoint)));
            }
        }
        assert!(held.len() <= 256 + 50, "{}", held.len());
        let quick = lane_of(99, 9_999);
        let newcomer = fill(&slots, quick);
        assert!(!newcomer.is_empty(), "a newcomer finds a place");
        observe(&newcomer[0], answered(QUICK));
        drop(newcomer);
        known(&slots, quick, 100, QUICK);
        assert!(fill(&slots, quick).len() > 32, "and once it is known to be quick, as many as it needs");
    }

    #[test]
    fn one_workspace_of_slow_endpoints_takes_a_quarter() {
        let slots = slots(512, 64);
        let held: Vec<_> = (1..=500).flat_map(|endpoint| fill(&slots, lane(endpoint))).collect();
        assert_eq!(held.len(), 128);
    }

    #[test]
    fn what_an_endpoint_holds_moves_with_it_between_the_halves() {
        let slots = slots(512, 64);
        let held = fill(&slots, lane(1));
        assert_eq!(slots.0.taken().all, Share { count: held.len(), not_quick: held.len() });
        observe(&held[0], answered(QUICK));
        assert_eq!(slots.0.taken().all, Share { count: held.len(), not_quick: 0 });
        for _ in 0..10 {
            observe(&held[0], answered(SLOW));
        }
        assert_eq!(slots.0.taken().all, Share { count: held.len(), not_quick: held.len() });
        drop(held);
        assert_eq!(slots.0.taken().all, Share::default());
    }

    #[test]
    fn a_rate_spreads_deliveries_and_is_never_exceeded() {
        let clock = TestClock::default();
        let slots = Slots::new(512, 64, Arc::new(clock.clone()), CancellationToken::new());
        let target = |rate| target_with_rate(lane(1), rate);
        let mut sent = Vec::new();
        for now in 0..3_000_u64 {
            clock.set(now);
            while slots.quota(lane(1)) > 0 && slots.allowance(lane(1), &target(Some(30)), 1) > 0 {
                drop(take(&slots, lane(1)));
                sent.push(now);
            }
        }
        for second in 0..=2_000 {
            let within = sent.iter().filter(|at| (second..second + 1_000).contains(*at)).count();
            assert!((29..=33).contains(&within), "{within} within a second from {second} ms");
        }
        assert_eq!(slots.quota(lane(1)), 0, "turned away before the store is asked");
        let at = slots.next_token_at().unwrap();
        assert!(at > clock.now() && at.since(clock.now()) <= Duration::from_millis(34));
        let tests = Lane { kind: LaneKind::Tests, ..lane(1) };
        assert!(slots.quota(tests) > 0 && slots.allowance(tests, &target(Some(30)), 1) == 1, "a test goes at once");
        assert_eq!(slots.allowance(lane(1), &target(None), 5), 5, "once the rate is gone");
    }

    #[test]
    fn the_lowest_rate_is_one_a_second_and_a_claim_rolled_back_gives_its_token_back() {
        let clock = TestClock::default();
        let slots = Slots::new(512, 64, Arc::new(clock.clone()), CancellationToken::new());
        let target = target_with_rate(lane(1), Some(1));
        assert_eq!(slots.allowance(lane(1), &target, 5), 1);
        slots.claimed(lane(1));
        slots.unclaimed(lane(1));
        assert_eq!(slots.allowance(lane(1), &target, 5), 1);
        slots.claimed(lane(1));
        clock.set(999);
        assert_eq!(slots.quota(lane(1)), 0);
        assert_eq!(slots.next_token_at(), Some(Timestamp::from_millis(1000)));
        clock.set(1000);
        assert_eq!(slots.allowance(lane(1), &target, 5), 1);
    }

    #[test]
    fn a_test_does_not_wait_for_what_is_under_way() {
        let slots = slots(512, 4);
        let held = fill(&slots, lane(1));
        let tests = Lane { kind: LaneKind::Tests, ..lane(1) };
        assert_eq!((slots.quota(lane(1)), slots.quota(tests)), (0, limits::TESTS_BESIDE));
        drop(held);
    }

    #[tokio::test]
    async fn what_is_claimed_ahead_waits_for_its_turn_in_its_order() {
        let slots = slots(512, 4);
        known(&slots, lane(1), 1, Duration::from_millis(1));
        assert_eq!(slots.quota(lane(1)), 4 + 3 * 4, "a few times as many as may be under way");
        let mut under_way = Vec::new();
        for _ in 0..4 {
            let mut slot = take(&slots, lane(1));
            slot.turn().await;
            under_way.push(slot);
        }
        let (mut next, mut last) = (take(&slots, lane(1)), take(&slots, lane(1)));
        {
            let (mut next_turn, mut last_turn) = (Box::pin(next.turn()), Box::pin(last.turn()));
            assert!(futures_util::poll!(&mut next_turn).is_pending());
            assert!(futures_util::poll!(&mut last_turn).is_pending());
            under_way.pop();
            next_turn.await;
            assert!(futures_util::poll!(&mut last_turn).is_pending());
        }
        // One that went away while it waited leaves its turn to the next.
        drop(last);
        let mut other = take(&slots, lane(1));
        drop(next);
        other.turn().await;
        drop((under_way, other));
        let taken = slots.0.taken();
        let pace = &taken.paces[&lane(1).endpoint_key];
        assert_eq!((pace.taken, pace.under_way, pace.waiting.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_test_has_its_turn_at_once() {
        let slots = slots(512, 1);
        let mut under_way = take(&slots, lane(1));
        under_way.turn().await;
        let mut test = take(&slots, Lane { kind: LaneKind::Tests, ..lane(1) });
        assert!(futures_util::poll!(Box::pin(test.turn())).is_ready());
    }

    #[tokio::test]
    async fn whoever_was_turned_away_is_told_of_the_next_free_place() {
        let slots = slots(1, 1);
        let held = take(&slots, lane(1));
        assert_eq!(slots.quota(lane(1)), 0);
        drop(held);
        tokio::time::timeout(Duration::from_secs(10), slots.released()).await.unwrap();
    }

    #[test]
    fn nothing_is_given_once_closed() {
        let closed = CancellationToken::new();
        let slots = Slots::new(1, 1, Arc::new(TestClock::default()), closed.clone());
        closed.cancel();
        assert_eq!(slots.quota(lane(1)), 0);
    }

    proptest! {
        #[test]
        fn counts_never_drift(steps in proptest::collection::vec((0_i64..4, 0_i64..6, 0_u8..6), 1..200)) {
            let slots = slots(16, 4);
            let (mut held, mut unrecorded): (Vec<Slot>, Vec<Unrecorded>) = Default::default();
            for (workspace, endpoint, step) in steps {
                let lane = lane_of(workspace, workspace * 10 + endpoint);
                match step {
                    0 | 1 if slots.quota(lane) > 0 => held.push(take(&slots, lane)),
                    2 if !held.is_empty() => drop(held.remove(0)),
                    3 if !held.is_empty() => observe(&held[0], answered(if endpoint > 2 { QUICK } else { SLOW })),
                    4 if !held.is_empty() => unrecorded.push(held.remove(0).finish(answered(SLOW))),
                    5 => drop(unrecorded.pop()),
                    _ => {}
                }
                let taken = slots.0.taken();
                prop_assert_eq!(taken.all.count, held.len());
                prop_assert!(taken.all.count <= 16);
                let not_quick: usize = taken.paces.values().filter(|pace| !pace.manner.quick).map(|pace| pace.taken).sum();
                prop_assert_eq!(taken.all.not_quick, not_quick);
                let by_workspace: usize = taken.by_workspace.values().map(|share| share.count).sum();
                prop_assert_eq!(by_workspace, held.len());
                let over: usize = taken.paces.values().map(|pace| pace.unrecorded).sum();
                prop_assert_eq!(over, unrecorded.len());
            }
            drop(held);
            prop_assert_eq!(slots.0.taken().all, Share::default());
            prop_assert!(slots.0.taken().by_workspace.is_empty());
        }
    }
}
