//! The log: events, deliveries with their attempts, and the audit log.
//!
//! `delivery.rs`, `attempt.rs` and `audit.rs` also write their tables, for the transactions of other roles.

use async_trait::async_trait;

use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::event::{Event, EventDetail, EventFilter};
use postrider_domain::id::{DeliveryId, EndpointId, EventId};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_store::{Log, NewRefusal, StoreError};

use crate::PostgresStore;
use crate::machinery::fault::PgError;
use crate::machinery::transaction::{WriteTx, effect};

pub mod ahead;
pub mod attempt;
pub mod audit;
pub mod conditions;
pub mod delivery;
mod event;
pub mod search;

#[async_trait]
impl Log for PostgresStore {
    async fn list_events(
        &self,
        tenant: Tenant,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(async move { event::list(session, tag, tenant, &filter, page).await })).await
    }

    async fn find_event(&self, tenant: Tenant, id: EventId) -> Result<Option<EventDetail>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(event::find(session, tag, tenant, id))).await
    }

    async fn list_deliveries(
        &self,
        tenant: Tenant,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(async move { delivery::list(session, tag, tenant, &filter, page).await }))
            .await
    }

    async fn count_deliveries(
        &self,
        tenant: Tenant,
        filter: DeliveryFilter,
        max: u32,
    ) -> Result<BoundedCount, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(async move { delivery::count(session, tag, tenant, &filter, max).await }))
            .await
    }

    async fn find_delivery(
        &self,
        tenant: Tenant,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| {
            Box::pin(async move {
                let Some(delivery) = delivery::find_one(session, tag, tenant, id).await? else { return Ok(None) };
                Ok(Some((delivery, attempt::list(session, id.key()).await?)))
            })
        })
        .await
    }

    async fn blocking_deliveries(&self, tenant: Tenant, limit: u32) -> Result<Vec<Delivery>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(delivery::blocking(session, tag, tenant, limit))).await
    }

    async fn blocking_delivery(&self, tenant: Tenant, endpoint: EndpointId) -> Result<Option<Delivery>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(delivery::blocking_of(session, tag, tenant, endpoint))).await
    }

    async fn list_audit(
        &self,
        tenant: Option<Tenant>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let tag = self.database.tag;
        self.read(move |session| Box::pin(async move { audit::list(session, tag, tenant, &filter, page).await })).await
    }

    async fn record_refusals(&self, refusals: Vec<NewRefusal>) -> Result<(), StoreError> {
        self.write(effect!(|tx, refusals| record_refusals(tx, &refusals))).await
    }
}

async fn record_refusals(tx: &WriteTx, refusals: &[NewRefusal]) -> Result<(), PgError> {
    for refusal in refusals {
        audit::append_refusal(tx, refusal).await?;
    }
    Ok(())
}
