//! Accepts events: writes each event, its `externalId` and its deliveries in one transaction.
//!
//! Differs from PostgreSQL: rows are written one by one. A statement costs no round trip here.
//!
//! Writes `events` and `publish_keys`. Only retention removes rows (`upkeep/retention.rs`).

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, params};

use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EventId, RowKey};
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;
use postrider_store::AcceptError;
use postrider_store::column::mode_code;
use postrider_store::publish::delivery::{NewDelivery, receipt_of};
use postrider_store::publish::matching::Subscriber;
use postrider_store::stored_bytes::{CountedPart, bytes_of};

use crate::log::delivery;
use crate::machinery::writer::{WriteResult, WriteTx};
use crate::stored_bytes;

pub const INSERT_EVENT: &str =
    "INSERT INTO events (key, workspace_key, mode, type, project_id, external_id, occurred_at, deliveries, envelope,
                         traceparent)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

pub const INSERT_PUBLISH_KEY: &str =
    "INSERT OR REPLACE INTO publish_keys (workspace_key, mode, external_id, event_key, body_hash)
     VALUES (?1, ?2, ?3, ?4, ?5)";

pub const SELECT_PUBLISHED: &str = "SELECT body_hash, event_key, type, project_id, deliveries
     FROM publish_keys JOIN events ON events.key = event_key
     WHERE publish_keys.workspace_key = ?1 AND publish_keys.mode = ?2 AND publish_keys.external_id = ?3";

/// Accepts all events or none. An event that was published before is answered with its first receipt.
pub fn accept(tx: &mut WriteTx<'_>, events: &[NewEvent]) -> WriteResult<Vec<EventReceipt>, AcceptError> {
    let mut repeated = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        match find_published(tx, event)? {
            Some(Published::Same(receipt)) => {
                repeated.insert(index, receipt);
            }
            Some(Published::Other) => return Ok(Err(AcceptError::ExternalIdReused { index })),
            None => {}
        }
    }
    let mut matched = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        if !repeated.contains_key(&index) {
            matched.push(Matched::of(tx, event)?);
        }
    }
    let count = matched.iter().map(|matched| matched.positions.len()).sum();
    if count > limits::DELIVERIES_PER_REQUEST {
        return Ok(Err(AcceptError::TooManyDeliveries { count, max: limits::DELIVERIES_PER_REQUEST }));
    }
    if let Some(max) = exceeded_budget(tx, matched.iter().map(|matched| matched.event))? {
        return Ok(Err(AcceptError::WorkspaceFull { max }));
    }
    let mut matched = matched.into_iter();
    let mut receipts = Vec::with_capacity(events.len());
    for index in 0..events.len() {
        if let Some(receipt) = repeated.remove(&index) {
            receipts.push(receipt);
        } else if let Some(matched) = matched.next() {
            receipts.push(insert(tx, &matched)?);
        }
    }
    Ok(Ok(receipts))
}

/// The budget of the events' workspace, if it has no room for them. The events of a request are of one workspace.
fn exceeded_budget<'e>(
    tx: &mut WriteTx<'_>,
    events: impl Iterator<Item = &'e NewEvent> + Clone,
) -> Result<Option<u64>, rusqlite::Error> {
    let Some(first) = events.clone().next() else { return Ok(None) };
    let bytes = events.map(|event| event.envelope.len()).sum();
    stored_bytes::exceeded_budget(tx, first.tenant.workspace, bytes)
}

/// Writes an event for one endpoint. The caller writes its delivery.
pub fn insert_for_one(tx: &mut WriteTx<'_>, event: &NewEvent) -> Result<(), rusqlite::Error> {
    insert_event(tx, event, &receipt_of(event, 1))
}

