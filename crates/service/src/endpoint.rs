//! Endpoints: create, change, delete, rotate the secret, send a test event.

use std::time::Duration;

use postrider_domain::access::Principal;
use postrider_domain::delivery::Delivery;
use postrider_domain::endpoint::{
    Endpoint, EndpointChange, EndpointFilter, EndpointLabel, EndpointName, EndpointUrl, NOT_HTTPS, ProjectId,
    SecretVersion, sealing_record,
};
use postrider_domain::endpoint_options::{OptionsChange, SignatureSchemes};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::EndpointId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::private_options::PrivateOptions;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::target::{RefusalReason, Requester, VettingError};
use postrider_store::{
    CreateEndpointError, DeleteEndpointError, Destination, EndpointUpdate, NewEndpoint, RotateSecretError,
    SealedOptions, SealedSigningKey, SecretRotation, UpdateEndpointError,
};

use crate::delivery::requeue_error;
use crate::endpoint_options::{nothing_to_keep, sealed_for_other_origin};
use crate::error::ServiceError;
use crate::event::PublishEvent;
use crate::idempotency::{Idempotent, WriteError};
use crate::portal::{check_seen, seen_by, with_hidden};
use crate::principal_write::write_by;
use crate::service::Service;

/// An endpoint to create.
#[derive(Debug)]
pub struct CreateEndpoint {
    pub name: EndpointName,
    pub url: EndpointUrl,
    /// At least one, each once.
    pub events: Vec<EventTypeName>,
    pub project_id: Option<ProjectId>,
    pub options: OptionsChange,
    pub private: PrivateOptions,
}

/// A change to an endpoint.
#[derive(Debug, Default)]
pub struct UpdateEndpoint {
    pub change: EndpointChange,
    pub private: PrivateOptions,
}

/// How to replace a secret.
#[derive(Clone, Copy, Debug, Default)]
pub struct RotateSecret {
    /// How long new deliveries are signed with the old secret too.
    pub overlap: Duration,
    /// Deliveries that are already queued are signed with the new secret.
    pub revoke_queued: bool,
    /// The version that the caller means to replace. The rotation is refused if the secret has another one.
    pub replaces: Option<SecretVersion>,
}

/// How often a write is tried again when a concurrent rotation of the same secret wins. More concurrent rotations mean
/// a client that misbehaves.
const ROTATE_TRIES: usize = 8;
const ROTATED_MEANWHILE: &str = "The secret has been rotated since this page was loaded.";
const CHANGED_MEANWHILE: &str = "The endpoint has been changed since this page was loaded.";
const ROTATED_BY_OTHERS: &str = "Other requests are rotating the secret at the same time.";

const NO_TESTS_OF_LISTENERS: &str = "A listener gets no test events. Publish an event that it subscribes to.";

/// An endpoint with its plaintext secret, which is shown only now.
#[derive(Debug)]
pub struct EndpointWithSecret {
    pub endpoint: Endpoint,
    pub secret: WebhookSecret,
}

impl EndpointWithSecret {
    pub(crate) fn of(endpoint: &Endpoint, secret: &WebhookSecret) -> Self {
        Self { endpoint: endpoint.clone(), secret: secret.clone() }
    }
}

