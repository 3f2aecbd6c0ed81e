//! API keys: create, list, revoke.
//!
//! A caller manages the keys of its own workspace; a test key only its test keys. A caller with the scope for
//! workspaces creates the first key of another workspace. An operator does both without a principal.

use postrider_domain::access::{ApiKey, ApiKeyName, GrantRefusal, Mode, Outlives, Principal, Scopes};
use postrider_domain::audit::Author;
use postrider_domain::id::{ApiKeyId, RowKey, WorkspaceId};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::secret::ApiKeySecret;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Day;
use postrider_store::{CreateApiKeyError, NewApiKey, RevokeApiKeyError, Write};

use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::service::Service;

/// An API key to create.
#[derive(Clone, Debug)]
pub struct CreateApiKey {
    pub name: Option<ApiKeyName>,
    pub mode: Mode,
    pub scopes: Scopes,
    /// The key stops working at 00:00 UTC of this day.
    pub expires_at: Option<Day>,
}

impl CreateApiKey {
    /// Checks whether this principal may create the key. Both creating methods check it too; a front door calls it
    /// before it looks for a recorded answer.
    ///
    /// # Errors
    /// When the key would have a scope or mode that the principal lacks, or would work longer than the principal's.
    pub fn check_grant(&self, principal: &Principal) -> Result<(), ServiceError> {
        self.expires_at_for(principal)?;
        principal.check_grant(self.scopes, self.mode).map_err(|refusal| match refusal {
            GrantRefusal::Lacking(scopes) => ServiceError::CannotGrant(scopes),
            GrantRefusal::Live => ServiceError::unprocessable("mode", "a test key can create only test keys"),
            GrantRefusal::Operator => {
                ServiceError::unprocessable("scopes", "workspaces:manage can be granted only at the command line")
            }
        })
    }

    /// When the key stops working if this principal creates it.
    fn expires_at_for(&self, principal: &Principal) -> Result<Option<Day>, ServiceError> {
        let expires_at = principal.check_expiry(self.expires_at.map(Day::starts_at)).map_err(|Outlives { own }| {
            let fault =
                format!("must not be later than {}, when the key that creates it expires", Day::containing(own));
            ServiceError::unprocessable("expiresAt", &fault)
        })?;
        Ok(expires_at.map(Day::containing))
    }
}

/// A new API key with its plaintext, which is shown only now.
#[derive(Debug)]
pub struct CreatedApiKey {
    pub key: ApiKey,
    pub secret: ApiKeySecret,
}

impl Service {
    /// Creates a key of the caller's own workspace.
    ///
    /// # Errors
    /// Without the scope, when the key would have a scope or mode that the caller lacks, or when it would already be
    /// expired.
    pub async fn create_api_key(
        &self,
        principal: &Principal,
        create: CreateApiKey,
        idempotent: &Idempotent<CreatedApiKey>,
    ) -> Result<CreatedApiKey, WriteError> {
        principal.require(Permission::ApiKeysManage)?;
        create.check_grant(principal)?;
        let create = CreateApiKey { expires_at: create.expires_at_for(principal)?, ..create };
        self.make_api_key(principal.author(), principal.tenant.workspace, create, idempotent).await
    }

    /// Creates a key of any workspace.
    ///
    /// # Errors
    /// As [`Self::create_api_key`], and when the workspace does not exist.
    pub async fn create_workspace_api_key(
        &self,
        principal: &Principal,
        workspace_id: WorkspaceId,
        create: CreateApiKey,
        idempotent: &Idempotent<CreatedApiKey>,
    ) -> Result<CreatedApiKey, WriteError> {
        principal.require(Permission::WorkspacesManage)?;
        create.check_grant(principal)?;
        let create = CreateApiKey { expires_at: create.expires_at_for(principal)?, ..create };
        let workspace = self.store.find_workspace(workspace_id).await?.ok_or(ServiceError::NotFound)?;
        if workspace.is_operations {
            return Err(ServiceError::Conflict(
                "Keys of the workspace \"operations\" are created at the command line (keys create --operations)."
                    .to_owned(),
            )
            .into());
        }
        self.make_api_key(principal.author(), workspace.key, create, idempotent).await
    }

