//! The log: events, deliveries with their attempts, and the audit log.

use async_trait::async_trait;

use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::event::{Event, EventDetail, EventFilter};
use postrider_domain::id::{DeliveryId, EndpointId, EventId};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_store::{Log, NewRefusal, StoreError};

use crate::SqliteStore;
use crate::machinery::writer::JobSize;

pub mod ahead;
pub mod attempt;
pub mod audit;
pub mod conditions;
pub mod delivery;
mod event;
pub mod search;

#[async_trait]
impl Log for SqliteStore {
    async fn list_events(
        &self,
        tenant: Tenant,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, StoreError> {
        self.read(move |tx| event::list(tx, tenant, &filter, page)).await
    }

    async fn find_event(&self, tenant: Tenant, id: EventId) -> Result<Option<EventDetail>, StoreError> {
        self.read(move |tx| event::find(tx, tenant, id)).await
    }

    async fn list_deliveries(
        &self,
        tenant: Tenant,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        self.read(move |tx| delivery::list(tx, tenant, &filter, page)).await
    }

    async fn count_deliveries(
        &self,
        tenant: Tenant,
        filter: DeliveryFilter,
        max: u32,
    ) -> Result<BoundedCount, StoreError> {
        self.read(move |tx| delivery::count(tx, tenant, &filter, max)).await
    }

    async fn find_delivery(
        &self,
        tenant: Tenant,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError> {
        self.read(move |tx| {
            let Some(delivery) = delivery::find_one(tx, tenant, id)? else { return Ok(None) };
            Ok(Some((delivery, attempt::list(tx, id)?)))
        })
        .await
    }

    async fn blocking_deliveries(&self, tenant: Tenant, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        self.read(move |tx| delivery::blocking(tx, tenant, limit)).await
    }

    async fn blocking_delivery(&self, tenant: Tenant, endpoint: EndpointId) -> Result<Option<Delivery>, StoreError> {
        self.read(move |tx| delivery::blocking_of(tx, tenant, endpoint)).await
    }

    async fn list_audit(
        &self,
        tenant: Option<Tenant>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError> {
        self.read(move |tx| audit::list(tx, tenant, &filter, page)).await
    }

    async fn record_refusals(&self, refusals: Vec<NewRefusal>) -> Result<(), StoreError> {
        self.write(JobSize { rows: refusals.len(), bytes: 0 }, move |tx| {
            refusals.iter().try_for_each(|refusal| audit::append_refusal(tx, refusal))
        })
        .await
    }
}
