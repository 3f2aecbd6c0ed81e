//! Publishing: an event is accepted once it and its deliveries are on disk.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::value::RawValue;

use postrider_domain::access::{Principal, needs};
use postrider_domain::endpoint::{OpaqueId, ProjectId};
use postrider_domain::event::{
    EnvelopeFields, Event, EventDetail, EventFilter, EventReceipt, NewEvent, render_envelope,
};
use postrider_domain::event_type::{EventTypeName, Validation};
use postrider_domain::id::EventId;
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::time::Timestamp;
use postrider_store::AcceptError;

use super::{Idempotent, Service, ServiceError, WriteError};

/// An event to be published.
#[derive(Debug)]
pub struct PublishEvent {
    pub event_type: EventTypeName,
    /// The bytes as they came.
    pub data: Box<RawValue>,
    pub project_id: Option<ProjectId>,
    pub external_id: Option<OpaqueId>,
    pub occurred_at: Option<Timestamp>,
    /// SHA-256 of the canonical form of the whole event; needed only with an `externalId`.
    pub body_hash: [u8; 32],
}

/// How the events of a request are called in its faults.
#[derive(Clone, Copy)]
enum Naming {
    Alone,
    Numbered,
}

impl Naming {
    fn of(self, index: usize, parameter: &str) -> String {
        match self {
            Self::Alone => parameter.to_owned(),
            Self::Numbered => format!("events[{index}].{parameter}"),
        }
    }
}

/// Above this, preparing a batch takes long enough to keep others waiting, so it leaves the thread that answers them.
const PREPARE_ASIDE_BYTES: usize = 256 * 1024;

impl Service {
    /// Accepts an event. Its receipt is the only one.
    ///
    /// # Errors
    /// Without the scope, when `data` does not fit a schema that rejects, when the `externalId` was used with other
    /// content, or when too many deliveries would come of it.
    pub async fn publish_event(
        self: &Arc<Self>,
        principal: &Principal,
        event: PublishEvent,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        self.publish(principal, vec![event], Naming::Alone, idempotent).await
    }

    /// Accepts all events or none. The receipts are in the order of the events.
    ///
    /// # Errors
    /// As [`Self::publish_event`], and when two events have one `externalId`.
    pub async fn publish_batch(
        self: &Arc<Self>,
        principal: &Principal,
        events: Vec<PublishEvent>,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        self.publish(principal, events, Naming::Numbered, idempotent).await
    }

    async fn publish(
        self: &Arc<Self>,
        principal: &Principal,
        events: Vec<PublishEvent>,
        naming: Naming,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        principal.require(needs::PUBLISH)?;
        let bytes: usize = events.iter().map(|event| event.data.get().len()).sum();
        let events = if bytes > PREPARE_ASIDE_BYTES {
            let (service, principal) = (Arc::clone(self), principal.clone());
            let prepare = move || service.prepare(&principal, events, naming);
            let prepared = tokio::task::spawn_blocking(prepare).await;
            prepared.map_err(|error| ServiceError::Internal { source: Box::new(error) })??
        } else {
            self.prepare(principal, events, naming)?
        };
        let recording = idempotent.recording(Vec::clone);
        let written = self.store.accept_events(events, recording).await.map_err(|error| match error {
            AcceptError::Store(error) => error.into(),
            AcceptError::ExternalIdReused { index } => {
                let name = naming.of(index, "externalId");
                ServiceError::IdempotencyKeyConflict(
                    format!("The {name} was published before with other content.").into(),
                )
            }
            AcceptError::TooManyDeliveries { count, max } => ServiceError::Unprocessable {
                message: format!("The request would create {count} deliveries, more than {max}."),
                parameters: Vec::new(),
            },
        })?;
        idempotent.finish(written)
    }

    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_events(
        &self,
        principal: &Principal,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, ServiceError> {
        principal.require(needs::EVENTS_READ)?;
        Ok(self.store.list_events(principal.workspace_key, filter, page).await?)
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such event.
    pub async fn get_event(&self, principal: &Principal, id: EventId) -> Result<EventDetail, ServiceError> {
        principal.require(needs::EVENTS_READ)?;
        self.store.find_event(principal.workspace_key, id).await?.ok_or(ServiceError::NotFound)
    }

    fn prepare(
        &self,
        principal: &Principal,
        events: Vec<PublishEvent>,
        naming: Naming,
    ) -> Result<Vec<NewEvent>, ServiceError> {
        self.check_data(principal, &events, naming)?;
        check_external_ids(&events, naming)?;
        Ok(events.into_iter().map(|event| self.prepared(principal, event)).collect())
    }

    /// Holds `data` against the catalogue. What a name only records is noted in the log and let through.
    fn check_data(&self, principal: &Principal, events: &[PublishEvent], naming: Naming) -> Result<(), ServiceError> {
        let mut parameters = Vec::new();
        for (index, event) in events.iter().enumerate() {
            let Some(event_type) = self.catalogue.find(event.event_type.as_str()) else { continue };
            let misfits = || event_type.misfits(&event.data);
            match event_type.validation {
                Validation::Reject => {
                    let faults = misfits().into_iter().map(|misfit| (naming.of(index, &misfit.path), misfit.fault));
                    parameters.extend(faults);
                }
                Validation::Record if event_type.fits(&event.data) => {}
                Validation::Record => {
                    let first = || misfits().into_iter().next();
                    self.misfits.note(principal.workspace_id, &event_type.name, self.clock.now(), first);
                }
            }
            if parameters.len() >= limits::FAULTS_TOLD {
                break;
            }
        }
        if parameters.is_empty() { Ok(()) } else { Err(ServiceError::InvalidRequest { parameters }) }
    }

    /// The event with its id and its envelope.
    pub(super) fn prepared(&self, principal: &Principal, event: PublishEvent) -> NewEvent {
        let id = EventId::new(self.store.next_key(), self.store.tag());
        let envelope = render_envelope(
            EnvelopeFields {
                id,
                event_type: &event.event_type,
                timestamp: event.occurred_at.unwrap_or(id.created_at()),
                workspace_id: principal.workspace_id,
                project_id: event.project_id.as_ref(),
            },
            &event.data,
        );
        NewEvent {
            id,
            workspace_key: principal.workspace_key,
            mode: principal.mode,
            event_type: event.event_type,
            project_id: event.project_id,
            external_id: event.external_id,
            occurred_at: event.occurred_at,
            body_hash: event.body_hash,
            envelope,
        }
    }
}

/// The store answers one `externalId` once, so two events with the same one contradict each other.
fn check_external_ids(events: &[PublishEvent], naming: Naming) -> Result<(), ServiceError> {
    let mut first_with = HashMap::new();
    let mut parameters = Vec::new();
    for (index, event) in events.iter().enumerate() {
        let Some(external_id) = &event.external_id else { continue };
        if let Some(first) = first_with.insert(external_id.as_str(), index) {
            parameters
                .push((naming.of(index, "externalId"), format!("is the same as {}", naming.of(first, "externalId"))));
        }
    }
    parameters.truncate(limits::FAULTS_TOLD);
    match parameters.first() {
        None => Ok(()),
        Some((name, fault)) => Err(ServiceError::Unprocessable { message: format!("{name}: {fault}."), parameters }),
    }
}
