//! Workspaces.

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::{RowKey, WorkspaceId};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::workspace::{Workspace, WorkspaceName};
use postrider_store::NewWorkspace;

use super::column::{parsed, unexpected};
use super::writer::WriteTx;
use super::{audit, health, lane, order};

/// One that is deleted is as if it had never been, but for its log.
const WORKSPACE_SELECT: &str = "SELECT key, id, name FROM workspaces WHERE deleted_at IS NULL";

fn workspace_from_row(row: &Row<'_>) -> Result<Workspace, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    let name = WorkspaceName::parse(row.get_ref("name")?.as_str()?).map_err(|_| unexpected("workspaces.name"))?;
    Ok(Workspace { key, id: parsed(row, "id")?, name, created_at: key.created_at() })
}

/// Why a workspace was not made or changed.
pub enum Refused {
    NotFound,
    NameTaken,
}

pub fn ensure(tx: &mut WriteTx<'_>, new: &NewWorkspace) -> Result<Workspace, rusqlite::Error> {
    match find_named(tx.connection, &new.name)? {
        Some(workspace) => Ok(workspace),
        None => insert(tx, new),
    }
}

pub fn create(tx: &mut WriteTx<'_>, new: &NewWorkspace) -> Result<Result<Workspace, Refused>, rusqlite::Error> {
    match find_named(tx.connection, &new.name)? {
        Some(_) => Ok(Err(Refused::NameTaken)),
        None => insert(tx, new).map(Ok),
    }
}

fn insert(tx: &mut WriteTx<'_>, new: &NewWorkspace) -> Result<Workspace, rusqlite::Error> {
    let key = tx.next_key();
    tx.connection.prepare_cached("INSERT INTO workspaces (key, id, name) VALUES (?1, ?2, ?3)")?.execute(params![
        key.as_i64(),
        new.id.to_string(),
        new.name.as_str()
    ])?;
    audit::append(tx, key, new.author, AuditAction::WorkspaceCreated, new.id)?;
    Ok(Workspace { key, id: new.id, name: new.name.clone(), created_at: key.created_at() })
}

pub fn rename(
    tx: &mut WriteTx<'_>,
    id: WorkspaceId,
    name: &WorkspaceName,
    author: Author,
) -> Result<Result<Workspace, Refused>, rusqlite::Error> {
    let Some(workspace) = find(tx.connection, id)? else { return Ok(Err(Refused::NotFound)) };
    if find_named(tx.connection, name)?.is_some_and(|other| other.key != workspace.key) {
        return Ok(Err(Refused::NameTaken));
    }
    tx.connection
        .prepare_cached("UPDATE workspaces SET name = ?2 WHERE key = ?1")?
        .execute(params![workspace.key.as_i64(), name.as_str()])?;
    audit::append(tx, workspace.key, author, AuditAction::WorkspaceUpdated, id)?;
    Ok(Ok(Workspace { name: name.clone(), ..workspace }))
}

pub fn delete(tx: &mut WriteTx<'_>, id: WorkspaceId, author: Author) -> Result<Result<(), Refused>, rusqlite::Error> {
    let Some(workspace) = find(tx.connection, id)? else { return Ok(Err(Refused::NotFound)) };
    let key = workspace.key.as_i64();
    tx.connection
        .prepare_cached("UPDATE workspaces SET deleted_at = ?2 WHERE key = ?1")?
        .execute(params![key, tx.now.millis()])?;
    for kept_beside in ["endpoint_secrets", "endpoint_sealed"] {
        let sql = format!(
            "DELETE FROM {kept_beside} WHERE endpoint_key IN
                 (SELECT key FROM endpoints WHERE workspace_key = ?1 AND deleted_at IS NULL)"
        );
        tx.connection.prepare_cached(&sql)?.execute([key])?;
    }
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET is_active = 0, deleted_at = ?2, updated_at = ?2
             WHERE workspace_key = ?1 AND deleted_at IS NULL",
        )?
        .execute(params![key, tx.now.millis()])?;
    tx.matching.bump(tx.connection, workspace.key)?;
    order::forget_workspace(tx, workspace.key)?;
    health::forget_workspace(tx, workspace.key)?;
    lane::release_workspace(tx, workspace.key)?;
    audit::append(tx, workspace.key, author, AuditAction::WorkspaceDeleted, id)?;
    Ok(Ok(()))
}

pub fn find(connection: &Connection, id: WorkspaceId) -> Result<Option<Workspace>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND id = ?1"))?
        .query_row([id.to_string()], workspace_from_row)
        .optional()
}

pub fn find_named(connection: &Connection, name: &WorkspaceName) -> Result<Option<Workspace>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND name = ?1"))?
        .query_row([name.as_str()], workspace_from_row)
        .optional()
}

pub fn list(connection: &Connection, page: PageRequest) -> Result<Page<Workspace>, rusqlite::Error> {
    let items = connection
        .prepare_cached(&format!("{WORKSPACE_SELECT} AND key < ?1 ORDER BY key DESC LIMIT ?2"))?
        .query_map(params![page.before().as_i64(), i64::from(page.limit()) + 1], workspace_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |workspace| workspace.key))
}
