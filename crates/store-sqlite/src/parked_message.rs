//! Parked messages, and which sources are paused. Writes `parked_messages` and `paused_sources`; parked messages that
//! are old enough are removed in `upkeep/ended.rs`.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};

use postrider_domain::audit::{Actor, AuditAction, Author};
use postrider_domain::audit_change::Changes;
use postrider_domain::endpoint::ProjectId;
use postrider_domain::id::{ParkedMessageId, RowKey};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::source::{ParkReason, ParkedMessage, SourceName};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::parked_message::{
    NewParkedMessage, ParkLimit, Parked, ParkedMessages, PausedSource, RemoveParkedMessageError, message_from,
    origin_text,
};
use postrider_store::registry::portal_session::hash_text;
use postrider_store::{StoreError, Write, Written};

use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::{broken, coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};

#[async_trait]
impl ParkedMessages for SqliteStore {
    async fn park_messages(
        &self,
        tenant: Tenant,
        limit: ParkLimit,
        messages: Vec<NewParkedMessage>,
    ) -> Result<Parked, StoreError> {
        self.disk.check_growth()?;
        let bytes = messages.iter().map(|message| message.message.body.len()).sum();
        self.write(JobSize { rows: messages.len(), bytes }, move |tx| park(tx, tenant, &limit, &messages)).await
    }

    async fn list_parked_messages(
        &self,
        tenant: Tenant,
        source: Option<SourceName>,
        page: PageRequest,
    ) -> Result<Page<ParkedMessage>, StoreError> {
        self.read(move |tx| list(tx, tenant, source.as_ref(), page)).await
    }

    async fn find_parked_message(
        &self,
        tenant: Tenant,
        id: ParkedMessageId,
    ) -> Result<Option<ParkedMessage>, StoreError> {
        self.read(move |tx| {
            tx.connection
                .prepare_cached(&format!(
                    "SELECT {COLUMNS}, body FROM parked_messages WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3"
                ))?
                .query_row(params![id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode)], |row| {
                    let body: Vec<u8> = row.get("body")?;
                    from_row(row, body.into())
                })
                .optional()
        })
        .await
    }

    async fn remove_parked_message(
        &self,
        write: Write<()>,
        id: ParkedMessageId,
        action: AuditAction,
    ) -> Result<Written<()>, RemoveParkedMessageError> {
        let remove = move |tx: &mut WriteTx<'_>| remove(tx, write.tenant, write.author, id, action);
        self.write_once(JobSize::ONE_ROW, write.recording, remove).await
    }

    async fn count_parked_messages(&self, tenant: Tenant, source: SourceName) -> Result<u64, StoreError> {
        self.read(move |tx| count(tx, tenant, &source)).await
    }

    async fn set_source_paused(
        &self,
        write: Write<()>,
        source: SourceName,
        is_paused: bool,
    ) -> Result<Written<()>, StoreError> {
        let set = move |tx: &mut WriteTx<'_>| set_paused(tx, write.tenant, write.author, &source, is_paused).map(Ok);
        self.write_once(JobSize::ONE_ROW, write.recording, set).await
    }

    async fn paused_sources(&self) -> Result<Vec<PausedSource>, StoreError> {
        self.read(|tx| {
            tx.connection
                .prepare_cached("SELECT workspace_key, mode, source FROM paused_sources")?
                .query_map([], |row| {
                    Ok(PausedSource {
                        workspace: RowKey::from_i64(row.get("workspace_key")?),
                        mode: coded(row, "mode", mode_from_code)?,
                        source: row.get("source")?,
                    })
                })?
                .collect()
        })
        .await
    }
}

const COLUMNS: &str = "key, id, source, mode, project_id, reason, detail, origin, body_bytes, parked_at";

fn from_row(row: &Row<'_>, body: Bytes) -> Result<ParkedMessage, rusqlite::Error> {
    let reason: String = row.get("reason")?;
    let project: Option<String> = row.get("project_id")?;
    let project = project.map(|text| ProjectId::parse(&text).map_err(|_| unexpected("parked_messages.project_id")));
    Ok(ParkedMessage {
        key: RowKey::from_i64(row.get("key")?),
        id: parsed(row, "id")?,
        source: row.get("source")?,
        mode: coded(row, "mode", mode_from_code)?,
        project_id: project.transpose()?,
        reason: ParkReason::parse(&reason).ok_or_else(|| unexpected("parked_messages.reason"))?,
        detail: row.get("detail")?,
        message: message_from(row.get_ref("origin")?.as_str()?, body).map_err(broken)?,
        body_bytes: row.get("body_bytes")?,
        parked_at: Timestamp::from_millis(row.get("parked_at")?),
    })
}

fn count(tx: ReadTx<'_>, tenant: Tenant, source: &SourceName) -> Result<u64, rusqlite::Error> {
    tx.connection
        .prepare_cached("SELECT COUNT(*) FROM parked_messages WHERE workspace_key = ?1 AND mode = ?2 AND source = ?3")?
        .query_row(params![tenant.workspace.as_i64(), mode_code(tenant.mode), source.as_str()], |row| row.get(0))
}

