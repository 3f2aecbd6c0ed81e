//! Removes rows that ended long ago and that nothing refers to any more: replays, erasures, deleted endpoints and
//! workspaces, revoked and expired keys, parked messages.
//!
//! Rows are found by an index on the instant at which they ended. A row that something still refers to is passed, and
//! looked at again in the next walk.
//!
//! Deletes from `replays`, `erasures`, `endpoints`, `api_keys`, `portal_sessions`, `parked_messages` and
//! `workspaces`.

use rusqlite::{Connection, params};

use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::{EndedCursor, EndedKind, EndedStep};

use crate::machinery::writer::WriteTx;
use crate::queue::{endpoint_health, order};
use crate::registry::session;
use crate::{parked_message, secrets, stats};

/// When a key ended: the earlier of two instants, as in the index `api_keys_ended`.
const API_KEY_ENDED: &str = "min(ifnull(revoked_at, expires_at), ifnull(expires_at, revoked_at))";

/// The next rows that ended long enough ago.
pub fn find(connection: &Connection, now: Timestamp, step: EndedStep) -> Result<Vec<EndedCursor>, rusqlite::Error> {
    let before = now.minus(step.age).millis();
    connection
        .prepare_cached(&select(step.kind))?
        .query_map(params![step.after.ended_at.millis(), step.after.key.as_i64(), before, step.limit], |row| {
            Ok(EndedCursor { ended_at: Timestamp::from_millis(row.get(0)?), key: RowKey::from_i64(row.get(1)?) })
        })?
        .collect()
}

pub fn select(kind: EndedKind) -> String {
    let (table, ended, has_ended) = match kind {
        EndedKind::Replays => ("replays", "completed_at", "completed_at IS NOT NULL"),
        EndedKind::Erasures => ("erasures", "completed_at", "completed_at IS NOT NULL"),
        EndedKind::Endpoints => ("endpoints", "deleted_at", "deleted_at IS NOT NULL"),
        EndedKind::ApiKeys => ("api_keys", API_KEY_ENDED, "(revoked_at IS NOT NULL OR expires_at IS NOT NULL)"),
        EndedKind::PortalSessions => ("portal_sessions", "ends_at", "ends_at IS NOT NULL"),
        EndedKind::ParkedMessages => ("parked_messages", "parked_at", "parked_at IS NOT NULL"),
        EndedKind::Workspaces => ("workspaces", "deleted_at", "deleted_at IS NOT NULL"),
    };
    format!(
        "SELECT {ended}, key FROM {table}
         WHERE {has_ended} AND {ended} >= ?1 AND ({ended} > ?1 OR key > ?2) AND {ended} < ?3
         ORDER BY {ended}, key LIMIT ?4"
    )
}

/// Removes those of the rows found that nothing refers to. Returns where the next step begins.
pub fn remove(
    tx: &mut WriteTx<'_>,
    step: EndedStep,
    found: &[EndedCursor],
) -> Result<Option<EndedCursor>, rusqlite::Error> {
    let mut removed = 0;
    for (index, row) in found.iter().enumerate() {
        let key = row.key.as_i64();
        removed += match step.kind {
            EndedKind::Replays => tx.connection.prepare_cached("DELETE FROM replays WHERE key = ?1")?.execute([key])?,
            EndedKind::Erasures => {
                tx.connection.prepare_cached("DELETE FROM erasures WHERE key = ?1")?.execute([key])?
            }
            EndedKind::ApiKeys => {
                tx.connection.prepare_cached("DELETE FROM api_keys WHERE key = ?1")?.execute([key])?
            }
            EndedKind::PortalSessions => {
                tx.connection.prepare_cached("DELETE FROM portal_sessions WHERE key = ?1")?.execute([key])?
            }
            EndedKind::ParkedMessages => {
                tx.connection.prepare_cached("DELETE FROM parked_messages WHERE key = ?1")?.execute([key])?
            }
            EndedKind::Endpoints => remove_endpoint(tx, row.key)?,
            EndedKind::Workspaces => remove_workspace(tx, row.key)?,
        };
        // A workspace can take many keys with it.
        if removed >= step.limit && index + 1 < found.len() {
            return Ok(Some(*row));
        }
    }
    Ok(found.last().copied().filter(|_| found.len() == step.limit))
}

fn remove_endpoint(tx: &mut WriteTx<'_>, key: RowKey) -> Result<usize, rusqlite::Error> {
    let is_referred_to = tx
        .connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries WHERE endpoint_key = ?1)
                 OR EXISTS (SELECT 1 FROM replays WHERE endpoint_key = ?1)
                 OR EXISTS (SELECT 1 FROM erasures WHERE endpoint_key = ?1)
                 OR EXISTS (SELECT 1 FROM due WHERE lane_key IN (?1, -?1))
                 OR EXISTS (SELECT 1 FROM lanes WHERE lane_key IN (?1, -?1))",
        )?
        .query_row([key.as_i64()], |row| row.get(0))?;
    if is_referred_to {
        return Ok(0);
    }
    // The deletion has removed these. A row that an older version left must not keep the endpoint for ever.
    secrets::erase_of_endpoint(tx, key)?;
    order::remove(tx, key)?;
    endpoint_health::forget(tx, key)?;
    stats::forget_endpoint(tx, key)?;
    tx.connection
        .prepare_cached("DELETE FROM endpoints WHERE key = ?1 AND deleted_at IS NOT NULL")?
        .execute([key.as_i64()])
}

/// The number of rows removed: the workspace, and the keys that were in use when it was deleted.
fn remove_workspace(tx: &WriteTx<'_>, key: RowKey) -> Result<usize, rusqlite::Error> {
    let is_referred_to = tx
        .connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM endpoints WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM deliveries WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM events WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM publish_keys WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM portal_sessions WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM parked_messages WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM replays WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM erasures WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM idempotency WHERE workspace_key = ?1)
                 OR EXISTS (SELECT 1 FROM audit WHERE workspace_key = ?1)",
        )?
        .query_row([key.as_i64()], |row| row.get(0))?;
    if is_referred_to {
        return Ok(0);
    }
    session::remove_of_workspace(tx, key)?;
    parked_message::remove_of_workspace(tx, key)?;
    stats::forget_workspace(tx, key)?;
    let keys =
        tx.connection.prepare_cached("DELETE FROM api_keys WHERE workspace_key = ?1")?.execute([key.as_i64()])?;
    let workspaces = tx
        .connection
        .prepare_cached("DELETE FROM workspaces WHERE key = ?1 AND deleted_at IS NOT NULL")?
        .execute([key.as_i64()])?;
    Ok(keys + workspaces)
}
