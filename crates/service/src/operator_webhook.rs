//! The operator webhook: an endpoint in a workspace of its own that receives operational events about customers'
//! endpoints. The settings define it; each start brings the stored endpoint in line with them.

use postrider_domain::access::Mode;
use postrider_domain::audit::Author;
use postrider_domain::endpoint::{
    Endpoint, EndpointChange, EndpointFilter, EndpointName, EndpointUrl, SecretVersion, sealing_record,
};
use postrider_domain::endpoint_options::OptionsChange;
use postrider_domain::error_chain::Chain;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EndpointId, WorkspaceId};
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::page::PageRequest;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::target::Requester;
use postrider_domain::tenant::Tenant;
use postrider_domain::workspace::Workspace;
use postrider_store::{Destination, EndpointLimits, EndpointUpdate, NewEndpoint, SealedOptions, SecretRotation, Write};

use crate::error::ServiceError;
use crate::operator::Operator;

/// Where operational events are sent, and the secret that signs them.
#[derive(Debug)]
pub struct OperatorWebhook {
    pub url: EndpointUrl,
    pub secret: WebhookSecret,
}

/// The name of the endpoint, by which the next start finds it.
const NAME: &str = "operator webhook";

impl Operator {
    /// Creates or updates the endpoint and enables operational events. With `None`, deletes an endpoint that an earlier
    /// start created.
    ///
    /// A URL that may not be called is only logged here. The guard refuses it at each attempt.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep_webhook(&self, webhook: Option<OperatorWebhook>) -> Result<(), ServiceError> {
        let Some(webhook) = webhook else {
            if let Some(workspace) = self.store.find_operations_workspace().await?
                && let Some(endpoint) = self.operator_endpoint(&workspace).await?
            {
                self.store.delete_endpoint(write_in(&workspace), endpoint.id).await.map_err(internal)?;
            }
            return Ok(());
        };
        let id = WorkspaceId::from_letters(self.service.random.alphanumeric());
        let workspace = self.store.ensure_operations_workspace(id, Author::COMMAND_LINE).await?;
        let existing = self.operator_endpoint(&workspace).await?;
        let drawn = || EndpointId::from_letters(self.service.random.alphanumeric());
        let endpoint_id = existing.as_ref().map_or_else(drawn, |endpoint| endpoint.id);
        self.allow_and_vet(&workspace, endpoint_id, &webhook).await;
        match existing {
            None => self.create_operator_endpoint(&workspace, endpoint_id, &webhook).await?,
            Some(endpoint) => self.update_operator_endpoint(&workspace, &endpoint, &webhook).await?,
        }
        self.store.enable_operational_events(workspace.key);
        tracing::info!(workspace_id = %workspace.id, "operational events are sent to the operator webhook");
        Ok(())
    }

    /// The settings allow host and port of the webhook, for its endpoint alone. What the operator denies stays denied.
    async fn allow_and_vet(&self, workspace: &Workspace, endpoint: EndpointId, webhook: &OperatorWebhook) {
        let guard = &self.service.guard;
        guard.allow_operator_webhook(webhook.url.url(), endpoint);
        if let Err(error) = guard.vet(webhook.url.url(), Requester::endpoint(workspace.id, endpoint)).await {
            tracing::warn!(error = %Chain(&error), "the operator webhook may not be called now; \
                deliveries fail until it may");
        }
    }

    async fn operator_endpoint(&self, workspace: &Workspace) -> Result<Option<Endpoint>, ServiceError> {
        let page = PageRequest::parse(None, None).map_err(internal)?;
        let endpoints = self.store.list_endpoints(tenant_of(workspace), EndpointFilter::default(), page).await?.items;
        Ok(endpoints.into_iter().find(|endpoint| endpoint.name == NAME))
    }

    async fn create_operator_endpoint(
        &self,
        workspace: &Workspace,
        id: EndpointId,
        webhook: &OperatorWebhook,
    ) -> Result<(), ServiceError> {
        let new = NewEndpoint {
            key: self.store.next_key(),
            id,
            project_id: None,
            name: EndpointName::parse(NAME).map_err(internal)?,
            destination: Destination::Url(webhook.url.clone()),
            events: event_types(),
            sealed_secret: self.sealed(id, SecretVersion::FIRST, &webhook.secret),
            secret_last4: webhook.secret.last4(),
            options: OptionsChange::default(),
            sealed: SealedOptions::default(),
            limits: EndpointLimits { per_project: u32::MAX, per_workspace: u32::MAX },
        };
        self.store.create_endpoint(write_in(workspace), new).await.map(|_| ()).map_err(internal)
    }

    async fn update_operator_endpoint(
        &self,
        workspace: &Workspace,
        endpoint: &Endpoint,
        webhook: &OperatorWebhook,
    ) -> Result<(), ServiceError> {
        let url = (endpoint.url != webhook.url.as_str()).then(|| webhook.url.clone());
        let events = (endpoint.events != event_types()).then(event_types);
        // The operator configured the receiver for this start, so the endpoint is active again.
        let is_active = (!endpoint.is_active).then_some(true);
        let change = EndpointChange { url, events, is_active, ..EndpointChange::default() };
        if !change.is_empty() {
            let limits = EndpointLimits { per_project: u32::MAX, per_workspace: u32::MAX };
            // The settings know no sealed options. Those that a key of this workspace set are for the old URL alone.
            let sealed = match &change.url {
                Some(_) => SealedOptions {
                    headers: Some(Vec::new()),
                    client_certificate: Some(None),
                    ..SealedOptions::default()
                },
                None => SealedOptions::default(),
            };
            let update = EndpointUpdate { change, sealed, limits };
            self.store.update_endpoint(write_in(workspace), endpoint.id, update).await.map_err(internal)?;
        }
        let version =
            self.store.secret_version(tenant_of(workspace), endpoint.id).await?.ok_or(ServiceError::NotFound)?;
        let sealed = self.store.find_secret(endpoint.key, version).await?.ok_or(ServiceError::NotFound)?;
        let kept = self.service.keyring.open_or_refresh(&sealing_record(endpoint.id, version), &sealed).await;
        let kept = kept.map_err(internal)?;
        if kept.as_slice() == webhook.secret.reveal().as_bytes() {
            return Ok(());
        }
        let version = SecretVersion(version.0 + 1);
        let rotation = SecretRotation {
            version,
            sealed: self.sealed(endpoint.id, version, &webhook.secret),
            last4: webhook.secret.last4(),
            signing_key: self.service.sealed_signing_key(endpoint.id, version),
            overlap: std::time::Duration::ZERO,
            revoke_queued: true,
            author: Author::COMMAND_LINE,
        };
        self.store.rotate_secret(tenant_of(workspace), endpoint.id, rotation).await.map(|_| ()).map_err(internal)
    }

    fn sealed(&self, id: EndpointId, version: SecretVersion, secret: &WebhookSecret) -> Vec<u8> {
        self.service.keyring.seal(&sealing_record(id, version), secret.reveal().as_bytes())
    }
}

fn tenant_of(workspace: &Workspace) -> Tenant {
    Tenant::whole(workspace.key, Mode::Live)
}

fn write_in<T>(workspace: &Workspace) -> Write<T> {
    Write { tenant: tenant_of(workspace), author: Author::COMMAND_LINE, recording: None }
}

fn event_types() -> Vec<EventTypeName> {
    OperationalEvent::ALL.map(OperationalEvent::event_type).to_vec()
}

fn internal(error: impl std::error::Error + Send + Sync + 'static) -> ServiceError {
    ServiceError::Internal { source: Box::new(error) }
}
