//! Sign-in sessions of the dashboard: begun with an API key or with a login code, resumed by their token, ended.
//!
//! A session acts for one workspace and mode, with scopes of its own. A session that a key began ends with that key. A
//! session is looked up at most every [`limits::KEY_CACHE_TTL`], so it works that long after it was ended by another
//! process; within this process it ends at once.

use std::fmt;
use std::sync::{Arc, Mutex};

use postrider_domain::access::Principal;
use postrider_domain::audit::Actor;
use postrider_domain::bounded_cache::{BoundedCache, ExpiringCache};
use postrider_domain::caller::CallerAddress;
use postrider_domain::error_chain::Chain;
use postrider_domain::id::{SessionId, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::permission::{Capabilities, Permission};
use postrider_domain::rate_limit::{Rate, RateBucket, SlidingWindow};
use postrider_domain::secret::hex;
use postrider_domain::session::{DashboardSession, LoginCodeHash, SessionHash};
use postrider_domain::time::Timestamp;
use postrider_store::{SessionOpening, SignOut};

use crate::access::Origin;
use crate::error::ServiceError;
use crate::lock::lock;
use crate::service::Service;

/// A session that has just begun. Its token is known to nobody else.
pub struct NewSession {
    pub token: String,
    pub principal: Principal,
    pub expires_at: Timestamp,
}

/// Shows everything but the token.
impl fmt::Debug for NewSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, expires_at, .. } = self;
        f.debug_struct("NewSession")
            .field("principal", principal)
            .field("expires_at", expires_at)
            .finish_non_exhaustive()
    }
}

/// Random bytes of a token and of a login code: nobody guesses one, so that an unknown one is not worth counting.
const TOKEN_BYTES: usize = 32;

/// What this process remembers of sessions.
pub struct Sessions {
    found: Mutex<Found>,
    /// The page requests of each session in the last minute.
    pages: Mutex<BoundedCache<Actor, SlidingWindow>>,
}

struct Found {
    sessions: ExpiringCache<SessionHash, Arc<DashboardSession>>,
    /// Counts the times at which this process ended sessions. A look-up that began before the last of them proves
    /// nothing.
    ended: u64,
}

impl Sessions {
    /// The session, or a number for [`Self::put`].
    fn get(&self, hash: SessionHash, now: Timestamp) -> Result<Arc<DashboardSession>, u64> {
        let found = lock(&self.found);
        found.sessions.get(&hash, now).cloned().ok_or(found.ended)
    }

    /// `asked` is the number that [`Self::get`] returned before the look-up.
    fn put(&self, hash: SessionHash, session: &Arc<DashboardSession>, asked: u64, now: Timestamp) {
        let mut found = lock(&self.found);
        if found.ended == asked {
            found.sessions.insert(hash, Arc::clone(session), now);
        }
    }

    /// To be called after sessions may have ended.
    pub fn forget_all(&self) {
        let mut found = lock(&self.found);
        found.sessions.clear();
        found.ended += 1;
    }
}

impl Default for Sessions {
    fn default() -> Self {
        let sessions = ExpiringCache::new(limits::SESSIONS_COUNTED, limits::KEY_CACHE_TTL);
        Self {
            found: Mutex::new(Found { sessions, ended: 0 }),
            pages: Mutex::new(BoundedCache::new(limits::SESSIONS_COUNTED)),
        }
    }
}

impl Service {
    /// Begins a session with the workspace, mode and scopes of an API key. Counts as a request of the workspace.
    ///
    /// # Errors
    /// As [`Self::authenticate`]; when the key lacks the scope `dashboard`, which the audit log records; when the
    /// workspace has reached its rate limit.
    pub async fn sign_in(&self, api_key: &str, origin: Origin<'_>) -> Result<NewSession, ServiceError> {
        let principal = self.authenticate(Some(api_key), origin).await?;
        let Some(key_id) = principal.actor.api_key() else { return Err(ServiceError::InvalidToken) };
        let bucket = RateBucket::Management;
        if let Some(Err(Rate { limit, reset, .. })) = self.count_request(&principal, bucket).await {
            return Err(ServiceError::RateLimited { bucket, limit, retry_after: reset });
        }
        principal.require(Permission::DashboardUse).inspect_err(|_| {
            self.note_scope_missing(&principal, origin.route);
        })?;
        let (token, opening) = self.new_session(&origin);
        let id = SessionId::from_letters(self.random.alphanumeric());
        // The key was in use a moment ago, as far as this process knows.
        let opened = self.store.create_session(id, key_id, opening).await?.ok_or(ServiceError::KeyRevoked)?;
        Ok(begun(token, &opened, &origin))
    }

