//! API keys. The table holds keyed hashes, never a key.
//!
//! Writes `api_keys`.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::access::{ApiKey, ApiKeyHash, Scope};
use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::{ApiKeyId, RowKey};
use postrider_domain::idempotency::Recording;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{joined, maker_from, maker_text, managed_modes, mode_code, mode_from_code, scopes_from};
use postrider_store::log::changes;
use postrider_store::{ApiKeys, CreateApiKeyError, NewApiKey, RevokeApiKeyError, StoreError, Write, Written};

use super::session;
use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::{broken, coded, parsed};
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};

#[async_trait]
impl ApiKeys for SqliteStore {
    async fn create_api_key(
        &self,
        new: NewApiKey,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, CreateApiKeyError> {
        self.write_once(JobSize::ONE_ROW, recording, move |tx| create(tx, &new)).await
    }

    async fn find_api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKey>, StoreError> {
        self.read(move |tx| {
            tx.connection
                .prepare_cached(&format!("{API_KEY_SELECT} WHERE hash = ?1"))?
                .query_row([hash.0], api_key_from_row)
                .optional()
        })
        .await
    }

    async fn get_api_key(&self, tenant: Option<Tenant>, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        self.read(move |tx| get(tx.connection, tenant, id)).await
    }

    async fn list_api_keys(&self, tenant: Option<Tenant>, page: PageRequest) -> Result<Page<ApiKey>, StoreError> {
        self.read(move |tx| list(tx.connection, tenant, page)).await
    }

    async fn revoke_with_children(&self, author: Author, id: ApiKeyId) -> Result<Vec<ApiKeyId>, RevokeApiKeyError> {
        self.write(JobSize::ONE_ROW, move |tx| revoke_with_children(tx, author, id)).await?
    }

    async fn record_key_uses(&self, uses: Vec<(RowKey, Duration)>) -> Result<(), StoreError> {
        self.write(JobSize { rows: uses.len(), bytes: 0 }, move |tx| record_uses(tx, &uses)).await
    }

    async fn revoke_api_key(&self, write: Write<ApiKey>, id: ApiKeyId) -> Result<Written<ApiKey>, RevokeApiKeyError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| revoke(tx, write.tenant, write.author, id)).await
    }
}

/// The keys of a deleted workspace are not found.
const API_KEY_SELECT: &str =
    "SELECT api_keys.key, api_keys.id, workspaces.id AS workspace_id, workspace_key, api_keys.name, mode, scopes,
            last4, expires_at, revoked_at, created_by, last_used_at
     FROM api_keys JOIN workspaces ON workspaces.key = workspace_key AND deleted_at IS NULL";

fn api_key_from_row(row: &Row<'_>) -> Result<ApiKey, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    Ok(ApiKey {
        key,
        id: parsed(row, "id")?,
        name: row.get("name")?,
        workspace_id: parsed(row, "workspace_id")?,
        workspace_key: RowKey::from_i64(row.get("workspace_key")?),
        mode: coded(row, "mode", mode_from_code)?,
        scopes: scopes_from(row.get_ref("scopes")?.as_str()?, "api_keys.scopes").map_err(broken)?,
        last4: row.get("last4")?,
        created_at: key.created_at(),
        expires_at: row.get::<_, Option<i64>>("expires_at")?.map(Timestamp::from_millis),
        revoked_at: row.get::<_, Option<i64>>("revoked_at")?.map(Timestamp::from_millis),
        created_by: row.get_ref("created_by")?.as_str_or_null()?.map(maker_from).transpose().map_err(broken)?,
        last_used_at: row.get::<_, Option<i64>>("last_used_at")?.map(Timestamp::from_millis),
    })
}

fn create(tx: &mut WriteTx<'_>, new: &NewApiKey) -> WriteResult<ApiKey, CreateApiKeyError> {
    let Tenant { workspace, mode, .. } = new.tenant;
    let in_use: Option<u32> = tx
        .connection
        .prepare_cached(
            "SELECT (SELECT COUNT(*) FROM api_keys WHERE workspace_key = ?1 AND mode = ?2 AND revoked_at IS NULL)
             FROM workspaces WHERE key = ?1 AND deleted_at IS NULL",
        )?
        .query_row(params![workspace.as_i64(), mode_code(mode)], |row| row.get(0))
        .optional()?;
    match in_use {
        None => return Ok(Err(CreateApiKeyError::NoWorkspace)),
        Some(count) if count >= new.limit => return Ok(Err(CreateApiKeyError::WorkspaceFull(new.limit))),
        Some(_) => {}
    }
    let session_api_key = match new.author.actor.session().map(|id| session::api_key_of(tx, id)).transpose()? {
        Some(None) => return Ok(Err(CreateApiKeyError::SessionEnded)),
        Some(Some(api_key)) => api_key,
        None => None,
    };
    tx.connection
        .prepare_cached(
            "INSERT INTO api_keys (key, id, workspace_key, name, mode, hash, last4, scopes, expires_at, created_by,
                                   session_api_key)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            new.id.to_string(),
            workspace.as_i64(),
            new.name.as_ref().map(|name| name.as_str()),
            mode_code(mode),
            new.hash.0,
            new.last4,
            joined(new.scopes.iter().map(Scope::as_str)),
            new.expires_at.map(Timestamp::millis),
            maker_text(new.author.actor),
            session_api_key.map(|id| id.to_string()),
        ])?;
    let created = tx
        .connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE api_keys.id = ?1"))?
        .query_row([new.id.to_string()], api_key_from_row)?;
    let set = changes::api_key_created(&created);
    audit::append(tx, workspace, new.author, AuditAction::ApiKeyCreated, new.id, &set)?;
    Ok(Ok(created))
}

