//! Workspaces and API keys.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::access::{ApiKey, ApiKeyHash, Mode, Scope, Scopes};
use crate::domain::id::{ApiKeyId, RowKey, WorkspaceId};
use crate::domain::time::Timestamp;
use crate::domain::workspace::{Workspace, WorkspaceName};
use crate::store::NewApiKey;

use super::column::{parsed, unexpected};
use super::writer::WriteTx;

pub const fn mode_code(mode: Mode) -> i64 {
    match mode {
        Mode::Live => 0,
        Mode::Test => 1,
    }
}

pub const fn mode_from_code(code: i64) -> Option<Mode> {
    match code {
        0 => Some(Mode::Live),
        1 => Some(Mode::Test),
        _ => None,
    }
}

fn workspace_from_row(row: &Row<'_>) -> Result<Workspace, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    let name = WorkspaceName::parse(row.get_ref("name")?.as_str()?).map_err(|_| unexpected("workspaces.name"))?;
    Ok(Workspace { key, id: parsed(row, "id")?, name, created_at: key.created_at() })
}

pub fn ensure_workspace(
    tx: &mut WriteTx<'_>,
    name: &WorkspaceName,
    id_if_new: WorkspaceId,
) -> Result<Workspace, rusqlite::Error> {
    tx.connection
        .prepare_cached("INSERT INTO workspaces (key, id, name) VALUES (?1, ?2, ?3) ON CONFLICT (name) DO NOTHING")?
        .execute(params![tx.next_key().as_i64(), id_if_new.to_string(), name.as_str()])?;
    tx.connection
        .prepare_cached("SELECT key, id, name FROM workspaces WHERE name = ?1")?
        .query_row([name.as_str()], workspace_from_row)
}

const API_KEY_SELECT: &str =
    "SELECT api_keys.key, api_keys.id, workspaces.id AS workspace_id, workspace_key, mode, scopes,
            last4, expires_at, revoked_at
     FROM api_keys JOIN workspaces ON workspaces.key = workspace_key";

fn api_key_from_row(row: &Row<'_>) -> Result<ApiKey, rusqlite::Error> {
    let scopes: String = row.get("scopes")?;
    let scopes = scopes
        .split_whitespace()
        .map(|scope| scope.parse::<Scope>().map_err(|_| unexpected("api_keys.scopes")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ApiKey {
        id: parsed(row, "id")?,
        workspace_id: parsed(row, "workspace_id")?,
        workspace_key: RowKey::from_i64(row.get("workspace_key")?),
        mode: super::column::coded(row, "mode", mode_from_code)?,
        scopes: Scopes::of(&scopes),
        last4: row.get("last4")?,
        created_at: RowKey::from_i64(row.get("key")?).created_at(),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Timestamp::from_millis),
        revoked_at: row.get::<_, Option<i64>>("revoked_at")?.map(Timestamp::from_millis),
    })
}

pub fn create_api_key(tx: &mut WriteTx<'_>, new: &NewApiKey) -> Result<ApiKey, rusqlite::Error> {
    let scopes: Vec<&str> = new.scopes.iter().map(Scope::as_str).collect();
    tx.connection
        .prepare_cached(
            "INSERT INTO api_keys (key, id, workspace_key, mode, hash, last4, scopes, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            new.id.to_string(),
            new.workspace_key.as_i64(),
            mode_code(new.mode),
            new.hash.0,
            new.last4,
            scopes.join(" "),
            new.expires_at.map(Timestamp::millis),
        ])?;
    tx.connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE api_keys.id = ?1"))?
        .query_row([new.id.to_string()], api_key_from_row)
}

pub fn find_api_key(connection: &Connection, hash: ApiKeyHash) -> Result<Option<ApiKey>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE hash = ?1"))?
        .query_row([hash.0], api_key_from_row)
        .optional()
}

pub fn revoke_api_key(tx: &mut WriteTx<'_>, id: ApiKeyId) -> Result<Option<ApiKey>, rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1 AND revoked_at IS NULL")?
        .execute(params![id.to_string(), tx.now.millis()])?;
    tx.connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE api_keys.id = ?1"))?
        .query_row([id.to_string()], api_key_from_row)
        .optional()
}
