//! The audit log: who wrote what, when, from where, by which request, and which requests were refused for their key.
//! One row per write. Rows are never changed.

use super::audit_change::Changes;
use super::caller::CallerAddress;
use super::id::{ApiKeyId, AuditId, PortalSessionId, RequestId, SessionId, WorkspaceId};
use super::mode::Mode;
use super::time::Timestamp;

/// Who made a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Actor {
    ApiKey(ApiKeyId),
    /// A sign-in session of the dashboard.
    Session(SessionId),
    /// A customer on the portal of a project.
    Portal(PortalSessionId),
    /// A source of events, by the operator's settings.
    Source,
    /// An operator at the machine. No key is needed there.
    CommandLine,
    /// A caller whose key is missing or unknown. It can write nothing; only refusals name it.
    Unknown,
}

impl Actor {
    /// The key, if the actor is one.
    pub const fn api_key(self) -> Option<ApiKeyId> {
        match self {
            Self::ApiKey(id) => Some(id),
            Self::Session(_) | Self::Portal(_) | Self::Source | Self::CommandLine | Self::Unknown => None,
        }
    }

    /// The session, if the actor is one.
    pub const fn session(self) -> Option<SessionId> {
        match self {
            Self::Session(id) => Some(id),
            Self::ApiKey(_) | Self::Portal(_) | Self::Source | Self::CommandLine | Self::Unknown => None,
        }
    }

    /// The id of the key or of either session. `None` for an actor without an id.
    pub fn id_text(self) -> Option<String> {
        match self {
            Self::ApiKey(id) => Some(id.to_string()),
            Self::Session(id) => Some(id.to_string()),
            Self::Portal(id) => Some(id.to_string()),
            Self::Source | Self::CommandLine | Self::Unknown => None,
        }
    }
}

/// Who made a write, in which mode, by which request, from where: common to all writes of one request.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    pub actor: Actor,
    pub mode: Mode,
    pub request_id: Option<RequestId>,
    /// `None` for the command line.
    pub address: Option<CallerAddress>,
}

impl Author {
    pub const COMMAND_LINE: Self =
        Self { actor: Actor::CommandLine, mode: Mode::Live, request_id: None, address: None };
}

/// What was done, or refused. Publishing is not listed: the event log records it.
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
    /// An erasure was asked for. The resource is the erasure.
    ErasureStarted,
    /// A code for signing in was created. The resource is the session that it will open.
    LoginCodeCreated,
    /// Somebody signed in to the dashboard.
    SessionCreated,
    /// A session was ended before its time: by signing out, or because the workspace had too many.
    SessionEnded,
    PortalSessionCreated,
    PortalSessionEnded,
    /// The resource is the name of the source, as in the next one and in the last.
    SourcePaused,
    SourceResumed,
    /// A parked message became an event.
    ParkedMessageRetried,
    ParkedMessageDiscarded,
    /// The oldest parked messages of a source were removed to make room for others.
    ParkedMessagesDropped,
    /// A request was refused for its key.
    ApiKeyRefused,
    /// A request was refused because its key lacks a scope.
    ApiKeyScopeMissing,
}

impl AuditAction {
    pub const ALL: [Self; 27] = [
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
        Self::ErasureStarted,
        Self::LoginCodeCreated,
        Self::SessionCreated,
        Self::SessionEnded,
        Self::PortalSessionCreated,
        Self::PortalSessionEnded,
        Self::SourcePaused,
        Self::SourceResumed,
        Self::ParkedMessageRetried,
        Self::ParkedMessageDiscarded,
        Self::ParkedMessagesDropped,
        Self::ApiKeyRefused,
        Self::ApiKeyScopeMissing,
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
            Self::ErasureStarted => "erasure.started",
            Self::LoginCodeCreated => "login_code.created",
            Self::SessionCreated => "session.created",
            Self::SessionEnded => "session.ended",
            Self::PortalSessionCreated => "portal_session.created",
            Self::PortalSessionEnded => "portal_session.ended",
            Self::SourcePaused => "source.paused",
            Self::SourceResumed => "source.resumed",
            Self::ParkedMessageRetried => "parked_message.retried",
            Self::ParkedMessageDiscarded => "parked_message.discarded",
            Self::ParkedMessagesDropped => "parked_messages.dropped",
            Self::ApiKeyRefused => "api_key.refused",
            Self::ApiKeyScopeMissing => "api_key.scope_missing",
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
    /// The workspace that was written to. An operator's key belongs to another workspace. `None` when a request was
    /// refused whose key is of no workspace.
    pub workspace_id: Option<WorkspaceId>,
    pub author: Author,
    pub action: AuditAction,
    /// Empty when a key was refused that the store does not know.
    pub resource_id: String,
    pub changes: Changes,
    /// Set when the entry records refused requests instead of a write.
    pub refusal: Option<Refusal>,
}

/// Refused requests that share an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub reason: KeyRefusal,
    /// Method and path pattern, like `GET /v1/webhook-endpoints/{endpointId}`. `None` for refusals of several routes.
    pub route: Option<String>,
    /// How many requests.
    pub count: u32,
}

/// Why the key of a request was refused. The names are those of the error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyRefusal {
    InvalidToken,
    KeyRevoked,
    KeyExpired,
    ScopeMissing,
}

impl KeyRefusal {
    pub const ALL: [Self; 4] = [Self::InvalidToken, Self::KeyRevoked, Self::KeyExpired, Self::ScopeMissing];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidToken => "invalid_token",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::ScopeMissing => "scope_missing",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }

    pub const fn action(self) -> AuditAction {
        match self {
            Self::InvalidToken | Self::KeyRevoked | Self::KeyExpired => AuditAction::ApiKeyRefused,
            Self::ScopeMissing => AuditAction::ApiKeyScopeMissing,
        }
    }
}

/// Selects entries. An empty filter selects all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub action: Option<AuditAction>,
    pub resource_id: Option<String>,
    pub id: Option<AuditId>,
    /// Entries of one request. There is an index for it.
    pub request_id: Option<RequestId>,
    /// Entries from this instant on.
    pub since: Option<Timestamp>,
    /// Entries before this instant.
    pub until: Option<Timestamp>,
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

    #[test]
    fn every_reason_parses_back_from_its_name() {
        for reason in KeyRefusal::ALL {
            assert_eq!(KeyRefusal::parse(reason.as_str()), Some(reason));
        }
        assert_eq!(KeyRefusal::parse("bored"), None);
    }
}
