//! Retention: removes old rows of the log, the oldest first, one bounded step at a time.
//!
//! A delivery is removed when it has ended and is old enough. An event is removed when it is old enough and no delivery
//! of it is left. So a delivery that is still to be sent or shown keeps its payload.
//!
//! Deletes from `deliveries`, `attempts`, `events` and `publish_keys`.

use rusqlite::params;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::RowKey;
use postrider_store::stored_bytes::{ATTEMPT_BYTES, CountedPart};
use postrider_store::{AgedStep, LogPart, Removed};

use crate::machinery::writer::WriteTx;
use crate::stored_bytes;

/// Looks at the next rows and removes those that may go.
pub fn remove(tx: &mut WriteTx<'_>, step: AgedStep) -> Result<Removed, rusqlite::Error> {
    let before = RowKey::first_at(tx.now.minus(step.age));
    let (table, may_go) = match step.part {
        // A delivery at which an order has stopped stays until somebody skips or retries it.
        LogPart::Deliveries => (
            "deliveries",
            "status <> ?4 AND NOT EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = deliveries.key)",
        ),
        // ?4 is named so that both parts have the same parameters.
        LogPart::Events => {
            ("events", "?4 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_key = events.key)")
        }
    };
    let sql = format!("SELECT key, {may_go} FROM {table} WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3");
    let pending = DeliveryStatus::Pending.code();
    let rows = tx
        .connection
        .prepare_cached(&sql)?
        .query_map(params![step.after.as_i64(), before.as_i64(), step.limit, pending], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?
        .collect::<Result<Vec<(i64, bool)>, _>>()?;
    for (key, _) in rows.iter().filter(|(_, may_go)| *may_go) {
        match step.part {
            LogPart::Deliveries => remove_delivery(tx, *key)?,
            LogPart::Events => remove_event(tx, *key)?,
        }
    }
    Ok(Removed {
        rows: rows.iter().filter(|(_, may_go)| *may_go).count() as u64,
        next: rows.last().filter(|_| rows.len() == step.limit).map(|(key, _)| RowKey::from_i64(*key)),
    })
}

fn remove_delivery(tx: &mut WriteTx<'_>, key: i64) -> Result<(), rusqlite::Error> {
    let bytes: i64 = tx
        .connection
        .prepare_cached(&format!("DELETE FROM attempts WHERE delivery_key = ?1 RETURNING {ATTEMPT_BYTES}"))?
        .query_map([key], |row| row.get::<_, i64>(0))?
        .sum::<Result<_, _>>()?;
    let workspace = tx
        .connection
        .prepare_cached("DELETE FROM deliveries WHERE key = ?1 RETURNING workspace_key")?
        .query_row([key], |row| row.get(0))
        .map(RowKey::from_i64)?;
    stored_bytes::count(tx, workspace, CountedPart::Attempts, RowKey::from_i64(key), -bytes)
}

/// Removes the event and its `externalId`, which may be published again from now on.
fn remove_event(tx: &mut WriteTx<'_>, key: i64) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM publish_keys WHERE event_key = ?1 AND (workspace_key, mode, external_id) =
                 (SELECT workspace_key, mode, external_id FROM events WHERE key = ?1)",
        )?
        .execute([key])?;
    let (workspace, bytes) = tx
        .connection
        .prepare_cached("DELETE FROM events WHERE key = ?1 RETURNING workspace_key, octet_length(envelope)")?
        .query_row([key], |row| Ok((RowKey::from_i64(row.get(0)?), row.get::<_, i64>(1)?)))?;
    stored_bytes::count(tx, workspace, CountedPart::Events, RowKey::from_i64(key), -bytes)
}
