//! The audit log. Writes `audit`, each entry in the transaction of the write that it records.

use tokio_postgres::Row;

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
use crate::machinery::column::{coded, get, key, number, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;

/// Adds an entry. Every requested write except a publish must call this, once nothing refuses it any more.
pub async fn append(
    tx: &WriteTx,
    workspace: RowKey,
    author: Author,
    action: AuditAction,
    resource_id: impl ToString,
    changes: &Changes,
) -> Result<(), PgError> {
    tx.execute(
        "INSERT INTO audit (key, workspace_key, actor, mode, action, resource_id, request_id, address, changes)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        &[
            &tx.next_key().as_i64(),
            &workspace.as_i64(),
            &actor_to_text(author.actor),
            &mode_code(author.mode),
            &action.as_str(),
            &resource_id.to_string(),
            &author.request_id.map(|id| id.to_string()),
            &author.address.map(|address| address.0.to_string()),
            &changes.to_text(),
        ],
    )
    .await?;
    Ok(())
}

pub async fn append_refusal(tx: &WriteTx, new: &NewRefusal) -> Result<(), PgError> {
    let NewRefusal { workspace, author, refusal } = new;
    tx.execute(
        "INSERT INTO audit (key, workspace_key, actor, mode, action, resource_id, request_id, address, reason, route,
                            count)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        &[
            &tx.next_key().as_i64(),
            &workspace.map_or(0, RowKey::as_i64),
            &actor_to_text(author.actor),
            &mode_code(author.mode),
            &refusal.reason.action().as_str(),
            &author.actor.id_text().unwrap_or_default(),
            &author.request_id.map(|id| id.to_string()),
            &author.address.map(|address| address.0.to_string()),
            &refusal.reason.as_str(),
            &refusal.route,
            &i64::from(refusal.count),
        ],
    )
    .await?;
    Ok(())
}

/// Removes the oldest refusals before this key. Entries of writes stay.
pub async fn remove_refusals(tx: &WriteTx, before: RowKey, limit: usize) -> Result<usize, PgError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let removed = tx
        .execute(
            "DELETE FROM audit WHERE key IN
                 (SELECT key FROM audit WHERE reason IS NOT NULL AND key < $1 ORDER BY key LIMIT $2)",
            &[&before.as_i64(), &limit],
        )
        .await?;
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}

/// Entries that this tenant reads, or all entries when `tenant` is `None`. The newest comes first.
pub async fn list(
    session: &Session,
    tag: StoreTag,
    tenant: Option<Tenant>,
    filter: &AuditFilter,
    page: PageRequest,
) -> Result<Page<AuditEntry>, PgError> {
    let mut conditions = Conditions::default();
    conditions.and("a.key < ?", page.before().as_i64());
    if let Some(tenant) = tenant {
        // A sum has no index: few entries have one id or are of one request.
        let by_key = filter.request_id.is_some() || filter.id.is_some();
        let column = if by_key { "a.workspace_key + 0" } else { "a.workspace_key" };
        conditions.and(&format!("{column} = ?"), tenant.workspace.as_i64());
        conditions.and_text(managed_modes(tenant));
    }
    if let Some(resource_id) = &filter.resource_id {
        conditions.and("a.resource_id = ?", resource_id.clone());
    }
    if let Some(action) = filter.action {
        conditions.and("a.action = ?", action.as_str());
    }
    if let Some(id) = filter.id {
        // The id of an entry in another store matches nothing here.
        conditions.and("a.key = ?", if id.tag() == tag { id.key().as_i64() } else { -1 });
    }
    if let Some(request) = filter.request_id {
        conditions.and("a.request_id = ?", request.to_string());
    }
    if let Some(since) = filter.since {
        conditions.and("a.key >= ?", RowKey::first_at(since).as_i64());
    }
    if let Some(until) = filter.until {
        conditions.and("a.key < ?", RowKey::first_at(until).as_i64());
    }
    let limit = conditions.value(i64::from(page.limit()) + 1);
    // Few entries are of one request: they are sorted.
    let order = if filter.request_id.is_some() { "a.key + 0" } else { "a.key" };
    let sql = format!(
        "SELECT a.key, w.id AS workspace_id, a.actor, a.mode, a.action, a.resource_id, a.request_id, a.address,
                a.changes, a.reason, a.route, a.count
         FROM audit a LEFT JOIN workspaces w ON w.key = a.workspace_key
         WHERE {} ORDER BY {order} DESC LIMIT {limit}",
        conditions.text()
    );
    let rows = session.query(&sql, &conditions.values()).await?;
    let items = rows.iter().map(|row| entry_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |entry| entry.id.key()))
}

/// Removes up to `limit` entries with keys below `before`, the oldest first. Skips rows that another node removes.
pub async fn remove_aged(tx: &WriteTx, before: RowKey, limit: usize) -> Result<usize, PgError> {
    let removed = tx
        .execute(
            // In an array, so that the limit holds: a subquery of IN may run more than once.
            "DELETE FROM audit WHERE key = ANY (ARRAY
                 (SELECT key FROM audit WHERE key < $1 ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED))",
            &[&before.as_i64(), &i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await?;
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}

fn entry_from_row(row: &Row, tag: StoreTag) -> Result<AuditEntry, PgError> {
    let optional = |column: &'static str| Ok::<_, PgError>(get::<Option<&str>>(row, column)?.is_some());
    let reason = get::<Option<&str>>(row, "reason")?;
    let reason = reason.map(|reason| KeyRefusal::parse(reason).ok_or_else(|| unexpected("audit.reason")));
    let refusal = match reason.transpose()? {
        Some(reason) => Some(Refusal { reason, route: get(row, "route")?, count: number(row, "count")? }),
        None => None,
    };
    Ok(AuditEntry {
        id: AuditId::new(key(row, "key")?, tag),
        workspace_id: if optional("workspace_id")? { Some(parsed(row, "workspace_id")?) } else { None },
        author: Author {
            actor: actor_from_text(get(row, "actor")?)?,
            mode: coded(row, "mode", mode_from_code)?,
            request_id: if optional("request_id")? { Some(parsed(row, "request_id")?) } else { None },
            address: address_from_text(get(row, "address")?)?,
        },
        action: AuditAction::parse(get(row, "action")?).ok_or_else(|| unexpected("audit.action"))?,
        resource_id: get(row, "resource_id")?,
        changes: Changes::from_text(get(row, "changes")?).ok_or_else(|| unexpected("audit.changes"))?,
        refusal,
    })
}
