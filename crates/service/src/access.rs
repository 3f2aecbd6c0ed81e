//! Authentication by API key.

use std::sync::Arc;

use postrider_domain::access::{ApiKey, ApiKeyHash, Mode, Principal};
use postrider_domain::audit::Actor;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::error::ServiceError;
use crate::service::Service;

impl Service {
    /// The principal of an API key.
    ///
    /// # Errors
    /// When the key is unknown, revoked or expired.
    pub async fn authenticate(&self, api_key: &str) -> Result<Principal, ServiceError> {
        let now = self.clock.now();
        let key = self.find_api_key(api_key, now).await?.ok_or(ServiceError::InvalidToken)?;
        if key.revoked_at.is_some() {
            return Err(ServiceError::KeyRevoked);
        }
        if key.expires_at.is_some_and(|at| now >= at) {
            return Err(ServiceError::KeyExpired);
        }
        Ok(Principal {
            actor: Actor::ApiKey(key.id),
            tenant: Tenant { workspace: key.workspace_key, mode: key.mode },
            workspace_id: key.workspace_id,
            scopes: key.scopes,
            request_id: None,
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
