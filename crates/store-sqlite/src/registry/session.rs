//! Sign-in sessions of the dashboard, and login codes. The tables hold keyed hashes, never a token or a code.
//!
//! Writes `dashboard_sessions` and `login_codes`.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::access::{Scope, Scopes};
use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::id::{ApiKeyId, RowKey, SessionId, WorkspaceId};
use postrider_domain::session::{DashboardSession, LoginCodeHash, SessionHash};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{joined, mode_code, mode_from_code, scopes_from};
use postrider_store::log::changes::{self, SessionEnd};
use postrider_store::{NewLoginCode, SessionOpening, Sessions, SignOut, StoreError};

use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::{broken, coded, opt_parsed, parsed};
use crate::machinery::writer::{JobSize, WriteTx};

#[async_trait]
impl Sessions for SqliteStore {
    async fn create_session(
        &self,
        id: SessionId,
        api_key: ApiKeyId,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| match grant_of_key(tx, api_key)? {
            Some(grant) => open(tx, id, &grant, &new),
            None => Ok(None),
        })
        .await
    }

    async fn redeem_login_code(
        &self,
        code: LoginCodeHash,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| match take_code(tx, code)? {
            Some((id, grant)) => open(tx, id, &grant, &new),
            None => Ok(None),
        })
        .await
    }

    async fn find_session(&self, hash: SessionHash) -> Result<Option<DashboardSession>, StoreError> {
        self.read(move |tx| {
            tx.connection
                .prepare_cached(&format!("{SESSION_SELECT} AND s.hash = ?1"))?
                .query_row([hash.0], session_from_row)
                .optional()
        })
        .await
    }

    async fn note_session_seen(&self, key: RowKey, idle: Duration, at_most_every: Duration) -> Result<(), StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| {
            let (before, ends_at) = (tx.now.minus(at_most_every).millis(), tx.now.plus(idle).millis());
            tx.connection
                .prepare_cached(
                    "UPDATE dashboard_sessions SET last_seen_at = ?2, ends_at = min(expires_at, ?3)
                     WHERE key = ?1 AND last_seen_at <= ?4 AND ends_at > ?2",
                )?
                .execute(params![key.as_i64(), tx.now.millis(), ends_at, before])?;
            Ok(())
        })
        .await
    }

    async fn end_session(&self, hash: SessionHash, sign_out: SignOut) -> Result<bool, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| {
            let ended = tx
                .connection
                .prepare_cached("DELETE FROM dashboard_sessions WHERE hash = ?1 RETURNING id, workspace_key, mode")?
                .query_row([hash.0], |row| {
                    let mode = coded(row, "mode", mode_from_code)?;
                    Ok((parsed(row, "id")?, RowKey::from_i64(row.get("workspace_key")?), mode))
                })
                .optional()?;
            let Some((id, workspace, mode)) = ended else { return Ok(false) };
            append_end(tx, workspace, sign_out.author(id, mode), id, SessionEnd::SignOut)?;
            Ok(true)
        })
        .await
    }

    async fn switch_session(
        &self,
        hash: SessionHash,
        id: SessionId,
        to: WorkspaceId,
        new: SessionOpening,
    ) -> Result<Option<DashboardSession>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| switch(tx, hash, id, to, &new)).await
    }

    async fn create_login_code(&self, new: NewLoginCode) -> Result<Option<Timestamp>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| create_code(tx, &new)).await
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

fn session_from_row(row: &Row<'_>) -> Result<DashboardSession, rusqlite::Error> {
    let instant =
        |column: &str| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
    let (workspace, mode) = (RowKey::from_i64(row.get("workspace_key")?), coded(row, "mode", mode_from_code)?);
    Ok(DashboardSession {
        key: RowKey::from_i64(row.get("key")?),
        id: parsed(row, "id")?,
        tenant: Tenant::whole(workspace, mode),
        workspace_id: parsed(row, "workspace_id")?,
        scopes: scopes_from(row.get_ref("scopes")?.as_str()?, "dashboard_sessions.scopes").map_err(broken)?,
        api_key: opt_parsed(row, "api_key_id")?,
        api_key_expires_at: instant("api_key_expires_at")?,
        expires_at: Timestamp::from_millis(row.get("expires_at")?),
        last_seen_at: Timestamp::from_millis(row.get("last_seen_at")?),
        ends_at: Timestamp::from_millis(row.get("ends_at")?),
    })
}

