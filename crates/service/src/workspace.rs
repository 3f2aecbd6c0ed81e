//! Workspaces: every caller reads its own. A caller with the scope for workspaces manages all.

use postrider_domain::access::Principal;
use postrider_domain::id::WorkspaceId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::permission::Permission;
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::{NewWorkspace, WorkspaceRename, WriteWorkspaceError};

use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::service::Service;

impl Service {
    /// The caller's own workspace. No scope is needed.
    ///
    /// # Errors
    /// When it was deleted after the caller was authenticated.
    pub async fn own_workspace(&self, principal: &Principal) -> Result<Workspace, ServiceError> {
        self.store.find_workspace(principal.workspace_id).await?.ok_or(ServiceError::InvalidToken)
    }

    /// # Errors
    /// Without the scope, or when another workspace has the name.
    pub async fn create_workspace(
        &self,
        principal: &Principal,
        name: WorkspaceName,
        idempotent: &Idempotent<Workspace>,
    ) -> Result<Workspace, WriteError> {
        principal.require(Permission::WorkspacesManage)?;
        let id = WorkspaceId::from_letters(self.random.alphanumeric());
        let recording = idempotent.recording(Workspace::clone);
        let new = NewWorkspace { id, name, author: principal.author() };
        let written = self.store.create_workspace(new, recording).await?;
        idempotent.finish(written)
    }

    /// # Errors
    /// Without the scope.
    pub async fn list_workspaces(
        &self,
        principal: &Principal,
        page: PageRequest,
    ) -> Result<Page<Workspace>, ServiceError> {
        principal.require(Permission::WorkspacesManage)?;
        Ok(self.store.list_workspaces(page).await?)
    }

    /// # Errors
    /// Without the scope, or when there is no such workspace.
    pub async fn get_workspace(&self, principal: &Principal, id: WorkspaceId) -> Result<Workspace, ServiceError> {
        principal.require(Permission::WorkspacesManage)?;
        self.store.find_workspace(id).await?.ok_or(ServiceError::NotFound)
    }

    /// # Errors
    /// Without the scope, when there is no such workspace, or when another has the name.
    pub async fn rename_workspace(
        &self,
        principal: &Principal,
        id: WorkspaceId,
        name: Option<WorkspaceName>,
        idempotent: &Idempotent<Workspace>,
    ) -> Result<Workspace, WriteError> {
        let workspace = self.get_workspace(principal, id).await?;
        let name = name.unwrap_or(workspace.name);
        let rename = WorkspaceRename { id, name, author: principal.author() };
        let recording = idempotent.recording(Workspace::clone);
        let written = self.store.rename_workspace(rename, recording).await?;
        idempotent.finish(written)
    }

    /// Deletes a workspace: revokes its keys, deletes its endpoints and secrets, and cancels its undelivered work. Its
    /// log stays.
    ///
    /// # Errors
    /// Without the scope, when there is no such workspace, or when it is the caller's own.
    pub async fn delete_workspace(
        &self,
        principal: &Principal,
        id: WorkspaceId,
        idempotent: &Idempotent<()>,
    ) -> Result<(), WriteError> {
        principal.require(Permission::WorkspacesManage)?;
        if id == principal.workspace_id {
            return Err(
                ServiceError::Conflict("A key cannot delete the workspace that it belongs to.".to_owned()).into()
            );
        }
        let recording = idempotent.recording(|(): &()| ());
        let deleted = self.store.delete_workspace(id, principal.author(), recording).await;
        self.forget_callers();
        idempotent.finish(deleted?)?;
        tracing::info!(workspace_id = %id, "workspace deleted");
        Ok(())
    }
}

impl From<WriteWorkspaceError> for ServiceError {
    fn from(error: WriteWorkspaceError) -> Self {
        match error {
            WriteWorkspaceError::NotFound => Self::NotFound,
            WriteWorkspaceError::Operations => Self::Conflict(
                "The workspace \"operations\" belongs to the server and cannot be renamed or deleted.".to_owned(),
            ),
            WriteWorkspaceError::NameTaken => Self::Conflict("Another workspace has this name.".to_owned()),
            WriteWorkspaceError::Store(error) => error.into(),
        }
    }
}
