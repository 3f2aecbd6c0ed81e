//! Publishing: events with their deliveries, and deliveries queued by hand.

use async_trait::async_trait;

use postrider_domain::delivery::Delivery;
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::idempotency::Recording;
use postrider_store::publish::requeue::RetriedDelivery;
use postrider_store::{AcceptError, Publish, RequeueError, SkipDeliveryError, Write, Written};

use crate::PostgresStore;
use crate::machinery::transaction::effect;
use crate::queue::order;

pub mod event;
pub mod matching;
mod requeue;

#[async_trait]
impl Publish for PostgresStore {
    async fn accept_events(
        &self,
        events: Vec<NewEvent>,
        recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Written<Vec<EventReceipt>>, AcceptError> {
        self.disk.check_growth()?;
        self.groups.accept(event::AcceptRequest { events, recording }).await?
    }

    async fn accept_test(
        &self,
        write: Write<Delivery>,
        endpoint_id: EndpointId,
        event: NewEvent,
    ) -> Result<Written<Delivery>, RequeueError> {
        self.disk.check_growth()?;
        let Write { author, recording, .. } = write;
        self.write_once(recording, effect!(|tx, event| requeue::accept_test(tx, author, endpoint_id, &event))).await
    }

    async fn retry_delivery(&self, write: Write<Delivery>, id: DeliveryId) -> Result<Written<Delivery>, RequeueError> {
        self.disk.check_growth()?;
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx| requeue::retry(tx, tenant, author, id))).await
    }

    async fn retry_deliveries(
        &self,
        write: Write<Vec<RetriedDelivery>>,
        ids: Vec<DeliveryId>,
    ) -> Result<Written<Vec<RetriedDelivery>>, RequeueError> {
        self.disk.check_growth()?;
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, ids| requeue::retry_all(tx, tenant, author, &ids))).await
    }

    async fn skip_delivery(
        &self,
        write: Write<Delivery>,
        id: DeliveryId,
    ) -> Result<Written<Delivery>, SkipDeliveryError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx| order::skip(tx, tenant, author, id))).await
    }
}
