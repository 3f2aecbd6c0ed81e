//! The log: events, deliveries with their attempts, and the audit log.
//!
//! Entries of the audit log are written with the writes that they record. Only refusals, which write nothing else, have
//! a method of their own.

use async_trait::async_trait;

use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter, Author, Refusal};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::event::{Event, EventDetail, EventFilter};
use postrider_domain::id::{DeliveryId, EndpointId, EventId, RowKey};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::tenant::Tenant;

use crate::StoreError;

pub mod changes;
pub mod event_walk;
pub mod last_attempt;
pub mod walk;

/// Refused requests to record.
#[derive(Clone, Debug)]
pub struct NewRefusal {
    /// The workspace of the key. `None` when the key is unknown.
    pub workspace: Option<RowKey>,
    pub author: Author,
    pub refusal: Refusal,
}

#[async_trait]
pub trait Log: Send + Sync + 'static {
    async fn list_events(
        &self,
        tenant: Tenant,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, StoreError>;

    async fn find_event(&self, tenant: Tenant, id: EventId) -> Result<Option<EventDetail>, StoreError>;

    /// A page may hold fewer rows than asked for, even none, and still name a next page: a filter that passes few rows
    /// looks at a bounded number of rows for one page.
    async fn list_deliveries(
        &self,
        tenant: Tenant,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError>;

    /// Counts deliveries, up to `max`, among as many rows as one page looks at.
    async fn count_deliveries(
        &self,
        tenant: Tenant,
        filter: DeliveryFilter,
        max: u32,
    ) -> Result<BoundedCount, StoreError>;

    async fn find_delivery(
        &self,
        tenant: Tenant,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError>;

    /// The deliveries at which strict orders have stopped, the oldest first: at most `limit`.
    async fn blocking_deliveries(&self, tenant: Tenant, limit: u32) -> Result<Vec<Delivery>, StoreError>;

    /// The delivery at which the strict order of this endpoint has stopped, if it has.
    async fn blocking_delivery(&self, tenant: Tenant, endpoint: EndpointId) -> Result<Option<Delivery>, StoreError>;

    /// Entries of the modes that this tenant manages, or all entries when `tenant` is `None`.
    async fn list_audit(
        &self,
        tenant: Option<Tenant>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError>;

    /// Adds one entry for each, in one transaction.
    async fn record_refusals(&self, refusals: Vec<NewRefusal>) -> Result<(), StoreError>;
}
