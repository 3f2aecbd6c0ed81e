//! Workspaces.
//!
//! Writes `workspaces`, apart from `config_version` (`publish/matching.rs`).

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::{RowKey, WorkspaceId};
use postrider_domain::idempotency::Recording;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::log::changes;
use postrider_store::registry::workspace::check_changeable;
use postrider_store::{NewWorkspace, StoreError, WorkspaceRename, Workspaces, WriteWorkspaceError, Written};

use super::endpoint;
use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::parsed;
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};
use crate::queue::{endpoint_health, lane, order};
use crate::secrets;

#[async_trait]
impl Workspaces for SqliteStore {
    async fn ensure_workspace(&self, new: NewWorkspace) -> Result<Workspace, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| match find_named(tx.connection, &new.name)? {
            Some(workspace) => Ok(workspace),
            None => insert(tx, &new, false),
        })
        .await
    }

    async fn ensure_operations_workspace(&self, id: WorkspaceId, author: Author) -> Result<Workspace, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| match find_operations(tx.connection)? {
            Some(workspace) => Ok(workspace),
            None => insert(tx, &NewWorkspace { id, name: WorkspaceName::operations(), author }, true),
        })
        .await
    }

    async fn find_operations_workspace(&self) -> Result<Option<Workspace>, StoreError> {
        self.read(move |tx| find_operations(tx.connection)).await
    }

    async fn create_workspace(
        &self,
        new: NewWorkspace,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(JobSize::ONE_ROW, recording, move |tx| match find_named(tx.connection, &new.name)? {
            Some(_) => Ok(Err(WriteWorkspaceError::NameTaken)),
            None => insert(tx, &new, false).map(Ok),
        })
        .await
    }

    async fn find_workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        self.read(move |tx| find(tx.connection, id)).await
    }

    async fn find_workspace_named(&self, name: WorkspaceName) -> Result<Option<Workspace>, StoreError> {
        self.read(move |tx| find_named(tx.connection, &name)).await
    }

    async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, StoreError> {
        self.read(move |tx| list(tx.connection, page)).await
    }

    async fn rename_workspace(
        &self,
        new: WorkspaceRename,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(JobSize::ONE_ROW, recording, move |tx| rename(tx, &new)).await
    }

    async fn delete_workspace(
        &self,
        id: WorkspaceId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, WriteWorkspaceError> {
        self.write_once(JobSize::ONE_ROW, recording, move |tx| delete(tx, id, author)).await
    }
}

/// A deleted workspace is not found. Its log stays.
const WORKSPACE_SELECT: &str = "SELECT key, id, name, is_operations FROM workspaces WHERE deleted_at IS NULL";

fn workspace_from_row(row: &Row<'_>) -> Result<Workspace, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    Ok(Workspace {
        key,
        id: parsed(row, "id")?,
        name: WorkspaceName::from_stored(row.get_ref("name")?.as_str()?),
        is_operations: row.get("is_operations")?,
        created_at: key.created_at(),
    })
}

fn insert(tx: &mut WriteTx<'_>, new: &NewWorkspace, is_operations: bool) -> Result<Workspace, rusqlite::Error> {
    let key = tx.next_key();
    tx.connection
        .prepare_cached("INSERT INTO workspaces (key, id, name, is_operations) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![key.as_i64(), new.id.to_string(), new.name.as_str(), is_operations])?;
    audit::append(tx, key, new.author, AuditAction::WorkspaceCreated, new.id, &changes::workspace_created(&new.name))?;
    Ok(Workspace { key, id: new.id, name: new.name.clone(), is_operations, created_at: key.created_at() })
}

fn rename(tx: &mut WriteTx<'_>, new: &WorkspaceRename) -> WriteResult<Workspace, WriteWorkspaceError> {
    let Some(workspace) = find(tx.connection, new.id)? else { return Ok(Err(WriteWorkspaceError::NotFound)) };
    if let Err(refusal) = check_changeable(&workspace) {
        return Ok(Err(refusal));
    }
    if find_named(tx.connection, &new.name)?.is_some_and(|other| other.key != workspace.key) {
        return Ok(Err(WriteWorkspaceError::NameTaken));
    }
    tx.connection
        .prepare_cached("UPDATE workspaces SET name = ?2 WHERE key = ?1")?
        .execute(params![workspace.key.as_i64(), new.name.as_str()])?;
    let changed = changes::workspace_renamed(&workspace.name, &new.name);
    audit::append(tx, workspace.key, new.author, AuditAction::WorkspaceUpdated, new.id, &changed)?;
    Ok(Ok(Workspace { name: new.name.clone(), ..workspace }))
}

fn delete(tx: &mut WriteTx<'_>, id: WorkspaceId, author: Author) -> WriteResult<(), WriteWorkspaceError> {
    let Some(workspace) = find(tx.connection, id)? else { return Ok(Err(WriteWorkspaceError::NotFound)) };
    if let Err(refusal) = check_changeable(&workspace) {
        return Ok(Err(refusal));
    }
    tx.connection
        .prepare_cached("UPDATE workspaces SET deleted_at = ?2 WHERE key = ?1")?
        .execute(params![workspace.key.as_i64(), tx.now.millis()])?;
    // Before the endpoints are deleted: it finds the secrets of those that are not.
    secrets::erase_of_workspace(tx, workspace.key)?;
    endpoint::delete_of_workspace(tx, workspace.key)?;
    tx.matching.invalidate(tx.connection, workspace.key)?;
    order::remove_of_workspace(tx, workspace.key)?;
    endpoint_health::forget_of_workspace(tx, workspace.key)?;
    lane::release_of_workspace(tx, workspace.key)?;
    let removed = changes::workspace_deleted(&workspace.name);
    audit::append(tx, workspace.key, author, AuditAction::WorkspaceDeleted, id, &removed)?;
    Ok(Ok(()))
}

fn find(connection: &Connection, id: WorkspaceId) -> Result<Option<Workspace>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND id = ?1"))?
        .query_row([id.to_string()], workspace_from_row)
        .optional()
}

fn find_named(connection: &Connection, name: &WorkspaceName) -> Result<Option<Workspace>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND name = ?1 AND is_operations = 0"))?
        .query_row([name.as_str()], workspace_from_row)
        .optional()
}

fn find_operations(connection: &Connection) -> Result<Option<Workspace>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND is_operations = 1"))?
        .query_row([], workspace_from_row)
        .optional()
}

fn list(connection: &Connection, page: PageRequest) -> Result<Page<Workspace>, rusqlite::Error> {
    let items = connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND key < ?1 ORDER BY key DESC LIMIT ?2"))?
        .query_map(params![page.before().as_i64(), i64::from(page.limit()) + 1], workspace_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |workspace| workspace.key))
}
