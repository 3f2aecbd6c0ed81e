//! Statistics: what is counted, in which buckets of time, and how percentiles are read from the counts.
//!
//! The stores count as they write: accepted events, created and ended deliveries, recorded attempts. So a question
//! about a period reads a row for each bucket, however many deliveries the period has.

use super::attempt::AttemptOutcome;
use super::delivery::{DeliveryStatus, EndReason};
use super::endpoint::ProjectId;
use super::id::EndpointId;
use super::limits;
use super::time::Timestamp;

/// The length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BucketSize {
    Minute,
    Hour,
    /// From 00:00 UTC.
    Day,
}

impl BucketSize {
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|size| size.as_str() == text)
    }

    /// The number that the stores keep.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub const fn millis(self) -> i64 {
        match self {
            Self::Minute => 60_000,
            Self::Hour => 3_600_000,
            Self::Day => 24 * 3_600_000,
        }
    }

    /// The start of the bucket that contains the instant.
    pub const fn start_of(self, at: Timestamp) -> Timestamp {
        Timestamp::from_millis(at.millis().div_euclid(self.millis()) * self.millis())
    }

    /// The start of the first bucket that begins at the instant or later.
    pub const fn start_at_or_after(self, at: Timestamp) -> Timestamp {
        self.start_of(Timestamp::from_millis(at.millis().saturating_add(self.millis() - 1)))
    }

    /// How long the stores keep counts in buckets of this size, at most as long as the log.
    pub fn kept(self, log: std::time::Duration) -> std::time::Duration {
        match self {
            Self::Minute => log.min(limits::MINUTE_ROLLUPS_KEPT),
            Self::Hour => log.min(limits::HOUR_ROLLUPS_KEPT),
            Self::Day => log,
        }
    }
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Accepted events of the workspace.
    Events,
    /// Deliveries written to the log, skipped ones too.
    Created,
    /// Accepted events of one project.
    EventsOfProject,
    /// Accepted events of one type.
    EventsOfType,
    /// Not a count: the instant of the last delivery to an endpoint, in milliseconds.
    LastSuccess,
    /// Accepted events of one type whose data did not fit its schema.
    MisfitsOfType,
    /// Not a count: the instant at which something in the workspace last stopped needing somebody, in milliseconds.
    LastTrouble,
    Ended(DeliveryEnd),
    /// An attempt other than a delivery's first.
    Attempt(AttemptOutcome),
    /// The first attempt of a delivery. One counter for both facts, because most deliveries have one attempt.
    FirstAttempt {
        outcome: AttemptOutcome,
        wait: WaitStep,
    },
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryEnd {
    pub status: DeliveryStatus,
    pub reason: Option<EndReason>,
}

impl DeliveryEnd {
    /// Every end that there is.
    pub const ALL: [Self; 11] = [
        Self::of(DeliveryStatus::Delivered, None),
        Self::of(DeliveryStatus::Simulated, None),
        Self::of(DeliveryStatus::Failed, Some(EndReason::Exhausted)),
        Self::of(DeliveryStatus::Failed, Some(EndReason::Expired)),
        Self::of(DeliveryStatus::Failed, Some(EndReason::EventGone)),
        Self::of(DeliveryStatus::Cancelled, Some(EndReason::EndpointDeleted)),
        Self::of(DeliveryStatus::Skipped, Some(EndReason::Inactive)),
        Self::of(DeliveryStatus::Skipped, Some(EndReason::DisabledGone)),
        Self::of(DeliveryStatus::Skipped, Some(EndReason::DisabledFailing)),
        Self::of(DeliveryStatus::Skipped, Some(EndReason::DisabledSsrfBlocked)),
        Self::of(DeliveryStatus::Cancelled, Some(EndReason::Erased)),
    ];

    const fn of(status: DeliveryStatus, reason: Option<EndReason>) -> Self {
        Self { status, reason }
    }

