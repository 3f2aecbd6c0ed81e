//! Operational events: reports to the operator about endpoints and deliveries, as events of the operations workspace.

use serde::Serialize;

use crate::UnexpectedValue;
use postrider_domain::access::Mode;
use postrider_domain::endpoint::{DisabledReason, Endpoint, ProjectId};
use postrider_domain::endpoint_health::{FailureStreak, HealthState};
use postrider_domain::event::{EnvelopeFields, NewEvent, render_envelope};
use postrider_domain::id::{EventId, RowKey, WorkspaceId};
use postrider_domain::operational_event::{EndpointReport, OperationalEvent, rendered};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

/// How an endpoint does.
pub fn endpoint_report(
    endpoint: &Endpoint,
    workspace_id: WorkspaceId,
    failure_streak: Option<FailureStreak>,
) -> EndpointReport<'_> {
    EndpointReport {
        endpoint_id: endpoint.id,
        workspace_id,
        project_id: endpoint.project_id.as_deref(),
        name: &endpoint.name,
        url: &endpoint.url,
        is_active: endpoint.is_active,
        disabled_reason: endpoint.disabled_reason.map(DisabledReason::as_str),
        health: failure_streak.map_or(HealthState::Ok, |failure_streak| failure_streak.state()).as_str(),
        failures: failure_streak.map_or(0, |failure_streak| failure_streak.failures),
        first_failure_at: failure_streak.map(|failure_streak| failure_streak.first_failure_at),
        next_probe_at: failure_streak
            .and_then(|failure_streak| failure_streak.pause)
            .filter(|_| endpoint.is_active)
            .map(|pause| pause.next_probe_at),
        disables_at: failure_streak.filter(|_| endpoint.is_active).map(|failure_streak| failure_streak.disables_at()),
    }
}

/// The frame of a report: what happened, when, and to whom.
pub struct OperationalReport<'r> {
    pub id: EventId,
    /// The workspace that receives the report.
    pub operations: RowKey,
    pub what: OperationalEvent,
    pub at: Timestamp,
    pub workspace_id: WorkspaceId,
    pub project_id: Option<&'r str>,
}

impl OperationalReport<'_> {
    pub fn event(self, report: &impl Serialize) -> Result<NewEvent, UnexpectedValue> {
        let data = rendered(report).map_err(|_| UnexpectedValue("an operational event"))?;
        let event_type = self.what.event_type();
        let project_id = self.project_id.and_then(|project| ProjectId::parse(project).ok());
        let fields = EnvelopeFields {
            id: self.id,
            event_type: &event_type,
            timestamp: self.at,
            workspace_id: self.workspace_id,
            project_id: project_id.as_ref(),
        };
        let envelope = render_envelope(fields, &data);
        Ok(NewEvent {
            is_misfit: false,
            trace: None,
            id: self.id,
            tenant: Tenant::whole(self.operations, Mode::Live),
            event_type,
            project_id: None,
            external_id: None,
            occurred_at: None,
            body_hash: [0; 32],
            envelope,
        })
    }
}
