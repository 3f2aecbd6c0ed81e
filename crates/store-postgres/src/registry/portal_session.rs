//! Portal sessions, known by the keyed hashes of their codes and tokens. Writes `portal_sessions`; those that ended are
//! removed in `upkeep/ended.rs`.

use async_trait::async_trait;
use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::PortalSessionId;
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

use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{coded, get, instant, int, key, number, opt_instant, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};
use crate::machinery::transaction::{WriteTx, effect};

#[async_trait]
impl PortalSessions for PostgresStore {
    async fn create_portal_session(
        &self,
        write: Write<PortalSession>,
        new: NewPortalSession,
    ) -> Result<Written<PortalSession>, CreatePortalSessionError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, new| create(tx, tenant, author, &new))).await
    }

    async fn open_portal_session(
        &self,
        id: PortalSessionId,
        opening: PortalOpening,
    ) -> Result<Option<PortalSession>, StoreError> {
        self.write(effect!(|tx| open(tx, id, opening))).await
    }

    async fn resume_portal_session(
        &self,
        id: PortalSessionId,
        token_hash: [u8; 32],
    ) -> Result<Option<PortalSession>, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| Box::pin(async move { resume(session, now, id, &token_hash).await })).await
    }

    async fn find_portal_session(&self, id: PortalSessionId) -> Result<Option<PortalSession>, StoreError> {
        self.read(move |session| {
            Box::pin(async move {
                let found = session.query_opt(&format!("{SESSION_SELECT} WHERE s.id = $1"), &[&id.to_string()]).await?;
                found.as_ref().map(session_from_row).transpose()
            })
        })
        .await
    }

    async fn list_portal_sessions(
        &self,
        tenant: Tenant,
        project_id: Option<ProjectId>,
        page: PageRequest,
    ) -> Result<Page<PortalSession>, StoreError> {
        self.read(move |session| Box::pin(list(session, tenant, project_id, page))).await
    }

    async fn end_portal_session(
        &self,
        write: Write<()>,
        id: PortalSessionId,
    ) -> Result<Written<()>, EndPortalSessionError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx| end(tx, tenant, author, id))).await
    }

    async fn end_portal_sessions_of(&self, write: Write<()>, project_id: ProjectId) -> Result<Written<()>, StoreError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx| end_of_project(tx, tenant, author, project_id))).await
    }
}

/// The sessions of a deleted workspace are not found.
const SESSION_SELECT: &str =
    "SELECT s.key, s.id, w.id AS workspace_id, s.workspace_key, s.mode, s.project_id, s.terms, s.created_by,
            s.expires_at, s.ended_at, s.tokens
     FROM portal_sessions s JOIN workspaces w ON w.key = s.workspace_key AND w.deleted_at IS NULL";

fn session_from_row(row: &Row) -> Result<PortalSession, PgError> {
    let at = key(row, "key")?;
    Ok(PortalSession {
        key: at,
        id: parsed(row, "id")?,
        workspace_id: parsed(row, "workspace_id")?,
        workspace_key: key(row, "workspace_key")?,
        mode: coded(row, "mode", mode_from_code)?,
        project_id: ProjectId::parse(get(row, "project_id")?).map_err(|_| unexpected("portal_sessions.project_id"))?,
        terms: PortalTerms::from_text(get(row, "terms")?).ok_or_else(|| unexpected("portal_sessions.terms"))?,
        created_by: maker_from(get(row, "created_by")?)?,
        created_at: at.created_at(),
        expires_at: instant(row, "expires_at")?,
        ended_at: opt_instant(row, "ended_at")?,
    })
}

async fn create(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    new: &NewPortalSession,
) -> Result<Result<PortalSession, CreatePortalSessionError>, PgError> {
    tx.lock_workspace(tenant.workspace).await?;
    let (workspace, mode) = (tenant.workspace.as_i64(), mode_code(tenant.mode));
    let live = "SELECT COUNT(*) AS count FROM portal_sessions WHERE workspace_key = $1 AND mode = $2 AND ends_at > $3";
    let live = tx.query_one(live, &[&workspace, &mode, &tx.now.millis()]).await?;
    if number::<u32>(&live, "count")? >= new.limit {
        return Ok(Err(CreatePortalSessionError::WorkspaceFull(new.limit)));
    }
    tx.execute(
        "INSERT INTO portal_sessions (key, id, workspace_key, mode, project_id, terms, code_hash, code_until,
                                      created_by, api_key, expires_at, ends_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, COALESCE($10,
             (SELECT k.id FROM dashboard_sessions d JOIN api_keys k ON k.key = d.api_key_key WHERE d.id = $9)),
             $11, $11)",
        &[
            &tx.next_key().as_i64(),
            &new.id.to_string(),
            &workspace,
            &mode,
            &new.project_id.as_str(),
            &new.terms.to_text(),
            &hash_text(&new.code_hash),
            &tx.now.plus(limits::PORTAL_CODE_TTL).millis(),
            &maker_text(author.actor),
            &new.api_key.map(|id| id.to_string()),
            &tx.now.plus(new.lasts).millis(),
        ],
    )
    .await?;
    let created = tx.query_one(&format!("{SESSION_SELECT} WHERE s.id = $1"), &[&new.id.to_string()]).await?;
    let session = session_from_row(&created)?;
    let set = changes::portal_session_created(&session);
    audit::append(tx, tenant.workspace, author, AuditAction::PortalSessionCreated, new.id, &set).await?;
    Ok(Ok(session))
}

