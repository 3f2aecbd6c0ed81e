//! A delivery: one event on its way to one endpoint.
//!
//! ```text
//!              accept ─┬─► pending ─┬─► delivered
//!                      │    ▲   │   ├─► failed (exhausted | expired)
//!                      │    └───┘   ├─► cancelled
//!                      │   attempts └─► simulated
//!                      └─► skipped
//! ```

use super::access::Mode;
use super::attempt::AttemptOutcome;
use super::event_type::EventTypeName;
use super::id::{DeliveryId, EndpointId, EventId};
use super::retry_schedule::RetrySchedule;
use super::time::Timestamp;

pub use super::delivery_filter::{DeliveryFilter, ResponseStatuses};

/// The state of a delivery. All but `Pending` are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeliveryStatus {
    Pending,
    Delivered,
    Failed,
    Skipped,
    Cancelled,
    Simulated,
}

impl DeliveryStatus {
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Delivered, Self::Failed, Self::Skipped, Self::Cancelled, Self::Simulated];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::Simulated => "simulated",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    /// The number that the stores keep.
    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.code() == code)
    }
}

/// Why a delivery ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// The schedule has no step left.
    Exhausted,
    /// It waited 14 days behind an inactive or paused endpoint.
    Expired,
    /// The owner had switched the endpoint off when the event was accepted.
    Inactive,
    /// The endpoint was disabled as `gone`, `failing` or `ssrf_blocked` when the event was accepted.
    DisabledGone,
    DisabledFailing,
    DisabledSsrfBlocked,
    /// The endpoint was deleted.
    EndpointDeleted,
    /// The event was removed from the store before the delivery ended.
    EventGone,
    /// The content of its event was erased.
    Erased,
}

impl EndReason {
    pub const ALL: [Self; 9] = [
        Self::Exhausted,
        Self::Expired,
        Self::Inactive,
        Self::DisabledGone,
        Self::DisabledFailing,
        Self::DisabledSsrfBlocked,
        Self::EndpointDeleted,
        Self::EventGone,
        Self::Erased,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exhausted => "exhausted",
            Self::Expired => "expired",
            Self::Inactive => "inactive",
            Self::DisabledGone => "gone",
            Self::DisabledFailing => "failing",
            Self::DisabledSsrfBlocked => "ssrf_blocked",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::EventGone => "event_gone",
            Self::Erased => "erased",
        }
    }

    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

/// The cause of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryCause {
    Event,
    /// Requested: a retry of one delivery, part of a replay, or a test.
    Retry,
    Replay,
    Test,
}

impl DeliveryCause {
    pub const ALL: [Self; 4] = [Self::Event, Self::Retry, Self::Replay, Self::Test];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Event => "event",
            Self::Retry => "retry",
            Self::Replay => "replay",
            Self::Test => "test",
        }
    }

    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|cause| cause.code() == code)
    }

    /// Whether the request is marked as a repetition, because the receiver may have seen the event before.
    pub const fn is_repeat(self) -> bool {
        matches!(self, Self::Retry | Self::Replay)
    }
}

/// A delivery as the API shows it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub id: DeliveryId,
    pub event_id: EventId,
    pub event_type: EventTypeName,
    pub endpoint_id: EndpointId,
    pub project_id: Option<String>,
    /// Of the event.
    pub external_id: Option<String>,
    pub mode: Mode,
    pub status: DeliveryStatus,
    pub reason: Option<EndReason>,
    pub cause: DeliveryCause,
    pub retry_of: Option<DeliveryId>,
    pub attempt_count: u32,
    /// `None` while nothing is scheduled: it has ended, an attempt is under way, or something holds it up.
    pub next_attempt_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    /// It failed at the head of its endpoint's strict order. The order continues when it is skipped or retried.
    pub is_blocking: bool,
    /// `None` when it has ended.
    pub queued: Option<Queued>,
    /// How the last recorded attempt ended. `None` before the first.
    pub last_outcome: Option<AttemptOutcome>,
    /// The status that the receiver answered to the last recorded attempt, if it answered.
    pub last_response_status: Option<u16>,
    /// The retry schedule of its endpoint as it is now. `None`: the server's.
    pub own_schedule: Option<RetrySchedule>,
}

impl Delivery {
    /// The attempts that it may have: the first, and one after each wait of its schedule. `server` is the schedule of
    /// endpoints without one of their own. An attempt that failed by nobody's fault uses no wait, so there may be more.
    pub fn attempts_max(&self, server: &RetrySchedule) -> u32 {
        match self.cause {
            DeliveryCause::Test => 1,
            _ => self.own_schedule.as_ref().unwrap_or(server).steps() + 1,
        }
    }
}

/// How a pending delivery stands in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// When it falls due, apart from what holds its endpoint. `None` behind the head of a strict order.
    pub due_at: Option<Timestamp>,
    /// An attempt is under way.
    pub is_claimed: bool,
    /// Waits of the schedule used so far.
    pub step: u32,
    /// Its endpoint is inactive. A test does not wait for that.
    pub is_held: bool,
    pub held_since: Option<Timestamp>,
    /// Since when its endpoint gets only probes.
    pub paused_since: Option<Timestamp>,
    /// The endpoint gets no attempt before this instant: its next probe, or the end of a break.
    pub not_before: Option<Timestamp>,
    /// The first delivery of the strict order that it belongs to, or the one at which that order has stopped.
    pub order_head: Option<DeliveryId>,
}

impl Queued {
    /// When the next attempt is scheduled. `None` while something holds it up.
    pub fn next_attempt_at(&self) -> Option<Timestamp> {
        if self.is_claimed || self.is_held || self.paused_since.is_some() {
            return None;
        }
        self.due_at.map(|due| self.not_before.map_or(due, |until| due.max(until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_parses_back() {
        for status in DeliveryStatus::ALL {
            assert_eq!(DeliveryStatus::from_code(status.code()), Some(status));
            assert_eq!(DeliveryStatus::parse(status.as_str()), Some(status));
        }
        for reason in EndReason::ALL {
            assert_eq!(EndReason::from_code(reason.code()), Some(reason));
        }
        for cause in DeliveryCause::ALL {
            assert_eq!(DeliveryCause::from_code(cause.code()), Some(cause));
        }
    }
}