/// Empties an event: its envelope and its `externalId`, which may be published again from now on.
pub fn erase(tx: &mut WriteTx<'_>, key: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM publish_keys WHERE event_key = ?1 AND (workspace_key, mode, external_id) =
                 (SELECT workspace_key, mode, external_id FROM events WHERE key = ?1)",
        )?
        .execute([key.as_i64()])?;
    let (workspace, bytes): (i64, i64) = tx
        .connection
        .prepare_cached("SELECT workspace_key, octet_length(envelope) FROM events WHERE key = ?1")?
        .query_row([key.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    tx.connection
        .prepare_cached(
            "UPDATE events SET envelope = x'', external_id = NULL, traceparent = NULL, payload = ?2 WHERE key = ?1",
        )?
        .execute([key.as_i64(), PayloadState::Erased.code()])?;
    stored_bytes::count(tx, RowKey::from_i64(workspace), CountedPart::Events, key, -bytes)
}

/// A new event and the endpoints that match it.
struct Matched<'e> {
    event: &'e NewEvent,
    subscribers: Arc<Vec<Subscriber>>,
    /// Of those that match, in `subscribers`.
    positions: Vec<usize>,
}

impl<'e> Matched<'e> {
    fn of(tx: &mut WriteTx<'_>, event: &'e NewEvent) -> Result<Self, rusqlite::Error> {
        let subscribers = tx.matching.subscribers(tx.connection, event.tenant)?;
        let positions = (0..subscribers.len()).filter(|&position| subscribers[position].matches(event)).collect();
        Ok(Self { event, subscribers, positions })
    }
}

/// What an `externalId` was used for before.
enum Published {
    Same(EventReceipt),
    Other,
}

fn find_published(tx: &WriteTx<'_>, event: &NewEvent) -> Result<Option<Published>, rusqlite::Error> {
    let Some(external_id) = &event.external_id else { return Ok(None) };
    let parameters = params![event.tenant.workspace.as_i64(), mode_code(event.tenant.mode), external_id.as_str()];
    tx.connection
        .prepare_cached(SELECT_PUBLISHED)?
        .query_row(parameters, |row| {
            if row.get::<_, [u8; 32]>(0)? != event.body_hash {
                return Ok(Published::Other);
            }
            Ok(Published::Same(EventReceipt {
                id: EventId::new(RowKey::from_i64(row.get(1)?), tx.tag),
                external_id: Some(external_id.as_str().to_owned()),
                event_type: EventTypeName::from_stored(row.get_ref(2)?.as_str()?),
                project_id: row.get(3)?,
                deliveries: row.get(4)?,
                replayed: true,
            }))
        })
        .optional()
}

fn insert(tx: &mut WriteTx<'_>, matched: &Matched<'_>) -> Result<EventReceipt, rusqlite::Error> {
    let Matched { event, subscribers, positions } = matched;
    let deliveries = positions
        .iter()
        .map(|&position| NewDelivery::of_event(tx.next_key(), event, &subscribers[position], tx.now))
        .collect::<Vec<_>>();
    let queued = deliveries.iter().filter(|delivery| delivery.skipped.is_none()).count();
    let receipt = receipt_of(event, queued);
    insert_event(tx, event, &receipt)?;
    for delivery in &deliveries {
        delivery::insert(tx, delivery)?;
    }
    Ok(receipt)
}

/// Writes the event itself, and its `externalId`.
fn insert_event(tx: &mut WriteTx<'_>, event: &NewEvent, receipt: &EventReceipt) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached(INSERT_EVENT)?.execute(params![
        event.id.key().as_i64(),
        event.tenant.workspace.as_i64(),
        mode_code(event.tenant.mode),
        event.event_type.as_str(),
        receipt.project_id,
        receipt.external_id,
        event.occurred_at.map(Timestamp::millis),
        receipt.deliveries,
        event.envelope.as_ref(),
        event.trace.map(TraceContext::to_bytes),
    ])?;
    tx.rollups.event(event);
    let (workspace, bytes) = (event.tenant.workspace, bytes_of(event.envelope.len()));
    stored_bytes::count(tx, workspace, CountedPart::Events, event.id.key(), bytes)?;
    if let Some(external_id) = &event.external_id {
        tx.connection.prepare_cached(INSERT_PUBLISH_KEY)?.execute(params![
            event.tenant.workspace.as_i64(),
            mode_code(event.tenant.mode),
            external_id.as_str(),
            event.id.key().as_i64(),
            event.body_hash,
        ])?;
    }
    Ok(())
}
