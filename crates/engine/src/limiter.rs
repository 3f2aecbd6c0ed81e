//! Concurrency limits for attempts: global, per workspace, per endpoint; and the delivery rate of an endpoint.
//!
//! A slow receiver must not use up the permits of fast ones. Four rules see to that:
//! - Workspaces share the permits, and endpoints that are not known to be fast share half of them (`fair_share`).
//! - The limit of an endpoint adapts to how it answers (`domain::adaptive_limit`). For a very fast endpoint, several
//!   times its limit is claimed ahead and waits here: a claim takes as long as a disk write, and the endpoint would be
//!   idle meanwhile.
//! - An attempt frees its permit when its exchange ends, before its outcome is on disk. But one endpoint has at most
//!   [`limits::CLAIMS_PER_ENDPOINT`] claims whose outcomes are not on disk: those can be sent a second time after a
//!   crash.
//! - An endpoint with a rate limit gets no more deliveries a second than that, spread out evenly
//!   (`domain::token_bucket`).
//!
//! All counts are in memory and about this process. They steer the sending and guarantee nothing. With several nodes
//! each takes an equal part of an endpoint's limit and rate. Whether an endpoint is paused is decided in the store.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use postrider_domain::adaptive_limit::{AdaptiveLimit, AttemptSample};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::time::{Clock, Timestamp};
use postrider_domain::token_bucket::{NodeRate, TokenBucket};
use postrider_store::{EndpointTarget, Lane, LaneKind, LaneQuota};

use super::fair_share::FairShare;

/// Counts claims and attempts in flight. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct ConcurrencyLimiter(Arc<Limiter>);

/// The permit of one claim. It is counted when the claim is made and given back on drop.
pub struct Permit {
    limiter: ConcurrencyLimiter,
    lane: Lane,
    state: PermitState,
}

/// A finished attempt whose outcome is not on disk yet. Drop it when it is.
pub struct UnrecordedOutcome {
    limiter: ConcurrencyLimiter,
    lane: Lane,
}

struct Limiter {
    /// The most attempts in flight to one endpoint, from all nodes together.
    per_endpoint: usize,
    /// Nodes that send, as last seen.
    nodes: AtomicUsize,
    state: Mutex<LimiterState>,
    /// Notified when a permit is given back after a lane was refused one.
    released: Notify,
    clock: Arc<dyn Clock>,
    closed: CancellationToken,
}

#[derive(Debug)]
struct LimiterState {
    shares: FairShare,
    endpoints: HashMap<RowKey, EndpointUsage>,
    /// A lane was refused since the last notification.
    refused: bool,
    /// When the next token comes, among the endpoints that were refused for their rate.
    next_token_at: Option<Timestamp>,
}

/// One endpoint's claims, its limit and its rate.
#[derive(Debug)]
struct EndpointUsage {
    /// Permits: claims in flight and claims that wait.
    permits: usize,
    in_flight: usize,
    /// Claims that wait for the limit, first come first served.
    waiting: VecDeque<oneshot::Sender<()>>,
    /// Claims whose attempt has finished and whose outcome is not on disk yet.
    unrecorded: usize,
    limit: AdaptiveLimit,
    /// Only for an endpoint with a rate limit.
    bucket: Option<TokenBucket>,
}

#[derive(Debug)]
enum PermitState {
    Claimed,
    Waiting(oneshot::Receiver<()>),
    InFlight,
    Finished,
}

impl ConcurrencyLimiter {
    /// No lane gets a permit any more once `closed` is cancelled.
    pub fn new(total: usize, per_endpoint: usize, clock: Arc<dyn Clock>, closed: CancellationToken) -> Self {
        let state = LimiterState {
            shares: FairShare::new(total),
            endpoints: HashMap::new(),
            refused: false,
            next_token_at: None,
        };
        let (nodes, released) = (AtomicUsize::new(1), Notify::new());
        Self(Arc::new(Limiter { per_endpoint, nodes, state: Mutex::new(state), released, clock, closed }))
    }

    /// From now on the limit and the rate of an endpoint are divided among this many nodes.
    pub fn share_among(&self, nodes: usize) {
        self.0.nodes.store(nodes.max(1), Ordering::Relaxed);
    }

