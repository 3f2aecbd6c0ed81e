//! Statistics: the rollups that every transaction of the engine writes, and the questions that they answer.
//!
//! A rollup is a count: of one [`Counter`], in one bucket of time, for a whole workspace, one of its endpoints, or the
//! events of one project or type. A transaction gathers its counts in [`Rollups`] and writes one row for each before it
//! commits. So the counts say exactly what the log said at each instant.
//!
//! Upkeep adds minutes up to hours and hours to days ([`FoldProgress`]), and removes each size by age
//! ([`BucketSize::kept`]). The sums stand beside their parts, which are kept for a while: a question in hours reads
//! hours as far as they are added up, and minutes from there on ([`sources`]).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::access::Mode;
use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event::NewEvent;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::limits;
use postrider_domain::stats::{
    BucketSize, Counter, Counts, DeliveryEnd, EndpointActivity, QueueState, StatsBucket, StatsPeriod, StatsScope,
    StatsSeries,
};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_metrics::LogMetrics;

use crate::column::mode_code;
use crate::publish::delivery::NewDelivery;
use crate::tally::Tally;
use crate::{EndpointTarget, StoreError};

#[async_trait]
pub trait Stats: Send + Sync + 'static {
    /// The counts of a period, bucket by bucket. Deliveries of a project are those of the endpoints that belong to it
    /// now, as far as they belonged to it when they were counted.
    async fn stats(&self, tenant: Tenant, scope: StatsScope, period: StatsPeriod) -> Result<StatsSeries, StoreError>;

    /// What each of these endpoints did in the hours of the period, its last success and its queue. In the order of
    /// `endpoints`. For a page of endpoints: one call reads all.
    async fn endpoint_activity(
        &self,
        tenant: Tenant,
        endpoints: Vec<EndpointId>,
        period: StatsPeriod,
    ) -> Result<Vec<EndpointActivity>, StoreError>;

    /// The number of events of each type in the period, by name. Types without an event are left out. A tenant that is
    /// narrowed to a project gets none: types are not counted by project.
    async fn events_by_type(&self, tenant: Tenant, period: StatsPeriod) -> Result<Vec<(String, u64)>, StoreError>;

    /// As [`Self::events_by_type`], of the events whose data did not fit the schema of their type and was accepted.
    async fn misfits_by_type(&self, tenant: Tenant, period: StatsPeriod) -> Result<Vec<(String, u64)>, StoreError>;

    /// When something last stopped needing somebody: an order that had stopped was skipped or retried, an endpoint that
    /// was failing, paused or disabled works again or was switched off or deleted. `None`: that was never noted.
    async fn last_trouble(&self, tenant: Tenant) -> Result<Option<Timestamp>, StoreError>;

    /// The deliveries of the workspace or the endpoint that have not ended.
    async fn queue_state(&self, tenant: Tenant, endpoint: Option<EndpointId>) -> Result<QueueState, StoreError>;
}

/// The name of the progress in the table of named facts.
pub const PROGRESS: &str = "rollups";

/// The instant at which a store began to count that had a log before, in the table of named facts: milliseconds as
/// text. A store that counts from its first row has none. The migration writes it.
pub const COUNTED_SINCE: &str = "rollups_since";

/// The size of rows that belong to no bucket, as a number. Their start is 0.
pub const WHOLE_TIME: i64 = 3;

/// Whose counts a row has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RollupKey {
    /// Workspace and mode.
    pub tenant: (i64, i64),
    /// 0 for the workspace as a whole.
    pub endpoint: i64,
    /// The project of an endpoint when its delivery was counted. Or the project or the type whose events are counted.
    pub name: String,
    pub counter: i64,
}

/// The counts of one transaction.
#[derive(Debug, Default)]
pub struct Rollups {
    /// The names in use. The first is empty.
    names: Vec<String>,
    by_name: HashMap<String, usize>,
    counts: BTreeMap<CountKey, i64>,
    /// The last instants of what is no count: deliveries, and ends of troubles.
    instants: BTreeMap<CountKey, i64>,
    tally: Tally,
}

