//! Workspaces.

use async_trait::async_trait;

use postrider_domain::audit::Author;
use postrider_domain::id::WorkspaceId;
use postrider_domain::idempotency::Recording;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::workspace::{Workspace, WorkspaceName};

use crate::{StoreError, WriteWorkspaceError, Written};

/// A workspace to create.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    pub author: Author,
}

/// A new name for a workspace.
#[derive(Clone, Debug)]
pub struct WorkspaceRename {
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    pub author: Author,
}

/// Whether a caller may rename or delete the workspace. The server's own is nobody's to change.
///
/// # Errors
/// [`WriteWorkspaceError::Operations`] for the server's own.
pub const fn check_changeable(workspace: &Workspace) -> Result<(), WriteWorkspaceError> {
    if workspace.is_operations { Err(WriteWorkspaceError::Operations) } else { Ok(()) }
}

#[async_trait]
pub trait Workspaces: Send + Sync + 'static {
    /// The workspace of this name. Creates it if there is none.
    async fn ensure_workspace(&self, new: NewWorkspace) -> Result<Workspace, StoreError>;

    /// The server's own workspace. Creates it if there is none.
    async fn ensure_operations_workspace(&self, id: WorkspaceId, author: Author) -> Result<Workspace, StoreError>;

    /// The server's own workspace, once it exists.
    async fn find_operations_workspace(&self) -> Result<Option<Workspace>, StoreError>;

    async fn create_workspace(
        &self,
        new: NewWorkspace,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError>;

    async fn find_workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError>;

    /// Never the server's own, which has the column, not the name.
    async fn find_workspace_named(&self, name: WorkspaceName) -> Result<Option<Workspace>, StoreError>;

    async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, StoreError>;

    /// Refuses the server's own workspace, as [`Self::delete_workspace`] does.
    async fn rename_workspace(
        &self,
        rename: WorkspaceRename,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError>;

    /// Deletes a workspace. When this returns, its keys are unknown, its endpoints and secrets are gone, and its name
    /// is free. None of its deliveries is claimed any more; a long queue is cancelled in later steps. The log stays.
    async fn delete_workspace(
        &self,
        id: WorkspaceId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, WriteWorkspaceError>;
}
