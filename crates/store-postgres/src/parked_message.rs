//! Parked messages, and which sources are paused. Writes `parked_messages` and `paused_sources`; parked messages that
//! are old enough are removed in `upkeep/ended.rs`.
//!
//! Differs from SQLite: nodes that park at the same time do not see each other's rows yet, so each may exceed the limit
//! of the source by one batch.

use async_trait::async_trait;
use bytes::Bytes;
use tokio_postgres::Row;

use postrider_domain::audit::{Actor, AuditAction, Author};
use postrider_domain::audit_change::Changes;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{ParkedMessageId, RowKey};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::source::{ParkReason, ParkedMessage, SourceName};
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::parked_message::{
    NewParkedMessage, ParkLimit, Parked, ParkedMessages, PausedSource, RemoveParkedMessageError, message_from,
    origin_text,
};
use postrider_store::registry::portal_session::hash_text;
use postrider_store::{StoreError, Write, Written};

use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{coded, get, instant, key, number, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};
use crate::machinery::transaction::{WriteTx, effect};

#[async_trait]
impl ParkedMessages for PostgresStore {
    async fn park_messages(
        &self,
        tenant: Tenant,
        limit: ParkLimit,
        messages: Vec<NewParkedMessage>,
    ) -> Result<Parked, StoreError> {
        self.disk.check_growth()?;
        self.write(effect!(|tx, limit, messages| park(tx, tenant, limit, messages))).await
    }

    async fn list_parked_messages(
        &self,
        tenant: Tenant,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<ParkedMessage>, StoreError> {
        self.read(move |session| Box::pin(list(session, tenant, source, page))).await
    }

    async fn find_parked_message(
        &self,
        tenant: Tenant,
        id: ParkedMessageId,
    ) -> Result<Option<ParkedMessage>, StoreError> {
        self.read(move |session| {
            Box::pin(async move {
                let sql = format!(
                    "SELECT {COLUMNS}, body FROM parked_messages WHERE id = $1 AND workspace_key = $2 AND mode = $3"
                );
                let scope: [&dyn Parameter; 3] = [&id.to_string(), &tenant.workspace.as_i64(), &mode_code(tenant.mode)];
                let Some(row) = session.query_opt(&sql, &scope).await? else { return Ok(None) };
                let body: Vec<u8> = get(&row, "body")?;
                from_row(&row, body.into()).map(Some)
            })
        })
        .await
    }

    async fn remove_parked_message(
        &self,
        write: Write<()>,
        id: ParkedMessageId,
        action: AuditAction,
    ) -> Result<Written<()>, RemoveParkedMessageError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx| remove(tx, tenant, author, id, action))).await
    }

    async fn count_parked_messages(&self, tenant: Tenant, source: SourceName) -> Result<u64, StoreError> {
        self.read(move |session| Box::pin(async move { count(session, tenant, &source).await })).await
    }

    async fn set_source_paused(
        &self,
        write: Write<()>,
        source: SourceName,
        is_paused: bool,
    ) -> Result<Written<()>, StoreError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, source| set_paused(tx, tenant, author, source, is_paused))).await
    }

    async fn paused_sources(&self) -> Result<Vec<PausedSource>, StoreError> {
        self.read(|session| {
            Box::pin(async move {
                let rows = session.query("SELECT workspace_key, mode, source FROM paused_sources", &[]).await?;
                let paused = |row: &Row| {
                    Ok(PausedSource {
                        workspace: key(row, "workspace_key")?,
                        mode: coded(row, "mode", mode_from_code)?,
                        source: get(row, "source")?,
                    })
                };
                rows.iter().map(paused).collect()
            })
        })
        .await
    }
}

const COLUMNS: &str = "key, id, source, mode, project_id, reason, detail, origin, body_bytes, parked_at";