/// Tenant, endpoint, position of the name, counter.
type CountKey = ((i64, i64), i64, usize, i64);

/// Whose delivery is counted.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub tenant: (i64, i64),
    pub endpoint: RowKey,
    /// The endpoint's project.
    pub project: Option<ProjectId>,
}

impl Counted {
    pub fn of(target: &EndpointTarget, mode: Mode) -> Self {
        let tenant = (target.workspace_key.as_i64(), mode_code(mode));
        Self { tenant, endpoint: target.endpoint_key, project: target.project }
    }
}

impl Rollups {
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty() && self.instants.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    pub fn event(&mut self, event: &NewEvent) {
        self.tally.event(event.tenant.mode);
        let tenant = (event.tenant.workspace.as_i64(), mode_code(event.tenant.mode));
        self.count(tenant, 0, NO_NAME, Counter::Events);
        let of_type = self.position_of(event.event_type.as_str());
        self.count(tenant, 0, of_type, Counter::EventsOfType);
        if event.is_misfit {
            self.count(tenant, 0, of_type, Counter::MisfitsOfType);
        }
        if let Some(project) = &event.project_id {
            let of_project = self.position_of(project.as_str());
            self.count(tenant, 0, of_project, Counter::EventsOfProject);
        }
    }

    pub fn created(&mut self, new: &NewDelivery) {
        let counted = Counted::of(&new.target, new.mode);
        self.tally.created(new.cause);
        self.both(counted, Counter::Created);
        if let Some(reason) = new.skipped {
            self.ended(counted, DeliveryEnd { status: DeliveryStatus::Skipped, reason: Some(reason) });
        }
    }

    pub fn ended(&mut self, counted: Counted, end: DeliveryEnd) {
        self.tally.ended(end);
        self.both(counted, Counter::Ended(end));
    }

    pub fn attempted(&mut self, counted: Counted, delivery: RowKey, attempt: &Attempt, now: Timestamp) {
        let Attempt { outcome, number, started_at, .. } = attempt;
        self.tally.attempted(*outcome, attempt.response_status);
        let name = self.both(counted, Counter::of_attempt(*outcome, *number, delivery.created_at(), *started_at));
        if *outcome == AttemptOutcome::Delivered {
            let key = (counted.tenant, counted.endpoint.as_i64(), name, Counter::LastSuccess.code());
            self.note(key, now);
        }
    }

    /// Something of this workspace and mode no longer needs somebody.
    pub fn trouble_ended(&mut self, tenant: (i64, i64), now: Timestamp) {
        self.note((tenant, 0, NO_NAME, Counter::LastTrouble.code()), now);
    }

    fn note(&mut self, key: CountKey, now: Timestamp) {
        let last = self.instants.entry(key).or_default();
        *last = now.millis().max(*last);
    }

    /// For the endpoint and for its workspace. Returns the position of the endpoint's name.
    fn both(&mut self, counted: Counted, counter: Counter) -> usize {
        let name = match &counted.project {
            Some(project) => self.position_of(project.as_str()),
            None => NO_NAME,
        };
        self.count(counted.tenant, counted.endpoint.as_i64(), name, counter);
        self.count(counted.tenant, 0, NO_NAME, counter);
        name
    }

    fn count(&mut self, tenant: (i64, i64), endpoint: i64, name: usize, counter: Counter) {
        *self.counts.entry((tenant, endpoint, name, counter.code())).or_default() += 1;
    }

    fn position_of(&mut self, name: &str) -> usize {
        if let Some(position) = self.by_name.get(name) {
            return *position;
        }
        if self.names.is_empty() {
            self.names.push(String::new());
        }
        let position = self.names.len();
        self.names.push(name.to_owned());
        self.by_name.insert(name.to_owned(), position);
        position
    }

