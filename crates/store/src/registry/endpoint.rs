//! Endpoints: where a customer wants which events.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::audit::Author;
use postrider_domain::endpoint::{
    Endpoint, EndpointChange, EndpointFilter, EndpointLabel, EndpointName, EndpointState, EndpointUrl, Listener,
    ProjectId, SecretVersion, is_same_origin,
};
use postrider_domain::endpoint_options::OptionsChange;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::{
    CreateEndpointError, DeleteEndpointError, RotateSecretError, SealedOptions, SealedSigningKey, StoreError,
    UpdateEndpointError, Write, Written,
};

/// An endpoint to create, its secret sealed. Its mode is the tenant's, and so is its project if the tenant has one.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    pub key: RowKey,
    pub id: EndpointId,
    pub project_id: Option<ProjectId>,
    pub name: EndpointName,
    pub destination: Destination,
    pub events: Vec<EventTypeName>,
    pub sealed_secret: Vec<u8>,
    pub secret_last4: String,
    pub options: OptionsChange,
    pub sealed: SealedOptions,
    pub limits: EndpointLimits,
}

/// Where deliveries go. A new endpoint's id says which of the two it is.
#[derive(Clone, Debug)]
pub enum Destination {
    Url(EndpointUrl),
    /// A listener's consumers lease them.
    Consumers {
        durable: bool,
    },
}

/// A change to an endpoint.
#[derive(Clone, Debug)]
pub struct EndpointUpdate {
    pub change: EndpointChange,
    pub sealed: SealedOptions,
    pub limits: EndpointLimits,
}

/// How many endpoints there may be in each mode.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLimits {
    pub per_project: u32,
    pub per_workspace: u32,
}

/// A new signing secret.
#[derive(Clone, Debug)]
pub struct SecretRotation {
    /// The version that the sealed secret was made for: one more than the newest.
    pub version: SecretVersion,
    pub sealed: Vec<u8>,
    pub last4: String,
    /// Stored only if the endpoint signs with `v1a`.
    pub signing_key: SealedSigningKey,
    /// How long new deliveries are signed with the previous version too.
    pub overlap: Duration,
    /// Signs queued deliveries with the new secret instead of their own.
    pub revoke_queued: bool,
    pub author: Author,
}

