//! Deliveries by hand: a retry of one, a test.

use rusqlite::{OptionalExtension, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{Delivery, DeliveryCause};
use postrider_domain::event::NewEvent;
use postrider_domain::id::{DeliveryId, EndpointId, RowKey};
use postrider_store::Lane;
use postrider_store::column::mode_from_code;
use postrider_store::publish::requeue::{Again, First, RequeueRefusal};

use super::column::{coded, unexpected};
use super::delivery::{self, NewDelivery};
use super::order::OrderPlacement;
use super::writer::WriteTx;
use super::{audit, endpoint, event, order};

type Requeued<T> = Result<Result<T, RequeueRefusal>, rusqlite::Error>;

/// Queues the same event for the same endpoint once more. With a test key, or for an event of one, nothing is sent.
pub fn retry(tx: &mut WriteTx<'_>, workspace_key: RowKey, id: DeliveryId, author: Author) -> Requeued<Delivery> {
    if id.tag() != tx.tag {
        return Ok(Err(RequeueRefusal::NotFound));
    }
    let found = tx
        .connection
        .prepare_cached(
            "SELECT event_key, endpoint_key, mode, cause FROM deliveries WHERE key = ?1 AND workspace_key = ?2
             AND EXISTS (SELECT 1 FROM events WHERE events.key = event_key)",
        )?
        .query_row(params![id.key().as_i64(), workspace_key.as_i64()], |row| {
            Ok(First {
                key: id.key(),
                event_key: RowKey::from_i64(row.get(0)?),
                endpoint_key: RowKey::from_i64(row.get(1)?),
                mode: coded(row, "mode", mode_from_code)?,
                cause: coded(row, "cause", DeliveryCause::from_code)?,
            })
        })
        .optional()?;
    let Some(first) = found else { return Ok(Err(RequeueRefusal::NotFound)) };
    let again = Again::retry(workspace_key, &first, author.mode);
    let queued = queue_again(tx, &again)?;
    if queued.is_ok() {
        audit::append(tx, workspace_key, author, AuditAction::DeliveryRetried, id)?;
    }
    Ok(queued)
}

/// Accepts an event for one endpoint alone, off or not.
pub fn accept_test(
    tx: &mut WriteTx<'_>,
    endpoint_id: EndpointId,
    new: &NewEvent,
    author: Author,
) -> Requeued<Delivery> {
    let Some(endpoint) = endpoint::find(tx.connection, new.workspace_key, endpoint_id)? else {
        return Ok(Err(RequeueRefusal::NotFound));
    };
    event::insert_for_one(tx, new)?;
    audit::append(tx, new.workspace_key, author, AuditAction::EndpointTested, endpoint_id)?;
    queue_again(tx, &Again::test(new, endpoint.key))
}

/// Makes a new delivery with the secret that signs now.
pub fn queue_again(tx: &mut WriteTx<'_>, again: &Again) -> Requeued<Delivery> {
    let subscribers = tx.matching.subscribers(tx.connection, again.workspace_key)?;
    let Some(subscriber) = subscribers.iter().find(|subscriber| subscriber.endpoint.key == again.endpoint_key) else {
        return Ok(Err(RequeueRefusal::EndpointDeleted));
    };
    if !again.is_sent_to(subscriber.endpoint.is_active) {
        return Ok(Err(RequeueRefusal::EndpointOff));
    }
    let blocked_place = match again.takes_place_of() {
        Some(key) => order::take_blocked_place(tx, key)?,
        None => None,
    };
    let new = NewDelivery {
        key: tx.next_key(),
        lane: Lane { kind: again.lane_kind(), ..subscriber.target.lane },
        event_key: again.event_key,
        mode: again.mode,
        cause: again.cause,
        retry_of: again.retry_of,
        skipped: None,
        standing: blocked_place.map_or(OrderPlacement::Outside, OrderPlacement::InPlaceOf),
        is_held: false,
    };
    let overlap = subscriber.also_secret_version(tx.now);
    delivery::insert(tx, &new, &subscriber.target, overlap, None)?;
    let id = DeliveryId::new(new.key, tx.tag);
    let found = delivery::find_one(tx.connection, tx.tag, again.workspace_key, id)?;
    found.map(Ok).ok_or_else(|| unexpected("deliveries.key"))
}
