//! API keys. The store sees keyed hashes, never a key itself.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::access::{ApiKey, ApiKeyHash, ApiKeyName, Scopes};
use postrider_domain::audit::Author;
use postrider_domain::id::{ApiKeyId, RowKey};
use postrider_domain::idempotency::Recording;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::{CreateApiKeyError, RevokeApiKeyError, StoreError, Write, Written};

/// A key to create.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub id: ApiKeyId,
    /// Whom the key acts for.
    pub tenant: Tenant,
    pub name: Option<ApiKeyName>,
    pub hash: ApiKeyHash,
    pub last4: String,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
    /// Keys of the workspace that may be in use at once in this mode.
    pub limit: u32,
    pub author: Author,
}

#[async_trait]
pub trait ApiKeys: Send + Sync + 'static {
    async fn create_api_key(
        &self,
        new: NewApiKey,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, CreateApiKeyError>;

    async fn find_api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKey>, StoreError>;

    /// A key that this tenant manages, or any key when `tenant` is `None`.
    async fn get_api_key(&self, tenant: Option<Tenant>, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError>;

    /// Keys that this tenant manages, or all keys when `tenant` is `None`. Includes revoked keys.
    async fn list_api_keys(&self, tenant: Option<Tenant>, page: PageRequest) -> Result<Page<ApiKey>, StoreError>;

    /// Revokes a key of any workspace and all keys that it made, and those that they made. Returns the keys that were
    /// in use until now.
    async fn revoke_with_children(&self, author: Author, id: ApiKeyId) -> Result<Vec<ApiKeyId>, RevokeApiKeyError>;

    /// Notes how long ago keys were used. An older use than the stored one changes nothing.
    async fn record_key_uses(&self, uses: Vec<(RowKey, Duration)>) -> Result<(), StoreError>;

    /// Revokes a key and returns it. A second call keeps the first instant.
    async fn revoke_api_key(&self, write: Write<ApiKey>, id: ApiKeyId) -> Result<Written<ApiKey>, RevokeApiKeyError>;
}
