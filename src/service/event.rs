//! Publishing: an event is accepted once it and its deliveries are on disk.

use std::sync::Arc;

use serde_json::value::RawValue;

use crate::domain::access::{Principal, needs};
use crate::domain::endpoint::{OpaqueId, ProjectId};
use crate::domain::event::{EnvelopeFields, EventReceipt, NewEvent, render_envelope};
use crate::domain::event_type::EventTypeName;
use crate::domain::id::EventId;
use crate::domain::time::Timestamp;
use crate::store::AcceptError;

use super::idempotency::Seal;
use super::{Outcome, Remember, Service, ServiceError};

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

impl Service {
    /// Accepts all events or none.
    ///
    /// # Errors
    /// Without the scope, when an `externalId` was used with other content, or when too many deliveries would come of it.
    pub async fn publish_events(
        self: &Arc<Self>,
        principal: &Principal,
        events: Vec<PublishEvent>,
        remember: Option<Remember<Vec<EventReceipt>>>,
    ) -> Result<Outcome<Vec<EventReceipt>>, ServiceError> {
        principal.require(needs::PUBLISH)?;
        let events = events.into_iter().map(|event| self.prepared(principal, event)).collect();
        let request = remember.as_ref().map(|remember| remember.request.clone());
        let recording = self.recording(remember.as_ref(), Seal::Plain, Vec::clone);
        let written = self.store.accept_events(events, recording).await.map_err(|error| match error {
            AcceptError::Store(error) => error.into(),
            AcceptError::ExternalIdReused { .. } => {
                ServiceError::IdempotencyKeyConflict("The externalId was published before with other content.")
            }
            AcceptError::TooManyDeliveries { count, max } => ServiceError::Unprocessable {
                message: format!("The request would create {count} deliveries, more than {max}."),
                parameters: Vec::new(),
            },
        })?;
        self.waker.wake();
        self.outcome(request.as_ref(), written)
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