impl Service {
    /// # Errors
    /// Without the scope, when the URL's host may not be called, or when a limit on endpoints is reached.
    pub async fn create_endpoint(
        &self,
        principal: &Principal,
        create: CreateEndpoint,
        idempotent: &Idempotent<EndpointWithSecret>,
    ) -> Result<EndpointWithSecret, WriteError> {
        principal.require(Permission::EndpointsWrite)?;
        check_seen(principal, &create.events)?;
        let id = EndpointId::from_letters(self.random.alphanumeric());
        let sealed = self.sealed_options(id, &create.private)?;
        self.vet_url(&create.url, Requester::endpoint(principal.workspace_id, id)).await?;
        let signing_key = Some((SecretVersion::FIRST, self.sealed_signing_key(id, SecretVersion::FIRST)));
        let secret = WebhookSecret::generate(&self.random);
        let record = sealing_record(id, SecretVersion::FIRST);
        let new = NewEndpoint {
            key: self.store.next_key(),
            id,
            project_id: create.project_id,
            name: create.name,
            destination: Destination::Url(create.url),
            events: create.events,
            sealed_secret: self.keyring.seal(&record, secret.reveal().as_bytes()),
            secret_last4: secret.last4(),
            options: create.options,
            sealed: SealedOptions { signing_key, ..sealed },
            limits: self.endpoint_limits,
        };
        let shown_secret = secret.clone();
        let recording = idempotent.sealed_recording(move |endpoint| EndpointWithSecret::of(endpoint, &shown_secret));
        let written = self.store.create_endpoint(write_by(principal, recording), new).await.map_err(create_error)?;
        let endpoint = idempotent.finish(written)?;
        tracing::info!(endpoint_id = %endpoint.id, workspace_id = %principal.workspace_id, "endpoint created");
        Ok(EndpointWithSecret { endpoint, secret })
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn get_endpoint(&self, principal: &Principal, id: EndpointId) -> Result<Endpoint, ServiceError> {
        principal.require(Permission::EndpointsRead)?;
        let found = self.store.find_endpoint(principal.tenant, id).await?;
        found.map(|endpoint| seen_by(principal, endpoint)).ok_or(ServiceError::NotFound)
    }

    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_endpoints(
        &self,
        principal: &Principal,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, ServiceError> {
        principal.require(Permission::EndpointsRead)?;
        let page = self.store.list_endpoints(principal.tenant, filter, page).await?;
        Ok(page.map(|endpoint| seen_by(principal, endpoint)))
    }

    /// Names and addresses of the endpoints of a page of deliveries, deleted ones included, in no order.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn endpoint_labels(
        &self,
        principal: &Principal,
        ids: Vec<EndpointId>,
    ) -> Result<Vec<EndpointLabel>, ServiceError> {
        principal.require(Permission::EndpointsRead)?;
        Ok(self.store.endpoint_labels(principal.tenant, ids).await?)
    }

    /// Changes an endpoint. A new URL is vetted. The current URL is vetted when the endpoint is activated.
    ///
    /// # Errors
    /// As [`Self::create_endpoint`], or when this workspace has no such endpoint.
    pub async fn update_endpoint(
        &self,
        principal: &Principal,
        id: EndpointId,
        update: UpdateEndpoint,
        idempotent: &Idempotent<Endpoint>,
    ) -> Result<Endpoint, WriteError> {
        principal.require(Permission::EndpointsWrite)?;
        let UpdateEndpoint { mut change, private } = update;
        if let Some(named) = change.events.as_mut().filter(|_| principal.event_types.is_some()) {
            check_seen(principal, named)?;
            let stored = self.store.find_endpoint(principal.tenant, id).await?.ok_or(ServiceError::NotFound)?;
            *named = with_hidden(principal, &stored, named);
        }
        if id.is_listener() {
            check_change_of_listener(&change, &private)?;
        }
        let requester = Requester::endpoint(principal.workspace_id, id);
        let sealed = self.sealed_options(id, &private)?;
        if let Some(url) = &change.url {
            self.get_endpoint(principal, id).await?;
            self.vet_url(url, requester).await?;
        } else if change.is_active == Some(true) && !id.is_listener() {
            let endpoint = self.get_endpoint(principal, id).await?;
            let url = EndpointUrl::from_stored(&endpoint.url).map_err(|fault| ServiceError::invalid("url", fault.0))?;
            self.vet_url(&url, requester).await?;
        }
        let recording = idempotent.recording(Endpoint::clone);
        for _ in 0..ROTATE_TRIES {
            let update = EndpointUpdate {
                change: change.clone(),
                sealed: SealedOptions { signing_key: self.key_for(principal, id, &change).await?, ..sealed.clone() },
                limits: self.endpoint_limits,
            };
            let write = write_by(principal, recording.clone());
            return match self.store.update_endpoint(write, id, update).await {
                Ok(written) => idempotent.finish(written).map(|endpoint| seen_by(principal, endpoint)),
                Err(UpdateEndpointError::SecretVersionChanged) => continue,
                Err(UpdateEndpointError::ChangedMeanwhile) => {
                    Err(ServiceError::Conflict(CHANGED_MEANWHILE.to_owned()).into())
                }
                Err(UpdateEndpointError::NotFound) => Err(ServiceError::NotFound.into()),
                Err(UpdateEndpointError::ProjectFull(limit)) => Err(full("project", limit).into()),
                Err(UpdateEndpointError::OtherProject) => {
                    Err(ServiceError::unprocessable("projectId", "must stay the project of the session").into())
                }
                Err(UpdateEndpointError::NothingToKeep(name)) => Err(nothing_to_keep(&name).into()),
                Err(UpdateEndpointError::SealedForOtherOrigin(kind)) => Err(sealed_for_other_origin(kind).into()),
                Err(UpdateEndpointError::Store(error)) => Err(error.into()),
            };
        }
        Err(ServiceError::Conflict(ROTATED_BY_OTHERS.to_owned()).into())
    }

    /// The signing key for a change to `v1a`. The store keeps the existing key if the secret's newest version has one.
    async fn key_for(
        &self,
        principal: &Principal,
        id: EndpointId,
        change: &EndpointChange,
    ) -> Result<Option<(SecretVersion, SealedSigningKey)>, ServiceError> {
        if !change.options.signature_schemes.is_some_and(SignatureSchemes::has_v1a) {
            return Ok(None);
        }
        let version = self.store.secret_version(principal.tenant, id).await?.ok_or(ServiceError::NotFound)?;
        Ok(Some((version, self.sealed_signing_key(id, version))))
    }

    /// Deletes an endpoint and cancels its undelivered work.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn delete_endpoint(
        &self,
        principal: &Principal,
        id: EndpointId,
        idempotent: &Idempotent<()>,
    ) -> Result<(), WriteError> {
        principal.require(Permission::EndpointsWrite)?;
        let recording = idempotent.recording(|()| ());
        let deleted = self.store.delete_endpoint(write_by(principal, recording), id).await;
        let written = deleted.map_err(|error| match error {
            DeleteEndpointError::NotFound => ServiceError::NotFound,
            DeleteEndpointError::Store(error) => error.into(),
        })?;
        tracing::info!(endpoint_id = %id, workspace_id = %principal.workspace_id, "endpoint deleted");
        idempotent.finish(written)
    }

