//! What an operator does at the machine. Nothing here asks for a principal: anybody who can open the data directory or
//! its admin socket may do everything.
//!
//! Only [`ServiceParts::build`] makes an [`Operator`]. Front doors hold a [`Service`], from which none can be made.

use std::sync::Arc;

use postrider_domain::access::{ApiKey, Mode, OPERATIONS_KEY, Scopes};
use postrider_domain::audit::{AuditEntry, AuditFilter, Author};
use postrider_domain::id::{ApiKeyId, RowKey, WorkspaceId};
use postrider_domain::operational_event::OPERATIONS_WORKSPACE;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::{NewWorkspace, RevokeApiKeyError, Store};

use crate::api_key::{CreateApiKey, CreatedApiKey};
use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::service::{Service, ServiceParts};

/// What an operator may do: everything below, in every workspace.
#[derive(Clone)]
pub struct Operator {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) service: Arc<Service>,
}

impl ServiceParts {
    /// The handle for front doors, and the handle for the server itself. Both share caches, so a key that the operator
    /// revokes is refused at once.
    pub fn build(self) -> (Arc<Service>, Operator) {
        let store = Arc::clone(&self.store);
        let service = Arc::new(Service::new(self));
        (Arc::clone(&service), Operator { store, service })
    }
}

impl Operator {
    /// Creates a key, and its workspace if that does not exist.
    ///
    /// # Errors
    /// When the key would already be expired, or the workspace has reached its limit of keys.
    pub async fn create_api_key(
        &self,
        workspace: WorkspaceName,
        create: CreateApiKey,
    ) -> Result<CreatedApiKey, ServiceError> {
        let id = WorkspaceId::from_letters(self.service.random.alphanumeric());
        let new = NewWorkspace { id, name: workspace, author: Author::COMMAND_LINE };
        let workspace = self.store.ensure_workspace(new).await?;
        self.make_key_in(workspace.key, create).await
    }

    /// Creates a key of an existing workspace.
    ///
    /// # Errors
    /// As [`Self::create_api_key`], and when there is no such workspace, or when it is the server's own.
    pub async fn create_api_key_in(
        &self,
        workspace: WorkspaceId,
        create: CreateApiKey,
    ) -> Result<CreatedApiKey, ServiceError> {
        let workspace = self.store.find_workspace(workspace).await?.ok_or(ServiceError::NotFound)?;
        if workspace.is_operations {
            self.create_operations_api_key(create).await
        } else {
            self.make_key_in(workspace.key, create).await
        }
    }

    /// Creates a key that reads the deliveries of operational events. It cannot change them or the webhook, which is
    /// the settings' alone.
    ///
    /// # Errors
    /// When the key would have a scope that does more than read.
    pub async fn create_operations_api_key(&self, create: CreateApiKey) -> Result<CreatedApiKey, ServiceError> {
        let allowed = Scopes::of(OPERATIONS_KEY);
        if !allowed.contains_all(create.scopes) {
            let fault = format!("a key of the workspace \"operations\" may have only {allowed}");
            return Err(ServiceError::unprocessable("scopes", &fault));
        }
        let id = WorkspaceId::from_letters(self.service.random.alphanumeric());
        let workspace = self.store.ensure_operations_workspace(id, Author::COMMAND_LINE).await?;
        self.make_key_in(workspace.key, create).await
    }

    async fn make_key_in(&self, workspace: RowKey, create: CreateApiKey) -> Result<CreatedApiKey, ServiceError> {
        let made = self.service.make_api_key(Author::COMMAND_LINE, workspace, create, &Idempotent::default()).await;
        made.map_err(without_key)
    }

    /// Revokes a key of any workspace.
    ///
    /// # Errors
    /// When the key does not exist.
    pub async fn revoke_api_key(&self, id: ApiKeyId) -> Result<ApiKey, ServiceError> {
        let key = self.store.get_api_key(None, id).await?.ok_or(ServiceError::NotFound)?;
        self.service
            .end_api_key(Author::COMMAND_LINE, key.workspace_key, id, &Idempotent::default())
            .await
            .map_err(without_key)
    }

    /// Revokes a key of any workspace, all keys that it made, and those that they made. Returns the keys that were in
    /// use until now.
    ///
    /// # Errors
    /// When the key does not exist.
    pub async fn revoke_with_children(&self, id: ApiKeyId) -> Result<Vec<ApiKeyId>, ServiceError> {
        let revoked = self.store.revoke_with_children(Author::COMMAND_LINE, id).await;
        self.service.forget_callers();
        let revoked = revoked.map_err(|error| match error {
            RevokeApiKeyError::NotFound => ServiceError::NotFound,
            RevokeApiKeyError::Store(error) => error.into(),
        })?;
        tracing::info!(key_id = %id, keys = revoked.len(), "API key revoked with the keys that it made");
        Ok(revoked)
    }

    /// The keys of the workspace with this name or id, or of all workspaces.
    ///
    /// # Errors
    /// When the workspace does not exist.
    pub async fn list_api_keys(
        &self,
        workspace: Option<&str>,
        page: PageRequest,
    ) -> Result<Page<ApiKey>, ServiceError> {
        let tenant = self.tenant(workspace).await?;
        let page = self.store.list_api_keys(tenant, page).await?;
        Ok(page.map(|key| self.service.key_uses.added_to(key)))
    }

    /// # Errors
    /// When the store fails.
    pub async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, ServiceError> {
        Ok(self.store.list_workspaces(page).await?)
    }

    /// The audit log of the workspace with this name or id, or of all workspaces.
    ///
    /// # Errors
    /// When the workspace does not exist.
    pub async fn list_audit(
        &self,
        workspace: Option<&str>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, ServiceError> {
        let tenant = self.tenant(workspace).await?;
        Ok(self.store.list_audit(tenant, filter, page).await?)
    }

    /// The live tenant of this workspace, which manages both modes.
    pub(crate) async fn tenant(&self, name_or_id: Option<&str>) -> Result<Option<Tenant>, ServiceError> {
        let Some(text) = name_or_id else { return Ok(None) };
        let live = |workspace: Workspace| Tenant::whole(workspace.key, Mode::Live);
        if let Ok(id) = text.parse::<WorkspaceId>()
            && let Some(workspace) = self.store.find_workspace(id).await?
        {
            return Ok(Some(live(workspace)));
        }
        let named = self.store.find_workspace_named(WorkspaceName::from_stored(text)).await?;
        let found = match named {
            None if text == OPERATIONS_WORKSPACE => self.store.find_operations_workspace().await?,
            found => found,
        };
        found.map(|workspace| Some(live(workspace))).ok_or(ServiceError::NotFound)
    }
}

/// An operator's write has no idempotency key, so no earlier answer exists.
fn without_key(error: WriteError) -> ServiceError {
    match error {
        WriteError::Refused(error) => error,
        WriteError::AnsweredBefore { .. } => {
            ServiceError::Internal { source: "a write without a key was answered before".into() }
        }
    }
}
