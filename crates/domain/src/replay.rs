//! A replay: a job that repeats deliveries, oldest first: those of an endpoint from a range of time, or all that pass a
//! filter.

use super::delivery::{DeliveryCause, DeliveryFilter, DeliveryStatus};
use super::id::{EndpointId, ReplayId};
use super::mode::Mode;
use super::time::Timestamp;

/// The state of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStatus {
    Running,
    Completed,
    /// Stopped by a request, or because its endpoint or its workspace was deleted.
    Stopped,
}

impl ReplayStatus {
    pub const ALL: [Self; 3] = [Self::Running, Self::Completed, Self::Stopped];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
        }
    }

    /// The number that the stores keep.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// The deliveries that a replay repeats:
///
/// - an event created them in `[since, until)`,
/// - they ended in one of `statuses`,
/// - no later retry or replay has delivered them or has them queued.
///
/// A replay repeats deliveries of its own mode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRange {
    pub since: Timestamp,
    pub until: Timestamp,
    pub statuses: Vec<DeliveryStatus>,
}

/// What a replay repeats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplaySelection {
    Endpoint {
        id: EndpointId,
        range: ReplayRange,
    },
    /// The deliveries that pass a filter made by [`replayable`], to any endpoint. Of several deliveries of an event to
    /// an endpoint only the last is repeated, and none that a later one has repeated. Tests are not repeated.
    Filter(Box<DeliveryFilter>),
}

impl ReplaySelection {
    /// The endpoint whose replay it is.
    pub const fn endpoint_id(&self) -> Option<EndpointId> {
        match self {
            Self::Endpoint { id, .. } => Some(*id),
            Self::Filter(_) => None,
        }
    }

    /// The range of a replay of an endpoint.
    pub const fn range(&self) -> Option<&ReplayRange> {
        match self {
            Self::Endpoint { range, .. } => Some(range),
            Self::Filter(_) => None,
        }
    }

    /// The filter that finds the same deliveries.
    pub fn filter(&self) -> DeliveryFilter {
        match self {
            Self::Filter(filter) => DeliveryFilter::clone(filter),
            Self::Endpoint { id, range } => DeliveryFilter {
                endpoint_ids: vec![*id],
                statuses: range.statuses.clone(),
                causes: vec![DeliveryCause::Event],
                since: Some(range.since),
                until: Some(range.until),
                ..DeliveryFilter::default()
            },
        }
    }
}

/// A replay as the API shows it.
#[derive(Clone, Debug)]
pub struct Replay {
    pub id: ReplayId,
    pub selection: ReplaySelection,
    pub mode: Mode,
    pub status: ReplayStatus,
    /// Deliveries that it selects, counted before the start.
    pub total: u64,
    /// There were too many to count: `total` has those created before this instant.
    pub counted_to: Option<Timestamp>,
    pub replayed: u64,
    /// Deliveries whose payload retention had removed, or whose endpoint was deleted.
    pub unavailable: u64,
    pub completed_at: Option<Timestamp>,
}

/// The size of a replay, as a dry run counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCount {
    pub total: u64,
    pub unavailable: u64,
    /// As [`Replay::counted_to`].
    pub counted_to: Option<Timestamp>,
}

/// Why a filter selects nothing that could be repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NothingToReplay {
    #[error("must have at least one parameter")]
    NoParameter,
    #[error("nothing that passes is failed, skipped, cancelled or delivered: only these can be sent again")]
    Status,
    #[error("must name at least one of event, retry, replay: tests are not sent again")]
    Cause,
    #[error("must be earlier than until, which is now at the latest")]
    Since,
}

impl NothingToReplay {
    /// The parameter of the filter that is at fault. `None`: the filter as a whole.
    pub const fn parameter(self) -> Option<&'static str> {
        match self {
            Self::NoParameter => None,
            Self::Status => Some("status"),
            Self::Cause => Some("cause"),
            Self::Since => Some("since"),
        }
    }
}

/// A caller's filter, narrowed to deliveries that exist now and can be sent again.
///
/// # Errors
/// When nothing passes the narrowed filter, or when the filter passes everything: a body without its filter must not
/// repeat the whole log.
pub fn replayable(filter: DeliveryFilter, now: Timestamp) -> Result<DeliveryFilter, NothingToReplay> {
    if filter == DeliveryFilter::default() {
        return Err(NothingToReplay::NoParameter);
    }
    let possible = filter.possible_statuses();
    let statuses: Vec<DeliveryStatus> = REPLAYABLE.into_iter().filter(|status| possible.contains(status)).collect();
    if statuses.is_empty() {
        return Err(NothingToReplay::Status);
    }
    if filter.causes == [DeliveryCause::Test] {
        return Err(NothingToReplay::Cause);
    }
    let until = filter.until.map_or(now, |until| until.min(now));
    if filter.since.is_some_and(|since| since >= until) {
        return Err(NothingToReplay::Since);
    }
    Ok(DeliveryFilter { statuses, until: Some(until), ..filter })
}

/// The statuses that can be replayed. Pending deliveries need no replay, and simulated ones were never sent.
pub const REPLAYABLE: [DeliveryStatus; 4] =
    [DeliveryStatus::Failed, DeliveryStatus::Skipped, DeliveryStatus::Cancelled, DeliveryStatus::Delivered];

/// The statuses that a replay repeats by default: deliveries that should have arrived and did not.
pub const REPLAYED_BY_DEFAULT: [DeliveryStatus; 2] = [DeliveryStatus::Failed, DeliveryStatus::Skipped];

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn at(millis: i64) -> Option<Timestamp> {
        Some(Timestamp::from_millis(millis))
    }

    fn narrowed(filter: DeliveryFilter) -> Result<DeliveryFilter, NothingToReplay> {
        replayable(filter, NOW)
    }

    #[test]
    fn a_filter_is_narrowed_to_what_has_ended_by_now() {
        let of_status =
            |statuses: &[DeliveryStatus]| DeliveryFilter { statuses: statuses.to_vec(), ..Default::default() };
        let found = narrowed(of_status(&[DeliveryStatus::Failed, DeliveryStatus::Pending])).unwrap();
        assert_eq!((found.statuses, found.until), (vec![DeliveryStatus::Failed], Some(NOW)));
        let found = narrowed(DeliveryFilter { since: at(5), until: at(2_000), ..Default::default() }).unwrap();
        assert_eq!((found.statuses, found.since, found.until), (REPLAYABLE.to_vec(), at(5), Some(NOW)));
        let found = narrowed(DeliveryFilter { until: at(7), ..Default::default() }).unwrap();
        assert_eq!(found.until, at(7));
    }

    #[test]
    fn a_filter_of_nothing_or_of_everything_is_refused() {
        let fault = |filter| narrowed(filter).unwrap_err();
        assert_eq!(fault(DeliveryFilter::default()), NothingToReplay::NoParameter);
        let statuses = vec![DeliveryStatus::Pending, DeliveryStatus::Simulated];
        assert_eq!(fault(DeliveryFilter { statuses, ..Default::default() }), NothingToReplay::Status);
        let causes = vec![DeliveryCause::Test];
        assert_eq!(fault(DeliveryFilter { causes, ..Default::default() }), NothingToReplay::Cause);
        for (since, until) in [(at(1_000), None), (at(5), at(5))] {
            assert_eq!(fault(DeliveryFilter { since, until, ..Default::default() }), NothingToReplay::Since);
        }
    }
}
