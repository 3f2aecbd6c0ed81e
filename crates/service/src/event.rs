//! Events: publish, list, get. An event is accepted once it and its deliveries are on disk.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::value::RawValue;

use postrider_domain::access::Principal;
use postrider_domain::delivery::{DeliveryCause, DeliveryFilter};
use postrider_domain::endpoint::{EndpointFilter, OpaqueId, ProjectId};
use postrider_domain::event::{
    EnvelopeFields, Event, EventDetail, EventFilter, EventReceipt, NewEvent, render_envelope,
};
use postrider_domain::event_type::{Catalogue, EventTypeName, Validation};
use postrider_domain::id::{EndpointId, EventId};
use postrider_domain::limits;
use postrider_domain::not_reached::{ConfiguredAs, NotReached};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::payload::PayloadState;
use postrider_domain::permission::Permission;
use postrider_domain::span::PublishTrace;
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;
use postrider_metrics::{DeduplicatedBy, PublishKind};
use postrider_store::AcceptError;

use crate::blocking::run_blocking;
use crate::error::ServiceError;
use crate::event_name::subscribable_event;
use crate::fields::{Fields, object, string};
use crate::idempotency::{Idempotent, WriteError};
use crate::json_body::JsonBody;
use crate::service::Service;

/// An endpoint that did not get an event.
#[derive(Clone, Copy, Debug)]
pub struct OtherEndpoint {
    pub endpoint_id: EndpointId,
    pub reason: NotReached,
    /// Which configuration of the endpoint the reason is about.
    pub configured_as: ConfiguredAs,
}

/// An event to publish.
#[derive(Debug)]
pub struct PublishEvent {
    pub event_type: EventTypeName,
    /// The bytes that the publisher sent.
    pub data: Box<RawValue>,
    pub project_id: Option<ProjectId>,
    pub external_id: Option<OpaqueId>,
    pub occurred_at: Option<Timestamp>,
    /// SHA-256 of the canonical form of the whole event. Zeros without an `externalId`, which alone needs it.
    pub body_hash: [u8; 32],
    /// The trace that the publisher named. A source of events sets it after it has parsed the event.
    pub trace: Option<TraceContext>,
}

impl PublishEvent {
    /// Parses a body that is one event. Every source of events uses it.
    ///
    /// # Errors
    /// All faults of the event together.
    pub fn parse(catalogue: &Catalogue, body: &JsonBody) -> Result<Self, ServiceError> {
        Self::from_fields(catalogue, body.fields()?, || body.hash())
    }

    /// Parses an event that is part of a body. `hash` returns the SHA-256 of the event's canonical form.
    ///
    /// # Errors
    /// All faults of the event together.
    pub fn from_fields(
        catalogue: &Catalogue,
        mut fields: Fields<'_>,
        hash: impl FnOnce() -> [u8; 32],
    ) -> Result<Self, ServiceError> {
        let event_type = fields.required("type", string(|name| subscribable_event(catalogue, name)));
        let data = fields.required("data", object);
        let project_id = fields.nullable("projectId", string(ProjectId::parse));
        let external_id = fields.nullable("externalId", string(OpaqueId::parse));
        let occurred_at = fields.nullable("occurredAt", string(Timestamp::parse));
        let (event_type, data) = fields.finish_with(event_type.zip(data))?;
        let body_hash = external_id.as_ref().map(|_| hash()).unwrap_or_default();
        Ok(Self { event_type, data, project_id, external_id, occurred_at, body_hash, trace: None })
    }
}

/// How faults name a parameter of an event.
#[derive(Clone, Copy)]
pub(crate) enum Naming {
    /// The request is one event: `data.x`.
    Alone,
    /// The request is a batch: `events[3].data.x`.
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

/// A larger batch is prepared on a thread for blocking work, so that it does not delay other requests.
const PREPARE_BLOCKING_BYTES: usize = 256 * 1024;

impl Service {
    /// Accepts an event. The list holds one receipt.
    ///
    /// # Errors
    /// Without the scope, when `data` violates a schema that rejects, when the `externalId` was used with other
    /// content, or when the event would create too many deliveries.
    pub async fn publish_event(
        self: &Arc<Self>,
        principal: &Principal,
        event: PublishEvent,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        self.publish_traced(principal, vec![event], Naming::Alone, idempotent).await
    }

    /// Accepts all events or none. The receipts are in the order of the events.
    ///
    /// # Errors
    /// As [`Self::publish_event`], and when two events have the same `externalId`.
    pub async fn publish_batch(
        self: &Arc<Self>,
        principal: &Principal,
        events: Vec<PublishEvent>,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        self.publish_traced(principal, events, Naming::Numbered, idempotent).await
    }