    /// The rows to add to, in the order of their keys: the counts of the minute that contains `now`, and the last
    /// instants. None are left.
    pub fn take(&mut self, now: Timestamp) -> Vec<RollupRow> {
        let tally = std::mem::take(&mut self.tally);
        let Self { names, counts, instants, .. } = std::mem::replace(self, Self { tally, ..Self::default() });
        let row = |size, start, (tenant, endpoint, name, counter): CountKey, count| {
            let name = names.get(name).cloned().unwrap_or_default();
            RollupRow { size, start, key: RollupKey { tenant, endpoint, name, counter }, count }
        };
        let (minute, start) = (BucketSize::Minute.code(), BucketSize::Minute.start_of(now).millis());
        let counts = counts.into_iter().map(|(key, count)| row(minute, start, key, count));
        let instants = instants.into_iter().map(|(key, at)| row(WHOLE_TIME, 0, key, at));
        let mut rows: Vec<RollupRow> = counts.chain(instants).collect();
        rows.sort_unstable_by(|a, b| (a.size, &a.key).cmp(&(b.size, &b.key)));
        rows
    }
}

impl Rollups {
    /// Adds what was counted to the metrics. Call it once, after the commit.
    pub fn committed(&mut self, metrics: &LogMetrics) {
        std::mem::take(&mut self.tally).add_to(metrics);
    }
}

/// The position of the empty name.
const NO_NAME: usize = 0;

/// A row of the table, without its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollupRow {
    pub size: i64,
    pub start: i64,
    pub key: RollupKey,
    pub count: i64,
}

/// A position among the rows of one size, in the order of the primary key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoldCursor {
    pub start: i64,
    pub key: RollupKey,
    pub shard: i64,
}

impl FoldCursor {
    /// Before all rows that start at the instant or later.
    pub const fn before(start: Timestamp) -> Self {
        let key = RollupKey { tenant: (i64::MIN, 0), endpoint: 0, name: String::new(), counter: 0 };
        Self { start: start.millis(), key, shard: 0 }
    }
}

/// How far minutes have been added up to hours, and hours to days. Each row is added once, in the transaction that
/// moves the position behind it. And how far rows have been removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoldProgress {
    minutes: FoldCursor,
    hours: FoldCursor,
    /// By the codes of [`BucketSize`].
    removed_until: [i64; 3],
}

impl Default for FoldProgress {
    fn default() -> Self {
        let first = FoldCursor::before(Timestamp::from_millis(0));
        Self { minutes: first.clone(), hours: first, removed_until: [0; 3] }
    }
}

/// Rows of one size to add up to the next size.
#[derive(Clone, Debug)]
pub struct FoldStep {
    pub from: BucketSize,
    pub to: BucketSize,
    pub after: FoldCursor,
    /// Rows that start before this instant change no more.
    pub closed: Timestamp,
}

impl FoldProgress {
    /// All hours before this instant are complete.
    pub const fn hours_until(&self) -> Timestamp {
        BucketSize::Hour.start_of(Timestamp::from_millis(self.minutes.start))
    }

    /// All days before this instant are complete.
    pub const fn days_until(&self) -> Timestamp {
        BucketSize::Day.start_of(Timestamp::from_millis(self.hours.start))
    }

    /// The progress to go on from. A position far ahead comes from a clock that was wrong: it goes back, so that what
    /// is counted from now on is added up.
    #[must_use]
    pub fn at(mut self, now: Timestamp) -> Self {
        let latest = now.plus(limits::CLOCK_AHEAD_MAX).millis();
        for (cursor, size) in [(&mut self.minutes, BucketSize::Hour), (&mut self.hours, BucketSize::Day)] {
            if cursor.start > latest {
                *cursor = FoldCursor::before(size.start_of(now));
            }
        }
        self
    }

    /// The next step, if there may be something to add up.
    pub fn step(&self, now: Timestamp) -> Option<FoldStep> {
        let hours_closed = BucketSize::Hour.start_of(now.minus(limits::ROLLUP_CLOSING_TIME));
        if self.minutes.start < hours_closed.millis() {
            let (from, to) = (BucketSize::Minute, BucketSize::Hour);
            return Some(FoldStep { from, to, after: self.minutes.clone(), closed: hours_closed });
        }
        let days_closed = BucketSize::Day.start_of(self.hours_until());
        let (from, to) = (BucketSize::Hour, BucketSize::Day);
        (self.hours.start < days_closed.millis()).then(|| FoldStep {
            from,
            to,
            after: self.hours.clone(),
            closed: days_closed,
        })
    }

