//! Endpoints: where a customer wants which events.

use std::sync::Arc;

use crate::domain::access::{Principal, needs};
use crate::domain::endpoint::{
    Endpoint, EndpointName, EndpointUrl, NOT_HTTPS, ProjectId, SecretVersion, sealing_record,
};
use crate::domain::event_type::EventTypeName;
use crate::domain::id::EndpointId;
use crate::domain::secret::WebhookSecret;
use crate::domain::target::RefusalReason;
use crate::store::{CreateEndpointError, NewEndpoint};

use super::idempotency::Seal;
use super::{Outcome, Remember, Service, ServiceError};

/// An endpoint to be made.
#[derive(Debug)]
pub struct CreateEndpoint {
    pub name: EndpointName,
    pub url: EndpointUrl,
    /// At least one, each once.
    pub events: Vec<EventTypeName>,
    pub project_id: Option<ProjectId>,
}

/// The one moment at which a secret is shown.
#[derive(Debug)]
pub struct EndpointWithSecret {
    pub endpoint: Endpoint,
    pub secret: WebhookSecret,
}

impl Service {
    /// # Errors
    /// Without the scope, when the URL's host may not be called, or when there is no room for one more.
    pub async fn create_endpoint(
        self: &Arc<Self>,
        principal: &Principal,
        create: CreateEndpoint,
        remember: Option<Remember<EndpointWithSecret>>,
    ) -> Result<Outcome<EndpointWithSecret>, ServiceError> {
        principal.require(needs::ENDPOINT_WRITE)?;
        self.vet_url(&create.url).await?;
        let id = EndpointId::from_letters(self.random.alphanumeric());
        let secret = WebhookSecret::generate(&self.random);
        let record = sealing_record(id, SecretVersion::FIRST);
        let new = NewEndpoint {
            key: self.store.next_key(),
            id,
            workspace_key: principal.workspace_key,
            project_id: create.project_id,
            name: create.name,
            url: create.url,
            events: create.events,
            sealed_secret: self.master_key.seal(&self.random, &record, secret.reveal().as_bytes()),
            secret_last4: secret.last4(),
            limits: self.endpoint_limits,
        };
        let request = remember.as_ref().map(|remember| remember.request.clone());
        let shown_secret = secret.clone();
        let recording = self.recording(remember.as_ref(), Seal::HoldsSecret, move |endpoint: &Endpoint| {
            EndpointWithSecret { endpoint: endpoint.clone(), secret: shown_secret.clone() }
        });
        let written = self.store.create_endpoint(new, recording).await.map_err(|error| match error {
            CreateEndpointError::Store(error) => error.into(),
            full => ServiceError::Conflict(format!("No room for one more endpoint: {full}.")),
        })?;
        match self.outcome(request.as_ref(), written)? {
            Outcome::Done(endpoint) => {
                tracing::info!(endpoint_id = %endpoint.id, workspace_id = %principal.workspace_id, "endpoint created");
                Ok(Outcome::Done(EndpointWithSecret { endpoint, secret }))
            }
            Outcome::Replayed { status, body } => Ok(Outcome::Replayed { status, body }),
        }
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn get_endpoint(&self, principal: &Principal, id: EndpointId) -> Result<Endpoint, ServiceError> {
        principal.require(needs::WEBHOOKS_READ)?;
        self.store.find_endpoint(principal.workspace_key, id).await?.ok_or(ServiceError::NotFound)
    }

    /// Plain `http` is a fault of the request unless the operator allowed it for this host; then the guard has its say.
    async fn vet_url(&self, url: &EndpointUrl) -> Result<(), ServiceError> {
        if !url.is_https() && !self.guard.allows_plain_http(url.url()) {
            return Err(ServiceError::invalid("url", NOT_HTTPS));
        }
        match self.guard.vet(url.url()).await {
            Ok(()) => Ok(()),
            Err(refusal) if refusal.reason == RefusalReason::PlainHttp => Err(ServiceError::invalid("url", NOT_HTTPS)),
            Err(refusal) => {
                tracing::info!(host = refusal.host, reason = %refusal.reason, "an endpoint's URL was refused");
                Err(ServiceError::SsrfBlocked(refusal))
            }
        }
    }
}
