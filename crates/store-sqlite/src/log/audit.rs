//! The audit log. An entry is written in the transaction of the write that it records, and never changed. Retention
//! removes it.
//!
//! Writes `audit`.

use rusqlite::{Row, params, params_from_iter};

use postrider_domain::audit::{AuditAction, AuditEntry, AuditFilter, Author, KeyRefusal, Refusal};
use postrider_domain::audit_change::Changes;
use postrider_domain::id::{AuditId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_store::NewRefusal;
use postrider_store::column::{
    actor_from_text, actor_to_text, address_from_text, managed_modes, mode_code, mode_from_code,
};

use super::conditions::Conditions;
use crate::machinery::column::{broken, coded, parsed, unexpected};
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
    changes: &Changes,
) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO audit (key, workspace_key, actor, mode, action, resource_id, request_id, address, changes)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            workspace.as_i64(),
            actor_to_text(author.actor),
            mode_code(author.mode),
            action.as_str(),
            resource_id.to_string(),
            author.request_id.map(|id| id.to_string()),
            author.address.map(|address| address.0.to_string()),
            changes.to_text(),
        ])?;
    Ok(())
}

pub fn append_refusal(tx: &WriteTx<'_>, new: &NewRefusal) -> Result<(), rusqlite::Error> {
    let NewRefusal { workspace, author, refusal } = new;
    tx.connection
        .prepare_cached(
            "INSERT INTO audit (key, workspace_key, actor, mode, action, resource_id, request_id, address, reason,
                                route, count)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
        )?
        .execute(params![
            tx.next_key().as_i64(),
            workspace.map_or(0, RowKey::as_i64),
            actor_to_text(author.actor),
            mode_code(author.mode),
            refusal.reason.action().as_str(),
            author.actor.id_text().unwrap_or_default(),
            author.request_id.map(|id| id.to_string()),
            author.address.map(|address| address.0.to_string()),
            refusal.reason.as_str(),
            refusal.route,
            refusal.count,
        ])?;
    Ok(())
}

/// Removes the oldest refusals before this key. Entries of writes stay.
pub fn remove_refusals(tx: &WriteTx<'_>, before: RowKey, limit: usize) -> Result<usize, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM audit WHERE key IN
                 (SELECT key FROM audit WHERE reason IS NOT NULL AND key < ?1 ORDER BY key LIMIT ?2)",
        )?
        .execute(params![before.as_i64(), limit])
}

/// Entries that this tenant reads, or all entries when `tenant` is `None`. The newest comes first.
pub fn list(
    tx: ReadTx<'_>,
    tenant: Option<Tenant>,
    filter: &AuditFilter,
    page: PageRequest,
) -> Result<Page<AuditEntry>, rusqlite::Error> {
    let mut conditions = Conditions::default();
    conditions.and("audit.key < ?", page.before().as_i64());
    if let Some(tenant) = tenant {
        // A sum has no index: few entries have one id or are of one request.
        let by_key = filter.request_id.is_some() || filter.id.is_some();
        let column = if by_key { "workspace_key + 0" } else { "workspace_key" };
        conditions.and(&format!("{column} = ?"), tenant.workspace.as_i64());
        conditions.and_text(managed_modes(tenant));
    }
    if let Some(resource_id) = &filter.resource_id {
        conditions.and("resource_id = ?", resource_id.clone());
    }
    if let Some(action) = filter.action {
        conditions.and("action = ?", action.as_str());
    }
    if let Some(id) = filter.id {
        // The id of an entry in another store matches nothing here.
        conditions.and("audit.key = ?", if id.tag() == tx.tag { id.key().as_i64() } else { -1 });
    }
    if let Some(request) = filter.request_id {
        conditions.and("request_id = ?", request.to_string());
    }
    if let Some(since) = filter.since {
        conditions.and("audit.key >= ?", RowKey::first_at(since).as_i64());
    }
    if let Some(until) = filter.until {
        conditions.and("audit.key < ?", RowKey::first_at(until).as_i64());
    }
    conditions.push(i64::from(page.limit()) + 1);
    let Conditions { text, values } = conditions;
    let sql = format!(
        "SELECT audit.key, workspaces.id AS workspace_id, actor, mode, action, resource_id, request_id, address, changes,
                reason, route, count
         FROM audit LEFT JOIN workspaces ON workspaces.key = workspace_key WHERE {text} ORDER BY audit.key DESC LIMIT ?"
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
    let text = |column: &'static str| row.get_ref(column)?.as_str_or_null().map_err(rusqlite::Error::from);
    let optional = |column: &'static str| Ok::<_, rusqlite::Error>(text(column)?.is_some());
    let reason = text("reason")?.map(|reason| KeyRefusal::parse(reason).ok_or_else(|| unexpected("audit.reason")));
    let refusal = match reason.transpose()? {
        Some(reason) => Some(Refusal { reason, route: row.get("route")?, count: row.get("count")? }),
        None => None,
    };
    Ok(AuditEntry {
        id: AuditId::new(RowKey::from_i64(row.get("key")?), tag),
        workspace_id: if optional("workspace_id")? { Some(parsed(row, "workspace_id")?) } else { None },
        author: Author {
            actor: actor_from_text(text("actor")?).map_err(broken)?,
            mode: coded(row, "mode", mode_from_code)?,
            request_id: if optional("request_id")? { Some(parsed(row, "request_id")?) } else { None },
            address: address_from_text(text("address")?).map_err(broken)?,
        },
        action: AuditAction::parse(row.get_ref("action")?.as_str()?).ok_or_else(|| unexpected("audit.action"))?,
        resource_id: row.get("resource_id")?,
        changes: Changes::from_text(text("changes")?).ok_or_else(|| unexpected("audit.changes"))?,
        refusal,
    })
}
