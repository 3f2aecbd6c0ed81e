//! Portal sessions, known by the keyed hashes of their codes and tokens.
//!
//! Writes `portal_sessions`. Those that ended are removed in `upkeep/ended.rs`.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{PortalSessionId, RowKey};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::portal::{PortalSession, PortalTerms};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{maker_from, maker_text, mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::registry::portal_session::{TOKENS_FULL, hash_text, holds_token};
use postrider_store::{
    CreatePortalSessionError, EndPortalSessionError, NewPortalSession, PortalOpening, PortalSessions, StoreError,
    Write, Written,
};

use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::{broken, coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};

#[async_trait]
impl PortalSessions for SqliteStore {
    async fn create_portal_session(
        &self,
        write: Write<PortalSession>,
        new: NewPortalSession,
    ) -> Result<Written<PortalSession>, CreatePortalSessionError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| create(tx, write.tenant, write.author, &new)).await
    }

    async fn open_portal_session(
        &self,
        id: PortalSessionId,
        opening: PortalOpening,
    ) -> Result<Option<PortalSession>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| open(tx, id, opening)).await
    }

    async fn resume_portal_session(
        &self,
        id: PortalSessionId,
        token_hash: [u8; 32],
    ) -> Result<Option<PortalSession>, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| resume(tx, now, id, &token_hash)).await
    }

    async fn find_portal_session(&self, id: PortalSessionId) -> Result<Option<PortalSession>, StoreError> {
        self.read(move |tx| {
            tx.connection
                .prepare_cached(&format!("{SESSION_SELECT} WHERE s.id = ?1"))?
                .query_row([id.to_string()], session_from_row)
                .optional()
        })
        .await
    }

    async fn list_portal_sessions(
        &self,
        tenant: Tenant,
        project_id: Option<ProjectId>,
        page: PageRequest,
    ) -> Result<Page<PortalSession>, StoreError> {
        self.read(move |tx| list(tx, tenant, project_id, page)).await
    }

    async fn end_portal_session(
        &self,
        write: Write<()>,
        id: PortalSessionId,
    ) -> Result<Written<()>, EndPortalSessionError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| end(tx, write.tenant, write.author, id)).await
    }

    async fn end_portal_sessions_of(&self, write: Write<()>, project_id: ProjectId) -> Result<Written<()>, StoreError> {
        let end = move |tx: &mut WriteTx<'_>| end_of_project(tx, write.tenant, write.author, project_id).map(Ok);
        self.write_once(JobSize::ONE_ROW, write.recording, end).await
    }
}

/// The sessions of a deleted workspace are not found.
const SESSION_SELECT: &str =
    "SELECT s.key, s.id, w.id AS workspace_id, s.workspace_key, s.mode, s.project_id, s.terms, s.created_by,
            s.expires_at, s.ended_at, s.tokens
     FROM portal_sessions s JOIN workspaces w ON w.key = s.workspace_key AND w.deleted_at IS NULL";

/// The session has not ended, and neither has the key that made it. `?1` is the instant.
const IS_LIVE: &str = "s.ends_at > ?1 AND (s.api_key IS NULL OR EXISTS (
         SELECT 1 FROM api_keys k WHERE k.id = s.api_key AND k.revoked_at IS NULL
           AND (k.expires_at IS NULL OR k.expires_at > ?1)))";

fn session_from_row(row: &Row<'_>) -> Result<PortalSession, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    let text = |column: &'static str| row.get_ref(column)?.as_str().map_err(rusqlite::Error::from);
    Ok(PortalSession {
        key,
        id: parsed(row, "id")?,
        workspace_id: parsed(row, "workspace_id")?,
        workspace_key: RowKey::from_i64(row.get("workspace_key")?),
        mode: coded(row, "mode", mode_from_code)?,
        project_id: ProjectId::parse(text("project_id")?).map_err(|_| unexpected("portal_sessions.project_id"))?,
        terms: PortalTerms::from_text(text("terms")?).ok_or_else(|| unexpected("portal_sessions.terms"))?,
        created_by: maker_from(text("created_by")?).map_err(broken)?,
        created_at: key.created_at(),
        expires_at: Timestamp::from_millis(row.get("expires_at")?),
        ended_at: row.get::<_, Option<i64>>("ended_at")?.map(Timestamp::from_millis),
    })
}