    /// The position in [`Self::ALL`]. `None` for an end that there is not.
    pub fn position(self) -> Option<usize> {
        Self::ALL.iter().position(|end| *end == self)
    }

    const fn code(self) -> i64 {
        let reason = match self.reason {
            Some(reason) => reason.code() + 1,
            None => 0,
        };
        self.status.code() * 100 + reason
    }

    fn from_code(code: i64) -> Option<Self> {
        let status = DeliveryStatus::from_code(code / 100)?;
        let reason = match code % 100 {
            0 => None,
            reason => Some(EndReason::from_code(reason - 1)?),
        };
        Some(Self { status, reason })
    }
}

const ENDED: i64 = 1_000;
const ATTEMPT: i64 = 2_000;
const FIRST_ATTEMPT: i64 = 10_000;

impl Counter {
    /// The number that the stores keep.
    pub const fn code(self) -> i64 {
        match self {
            Self::Events => 0,
            Self::Created => 1,
            Self::EventsOfProject => 2,
            Self::EventsOfType => 3,
            Self::LastSuccess => 4,
            Self::MisfitsOfType => 5,
            Self::LastTrouble => 6,
            Self::Ended(end) => ENDED + end.code(),
            Self::Attempt(outcome) => ATTEMPT + outcome.code(),
            Self::FirstAttempt { outcome, wait } => FIRST_ATTEMPT + outcome.code() * 100 + wait.0 as i64,
        }
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Some(match code {
            0 => Self::Events,
            1 => Self::Created,
            2 => Self::EventsOfProject,
            3 => Self::EventsOfType,
            4 => Self::LastSuccess,
            5 => Self::MisfitsOfType,
            6 => Self::LastTrouble,
            ENDED..ATTEMPT => Self::Ended(DeliveryEnd::from_code(code - ENDED)?),
            ATTEMPT..FIRST_ATTEMPT => Self::Attempt(AttemptOutcome::from_code(code - ATTEMPT)?),
            _ => Self::FirstAttempt {
                outcome: AttemptOutcome::from_code((code - FIRST_ATTEMPT).div_euclid(100))?,
                wait: WaitStep::from_index(usize::try_from((code - FIRST_ATTEMPT).rem_euclid(100)).ok()?)?,
            },
        })
    }

    /// The counter of an attempt. `created_at` is the instant at which its delivery was created.
    pub fn of_attempt(outcome: AttemptOutcome, number: u32, created_at: Timestamp, started_at: Timestamp) -> Self {
        match number {
            1 => Self::FirstAttempt { outcome, wait: WaitStep::of(started_at.since(created_at)) },
            _ => Self::Attempt(outcome),
        }
    }
}

/// A step of the waits before first attempts, by its index in [`WAIT_STEPS_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitStep(usize);

/// The longest wait of each step, in milliseconds. A delivery that waits longer than the last has expired.
pub const WAIT_STEPS_MS: [u64; 22] = [
    1,
    2,
    5,
    10,
    20,
    50,
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    60_000,
    5 * 60_000,
    20 * 60_000,
    3_600_000,
    4 * 3_600_000,
    24 * 3_600_000,
    4 * 24 * 3_600_000,
    14 * 24 * 3_600_000,
];

impl WaitStep {
    pub fn of(wait: std::time::Duration) -> Self {
        let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        Self(WAIT_STEPS_MS.partition_point(|longest| *longest < millis).min(WAIT_STEPS_MS.len() - 1))
    }

    fn from_index(index: usize) -> Option<Self> {
        (index < WAIT_STEPS_MS.len()).then_some(Self(index))
    }
}

/// How long deliveries waited for their first attempts, from their creation to its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FirstAttempts {
    counts: [u64; WAIT_STEPS_MS.len()],
}

