//! Workspaces. Writes `workspaces`.
//!
//! An index keeps names unique. When two nodes insert the same name at once, the second transaction runs again and
//! finds the name taken.

use async_trait::async_trait;
use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::WorkspaceId;
use postrider_domain::idempotency::Recording;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::log::changes;
use postrider_store::registry::workspace::check_changeable;
use postrider_store::{NewWorkspace, StoreError, WorkspaceRename, Workspaces, WriteWorkspaceError, Written};

use super::endpoint;
use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{get, key, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};
use crate::publish::matching;
use crate::queue::{endpoint_health, lane, order};
use crate::secrets;

#[async_trait]
impl Workspaces for PostgresStore {
    async fn ensure_workspace(&self, new: NewWorkspace) -> Result<Workspace, StoreError> {
        self.write(effect!(|tx, new| ensure(tx, &new))).await
    }

    async fn ensure_operations_workspace(&self, id: WorkspaceId, author: Author) -> Result<Workspace, StoreError> {
        self.write(effect!(|tx| ensure_operations(tx, id, author))).await
    }

    async fn find_operations_workspace(&self) -> Result<Option<Workspace>, StoreError> {
        self.read(move |session| Box::pin(find_operations(session))).await
    }

    async fn create_workspace(
        &self,
        new: NewWorkspace,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(recording, effect!(|tx, new| create(tx, &new))).await
    }

    async fn find_workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        self.read(move |session| Box::pin(find(session, id))).await
    }

    async fn find_workspace_named(&self, name: WorkspaceName) -> Result<Option<Workspace>, StoreError> {
        self.read(move |session| Box::pin(async move { find_named(session, &name).await })).await
    }

    async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, StoreError> {
        self.read(move |session| Box::pin(list(session, page))).await
    }

    async fn rename_workspace(
        &self,
        new_name: WorkspaceRename,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(recording, effect!(|tx, new_name| rename(tx, &new_name))).await
    }

    async fn delete_workspace(
        &self,
        id: WorkspaceId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, WriteWorkspaceError> {
        self.write_once(recording, effect!(|tx| delete(tx, id, author))).await
    }
}

/// A deleted workspace is invisible here; only its log remains.
const WORKSPACE_SELECT: &str = "SELECT key, id, name, is_operations FROM workspaces WHERE deleted_at IS NULL";

fn workspace_from_row(row: &Row) -> Result<Workspace, PgError> {
    let key = key(row, "key")?;
    Ok(Workspace {
        key,
        id: parsed(row, "id")?,
        name: WorkspaceName::from_stored(get(row, "name")?),
        is_operations: get(row, "is_operations")?,
        created_at: key.created_at(),
    })
}

async fn ensure(tx: &mut WriteTx, new: &NewWorkspace) -> Result<Workspace, PgError> {
    match find_named(tx, &new.name).await? {
        Some(workspace) => Ok(workspace),
        None => insert(tx, new, false).await,
    }
}

async fn ensure_operations(tx: &mut WriteTx, id: WorkspaceId, author: Author) -> Result<Workspace, PgError> {
    match find_operations(tx).await? {
        Some(workspace) => Ok(workspace),
        None => insert(tx, &NewWorkspace { id, name: WorkspaceName::operations(), author }, true).await,
    }
}

async fn create(tx: &mut WriteTx, new: &NewWorkspace) -> Result<Result<Workspace, WriteWorkspaceError>, PgError> {
    match find_named(tx, &new.name).await? {
        Some(_) => Ok(Err(WriteWorkspaceError::NameTaken)),
        None => insert(tx, new, false).await.map(Ok),
    }
}

async fn insert(tx: &mut WriteTx, new: &NewWorkspace, is_operations: bool) -> Result<Workspace, PgError> {
    let key = tx.next_key();
    tx.execute(
        "INSERT INTO workspaces (key, id, name, is_operations) VALUES ($1, $2, $3, $4)",
        &[&key.as_i64(), &new.id.to_string(), &new.name.as_str(), &is_operations],
    )
    .await?;
    let set = changes::workspace_created(&new.name);
    audit::append(tx, key, new.author, AuditAction::WorkspaceCreated, new.id, &set).await?;
    Ok(Workspace { key, id: new.id, name: new.name.clone(), is_operations, created_at: key.created_at() })
}

