//! Authentication by API key.

use std::sync::Arc;

use postrider_domain::access::{ApiKey, ApiKeyHash, Mode, Principal};
use postrider_domain::audit::{Actor, KeyRefusal};
use postrider_domain::caller::CallerAddress;
use postrider_domain::id::RequestId;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::error::ServiceError;
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
    /// When the key is missing, unknown, revoked or expired. The audit log records it.
    pub async fn authenticate(&self, api_key: Option<&str>, origin: Origin<'_>) -> Result<Principal, ServiceError> {
        let now = self.clock.now();
        let found = match api_key {
            Some(api_key) => self.find_api_key(api_key, now).await?,
            None => None,
        };
        let Some(key) = found else {
            self.note_key_refused(None, &origin, KeyRefusal::InvalidToken);
            return Err(ServiceError::InvalidToken);
        };
        let refused = |reason, error| {
            let known = (key.workspace_key, Actor::ApiKey(key.id), key.mode);
            self.note_key_refused(Some(known), &origin, reason);
            Err(error)
        };
        if key.revoked_at.is_some() {
            return refused(KeyRefusal::KeyRevoked, ServiceError::KeyRevoked);
        }
        if key.expires_at.is_some_and(|at| now >= at) {
            return refused(KeyRefusal::KeyExpired, ServiceError::KeyExpired);
        }
        Ok(Principal {
            actor: Actor::ApiKey(key.id),
            tenant: Tenant { workspace: key.workspace_key, mode: key.mode },
            workspace_id: key.workspace_id,
            scopes: key.scopes,
            request_id: origin.request_id,
            address: origin.address,
        })
    }

    async fn find_api_key(&self, api_key: &str, now: Timestamp) -> Result<Option<Arc<ApiKey>>, ServiceError> {
        let brand = &self.catalogue.brand;
        if ![Mode::Live, Mode::Test].iter().any(|mode| api_key.starts_with(&brand.key_prefix(*mode))) {
            return Ok(None);
        }
        let hash = self.hash_of(api_key);
        if let Some(key) = self.keys.get(hash, now) {
            return Ok(Some(key));
        }
        let Some(key) = self.store.find_api_key(hash).await?.map(Arc::new) else { return Ok(None) };
        self.keys.put(hash, Arc::clone(&key), now);
        Ok(Some(key))
    }

    pub(crate) fn hash_of(&self, api_key: &str) -> ApiKeyHash {
        ApiKeyHash(self.api_key_hash.sign(&[api_key.as_bytes()]))
    }
}