fn from_row(row: &Row, body: Bytes) -> Result<ParkedMessage, PgError> {
    let project = get::<Option<&str>>(row, "project_id")?
        .map(|text| ProjectId::parse(text).map_err(|_| unexpected("parked_messages.project_id")));
    Ok(ParkedMessage {
        key: key(row, "key")?,
        id: parsed(row, "id")?,
        source: get(row, "source")?,
        mode: coded(row, "mode", mode_from_code)?,
        project_id: project.transpose()?,
        reason: ParkReason::parse(get(row, "reason")?).ok_or_else(|| unexpected("parked_messages.reason"))?,
        detail: get(row, "detail")?,
        message: message_from(get(row, "origin")?, body)?,
        body_bytes: number(row, "body_bytes")?,
        parked_at: instant(row, "parked_at")?,
    })
}

async fn count(session: &Session, tenant: Tenant, source: &SourceName) -> Result<u64, PgError> {
    let sql = "SELECT COUNT(*) AS count FROM parked_messages WHERE workspace_key = $1 AND mode = $2 AND source = $3";
    let scope: [&dyn Parameter; 3] = [&tenant.workspace.as_i64(), &mode_code(tenant.mode), &source.as_str()];
    number(&session.query_one(sql, &scope).await?, "count")
}

async fn park(
    tx: &mut WriteTx,
    tenant: Tenant,
    limit: ParkLimit,
    messages: Vec<NewParkedMessage>,
) -> Result<Parked, PgError> {
    let fingerprints: Vec<String> = messages.iter().map(|message| hash_text(&message.fingerprint)).collect();
    let sql = "SELECT fingerprint FROM parked_messages
               WHERE workspace_key = $1 AND mode = $2 AND source = $3 AND fingerprint = ANY ($4)";
    let source = limit.source.as_str();
    let scope: [&dyn Parameter; 4] = [&tenant.workspace.as_i64(), &mode_code(tenant.mode), &source, &fingerprints];
    let rows = tx.query(sql, &scope).await?;
    let known = rows.iter().map(|row| get::<String>(row, "fingerprint")).collect::<Result<Vec<_>, _>>()?;
    let is_new = |index: &usize| !known.contains(&fingerprints[*index]);
    let new = (0..messages.len()).filter(is_new).collect();
    let room = limit.room_for(count(tx, tenant, &limit.source).await?, new);
    if room.dropped > 0 {
        drop_oldest(tx, tenant, source, room.removed, room.dropped).await?;
    }
    for index in room.added {
        insert(tx, tenant, source, &messages[index], &fingerprints[index]).await?;
    }
    Ok(Parked { without_room: room.without_room, dropped: room.dropped })
}

async fn insert(
    tx: &mut WriteTx,
    tenant: Tenant,
    source: &str,
    new: &NewParkedMessage,
    fingerprint: &str,
) -> Result<(), PgError> {
    let (key, now) = (tx.next_key(), tx.now);
    let body_bytes = i64::try_from(new.body_bytes).unwrap_or(i64::MAX);
    tx.execute(
        "INSERT INTO parked_messages (key, id, workspace_key, mode, source, fingerprint, project_id, reason, detail,
                                      origin, body, body_bytes, parked_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
         ON CONFLICT (workspace_key, mode, source, fingerprint) DO NOTHING",
        &[
            &key.as_i64(),
            &new.id.to_string(),
            &tenant.workspace.as_i64(),
            &mode_code(tenant.mode),
            &source,
            &fingerprint,
            &new.project_id.as_ref().map(ProjectId::as_str),
            &new.reason.as_str(),
            &new.detail,
            &origin_text(&new.message),
            &new.message.body.as_ref(),
            &body_bytes,
            &now.millis(),
        ],
    )
    .await?;
    Ok(())
}

