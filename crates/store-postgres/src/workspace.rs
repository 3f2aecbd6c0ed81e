//! Workspaces.
//!
//! Names are kept apart by an index: of two nodes that give one name at once, the second is run again and sees it taken.

use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::WorkspaceId;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::{NewWorkspace, WriteWorkspaceError};

use super::column::{get, key, parsed, unexpected};
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use super::{audit, health, lane, matching, order};

/// One that is deleted is as if it had never been, but for its log.
const WORKSPACE_SELECT: &str = "SELECT key, id, name FROM workspaces WHERE deleted_at IS NULL";

fn workspace_from_row(row: &Row) -> Result<Workspace, PgError> {
    let key = key(row, "key")?;
    let name = WorkspaceName::parse(get(row, "name")?).map_err(|_| unexpected("workspaces.name"))?;
    Ok(Workspace { key, id: parsed(row, "id")?, name, created_at: key.created_at() })
}

pub async fn ensure(tx: &mut WriteTx, new: &NewWorkspace) -> Result<Workspace, PgError> {
    match find_named(tx, &new.name).await? {
        Some(workspace) => Ok(workspace),
        None => insert(tx, new).await,
    }
}

pub async fn create(tx: &mut WriteTx, new: &NewWorkspace) -> Result<Result<Workspace, WriteWorkspaceError>, PgError> {
    match find_named(tx, &new.name).await? {
        Some(_) => Ok(Err(WriteWorkspaceError::NameTaken)),
        None => insert(tx, new).await.map(Ok),
    }
}

async fn insert(tx: &mut WriteTx, new: &NewWorkspace) -> Result<Workspace, PgError> {
    let key = tx.next_key();
    tx.execute(
        "INSERT INTO workspaces (key, id, name) VALUES ($1, $2, $3)",
        &[&key.as_i64(), &new.id.to_string(), &new.name.as_str()],
    )
    .await?;
    audit::append(tx, key, new.author, AuditAction::WorkspaceCreated, new.id).await?;
    Ok(Workspace { key, id: new.id, name: new.name.clone(), created_at: key.created_at() })
}

pub async fn rename(
    tx: &mut WriteTx,
    id: WorkspaceId,
    name: &WorkspaceName,
    author: Author,
) -> Result<Result<Workspace, WriteWorkspaceError>, PgError> {
    let Some(workspace) = find(tx, id).await? else { return Ok(Err(WriteWorkspaceError::NotFound)) };
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
    audit::append(tx, workspace.key, author, AuditAction::WorkspaceUpdated, id).await?;
    Ok(Ok(Workspace { name: name.clone(), ..workspace }))
}

pub async fn delete(
    tx: &mut WriteTx,
    id: WorkspaceId,
    author: Author,
) -> Result<Result<(), WriteWorkspaceError>, PgError> {
    let Some(workspace) = find(tx, id).await? else { return Ok(Err(WriteWorkspaceError::NotFound)) };
    tx.lock_workspace(workspace.key).await?;
    let (key, now) = (workspace.key.as_i64(), tx.now.millis());
    let deleted = tx
        .execute("UPDATE workspaces SET deleted_at = $2 WHERE key = $1 AND deleted_at IS NULL", &[&key, &now])
        .await?;
    if deleted == 0 {
        return Ok(Err(WriteWorkspaceError::NotFound));
    }
    for kept_beside in ["endpoint_secrets", "endpoint_sealed"] {
        let sql = format!(
            "DELETE FROM {kept_beside} WHERE endpoint_key IN
                 (SELECT key FROM endpoints WHERE workspace_key = $1 AND deleted_at IS NULL)"
        );
        tx.execute(&sql, &[&key]).await?;
    }
    tx.execute(
        "UPDATE endpoints SET is_active = false, deleted_at = $2, updated_at = $2
         WHERE workspace_key = $1 AND deleted_at IS NULL",
        &[&key, &now],
    )
    .await?;
    matching::bump(tx, workspace.key).await?;
    order::forget_workspace(tx, workspace.key).await?;
    health::forget_workspace(tx, workspace.key).await?;
    lane::release_workspace(tx, workspace.key).await?;
    audit::append(tx, workspace.key, author, AuditAction::WorkspaceDeleted, id).await?;
    Ok(Ok(()))
}

pub async fn find(session: &Session, id: WorkspaceId) -> Result<Option<Workspace>, PgError> {
    let found = session.query_opt(&format!("{WORKSPACE_SELECT} AND id = $1"), &[&id.to_string()]).await?;
    found.as_ref().map(workspace_from_row).transpose()
}

pub async fn find_named(session: &Session, name: &WorkspaceName) -> Result<Option<Workspace>, PgError> {
    let found = session.query_opt(&format!("{WORKSPACE_SELECT} AND name = $1"), &[&name.as_str()]).await?;
    found.as_ref().map(workspace_from_row).transpose()
}

pub async fn list(session: &Session, page: PageRequest) -> Result<Page<Workspace>, PgError> {
    let sql = format!("{WORKSPACE_SELECT} AND key < $1 ORDER BY key DESC LIMIT $2");
    let rows = session.query(&sql, &[&page.before().as_i64(), &(i64::from(page.limit()) + 1)]).await?;
    let items = rows.iter().map(workspace_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |workspace| workspace.key))
}
