//! Who calls: authentication by API key, and the keys themselves.

use std::sync::Arc;

use crate::domain::access::{ApiKey, ApiKeyHash, Mode, Principal, Scopes};
use crate::domain::id::{ApiKeyId, WorkspaceId};
use crate::domain::secret::ApiKeySecret;
use crate::domain::time::Timestamp;
use crate::domain::workspace::WorkspaceName;
use crate::store::NewApiKey;

use super::{Service, ServiceError};

/// A key to be made, in a workspace that is made with it if it is new.
#[derive(Debug)]
pub struct CreateApiKey {
    pub workspace: WorkspaceName,
    pub mode: Mode,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
}

/// The one moment at which a key is shown.
#[derive(Debug)]
pub struct CreatedApiKey {
    pub key: ApiKey,
    pub secret: ApiKeySecret,
}

impl Service {
    /// The principal whose key this is.
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
            key_id: key.id,
            workspace_id: key.workspace_id,
            workspace_key: key.workspace_key,
            mode: key.mode,
            scopes: key.scopes,
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

    /// Makes a key, and its workspace if it is new. For operators: it asks for no principal.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn create_api_key(&self, create: CreateApiKey) -> Result<CreatedApiKey, ServiceError> {
        let workspace_id = WorkspaceId::from_letters(self.random.alphanumeric());
        let workspace = self.store.ensure_workspace(create.workspace, workspace_id).await?;
        let secret = ApiKeySecret::generate(&self.random, &self.catalogue.brand, create.mode);
        let new = NewApiKey {
            id: ApiKeyId::from_letters(self.random.alphanumeric()),
            workspace_key: workspace.key,
            mode: create.mode,
            hash: self.hash_of(secret.reveal()),
            last4: secret.last4(),
            scopes: create.scopes,
            expires_at: create.expires_at,
        };
        let key = self.store.create_api_key(new).await?;
        Ok(CreatedApiKey { key, secret })
    }

    /// Revokes a key of any workspace. For operators: it asks for no principal.
    ///
    /// # Errors
    /// When there is no such key, or the store fails.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<ApiKey, ServiceError> {
        let revoked = self.store.revoke_api_key(id).await?;
        self.keys.forget_all();
        revoked.ok_or(ServiceError::NotFound)
    }

    fn hash_of(&self, api_key: &str) -> ApiKeyHash {
        ApiKeyHash(self.api_key_hash.sign(&[api_key.as_bytes()]))
    }
}