/// The condition for the keys that a tenant manages. The workspace is the first parameter.
fn managed_by(tenant: Option<Tenant>) -> String {
    match tenant {
        Some(tenant) => format!("workspace_key = ?1 AND {}", managed_modes(tenant)),
        None => "?1 IS NULL".to_owned(),
    }
}

fn get(connection: &Connection, tenant: Option<Tenant>, id: ApiKeyId) -> Result<Option<ApiKey>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{API_KEY_SELECT} WHERE {} AND api_keys.id = ?2", managed_by(tenant)))?
        .query_row(params![tenant.map(|tenant| tenant.workspace.as_i64()), id.to_string()], api_key_from_row)
        .optional()
}

fn list(connection: &Connection, tenant: Option<Tenant>, page: PageRequest) -> Result<Page<ApiKey>, rusqlite::Error> {
    let managed = managed_by(tenant);
    let sql = format!("{API_KEY_SELECT} WHERE {managed} AND api_keys.key < ?2 ORDER BY api_keys.key DESC LIMIT ?3");
    let workspace = tenant.map(|tenant| tenant.workspace.as_i64());
    let items = connection
        .prepare_cached(&sql)?
        .query_map(params![workspace, page.before().as_i64(), i64::from(page.limit()) + 1], api_key_from_row)?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |api_key| api_key.key))
}

fn revoke(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: ApiKeyId,
) -> WriteResult<ApiKey, RevokeApiKeyError> {
    let workspace = tenant.workspace;
    let revoked = tx
        .connection
        .prepare_cached(&format!(
            "UPDATE api_keys SET revoked_at = ?3 WHERE {} AND id = ?2 AND revoked_at IS NULL",
            managed_by(Some(tenant))
        ))?
        .execute(params![workspace.as_i64(), id.to_string(), tx.now.millis()])?;
    if revoked > 0 {
        audit::append(tx, workspace, author, AuditAction::ApiKeyRevoked, id, &changes::api_key_revoked(tx.now))?;
    }
    Ok(get(tx.connection, Some(tenant), id)?.ok_or(RevokeApiKeyError::NotFound))
}

fn revoke_with_children(
    tx: &mut WriteTx<'_>,
    author: Author,
    id: ApiKeyId,
) -> WriteResult<Vec<ApiKeyId>, RevokeApiKeyError> {
    if get(tx.connection, None, id)?.is_none() {
        return Ok(Err(RevokeApiKeyError::NotFound));
    }
    let family = tx
        .connection
        .prepare_cached(
            "WITH RECURSIVE family (id) AS (
                 SELECT ?1 UNION
                 SELECT made.id FROM family
                 JOIN api_keys made ON made.created_by = family.id OR made.session_api_key = family.id)
             SELECT id, workspace_key FROM api_keys WHERE id IN (SELECT id FROM family) AND revoked_at IS NULL
             ORDER BY key",
        )?
        .query_map([id.to_string()], |row| Ok((parsed(row, "id")?, RowKey::from_i64(row.get("workspace_key")?))))?
        .collect::<Result<Vec<(ApiKeyId, RowKey)>, _>>()?;
    for (id, workspace) in &family {
        tx.connection
            .prepare_cached("UPDATE api_keys SET revoked_at = ?2 WHERE id = ?1")?
            .execute(params![id.to_string(), tx.now.millis()])?;
        audit::append(tx, *workspace, author, AuditAction::ApiKeyRevoked, *id, &changes::api_key_revoked(tx.now))?;
    }
    Ok(Ok(family.into_iter().map(|(id, _)| id).collect()))
}

fn record_uses(tx: &WriteTx<'_>, uses: &[(RowKey, Duration)]) -> Result<(), rusqlite::Error> {
    let mut update = tx.connection.prepare_cached(
        "UPDATE api_keys SET last_used_at = ?2 WHERE key = ?1 AND (last_used_at IS NULL OR last_used_at < ?2)",
    )?;
    for (key, ago) in uses {
        update.execute(params![key.as_i64(), tx.now.minus(*ago).millis()])?;
    }
    Ok(())
}