impl FirstAttempts {
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The wait that `percent` of the deliveries did not exceed: the longest wait of the step that holds it, in
    /// milliseconds. `None` without a first attempt.
    pub fn percentile_ms(&self, percent: u64) -> Option<u64> {
        let rank = (self.count() * percent).div_ceil(100).max(1);
        let mut passed = 0;
        let holds = |count: &u64| {
            passed += count;
            passed >= rank
        };
        self.counts.iter().position(holds).map(|step| WAIT_STEPS_MS[step])
    }
}

/// What was counted in one bucket or period. Each list has its entries in a fixed order, without zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Accepted events. `None` when one endpoint is asked for: events belong to none.
    pub events: Option<u64>,
    pub created: u64,
    pub ended: Vec<(DeliveryEnd, u64)>,
    pub attempts: Vec<(AttemptOutcome, u64)>,
    pub first_attempts: FirstAttempts,
}

impl Counts {
    pub fn add(&mut self, counter: Counter, count: u64) {
        match counter {
            Counter::Events | Counter::EventsOfProject => *self.events.get_or_insert_default() += count,
            Counter::Created => self.created += count,
            Counter::Ended(end) => add_to(&mut self.ended, end, count, DeliveryEnd::code),
            Counter::Attempt(outcome) => add_to(&mut self.attempts, outcome, count, AttemptOutcome::code),
            Counter::FirstAttempt { outcome, wait } => {
                add_to(&mut self.attempts, outcome, count, AttemptOutcome::code);
                self.first_attempts.counts[wait.0] += count;
            }
            Counter::EventsOfType | Counter::LastSuccess | Counter::MisfitsOfType | Counter::LastTrouble => {}
        }
    }

    pub fn add_all(&mut self, other: &Self) {
        if let Some(events) = other.events {
            *self.events.get_or_insert_default() += events;
        }
        self.created += other.created;
        other.ended.iter().for_each(|(end, count)| add_to(&mut self.ended, *end, *count, DeliveryEnd::code));
        other
            .attempts
            .iter()
            .for_each(|(outcome, count)| add_to(&mut self.attempts, *outcome, *count, AttemptOutcome::code));
        self.first_attempts.counts.iter_mut().zip(other.first_attempts.counts).for_each(|(sum, count)| *sum += count);
    }

    /// All attempts.
    pub fn attempted(&self) -> u64 {
        self.attempts.iter().map(|(_, count)| count).sum()
    }

    /// Attempts with this outcome.
    pub fn attempts_of(&self, outcome: AttemptOutcome) -> u64 {
        self.attempts.iter().find(|(of, _)| *of == outcome).map_or(0, |(_, count)| *count)
    }

    /// Deliveries that ended with this status, whatever the reason.
    pub fn ended_as(&self, status: DeliveryStatus) -> u64 {
        self.ended.iter().filter(|(end, _)| end.status == status).map(|(_, count)| count).sum()
    }
}

fn add_to<K: Copy + PartialEq>(list: &mut Vec<(K, u64)>, key: K, count: u64, code: fn(K) -> i64) {
    match list.binary_search_by_key(&code(key), |(of, _)| code(*of)) {
        Ok(at) => list[at].1 += count,
        Err(at) if count > 0 => list.insert(at, (key, count)),
        Err(_) => {}
    }
}

/// Whose counts are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StatsScope {
    #[default]
    Workspace,
    /// The deliveries of the endpoints that belong to the project now, and the events that name it.
    Project(ProjectId),
    /// Nothing is counted for an endpoint of another workspace or mode.
    Endpoint(EndpointId),
    /// The endpoint, if it belongs to the project now. Otherwise nothing is counted.
    EndpointOfProject(EndpointId, ProjectId),
}

/// A period in buckets. Both ends are starts of buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatsPeriod {
    since: Timestamp,
    until: Timestamp,
    bucket: BucketSize,
}

/// Why a period cannot be asked for. Names the parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidPeriod {
    /// `until` is not after `since`.
    Empty,
    /// There are more buckets than [`limits::STATS_BUCKETS`].
    TooLong,
}

