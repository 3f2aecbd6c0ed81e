//! API keys.

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::access::{ApiKey, ApiKeyHash, Scope, Scopes};
use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::{ApiKeyId, RowKey};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::time::Timestamp;
use postrider_store::NewApiKey;
use postrider_store::column::{mode_code, mode_from_code};

use super::audit;
use super::column::{parsed, unexpected};
use super::writer::WriteTx;

/// Keys of a workspace that is deleted are no keys.
const API_KEY_SELECT: &str =
    "SELECT api_keys.key, api_keys.id, workspaces.id AS workspace_id, workspace_key, api_keys.name, mode, scopes,
            last4, expires_at, revoked_at
     FROM api_keys JOIN workspaces ON workspaces.key = workspace_key AND deleted_at IS NULL";

fn api_key_from_row(row: &Row<'_>) -> Result<ApiKey, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    let scopes: String = row.get("scopes")?;
    let scopes = scopes
        .split_whitespace()
        .map(|scope| scope.parse::<Scope>().map_err(|_| unexpected("api_keys.scopes")))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ApiKey {
        key,
        id: parsed(row, "id")?,
        name: row.get("name")?,
        workspace_id: parsed(row, "workspace_id")?,
        workspace_key: RowKey::from_i64(row.get("workspace_key")?),
        mode: super::column::coded(row, "mode", mode_from_code)?,
        scopes: Scopes::of(&scopes),
        last4: row.get("last4")?,
        created_at: key.created_at(),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Timestamp::from_millis),
        revoked_at: row.get::<_, Option<i64>>("revoked_at")?.map(Timestamp::from_millis),
    })
}

/// Why a key was not made.
pub enum NoKey {
    Full,
    WorkspaceGone,
}

pub fn create_api_key(tx: &mut WriteTx<'_>, new: &NewApiKey) -> Result<Result<ApiKey, NoKey>, rusqlite::Error> {
    let workspace_key = new.workspace_key.as_i64();
    let in_use: Option<u32> = tx
        .connection
        .prepare_cached(
            "SELECT (SELECT COUNT(*) FROM api_keys WHERE workspace_key = ?1 AND revoked_at IS NULL)
             FROM workspaces WHERE key = ?1 AND deleted_at IS NULL",
        )?
        .query_row([workspace_key], |row| row.get(0))
        .optional()?;
    match in_use {
        None => return Ok(Err(NoKey::WorkspaceGone)),
        Some(count) if count >= new.limit => return Ok(Err(NoKey::Full)),
        Some(_) => {}
    }
    let scopes: Vec<&str> = new.scopes.iter().map(Scope::as_str).collect();
    tx.connection
        .prepare_cached(
            "INSERT INTO api_keys (key, id, workspace_key, name, mode, hash, last4, scopes, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            new.id.to_string(),
            workspace_key,
            new.name.as_ref().map(|name| name.as_str()),
            mode_code(new.mode),
            new.hash.0,
            new.last4,
            scopes.join(" "),
            new.expires_at.map(Timestamp::millis),
        ])?;
    audit::append(tx, new.workspace_key, new.author, AuditAction::ApiKeyCreated, new.id)?;
    tx.connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE api_keys.id = ?1"))?
        .query_row([new.id.to_string()], api_key_from_row)
        .map(Ok)
}

pub fn find_api_key(connection: &Connection, hash: ApiKeyHash) -> Result<Option<ApiKey>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE hash = ?1"))?
        .query_row([hash.0], api_key_from_row)
        .optional()
}

/// A key by its id, of this workspace or of any.
pub fn get_api_key(
    connection: &Connection,
    workspace_key: Option<RowKey>,
    id: ApiKeyId,
) -> Result<Option<ApiKey>, rusqlite::Error> {
    connection
        .prepare_cached(&format!(
            "{API_KEY_SELECT} WHERE api_keys.id = ?1 AND workspace_key = ifnull(?2, workspace_key)"
        ))?
        .query_row(params![id.to_string(), workspace_key.map(RowKey::as_i64)], api_key_from_row)
        .optional()
}

pub fn list_api_keys(
    connection: &Connection,
    workspace_key: Option<RowKey>,
    page: PageRequest,
) -> Result<Page<ApiKey>, rusqlite::Error> {
    let of_workspace = if workspace_key.is_some() { "workspace_key = ?1" } else { "?1 IS NULL" };
    let sql =
        format!("{API_KEY_SELECT} WHERE {of_workspace} AND api_keys.key < ?2 ORDER BY api_keys.key DESC LIMIT ?3");
    let items = connection
        .prepare_cached(&sql)?
        .query_map(
            params![workspace_key.map(RowKey::as_i64), page.before().as_i64(), i64::from(page.limit()) + 1],
            api_key_from_row,
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |api_key| api_key.key))
}

pub fn revoke_api_key(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    id: ApiKeyId,
    author: Author,
) -> Result<Option<ApiKey>, rusqlite::Error> {
    let revoked = tx
        .connection
        .prepare_cached(
            "UPDATE api_keys SET revoked_at = ?3 WHERE id = ?1 AND workspace_key = ?2 AND revoked_at IS NULL",
        )?
        .execute(params![id.to_string(), workspace_key.as_i64(), tx.now.millis()])?;
    if revoked > 0 {
        audit::append(tx, workspace_key, author, AuditAction::ApiKeyRevoked, id)?;
    }
    get_api_key(tx.connection, Some(workspace_key), id)
}