    /// # Errors
    /// Without the scope.
    pub async fn list_api_keys(&self, principal: &Principal, page: PageRequest) -> Result<Page<ApiKey>, ServiceError> {
        principal.require(Permission::ApiKeysManage)?;
        let page = self.store.list_api_keys(Some(principal.tenant), page).await?;
        Ok(page.map(|key| self.key_uses.added_to(key)))
    }

    /// # Errors
    /// Without the scope, or when this workspace has no such key.
    pub async fn get_api_key(&self, principal: &Principal, id: ApiKeyId) -> Result<ApiKey, ServiceError> {
        principal.require(Permission::ApiKeysManage)?;
        let key = self.store.get_api_key(Some(principal.tenant), id).await?.ok_or(ServiceError::NotFound)?;
        Ok(self.key_uses.added_to(key))
    }

    /// Revokes a key for good. It may be the caller's own. Revoking it again changes nothing and is not an error.
    ///
    /// # Errors
    /// Without the scope, or when this workspace has no such key.
    pub async fn revoke_api_key(
        &self,
        principal: &Principal,
        id: ApiKeyId,
        idempotent: &Idempotent<ApiKey>,
    ) -> Result<ApiKey, WriteError> {
        principal.require(Permission::ApiKeysManage)?;
        self.end_api_key(principal.author(), principal.tenant.workspace, id, idempotent).await
    }

    /// Creates a key without checking who asks.
    pub(crate) async fn make_api_key(
        &self,
        author: Author,
        workspace: RowKey,
        create: CreateApiKey,
        idempotent: &Idempotent<CreatedApiKey>,
    ) -> Result<CreatedApiKey, WriteError> {
        if !create.scopes.exist_in(create.mode) {
            return Err(ServiceError::unprocessable("scopes", "workspaces:manage exists only for live keys").into());
        }
        let expires_at = create.expires_at.map(Day::starts_at);
        if expires_at.is_some_and(|at| at <= self.clock.now()) {
            return Err(ServiceError::unprocessable("expiresAt", "must be a day after today (UTC)").into());
        }
        let secret = ApiKeySecret::generate(&self.random, &self.catalogue.brand, create.mode);
        let new = NewApiKey {
            id: ApiKeyId::from_letters(self.random.alphanumeric()),
            tenant: Tenant::whole(workspace, create.mode),
            name: create.name,
            hash: self.hash_of(secret.reveal()),
            last4: secret.last4(),
            scopes: create.scopes,
            expires_at,
            limit: limits::API_KEYS_PER_WORKSPACE,
            author,
        };
        let shown_secret = secret.clone();
        let recording = idempotent
            .sealed_recording(move |key: &ApiKey| CreatedApiKey { key: key.clone(), secret: shown_secret.clone() });
        let created = self.store.create_api_key(new, recording).await;
        self.keys.forget_missing();
        let written = created.map_err(|error| match error {
            CreateApiKeyError::NoWorkspace => ServiceError::NotFound,
            CreateApiKeyError::SessionEnded => ServiceError::SessionEnded,
            CreateApiKeyError::Store(error) => error.into(),
            CreateApiKeyError::WorkspaceFull(limit) => ServiceError::Conflict(format!(
                "The workspace has {limit} API keys, the most it may have. Revoke one that is not in use."
            )),
        })?;
        let key = idempotent.finish(written)?;
        tracing::info!(key_id = %key.id, workspace_id = %key.workspace_id, "API key created");
        Ok(CreatedApiKey { key, secret })
    }

    /// Revokes a key without checking who asks.
    pub(crate) async fn end_api_key(
        &self,
        author: Author,
        workspace: RowKey,
        id: ApiKeyId,
        idempotent: &Idempotent<ApiKey>,
    ) -> Result<ApiKey, WriteError> {
        let tenant = Tenant::whole(workspace, author.mode);
        let write = Write { tenant, author, recording: idempotent.recording(ApiKey::clone) };
        let revoked = self.store.revoke_api_key(write, id).await;
        self.forget_callers();
        let written = revoked.map_err(|error| match error {
            RevokeApiKeyError::NotFound => ServiceError::NotFound,
            RevokeApiKeyError::Store(error) => error.into(),
        })?;
        tracing::info!(key_id = %id, "API key revoked");
        idempotent.finish(written)
    }
}