    /// The progress after a step that ended with the row at `last`. `None` when it found no more rows.
    #[must_use]
    pub fn after_step(mut self, step: &FoldStep, last: Option<FoldCursor>) -> Self {
        let reached = last.unwrap_or_else(|| FoldCursor::before(step.closed));
        match step.from {
            BucketSize::Minute => self.minutes = reached,
            BucketSize::Hour | BucketSize::Day => self.hours = reached,
        }
        self
    }

    /// Rows of this size that start before the instant have been removed.
    pub fn removed_until(&self, size: BucketSize) -> Timestamp {
        Timestamp::from_millis(self.removed_until[size as usize])
    }

    /// Rows of this size that start before the instant may be removed: they are old enough and added up.
    pub fn removable(&self, size: BucketSize, log: Duration, now: Timestamp) -> Timestamp {
        let aged = size.start_at_or_after(now.minus(size.kept(log)));
        match size {
            BucketSize::Minute => aged.min(self.hours_until()),
            BucketSize::Hour => aged.min(self.days_until()),
            BucketSize::Day => aged,
        }
    }

    /// The progress after rows of this size were removed.
    #[must_use]
    pub fn after_removal(mut self, size: BucketSize, before: Timestamp) -> Self {
        self.removed_until[size as usize] = before.millis();
        self
    }

    pub fn to_text(&self) -> String {
        let [minutes, hours, days] = self.removed_until;
        format!("{}\n{}\n{minutes} {hours} {days}", cursor_text(&self.minutes), cursor_text(&self.hours))
    }

    /// `None` when the text is not a progress.
    pub fn from_text(text: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(text).ok()?.split('\n');
        let (minutes, hours) = (cursor_from(lines.next()?)?, cursor_from(lines.next()?)?);
        let removed: Vec<i64> = lines.next()?.split(' ').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        Some(Self { minutes, hours, removed_until: removed.try_into().ok()? })
    }
}

fn cursor_text(cursor: &FoldCursor) -> String {
    let FoldCursor { start, key: RollupKey { tenant: (workspace, mode), endpoint, name, counter }, shard } = cursor;
    format!("{start} {workspace} {mode} {endpoint} {counter} {shard} {name}")
}

fn cursor_from(text: &str) -> Option<FoldCursor> {
    let mut parts = text.splitn(7, ' ');
    let mut number = || parts.next()?.parse::<i64>().ok();
    let (start, workspace, mode, endpoint, counter, shard) =
        (number()?, number()?, number()?, number()?, number()?, number()?);
    let key = RollupKey { tenant: (workspace, mode), endpoint, name: parts.next()?.to_owned(), counter };
    Some(FoldCursor { start, key, shard })
}

/// The sums of the rows of a step, as rows of the larger size, in the order of their keys.
pub fn folded(step: &FoldStep, rows: impl IntoIterator<Item = RollupRow>) -> Vec<RollupRow> {
    let mut sums = BTreeMap::<(i64, RollupKey), i64>::new();
    for row in rows {
        let start = step.to.start_of(Timestamp::from_millis(row.start)).millis();
        *sums.entry((start, row.key)).or_default() += row.count;
    }
    sums.into_iter().map(|((start, key), count)| RollupRow { size: step.to.code(), start, key, count }).collect()
}

/// What a tenant may see of a scope. `None` when it may see nothing of it: another project than its own.
pub fn narrowed(tenant: Tenant, scope: StatsScope) -> Option<StatsScope> {
    let Some(own) = tenant.project else { return Some(scope) };
    match scope {
        StatsScope::Workspace => Some(StatsScope::Project(own)),
        StatsScope::Endpoint(id) => Some(StatsScope::EndpointOfProject(id, own)),
        StatsScope::Project(asked) | StatsScope::EndpointOfProject(_, asked) => (asked == own).then_some(scope),
    }
}

/// The names of an endpoint's rows that count for a project, or for whatever project: the first and the last.
pub fn endpoint_names(project: Option<&ProjectId>) -> (&str, &str) {
    // No project has this letter.
    project.map_or(("", "~"), |project| (project.as_str(), project.as_str()))
}