    /// When a lane that was refused for its rate may ask again. Forgets the answer.
    pub fn next_token_at(&self) -> Option<Timestamp> {
        self.0.state().next_token_at.take()
    }

    /// Permits that are free.
    pub fn free(&self) -> usize {
        let mut state = self.0.state();
        let free = state.shares.free();
        state.refused |= free == 0;
        free
    }

    /// Permits that are taken, for metrics.
    pub fn in_use(&self) -> usize {
        self.0.state().shares.in_use().all
    }

    /// The permit of a claim; [`LaneQuota::claimed`] has counted it.
    pub fn permit(&self, lane: Lane) -> Permit {
        Permit { limiter: self.clone(), lane, state: PermitState::Claimed }
    }

    /// Completes when a permit has been given back since a lane was refused.
    pub async fn released(&self) {
        self.0.released.notified().await;
    }

    fn give_back(&self, lane: Lane, was_in_flight: bool) {
        let mut state = self.0.state();
        state.give_back(lane, was_in_flight, self.0.per_endpoint());
        self.notify_refused(&mut state);
    }

    fn notify_refused(&self, state: &mut LimiterState) {
        if std::mem::take(&mut state.refused) {
            self.0.released.notify_one();
        }
    }
}

impl Permit {
    /// Waits until one more attempt may be in flight to the endpoint. A test event does not wait.
    pub async fn acquire(&mut self) {
        if self.lane.kind == LaneKind::Tests {
            return;
        }
        let waiting = self.limiter.0.state().start_or_wait(self.lane, self.limiter.0.per_endpoint());
        self.state = waiting.map_or(PermitState::InFlight, PermitState::Waiting);
        if let PermitState::Waiting(started) = &mut self.state {
            // The sender lives in the limiter, and this permit holds the limiter: the wait cannot fail.
            let _ = started.await;
            self.state = PermitState::InFlight;
        }
    }

    /// Gives the permit back now that the exchange has ended. The sample adapts the endpoint's limit.
    pub fn finish(mut self, sample: AttemptSample) -> UnrecordedOutcome {
        let (limiter, lane) = (self.limiter.clone(), self.lane);
        let before = std::mem::replace(&mut self.state, PermitState::Finished);
        let was_in_flight = matches!(before, PermitState::InFlight);
        let mut state = limiter.0.state();
        let per_endpoint = limiter.0.per_endpoint();
        state.observe(lane, sample, per_endpoint);
        state.give_back(lane, was_in_flight, per_endpoint);
        state.endpoint(lane.endpoint_key, per_endpoint).unrecorded += 1;
        limiter.notify_refused(&mut state);
        drop(state);
        UnrecordedOutcome { limiter, lane }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let was_in_flight = match &mut self.state {
            PermitState::Claimed => false,
            // The start may have been granted a moment ago.
            PermitState::Waiting(started) => {
                started.close();
                started.try_recv().is_ok()
            }
            PermitState::InFlight => true,
            PermitState::Finished => return,
        };
        self.limiter.give_back(self.lane, was_in_flight);
    }
}

impl Drop for UnrecordedOutcome {
    fn drop(&mut self) {
        let limiter = &self.limiter.0;
        let mut state = limiter.state();
        let endpoint = state.endpoint(self.lane.endpoint_key, limiter.per_endpoint());
        let was_at_limit = endpoint.claims() >= limits::CLAIMS_PER_ENDPOINT;
        endpoint.unrecorded = endpoint.unrecorded.saturating_sub(1);
        if was_at_limit {
            self.limiter.notify_refused(&mut state);
        }
    }
}

impl LaneQuota for ConcurrencyLimiter {
    fn quota(&self, lane: Lane) -> usize {
        if self.0.closed.is_cancelled() {
            return 0;
        }
        let mut state = self.0.state();
        if state.tokens(lane, self.0.clock.as_ref(), 1) == 0 {
            return 0;
        }
        let quota = state.quota(lane, self.0.per_endpoint());
        state.refused |= quota == 0;
        quota
    }

    fn allowance(&self, lane: Lane, target: &EndpointTarget, wanted: usize) -> usize {
        let mut state = self.0.state();
        let rate = target.options.rate_limit.map(|rate| NodeRate::of(rate, self.0.nodes()));
        state.set_rate(lane, rate, self.0.per_endpoint(), self.0.clock.as_ref());
        state.tokens(lane, self.0.clock.as_ref(), wanted)
    }