/// What a session of this key may do. `None` when the key is not in use.
fn grant_of_key(tx: &WriteTx<'_>, id: ApiKeyId) -> Result<Option<Grant>, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "SELECT key, workspace_key, mode, scopes, expires_at FROM api_keys
             WHERE id = ?1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > ?2)",
        )?
        .query_row(params![id.to_string(), tx.now.millis()], |row| {
            let expires_at: Option<i64> = row.get("expires_at")?;
            let api_key = Some((RowKey::from_i64(row.get("key")?), expires_at.map(Timestamp::from_millis)));
            grant_from_row(row, api_key)
        })
        .optional()
}

fn grant_from_row(row: &Row<'_>, api_key: Option<(RowKey, Option<Timestamp>)>) -> Result<Grant, rusqlite::Error> {
    let (workspace, mode) = (RowKey::from_i64(row.get("workspace_key")?), coded(row, "mode", mode_from_code)?);
    let scopes = scopes_from(row.get_ref("scopes")?.as_str()?, "scopes of a session").map_err(broken)?;
    Ok(Grant { tenant: Tenant::whole(workspace, mode), scopes, api_key })
}

/// Removes a login code that is still valid.
fn take_code(tx: &WriteTx<'_>, code: LoginCodeHash) -> Result<Option<(SessionId, Grant)>, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM login_codes WHERE hash = ?1 AND expires_at > ?2
             RETURNING session_id, workspace_key, mode, scopes",
        )?
        .query_row(params![code.0, tx.now.millis()], |row| Ok((parsed(row, "session_id")?, grant_from_row(row, None)?)))
        .optional()
}

fn switch(
    tx: &mut WriteTx<'_>,
    hash: SessionHash,
    id: SessionId,
    to: WorkspaceId,
    new: &SessionOpening,
) -> Result<Option<DashboardSession>, rusqlite::Error> {
    let sql = format!("{SESSION_SELECT} AND s.hash = ?1 AND s.ends_at > ?2");
    let before =
        tx.connection.prepare_cached(&sql)?.query_row(params![hash.0, tx.now.millis()], session_from_row).optional()?;
    let workspace = tx
        .connection
        .prepare_cached("SELECT key FROM workspaces WHERE id = ?1 AND deleted_at IS NULL AND is_operations = 0")?
        .query_row([to.to_string()], |row| Ok(RowKey::from_i64(row.get(0)?)))
        .optional()?;
    let (Some(before), Some(workspace)) = (before, workspace) else { return Ok(None) };
    let api_key: Option<i64> = tx
        .connection
        .prepare_cached("DELETE FROM dashboard_sessions WHERE hash = ?1 RETURNING api_key_key")?
        .query_row([hash.0], |row| row.get(0))?;
    let author = SignOut { request_id: new.request_id, address: new.address }.author(before.id, before.tenant.mode);
    append_end(tx, before.tenant.workspace, author, before.id, SessionEnd::Switch)?;
    let grant = Grant {
        tenant: Tenant::whole(workspace, before.tenant.mode),
        scopes: before.scopes,
        api_key: api_key.map(|key| (RowKey::from_i64(key), before.api_key_expires_at)),
    };
    open(tx, id, &grant, &new.instead_of(&before, tx.now))
}

/// `None` when the workspace is deleted.
fn open(
    tx: &mut WriteTx<'_>,
    id: SessionId,
    grant: &Grant,
    new: &SessionOpening,
) -> Result<Option<DashboardSession>, rusqlite::Error> {
    let Grant { tenant, scopes, api_key } = grant;
    let key_ends = api_key.and_then(|(_, expires_at)| expires_at);
    let expires_at = tx.now.plus(new.lifetime);
    let expires_at = key_ends.map_or(expires_at, |at| at.min(expires_at));
    tx.connection
        .prepare_cached(
            "INSERT INTO dashboard_sessions
                 (key, id, hash, workspace_key, mode, scopes, api_key_key, expires_at, last_seen_at, ends_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, min(?8, ?10))",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            id.to_string(),
            new.hash.0,
            tenant.workspace.as_i64(),
            mode_code(tenant.mode),
            joined(scopes.iter().map(Scope::as_str)),
            api_key.map(|(key, _)| key.as_i64()),
            expires_at.millis(),
            tx.now.millis(),
            tx.now.plus(new.idle).millis(),
        ])?;
    let opened = tx
        .connection
        .prepare_cached(&format!("{SESSION_SELECT} AND s.id = ?1"))?
        .query_row([id.to_string()], session_from_row)
        .optional()?;
    // The row of a session that a deleted workspace cannot have goes with those that have ended.
    let Some(session) = opened else { return Ok(None) };
    let author = new.author(&session);
    end_beyond_limit(tx, tenant.workspace, new.limit, author)?;
    let set = changes::session_created(&session);
    audit::append(tx, tenant.workspace, author, AuditAction::SessionCreated, id, &set)?;
    Ok(Some(session))
}

