//! The audit log. An entry is written in the transaction of the write that it records, and never changed. Retention
//! removes it.
//!
//! Writes `audit`.

use rusqlite::{Row, params, params_from_iter};

use postrider_domain::audit::{Actor, AuditAction, AuditEntry, AuditFilter, Author};
use postrider_domain::id::{AuditId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_store::column::{mode_code, mode_from_code};

use super::conditions::Conditions;
use crate::machinery::column::{coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::WriteTx;

/// Every write that somebody asked for must call this once it will happen. Publishing does not: events are a log of
/// their own.
pub fn append(
    tx: &WriteTx<'_>,
    workspace: RowKey,
    author: Author,
    action: AuditAction,
    resource_id: impl ToString,
) -> Result<(), rusqlite::Error> {
    let actor = match author.actor {
        Actor::ApiKey(id) => Some(id.to_string()),
        Actor::CommandLine => None,
    };
    tx.connection
        .prepare_cached(
            "INSERT INTO audit (key, workspace_key, actor, mode, action, resource_id, request_id)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            workspace.as_i64(),
            actor,
            mode_code(author.mode),
            action.as_str(),
            resource_id.to_string(),
            author.request_id.map(|id| id.to_string()),
        ])?;
    Ok(())
}

/// Entries of one workspace, or of all when `workspace` is `None`. The newest comes first.
pub fn list(
    tx: ReadTx<'_>,
    workspace: Option<RowKey>,
    filter: &AuditFilter,
    page: PageRequest,
) -> Result<Page<AuditEntry>, rusqlite::Error> {
    let mut conditions = Conditions::default();
    conditions.and("audit.key < ?", page.before().as_i64());
    if let Some(key) = workspace {
        conditions.and("workspace_key = ?", key.as_i64());
    }
    if let Some(resource_id) = &filter.resource_id {
        conditions.and("resource_id = ?", resource_id.clone());
    }
    if let Some(action) = filter.action {
        conditions.and("action = ?", action.as_str());
    }
    conditions.push(i64::from(page.limit()) + 1);
    let Conditions { text, values } = conditions;
    let sql = format!(
        "SELECT audit.key, workspaces.id AS workspace_id, actor, mode, action, resource_id, request_id
         FROM audit JOIN workspaces ON workspaces.key = workspace_key WHERE {text} ORDER BY audit.key DESC LIMIT ?"
    );
    let items = tx
        .connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| entry_from_row(row, tx.tag))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |entry| entry.id.key()))
}

/// Removes up to `limit` entries with keys below `before`, the oldest first.
pub fn remove_aged(tx: &WriteTx<'_>, before: RowKey, limit: usize) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM audit WHERE key IN (SELECT key FROM audit WHERE key < ?1 ORDER BY key LIMIT ?2)")?
        .execute(params![before.as_i64(), limit])
}

fn entry_from_row(row: &Row<'_>, tag: StoreTag) -> Result<AuditEntry, rusqlite::Error> {
    let actor = match row.get_ref("actor")?.as_str_or_null()? {
        Some(_) => Actor::ApiKey(parsed(row, "actor")?),
        None => Actor::CommandLine,
    };
    let request_id = match row.get_ref("request_id")?.as_str_or_null()? {
        Some(_) => Some(parsed(row, "request_id")?),
        None => None,
    };
    Ok(AuditEntry {
        id: AuditId::new(RowKey::from_i64(row.get("key")?), tag),
        workspace_id: parsed(row, "workspace_id")?,
        author: Author { actor, mode: coded(row, "mode", mode_from_code)?, request_id },
        action: AuditAction::parse(row.get_ref("action")?.as_str()?).ok_or_else(|| unexpected("audit.action"))?,
        resource_id: row.get("resource_id")?,
    })
}
