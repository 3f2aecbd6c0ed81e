//! Workspaces.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::domain::workspace::*;
use crate::store::*;

pub async fn ensure(_tx: &mut WriteTx, _new: &NewWorkspace) -> Result<Workspace, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn create(_tx: &mut WriteTx, _new: &NewWorkspace) -> Result<Result<Workspace, WriteWorkspaceError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn rename(
    _tx: &mut WriteTx,
    _id: WorkspaceId,
    _name: &WorkspaceName,
    _author: Author,
) -> Result<Result<Workspace, WriteWorkspaceError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn delete(
    _tx: &mut WriteTx,
    _id: WorkspaceId,
    _author: Author,
) -> Result<Result<(), WriteWorkspaceError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find(_s: &Session, _id: WorkspaceId) -> Result<Option<Workspace>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find_named(_s: &Session, _name: &WorkspaceName) -> Result<Option<Workspace>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn list(_s: &Session, _page: PageRequest) -> Result<Page<Workspace>, PgError> {
    Err(PgError::Unavailable("not built"))
}
