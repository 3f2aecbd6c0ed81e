//! Operational events: reports to the operator about endpoints, deliveries and the disk.
//!
//! The same engine signs and delivers them, to the operator's own endpoint. Their names are not in the catalogue, so no
//! customer can subscribe to them.

use serde::Serialize;
use serde_json::value::RawValue;

use super::event_type::EventTypeName;
use super::id::{DeliveryId, EndpointId, EventId, WorkspaceId};
use super::time::Timestamp;

/// The name that the workspace of operational events is shown with. A column of the store tells which one it is.
pub const OPERATIONS_WORKSPACE: &str = "operations";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationalEvent {
    /// Consecutive attempts failed. Sent again a day before the endpoint is switched off.
    EndpointFailing,
    EndpointPaused,
    EndpointDisabled,
    /// An attempt succeeded after the endpoint had been failing or paused.
    EndpointRecovered,
    /// A delivery's schedule has no step left.
    DeliveryExhausted,
    /// The disk has got fuller, or has room again.
    DiskState,
}

impl OperationalEvent {
    pub const ALL: [Self; 6] = [
        Self::EndpointFailing,
        Self::EndpointPaused,
        Self::EndpointDisabled,
        Self::EndpointRecovered,
        Self::DeliveryExhausted,
        Self::DiskState,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EndpointFailing => "endpoint.failing",
            Self::EndpointPaused => "endpoint.paused",
            Self::EndpointDisabled => "endpoint.disabled",
            Self::EndpointRecovered => "endpoint.recovered",
            Self::DeliveryExhausted => "delivery.exhausted",
            Self::DiskState => "disk.state",
        }
    }

    pub fn event_type(self) -> EventTypeName {
        EventTypeName::from_stored(self.as_str())
    }
}

/// `data` of the events named `endpoint.…`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport<'r> {
    pub endpoint_id: EndpointId,
    pub workspace_id: WorkspaceId,
    pub project_id: Option<&'r str>,
    pub name: &'r str,
    pub url: &'r str,
    pub is_active: bool,
    pub disabled_reason: Option<&'static str>,
    pub health: &'static str,
    pub failures: u32,
    pub first_failure_at: Option<Timestamp>,
    pub next_probe_at: Option<Timestamp>,
    /// From this instant on, a further failure switches the endpoint off.
    pub disables_at: Option<Timestamp>,
}

/// `data` of `delivery.exhausted`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DeliveryReport<'r> {
    pub delivery_id: DeliveryId,
    pub event_id: EventId,
    pub event_type: &'r EventTypeName,
    pub endpoint_id: EndpointId,
    pub workspace_id: WorkspaceId,
    pub project_id: Option<&'r str>,
    pub status: &'static str,
    pub attempts: u32,
}

/// `data` of `disk.state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskReport {
    pub state: &'static str,
    pub state_before: &'static str,
    /// With the reserve.
    pub used_bytes: u64,
    pub limit_bytes: u64,
}

/// Renders a report as the `data` of an envelope.
///
/// # Errors
/// Never in practice: reports contain only text and numbers.
pub fn rendered(report: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    serde_json::value::to_raw_value(report)
}