    /// Replaces the secret with a fresh one. Each call makes another.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such endpoint.
    pub async fn rotate_secret(
        &self,
        principal: &Principal,
        id: EndpointId,
        rotate: RotateSecret,
    ) -> Result<EndpointWithSecret, ServiceError> {
        principal.require(Permission::SecretsRotate)?;
        for _ in 0..ROTATE_TRIES {
            let current = self.secret_version(principal, id).await?;
            if rotate.replaces.is_some_and(|replaces| replaces != current) {
                return Err(ServiceError::Conflict(ROTATED_MEANWHILE.to_owned()));
            }
            let version = SecretVersion(current.0 + 1);
            let secret = WebhookSecret::generate(&self.random);
            let record = sealing_record(id, version);
            let rotation = SecretRotation {
                version,
                sealed: self.keyring.seal(&record, secret.reveal().as_bytes()),
                last4: secret.last4(),
                signing_key: self.sealed_signing_key(id, version),
                overlap: rotate.overlap,
                revoke_queued: rotate.revoke_queued,
                author: principal.author(),
            };
            match self.store.rotate_secret(principal.tenant, id, rotation).await {
                Ok(endpoint) => {
                    tracing::info!(endpoint_id = %id, version = version.0, "secret rotated");
                    return Ok(EndpointWithSecret { endpoint: seen_by(principal, endpoint), secret });
                }
                Err(RotateSecretError::SecretVersionChanged) => {}
                Err(RotateSecretError::NotFound) => return Err(ServiceError::NotFound),
                Err(RotateSecretError::Store(error)) => return Err(error.into()),
            }
        }
        Err(ServiceError::Conflict(ROTATED_BY_OTHERS.to_owned()))
    }

    /// As [`Self::rotate_secret`], for a request that may come twice: a form that is sent by a double click. The second
    /// request gets the first answer. If the process dies before the answer is recorded, the second is refused because
    /// of [`RotateSecret::replaces`].
    ///
    /// # Errors
    /// As [`Self::rotate_secret`].
    pub async fn rotate_secret_once(
        &self,
        principal: &Principal,
        id: EndpointId,
        rotate: RotateSecret,
        idempotent: &Idempotent<EndpointWithSecret>,
    ) -> Result<EndpointWithSecret, WriteError> {
        let rotated = self.rotate_secret(principal, id, rotate).await?;
        idempotent.record_sealed_answer(&rotated).await?;
        Ok(rotated)
    }

    /// The version of the secret that signs now.
    ///
    /// # Errors
    /// Without the permission, or when this workspace has no such endpoint.
    pub async fn secret_version(&self, principal: &Principal, id: EndpointId) -> Result<SecretVersion, ServiceError> {
        principal.require(Permission::SecretsRotate)?;
        self.store.secret_version(principal.tenant, id).await?.ok_or(ServiceError::NotFound)
    }

