//! Where a text leads: an id of any kind, an `externalId` or the host of an endpoint. Looks up keys only.

use postrider_domain::access::Principal;
use postrider_domain::audit::AuditFilter;
use postrider_domain::endpoint::{EndpointLabel, OpaqueId};
use postrider_domain::event::EventFilter;
use postrider_domain::id::{
    ApiKeyId, AuditId, DeliveryId, EndpointId, EventId, PortalSessionId, ReplayId, RequestId, WorkspaceId,
};
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;

use crate::error::ServiceError;
use crate::service::Service;

/// Something that a text names, and that its reader may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    Event(EventId),
    Delivery(DeliveryId),
    Endpoint(EndpointId),
    ApiKey(ApiKeyId),
    /// An entry of the audit log, found by its own id or by that of its request.
    AuditEntry(AuditId),
    PortalSession(PortalSessionId),
    /// A replay of an endpoint or by a filter.
    Replay(ReplayId),
    /// The reader's own workspace, or any for an operator.
    Workspace(WorkspaceId),
}

/// Endpoints of one host that are named at most.
const OF_ONE_HOST: u32 = 20;

impl Service {
    /// Everything that this text names in the reader's workspace, mode and project, as far as the reader may see it.
    /// Nothing when the text names nothing, or only what belongs to others.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_anything(&self, principal: &Principal, text: &str) -> Result<Vec<Found>, ServiceError> {
        let (text, may) = (text.trim(), |permission| principal.may(permission));
        let tenant = principal.tenant;
        let mut found = Vec::new();
        if let Ok(id) = text.parse::<EventId>() {
            let is_there = may(Permission::EventsRead) && self.store.find_event(tenant, id).await?.is_some();
            found.extend(is_there.then_some(Found::Event(id)));
        } else if let Ok(id) = text.parse::<DeliveryId>() {
            let is_there = may(Permission::DeliveriesRead) && self.store.find_delivery(tenant, id).await?.is_some();
            found.extend(is_there.then_some(Found::Delivery(id)));
        } else if let Ok(id) = text.parse::<EndpointId>() {
            let is_there = may(Permission::EndpointsRead) && self.store.find_endpoint(tenant, id).await?.is_some();
            found.extend(is_there.then_some(Found::Endpoint(id)));
        } else if let Ok(id) = text.parse::<ReplayId>() {
            let may = may(Permission::DeliveriesRead);
            let is_there = may && self.store.find_replay(tenant, None, id).await?.is_some();
            found.extend(is_there.then_some(Found::Replay(id)));
        } else if let Ok(id) = text.parse::<ApiKeyId>() {
            let may = may(Permission::ApiKeysManage);
            let is_there = may && self.store.get_api_key(Some(tenant), id).await?.is_some();
            found.extend(is_there.then_some(Found::ApiKey(id)));
        } else if let Ok(id) = text.parse::<PortalSessionId>() {
            let is_there = may(Permission::PortalCreate) && self.get_portal_session(principal, id).await.is_ok();
            found.extend(is_there.then_some(Found::PortalSession(id)));
        } else if let Ok(id) = text.parse::<WorkspaceId>() {
            let manages = may(Permission::WorkspacesManage);
            let is_there = id == principal.workspace_id || (manages && self.store.find_workspace(id).await?.is_some());
            found.extend(is_there.then_some(Found::Workspace(id)));
        } else if let Ok(id) = text.parse::<RequestId>() {
            let filter = AuditFilter { request_id: Some(id), ..AuditFilter::default() };
            found = self.find_audit(principal, filter).await?;
        } else if let Ok(id) = text.parse::<AuditId>() {
            let filter = AuditFilter { id: Some(id), ..AuditFilter::default() };
            found = self.find_audit(principal, filter).await?;
        } else {
            found = self.find_by_name(principal, text).await?;
        }
        Ok(found)
    }

    async fn find_audit(&self, principal: &Principal, filter: AuditFilter) -> Result<Vec<Found>, ServiceError> {
        if !principal.may(Permission::AuditRead) {
            return Ok(Vec::new());
        }
        let page = self.store.list_audit(Some(principal.tenant), filter, PageRequest::parse(None, None)?).await?;
        Ok(page.items.iter().map(|entry| Found::AuditEntry(entry.id)).collect())
    }

    async fn find_by_name(&self, principal: &Principal, text: &str) -> Result<Vec<Found>, ServiceError> {
        let mut found = Vec::new();
        if let (true, Ok(id)) = (principal.may(Permission::EventsRead), OpaqueId::parse(text)) {
            let filter = EventFilter { external_ids: vec![id], ..EventFilter::default() };
            let page = self.store.list_events(principal.tenant, filter, PageRequest::parse(None, None)?).await?;
            found.extend(page.items.iter().map(|event| Found::Event(event.id)));
        }
        if principal.may(Permission::EndpointsRead) && text.contains('.') && text.len() <= HOST_CHARS {
            let of_host = self.store.endpoints_of_host(principal.tenant, text.to_owned(), OF_ONE_HOST).await?;
            found.extend(of_host.into_iter().map(|EndpointLabel { id, .. }| Found::Endpoint(id)));
        }
        Ok(found)
    }
}

/// The longest name of a host.
const HOST_CHARS: usize = 253;