async fn drop_oldest(
    tx: &mut WriteTx,
    tenant: Tenant,
    source: &str,
    removed: u64,
    dropped: u64,
) -> Result<(), PgError> {
    let limit = i64::try_from(removed).unwrap_or(i64::MAX);
    let sql = "DELETE FROM parked_messages WHERE key IN
                   (SELECT key FROM parked_messages WHERE workspace_key = $1 AND mode = $2 AND source = $3
                    ORDER BY key LIMIT $4)";
    let scope: [&dyn Parameter; 4] = [&tenant.workspace.as_i64(), &mode_code(tenant.mode), &source, &limit];
    tx.execute(sql, &scope).await?;
    let author = Author { actor: Actor::Source, mode: tenant.mode, request_id: None, address: None };
    let set = changes::parked_messages_dropped(dropped);
    audit::append(tx, tenant.workspace, author, AuditAction::ParkedMessagesDropped, source, &set).await
}

async fn list(
    session: &Session,
    tenant: Tenant,
    source: Option<SourceName>,
    page: PageRequest,
) -> Result<Page<ParkedMessage>, PgError> {
    let of_source = if source.is_some() { "source = $3" } else { "$3::text IS NULL" };
    let sql = format!(
        "SELECT {COLUMNS} FROM parked_messages
         WHERE workspace_key = $1 AND mode = $2 AND {of_source} AND key < $4 ORDER BY key DESC LIMIT $5"
    );
    let parameters: [&dyn Parameter; 5] = [
        &tenant.workspace.as_i64(),
        &mode_code(tenant.mode),
        &source.as_ref().map(SourceName::as_str),
        &page.before().as_i64(),
        &(i64::from(page.limit()) + 1),
    ];
    let rows = session.query(&sql, &parameters).await?;
    let items = rows.iter().map(|row| from_row(row, Bytes::new())).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |message| message.key))
}

async fn remove(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    id: ParkedMessageId,
    action: AuditAction,
) -> Result<Result<(), RemoveParkedMessageError>, PgError> {
    let sql = "DELETE FROM parked_messages WHERE id = $1 AND workspace_key = $2 AND mode = $3";
    let scope: [&dyn Parameter; 3] = [&id.to_string(), &tenant.workspace.as_i64(), &mode_code(tenant.mode)];
    if tx.execute(sql, &scope).await? == 0 {
        return Ok(Err(RemoveParkedMessageError::NotFound));
    }
    audit::append(tx, tenant.workspace, author, action, id, &Changes::default()).await?;
    Ok(Ok(()))
}

async fn set_paused(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    source: SourceName,
    is_paused: bool,
) -> Result<Result<(), StoreError>, PgError> {
    let (workspace, mode, now) = (tenant.workspace.as_i64(), mode_code(tenant.mode), tx.now.millis());
    let changed = if is_paused {
        let sql = "INSERT INTO paused_sources (workspace_key, mode, source, paused_at) VALUES ($1, $2, $3, $4)
                   ON CONFLICT (workspace_key, mode, source) DO NOTHING";
        tx.execute(sql, &[&workspace, &mode, &source.as_str(), &now]).await?
    } else {
        let sql = "DELETE FROM paused_sources WHERE workspace_key = $1 AND mode = $2 AND source = $3";
        tx.execute(sql, &[&workspace, &mode, &source.as_str()]).await?
    };
    let action = if is_paused { AuditAction::SourcePaused } else { AuditAction::SourceResumed };
    if changed > 0 {
        audit::append(tx, tenant.workspace, author, action, source, &Changes::default()).await?;
    }
    Ok(Ok(()))
}

/// Those of a project, whose content is erased.
pub async fn remove_of_project(tx: &WriteTx, tenant: &Tenant, project: &str) -> Result<(), PgError> {
    let sql = "DELETE FROM parked_messages WHERE workspace_key = $1 AND mode = $2 AND project_id = $3";
    tx.execute(sql, &[&tenant.workspace.as_i64(), &mode_code(tenant.mode), &project]).await?;
    Ok(())
}

/// With the workspace.
pub async fn remove_of_workspace(tx: &WriteTx, workspace: RowKey) -> Result<(), PgError> {
    tx.execute("DELETE FROM paused_sources WHERE workspace_key = $1", &[&workspace.as_i64()]).await?;
    Ok(())
}
