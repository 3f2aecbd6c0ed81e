//! Keys, workspaces and entries of the audit log as the admin socket lists them.

use serde::{Deserialize, Serialize};

use postrider_domain::access::ApiKey;
use postrider_domain::audit::{Actor, AuditEntry};
use postrider_domain::audit_change::Changes;
use postrider_domain::time::Day;
use postrider_domain::workspace::Workspace;
use postrider_store::column::maker_text;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyListed {
    pub id: String,
    pub workspace_id: String,
    pub name: Option<String>,
    pub mode: String,
    pub scopes: Vec<String>,
    pub last4: String,
    pub created_at: String,
    pub expires_at: Option<String>,
    pub revoked_at: Option<String>,
    /// The id of an API key, or `command_line`.
    pub created_by: Option<String>,
    pub last_used_at: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceListed {
    pub id: String,
    pub name: String,
    pub created_at: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditListed {
    pub id: String,
    /// `None` when a key was refused that is of no workspace.
    pub workspace_id: Option<String>,
    pub action: String,
    pub resource_id: Option<String>,
    /// `api_key`, `session`, `command_line`, or `unknown` for a caller whose key is unknown.
    pub actor: String,
    /// The id of the API key, if the actor is one.
    pub api_key_id: Option<String>,
    /// The id of the dashboard's session, if the actor is one.
    #[serde(default)]
    pub session_id: Option<String>,
    pub mode: String,
    pub request_id: Option<String>,
    pub address: Option<String>,
    pub changes: Changes,
    pub refusal: Option<RefusalListed>,
    pub created_at: String,
}

/// The refused requests that an entry stands for.
#[derive(Debug, Serialize, Deserialize)]
pub struct RefusalListed {
    pub reason: String,
    pub route: Option<String>,
    pub count: u32,
}

impl From<ApiKey> for KeyListed {
    fn from(key: ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            workspace_id: key.workspace_id.to_string(),
            name: key.name,
            mode: key.mode.as_str().to_owned(),
            scopes: key.scopes.iter().map(|scope| scope.to_string()).collect(),
            last4: key.last4,
            created_at: key.created_at.to_string(),
            expires_at: key.expires_at.map(|at| Day::containing(at).to_string()),
            revoked_at: key.revoked_at.map(|at| at.to_string()),
            created_by: key.created_by.map(maker_text),
            last_used_at: key.last_used_at.map(|at| at.to_string()),
        }
    }
}

impl From<Workspace> for WorkspaceListed {
    fn from(workspace: Workspace) -> Self {
        Self {
            id: workspace.id.to_string(),
            name: workspace.name.as_str().to_owned(),
            created_at: workspace.created_at.to_string(),
        }
    }
}

impl From<AuditEntry> for AuditListed {
    fn from(entry: AuditEntry) -> Self {
        Self {
            id: entry.id.to_string(),
            workspace_id: entry.workspace_id.map(|id| id.to_string()),
            action: entry.action.as_str().to_owned(),
            resource_id: Some(entry.resource_id).filter(|id| !id.is_empty()),
            actor: match entry.author.actor {
                Actor::ApiKey(_) => "api_key",
                Actor::Session(_) => "session",
                Actor::Portal(_) => "portal_session",
                Actor::Source => "source",
                Actor::CommandLine => "command_line",
                Actor::Unknown => "unknown",
            }
            .to_owned(),
            api_key_id: entry.author.actor.api_key().map(|id| id.to_string()),
            session_id: entry.author.actor.session().map(|id| id.to_string()),
            mode: entry.author.mode.as_str().to_owned(),
            request_id: entry.author.request_id.map(|id| id.to_string()),
            address: entry.author.address.map(|address| address.0.to_string()),
            changes: entry.changes,
            refusal: entry.refusal.map(|refusal| RefusalListed {
                reason: refusal.reason.as_str().to_owned(),
                route: refusal.route,
                count: refusal.count,
            }),
            created_at: entry.id.created_at().to_string(),
        }
    }
}