    /// Begins the session of a login code, and uses the code up.
    ///
    /// # Errors
    /// When there is no such code, or it is used or too old; such codes count as refused keys of the address.
    pub async fn sign_in_by_code(&self, code: &str, origin: Origin<'_>) -> Result<NewSession, ServiceError> {
        let opened = if has_form_of_token(code) {
            // A stranger decides how many codes come, and each is a write.
            let _permit = self.refused_keys.look_up(origin.address, self.clock.now()).await;
            let (token, opening) = self.new_session(&origin);
            let opened = self.store.redeem_login_code(self.hash_of_login_code(code), opening).await?;
            opened.map(|opened| (token, opened))
        } else {
            None
        };
        match opened {
            Some((token, opened)) => Ok(begun(token, &opened, &origin)),
            None => Err(match self.refused_keys.count(origin.address, self.clock.now()) {
                Ok(_) => ServiceError::LoginCodeRefused,
                Err(Rate { limit, reset, .. }) => ServiceError::TooManyRefusedKeys { limit, retry_after: reset },
            }),
        }
    }

    /// The principal of a session.
    ///
    /// # Errors
    /// [`ServiceError::SessionEnded`] when there is no such session, or when it has ended.
    pub async fn resume_session(&self, token: &str, origin: Origin<'_>) -> Result<Principal, ServiceError> {
        let now = self.clock.now();
        let found = self.find_session(token, origin.address, now).await?;
        let session = found.filter(|session| now < session.ends_at).ok_or(ServiceError::SessionEnded)?;
        Ok(principal_of(&session, &origin))
    }

    /// Goes on in another workspace: ends the session, and begins one there with the same mode, scopes and key, and no
    /// later end.
    ///
    /// # Errors
    /// Without the scope; when there is no such workspace, or when it is the server's own.
    pub async fn switch_workspace(
        &self,
        principal: &Principal,
        token: &str,
        to: WorkspaceId,
        origin: Origin<'_>,
    ) -> Result<NewSession, ServiceError> {
        principal.require(Permission::WorkspacesManage)?;
        if !has_form_of_token(token) {
            return Err(ServiceError::SessionEnded);
        }
        let (new_token, opening) = self.new_session(&origin);
        let id = SessionId::from_letters(self.random.alphanumeric());
        let switched = self.store.switch_session(self.hash_of_session(token), id, to, opening).await;
        self.sessions.forget_all();
        let session = switched?.ok_or(ServiceError::NotFound)?;
        Ok(begun(new_token, &session, &origin))
    }

    /// Ends a session for good. A session that has ended is no error.
    ///
    /// # Errors
    /// When the store fails. The session may still be open then.
    pub async fn sign_out(&self, token: &str, origin: Origin<'_>) -> Result<(), ServiceError> {
        if !has_form_of_token(token) {
            return Ok(());
        }
        let Origin { request_id, address, .. } = origin;
        let _permit = self.refused_keys.look_up(address, self.clock.now()).await;
        let ended = self.store.end_session(self.hash_of_session(token), SignOut { request_id, address }).await;
        self.sessions.forget_all();
        ended?;
        Ok(())
    }

    /// Counts a request for a page of a session, of the dashboard or of a portal. Pages do not count against the rate
    /// limit of the API. Each node counts by itself.
    ///
    /// # Errors
    /// When the session has reached [`limits::PAGE_REQUESTS_PER_MINUTE`].
    pub fn count_page_request(&self, session: Actor) -> Result<(), ServiceError> {
        let mut pages = lock(&self.sessions.pages);
        if pages.get(&session).is_none() {
            pages.insert(session, SlidingWindow::default());
        }
        let window = pages.get_mut(&session).expect("it was inserted just now");
        match window.take(limits::PAGE_REQUESTS_PER_MINUTE, self.clock.now()) {
            Ok(_) => Ok(()),
            Err(Rate { limit, reset, .. }) => Err(ServiceError::TooManyPageRequests { limit, retry_after: reset }),
        }
    }

