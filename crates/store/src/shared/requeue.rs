//! Deliveries by hand: what is queued again, and why it may not be.

use crate::{LaneKind, RequeueError};
use postrider_domain::access::Mode;
use postrider_domain::delivery::DeliveryCause;
use postrider_domain::event::NewEvent;
use postrider_domain::id::RowKey;

/// Why nothing was queued.
pub enum RequeueRefusal {
    NotFound,
    EndpointDeleted,
    EndpointOff,
}

impl From<RequeueRefusal> for RequeueError {
    fn from(refusal: RequeueRefusal) -> Self {
        match refusal {
            RequeueRefusal::NotFound => Self::NotFound,
            RequeueRefusal::EndpointDeleted => Self::EndpointDeleted,
            RequeueRefusal::EndpointOff => Self::EndpointOff,
        }
    }
}

/// A delivery of which another is to be made.
pub struct First {
    pub key: RowKey,
    pub endpoint_key: RowKey,
    pub event_key: RowKey,
    pub mode: Mode,
    pub cause: DeliveryCause,
}

/// An event that is there already, for an endpoint that is there already.
pub struct Again {
    pub workspace_key: RowKey,
    pub endpoint_key: RowKey,
    pub event_key: RowKey,
    pub mode: Mode,
    pub cause: DeliveryCause,
    pub retry_of: Option<RowKey>,
}

impl Again {
    /// A retry, asked for with a key of this mode.
    pub fn retry(workspace_key: RowKey, first: &First, mode: Mode) -> Self {
        Self {
            workspace_key,
            endpoint_key: first.endpoint_key,
            event_key: first.event_key,
            mode: if first.mode == Mode::Test { Mode::Test } else { mode },
            // An example must not arrive as if it had happened: a test stays marked as one.
            cause: if first.cause == DeliveryCause::Test { DeliveryCause::Test } else { DeliveryCause::Retry },
            retry_of: Some(first.key),
        }
    }

    /// An example for one endpoint.
    pub const fn test(event: &NewEvent, endpoint_key: RowKey) -> Self {
        Self {
            workspace_key: event.workspace_key,
            endpoint_key,
            event_key: event.id.key(),
            mode: event.mode,
            cause: DeliveryCause::Test,
            retry_of: None,
        }
    }

    pub fn lane_kind(&self) -> LaneKind {
        if self.cause == DeliveryCause::Test { LaneKind::Tests } else { LaneKind::Events }
    }

    /// Whether an endpoint in this state gets it: a test goes out even if it is off.
    pub fn is_sent_to(&self, is_active: bool) -> bool {
        is_active || self.cause == DeliveryCause::Test
    }

    /// The delivery from whose place in the order it goes on, if the order has stopped there. One that sends nothing does not.
    pub fn takes_place_of(&self) -> Option<RowKey> {
        self.retry_of.filter(|_| self.cause == DeliveryCause::Retry && self.mode == Mode::Live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(mode: Mode, cause: DeliveryCause) -> First {
        let key = RowKey::from_i64;
        First { key: key(1), endpoint_key: key(2), event_key: key(3), mode, cause }
    }

    #[test]
    fn a_retry_sends_nothing_if_the_key_or_the_first_did_not() {
        let mode = |first_mode, key_mode| {
            Again::retry(RowKey::from_i64(4), &first(first_mode, DeliveryCause::Event), key_mode).mode
        };
        assert_eq!(mode(Mode::Live, Mode::Live), Mode::Live);
        assert_eq!(mode(Mode::Live, Mode::Test), Mode::Test);
        assert_eq!(mode(Mode::Test, Mode::Live), Mode::Test);
    }

    #[test]
    fn a_test_sent_again_stays_a_test_and_goes_out_though_the_endpoint_is_off() {
        let again = |cause| Again::retry(RowKey::from_i64(4), &first(Mode::Live, cause), Mode::Live);
        let (test, retry) = (again(DeliveryCause::Test), again(DeliveryCause::Replay));
        assert_eq!(
            (test.cause, test.lane_kind(), test.is_sent_to(false)),
            (DeliveryCause::Test, LaneKind::Tests, true)
        );
        assert_eq!(
            (retry.cause, retry.lane_kind(), retry.is_sent_to(false)),
            (DeliveryCause::Retry, LaneKind::Events, false)
        );
        assert_eq!((test.takes_place_of(), retry.takes_place_of()), (None, Some(RowKey::from_i64(1))));
    }
}
