//! Payloads go before the rows that they belong to: the envelope of an event, and the headers and bodies of the
//! attempts at it. The rows stay, with `payload` saying why nothing is there.
//!
//! The walk goes through the events in the order of their keys and never back: it remembers in `meta` where it ended.
//! An event that a delivery may still send keeps its payload. It is noted in `late_payloads` and looked at again.
//!
//! Updates `events` and `attempts`, writes `late_payloads`.

use rusqlite::{Connection, OptionalExtension, params};

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::id::RowKey;
use postrider_domain::payload::PayloadState;
use postrider_store::stored_bytes::{ATTEMPT_BYTES, CountedPart};
use postrider_store::upkeep::PAYLOADS_WALKED_TO;
use postrider_store::{PayloadStep, Removed};

use crate::machinery::column::coded;
use crate::machinery::writer::WriteTx;
use crate::{meta, stored_bytes};

/// Looks at the next events and takes the payloads that may go.
pub fn expire(tx: &mut WriteTx<'_>, step: PayloadStep) -> Result<Removed, rusqlite::Error> {
    let before = RowKey::first_at(tx.now.minus(step.age));
    let after = meta::row_key(tx.connection, PAYLOADS_WALKED_TO)?;
    let rows = tx
        .connection
        .prepare_cached("SELECT key, payload FROM events WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?3")?
        .query_map(params![after.as_i64(), before.as_i64(), step.limit], |row| {
            Ok((row.get(0)?, coded(row, "payload", PayloadState::from_code)?))
        })?
        .collect::<Result<Vec<(i64, PayloadState)>, _>>()?;
    let Some((last, _)) = rows.last().copied() else { return Ok(Removed::default()) };
    let mut taken = 0;
    for (key, _) in rows.iter().filter(|(_, payload)| *payload == PayloadState::Kept) {
        if is_needed(tx.connection, *key)? {
            tx.connection
                .prepare_cached("INSERT OR IGNORE INTO late_payloads (event_key) VALUES (?1)")?
                .execute([key])?;
        } else {
            take(tx, RowKey::from_i64(*key), PayloadState::Expired)?;
            taken += 1;
        }
    }
    let last = RowKey::from_i64(last);
    meta::set_row_key(tx, PAYLOADS_WALKED_TO, last)?;
    Ok(Removed { rows: taken, next: Some(last).filter(|_| rows.len() == step.limit) })
}

/// Looks again at events whose payloads had to stay, those after `after`.
pub fn expire_late(tx: &mut WriteTx<'_>, step: PayloadStep, after: RowKey) -> Result<Removed, rusqlite::Error> {
    let before = RowKey::first_at(tx.now.minus(step.age));
    let keys = tx
        .connection
        .prepare_cached(
            "SELECT event_key FROM late_payloads WHERE event_key > ?1 AND event_key < ?2 ORDER BY event_key LIMIT ?3",
        )?
        .query_map(params![after.as_i64(), before.as_i64(), step.limit], |row| row.get(0))?
        .collect::<Result<Vec<i64>, _>>()?;
    let mut taken = 0;
    for key in &keys {
        if is_needed(tx.connection, *key)? {
            continue;
        }
        taken += u64::from(take(tx, RowKey::from_i64(*key), PayloadState::Expired)?);
        tx.connection.prepare_cached("DELETE FROM late_payloads WHERE event_key = ?1")?.execute([key])?;
    }
    let last = keys.last().copied().map(RowKey::from_i64);
    Ok(Removed { rows: taken, next: last.filter(|_| keys.len() == step.limit) })
}

/// Whether a delivery of the event is pending, or a strict order has stopped at one.
fn is_needed(connection: &Connection, event: i64) -> Result<bool, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM deliveries d INDEXED BY deliveries_by_event
                            WHERE d.event_key = ?1 AND (d.status = ?2
                                OR EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = d.key)))",
        )?
        .query_row(params![event, DeliveryStatus::Pending.code()], |row| row.get(0))
}

/// Takes the payload of an event and of all attempts at it. Returns false if it was gone already, or the event is.
pub fn take(tx: &mut WriteTx<'_>, event: RowKey, state: PayloadState) -> Result<bool, rusqlite::Error> {
    let found: Option<(i64, i64)> = tx
        .connection
        .prepare_cached("SELECT workspace_key, octet_length(envelope) FROM events WHERE key = ?1 AND payload = 0")?
        .query_row([event.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let Some((workspace, bytes)) = found else { return Ok(false) };
    let workspace = RowKey::from_i64(workspace);
    take_attempts(tx, workspace, event, state)?;
    tx.connection
        .prepare_cached("UPDATE events SET envelope = x'', payload = ?2 WHERE key = ?1")?
        .execute(params![event.as_i64(), state.code()])?;
    stored_bytes::count(tx, workspace, CountedPart::Events, event, -bytes)?;
    Ok(true)
}

fn take_attempts(
    tx: &mut WriteTx<'_>,
    workspace: RowKey,
    event: RowKey,
    state: PayloadState,
) -> Result<(), rusqlite::Error> {
    let sql = format!(
        "SELECT d.key, SUM({ATTEMPT_BYTES}) FROM deliveries d INDEXED BY deliveries_by_event
         JOIN attempts a ON a.delivery_key = d.key WHERE d.event_key = ?1 AND a.payload = 0 GROUP BY d.key"
    );
    let deliveries = tx
        .connection
        .prepare_cached(&sql)?
        .query_map([event.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<Vec<(i64, i64)>, _>>()?;
    for (delivery, bytes) in deliveries {
        tx.connection
            .prepare_cached(
                "UPDATE attempts SET request = NULL, request_headers = NULL, response_headers = NULL,
                                     response_body = NULL, payload = ?2 WHERE delivery_key = ?1 AND payload = 0",
            )?
            .execute(params![delivery, state.code()])?;
        stored_bytes::count(tx, workspace, CountedPart::Attempts, RowKey::from_i64(delivery), -bytes)?;
    }
    Ok(())
}