impl StatsPeriod {
    /// The buckets that contain a part of the time from `since` to `until`.
    ///
    /// # Errors
    /// When there is no such bucket, or there are too many.
    pub fn new(since: Timestamp, until: Timestamp, bucket: BucketSize) -> Result<Self, InvalidPeriod> {
        if until <= since {
            return Err(InvalidPeriod::Empty);
        }
        let period = Self { since: bucket.start_of(since), until: bucket.start_at_or_after(until), bucket };
        if period.len() > limits::STATS_BUCKETS { Err(InvalidPeriod::TooLong) } else { Ok(period) }
    }

    /// The period of usual length that ends with the bucket of `now`: an hour in minutes, a day in hours, 30 days in
    /// days.
    pub fn ending_at(now: Timestamp, bucket: BucketSize) -> Self {
        let until = Timestamp::from_millis(bucket.start_of(now).millis() + bucket.millis());
        let buckets = match bucket {
            BucketSize::Minute => 60,
            BucketSize::Hour => 24,
            BucketSize::Day => 30,
        };
        Self { since: Timestamp::from_millis(until.millis() - buckets * bucket.millis()), until, bucket }
    }

    pub const fn since(self) -> Timestamp {
        self.since
    }

    pub const fn until(self) -> Timestamp {
        self.until
    }

    pub const fn bucket(self) -> BucketSize {
        self.bucket
    }

    /// The number of buckets.
    pub fn len(self) -> usize {
        usize::try_from((self.until.millis() - self.since.millis()) / self.bucket.millis()).unwrap_or(usize::MAX)
    }

    /// A period has at least one bucket.
    pub const fn is_empty(self) -> bool {
        false
    }

    /// The starts of its buckets, the earliest first.
    pub fn starts(self) -> impl Iterator<Item = Timestamp> {
        let index_to_start = move |index: usize| {
            let passed = i64::try_from(index).unwrap_or(i64::MAX).saturating_mul(self.bucket.millis());
            Timestamp::from_millis(self.since.millis().saturating_add(passed))
        };
        (0..self.len()).map(index_to_start)
    }

    /// The index of the bucket that contains the instant.
    pub fn index_of(self, at: Timestamp) -> Option<usize> {
        let passed = at.millis().checked_sub(self.since.millis())?.div_euclid(self.bucket.millis());
        usize::try_from(passed).ok().filter(|index| *index < self.len())
    }
}

/// What was counted in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsBucket {
    pub start: Timestamp,
    pub counts: Counts,
}

/// The counts of a period.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatsSeries {
    pub period: StatsPeriod,
    /// Buckets from here on are complete. Before it, something or all is missing: the store did not count yet, or has
    /// removed the counts.
    pub complete_since: Timestamp,
    /// All buckets of the period, the earliest first, empty ones too.
    pub buckets: Vec<StatsBucket>,
}

impl StatsSeries {
    /// The sum of the buckets.
    pub fn totals(&self) -> Counts {
        let mut totals = Counts::default();
        self.buckets.iter().for_each(|bucket| totals.add_all(&bucket.counts));
        totals
    }
}

/// The deliveries that have not ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueState {
    /// Counted up to [`limits::PENDING_COUNTED`]: at that number there may be more.
    pub pending: u64,
    /// Since when the delivery is due that waits longest for a free permit. Deliveries that wait for their endpoint do
    /// not count.
    pub oldest_due_at: Option<Timestamp>,
}

impl QueueState {
    /// Whether `pending` is the exact number.
    pub const fn is_exact(self) -> bool {
        self.pending < limits::PENDING_COUNTED
    }
}