async fn open(tx: &mut WriteTx, id: PortalSessionId, opening: PortalOpening) -> Result<Option<PortalSession>, PgError> {
    let now = tx.now;
    // Concurrent openings wait for the row, so that each is counted.
    let sql = "SELECT key FROM portal_sessions
               WHERE id = $2 AND code_hash = $3 AND code_until > $1 AND length(tokens) < $4 FOR UPDATE";
    let parameters: [&dyn Parameter; 4] =
        [&now.millis(), &id.to_string(), &hash_text(&opening.code_hash), &TOKENS_FULL];
    let Some(row) = tx.query_opt(sql, &parameters).await? else { return Ok(None) };
    if live(tx, now, id).await?.is_none() {
        return Ok(None);
    }
    let sql = "UPDATE portal_sessions SET tokens = tokens || $2 WHERE key = $1";
    tx.execute(sql, &[&int(&row, "key")?, &hash_text(&opening.token_hash)]).await?;
    Ok(live(tx, now, id).await?.map(|(session, _)| session))
}

/// A session that has not ended, and whose key has not ended, with its tokens.
async fn live(
    session: &Session,
    now: Timestamp,
    id: PortalSessionId,
) -> Result<Option<(PortalSession, String)>, PgError> {
    let sql = format!(
        "{SESSION_SELECT} WHERE s.id = $2 AND s.ends_at > $1 AND (s.api_key IS NULL OR EXISTS (
             SELECT 1 FROM api_keys k WHERE k.id = s.api_key AND k.revoked_at IS NULL
               AND (k.expires_at IS NULL OR k.expires_at > $1)))"
    );
    let found = session.query_opt(&sql, &[&now.millis(), &id.to_string()]).await?;
    found.map(|row| Ok((session_from_row(&row)?, get(&row, "tokens")?))).transpose()
}

async fn resume(
    session: &Session,
    now: Timestamp,
    id: PortalSessionId,
    token_hash: &[u8; 32],
) -> Result<Option<PortalSession>, PgError> {
    let found = live(session, now, id).await?;
    Ok(found.filter(|(_, tokens)| holds_token(tokens, token_hash)).map(|(found, _)| found))
}

async fn list(
    session: &Session,
    tenant: Tenant,
    project_id: Option<ProjectId>,
    page: PageRequest,
) -> Result<Page<PortalSession>, PgError> {
    let sql = format!(
        "{SESSION_SELECT} WHERE s.workspace_key = $1 AND s.mode = $2 AND ($3 IS NULL OR s.project_id = $3)
           AND ($4 IS NULL OR s.project_id = $4) AND s.key < $5 ORDER BY s.key DESC LIMIT $6"
    );
    let parameters: [&dyn Parameter; 6] = [
        &tenant.workspace.as_i64(),
        &mode_code(tenant.mode),
        &tenant.project_text(),
        &project_id.as_ref().map(ProjectId::as_str),
        &page.before().as_i64(),
        &(i64::from(page.limit()) + 1),
    ];
    let rows = session.query(&sql, &parameters).await?;
    let items = rows.iter().map(session_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |session| session.key))
}

async fn end(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    id: PortalSessionId,
) -> Result<Result<(), EndPortalSessionError>, PgError> {
    let sql = "SELECT ends_at FROM portal_sessions
               WHERE id = $1 AND workspace_key = $2 AND mode = $3 AND ($4 IS NULL OR project_id = $4) FOR UPDATE";
    let parameters: [&dyn Parameter; 4] =
        [&id.to_string(), &tenant.workspace.as_i64(), &mode_code(tenant.mode), &tenant.project_text()];
    let Some(row) = tx.query_opt(sql, &parameters).await? else {
        return Ok(Err(EndPortalSessionError::NotFound));
    };
    if int(&row, "ends_at")? > tx.now.millis() {
        end_live(tx, tenant, author, id).await?;
    }
    Ok(Ok(()))
}

async fn end_of_project(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    project_id: ProjectId,
) -> Result<Result<(), StoreError>, PgError> {
    let sql = "SELECT id FROM portal_sessions
               WHERE workspace_key = $1 AND mode = $2 AND ends_at > $3 AND project_id = $4 ORDER BY key FOR UPDATE";
    let parameters: [&dyn Parameter; 4] =
        [&tenant.workspace.as_i64(), &mode_code(tenant.mode), &tx.now.millis(), &project_id.as_str()];
    let live = tx.query(sql, &parameters).await?;
    let live = live.iter().map(|row| parsed(row, "id")).collect::<Result<Vec<PortalSessionId>, _>>()?;
    for id in live {
        end_live(tx, tenant, author, id).await?;
    }
    Ok(Ok(()))
}

async fn end_live(tx: &mut WriteTx, tenant: Tenant, author: Author, id: PortalSessionId) -> Result<(), PgError> {
    let now = tx.now;
    let sql = "UPDATE portal_sessions SET ends_at = $2, ended_at = $2 WHERE id = $1";
    tx.execute(sql, &[&id.to_string(), &now.millis()]).await?;
    let ended = changes::portal_session_ended(now);
    audit::append(tx, tenant.workspace, author, AuditAction::PortalSessionEnded, id, &ended).await
}
