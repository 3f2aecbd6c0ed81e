//! API keys, known by their keyed hashes. Writes `api_keys`.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

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
use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{coded, get, key, number, opt_instant, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};

#[async_trait]
impl ApiKeys for PostgresStore {
    async fn create_api_key(
        &self,
        new: NewApiKey,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, CreateApiKeyError> {
        self.write_once(recording, effect!(|tx, new| create(tx, &new))).await
    }

    async fn find_api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKey>, StoreError> {
        self.read(move |session| Box::pin(find(session, hash))).await
    }

    async fn get_api_key(&self, tenant: Option<Tenant>, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        self.read(move |session| Box::pin(get_by_id(session, tenant, id))).await
    }

    async fn list_api_keys(&self, tenant: Option<Tenant>, page: PageRequest) -> Result<Page<ApiKey>, StoreError> {
        self.read(move |session| Box::pin(list(session, tenant, page))).await
    }

    async fn revoke_with_children(&self, author: Author, id: ApiKeyId) -> Result<Vec<ApiKeyId>, RevokeApiKeyError> {
        self.write(effect!(|tx| revoke_with_children(tx, author, id))).await?
    }

    async fn record_key_uses(&self, uses: Vec<(RowKey, Duration)>) -> Result<(), StoreError> {
        self.write(effect!(|tx, uses| record_uses(tx, &uses))).await
    }

    async fn revoke_api_key(&self, write: Write<ApiKey>, id: ApiKeyId) -> Result<Written<ApiKey>, RevokeApiKeyError> {
        let Write { tenant, author, recording } = write;
        self.write_once(
            recording,
            effect!(|tx| async move {
                let revoked = revoke(tx, tenant, id).await?;
                if revoked {
                    let changed = changes::api_key_revoked(tx.now);
                    audit::append(tx, tenant.workspace, author, AuditAction::ApiKeyRevoked, id, &changed).await?;
                }
                Ok(get_by_id(tx, Some(tenant), id).await?.ok_or(RevokeApiKeyError::NotFound))
            }),
        )
        .await
    }
}

/// Excludes keys of a deleted workspace.
const API_KEY_SELECT: &str =
    "SELECT api_keys.key, api_keys.id, workspaces.id AS workspace_id, workspace_key, api_keys.name, mode, scopes,
            last4, expires_at, revoked_at, created_by, last_used_at
     FROM api_keys JOIN workspaces ON workspaces.key = workspace_key AND deleted_at IS NULL";

fn api_key_from_row(row: &Row) -> Result<ApiKey, PgError> {
    let at = key(row, "key")?;
    Ok(ApiKey {
        key: at,
        id: parsed(row, "id")?,
        name: get(row, "name")?,
        workspace_id: parsed(row, "workspace_id")?,
        workspace_key: key(row, "workspace_key")?,
        mode: coded(row, "mode", mode_from_code)?,
        scopes: scopes_from(get(row, "scopes")?, "api_keys.scopes")?,
        last4: get(row, "last4")?,
        created_at: at.created_at(),
        expires_at: opt_instant(row, "expires_at")?,
        revoked_at: opt_instant(row, "revoked_at")?,
        created_by: get::<Option<&str>>(row, "created_by")?.map(maker_from).transpose()?,
        last_used_at: opt_instant(row, "last_used_at")?,
    })
}

async fn create(tx: &mut WriteTx, new: &NewApiKey) -> Result<Result<ApiKey, CreateApiKeyError>, PgError> {
    let workspace_key = new.tenant.workspace.as_i64();
    // The row lock makes concurrent inserts and the deletion of the workspace wait, so that the count below stays true.
    let workspace = "SELECT key FROM workspaces WHERE key = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    if tx.query_opt(workspace, &[&workspace_key]).await?.is_none() {
        return Ok(Err(CreateApiKeyError::NoWorkspace));
    }
    let in_use = "SELECT COUNT(*) AS count FROM api_keys
                  WHERE workspace_key = $1 AND mode = $2 AND revoked_at IS NULL";
    let in_use = tx.query_one(in_use, &[&workspace_key, &mode_code(new.tenant.mode)]).await?;
    if number::<u32>(&in_use, "count")? >= new.limit {
        return Ok(Err(CreateApiKeyError::WorkspaceFull(new.limit)));
    }
    let session_api_key = match new.author.actor.session() {
        None => None,
        Some(id) => match session::api_key_of(tx, tx.now, id).await? {
            Some(api_key) => api_key,
            None => return Ok(Err(CreateApiKeyError::SessionEnded)),
        },
    };
    tx.execute(
        "INSERT INTO api_keys (key, id, workspace_key, name, mode, hash, last4, scopes, expires_at, created_by,
                               session_api_key)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            &tx.next_key().as_i64(),
            &new.id.to_string(),
            &workspace_key,
            &new.name.as_ref().map(|name| name.as_str().to_owned()),
            &mode_code(new.tenant.mode),
            &new.hash.0.as_slice(),
            &new.last4,
            &joined(new.scopes.iter().map(Scope::as_str)),
            &new.expires_at.map(Timestamp::millis),
            &maker_text(new.author.actor),
            &session_api_key.map(|id| id.to_string()),
        ],
    )
    .await?;
    let created = tx.query_one(&format!("{API_KEY_SELECT} WHERE api_keys.id = $1"), &[&new.id.to_string()]).await?;
    let created = api_key_from_row(&created)?;
    let set = changes::api_key_created(&created);
    audit::append(tx, new.tenant.workspace, new.author, AuditAction::ApiKeyCreated, new.id, &set).await?;
    Ok(Ok(created))
}