    fn claimed(&self, lane: Lane) {
        let mut state = self.0.state();
        state.take(lane, self.0.per_endpoint());
        if let Some(bucket) = state.bucket(lane) {
            bucket.take();
        }
    }

    fn unclaimed(&self, lane: Lane) {
        if let Some(bucket) = self.0.state().bucket(lane) {
            bucket.give_back();
        }
        self.give_back(lane, false);
    }
}

impl Limiter {
    fn nodes(&self) -> usize {
        self.nodes.load(Ordering::Relaxed)
    }

    /// This node's part of the attempts that may be in flight to one endpoint.
    fn per_endpoint(&self) -> usize {
        (self.per_endpoint / self.nodes()).max(1)
    }

    fn state(&self) -> MutexGuard<'_, LimiterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LimiterState {
    fn quota(&self, lane: Lane, per_endpoint: usize) -> usize {
        let endpoint = self.endpoints.get(&lane.endpoint_key);
        let (permits, claims) = endpoint.map_or((0, 0), |endpoint| (endpoint.permits, endpoint.claims()));
        let limit = endpoint.map_or_else(|| AdaptiveLimit::initial(per_endpoint), |endpoint| endpoint.limit);
        // A claim for an endpoint with a rate has used a token. Claimed ahead, several would go out in one burst.
        let without_rate = endpoint.filter(|endpoint| endpoint.bucket.is_none());
        let ahead = without_rate.map_or(0, |endpoint| endpoint.limit.claims_ahead());
        // Somebody waits for a test event: it does not queue behind the attempts in flight.
        let tests = if lane.kind == LaneKind::Tests { limits::TESTS_BESIDE } else { 0 };
        let claims_left = (limits::CLAIMS_PER_ENDPOINT + tests).saturating_sub(claims);
        let of_endpoint = (limit.in_flight() + ahead + tests).saturating_sub(permits).min(claims_left);
        of_endpoint.min(self.shares.quota(lane.workspace_key, limit.is_fast()))
    }

    fn take(&mut self, lane: Lane, per_endpoint: usize) {
        let endpoint = self.endpoint(lane.endpoint_key, per_endpoint);
        endpoint.permits += 1;
        let fast = endpoint.limit.is_fast();
        self.shares.take(lane.workspace_key, fast);
    }

    fn give_back(&mut self, lane: Lane, was_in_flight: bool, per_endpoint: usize) {
        let endpoint = self.endpoint(lane.endpoint_key, per_endpoint);
        endpoint.permits = endpoint.permits.saturating_sub(1);
        if was_in_flight {
            endpoint.in_flight = endpoint.in_flight.saturating_sub(1);
            endpoint.start_waiting();
        }
        let fast = endpoint.limit.is_fast();
        self.shares.give_back(lane.workspace_key, fast);
    }

    /// `None` when the attempt may start at once.
    fn start_or_wait(&mut self, lane: Lane, per_endpoint: usize) -> Option<oneshot::Receiver<()>> {
        let endpoint = self.endpoint(lane.endpoint_key, per_endpoint);
        if endpoint.in_flight < endpoint.limit.in_flight() && endpoint.waiting.is_empty() {
            endpoint.in_flight += 1;
            return None;
        }
        let (start, started) = oneshot::channel();
        endpoint.waiting.push_back(start);
        endpoint.start_waiting();
        Some(started)
    }

    /// Adapts the limit. The endpoint's permits move between the halves when it becomes fast or slow.
    fn observe(&mut self, lane: Lane, sample: AttemptSample, per_endpoint: usize) {
        let endpoint = self.endpoint(lane.endpoint_key, per_endpoint);
        let was_fast = endpoint.limit.is_fast();
        endpoint.limit = endpoint.limit.after(sample, per_endpoint);
        endpoint.start_waiting();
        let (fast, permits) = (endpoint.limit.is_fast(), endpoint.permits);
        if was_fast != fast {
            self.shares.reclassify(lane.workspace_key, permits, fast);
        }
    }