    async fn publish_traced(
        self: &Arc<Self>,
        principal: &Principal,
        mut events: Vec<PublishEvent>,
        naming: Naming,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        if !self.tracing.is_on() {
            return self.publish(principal, events, naming, idempotent).await;
        }
        let traces = self.begin_traces(&mut events);
        let (started_at, started) = (self.clock.now(), Instant::now());
        let published = self.publish(principal, events, naming, idempotent).await;
        self.end_traces(principal, &traces, &published, started_at, started.elapsed());
        published
    }

    /// Events that follow each other with the same context share a span. Returns the trace and the number of events of
    /// each.
    fn begin_traces(&self, events: &mut [PublishEvent]) -> Vec<(PublishTrace, usize)> {
        let traced = events.chunk_by_mut(|one, next| one.trace == next.trace).map(|events| {
            let given = events.first().and_then(|event| event.trace);
            let trace = self.tracing.publish(given, &self.random);
            events.iter_mut().for_each(|event| event.trace = trace.stored);
            (trace, events.len())
        });
        traced.collect()
    }

    fn end_traces(
        &self,
        principal: &Principal,
        traces: &[(PublishTrace, usize)],
        published: &Result<Vec<EventReceipt>, WriteError>,
        started_at: Timestamp,
        took: Duration,
    ) {
        let (mut receipts, error) = match published {
            Ok(receipts) => (&receipts[..], None),
            Err(WriteError::Refused(error)) => (&[][..], Some(error.to_string())),
            // Nothing was published.
            Err(WriteError::AnsweredBefore { .. }) => return,
        };
        for (trace, count) in traces {
            let (of_trace, others) = receipts.split_at_checked(*count).unwrap_or_default();
            receipts = others;
            self.tracing.end_publish(trace, started_at, |span| {
                span.duration = took;
                span.error.clone_from(&error);
                span.attributes.push(("postrider.workspace_id", principal.workspace_id.to_string().into()));
                span.attributes.push(("postrider.events", u32::try_from(*count).unwrap_or(u32::MAX).into()));
                if let [receipt] = of_trace {
                    span.attributes.push(("postrider.event_id", receipt.id.to_string().into()));
                    span.attributes.push(("postrider.event_type", receipt.event_type.as_str().into()));
                }
                let deliveries: u32 = of_trace.iter().map(|receipt| receipt.deliveries).sum();
                span.attributes.push(("postrider.deliveries", deliveries.into()));
            });
        }
    }

    async fn publish(
        self: &Arc<Self>,
        principal: &Principal,
        events: Vec<PublishEvent>,
        naming: Naming,
        idempotent: &Idempotent<Vec<EventReceipt>>,
    ) -> Result<Vec<EventReceipt>, WriteError> {
        principal.require(Permission::EventsPublish)?;
        self.check_sends()?;
        let started = Instant::now();
        let bytes: usize = events.iter().map(|event| event.data.get().len()).sum();
        let events = if bytes > PREPARE_BLOCKING_BYTES {
            let (service, principal) = (Arc::clone(self), principal.clone());
            run_blocking(move || service.prepare(&principal, events, naming)).await?
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
            AcceptError::WorkspaceFull { max } => ServiceError::WorkspaceFull { max },
            AcceptError::TooManyDeliveries { count, max } => ServiceError::Unprocessable {
                message: format!("The request would create {count} deliveries, more than {max}."),
                parameters: Vec::new(),
            },
        })?;
        let receipts = idempotent.finish(written)?;
        self.measure_publish(&receipts, naming, started.elapsed());
        Ok(receipts)
    }

