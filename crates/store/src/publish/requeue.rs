//! Deliveries queued by hand or by a replay: what is queued again, and whether it may be.

use postrider_domain::access::Mode;
use postrider_domain::delivery::{Delivery, DeliveryCause};
use postrider_domain::event::NewEvent;
use postrider_domain::id::{DeliveryId, RowKey};
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;

use crate::publish::matching::Subscriber;
use crate::{LaneKind, RequeueError};

/// The result of one of several retries.
#[derive(Clone, Debug)]
pub struct RetriedDelivery {
    /// The delivery to retry.
    pub id: DeliveryId,
    /// The new one.
    pub result: Result<Delivery, RetryRefusal>,
}

/// Why one of several retries was not queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryRefusal {
    NotFound,
    EndpointDeleted,
    EndpointOff,
    PayloadGone,
}

impl RetriedDelivery {
    /// # Errors
    /// When the refusal concerns all of them.
    pub fn new(id: DeliveryId, retried: Result<Delivery, RequeueError>) -> Result<Self, RequeueError> {
        let result = match retried {
            Ok(delivery) => Ok(delivery),
            Err(RequeueError::NotFound) => Err(RetryRefusal::NotFound),
            Err(RequeueError::EndpointDeleted) => Err(RetryRefusal::EndpointDeleted),
            Err(RequeueError::EndpointOff) => Err(RetryRefusal::EndpointOff),
            Err(RequeueError::PayloadGone) => Err(RetryRefusal::PayloadGone),
            Err(error @ (RequeueError::WorkspaceFull { .. } | RequeueError::Store(_))) => return Err(error),
        };
        Ok(Self { id, result })
    }
}

/// The delivery that a retry repeats.
pub struct Original {
    pub key: RowKey,
    pub endpoint_key: RowKey,
    pub event_key: RowKey,
    pub cause: DeliveryCause,
    /// Of its event.
    pub payload: PayloadState,
}

/// A stored event to queue for an existing endpoint.
pub struct Requeue {
    /// Its mode is that of the new delivery.
    pub tenant: Tenant,
    pub endpoint_key: RowKey,
    pub event_key: RowKey,
    pub cause: DeliveryCause,
    pub retry_of: Option<RowKey>,
    /// It is queued for an inactive endpoint too, and waits until the endpoint is active.
    pub waits_while_off: bool,
}

impl Requeue {
    /// A retry asked for by this tenant, whose delivery the first is.
    pub fn retry(tenant: Tenant, first: &Original) -> Self {
        Self {
            tenant,
            endpoint_key: first.endpoint_key,
            event_key: first.event_key,
            // An example must not arrive as if it had happened: a test stays marked as one.
            cause: if first.cause == DeliveryCause::Test { DeliveryCause::Test } else { DeliveryCause::Retry },
            retry_of: Some(first.key),
            waits_while_off: false,
        }
    }

    /// An example for one endpoint.
    pub const fn test(event: &NewEvent, endpoint_key: RowKey) -> Self {
        Self {
            tenant: event.tenant,
            endpoint_key,
            event_key: event.id.key(),
            cause: DeliveryCause::Test,
            retry_of: None,
            waits_while_off: false,
        }
    }

    pub fn lane_kind(&self) -> LaneKind {
        if self.cause == DeliveryCause::Test { LaneKind::Tests } else { LaneKind::Events }
    }

    /// The endpoint to queue for, if it exists and accepts this. A test is sent to an inactive endpoint too.
    ///
    /// An endpoint of the other mode counts as deleted. Stores from before endpoints had a mode hold deliveries of test
    /// mode to live endpoints.
    ///
    /// # Errors
    /// When the endpoint is deleted or inactive.
    pub fn receiver<'s>(&self, subscriber: Option<&'s Subscriber>) -> Result<&'s Subscriber, RequeueError> {
        let of_this_mode = subscriber.filter(|subscriber| subscriber.endpoint.mode == self.tenant.mode);
        let subscriber = of_this_mode.ok_or(RequeueError::EndpointDeleted)?;
        if self.is_queued_for(subscriber.endpoint.is_active) { Ok(subscriber) } else { Err(RequeueError::EndpointOff) }
    }

    fn is_queued_for(&self, is_active: bool) -> bool {
        is_active || self.waits_while_off || self.cause == DeliveryCause::Test
    }

    /// The delivery whose position in a stopped order this one takes. A delivery that sends nothing takes none.
    pub fn takes_place_of(&self) -> Option<RowKey> {
        self.retry_of.filter(|_| self.cause == DeliveryCause::Retry && self.tenant.mode == Mode::Live)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(mode: Mode, cause: DeliveryCause) -> Requeue {
        let key = RowKey::from_i64;
        let first =
            Original { key: key(1), endpoint_key: key(2), event_key: key(3), cause, payload: PayloadState::Kept };
        Requeue::retry(Tenant::whole(key(4), mode), &first)
    }

    #[test]
    fn a_retried_test_stays_a_test_and_ignores_an_inactive_endpoint() {
        let again = |cause| retry(Mode::Live, cause);
        let (test, retry) = (again(DeliveryCause::Test), again(DeliveryCause::Replay));
        assert_eq!(
            (test.cause, test.lane_kind(), test.is_queued_for(false)),
            (DeliveryCause::Test, LaneKind::Tests, true)
        );
        assert_eq!(
            (retry.cause, retry.lane_kind(), retry.is_queued_for(false)),
            (DeliveryCause::Retry, LaneKind::Events, false)
        );
        assert_eq!((test.takes_place_of(), retry.takes_place_of()), (None, Some(RowKey::from_i64(1))));
        assert_eq!(self::retry(Mode::Test, DeliveryCause::Event).takes_place_of(), None, "it sends nothing");
    }
}