    fn set_rate(&mut self, lane: Lane, rate: Option<NodeRate>, per_endpoint: usize, clock: &dyn Clock) {
        let has_bucket = |endpoint: &EndpointUsage| endpoint.bucket.is_some();
        if rate.is_none() && !self.endpoints.get(&lane.endpoint_key).is_some_and(has_bucket) {
            return;
        }
        let endpoint = self.endpoint(lane.endpoint_key, per_endpoint);
        if endpoint.bucket.map(|bucket| bucket.rate()) != rate {
            endpoint.bucket = rate.map(|rate| TokenBucket::full(rate, clock.now()));
        }
    }

    /// How many of `wanted` deliveries the endpoint's rate allows now. Notes when there will be more, unless all are
    /// allowed.
    fn tokens(&mut self, lane: Lane, clock: &dyn Clock, wanted: usize) -> usize {
        let Some(bucket) = self.bucket(lane) else { return wanted };
        let now = clock.now();
        let whole = bucket.refill(now);
        if whole < wanted {
            let at = bucket.next_token_at();
            let other = self.next_token_at.filter(|other| *other > now);
            self.next_token_at = Some(other.map_or(at, |other| other.min(at)));
        }
        wanted.min(whole)
    }

    /// The bucket of the lane's endpoint, if it has one. Test events are not held back by a rate.
    fn bucket(&mut self, lane: Lane) -> Option<&mut TokenBucket> {
        if lane.kind == LaneKind::Tests {
            return None;
        }
        self.endpoints.get_mut(&lane.endpoint_key)?.bucket.as_mut()
    }

    /// A `BoundedCache` does not fit here: an endpoint with claims must stay, whatever its age.
    fn endpoint(&mut self, endpoint_key: RowKey, per_endpoint: usize) -> &mut EndpointUsage {
        if self.endpoints.len() >= limits::ENDPOINTS_TRACKED {
            self.endpoints.retain(|_, endpoint| endpoint.claims() > 0);
        }
        self.endpoints.entry(endpoint_key).or_insert_with(|| EndpointUsage {
            permits: 0,
            in_flight: 0,
            waiting: VecDeque::new(),
            unrecorded: 0,
            limit: AdaptiveLimit::initial(per_endpoint),
            bucket: None,
        })
    }
}

impl EndpointUsage {
    /// All claims whose outcomes are not on disk.
    fn claims(&self) -> usize {
        self.permits + self.unrecorded
    }