/// Rows that answer a part of a question: those of one size whose starts are in a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    pub size: BucketSize,
    pub since: Timestamp,
    pub until: Timestamp,
}

impl Source {
    /// The starts of its rows.
    pub fn starts(self) -> impl Iterator<Item = i64> {
        let step = usize::try_from(self.size.millis()).unwrap_or(usize::MAX);
        (self.since.millis()..self.until.millis()).step_by(step)
    }
}

/// The rows to read for a period: the largest buckets that are complete, then smaller ones.
pub fn sources(period: StatsPeriod, progress: &FoldProgress, now: Timestamp) -> Vec<Source> {
    let ends = match period.bucket() {
        BucketSize::Minute => vec![(BucketSize::Minute, period.until())],
        BucketSize::Hour => vec![(BucketSize::Hour, progress.hours_until()), (BucketSize::Minute, period.until())],
        BucketSize::Day => vec![
            (BucketSize::Day, progress.days_until()),
            (BucketSize::Hour, progress.hours_until()),
            (BucketSize::Minute, period.until()),
        ],
    };
    let mut since = period.since();
    let mut sources = Vec::new();
    for (size, end) in ends {
        // Nothing is counted in the future. A clock of another node may be a little ahead.
        let latest = now.plus(limits::ROLLUP_CLOSING_TIME);
        let until = end.min(period.until()).min(latest);
        let first = since.max(progress.removed_until(size));
        if first < until {
            sources.push(Source { size, since: first, until });
        }
        since = since.max(until.min(end));
    }
    sources
}

/// The instant from which the buckets of a size are complete. The store counts since `counted_since`, if that was not
/// from its first row.
pub fn complete_since(bucket: BucketSize, counted_since: Option<Timestamp>, progress: &FoldProgress) -> Timestamp {
    let kept = progress.removed_until(bucket);
    // The bucket in which the store began to count lacks its beginning.
    counted_since.map_or(kept, |since| kept.max(bucket.start_at_or_after(since)))
}

/// The instant under [`COUNTED_SINCE`]. `None` when the text is none.
pub fn counted_since_from(text: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Timestamp::from_millis)
}

