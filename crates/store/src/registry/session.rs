//! Sign-in sessions of the dashboard and login codes. The store sees keyed hashes, never a token or a code.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::access::{Mode, Scopes};
use postrider_domain::audit::{Actor, Author};
use postrider_domain::caller::CallerAddress;
use postrider_domain::id::{ApiKeyId, RequestId, RowKey, SessionId, WorkspaceId};
use postrider_domain::session::{DashboardSession, LoginCodeHash, SessionHash};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::StoreError;

/// A session to open, apart from what its key or its login code decides.
#[derive(Clone, Copy, Debug)]
pub struct SessionOpening {
    pub hash: SessionHash,
    /// The session ends after this time, however much it is used.
    pub lifetime: Duration,
    /// The session ends after this time without a request.
    pub idle: Duration,
    /// Open sessions of the workspace. A new one beyond it ends the one that was not used for the longest time.
    pub limit: u32,
    pub request_id: Option<RequestId>,
    pub address: Option<CallerAddress>,
}

impl SessionOpening {
    /// The opening of a session that takes the place of another one.
    #[must_use]
    pub fn instead_of(self, before: &DashboardSession, now: Timestamp) -> Self {
        Self { lifetime: self.lifetime.min(before.expires_at.since(now)), ..self }
    }

    /// Who signs in: the key, or the session itself when a login code opens it.
    pub fn author(&self, session: &DashboardSession) -> Author {
        let actor = session.api_key.map_or(Actor::Session(session.id), Actor::ApiKey);
        Author { actor, mode: session.tenant.mode, request_id: self.request_id, address: self.address }
    }
}

/// A login code to create.
#[derive(Clone, Debug)]
pub struct NewLoginCode {
    pub hash: LoginCodeHash,
    /// Of the session that the code will open.
    pub session_id: SessionId,
    pub tenant: Tenant,
    pub scopes: Scopes,
    pub lifetime: Duration,
    /// Unused codes of the workspace. A new one beyond it replaces the oldest.
    pub limit: u32,
    pub author: Author,
}

/// Where the end of a session was asked for.
#[derive(Clone, Copy, Debug)]
pub struct SignOut {
    pub request_id: Option<RequestId>,
    pub address: Option<CallerAddress>,
}

impl SignOut {
    pub const fn author(&self, id: SessionId, mode: Mode) -> Author {
        Author { actor: Actor::Session(id), mode, request_id: self.request_id, address: self.address }
    }
}

#[async_trait]
pub trait Sessions: Send + Sync + 'static {
    /// Opens a session with the workspace, mode and scopes of this key. `None` when the key is not in use.
    async fn create_session(
        &self,
        id: SessionId,
        api_key: ApiKeyId,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError>;

    /// Uses up a login code and opens its session. `None` when there is no such code, when it was used before or is too
    /// old. Of several calls with the same code one opens a session.
    async fn redeem_login_code(
        &self,
        code: LoginCodeHash,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError>;

    /// The session, if neither its key was revoked nor its workspace deleted. It may have ended by time.
    async fn find_session(&self, hash: SessionHash) -> Result<Option<DashboardSession>, StoreError>;

    /// Notes that a session is in use now. Does nothing when that was noted less than `at_most_every` ago, or when the
    /// session has ended.
    async fn note_session_seen(&self, key: RowKey, idle: Duration, at_most_every: Duration) -> Result<(), StoreError>;

    /// Removes a session. Returns whether there was one.
    async fn end_session(&self, hash: SessionHash, sign_out: SignOut) -> Result<bool, StoreError>;

    /// Ends an open session, and opens another in this workspace: with the same mode, scopes and key, and not for
    /// longer. `None`, and nothing changes, when the session has ended, when there is no such workspace, or when it is
    /// the server's own.
    async fn switch_session(
        &self,
        hash: SessionHash,
        id: SessionId,
        to: WorkspaceId,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError>;

    /// Creates a login code. Returns until when it is valid, `None` when there is no such workspace.
    async fn create_login_code(&self, new: NewLoginCode) -> Result<Option<Timestamp>, StoreError>;
}