#[async_trait]
pub trait Endpoints: Send + Sync + 'static {
    async fn create_endpoint(
        &self,
        write: Write<Endpoint>,
        new: NewEndpoint,
    ) -> Result<Written<Endpoint>, CreateEndpointError>;

    async fn find_endpoint(&self, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, StoreError>;

    async fn list_endpoints(
        &self,
        tenant: Tenant,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, StoreError>;

    /// Names and addresses of endpoints, deleted ones included, in no order. Unknown ids are left out.
    async fn endpoint_labels(&self, tenant: Tenant, ids: Vec<EndpointId>) -> Result<Vec<EndpointLabel>, StoreError>;

    /// Endpoints whose URL has this host, whatever its scheme and port: at most `limit`, the newest first.
    async fn endpoints_of_host(
        &self,
        tenant: Tenant,
        host: String,
        limit: u32,
    ) -> Result<Vec<EndpointLabel>, StoreError>;

    /// Changes an endpoint. Switching it on clears its `disabledReason` and releases its queue. Switching it off holds
    /// the queue.
    async fn update_endpoint(
        &self,
        write: Write<Endpoint>,
        id: EndpointId,
        update: EndpointUpdate,
    ) -> Result<Written<Endpoint>, UpdateEndpointError>;

    /// Deletes an endpoint and its secrets and cancels its undelivered work. When this returns, none of it is claimed
    /// any more. A long queue is cancelled in later steps.
    async fn delete_endpoint(&self, write: Write<()>, id: EndpointId) -> Result<Written<()>, DeleteEndpointError>;

    /// The version of the secret that signs now.
    async fn secret_version(&self, tenant: Tenant, id: EndpointId) -> Result<Option<SecretVersion>, StoreError>;

    /// Signs what is enqueued from now on with another secret.
    async fn rotate_secret(
        &self,
        tenant: Tenant,
        id: EndpointId,
        rotation: SecretRotation,
    ) -> Result<Endpoint, RotateSecretError>;
}

/// The condition that an endpoint is in one of these states, in words that both databases accept. The columns are those
/// of `endpoints` and `endpoint_health`. `None` when there are no states.
pub fn is_in_state(states: &[EndpointState]) -> Option<String> {
    let (failing, is_paused) = (limits::FAILING_FAILURES, "paused_since IS NOT NULL");
    let of = |state: &EndpointState| match state {
        EndpointState::Ok => format!("is_active AND NOT {is_paused} AND COALESCE(failures, 0) < {failing}"),
        EndpointState::Failing => format!("is_active AND NOT {is_paused} AND COALESCE(failures, 0) >= {failing}"),
        EndpointState::Paused => format!("is_active AND {is_paused}"),
        EndpointState::Disabled => "NOT is_active AND disabled_reason IS NOT NULL".to_owned(),
        EndpointState::Off => "NOT is_active AND disabled_reason IS NULL".to_owned(),
    };
    let any: Vec<String> = states.iter().map(of).collect();
    (!any.is_empty()).then(|| format!("({})", any.join(" OR ")))
}

/// The starts of all URLs of a host, each with the start behind the last of them. What follows a host in a URL is `/`,
/// `:`, `?` or nothing.
pub fn url_ranges(host: &str) -> Vec<(String, String)> {
    let host = host.to_ascii_lowercase();
    let mut ranges = Vec::new();
    for scheme in ["https", "http"] {
        let start = format!("{scheme}://{host}");
        for (follows, behind) in [('/', '0'), (':', ';'), ('?', '@')] {
            ranges.push((format!("{start}{follows}"), format!("{start}{behind}")));
        }
        ranges.push((start.clone(), format!("{start}\u{1}")));
    }
    ranges
}

/// A new endpoint, still without its options.
pub fn new_endpoint(new: &NewEndpoint, tenant: Tenant) -> Endpoint {
    let project_id = tenant.project.or(new.project_id);
    let created_at = new.key.created_at();
    let (url, listener) = match &new.destination {
        Destination::Url(url) => (url.as_str().to_owned(), None),
        Destination::Consumers { durable } => {
            (String::new(), Some(Listener { durable: *durable, last_seen_at: created_at }))
        }
    };
    Endpoint {
        key: new.key,
        id: new.id,
        url,
        listener,
        name: new.name.as_str().to_owned(),
        events: new.events.clone(),
        is_active: true,
        disabled_reason: None,
        project_id: project_id.map(|project| project.as_str().to_owned()),
        secret_last4: new.secret_last4.clone(),
        created_at,
        updated_at: created_at,
        failure_streak: None,
        options: Arc::default(),
        mode: tenant.mode,
    }
}

/// Whether a change moves an endpoint to another project, or out of one.
pub fn changes_project(endpoint: &Endpoint, project_id: Option<&ProjectId>) -> bool {
    project_id.map(ProjectId::as_str) != endpoint.project_id.as_deref()
}

/// Whether a change would move an endpoint out of the project that the tenant is narrowed to.
pub fn leaves_project(tenant: Tenant, change: &EndpointChange) -> bool {
    tenant.project.is_some() && change.project_id.is_some_and(|project| project != tenant.project)
}

/// Whether a change moves an endpoint to a URL with another scheme, host or port.
pub fn changes_origin(endpoint: &Endpoint, change: &EndpointChange) -> bool {
    change.url.as_ref().is_some_and(|url| !is_same_origin(url.as_str(), &endpoint.url))
}

/// Applies a change, the options apart.
pub fn apply(endpoint: &mut Endpoint, change: &EndpointChange, now: Timestamp) {
    if let Some(project) = &change.project_id {
        endpoint.project_id = project.as_ref().map(|project| project.as_str().to_owned());
    }
    if let Some(name) = &change.name {
        name.as_str().clone_into(&mut endpoint.name);
    }
    if let Some(url) = &change.url {
        url.as_str().clone_into(&mut endpoint.url);
    }
    if let Some(events) = &change.events {
        endpoint.events.clone_from(events);
    }
    if let Some(is_active) = change.is_active {
        (endpoint.is_active, endpoint.disabled_reason) = (is_active, None);
    }
    endpoint.updated_at = now.max(endpoint.updated_at);
}

/// Whether a change clears the failure history: the endpoint was switched on, or has another URL.
pub fn clears_health(change: &EndpointChange) -> bool {
    change.is_active == Some(true) || change.url.is_some()
}
