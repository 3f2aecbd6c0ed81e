//! An event, and the envelope that carries it: rendered once, when it is accepted.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Mode;
use super::delivery::EndReason;
use super::endpoint::{OpaqueId, ProjectId};
use super::event_type::EventTypeName;
use super::id::{DeliveryId, EndpointId, EventId, WorkspaceId};
use super::tenant::Tenant;
use super::time::Timestamp;

/// The API version that envelopes carry and that requests get when they name none.
pub const API_VERSION: &str = "2026-08-01";

/// An event that waits to be accepted.
#[derive(Clone, Debug)]
pub struct NewEvent {
    pub id: EventId,
    pub tenant: Tenant,
    pub event_type: EventTypeName,
    pub project_id: Option<ProjectId>,
    pub external_id: Option<OpaqueId>,
    pub occurred_at: Option<Timestamp>,
    /// SHA-256 of the canonical form of what was published: tells a repeat from a contradiction.
    pub body_hash: [u8; 32],
    /// The bytes that every attempt sends.
    pub envelope: Bytes,
}

/// What a publisher is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventReceipt {
    pub id: EventId,
    pub external_id: Option<String>,
    pub event_type: EventTypeName,
    pub project_id: Option<String>,
    /// How many deliveries the event set off; endpoints that were skipped are not among them.
    pub deliveries: u32,
    /// The `externalId` had been accepted before: this is the first answer again.
    pub replayed: bool,
}

/// An event as it is listed.
#[derive(Clone, Debug)]
pub struct Event {
    pub id: EventId,
    pub event_type: EventTypeName,
    pub project_id: Option<String>,
    pub external_id: Option<String>,
    pub mode: Mode,
    pub occurred_at: Option<Timestamp>,
    pub deliveries: u32,
    /// It was no endpoint's business when it was accepted, not even that of one that is off.
    pub matched_none: bool,
}

/// An event with all that is kept of it.
#[derive(Clone, Debug)]
pub struct EventDetail {
    pub event: Event,
    pub skipped: Vec<SkippedEndpoint>,
    pub envelope: Bytes,
}

/// A matching endpoint that did not get the event, and why.
#[derive(Clone, Debug)]
pub struct SkippedEndpoint {
    pub endpoint_id: EndpointId,
    pub delivery_id: DeliveryId,
    pub reason: EndReason,
}

/// Which events a list shows.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    pub event_type: Option<EventTypeName>,
    pub project_id: Option<ProjectId>,
    pub external_id: Option<OpaqueId>,
    /// Created at or after.
    pub since: Option<Timestamp>,
    /// Created before.
    pub until: Option<Timestamp>,
}

/// What stands in an envelope beside `data`.
#[derive(Clone, Copy, Debug)]
pub struct EnvelopeFields<'e> {
    pub id: EventId,
    pub event_type: &'e EventTypeName,
    pub timestamp: Timestamp,
    pub workspace_id: WorkspaceId,
    pub project_id: Option<&'e ProjectId>,
}

/// The body that receivers get. `data` stands in it as the bytes received, never re-serialised.
pub fn render_envelope(fields: EnvelopeFields<'_>, data: &RawValue) -> Bytes {
    let EnvelopeFields { id, event_type, timestamp, workspace_id, project_id } = fields;
    let project = project_id.map_or_else(|| "null".to_owned(), |project| format!("\"{}\"", project.as_str()));
    // Ids, names and instants hold no character that JSON escapes.
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

/// The bytes of `data` in an envelope, as they were received.
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
    fn the_envelope_keeps_the_bytes_of_data_and_the_order_of_its_fields() {
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