fn park(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    limit: &ParkLimit,
    messages: &[NewParkedMessage],
) -> Result<Parked, rusqlite::Error> {
    let mut new = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        let is_known: bool = tx
            .connection
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM parked_messages
                 WHERE workspace_key = ?1 AND mode = ?2 AND source = ?3 AND fingerprint = ?4)",
            )?
            .query_row(
                params![
                    tenant.workspace.as_i64(),
                    mode_code(tenant.mode),
                    limit.source.as_str(),
                    hash_text(&message.fingerprint)
                ],
                |row| row.get(0),
            )?;
        if !is_known {
            new.push(index);
        }
    }
    let room = limit.room_for(count(tx.as_read(), tenant, &limit.source)?, new);
    if room.dropped > 0 {
        drop_oldest(tx, tenant, &limit.source, room.removed, room.dropped)?;
    }
    for index in room.added {
        insert(tx, tenant, &limit.source, &messages[index])?;
    }
    Ok(Parked { without_room: room.without_room, dropped: room.dropped })
}

fn insert(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    source: &SourceName,
    new: &NewParkedMessage,
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO parked_messages (key, id, workspace_key, mode, source, fingerprint, project_id, reason, detail,
                                          origin, body, body_bytes, parked_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13)
             ON CONFLICT (workspace_key, mode, source, fingerprint) DO NOTHING",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            new.id.to_string(),
            tenant.workspace.as_i64(),
            mode_code(tenant.mode),
            source.as_str(),
            hash_text(&new.fingerprint),
            new.project_id.as_ref().map(ProjectId::as_str),
            new.reason.as_str(),
            new.detail,
            origin_text(&new.message),
            new.message.body.as_ref(),
            new.body_bytes,
            tx.now.millis(),
        ])?;
    Ok(())
}

fn drop_oldest(
    tx: &WriteTx<'_>,
    tenant: Tenant,
    source: &SourceName,
    removed: u64,
    dropped: u64,
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM parked_messages WHERE key IN
                 (SELECT key FROM parked_messages WHERE workspace_key = ?1 AND mode = ?2 AND source = ?3
                  ORDER BY key LIMIT ?4)",
        )?
        .execute(params![tenant.workspace.as_i64(), mode_code(tenant.mode), source.as_str(), removed])?;
    let author = Author { actor: Actor::Source, mode: tenant.mode, request_id: None, address: None };
    let set = changes::parked_messages_dropped(dropped);
    audit::append(tx, tenant.workspace, author, AuditAction::ParkedMessagesDropped, source, &set)
}

fn list(
    tx: ReadTx<'_>,
    tenant: Tenant,
    source: Option<&SourceName>,
    page: PageRequest,
) -> Result<Page<ParkedMessage>, rusqlite::Error> {
    let of_source = if source.is_some() { "source = ?3" } else { "?3 IS NULL" };
    let items = tx
        .connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM parked_messages
             WHERE workspace_key = ?1 AND mode = ?2 AND {of_source} AND key < ?4 ORDER BY key DESC LIMIT ?5"
        ))?
        .query_map(
            params![
                tenant.workspace.as_i64(),
                mode_code(tenant.mode),
                source.map(SourceName::as_str),
                page.before().as_i64(),
                i64::from(page.limit()) + 1,
            ],
            |row| from_row(row, Bytes::new()),
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |message| message.key))
}

fn remove(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: ParkedMessageId,
    action: AuditAction,
) -> WriteResult<(), RemoveParkedMessageError> {
    let removed = tx
        .connection
        .prepare_cached("DELETE FROM parked_messages WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3")?
        .execute(params![id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode)])?;
    if removed == 0 {
        return Ok(Err(RemoveParkedMessageError::NotFound));
    }
    audit::append(tx, tenant.workspace, author, action, id, &Changes::default())?;
    Ok(Ok(()))
}

fn set_paused(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    source: &SourceName,
    is_paused: bool,
) -> Result<(), rusqlite::Error> {
    let scope = (tenant.workspace.as_i64(), mode_code(tenant.mode), source.as_str());
    let changed = if is_paused {
        tx.connection
            .prepare_cached(
                "INSERT INTO paused_sources (workspace_key, mode, source, paused_at) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (workspace_key, mode, source) DO NOTHING",
            )?
            .execute(params![scope.0, scope.1, scope.2, tx.now.millis()])?
    } else {
        tx.connection
            .prepare_cached("DELETE FROM paused_sources WHERE workspace_key = ?1 AND mode = ?2 AND source = ?3")?
            .execute(scope)?
    };
    let action = if is_paused { AuditAction::SourcePaused } else { AuditAction::SourceResumed };
    if changed > 0 {
        audit::append(tx, tenant.workspace, author, action, source, &Changes::default())?;
    }
    Ok(())
}

/// Those of a project, whose content is erased.
pub fn remove_of_project(tx: &WriteTx<'_>, tenant: &Tenant, project: &str) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM parked_messages WHERE workspace_key = ?1 AND mode = ?2 AND project_id = ?3")?
        .execute(params![tenant.workspace.as_i64(), mode_code(tenant.mode), project])?;
    Ok(())
}

/// With the workspace.
pub fn remove_of_workspace(tx: &WriteTx<'_>, workspace: RowKey) -> Result<(), rusqlite::Error> {
    let sql = "DELETE FROM paused_sources WHERE workspace_key = ?1";
    tx.connection.prepare_cached(sql)?.execute([workspace.as_i64()])?;
    Ok(())
}
