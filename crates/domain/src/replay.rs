//! A replay: a job that sends again, oldest first, what an endpoint did not get in a stretch of time.

use super::delivery::DeliveryStatus;
use super::id::{EndpointId, ReplayId};
use super::time::Timestamp;

/// Where a replay stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayStatus {
    Running,
    Completed,
    /// By hand, or because its endpoint was deleted.
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

    /// The number by which the stores know it.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// Which deliveries a replay sends again: those that an event set off in `[since, until)`, that ended in one of `statuses`,
/// and that no later retry or replay delivered or has queued. What a test key published is left to replays with a test key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRange {
    pub since: Timestamp,
    pub until: Timestamp,
    pub statuses: Vec<DeliveryStatus>,
}

/// A replay as it is shown.
#[derive(Clone, Debug)]
pub struct Replay {
    pub id: ReplayId,
    pub endpoint_id: EndpointId,
    pub range: ReplayRange,
    pub status: ReplayStatus,
    /// Counted before it started.
    pub total: u64,
    pub replayed: u64,
    /// Payloads that retention had taken.
    pub unavailable: u64,
    pub completed_at: Option<Timestamp>,
}

/// What a replay would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayCount {
    pub total: u64,
    pub unavailable: u64,
}

/// The statuses that can be replayed; what is pending needs no replay, what was simulated was never meant to arrive.
pub const REPLAYABLE: [DeliveryStatus; 4] =
    [DeliveryStatus::Failed, DeliveryStatus::Skipped, DeliveryStatus::Cancelled, DeliveryStatus::Delivered];

/// What a replay sends when it is not told: what was meant to arrive and did not.
pub const REPLAYED_BY_DEFAULT: [DeliveryStatus; 2] = [DeliveryStatus::Failed, DeliveryStatus::Skipped];
