//! An event and its envelope. The envelope is rendered once, when the event is published, and sent unchanged.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Mode;
use super::delivery::EndReason;
use super::endpoint::{OpaqueId, ProjectId};
use super::event_type::EventTypeName;
use super::id::{DeliveryId, EndpointId, EventId, WorkspaceId};
use super::list_filter::{ListFilter, ReadEventName, add_pair, instant, values};
use super::payload::PayloadState;
use super::tenant::Tenant;
use super::time::Timestamp;
use super::trace_context::TraceContext;

/// The API version of envelopes, and of requests that name none.
pub const API_VERSION: &str = "2026-08-01";

/// An event that is not yet accepted.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub id: EventId,
    pub tenant: Tenant,
    pub event_type: EventTypeName,
    pub project_id: Option<ProjectId>,
    pub external_id: Option<OpaqueId>,
    pub occurred_at: Option<Timestamp>,
    /// SHA-256 of the canonical body: distinguishes a repeated publish from a conflicting one.
    pub body_hash: [u8; 32],
    /// The bytes that every attempt sends.
    pub envelope: Bytes,
    /// Its data does not fit the schema of its type, and the catalogue says to accept and count that.
    pub is_misfit: bool,
    /// The trace that its attempts belong to.
    pub trace: Option<TraceContext>,
}

/// The answer to a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventReceipt {
    pub id: EventId,
    pub external_id: Option<String>,
    pub event_type: EventTypeName,
    pub project_id: Option<String>,
    /// Deliveries that the event created, without those of skipped endpoints.
    pub deliveries: u32,
    /// The `externalId` was accepted before, so this repeats the first answer.
    pub replayed: bool,
}

/// An event as a list shows it.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: EventId,
    pub event_type: EventTypeName,
    pub project_id: Option<String>,
    pub external_id: Option<String>,
    pub mode: Mode,
    pub occurred_at: Option<Timestamp>,
    pub deliveries: u32,
    /// No endpoint subscribed to it when it was accepted, not even an inactive one.
    pub matched_none: bool,
    /// Whether the envelope is still stored.
    pub payload: PayloadState,
}

/// An event with everything that is stored about it.
#[derive(Clone, Debug)]
pub struct EventDetail {
    pub event: Event,
    pub skipped: Vec<SkippedEndpoint>,
    /// Empty unless the payload is kept.
    pub envelope: Bytes,
}

/// A matching endpoint that was skipped, with the reason.
#[derive(Clone, Debug)]
pub struct SkippedEndpoint {
    pub endpoint_id: EndpointId,
    pub delivery_id: DeliveryId,
    pub reason: EndReason,
}

/// The filter of a list of events. A parameter without values passes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    pub event_types: Vec<EventTypeName>,
    pub project_ids: Vec<ProjectId>,
    pub external_ids: Vec<OpaqueId>,
    /// Only events that matched no endpoint.
    pub matched_none: bool,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
}

impl ListFilter for EventFilter {
    const NAMES: &'static [&'static str] = &["type", "projectId", "externalId", "deliveries", "since", "until"];

    fn set(&mut self, name: &str, text: &str, read_event: ReadEventName<'_>) -> Result<(), String> {
        match name {
            "type" => self.event_types = values(text, read_event)?,
            "projectId" => self.project_ids = values(text, ProjectId::parse)?,
            "externalId" => self.external_ids = values(text, OpaqueId::parse)?,
            "deliveries" if text == NO_DELIVERIES => self.matched_none = true,
            "deliveries" => return Err(format!("must be {NO_DELIVERIES}")),
            "since" => self.since = Some(instant(text)?),
            "until" => self.until = Some(instant(text)?),
            _ => return Err("is not a known parameter".to_owned()),
        }
        Ok(())
    }

    fn pairs(&self) -> Vec<(&'static str, String)> {
        let mut pairs = Vec::new();
        add_pair(&mut pairs, "type", &self.event_types, ToString::to_string);
        add_pair(&mut pairs, "projectId", &self.project_ids, |project| project.as_str().to_owned());
        add_pair(&mut pairs, "externalId", &self.external_ids, |id| id.as_str().to_owned());
        let none = self.matched_none.then_some(NO_DELIVERIES);
        add_pair(&mut pairs, "deliveries", none.as_slice(), ToString::to_string);
        add_pair(&mut pairs, "since", self.since.as_slice(), ToString::to_string);
        add_pair(&mut pairs, "until", self.until.as_slice(), ToString::to_string);
        pairs
    }
}

/// The value of `deliveries` that asks for events which matched no endpoint.
const NO_DELIVERIES: &str = "none";

/// The fields of an envelope beside `data`.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeFields<'e> {
    pub id: EventId,
    pub event_type: &'e EventTypeName,
    pub timestamp: Timestamp,
    pub workspace_id: WorkspaceId,
    pub project_id: Option<&'e ProjectId>,
}

/// The body that receivers get. It contains the bytes of `data` as received, never serialised again.
pub fn render_envelope(fields: EnvelopeFields<'_>, data: &RawValue) -> Bytes {
    let EnvelopeFields { id, event_type, timestamp, workspace_id, project_id } = fields;
    let project = project_id.map_or_else(|| "null".to_owned(), |project| format!("\"{}\"", project.as_str()));
    // Ids, names and timestamps contain no character that JSON escapes.
    let head = format!(
        "{{\"id\":\"{id}\",\"type\":\"{event_type}\",\"timestamp\":\"{timestamp}\",\"apiVersion\":\"{API_VERSION}\",\
         \"workspaceId\":\"{workspace_id}\",\"projectId\":{project},\"data\":"
    );
    let mut envelope = String::with_capacity(head.len() + data.get().len() + 1);
    envelope.push_str(&head);
    envelope.push_str(data.get());
    envelope.push('}');
    Bytes::from(envelope)
}

/// The bytes of `data` in an envelope.
pub fn data_of(envelope: &[u8]) -> Option<&RawValue> {
    #[derive(Deserialize)]
    struct Envelope<'e> {
        #[serde(borrow)]
        data: &'e RawValue,
    }
    serde_json::from_slice::<Envelope<'_>>(envelope).ok().map(|envelope| envelope.data)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{RowKey, StoreTag};

    #[test]
    fn an_envelope_keeps_the_bytes_of_data_and_its_field_order() {
        let data: Box<RawValue> =
            serde_json::from_str("{\"b\": 1.0,  \"a\":9007199254740993, \"\\u0041\":\"\u{e9}\"}").unwrap();
        let fields = EnvelopeFields {
            id: EventId::new(RowKey::from_i64(0), StoreTag::from_u32(0)),
            event_type: &EventTypeName::from_stored("post.created"),
            timestamp: Timestamp::from_millis(1_778_833_260_000),
            workspace_id: WorkspaceId::from_letters(*b"a1b2c3d4e5f6g7h8"),
            project_id: None,
        };
        let envelope = render_envelope(fields, &data);
        assert_eq!(data_of(&envelope).unwrap().get(), data.get());
        assert_eq!(
            std::str::from_utf8(&envelope).unwrap(),
            "{\"id\":\"evt_00000000000000000000\",\"type\":\"post.created\",\"timestamp\":\"2026-05-15T08:21:00.000Z\",\
             \"apiVersion\":\"2026-08-01\",\"workspaceId\":\"org_a1b2c3d4e5f6g7h8\",\"projectId\":null,\
             \"data\":{\"b\": 1.0,  \"a\":9007199254740993, \"\\u0041\":\"\u{e9}\"}}"
        );
    }
}
