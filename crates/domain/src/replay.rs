//! A replay: a job that repeats the deliveries of an endpoint from a range of time, oldest first.

use super::delivery::DeliveryStatus;
use super::id::{EndpointId, ReplayId};
use super::mode::Mode;
use super::time::Timestamp;

/// The state of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStatus {
    Running,
    Completed,
    /// Stopped by a request, or because its endpoint was deleted.
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

/// A replay as the API shows it.
#[derive(Clone, Debug)]
pub struct Replay {
    pub id: ReplayId,
    pub endpoint_id: EndpointId,
    pub mode: Mode,
    pub range: ReplayRange,
    pub status: ReplayStatus,
    /// Deliveries in the range, counted before the start.
    pub total: u64,
    pub replayed: u64,
    /// Deliveries whose payload retention had removed.
    pub unavailable: u64,
    pub completed_at: Option<Timestamp>,
}

/// The size of a replay, as a dry run counts it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCount {
    pub total: u64,
    pub unavailable: u64,
}

/// The statuses that can be replayed. Pending deliveries need no replay, and simulated ones were never sent.
pub const REPLAYABLE: [DeliveryStatus; 4] =
    [DeliveryStatus::Failed, DeliveryStatus::Skipped, DeliveryStatus::Cancelled, DeliveryStatus::Delivered];

/// The statuses that a replay repeats by default: deliveries that should have arrived and did not.
pub const REPLAYED_BY_DEFAULT: [DeliveryStatus; 2] = [DeliveryStatus::Failed, DeliveryStatus::Skipped];
