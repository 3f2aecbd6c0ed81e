//! What age takes: the log, oldest first, a bounded step at a time.
//!
//! Deliveries go when they are over and old enough; an event goes when it is old enough and no delivery of it is left, so
//! whatever is still to be sent, or shown, keeps its payload.

use rusqlite::params;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::RowKey;
use postrider_store::LogPart;

use super::writer::WriteTx;

/// Looks at the next `limit` rows older than `before` and removes those that can go. Returns where to go on.
pub fn remove(
    tx: &WriteTx<'_>,
    part: LogPart,
    before: RowKey,
    after: RowKey,
    limit: usize,
) -> Result<Option<RowKey>, rusqlite::Error> {
    let (table, can_go) = match part {
        LogPart::Deliveries => {
            // One at which an order has stopped stays until someone has decided.
            (
                "deliveries",
                "status <> ?4 AND NOT EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = deliveries.key)",
            )
        }
        LogPart::Events => {
            // The parameter is named so that both parts take the same ones.
            ("events", "?4 IS NOT NULL AND NOT EXISTS (SELECT 1 FROM deliveries WHERE event_key = events.key)")
        }
    };
    let pending = DeliveryStatus::Pending.code();
    let rows = tx
        .connection
        .prepare_cached(&format!(
            "SELECT key, {can_go} FROM {table} WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3"
        ))?
        .query_map(params![after.as_i64(), before.as_i64(), limit, pending], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, bool)>, _>>()?;
    for (key, _) in rows.iter().filter(|(_, can_go)| *can_go) {
        match part {
            LogPart::Deliveries => remove_delivery(tx, *key)?,
            LogPart::Events => remove_event(tx, *key)?,
        }
    }
    Ok(rows.last().filter(|_| rows.len() == limit).map(|(key, _)| RowKey::from_i64(*key)))
}

fn remove_delivery(tx: &WriteTx<'_>, key: i64) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached("DELETE FROM attempts WHERE delivery_key = ?1")?.execute([key])?;
    tx.connection.prepare_cached("DELETE FROM deliveries WHERE key = ?1")?.execute([key])?;
    Ok(())
}

/// With the event goes its `externalId`, which may then be published again.
fn remove_event(tx: &WriteTx<'_>, key: i64) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM publish_keys WHERE event_key = ?1 AND (workspace_key, mode, external_id) =
                 (SELECT workspace_key, mode, external_id FROM events WHERE key = ?1)",
        )?
        .execute([key])?;
    tx.connection.prepare_cached("DELETE FROM events WHERE key = ?1")?.execute([key])?;
    Ok(())
}
