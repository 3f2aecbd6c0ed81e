//! Reading the log: events, deliveries with their attempts, and the audit log.

use async_trait::async_trait;

use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::event::{Event, EventDetail, EventFilter};
use postrider_domain::id::{DeliveryId, EventId, RowKey};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;

use crate::StoreError;

mod walk;

pub use walk::Walk;

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

    async fn find_delivery(
        &self,
        tenant: Tenant,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError>;

    /// Entries of one workspace, or of all when `workspace` is `None`.
    async fn list_audit(
        &self,
        workspace: Option<RowKey>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError>;
}