fn create(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    new: &NewPortalSession,
) -> WriteResult<PortalSession, CreatePortalSessionError> {
    let live: u32 = tx
        .connection
        .prepare_cached("SELECT COUNT(*) FROM portal_sessions WHERE workspace_key = ?1 AND mode = ?2 AND ends_at > ?3")?
        .query_row(params![tenant.workspace.as_i64(), mode_code(tenant.mode), tx.now.millis()], |row| row.get(0))?;
    if live >= new.limit {
        return Ok(Err(CreatePortalSessionError::WorkspaceFull(new.limit)));
    }
    let expires_at = tx.now.plus(new.lasts);
    tx.connection
        .prepare_cached(
            "INSERT INTO portal_sessions (key, id, workspace_key, mode, project_id, terms, code_hash, code_until,
                                          created_by, api_key, expires_at, ends_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, COALESCE(?10,
                 (SELECT k.id FROM dashboard_sessions d JOIN api_keys k ON k.key = d.api_key_key WHERE d.id = ?9)),
                 ?11, ?11)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            new.id.to_string(),
            tenant.workspace.as_i64(),
            mode_code(tenant.mode),
            new.project_id.as_str(),
            new.terms.to_text(),
            hash_text(&new.code_hash),
            tx.now.plus(limits::PORTAL_CODE_TTL).millis(),
            maker_text(author.actor),
            new.api_key.map(|id| id.to_string()),
            expires_at.millis(),
        ])?;
    let session = tx
        .connection
        .prepare_cached(&format!("{SESSION_SELECT} WHERE s.id = ?1"))?
        .query_row([new.id.to_string()], session_from_row)?;
    let set = changes::portal_session_created(&session);
    audit::append(tx, tenant.workspace, author, AuditAction::PortalSessionCreated, new.id, &set)?;
    Ok(Ok(session))
}

fn open(
    tx: &mut WriteTx<'_>,
    id: PortalSessionId,
    opening: PortalOpening,
) -> Result<Option<PortalSession>, rusqlite::Error> {
    let opened = tx
        .connection
        .prepare_cached(&format!(
            "UPDATE portal_sessions AS s SET tokens = tokens || ?4
             WHERE id = ?2 AND code_hash = ?3 AND code_until > ?1 AND length(tokens) < ?5 AND {IS_LIVE}"
        ))?
        .execute(params![
            tx.now.millis(),
            id.to_string(),
            hash_text(&opening.code_hash),
            hash_text(&opening.token_hash),
            TOKENS_FULL,
        ])?;
    if opened == 0 {
        return Ok(None);
    }
    resume(tx.as_read(), tx.now, id, &opening.token_hash)
}

fn resume(
    tx: ReadTx<'_>,
    now: Timestamp,
    id: PortalSessionId,
    token_hash: &[u8; 32],
) -> Result<Option<PortalSession>, rusqlite::Error> {
    let found = tx
        .connection
        .prepare_cached(&format!("{SESSION_SELECT} WHERE s.id = ?2 AND {IS_LIVE}"))?
        .query_row(params![now.millis(), id.to_string()], |row| {
            Ok((session_from_row(row)?, row.get::<_, String>("tokens")?))
        })
        .optional()?;
    Ok(found.filter(|(_, tokens)| holds_token(tokens, token_hash)).map(|(session, _)| session))
}

fn list(
    tx: ReadTx<'_>,
    tenant: Tenant,
    project_id: Option<ProjectId>,
    page: PageRequest,
) -> Result<Page<PortalSession>, rusqlite::Error> {
    let items = tx
        .connection
        .prepare_cached(&format!(
            "{SESSION_SELECT} WHERE s.workspace_key = ?1 AND s.mode = ?2 AND (?3 IS NULL OR s.project_id = ?3)
               AND (?4 IS NULL OR s.project_id = ?4) AND s.key < ?5 ORDER BY s.key DESC LIMIT ?6"
        ))?
        .query_map(
            params![
                tenant.workspace.as_i64(),
                mode_code(tenant.mode),
                tenant.project_text(),
                project_id.as_ref().map(ProjectId::as_str),
                page.before().as_i64(),
                i64::from(page.limit()) + 1,
            ],
            session_from_row,
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |session| session.key))
}

fn end(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: PortalSessionId,
) -> WriteResult<(), EndPortalSessionError> {
    let scope = params![id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text()];
    let ends_at: Option<i64> = tx
        .connection
        .prepare_cached(
            "SELECT ends_at FROM portal_sessions
             WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3 AND (?4 IS NULL OR project_id = ?4)",
        )?
        .query_row(scope, |row| row.get(0))
        .optional()?;
    match ends_at {
        None => return Ok(Err(EndPortalSessionError::NotFound)),
        Some(ends_at) if ends_at > tx.now.millis() => end_live(tx, tenant, author, id)?,
        Some(_) => {}
    }
    Ok(Ok(()))
}

fn end_of_project(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    project_id: ProjectId,
) -> Result<(), rusqlite::Error> {
    let live = tx
        .connection
        .prepare_cached(
            "SELECT id FROM portal_sessions
             WHERE workspace_key = ?1 AND mode = ?2 AND ends_at > ?3 AND project_id = ?4 ORDER BY key",
        )?
        .query_map(
            params![tenant.workspace.as_i64(), mode_code(tenant.mode), tx.now.millis(), project_id.as_str()],
            |row| parsed(row, "id"),
        )?
        .collect::<Result<Vec<PortalSessionId>, _>>()?;
    for id in live {
        end_live(tx, tenant, author, id)?;
    }
    Ok(())
}

fn end_live(tx: &mut WriteTx<'_>, tenant: Tenant, author: Author, id: PortalSessionId) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("UPDATE portal_sessions SET ends_at = ?2, ended_at = ?2 WHERE id = ?1")?
        .execute(params![id.to_string(), tx.now.millis()])?;
    let ended = changes::portal_session_ended(tx.now);
    audit::append(tx, tenant.workspace, author, AuditAction::PortalSessionEnded, id, &ended)
}
