//! How an actor is shown: in audit entries, and as the caller's own principal.

use serde::Serialize;

use postrider_domain::audit::Actor;
use postrider_domain::id::{ApiKeyId, PortalSessionId, SessionId};

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ActorView {
    ApiKey { id: ApiKeyId },
    Session { id: SessionId },
    PortalSession { id: PortalSessionId },
    Source,
    CommandLine,
    Unknown,
}

impl From<Actor> for ActorView {
    fn from(actor: Actor) -> Self {
        match actor {
            Actor::ApiKey(id) => Self::ApiKey { id },
            Actor::Session(id) => Self::Session { id },
            Actor::Portal(id) => Self::PortalSession { id },
            Actor::Source => Self::Source,
            Actor::CommandLine => Self::CommandLine,
            Actor::Unknown => Self::Unknown,
        }
    }
}
