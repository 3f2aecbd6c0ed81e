//! Removes rows that ended long ago and that nothing refers to any more: replays, erasures, deleted endpoints and
//! workspaces, revoked and expired keys, parked messages.
//!
//! Rows are found by an index on the instant at which they ended. A row that something still refers to is passed, and
//! looked at again in the next walk. Two nodes may walk at once: each takes the rows that the other does not hold.
//!
//! Deletes from `replays`, `erasures`, `endpoints`, `api_keys`, `portal_sessions`, `parked_messages` and
//! `workspaces`.

use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::{EndedCursor, EndedKind, EndedStep};

use crate::machinery::column::{get, instant, key};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;
use crate::queue::{endpoint_health, order};
use crate::registry::session;
use crate::{parked_message, secrets, stats};

/// Looks at the next rows and removes those that nothing refers to. Returns where the next step begins.
pub async fn remove(tx: &mut WriteTx, step: EndedStep) -> Result<Option<EndedCursor>, PgError> {
    let (after, before) = (step.after, tx.now.minus(step.age));
    let found = find(tx, step, before).await?;
    let Some(last) = found.last().copied() else { return Ok(None) };
    let mut removed = 0;
    for row in &found {
        removed += match step.kind {
            EndedKind::Replays => delete(tx, "DELETE FROM replays WHERE key = $1", row.key).await?,
            EndedKind::Erasures => delete(tx, "DELETE FROM erasures WHERE key = $1", row.key).await?,
            EndedKind::ApiKeys => delete(tx, "DELETE FROM api_keys WHERE key = $1", row.key).await?,
            EndedKind::PortalSessions => delete(tx, "DELETE FROM portal_sessions WHERE key = $1", row.key).await?,
            EndedKind::ParkedMessages => delete(tx, "DELETE FROM parked_messages WHERE key = $1", row.key).await?,
            EndedKind::Endpoints => remove_endpoint(tx, row.key).await?,
            EndedKind::Workspaces => remove_workspace(tx, row.key).await?,
        };
        // A workspace can take many keys with it.
        if removed >= step.limit as u64 && *row != last {
            return Ok(Some(*row));
        }
    }
    debug_assert!(last != after, "a step that finds rows moves on");
    Ok(Some(last).filter(|_| found.len() == step.limit))
}

pub fn select(kind: EndedKind) -> String {
    let (table, ended, has_ended) = match kind {
        EndedKind::Replays => ("replays", "completed_at", "completed_at IS NOT NULL"),
        EndedKind::Erasures => ("erasures", "completed_at", "completed_at IS NOT NULL"),
        EndedKind::Endpoints => ("endpoints", "deleted_at", "deleted_at IS NOT NULL"),
        EndedKind::ApiKeys => {
            ("api_keys", "LEAST(revoked_at, expires_at)", "(revoked_at IS NOT NULL OR expires_at IS NOT NULL)")
        }
        EndedKind::PortalSessions => ("portal_sessions", "ends_at", "ends_at IS NOT NULL"),
        EndedKind::ParkedMessages => ("parked_messages", "parked_at", "parked_at IS NOT NULL"),
        EndedKind::Workspaces => ("workspaces", "deleted_at", "deleted_at IS NOT NULL"),
    };
    format!(
        "SELECT {ended} AS ended_at, key FROM {table}
         WHERE {has_ended} AND ({ended}, key) > ($1, $2) AND {ended} < $3
         ORDER BY {ended}, key LIMIT $4 FOR UPDATE SKIP LOCKED"
    )
}

async fn find(tx: &WriteTx, step: EndedStep, before: Timestamp) -> Result<Vec<EndedCursor>, PgError> {
    let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
    let (ended_at, after) = (step.after.ended_at.millis(), step.after.key.as_i64());
    let rows = tx.query(&select(step.kind), &[&ended_at, &after, &before.millis(), &limit]).await?;
    rows.iter().map(|row| Ok(EndedCursor { ended_at: instant(row, "ended_at")?, key: key(row, "key")? })).collect()
}

async fn delete(tx: &WriteTx, sql: &str, key: RowKey) -> Result<u64, PgError> {
    tx.execute(sql, &[&key.as_i64()]).await
}

async fn remove_endpoint(tx: &mut WriteTx, key: RowKey) -> Result<u64, PgError> {
    let referred_to = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE endpoint_key = $1)
                           OR EXISTS (SELECT 1 FROM replays WHERE endpoint_key = $1)
                           OR EXISTS (SELECT 1 FROM erasures WHERE endpoint_key = $1)
                           OR EXISTS (SELECT 1 FROM due WHERE lane_key IN ($1, -$1))
                           OR EXISTS (SELECT 1 FROM lanes WHERE lane_key IN ($1, -$1)) AS found";
    if get(&tx.query_one(referred_to, &[&key.as_i64()]).await?, "found")? {
        return Ok(0);
    }
    // The deletion has removed these. A row that an older version left must not keep the endpoint for ever.
    secrets::erase_of_endpoint(tx, key).await?;
    order::remove(tx, key).await?;
    endpoint_health::forget(tx, key).await?;
    stats::forget_endpoint(tx, key).await?;
    delete(tx, "DELETE FROM endpoints WHERE key = $1 AND deleted_at IS NOT NULL", key).await
}

/// The number of rows removed: the workspace, and the keys that were in use when it was deleted.
async fn remove_workspace(tx: &WriteTx, key: RowKey) -> Result<u64, PgError> {
    let referred_to = "SELECT EXISTS (SELECT 1 FROM endpoints WHERE workspace_key = $1)
                           OR EXISTS (SELECT 1 FROM deliveries WHERE workspace_key = $1)
                           OR EXISTS (SELECT 1 FROM events WHERE workspace_key = $1)
                           OR EXISTS (SELECT 1 FROM publish_keys WHERE workspace_key = $1)
                           OR EXISTS (SELECT 1 FROM portal_sessions WHERE workspace_key = $1)
                 OR EXISTS (SELECT 1 FROM parked_messages WHERE workspace_key = $1)
                 OR EXISTS (SELECT 1 FROM replays WHERE workspace_key = $1)
                 OR EXISTS (SELECT 1 FROM erasures WHERE workspace_key = $1)
                 OR EXISTS (SELECT 1 FROM idempotency WHERE workspace_key = $1)
                           OR EXISTS (SELECT 1 FROM audit WHERE workspace_key = $1) AS found";
    if get(&tx.query_one(referred_to, &[&key.as_i64()]).await?, "found")? {
        return Ok(0);
    }
    session::remove_of_workspace(tx, key).await?;
    parked_message::remove_of_workspace(tx, key).await?;
    stats::forget_workspace(tx, key).await?;
    let keys = delete(tx, "DELETE FROM api_keys WHERE workspace_key = $1", key).await?;
    let workspaces = delete(tx, "DELETE FROM workspaces WHERE key = $1 AND deleted_at IS NOT NULL", key).await?;
    Ok(keys + workspaces)
}
