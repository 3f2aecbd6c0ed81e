//! Sign-in sessions of the dashboard, and login codes. The tables hold keyed hashes, never a token or a code.
//!
//! Writes `dashboard_sessions` and `login_codes`.

use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

use postrider_domain::access::{Scope, Scopes};
use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::{ApiKeyId, RowKey, SessionId, WorkspaceId};
use postrider_domain::session::{DashboardSession, LoginCodeHash, SessionHash};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{joined, mode_code, mode_from_code, scopes_from};
use postrider_store::log::changes::{self, SessionEnd};
use postrider_store::{NewLoginCode, SessionOpening, Sessions, SignOut, StoreError};

use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{coded, get, instant, key, opt_instant, opt_int, opt_parsed, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};

#[async_trait]
impl Sessions for PostgresStore {
    async fn create_session(
        &self,
        id: SessionId,
        api_key: ApiKeyId,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError> {
        self.write(effect!(|tx| async move {
            match grant_of_key(tx, api_key).await? {
                Some(grant) => open(tx, id, &grant, &new).await,
                None => Ok(None),
            }
        }))
        .await
    }

    async fn redeem_login_code(
        &self,
        code: LoginCodeHash,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError> {
        self.write(effect!(|tx| async move {
            match take_code(tx, code).await? {
                Some((id, grant)) => open(tx, id, &grant, &new).await,
                None => Ok(None),
            }
        }))
        .await
    }

    async fn find_session(&self, hash: SessionHash) -> Result<Option<DashboardSession>, StoreError> {
        self.read(move |session| {
            Box::pin(async move {
                let sql = format!("{SESSION_SELECT} AND s.hash = $1");
                session.query_opt(&sql, &[&hash.0.as_slice()]).await?.as_ref().map(session_from_row).transpose()
            })
        })
        .await
    }

    async fn note_session_seen(&self, key: RowKey, idle: Duration, at_most_every: Duration) -> Result<(), StoreError> {
        self.write(effect!(|tx| async move {
            let (before, ends_at) = (tx.now.minus(at_most_every).millis(), tx.now.plus(idle).millis());
            tx.execute(
                "UPDATE dashboard_sessions SET last_seen_at = $2, ends_at = LEAST(expires_at, $3)
                 WHERE key = $1 AND last_seen_at <= $4 AND ends_at > $2",
                &[&key.as_i64(), &tx.now.millis(), &ends_at, &before],
            )
            .await?;
            Ok(())
        }))
        .await
    }

    async fn end_session(&self, hash: SessionHash, sign_out: SignOut) -> Result<bool, StoreError> {
        self.write(effect!(|tx| async move {
            let sql = "DELETE FROM dashboard_sessions WHERE hash = $1 RETURNING id, workspace_key, mode";
            let Some(row) = tx.query_opt(sql, &[&hash.0.as_slice()]).await? else { return Ok(false) };
            let (id, workspace): (SessionId, RowKey) = (parsed(&row, "id")?, key(&row, "workspace_key")?);
            let author = sign_out.author(id, coded(&row, "mode", mode_from_code)?);
            append_end(tx, workspace, author, id, SessionEnd::SignOut).await?;
            Ok(true)
        }))
        .await
    }

    async fn switch_session(
        &self,
        hash: SessionHash,
        id: SessionId,
        to: WorkspaceId,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError> {
        self.write(effect!(|tx| switch(tx, hash, id, to, &new))).await
    }

    async fn create_login_code(&self, new: NewLoginCode) -> Result<Option<Timestamp>, StoreError> {
        self.write(effect!(|tx, new| create_code(tx, &new))).await
    }
}

/// What a session may do, and the key that decides it.
struct Grant {
    tenant: Tenant,
    scopes: Scopes,
    /// The key's row, and when it stops working.
    api_key: Option<(RowKey, Option<Timestamp>)>,
}

/// Leaves out sessions whose key was revoked, and those of a deleted workspace.
const SESSION_SELECT: &str = "SELECT s.key, s.id, workspaces.id AS workspace_id, s.workspace_key, s.mode, s.scopes,
            api_keys.id AS api_key_id, api_keys.expires_at AS api_key_expires_at, s.expires_at, s.last_seen_at, s.ends_at
     FROM dashboard_sessions s JOIN workspaces ON workspaces.key = s.workspace_key AND deleted_at IS NULL
     LEFT JOIN api_keys ON api_keys.key = s.api_key_key AND revoked_at IS NULL
     WHERE (s.api_key_key IS NULL OR api_keys.key IS NOT NULL)";

fn session_from_row(row: &Row) -> Result<DashboardSession, PgError> {
    Ok(DashboardSession {
        key: key(row, "key")?,
        id: parsed(row, "id")?,
        tenant: tenant_from_row(row)?,
        workspace_id: parsed(row, "workspace_id")?,
        scopes: scopes_from(get(row, "scopes")?, "dashboard_sessions.scopes")?,
        api_key: opt_parsed(row, "api_key_id")?,
        api_key_expires_at: opt_instant(row, "api_key_expires_at")?,
        expires_at: instant(row, "expires_at")?,
        last_seen_at: instant(row, "last_seen_at")?,
        ends_at: instant(row, "ends_at")?,
    })
}

fn tenant_from_row(row: &Row) -> Result<Tenant, PgError> {
    Ok(Tenant::whole(key(row, "workspace_key")?, coded(row, "mode", mode_from_code)?))
}

/// What a session of this key may do. `None` when the key is not in use.
async fn grant_of_key(tx: &WriteTx, id: ApiKeyId) -> Result<Option<Grant>, PgError> {
    let sql = "SELECT key, workspace_key, mode, scopes, expires_at FROM api_keys
               WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)";
    let Some(row) = tx.query_opt(sql, &[&id.to_string(), &tx.now.millis()]).await? else { return Ok(None) };
    let api_key = Some((key(&row, "key")?, opt_instant(&row, "expires_at")?));
    grant_from_row(&row, api_key).map(Some)
}

fn grant_from_row(row: &Row, api_key: Option<(RowKey, Option<Timestamp>)>) -> Result<Grant, PgError> {
    let scopes = scopes_from(get(row, "scopes")?, "scopes of a session")?;
    Ok(Grant { tenant: tenant_from_row(row)?, scopes, api_key })
}

/// Removes a login code that is still valid. Of two transactions with one code, the second waits and finds none.
async fn take_code(tx: &WriteTx, code: LoginCodeHash) -> Result<Option<(SessionId, Grant)>, PgError> {
    let sql = "DELETE FROM login_codes WHERE hash = $1 AND expires_at > $2
               RETURNING session_id, workspace_key, mode, scopes";
    let Some(row) = tx.query_opt(sql, &[&code.0.as_slice(), &tx.now.millis()]).await? else { return Ok(None) };
    Ok(Some((parsed(&row, "session_id")?, grant_from_row(&row, None)?)))
}

/// Whether the workspace exists. Its row lock makes concurrent sign-ins wait, so that they stay within the limits.
async fn lock_workspace(tx: &WriteTx, workspace: RowKey) -> Result<bool, PgError> {
    let sql = "SELECT key FROM workspaces WHERE key = $1 AND deleted_at IS NULL FOR NO KEY UPDATE";
    Ok(tx.query_opt(sql, &[&workspace.as_i64()]).await?.is_some())
}

async fn switch(
    tx: &mut WriteTx,
    hash: SessionHash,
    id: SessionId,
    to: WorkspaceId,
    new: &SessionOpening,
) -> Result<Option<DashboardSession>, PgError> {
    let sql = "SELECT key FROM workspaces WHERE id = $1 AND deleted_at IS NULL AND NOT is_operations";
    let Some(found) = tx.query_opt(sql, &[&to.to_string()]).await? else { return Ok(None) };
    let workspace = key(&found, "key")?;
    let hash = hash.0.as_slice();
    let sql = format!("{SESSION_SELECT} AND s.hash = $1 AND s.ends_at > $2 FOR UPDATE OF s");
    let found = tx.query_opt(&sql, &[&hash, &tx.now.millis()]).await?;
    let Some(before) = found.as_ref().map(session_from_row).transpose()? else { return Ok(None) };
    let sql = "DELETE FROM dashboard_sessions WHERE hash = $1 RETURNING api_key_key";
    let api_key = opt_int(&tx.query_one(sql, &[&hash]).await?, "api_key_key")?;
    let author = SignOut { request_id: new.request_id, address: new.address }.author(before.id, before.tenant.mode);
    append_end(tx, before.tenant.workspace, author, before.id, SessionEnd::Switch).await?;
    let grant = Grant {
        tenant: Tenant::whole(workspace, before.tenant.mode),
        scopes: before.scopes,
        api_key: api_key.map(|key| (RowKey::from_i64(key), before.api_key_expires_at)),
    };
    // Nothing is undone when the workspace was deleted in this moment: its visitor signs in again.
    open(tx, id, &grant, &new.instead_of(&before, tx.now)).await
}

/// `None` when the workspace is deleted.
async fn open(
    tx: &mut WriteTx,
    id: SessionId,
    grant: &Grant,
    new: &SessionOpening,
) -> Result<Option<DashboardSession>, PgError> {
    let Grant { tenant, scopes, api_key } = grant;
    if !lock_workspace(tx, tenant.workspace).await? {
        return Ok(None);
    }
    let key_ends = api_key.and_then(|(_, expires_at)| expires_at);
    let expires_at = tx.now.plus(new.lifetime);
    let expires_at = key_ends.map_or(expires_at, |at| at.min(expires_at));
    tx.execute(
        "INSERT INTO dashboard_sessions
             (key, id, hash, workspace_key, mode, scopes, api_key_key, expires_at, last_seen_at, ends_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, LEAST($8, $10))",
        &[
            &tx.next_key().as_i64(),
            &id.to_string(),
            &new.hash.0.as_slice(),
            &tenant.workspace.as_i64(),
            &mode_code(tenant.mode),
            &joined(scopes.iter().map(Scope::as_str)),
            &api_key.map(|(key, _)| key.as_i64()),
            &expires_at.millis(),
            &tx.now.millis(),
            &tx.now.plus(new.idle).millis(),
        ],
    )
    .await?;
    // A key that was revoked meanwhile opens none. The row goes with those that have ended.
    let opened = tx.query_opt(&format!("{SESSION_SELECT} AND s.id = $1"), &[&id.to_string()]).await?;
    let Some(session) = opened.as_ref().map(session_from_row).transpose()? else { return Ok(None) };
    let author = new.author(&session);
    end_beyond_limit(tx, tenant.workspace, new.limit, author).await?;
    let set = changes::session_created(&session);
    audit::append(tx, tenant.workspace, author, AuditAction::SessionCreated, id, &set).await?;
    Ok(Some(session))
}

/// Removes the sessions that were not used for the longest time, until the workspace is within its limit.
async fn end_beyond_limit(tx: &WriteTx, workspace: RowKey, limit: u32, author: Author) -> Result<(), PgError> {
    let rows = tx
        .query(
            "DELETE FROM dashboard_sessions WHERE key IN
                 (SELECT key FROM dashboard_sessions WHERE workspace_key = $1
                  ORDER BY last_seen_at DESC, key DESC OFFSET $2)
             RETURNING id, ends_at",
            &[&workspace.as_i64(), &i64::from(limit)],
        )
        .await?;
    for row in &rows {
        // One that had ended by itself is no loss to anybody.
        if instant(row, "ends_at")? > tx.now {
            append_end(tx, workspace, author, parsed(row, "id")?, SessionEnd::Limit).await?;
        }
    }
    Ok(())
}

async fn append_end(
    tx: &WriteTx,
    workspace: RowKey,
    author: Author,
    id: SessionId,
    why: SessionEnd,
) -> Result<(), PgError> {
    audit::append(tx, workspace, author, AuditAction::SessionEnded, id, &changes::session_ended(why)).await
}

async fn create_code(tx: &mut WriteTx, new: &NewLoginCode) -> Result<Option<Timestamp>, PgError> {
    let Tenant { workspace, mode, .. } = new.tenant;
    if !lock_workspace(tx, workspace).await? {
        return Ok(None);
    }
    let expires_at = tx.now.plus(new.lifetime);
    tx.execute(
        "INSERT INTO login_codes (key, hash, session_id, workspace_key, mode, scopes, expires_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            &tx.next_key().as_i64(),
            &new.hash.0.as_slice(),
            &new.session_id.to_string(),
            &workspace.as_i64(),
            &mode_code(mode),
            &joined(new.scopes.iter().map(Scope::as_str)),
            &expires_at.millis(),
        ],
    )
    .await?;
    tx.execute(
        "DELETE FROM login_codes WHERE key IN
             (SELECT key FROM login_codes WHERE workspace_key = $1 ORDER BY key DESC OFFSET $2)",
        &[&workspace.as_i64(), &i64::from(new.limit)],
    )
    .await?;
    let set = changes::login_code_created(new, expires_at);
    audit::append(tx, workspace, new.author, AuditAction::LoginCodeCreated, new.session_id, &set).await?;
    Ok(Some(expires_at))
}

/// The API key behind a session that is open: `Some(None)` when a login code opened it, `None` when it has ended.
pub async fn api_key_of(session: &Session, now: Timestamp, id: SessionId) -> Result<Option<Option<ApiKeyId>>, PgError> {
    let sql = format!("{SESSION_SELECT} AND s.id = $1 AND s.ends_at > $2");
    let found = session.query_opt(&sql, &[&id.to_string(), &now.millis()]).await?;
    Ok(found.as_ref().map(session_from_row).transpose()?.map(|session| session.api_key))
}

/// Removes sessions that have ended and login codes that are too old, up to `limit` of each. Returns the larger number.
/// Skips rows that another node removes or uses.
pub async fn remove_ended(tx: &WriteTx, limit: usize) -> Result<usize, PgError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut most = 0;
    // In arrays, so that the limit holds: a subquery of IN may run more than once.
    for sql in [
        "DELETE FROM dashboard_sessions WHERE key = ANY (ARRAY
             (SELECT key FROM dashboard_sessions WHERE ends_at <= $1 ORDER BY ends_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        "DELETE FROM login_codes WHERE key = ANY (ARRAY
             (SELECT key FROM login_codes WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
    ] {
        most = tx.execute(sql, &[&tx.now.millis(), &limit]).await?.max(most);
    }
    Ok(usize::try_from(most).unwrap_or(usize::MAX))
}

/// Removes what a workspace still has when it is removed itself.
pub async fn remove_of_workspace(tx: &WriteTx, workspace: RowKey) -> Result<(), PgError> {
    for sql in
        ["DELETE FROM dashboard_sessions WHERE workspace_key = $1", "DELETE FROM login_codes WHERE workspace_key = $1"]
    {
        tx.execute(sql, &[&workspace.as_i64()]).await?;
    }
    Ok(())
}
