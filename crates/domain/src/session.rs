//! Sign-in sessions of the dashboard, and the login codes that open one.
//!
//! A session begins with an API key or with a login code from the command line. It acts for one workspace and mode. The
//! stores keep keyed hashes, never a token or a code.

use std::time::Duration;

use super::access::Scopes;
use super::id::{ApiKeyId, RowKey, SessionId, WorkspaceId};
use super::tenant::Tenant;
use super::time::Timestamp;

/// The keyed hash by which the store finds a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionHash(pub [u8; 32]);

/// The keyed hash by which the store finds a login code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoginCodeHash(pub [u8; 32]);

/// A stored session, without its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DashboardSession {
    pub key: RowKey,
    pub id: SessionId,
    pub tenant: Tenant,
    pub workspace_id: WorkspaceId,
    pub scopes: Scopes,
    /// The key that signed in. `None` for a session that a login code opened.
    pub api_key: Option<ApiKeyId>,
    /// When that key stops working.
    pub api_key_expires_at: Option<Timestamp>,
    /// When the session ends, however much it is used. Not later than its key.
    pub expires_at: Timestamp,
    pub last_seen_at: Timestamp,
    /// When it ends without a further request. Not later than `expires_at`.
    pub ends_at: Timestamp,
}

impl DashboardSession {
    /// The session after a request at `now`.
    #[must_use]
    pub fn seen(self, now: Timestamp, idle: Duration) -> Self {
        Self { last_seen_at: now, ends_at: now.plus(idle).min(self.expires_at), ..self }
    }
}
