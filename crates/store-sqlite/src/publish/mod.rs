//! Publishing: accepting events, and queueing deliveries by hand.

use async_trait::async_trait;

use postrider_domain::delivery::Delivery;
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::idempotency::Recording;
use postrider_store::publish::requeue::RetriedDelivery;
use postrider_store::{AcceptError, Publish, RequeueError, SkipDeliveryError, Write, Written};

use crate::machinery::writer::{JobSize, Writer};
use crate::queue::order;
use crate::{SqliteStore, unavailable};

pub mod event;
pub mod matching;
pub mod requeue;

#[async_trait]
impl Publish for SqliteStore {
    async fn accept_events(
        &self,
        events: Vec<NewEvent>,
        recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Written<Vec<EventReceipt>>, AcceptError> {
        self.disk.check_growth()?;
        if self.writer.as_ref().is_some_and(Writer::refuses_publishes) {
            return Err(unavailable("the write-ahead log has reached its limit").into());
        }
        let bytes = events.iter().map(|event| event.envelope.len()).sum();
        self.write_once(JobSize { rows: events.len(), bytes }, recording, move |tx| event::accept(tx, &events)).await
    }

    async fn accept_test(
        &self,
        write: Write<Delivery>,
        endpoint_id: EndpointId,
        event: NewEvent,
    ) -> Result<Written<Delivery>, RequeueError> {
        self.disk.check_growth()?;
        let size = JobSize { rows: 1, bytes: event.envelope.len() };
        self.write_once(size, write.recording, move |tx| requeue::accept_test(tx, write.author, endpoint_id, &event))
            .await
    }

    async fn retry_delivery(&self, write: Write<Delivery>, id: DeliveryId) -> Result<Written<Delivery>, RequeueError> {
        self.disk.check_growth()?;
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| requeue::retry(tx, write.tenant, write.author, id))
            .await
    }

    async fn retry_deliveries(
        &self,
        write: Write<Vec<RetriedDelivery>>,
        ids: Vec<DeliveryId>,
    ) -> Result<Written<Vec<RetriedDelivery>>, RequeueError> {
        self.disk.check_growth()?;
        let size = JobSize { rows: ids.len(), ..JobSize::ONE_ROW };
        self.write_once(size, write.recording, move |tx| requeue::retry_all(tx, write.tenant, write.author, &ids)).await
    }

    async fn skip_delivery(
        &self,
        write: Write<Delivery>,
        id: DeliveryId,
    ) -> Result<Written<Delivery>, SkipDeliveryError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| order::skip(tx, write.tenant, write.author, id))
            .await
    }
}