    fn start_waiting(&mut self) {
        while self.in_flight < self.limit.in_flight()
            && let Some(start) = self.waiting.pop_front()
        {
            // A send fails when the waiting attempt was dropped; then the next one starts.
            self.in_flight += usize::from(start.send(()).is_ok());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::super::fair_share::PermitCount;
    use super::*;
    use postrider_domain::attempt::AttemptOutcome;
    use postrider_domain::endpoint::SecretVersion;
    use postrider_domain::endpoint_options::{DeliveryRate, EndpointOptions};
    use postrider_domain::id::{EndpointId, WorkspaceId};

    const FAST: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_secs(14);

    /// A clock that moves only when a test sets it.
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
            workspace_key: lane.workspace_key,
            workspace_id: WorkspaceId::from_letters([b'a'; 16]),
            endpoint_key: lane.endpoint_key,
            id: EndpointId::from_letters([b'a'; 16]),
            project: None,
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

    fn limiter(total: usize, per_endpoint: usize) -> ConcurrencyLimiter {
        ConcurrencyLimiter::new(total, per_endpoint, Arc::new(TestClock::default()), CancellationToken::new())
    }

    fn take(limiter: &ConcurrencyLimiter, lane: Lane) -> Permit {
        limiter.claimed(lane);
        limiter.permit(lane)
    }

    fn answered(duration: Duration) -> AttemptSample {
        AttemptSample { outcome: AttemptOutcome::Delivered, status: Some(200), duration, probe: false }
    }

    /// Finishes `count` attempts, so that the endpoint counts as fast or slow.
    fn finish_many(limiter: &ConcurrencyLimiter, lane: Lane, count: usize, duration: Duration) {
        for _ in 0..count {
            drop(take(limiter, lane).finish(answered(duration)));
        }
    }

    /// Reports a sample while other attempts are in flight.
    fn observe(permit: &Permit, sample: AttemptSample) {
        permit.limiter.0.state().observe(permit.lane, sample, permit.limiter.0.per_endpoint());
    }

    /// Takes as many permits as the lane's quota allows.
    fn fill(limiter: &ConcurrencyLimiter, lane: Lane) -> Vec<Permit> {
        let mut held = Vec::new();
        while limiter.quota(lane) > 0 {
            held.push(take(limiter, lane));
        }
        held
    }

    #[test]
    fn nodes_divide_the_limit_and_the_rate_of_an_endpoint() {
        let alone = limiter(512, 64);
        let shared = limiter(512, 64);
        shared.share_among(4);
        for limiter in [&alone, &shared] {
            let held = take(limiter, lane(1));
            (0..200).for_each(|_| observe(&held, answered(SLOW / 14)));
        }
        let limit =
            |limiter: &ConcurrencyLimiter| limiter.0.state().endpoint(lane(1).endpoint_key, 0).limit.in_flight();
        assert!(limit(&shared) <= 16, "{} of 64", limit(&shared));
        assert!(limit(&alone) >= limit(&shared));
        let rate = target_with_rate(lane(2), Some(100));
        let allowed = |limiter: &ConcurrencyLimiter| limiter.allowance(lane(2), &rate, 1_000);
        assert_eq!((allowed(&alone), allowed(&shared)), (10, 2), "a tenth of a second's worth, and a quarter of that");
        shared.share_among(1_000);
        assert_eq!(fill(&shared, lane(3)).len(), 1, "a node always has at least one permit");
    }

    #[test]
    fn an_endpoint_gets_no_more_than_its_limit_and_gets_it_back() {
        let limiter = limiter(300, 2);
        let held = [take(&limiter, lane(1)), take(&limiter, lane(1))];
        assert_eq!((limiter.quota(lane(1)), limiter.quota(lane(2))), (0, 2));
        drop(held);
        assert_eq!((limiter.free(), limiter.quota(lane(1))), (300, 2));
        assert!(limiter.0.state().shares.by_workspace().is_empty());
    }

    #[tokio::test]
    async fn unrecorded_outcomes_hold_no_permit_but_are_limited() {
        let limiter = limiter(300, 2);
        let mut unrecorded = Vec::new();
        while limiter.quota(lane(1)) > 0 {
            let mut permit = take(&limiter, lane(1));
            permit.acquire().await;
            unrecorded.push(permit.finish(answered(FAST)));
            assert_eq!(limiter.free(), 300);
        }
        assert_eq!(unrecorded.len(), limits::CLAIMS_PER_ENDPOINT);
        assert!(limiter.quota(lane(2)) > 0, "one endpoint's outcomes do not count for another");
        let tests = Lane { kind: LaneKind::Tests, ..lane(1) };
        assert_eq!(limiter.quota(tests), limits::TESTS_BESIDE);
        unrecorded.pop();
        tokio::time::timeout(Duration::from_secs(10), limiter.released()).await.unwrap();
        assert_eq!(limiter.quota(lane(1)), 1);
        drop(unrecorded);
        assert_eq!(limiter.0.state().endpoints[&lane(1).endpoint_key].unrecorded, 0);
    }

    #[test]
    fn a_claim_that_was_rolled_back_frees_its_permit() {
        let limiter = limiter(30, 2);
        limiter.claimed(lane(1));
        limiter.unclaimed(lane(1));
        assert_eq!((limiter.free(), limiter.quota(lane(1))), (30, 2));
    }

    #[test]
    fn a_workspace_alone_gets_two_thirds_and_leaves_some_for_others() {
        let limiter = limiter(512, 64);
        let mut held = Vec::new();
        for endpoint in 1..100 {
            finish_many(&limiter, lane_of(1, endpoint), 100, FAST);
            held.extend(fill(&limiter, lane_of(1, endpoint)));
        }
        assert!((300..=341).contains(&held.len()), "{}", held.len());
        for workspace in 2..20 {
            let endpoint = lane_of(workspace, 1000 + workspace);
            finish_many(&limiter, endpoint, 1, FAST);
            let more = fill(&limiter, endpoint);
            assert!(!more.is_empty(), "workspace {workspace} found no free permit");
            held.extend(more);
        }
        assert!(held.len() <= 512);
    }

    #[test]
    fn five_hundred_slow_endpoints_leave_the_other_half_alone() {
        let limiter = limiter(512, 64);
        let mut held = Vec::new();
        for workspace in 1..=50 {
            for endpoint in 0..10 {
                held.extend(fill(&limiter, lane_of(workspace, workspace * 100 + endpoint)));
            }
        }
        assert!(held.len() <= 256 + 50, "{}", held.len());
        let fast = lane_of(99, 9_999);
        let newcomer = fill(&limiter, fast);
        assert!(!newcomer.is_empty(), "a newcomer finds a free permit");
        observe(&newcomer[0], answered(FAST));
        drop(newcomer);
        finish_many(&limiter, fast, 100, FAST);
        assert!(fill(&limiter, fast).len() > 32, "a fast endpoint gets as many as it needs");
    }

    #[test]
    fn one_workspace_of_slow_endpoints_takes_a_quarter() {
        let limiter = limiter(512, 64);
        let held: Vec<_> = (1..=500).flat_map(|endpoint| fill(&limiter, lane(endpoint))).collect();
        assert_eq!(held.len(), 128);
    }

    #[test]
    fn an_endpoint_takes_its_permits_along_between_the_halves() {
        let limiter = limiter(512, 64);
        let held = fill(&limiter, lane(1));
        assert_eq!(limiter.0.state().shares.in_use(), PermitCount { all: held.len(), slow: held.len() });
        observe(&held[0], answered(FAST));
        assert_eq!(limiter.0.state().shares.in_use(), PermitCount { all: held.len(), slow: 0 });
        for _ in 0..10 {
            observe(&held[0], answered(SLOW));
        }
        assert_eq!(limiter.0.state().shares.in_use(), PermitCount { all: held.len(), slow: held.len() });
        drop(held);
        assert_eq!(limiter.0.state().shares.in_use(), PermitCount::default());
    }

    #[test]
    fn a_rate_spreads_deliveries_and_is_never_exceeded() {
        let clock = TestClock::default();
        let limiter = ConcurrencyLimiter::new(512, 64, Arc::new(clock.clone()), CancellationToken::new());
        let target = |rate| target_with_rate(lane(1), rate);
        let mut sent = Vec::new();
        for now in 0..3_000_u64 {
            clock.set(now);
            while limiter.quota(lane(1)) > 0 && limiter.allowance(lane(1), &target(Some(30)), 1) > 0 {
                drop(take(&limiter, lane(1)));
                sent.push(now);
            }
        }
        for second in 0..=2_000 {
            let within = sent.iter().filter(|at| (second..second + 1_000).contains(*at)).count();
            assert!((29..=33).contains(&within), "{within} within a second from {second} ms");
        }
        assert_eq!(limiter.quota(lane(1)), 0, "refused before the store is asked");
        let at = limiter.next_token_at().unwrap();
        assert!(at > clock.now() && at.since(clock.now()) <= Duration::from_millis(34));
        let tests = Lane { kind: LaneKind::Tests, ..lane(1) };
        assert!(
            limiter.quota(tests) > 0 && limiter.allowance(tests, &target(Some(30)), 1) == 1,
            "a test event does not wait"
        );
        assert_eq!(limiter.allowance(lane(1), &target(None), 5), 5, "the rate was removed");
    }

    #[test]
    fn a_claim_that_was_rolled_back_gives_its_token_back() {
        let clock = TestClock::default();
        let limiter = ConcurrencyLimiter::new(512, 64, Arc::new(clock.clone()), CancellationToken::new());
        let target = target_with_rate(lane(1), Some(1));
        assert_eq!(limiter.allowance(lane(1), &target, 5), 1);
        limiter.claimed(lane(1));
        limiter.unclaimed(lane(1));
        assert_eq!(limiter.allowance(lane(1), &target, 5), 1);
        limiter.claimed(lane(1));
        clock.set(999);
        assert_eq!(limiter.quota(lane(1)), 0);
        assert_eq!(limiter.next_token_at(), Some(Timestamp::from_millis(1000)));
        clock.set(1000);
        assert_eq!(limiter.allowance(lane(1), &target, 5), 1);
    }

    #[test]
    fn a_test_event_gets_a_permit_beside_a_full_limit() {
        let limiter = limiter(512, 4);
        let held = fill(&limiter, lane(1));
        let tests = Lane { kind: LaneKind::Tests, ..lane(1) };
        assert_eq!((limiter.quota(lane(1)), limiter.quota(tests)), (0, limits::TESTS_BESIDE));
        drop(held);
    }

    #[tokio::test]
    async fn claims_ahead_start_in_the_order_in_which_they_came() {
        let limiter = limiter(512, 4);
        finish_many(&limiter, lane(1), 1, Duration::from_millis(1));
        assert_eq!(limiter.quota(lane(1)), 4 + 3 * 4, "four times as many as may be in flight");
        let mut in_flight = Vec::new();
        for _ in 0..4 {
            let mut permit = take(&limiter, lane(1));
            permit.acquire().await;
            in_flight.push(permit);
        }
        let (mut next, mut last) = (take(&limiter, lane(1)), take(&limiter, lane(1)));
        {
            let (mut next_start, mut last_start) = (Box::pin(next.acquire()), Box::pin(last.acquire()));
            assert!(futures_util::poll!(&mut next_start).is_pending());
            assert!(futures_util::poll!(&mut last_start).is_pending());
            in_flight.pop();
            next_start.await;
            assert!(futures_util::poll!(&mut last_start).is_pending());
        }
        // `last` is dropped while it waits: the next permit starts in its place.
        drop(last);
        let mut other = take(&limiter, lane(1));
        drop(next);
        other.acquire().await;
        drop((in_flight, other));
        let state = limiter.0.state();
        let endpoint = &state.endpoints[&lane(1).endpoint_key];
        assert_eq!((endpoint.permits, endpoint.in_flight, endpoint.waiting.len()), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_test_event_starts_at_once() {
        let limiter = limiter(512, 1);
        let mut in_flight = take(&limiter, lane(1));
        in_flight.acquire().await;
        let mut test = take(&limiter, Lane { kind: LaneKind::Tests, ..lane(1) });
        assert!(futures_util::poll!(Box::pin(test.acquire())).is_ready());
    }

    #[tokio::test]
    async fn a_refused_lane_is_notified_of_the_next_free_permit() {
        let limiter = limiter(1, 1);
        let held = take(&limiter, lane(1));
        assert_eq!(limiter.quota(lane(1)), 0);
        drop(held);
        tokio::time::timeout(Duration::from_secs(10), limiter.released()).await.unwrap();
    }

    #[test]
    fn a_closed_limiter_gives_no_permit() {
        let closed = CancellationToken::new();
        let limiter = ConcurrencyLimiter::new(1, 1, Arc::new(TestClock::default()), closed.clone());
        closed.cancel();
        assert_eq!(limiter.quota(lane(1)), 0);
    }

    proptest! {
        #[test]
        fn counts_never_drift(steps in proptest::collection::vec((0_i64..4, 0_i64..6, 0_u8..6), 1..200)) {
            let limiter = limiter(16, 4);
            let (mut held, mut unrecorded): (Vec<Permit>, Vec<UnrecordedOutcome>) = Default::default();
            for (workspace, endpoint, step) in steps {
                let lane = lane_of(workspace, workspace * 10 + endpoint);
                match step {
                    0 | 1 if limiter.quota(lane) > 0 => held.push(take(&limiter, lane)),
                    2 if !held.is_empty() => drop(held.remove(0)),
                    3 if !held.is_empty() => observe(&held[0], answered(if endpoint > 2 { FAST } else { SLOW })),
                    4 if !held.is_empty() => unrecorded.push(held.remove(0).finish(answered(SLOW))),
                    5 => drop(unrecorded.pop()),
                    _ => {}
                }
                let state = limiter.0.state();
                prop_assert_eq!(state.shares.in_use().all, held.len());
                prop_assert!(state.shares.in_use().all <= 16);
                let is_slow = |endpoint: &&EndpointUsage| !endpoint.limit.is_fast();
                let slow: usize = state.endpoints.values().filter(is_slow).map(|endpoint| endpoint.permits).sum();
                prop_assert_eq!(state.shares.in_use().slow, slow);
                let by_workspace: usize = state.shares.by_workspace().values().map(|count| count.all).sum();
                prop_assert_eq!(by_workspace, held.len());
                let finished: usize = state.endpoints.values().map(|endpoint| endpoint.unrecorded).sum();
                prop_assert_eq!(finished, unrecorded.len());
            }
            drop(held);
            prop_assert_eq!(limiter.0.state().shares.in_use(), PermitCount::default());
            prop_assert!(limiter.0.state().shares.by_workspace().is_empty());
        }
    }
}
