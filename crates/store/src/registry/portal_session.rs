//! Portal sessions. The store sees keyed hashes, never a code or a token itself.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{ApiKeyId, PortalSessionId};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::portal::{PortalSession, PortalTerms};
use postrider_domain::tenant::Tenant;

use crate::{CreatePortalSessionError, EndPortalSessionError, StoreError, Write, Written};

/// A session to create. Its workspace and mode are the tenant's.
#[derive(Clone, Debug)]
pub struct NewPortalSession {
    pub id: PortalSessionId,
    pub project_id: ProjectId,
    pub terms: PortalTerms,
    pub code_hash: [u8; 32],
    /// The session ends with this key. `None`: with the key behind the dashboard session that asks, if one does.
    pub api_key: Option<ApiKeyId>,
    pub lasts: Duration,
    /// Live sessions of the workspace in this mode.
    pub limit: u32,
}

/// The opening of a session by its link.
#[derive(Clone, Copy, Debug)]
pub struct PortalOpening {
    pub code_hash: [u8; 32],
    /// The token of the cookie that this opening sets.
    pub token_hash: [u8; 32],
}

#[async_trait]
pub trait PortalSessions: Send + Sync + 'static {
    async fn create_portal_session(
        &self,
        write: Write<PortalSession>,
        new: NewPortalSession,
    ) -> Result<Written<PortalSession>, CreatePortalSessionError>;

    /// Adds the token to a live session, if the code is its own, not too old, and not used too often. `None` otherwise.
    async fn open_portal_session(
        &self,
        id: PortalSessionId,
        opening: PortalOpening,
    ) -> Result<Option<PortalSession>, StoreError>;

    /// A session that one of its openings gave this token. Live: it has not ended, and neither has the key that made
    /// it.
    async fn resume_portal_session(
        &self,
        id: PortalSessionId,
        token_hash: [u8; 32],
    ) -> Result<Option<PortalSession>, StoreError>;

    /// A session, whether it has ended or not, without a word about who asks: what its last page needs.
    async fn find_portal_session(&self, id: PortalSessionId) -> Result<Option<PortalSession>, StoreError>;

    /// The sessions of a tenant, the newest first. Ended ones stay for a while.
    async fn list_portal_sessions(
        &self,
        tenant: Tenant,
        project_id: Option<ProjectId>,
        page: PageRequest,
    ) -> Result<Page<PortalSession>, StoreError>;

    /// Ends a session. One that has ended stays as it is.
    async fn end_portal_session(
        &self,
        write: Write<()>,
        id: PortalSessionId,
    ) -> Result<Written<()>, EndPortalSessionError>;

    /// Ends all live sessions of a project.
    async fn end_portal_sessions_of(&self, write: Write<()>, project_id: ProjectId) -> Result<Written<()>, StoreError>;
}

/// The text of a hash in the columns `code_hash` and `tokens`.
pub fn hash_text(hash: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    hash.iter().fold(String::with_capacity(HASH_LETTERS), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

const HASH_LETTERS: usize = 64;

/// Whether one of the tokens has this hash.
pub fn holds_token(tokens: &str, hash: &[u8; 32]) -> bool {
    let hash = hash_text(hash);
    tokens.as_bytes().chunks(HASH_LETTERS).any(|token| token == hash.as_bytes())
}

/// Letters of the column `tokens` below which the session can be opened once more.
pub const TOKENS_FULL: i64 = HASH_LETTERS as i64 * limits::PORTAL_OPENINGS as i64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_only_at_its_own_place() {
        let (first, second) = ([0xab; 32], [0x01; 32]);
        let tokens = format!("{}{}", hash_text(&first), hash_text(&second));
        assert!(holds_token(&tokens, &first) && holds_token(&tokens, &second));
        assert!(!holds_token(&tokens, &[0xba; 32]), "not at an odd place");
        assert!(!holds_token("", &first));
        assert_eq!(hash_text(&first).len(), HASH_LETTERS);
    }
}