/// Removes the sessions that were not used for the longest time, until the workspace is within its limit.
fn end_beyond_limit(tx: &WriteTx<'_>, workspace: RowKey, limit: u32, author: Author) -> Result<(), rusqlite::Error> {
    let ended = tx
        .connection
        .prepare_cached(
            "DELETE FROM dashboard_sessions WHERE key IN
                 (SELECT key FROM dashboard_sessions WHERE workspace_key = ?1
                  ORDER BY last_seen_at DESC, key DESC LIMIT -1 OFFSET ?2)
             RETURNING id, ends_at",
        )?
        .query_map(params![workspace.as_i64(), limit], |row| Ok((parsed(row, "id")?, row.get("ends_at")?)))?
        .collect::<Result<Vec<(SessionId, i64)>, _>>()?;
    // One that had ended by itself is no loss to anybody.
    for (id, _) in ended.into_iter().filter(|(_, ends_at)| *ends_at > tx.now.millis()) {
        append_end(tx, workspace, author, id, SessionEnd::Limit)?;
    }
    Ok(())
}

fn append_end(
    tx: &WriteTx<'_>,
    workspace: RowKey,
    author: Author,
    id: SessionId,
    why: SessionEnd,
) -> Result<(), rusqlite::Error> {
    audit::append(tx, workspace, author, AuditAction::SessionEnded, id, &changes::session_ended(why))
}

fn create_code(tx: &mut WriteTx<'_>, new: &NewLoginCode) -> Result<Option<Timestamp>, rusqlite::Error> {
    let Tenant { workspace, mode, .. } = new.tenant;
    let expires_at = tx.now.plus(new.lifetime);
    let created = tx
        .connection
        .prepare_cached(
            "INSERT INTO login_codes (key, hash, session_id, workspace_key, mode, scopes, expires_at)
             SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7 FROM workspaces WHERE key = ?4 AND deleted_at IS NULL",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            new.hash.0,
            new.session_id.to_string(),
            workspace.as_i64(),
            mode_code(mode),
            joined(new.scopes.iter().map(Scope::as_str)),
            expires_at.millis(),
        ])?;
    if created == 0 {
        return Ok(None);
    }
    tx.connection
        .prepare_cached(
            "DELETE FROM login_codes WHERE key IN
                 (SELECT key FROM login_codes WHERE workspace_key = ?1 ORDER BY key DESC LIMIT -1 OFFSET ?2)",
        )?
        .execute(params![workspace.as_i64(), new.limit])?;
    let set = changes::login_code_created(new, expires_at);
    audit::append(tx, workspace, new.author, AuditAction::LoginCodeCreated, new.session_id, &set)?;
    Ok(Some(expires_at))
}

/// The API key behind a session that is open: `Some(None)` when a login code opened it, `None` when it has ended.
pub fn api_key_of(tx: &WriteTx<'_>, id: SessionId) -> Result<Option<Option<ApiKeyId>>, rusqlite::Error> {
    let session = open_session(tx.connection, id, tx.now)?;
    Ok(session.map(|session| session.api_key))
}

fn open_session(
    connection: &Connection,
    id: SessionId,
    now: Timestamp,
) -> Result<Option<DashboardSession>, rusqlite::Error> {
    connection
        .prepare_cached(&format!("{SESSION_SELECT} AND s.id = ?1 AND s.ends_at > ?2"))?
        .query_row(params![id.to_string(), now.millis()], session_from_row)
        .optional()
}

/// Removes sessions that have ended and login codes that are too old, up to `limit` of each. Returns the larger number.
pub fn remove_ended(tx: &WriteTx<'_>, limit: usize) -> Result<usize, rusqlite::Error> {
    let sessions = tx
        .connection
        .prepare_cached(
            "DELETE FROM dashboard_sessions WHERE key IN
                 (SELECT key FROM dashboard_sessions WHERE ends_at <= ?1 ORDER BY ends_at LIMIT ?2)",
        )?
        .execute(params![tx.now.millis(), limit])?;
    let codes = tx
        .connection
        .prepare_cached(
            "DELETE FROM login_codes WHERE key IN
                 (SELECT key FROM login_codes WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )?
        .execute(params![tx.now.millis(), limit])?;
    Ok(sessions.max(codes))
}

/// Removes what a workspace still has when it is removed itself.
pub fn remove_of_workspace(tx: &WriteTx<'_>, workspace: RowKey) -> Result<(), rusqlite::Error> {
    for sql in
        ["DELETE FROM dashboard_sessions WHERE workspace_key = ?1", "DELETE FROM login_codes WHERE workspace_key = ?1"]
    {
        tx.connection.prepare_cached(sql)?.execute([workspace.as_i64()])?;
    }
    Ok(())
}
