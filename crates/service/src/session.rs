//! Sessions of the dashboard: signing in with a key, and the principal behind a session's token.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use postrider_domain::access::Principal;
use postrider_domain::permission::Permission;
use postrider_domain::time::Timestamp;

use crate::access::Origin;
use crate::error::ServiceError;
use crate::lock::lock;
use crate::service::Service;

/// The sessions of this process, by token.
#[derive(Default)]
pub struct Sessions(Mutex<HashMap<String, (Principal, Timestamp)>>);

/// A session that has just begun. The token is shown once, to the browser.
pub struct NewSession {
    pub token: String,
    pub principal: Principal,
    pub expires_at: Timestamp,
}

const SESSION: Duration = Duration::from_secs(12 * 3600);

impl Service {
    /// # Errors
    /// When the key is refused or lacks the scope `dashboard`.
    pub async fn sign_in(&self, api_key: &str, origin: Origin<'_>) -> Result<NewSession, ServiceError> {
        let principal = self.authenticate(Some(api_key), origin).await?;
        principal.require(Permission::DashboardUse)?;
        let token = String::from_utf8_lossy(&self.random.alphanumeric::<43>()).into_owned();
        let expires_at = self.clock.now().plus(SESSION);
        lock(&self.sessions.0).insert(token.clone(), (principal.clone(), expires_at));
        Ok(NewSession { token, principal, expires_at })
    }

    /// # Errors
    /// When the code is unknown, used or too old.
    pub async fn sign_in_by_code(&self, _code: &str, _origin: Origin<'_>) -> Result<NewSession, ServiceError> {
        Err(ServiceError::SessionEnded)
    }

    /// The principal of a session.
    ///
    /// # Errors
    /// When the session is unknown or has ended.
    pub async fn resume_session(&self, token: &str, origin: Origin<'_>) -> Result<Principal, ServiceError> {
        let sessions = lock(&self.sessions.0);
        let (principal, expires_at) = sessions.get(token).ok_or(ServiceError::SessionEnded)?;
        if self.clock.now() >= *expires_at {
            return Err(ServiceError::SessionEnded);
        }
        Ok(Principal { request_id: origin.request_id, address: origin.address, ..principal.clone() })
    }

    /// # Errors
    /// When the store fails.
    pub async fn sign_out(&self, token: &str) -> Result<(), ServiceError> {
        lock(&self.sessions.0).remove(token);
        Ok(())
    }
}