    /// A text that no session of this server can have costs no look-up.
    async fn find_session(
        &self,
        token: &str,
        address: Option<CallerAddress>,
        now: Timestamp,
    ) -> Result<Option<Arc<DashboardSession>>, ServiceError> {
        if !has_form_of_token(token) {
            return Ok(None);
        }
        let hash = self.hash_of_session(token);
        let asked = match self.sessions.get(hash, now) {
            Ok(session) => return Ok(Some(session)),
            Err(asked) => asked,
        };
        let _permit = self.refused_keys.look_up(address, now).await;
        let Some(session) = self.store.find_session(hash).await? else { return Ok(None) };
        let session = Arc::new(self.note_seen(session, now).await);
        self.sessions.put(hash, &session, asked, now);
        Ok(Some(session))
    }

    /// Writes now and then that a session is in use, so that it does not end as idle.
    async fn note_seen(&self, session: DashboardSession, now: Timestamp) -> DashboardSession {
        let (idle, every) = (limits::SESSION_IDLE, limits::SESSION_SEEN_EVERY);
        if now >= session.ends_at || now.since(session.last_seen_at) < every {
            return session;
        }
        match self.store.note_session_seen(session.key, idle, every).await {
            Ok(()) => session.seen(now, idle),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot write that a session is in use; its next request tries again");
                session
            }
        }
    }

    /// A token, and what the store gets to know of its session.
    fn new_session(&self, origin: &Origin<'_>) -> (String, SessionOpening) {
        let token = hex(&self.random.bytes::<TOKEN_BYTES>());
        let opening = SessionOpening {
            hash: self.hash_of_session(&token),
            lifetime: limits::SESSION_LIFETIME,
            idle: limits::SESSION_IDLE,
            limit: limits::SESSIONS_PER_WORKSPACE,
            request_id: origin.request_id,
            address: origin.address,
        };
        (token, opening)
    }

    /// A login code and its hash.
    pub(crate) fn new_login_code(&self) -> (String, LoginCodeHash) {
        let code = hex(&self.random.bytes::<TOKEN_BYTES>());
        let hash = self.hash_of_login_code(&code);
        (code, hash)
    }

    // The parts before the colon keep the hashes of tokens, codes and API keys apart.

    fn hash_of_session(&self, token: &str) -> SessionHash {
        SessionHash(self.api_key_hash.sign(&[b"session:", token.as_bytes()]))
    }

    fn hash_of_login_code(&self, code: &str) -> LoginCodeHash {
        LoginCodeHash(self.api_key_hash.sign(&[b"login-code:", code.as_bytes()]))
    }
}

/// Whether this text can be a token or a login code.
fn has_form_of_token(text: &str) -> bool {
    text.len() == 2 * TOKEN_BYTES && text.bytes().all(|digit| digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit))
}

fn begun(token: String, session: &DashboardSession, origin: &Origin<'_>) -> NewSession {
    tracing::info!(session_id = %session.id, workspace_id = %session.workspace_id, "signed in to the dashboard");
    NewSession { token, principal: principal_of(session, origin), expires_at: session.expires_at }
}

fn principal_of(session: &DashboardSession, origin: &Origin<'_>) -> Principal {
    Principal {
        actor: Actor::Session(session.id),
        tenant: session.tenant,
        workspace_id: session.workspace_id,
        scopes: session.scopes,
        capabilities: Capabilities::default(),
        event_types: None,
        // Keys that the session makes may work longer than the session, and no longer than its key.
        expires_at: session.api_key_expires_at,
        request_id: origin.request_id,
        address: origin.address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_64_lowercase_hexadecimal_digits_are_looked_up() {
        let token = "0123456789abcdef".repeat(4);
        assert!(has_form_of_token(&token));
        for bad in [token.to_uppercase(), token[1..].to_owned(), format!("{token}0"), token.replace('0', "g")] {
            assert!(!has_form_of_token(&bad), "{bad}");
        }
        assert!(!has_form_of_token(""));
    }
}
