//! The audit log. Writes `audit`, each entry in the transaction of the write that it records.

use tokio_postgres::Row;

use postrider_domain::audit::{Actor, AuditAction, AuditEntry, AuditFilter, Author};
use postrider_domain::id::{AuditId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_store::column::{mode_code, mode_from_code};

use super::conditions::Conditions;
use crate::machinery::column::{coded, get, key, parsed, unexpected};
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
) -> Result<(), PgError> {
    let actor = match author.actor {
        Actor::ApiKey(id) => Some(id.to_string()),
        Actor::CommandLine => None,
    };
    tx.execute(
        "INSERT INTO audit (key, workspace_key, actor, mode, action, resource_id, request_id)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            &tx.next_key().as_i64(),
            &workspace.as_i64(),
            &actor,
            &mode_code(author.mode),
            &action.as_str(),
            &resource_id.to_string(),
            &author.request_id.map(|id| id.to_string()),
        ],
    )
    .await?;
    Ok(())
}

/// Entries of one workspace, or of all, newest first.
pub async fn list(
    session: &Session,
    tag: StoreTag,
    workspace: Option<RowKey>,
    filter: &AuditFilter,
    page: PageRequest,
) -> Result<Page<AuditEntry>, PgError> {
    let mut conditions = Conditions::default();
    conditions.and("a.key < ?", page.before().as_i64());
    if let Some(key) = workspace {
        conditions.and("a.workspace_key = ?", key.as_i64());
    }
    if let Some(resource_id) = &filter.resource_id {
        conditions.and("a.resource_id = ?", resource_id.clone());
    }
    if let Some(action) = filter.action {
        conditions.and("a.action = ?", action.as_str());
    }
    let limit = conditions.value(i64::from(page.limit()) + 1);
    let sql = format!(
        "SELECT a.key, w.id AS workspace_id, a.actor, a.mode, a.action, a.resource_id, a.request_id
         FROM audit a JOIN workspaces w ON w.key = a.workspace_key
         WHERE {} ORDER BY a.key DESC LIMIT {limit}",
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
            "DELETE FROM audit WHERE key IN
                 (SELECT key FROM audit WHERE key < $1 ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED)",
            &[&before.as_i64(), &i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await?;
    Ok(usize::try_from(removed).unwrap_or(usize::MAX))
}

fn entry_from_row(row: &Row, tag: StoreTag) -> Result<AuditEntry, PgError> {
    let actor = match get::<Option<&str>>(row, "actor")? {
        Some(_) => Actor::ApiKey(parsed(row, "actor")?),
        None => Actor::CommandLine,
    };
    let request_id = match get::<Option<&str>>(row, "request_id")? {
        Some(_) => Some(parsed(row, "request_id")?),
        None => None,
    };
    Ok(AuditEntry {
        id: AuditId::new(key(row, "key")?, tag),
        workspace_id: parsed(row, "workspace_id")?,
        author: Author { actor, mode: coded(row, "mode", mode_from_code)?, request_id },
        action: AuditAction::parse(get(row, "action")?).ok_or_else(|| unexpected("audit.action"))?,
        resource_id: get(row, "resource_id")?,
    })
}
