//! Publishing: accepting events, and queueing deliveries by hand.

use async_trait::async_trait;

use postrider_domain::delivery::Delivery;
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::idempotency::Recording;

use crate::publish::requeue::RetriedDelivery;
use crate::{AcceptError, RequeueError, SkipDeliveryError, Write, Written};

pub mod delivery;
pub mod matching;
pub mod requeue;

#[async_trait]
pub trait Publish: Send + Sync + 'static {
    /// Accepts all events of one tenant, or none. When this returns, the events and a delivery for each matching
    /// endpoint are on disk. Endpoints are matched inside the transaction.
    ///
    /// For an endpoint with strict order a live delivery takes the next position in that order, and is queued even when
    /// the endpoint is inactive.
    async fn accept_events(
        &self,
        events: Vec<NewEvent>,
        recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Written<Vec<EventReceipt>>, AcceptError>;

    /// Accepts an event for one endpoint alone, as a test. The endpoint may be inactive.
    async fn accept_test(
        &self,
        write: Write<Delivery>,
        endpoint_id: EndpointId,
        event: NewEvent,
    ) -> Result<Written<Delivery>, RequeueError>;

    /// Queues a new delivery of the same event to the same endpoint. A retry of a test is a test again.
    ///
    /// A live retry of the delivery at which a strict order has stopped takes its position. Any other retry is outside
    /// the order.
    async fn retry_delivery(&self, write: Write<Delivery>, id: DeliveryId) -> Result<Written<Delivery>, RequeueError>;

    /// Retries several deliveries, in one transaction, each as [`Self::retry_delivery`] does. A refusal of one does not
    /// concern the others.
    async fn retry_deliveries(
        &self,
        write: Write<Vec<RetriedDelivery>>,
        ids: Vec<DeliveryId>,
    ) -> Result<Written<Vec<RetriedDelivery>>, RequeueError>;

    /// Gives up the delivery at which its endpoint's strict order has stopped. The deliveries behind it proceed.
    async fn skip_delivery(
        &self,
        write: Write<Delivery>,
        id: DeliveryId,
    ) -> Result<Written<Delivery>, SkipDeliveryError>;
}