/// Assembles a series from the rows that were read: start, counter and count of each. `scope` is `None` when the tenant
/// may see nothing.
pub fn series(
    period: StatsPeriod,
    scope: Option<&StatsScope>,
    complete_since: Timestamp,
    rows: impl IntoIterator<Item = (i64, Counter, i64)>,
) -> StatsSeries {
    let has_events = matches!(scope, None | Some(StatsScope::Workspace | StatsScope::Project(_)));
    let empty = Counts { events: has_events.then_some(0), ..Counts::default() };
    let mut buckets: Vec<StatsBucket> =
        period.starts().map(|start| StatsBucket { start, counts: empty.clone() }).collect();
    for (start, counter, count) in rows {
        if let Some(index) = period.index_of(Timestamp::from_millis(start)) {
            buckets[index].counts.add(counter, count.max(0).unsigned_abs());
        }
    }
    StatsSeries { period, complete_since, buckets }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn key(name: &str) -> RollupKey {
        RollupKey { tenant: (7, 1), endpoint: 3, name: name.to_owned(), counter: 12_345 }
    }

    #[test]
    fn progress_comes_back_from_its_text() {
        let minutes = FoldCursor { start: 60_000, key: key("a project"), shard: 5 };
        let later = FoldProgress { minutes, removed_until: [60_000, 0, 5], ..FoldProgress::default() };
        for progress in [FoldProgress::default(), later] {
            assert_eq!(FoldProgress::from_text(progress.to_text().as_bytes()), Some(progress));
        }
        let first = FoldProgress::default().to_text();
        for bad in [&b""[..], b"1 2 3\n4\n0 0 0", b"\xff", &first.as_bytes()[..first.len() - 2]] {
            assert_eq!(FoldProgress::from_text(bad), None);
        }
    }

    #[test]
    fn an_hour_is_added_up_once_it_is_closed() {
        let closing = i64::try_from(limits::ROLLUP_CLOSING_TIME.as_millis()).unwrap();
        let now = at(100 * DAY + 2 * HOUR + closing - 1);
        let mut progress = FoldProgress::default();
        let step = progress.step(now).unwrap();
        assert_eq!((step.from, step.closed), (BucketSize::Minute, at(100 * DAY + HOUR)));
        progress = progress.after_step(&step, Some(FoldCursor { start: 5 * HOUR + 60_000, key: key(""), shard: 0 }));
        assert_eq!(progress.hours_until(), at(5 * HOUR), "this hour is not complete");
        let step = progress.step(now).unwrap();
        progress = progress.after_step(&step, None);
        assert_eq!(progress.hours_until(), at(100 * DAY + HOUR));
        let step = progress.step(now).unwrap();
        assert_eq!((step.from, step.closed), (BucketSize::Hour, at(100 * DAY)));
        progress = progress.after_step(&step, None);
        assert_eq!(progress.days_until(), at(100 * DAY));
        assert!(progress.step(now).is_none());
        assert!(progress.step(at(now.millis() + 1)).is_some());
    }

    #[test]
    fn a_position_far_ahead_goes_back_with_the_clock() {
        let ahead = FoldCursor::before(at(1_000 * DAY));
        let progress = FoldProgress { minutes: ahead.clone(), hours: ahead, ..FoldProgress::default() };
        assert_eq!(progress.clone().at(at(999 * DAY)), progress);
        let back = progress.at(at(500 * DAY + HOUR + 1));
        assert_eq!((back.hours_until(), back.days_until()), (at(500 * DAY + HOUR), at(500 * DAY)));
    }

    #[test]
    fn a_question_reads_each_instant_once_in_the_largest_size() {
        let now = at(100 * DAY + 2 * HOUR + 10 * 60_000);
        let done = FoldProgress {
            minutes: FoldCursor::before(at(100 * DAY + HOUR)),
            hours: FoldCursor::before(at(100 * DAY)),
            removed_until: [0, 0, 80 * DAY],
        };
        let days = StatsPeriod::ending_at(now, BucketSize::Day);
        let found: Vec<_> = sources(days, &done, now).iter().map(|s| (s.size, s.since, s.until)).collect();
        let latest = now.plus(limits::ROLLUP_CLOSING_TIME);
        assert_eq!(
            found,
            [
                (BucketSize::Day, at(80 * DAY), at(100 * DAY)),
                (BucketSize::Hour, at(100 * DAY), at(100 * DAY + HOUR)),
                (BucketSize::Minute, at(100 * DAY + HOUR), latest),
            ]
        );
        let none = FoldProgress::default();
        let found: Vec<_> = sources(days, &none, now).iter().map(|s| (s.size, s.since, s.until)).collect();
        assert_eq!(found, [(BucketSize::Minute, at(71 * DAY), latest)], "nothing is added up yet");
    }

    #[test]
    fn what_is_complete_begins_with_a_whole_bucket() {
        let progress = FoldProgress::default().after_removal(BucketSize::Day, at(50 * DAY));
        assert_eq!(complete_since(BucketSize::Hour, None, &progress), at(0));
        assert_eq!(complete_since(BucketSize::Day, None, &progress), at(50 * DAY));
        assert_eq!(complete_since(BucketSize::Day, Some(at(90 * DAY + 5)), &progress), at(91 * DAY));
        assert_eq!(counted_since_from(b"86400000"), Some(at(DAY)));
    }

    #[test]
    fn only_what_is_added_up_is_removed() {
        let (now, log) = (at(100 * DAY + 5), Duration::from_secs(30 * 24 * 3600));
        let progress = FoldProgress {
            minutes: FoldCursor::before(at(97 * DAY + HOUR)),
            hours: FoldCursor::before(at(97 * DAY)),
            ..FoldProgress::default()
        };
        let removable = BucketSize::ALL.map(|size| progress.removable(size, log, now));
        assert_eq!(removable, [at(97 * DAY + HOUR), at(70 * DAY + HOUR), at(71 * DAY)]);
    }
}