    /// Sends the catalogue's example of one event to this endpoint alone, also when the endpoint is not active.
    ///
    /// # Errors
    /// Without the scope, when this workspace has no such endpoint, or when it is not subscribed to the event.
    pub async fn test_endpoint(
        &self,
        principal: &Principal,
        id: EndpointId,
        event: Option<EventTypeName>,
        idempotent: &Idempotent<Delivery>,
    ) -> Result<Delivery, WriteError> {
        principal.require(Permission::EndpointsTest)?;
        self.check_sends()?;
        let endpoint = self.get_endpoint(principal, id).await?;
        if endpoint.listener.is_some() {
            return Err(ServiceError::Conflict(NO_TESTS_OF_LISTENERS.to_owned()).into());
        }
        let name = match event {
            Some(name) if endpoint.events.contains(&name) => name,
            Some(_) => {
                let fault = "must be one that the endpoint is subscribed to";
                return Err(ServiceError::unprocessable("event", fault).into());
            }
            None => endpoint.events.first().cloned().ok_or(ServiceError::NotFound)?,
        };
        let example = self.catalogue.types().iter().find(|event| event.name == name).map(|event| &event.example);
        let example =
            example.ok_or_else(|| ServiceError::unprocessable("event", "is not in the catalogue any more"))?;
        let project_id = endpoint.project_id.as_deref().and_then(|project| ProjectId::parse(project).ok());
        let event = PublishEvent {
            event_type: name,
            data: example.clone(),
            project_id,
            external_id: None,
            occurred_at: None,
            body_hash: [0; 32],
            trace: None,
        };
        let recording = idempotent.recording(Delivery::clone);
        let event = self.prepared(principal, event);
        let accepted = self.store.accept_test(write_by(principal, recording), id, event).await;
        let written = accepted.map_err(requeue_error)?;
        idempotent.finish(written)
    }

    /// Checks that the URL may be called. Plain `http` is a fault of the request unless the operator allowed it for the
    /// host.
    async fn vet_url(&self, url: &EndpointUrl, requester: Requester) -> Result<(), ServiceError> {
        if !url.is_https() && !self.guard.allows_plain_http(url.url(), requester) {
            return Err(ServiceError::invalid("url", NOT_HTTPS));
        }
        match self.guard.vet(url.url(), requester).await {
            Ok(()) => Ok(()),
            Err(VettingError::NoNameServer) => {
                tracing::error!("cannot look up the host of an endpoint: no name server (--dns-server) can be asked");
                Err(ServiceError::Unavailable { source: None })
            }
            Err(VettingError::Refused(refusal)) if refusal.reason == RefusalReason::PlainHttp => {
                Err(ServiceError::invalid("url", NOT_HTTPS))
            }
            Err(VettingError::Refused(refusal)) => {
                tracing::info!(host = refusal.host, reason = %refusal.reason, "the URL of an endpoint was refused");
                Err(ServiceError::SsrfBlocked(refusal))
            }
        }
    }
}

pub(crate) fn create_error(error: CreateEndpointError) -> ServiceError {
    match error {
        CreateEndpointError::Store(error) => error.into(),
        CreateEndpointError::NothingToKeep(name) => nothing_to_keep(&name),
        CreateEndpointError::ProjectFull(limit) => full("project", limit),
        CreateEndpointError::WorkspaceFull(limit) => full("workspace", limit),
    }
}

/// A listener has neither a URL nor the options of requests.
fn check_change_of_listener(change: &EndpointChange, private: &PrivateOptions) -> Result<(), ServiceError> {
    let EndpointChange { url, options, project_id, .. } = change;
    let OptionsChange { ordering, .. } = options.clone();
    let only_order = *options == OptionsChange { ordering, ..OptionsChange::default() };
    let refused = [
        ("url", url.is_some()),
        ("projectId", project_id.is_some()),
        ("headers", private.headers.is_some() || private.client_certificate.is_some() || !only_order),
    ];
    match refused.iter().find(|(_, is_given)| *is_given) {
        None => Ok(()),
        Some((name, _)) => Err(ServiceError::unprocessable(name, "cannot be set for a listener")),
    }
}

fn full(owner: &str, limit: u32) -> ServiceError {
    ServiceError::Conflict(format!("The {owner} has {limit} endpoints, the most it may have."))
}