async fn rename(
    tx: &mut WriteTx,
    new_name: &WorkspaceRename,
) -> Result<Result<Workspace, WriteWorkspaceError>, PgError> {
    let WorkspaceRename { id, name, author } = new_name;
    let Some(workspace) = find(tx, *id).await? else { return Ok(Err(WriteWorkspaceError::NotFound)) };
    if let Err(refusal) = check_changeable(&workspace) {
        return Ok(Err(refusal));
    }
    if find_named(tx, name).await?.is_some_and(|other| other.key != workspace.key) {
        return Ok(Err(WriteWorkspaceError::NameTaken));
    }
    let renamed = tx
        .execute(
            "UPDATE workspaces SET name = $2 WHERE key = $1 AND deleted_at IS NULL",
            &[&workspace.key.as_i64(), &name.as_str()],
        )
        .await?;
    if renamed == 0 {
        return Ok(Err(WriteWorkspaceError::NotFound));
    }
    let changed = changes::workspace_renamed(&workspace.name, name);
    audit::append(tx, workspace.key, *author, AuditAction::WorkspaceUpdated, *id, &changed).await?;
    Ok(Ok(Workspace { name: name.clone(), ..workspace }))
}

async fn delete(tx: &mut WriteTx, id: WorkspaceId, author: Author) -> Result<Result<(), WriteWorkspaceError>, PgError> {
    let Some(workspace) = find(tx, id).await? else { return Ok(Err(WriteWorkspaceError::NotFound)) };
    if let Err(refusal) = check_changeable(&workspace) {
        return Ok(Err(refusal));
    }
    tx.lock_workspace(workspace.key).await?;
    let (key, now) = (workspace.key.as_i64(), tx.now.millis());
    let deleted = tx
        .execute("UPDATE workspaces SET deleted_at = $2 WHERE key = $1 AND deleted_at IS NULL", &[&key, &now])
        .await?;
    if deleted == 0 {
        return Ok(Err(WriteWorkspaceError::NotFound));
    }
    secrets::erase_of_workspace(tx, workspace.key).await?;
    endpoint::delete_of_workspace(tx, workspace.key).await?;
    matching::bump(tx, workspace.key).await?;
    order::remove_of_workspace(tx, workspace.key).await?;
    endpoint_health::forget_of_workspace(tx, workspace.key).await?;
    lane::release_of_workspace(tx, workspace.key).await?;
    let removed = changes::workspace_deleted(&workspace.name);
    audit::append(tx, workspace.key, author, AuditAction::WorkspaceDeleted, id, &removed).await?;
    Ok(Ok(()))
}

async fn find(session: &Session, id: WorkspaceId) -> Result<Option<Workspace>, PgError> {
    let found = session.query_opt(&format!("{WORKSPACE_SELECT} AND id = $1"), &[&id.to_string()]).await?;
    found.as_ref().map(workspace_from_row).transpose()
}

async fn find_named(session: &Session, name: &WorkspaceName) -> Result<Option<Workspace>, PgError> {
    let sql = format!("{WORKSPACE_SELECT} AND name = $1 AND NOT is_operations");
    let found = session.query_opt(&sql, &[&name.as_str()]).await?;
    found.as_ref().map(workspace_from_row).transpose()
}

async fn find_operations(session: &Session) -> Result<Option<Workspace>, PgError> {
    let found = session.query_opt(&format!("{WORKSPACE_SELECT} AND is_operations"), &[]).await?;
    found.as_ref().map(workspace_from_row).transpose()
}

async fn list(session: &Session, page: PageRequest) -> Result<Page<Workspace>, PgError> {
    let sql = format!("{WORKSPACE_SELECT} AND key < $1 ORDER BY key DESC LIMIT $2");
    let rows = session.query(&sql, &[&page.before().as_i64(), &(i64::from(page.limit()) + 1)]).await?;
    let items = rows.iter().map(workspace_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |workspace| workspace.key))
}
