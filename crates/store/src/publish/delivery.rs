//! A new delivery: what it is made of, and why an endpoint is skipped instead.

use std::sync::Arc;

use bytes::Bytes;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, EndReason};
use postrider_domain::endpoint::{DisabledReason, Endpoint, SecretVersion};
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;

use crate::publish::matching::Subscriber;
use crate::publish::requeue::Requeue;
use crate::queue::order::{OrderPlacement, is_ordered};
use crate::{Claim, ClaimToken, EndpointTarget, Lane, LaneKind};

/// A delivery to write to the log and, unless it is skipped, to the queue.
pub struct NewDelivery {
    pub key: RowKey,
    pub lane: Lane,
    pub event_key: RowKey,
    pub mode: Mode,
    pub cause: DeliveryCause,
    pub retry_of: Option<RowKey>,
    /// Set when the endpoint is inactive: the delivery ends at once, with this reason.
    pub skipped: Option<EndReason>,
    pub placement: OrderPlacement,
    /// The delivery is queued although its endpoint is inactive, and waits until the endpoint is active.
    pub is_held: bool,
    pub target: Arc<EndpointTarget>,
    /// The version that signs too, in an overlap.
    pub also_secret_version: Option<SecretVersion>,
    /// The envelope of an event that is being accepted. With it the delivery is claimed at once and handed to the
    /// engine, if the engine has a free slot and nothing older is due in the lane.
    pub payload: Option<Bytes>,
    /// The trace of that event.
    pub trace: Option<TraceContext>,
}

impl NewDelivery {
    /// The delivery of an event that is being accepted, to an endpoint that matches it.
    pub fn of_event(key: RowKey, event: &NewEvent, subscriber: &Subscriber, now: Timestamp) -> Self {
        let is_ordered = is_ordered(&subscriber.target.options, event.tenant.mode);
        Self {
            key,
            lane: subscriber.target.lane(LaneKind::Events),
            event_key: event.id.key(),
            mode: event.tenant.mode,
            cause: DeliveryCause::Event,
            retry_of: None,
            skipped: skip_reason(&subscriber.endpoint, is_ordered),
            placement: if is_ordered { OrderPlacement::Last } else { OrderPlacement::Outside },
            is_held: !subscriber.endpoint.is_active,
            target: Arc::clone(&subscriber.target),
            also_secret_version: subscriber.also_secret_version(now),
            payload: Some(event.envelope.clone()),
            trace: event.trace,
        }
    }

    /// The claim of a delivery that is handed to the engine in the transaction that accepts its event.
    pub fn first_claim(&self, token: ClaimToken, tag: StoreTag, envelope: Bytes) -> Claim {
        Claim {
            lane: self.lane,
            delivery_id: DeliveryId::new(self.key, tag),
            event_id: EventId::new(self.event_key, tag),
            token,
            mode: self.mode,
            cause: self.cause,
            attempt: 1,
            step: 0,
            endpoint: Arc::clone(&self.target),
            secret_version: self.target.secret_version,
            also_secret_version: self.also_secret_version,
            envelope,
            trace: self.trace,
            probe: false,
        }
    }

    /// A delivery queued by hand, signed as what is enqueued now.
    pub fn of_requeue(key: RowKey, requeue: &Requeue, subscriber: &Subscriber, now: Timestamp) -> Self {
        Self {
            key,
            lane: subscriber.target.lane(requeue.lane_kind()),
            event_key: requeue.event_key,
            mode: requeue.tenant.mode,
            cause: requeue.cause,
            retry_of: requeue.retry_of,
            skipped: None,
            placement: OrderPlacement::Outside,
            is_held: requeue.waits_while_off && !subscriber.endpoint.is_active,
            target: Arc::clone(&subscriber.target),
            also_secret_version: subscriber.also_secret_version(now),
            payload: None,
            trace: None,
        }
    }
}

/// Why an endpoint does not get an event, if it does not. In strict order the event waits for an inactive endpoint: a
/// skipped event would leave a gap in the order.
fn skip_reason(endpoint: &Endpoint, is_ordered: bool) -> Option<EndReason> {
    if endpoint.is_active || is_ordered {
        return None;
    }
    Some(match endpoint.disabled_reason {
        None => EndReason::Inactive,
        Some(DisabledReason::Gone) => EndReason::DisabledGone,
        Some(DisabledReason::Failing) => EndReason::DisabledFailing,
        Some(DisabledReason::SsrfBlocked) => EndReason::DisabledSsrfBlocked,
    })
}

/// The publisher's receipt for a new event.
pub fn receipt_of(event: &NewEvent, deliveries: usize) -> EventReceipt {
    EventReceipt {
        id: event.id,
        external_id: event.external_id.as_ref().map(|id| id.as_str().to_owned()),
        event_type: event.event_type.clone(),
        project_id: event.project_id.as_ref().map(|id| id.as_str().to_owned()),
        deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX),
        replayed: false,
    }
}