async fn find(session: &Session, hash: ApiKeyHash) -> Result<Option<ApiKey>, PgError> {
    let found = session.query_opt(&format!("{API_KEY_SELECT} WHERE hash = $1"), &[&hash.0.as_slice()]).await?;
    found.as_ref().map(api_key_from_row).transpose()
}

/// The condition for the keys that a tenant manages. The workspace is the first parameter.
fn managed_by(tenant: Option<Tenant>) -> String {
    match tenant {
        Some(tenant) => format!("workspace_key = $1 AND {}", managed_modes(tenant)),
        None => "$1 IS NULL".to_owned(),
    }
}

async fn get_by_id(session: &Session, tenant: Option<Tenant>, id: ApiKeyId) -> Result<Option<ApiKey>, PgError> {
    let sql = format!("{API_KEY_SELECT} WHERE {} AND api_keys.id = $2", managed_by(tenant));
    let workspace = tenant.map(|tenant| tenant.workspace.as_i64());
    let found = session.query_opt(&sql, &[&workspace, &id.to_string()]).await?;
    found.as_ref().map(api_key_from_row).transpose()
}

async fn list(session: &Session, tenant: Option<Tenant>, page: PageRequest) -> Result<Page<ApiKey>, PgError> {
    let managed = managed_by(tenant);
    let sql = format!("{API_KEY_SELECT} WHERE {managed} AND api_keys.key < $2 ORDER BY api_keys.key DESC LIMIT $3");
    let workspace = tenant.map(|tenant| tenant.workspace.as_i64());
    let rows = session.query(&sql, &[&workspace, &page.before().as_i64(), &(i64::from(page.limit()) + 1)]).await?;
    let items = rows.iter().map(api_key_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |api_key| api_key.key))
}

/// Whether the key was in use until now.
async fn revoke(tx: &mut WriteTx, tenant: Tenant, id: ApiKeyId) -> Result<bool, PgError> {
    let managed = managed_by(Some(tenant));
    let sql = format!("UPDATE api_keys SET revoked_at = $3 WHERE {managed} AND id = $2 AND revoked_at IS NULL");
    let revoked = tx.execute(&sql, &[&tenant.workspace.as_i64(), &id.to_string(), &tx.now.millis()]).await?;
    Ok(revoked > 0)
}

async fn revoke_with_children(
    tx: &mut WriteTx,
    author: Author,
    id: ApiKeyId,
) -> Result<Result<Vec<ApiKeyId>, RevokeApiKeyError>, PgError> {
    if get_by_id(tx, None, id).await?.is_none() {
        return Ok(Err(RevokeApiKeyError::NotFound));
    }
    let rows = tx
        .query(
            "WITH RECURSIVE family (id) AS (
                 SELECT $1::text UNION
                 SELECT made.id FROM family
                 JOIN api_keys made ON made.created_by = family.id OR made.session_api_key = family.id)
             SELECT id, workspace_key FROM api_keys WHERE id IN (SELECT id FROM family) AND revoked_at IS NULL
             ORDER BY key FOR NO KEY UPDATE",
            &[&id.to_string()],
        )
        .await?;
    let mut revoked = Vec::with_capacity(rows.len());
    for row in &rows {
        let (id, workspace): (ApiKeyId, RowKey) = (parsed(row, "id")?, key(row, "workspace_key")?);
        let sql = "UPDATE api_keys SET revoked_at = $2 WHERE id = $1";
        tx.execute(sql, &[&id.to_string(), &tx.now.millis()]).await?;
        let changed = changes::api_key_revoked(tx.now);
        audit::append(tx, workspace, author, AuditAction::ApiKeyRevoked, id, &changed).await?;
        revoked.push(id);
    }
    Ok(Ok(revoked))
}

/// Skips rows that another node is writing: it notes a use of the same minute.
async fn record_uses(tx: &mut WriteTx, uses: &[(RowKey, Duration)]) -> Result<(), PgError> {
    let keys: Vec<i64> = uses.iter().map(|(key, _)| key.as_i64()).collect();
    let instants: Vec<i64> = uses.iter().map(|(_, ago)| tx.now.minus(*ago).millis()).collect();
    tx.execute(
        "WITH used AS (SELECT * FROM unnest($1, $2) AS used (key, at)),
              free AS (SELECT k.key FROM api_keys k JOIN used ON used.key = k.key
                       ORDER BY k.key FOR NO KEY UPDATE OF k SKIP LOCKED)
         UPDATE api_keys SET last_used_at = used.at FROM used JOIN free ON free.key = used.key
         WHERE api_keys.key = used.key AND (last_used_at IS NULL OR last_used_at < used.at)",
        &[&keys, &instants],
    )
    .await?;
    Ok(())
}