/// What an endpoint has done lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointActivity {
    pub endpoint_id: EndpointId,
    /// In hours, the earliest first: all hours of the period, empty ones too.
    pub hours: Vec<StatsBucket>,
    pub last_success_at: Option<Timestamp>,
    pub queue: QueueState,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn every_counter() -> Vec<Counter> {
        let mut all = vec![
            Counter::Events,
            Counter::Created,
            Counter::EventsOfProject,
            Counter::EventsOfType,
            Counter::LastSuccess,
            Counter::MisfitsOfType,
            Counter::LastTrouble,
        ];
        let reasons = || EndReason::ALL.into_iter().map(Some).chain([None]);
        for status in DeliveryStatus::ALL {
            all.extend(reasons().map(|reason| Counter::Ended(DeliveryEnd { status, reason })));
        }
        for outcome in AttemptOutcome::ALL {
            all.push(Counter::Attempt(outcome));
            all.extend((0..WAIT_STEPS_MS.len()).map(|step| Counter::FirstAttempt { outcome, wait: WaitStep(step) }));
        }
        all
    }

    #[test]
    fn every_counter_has_a_code_of_its_own() {
        let mut codes = std::collections::BTreeSet::new();
        for counter in every_counter() {
            assert_eq!(Counter::from_code(counter.code()), Some(counter));
            assert!(codes.insert(counter.code()), "{counter:?}");
        }
        for bad in [-1, 7, 1_999, 9_999, FIRST_ATTEMPT + 22, FIRST_ATTEMPT + 99 * 100] {
            assert_eq!(Counter::from_code(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_wait_belongs_to_the_first_step_that_it_fits() {
        let step = |millis| WAIT_STEPS_MS[WaitStep::of(Duration::from_millis(millis)).0];
        for (wait, longest) in
            [(0, 1), (1, 1), (2, 2), (3, 5), (1_000, 1_000), (1_001, 2_000), (u64::MAX, 1_209_600_000)]
        {
            assert_eq!(step(wait), longest, "{wait}");
        }
        assert_eq!(u128::from(WAIT_STEPS_MS[21]), limits::WAITING_MAX.as_millis());
        assert!(WAIT_STEPS_MS.is_sorted());
    }

    #[test]
    fn a_percentile_is_the_step_of_its_rank() {
        let mut counts = Counts::default();
        let mut add = |millis, count| {
            let wait = WaitStep::of(Duration::from_millis(millis));
            counts.add(Counter::FirstAttempt { outcome: AttemptOutcome::Delivered, wait }, count);
        };
        assert_eq!(FirstAttempts::default().percentile_ms(50), None);
        add(1, 50);
        add(90, 45);
        add(900, 5);
        let waits = counts.first_attempts;
        let percentiles = [1, 50, 51, 95, 96, 99, 100].map(|percent| waits.percentile_ms(percent));
        assert_eq!(percentiles, [1, 1, 100, 100, 1_000, 1_000, 1_000].map(Some));
        assert_eq!((waits.count(), counts.attempted()), (100, 100));
    }

    #[test]
    fn a_period_covers_whole_buckets() {
        let at = Timestamp::from_millis;
        let period = StatsPeriod::new(at(61_000), at(180_001), BucketSize::Minute).unwrap();
        assert_eq!((period.since(), period.until(), period.len()), (at(60_000), at(240_000), 3));
        assert_eq!(period.starts().collect::<Vec<_>>(), [at(60_000), at(120_000), at(180_000)]);
        let index = [59_999, 60_000, 239_999, 240_000].map(|millis| period.index_of(at(millis)));
        assert_eq!(index, [None, Some(0), Some(2), None]);
        assert_eq!(StatsPeriod::new(at(5), at(5), BucketSize::Day), Err(InvalidPeriod::Empty));
        let minutes = |count: i64| StatsPeriod::new(at(0), at(count * 60_000), BucketSize::Minute);
        let most = i64::try_from(limits::STATS_BUCKETS).unwrap();
        assert!(minutes(most).is_ok());
        assert_eq!(minutes(most + 1), Err(InvalidPeriod::TooLong));
        let end = StatsPeriod::ending_at(at(61_000), BucketSize::Minute);
        assert_eq!((end.until(), end.len()), (at(120_000), 60));
    }
}
