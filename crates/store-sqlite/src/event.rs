//! Accepting events: the event, its deliveries and their place in the queue, in one transaction.

use std::collections::HashMap;

use rusqlite::{OptionalExtension, params};

use postrider_domain::delivery::{DeliveryCause, EndReason};
use postrider_domain::endpoint::DisabledReason;
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EventId, RowKey};
use postrider_domain::limits;

use super::delivery::{self, NewDelivery};
use super::order::{self, OrderPlacement};
use super::writer::WriteTx;
use postrider_store::column::mode_code;
use postrider_store::publish::matching::Subscriber;

/// Why nothing was accepted.
pub enum AcceptRefusal {
    ExternalIdReused { index: usize },
    TooManyDeliveries { count: usize },
}

pub fn accept(
    tx: &mut WriteTx<'_>,
    events: &[NewEvent],
) -> Result<Result<Vec<EventReceipt>, AcceptRefusal>, rusqlite::Error> {
    let mut seen = HashMap::new();
    for (index, event) in events.iter().enumerate() {
        match find_published(tx, event)? {
            Some(Published::Same(receipt)) => {
                seen.insert(index, receipt);
            }
            Some(Published::Other) => return Ok(Err(AcceptRefusal::ExternalIdReused { index })),
            None => {}
        }
    }
    let mut matches = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        if !seen.contains_key(&index) {
            let subscribers = tx.matching.subscribers(tx.connection, event.workspace_key)?;
            let project = event.project_id.as_ref().map(|project| project.as_str());
            let matching = (0..subscribers.len())
                .filter(|&position| subscribers[position].endpoint.matches(&event.event_type, project))
                .collect::<Vec<_>>();
            matches.push((event, subscribers, matching));
        }
    }
    let count = matches.iter().map(|(_, _, matching)| matching.len()).sum();
    if count > limits::DELIVERIES_PER_REQUEST {
        return Ok(Err(AcceptRefusal::TooManyDeliveries { count }));
    }
    let mut written = matches.into_iter();
    let mut receipts = Vec::with_capacity(events.len());
    for index in 0..events.len() {
        if let Some(receipt) = seen.remove(&index) {
            receipts.push(receipt);
        } else if let Some((event, subscribers, matching)) = written.next() {
            let matching = matching.into_iter().map(|position| &subscribers[position]);
            receipts.push(insert(tx, event, matching)?);
        }
    }
    Ok(Ok(receipts))
}

enum Published {
    Same(EventReceipt),
    Other,
}

/// What an `externalId` was used for before.
fn find_published(tx: &WriteTx<'_>, event: &NewEvent) -> Result<Option<Published>, rusqlite::Error> {
    let Some(external_id) = &event.external_id else { return Ok(None) };
    tx.connection
        .prepare_cached(
            "SELECT body_hash, event_key, type, project_id, deliveries
             FROM publish_keys JOIN events ON events.key = event_key
             WHERE publish_keys.workspace_key = ?1 AND publish_keys.mode = ?2 AND publish_keys.external_id = ?3",
        )?
        .query_row(params![event.workspace_key.as_i64(), mode_code(event.mode), external_id.as_str()], |row| {
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

fn insert<'s>(
    tx: &mut WriteTx<'_>,
    event: &NewEvent,
    matching: impl Iterator<Item = &'s Subscriber> + Clone,
) -> Result<EventReceipt, rusqlite::Error> {
    let queued = matching.clone().filter(|subscriber| is_queued(event, subscriber)).count();
    let receipt = receipt_of(event, queued);
    insert_event(tx, event, &receipt)?;
    for subscriber in matching {
        insert_delivery(tx, event, subscriber)?;
    }
    Ok(receipt)
}

/// Writes an event whose one delivery is made by whoever calls.
pub fn insert_for_one(tx: &WriteTx<'_>, event: &NewEvent) -> Result<(), rusqlite::Error> {
    insert_event(tx, event, &receipt_of(event, 1))
}

fn receipt_of(event: &NewEvent, deliveries: usize) -> EventReceipt {
    EventReceipt {
        id: event.id,
        external_id: event.external_id.as_ref().map(|id| id.as_str().to_owned()),
        event_type: event.event_type.clone(),
        project_id: event.project_id.as_ref().map(|id| id.as_str().to_owned()),
        deliveries: u32::try_from(deliveries).unwrap_or(u32::MAX),
        replayed: false,
    }
}

/// Writes the event itself, and its `externalId`.
fn insert_event(tx: &WriteTx<'_>, event: &NewEvent, receipt: &EventReceipt) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO events (key, workspace_key, mode, type, project_id, external_id, occurred_at, deliveries, envelope)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )?
        .execute(params![
            event.id.key().as_i64(),
            event.workspace_key.as_i64(),
            mode_code(event.mode),
            event.event_type.as_str(),
            receipt.project_id,
            receipt.external_id,
            event.occurred_at.map(postrider_domain::time::Timestamp::millis),
            receipt.deliveries,
            event.envelope.as_ref(),
        ])?;
    if let Some(external_id) = &event.external_id {
        tx.connection
            .prepare_cached(
                "INSERT OR REPLACE INTO publish_keys (workspace_key, mode, external_id, event_key, body_hash)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                event.workspace_key.as_i64(),
                mode_code(event.mode),
                external_id.as_str(),
                event.id.key().as_i64(),
                event.body_hash,
            ])?;
    }
    Ok(())
}

/// In strict order an event waits for an endpoint that is off: were it skipped, the order would have a hole.
fn is_queued(event: &NewEvent, subscriber: &Subscriber) -> bool {
    subscriber.endpoint.is_active || order::is_ordered(&subscriber.target.options, event.mode)
}

fn insert_delivery(tx: &mut WriteTx<'_>, event: &NewEvent, subscriber: &Subscriber) -> Result<(), rusqlite::Error> {
    let skipped = (!is_queued(event, subscriber)).then_some(match subscriber.endpoint.disabled_reason {
        None => EndReason::Inactive,
        Some(DisabledReason::Gone) => EndReason::DisabledGone,
        Some(DisabledReason::Failing) => EndReason::DisabledFailing,
        Some(DisabledReason::SsrfBlocked) => EndReason::DisabledSsrfBlocked,
    });
    let new = NewDelivery {
        key: tx.next_key(),
        lane: subscriber.target.lane,
        event_key: event.id.key(),
        mode: event.mode,
        cause: DeliveryCause::Event,
        retry_of: None,
        skipped,
        standing: match order::is_ordered(&subscriber.target.options, event.mode) {
            true => OrderPlacement::Last,
            false => OrderPlacement::Outside,
        },
        is_held: !subscriber.endpoint.is_active,
    };
    let overlap = subscriber.also_secret_version(tx.now);
    delivery::insert(tx, &new, &subscriber.target, overlap, Some(&event.envelope))
}
