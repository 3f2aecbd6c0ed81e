//! Authentication by API key.

use std::sync::Arc;

use postrider_domain::access::{ApiKey, ApiKeyHash, Principal};
use postrider_domain::audit::{Actor, KeyRefusal};
use postrider_domain::caller::CallerAddress;
use postrider_domain::id::RequestId;
use postrider_domain::permission::Capabilities;
use postrider_domain::rate_limit::Rate;
use postrider_domain::secret::ApiKeySecret;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::error::ServiceError;
use crate::key_cache::CachedKey;
use crate::service::Service;

/// Where a request comes from, and what for: what is known before its key.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'r> {
    pub request_id: Option<RequestId>,
    pub address: Option<CallerAddress>,
    /// Method and path pattern.
    pub route: &'r str,
}

impl Service {
    /// The principal of an API key. `None` stands for a request without one.
    ///
    /// # Errors
    /// When the key is missing, unknown, revoked or expired, or when the address has sent too many such keys. The audit
    /// log records it.
    pub async fn authenticate(&self, api_key: Option<&str>, origin: Origin<'_>) -> Result<Principal, ServiceError> {
        let now = self.clock.now();
        let found = match api_key {
            Some(api_key) => self.find_api_key(api_key, origin.address, now).await?,
            None => None,
        };
        let Some(key) = found else {
            return Err(self.refuse_key(None, &origin, KeyRefusal::InvalidToken, ServiceError::InvalidToken));
        };
        if key.revoked_at.is_some() {
            return Err(self.refuse_key(Some(&key), &origin, KeyRefusal::KeyRevoked, ServiceError::KeyRevoked));
        }
        if key.expires_at.is_some_and(|at| now >= at) {
            return Err(self.refuse_key(Some(&key), &origin, KeyRefusal::KeyExpired, ServiceError::KeyExpired));
        }
        Ok(Principal {
            actor: Actor::ApiKey(key.id),
            tenant: Tenant::whole(key.workspace_key, key.mode),
            workspace_id: key.workspace_id,
            scopes: key.scopes,
            capabilities: Capabilities::default(),
            event_types: None,
            request_id: origin.request_id,
            address: origin.address,
            expires_at: key.expires_at,
        })
    }

    /// Whether the caller's key may still be used, for a request that has waited.
    ///
    /// # Errors
    /// When the key is revoked or has expired.
    pub(crate) async fn check_still_valid(&self, principal: &Principal) -> Result<(), ServiceError> {
        let Some(id) = principal.actor.api_key() else { return Ok(()) };
        let key = self.store.get_api_key(None, id).await?.ok_or(ServiceError::KeyRevoked)?;
        let now = self.clock.now();
        if key.revoked_at.is_some() {
            return Err(ServiceError::KeyRevoked);
        }
        if key.expires_at.is_some_and(|at| now >= at) { Err(ServiceError::KeyExpired) } else { Ok(()) }
    }

    /// Records and counts a refused key. Returns the error for its caller.
    fn refuse_key(
        &self,
        key: Option<&ApiKey>,
        origin: &Origin<'_>,
        reason: KeyRefusal,
        error: ServiceError,
    ) -> ServiceError {
        self.note_key_refused(key, origin, reason);
        match self.refused_keys.count(origin.address, self.clock.now()) {
            Ok(_) => error,
            Err(Rate { limit, reset, .. }) => ServiceError::TooManyRefusedKeys { limit, retry_after: reset },
        }
    }

    /// A text that no key of this server can have costs no look-up.
    async fn find_api_key(
        &self,
        api_key: &str,
        address: Option<CallerAddress>,
        now: Timestamp,
    ) -> Result<Option<Arc<ApiKey>>, ServiceError> {
        if !ApiKeySecret::has_form_of_key(api_key, &self.catalogue.brand) {
            return Ok(None);
        }
        let hash = self.hash_of(api_key);
        let asked = match self.keys.get(hash, now) {
            CachedKey::Found(key) => return Ok(Some(key)),
            CachedKey::Missing => return Ok(None),
            CachedKey::Unknown(asked) => asked,
        };
        let _permit = self.refused_keys.look_up(address, now).await;
        let found = self.store.find_api_key(hash).await?.map(Arc::new);
        if let Some(key) = &found
            && key.revoked_at.is_none()
            && key.expires_at.is_none_or(|at| now < at)
        {
            self.key_uses.note(key.key, now);
        }
        self.keys.put(hash, found.clone(), asked, now);
        Ok(found)
    }

    pub(crate) fn hash_of(&self, api_key: &str) -> ApiKeyHash {
        ApiKeyHash(self.api_key_hash.sign(&[api_key.as_bytes()]))
    }
}