    fn measure_publish(&self, receipts: &[EventReceipt], naming: Naming, took: Duration) {
        let kind = match naming {
            Naming::Alone => PublishKind::Single,
            Naming::Numbered => PublishKind::Batch,
        };
        self.metrics.publish_seconds.observe(kind, took);
        let repeated = receipts.iter().filter(|receipt| receipt.replayed).count();
        self.metrics.deduplicated.add(DeduplicatedBy::ExternalId, repeated as u64);
    }

    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_events(
        &self,
        principal: &Principal,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, ServiceError> {
        principal.require(Permission::EventsRead)?;
        Ok(self.store.list_events(principal.tenant, filter, page).await?)
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such event.
    pub async fn get_event(&self, principal: &Principal, id: EventId) -> Result<EventDetail, ServiceError> {
        principal.require(Permission::EventsRead)?;
        self.store.find_event(principal.tenant, id).await?.ok_or(ServiceError::NotFound)
    }

    /// An event with the bytes that receivers get, for callers that may see payloads but not list events.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such event, or no longer.
    pub async fn get_payload(&self, principal: &Principal, id: EventId) -> Result<(Event, Bytes), ServiceError> {
        principal.require(Permission::PayloadsRead)?;
        let found = self.store.find_event(principal.tenant, id).await?.ok_or(ServiceError::NotFound)?;
        if !principal.sees(&found.event.event_type) || found.event.payload != PayloadState::Kept {
            return Err(ServiceError::NotFound);
        }
        Ok((found.event, found.envelope))
    }

    /// The endpoints that have no delivery of the event, newest first, each with the reason. Deleted endpoints are not
    /// among them, and those of the other mode do not exist for the caller.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such event.
    pub async fn list_other_endpoints(
        &self,
        principal: &Principal,
        id: EventId,
        page: PageRequest,
    ) -> Result<Page<OtherEndpoint>, ServiceError> {
        let EventDetail { event, .. } = self.get_event(principal, id).await?;
        // All deliveries of a test are tests, also its retries. An event has none of them.
        let deliveries = DeliveryFilter { event_ids: vec![id], ..DeliveryFilter::default() };
        let deliveries = self.store.list_deliveries(principal.tenant, deliveries, PageRequest::FIRST).await?;
        let is_test = deliveries.items.iter().any(|delivery| delivery.cause == DeliveryCause::Test);
        let others = EndpointFilter { not_reached_by: Some(id), ..EndpointFilter::default() };
        let endpoints = self.store.list_endpoints(principal.tenant, others, page).await?;
        Ok(endpoints.map(|endpoint| {
            let (reason, configured_as) = NotReached::of(&endpoint, &event, is_test);
            OtherEndpoint { endpoint_id: endpoint.id, reason, configured_as }
        }))
    }

    fn prepare(
        &self,
        principal: &Principal,
        events: Vec<PublishEvent>,
        naming: Naming,
    ) -> Result<Vec<NewEvent>, ServiceError> {
        let misfits = self.check_data(principal, &events, naming)?;
        check_external_ids(&events, naming)?;
        let prepared = events.into_iter().zip(misfits);
        Ok(prepared.map(|(event, is_misfit)| NewEvent { is_misfit, ..self.prepared(principal, event) }).collect())
    }

    /// Checks `data` against the schemas. Where the catalogue says `record`, a violation is logged and accepted: the
    /// answer says of each event whether it is such a misfit.
    pub(crate) fn check_data(
        &self,
        principal: &Principal,
        events: &[PublishEvent],
        naming: Naming,
    ) -> Result<Vec<bool>, ServiceError> {
        let (mut parameters, mut misfits) = (Vec::new(), vec![false; events.len()]);
        for (index, event) in events.iter().enumerate() {
            let Some(event_type) = self.catalogue.find(event.event_type.as_str()) else { continue };
            let violations = || event_type.violations(&event.data);
            match event_type.validation {
                Validation::Reject => {
                    let faults =
                        violations().into_iter().map(|violation| (naming.of(index, &violation.path), violation.text));
                    parameters.extend(faults);
                }
                Validation::Record if event_type.fits(&event.data) => {}
                Validation::Record => {
                    let first = || violations().into_iter().next();
                    misfits[index] = true;
                    self.violations.report(principal.workspace_id, &event_type.name, self.clock.now(), first);
                }
            }
            if parameters.len() >= limits::VIOLATIONS_SHOWN {
                break;
            }
        }
        if parameters.is_empty() { Ok(misfits) } else { Err(ServiceError::InvalidRequest { parameters }) }
    }

    /// Gives the event its id and renders its envelope.
    pub(crate) fn prepared(&self, principal: &Principal, event: PublishEvent) -> NewEvent {
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
            tenant: principal.tenant,
            event_type: event.event_type,
            project_id: event.project_id,
            external_id: event.external_id,
            occurred_at: event.occurred_at,
            body_hash: event.body_hash,
            envelope,
            is_misfit: false,
            trace: event.trace,
        }
    }
}

/// One `externalId` has one receipt, so two events of a batch must not share it.
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
    parameters.truncate(limits::VIOLATIONS_SHOWN);
    match parameters.first() {
        None => Ok(()),
        Some((name, fault)) => Err(ServiceError::Unprocessable { message: format!("{name}: {fault}."), parameters }),
    }
}
