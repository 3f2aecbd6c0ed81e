//! The audit log: who wrote what, when, by which request. One row per write. Rows are never changed.

use super::id::{ApiKeyId, AuditId, RequestId, WorkspaceId};
use super::mode::Mode;

/// Who made a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    ApiKey(ApiKeyId),
    /// An operator at the machine. No key is needed there.
    CommandLine,
}

impl Actor {
    /// The key, if the actor is one.
    pub const fn api_key(self) -> Option<ApiKeyId> {
        match self {
            Self::ApiKey(id) => Some(id),
            Self::CommandLine => None,
        }
    }
}

/// Who made a write, in which mode, by which request: common to all writes of one request.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    pub actor: Actor,
    pub mode: Mode,
    pub request_id: Option<RequestId>,
}

impl Author {
    pub const COMMAND_LINE: Self = Self { actor: Actor::CommandLine, mode: Mode::Live, request_id: None };
}

/// What was done. Publishing is not listed: the event log records it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditAction {
    WorkspaceCreated,
    WorkspaceUpdated,
    WorkspaceDeleted,
    ApiKeyCreated,
    ApiKeyRevoked,
    EndpointCreated,
    EndpointUpdated,
    EndpointDeleted,
    EndpointSecretRotated,
    EndpointTested,
    DeliveryRetried,
    DeliverySkipped,
    ReplayStarted,
    ReplayStopped,
}

impl AuditAction {
    pub const ALL: [Self; 14] = [
        Self::WorkspaceCreated,
        Self::WorkspaceUpdated,
        Self::WorkspaceDeleted,
        Self::ApiKeyCreated,
        Self::ApiKeyRevoked,
        Self::EndpointCreated,
        Self::EndpointUpdated,
        Self::EndpointDeleted,
        Self::EndpointSecretRotated,
        Self::EndpointTested,
        Self::DeliveryRetried,
        Self::DeliverySkipped,
        Self::ReplayStarted,
        Self::ReplayStopped,
    ];

    /// The name on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WorkspaceCreated => "workspace.created",
            Self::WorkspaceUpdated => "workspace.updated",
            Self::WorkspaceDeleted => "workspace.deleted",
            Self::ApiKeyCreated => "api_key.created",
            Self::ApiKeyRevoked => "api_key.revoked",
            Self::EndpointCreated => "endpoint.created",
            Self::EndpointUpdated => "endpoint.updated",
            Self::EndpointDeleted => "endpoint.deleted",
            Self::EndpointSecretRotated => "endpoint.secret_rotated",
            Self::EndpointTested => "endpoint.tested",
            Self::DeliveryRetried => "delivery.retried",
            Self::DeliverySkipped => "delivery.skipped",
            Self::ReplayStarted => "replay.started",
            Self::ReplayStopped => "replay.stopped",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// One entry of the audit log.
#[derive(Clone, Debug)]
pub struct AuditEntry {
    pub id: AuditId,
    /// The workspace that was written to. An operator's key belongs to another workspace.
    pub workspace_id: WorkspaceId,
    pub author: Author,
    pub action: AuditAction,
    pub resource_id: String,
}

/// Selects entries. An empty filter selects all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub action: Option<AuditAction>,
    pub resource_id: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_parses_back_from_its_name() {
        for action in AuditAction::ALL {
            assert_eq!(AuditAction::parse(action.as_str()), Some(action));
        }
        assert_eq!(AuditAction::parse("endpoint.admired"), None);
    }
}
