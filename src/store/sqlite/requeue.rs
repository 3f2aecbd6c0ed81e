//! Deliveries by hand: a retry of one, a test.

use rusqlite::{OptionalExtension, params};

use crate::domain::access::Mode;
use crate::domain::audit::{AuditAction, Author};
use crate::domain::delivery::{Delivery, DeliveryCause};
use crate::domain::event::NewEvent;
use crate::domain::id::{DeliveryId, EndpointId, RowKey};
use crate::store::{Lane, LaneKind, RequeueError};

use super::column::{coded, unexpected};
use super::delivery::{self, NewDelivery};
use super::order::Standing;
use super::writer::WriteTx;
use super::{audit, endpoint, event, order};
use crate::store::shared::column::mode_from_code;

/// Why nothing was queued.
pub enum RequeueRefusal {
    NotFound,
    EndpointDeleted,
    EndpointOff,
}

impl From<RequeueRefusal> for RequeueError {
    fn from(refusal: RequeueRefusal) -> Self {
        match refusal {
            RequeueRefusal::NotFound => Self::NotFound,
            RequeueRefusal::EndpointDeleted => Self::EndpointDeleted,
            RequeueRefusal::EndpointOff => Self::EndpointOff,
        }
    }
}

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
            let (event_key, endpoint_key) = (RowKey::from_i64(row.get(0)?), RowKey::from_i64(row.get(1)?));
            let cause = coded(row, "cause", DeliveryCause::from_code)?;
            Ok((event_key, endpoint_key, coded(row, "mode", mode_from_code)?, cause))
        })
        .optional()?;
    let Some((event_key, endpoint_key, first_mode, first_cause)) = found else {
        return Ok(Err(RequeueRefusal::NotFound));
    };
    let again = Again {
        workspace_key,
        endpoint_key,
        event_key,
        mode: if first_mode == Mode::Test { Mode::Test } else { author.mode },
        // An example must not arrive as if it had happened: a test stays marked as one.
        cause: if first_cause == DeliveryCause::Test { DeliveryCause::Test } else { DeliveryCause::Retry },
        retry_of: Some(id.key()),
    };
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
    let again = Again {
        workspace_key: new.workspace_key,
        endpoint_key: endpoint.key,
        event_key: new.id.key(),
        mode: new.mode,
        cause: DeliveryCause::Test,
        retry_of: None,
    };
    queue_again(tx, &again)
}

/// An event that is there already, for an endpoint that is there already.
pub struct Again {
    pub workspace_key: RowKey,
    pub endpoint_key: RowKey,
    pub event_key: RowKey,
    pub mode: Mode,
    pub cause: DeliveryCause,
    pub retry_of: Option<RowKey>,
}

/// Makes a new delivery with the secret that signs now.
pub fn queue_again(tx: &mut WriteTx<'_>, again: &Again) -> Requeued<Delivery> {
    let is_test = again.cause == DeliveryCause::Test;
    let subscribers = tx.matching.subscribers(tx.connection, again.workspace_key)?;
    let Some(subscriber) = subscribers.iter().find(|subscriber| subscriber.endpoint.key == again.endpoint_key) else {
        return Ok(Err(RequeueRefusal::EndpointDeleted));
    };
    if !subscriber.endpoint.is_active && !is_test {
        return Ok(Err(RequeueRefusal::EndpointOff));
    }
    // A retry of the delivery at which the order has stopped goes on from its place. One that sends nothing does not.
    let blocked_place = match again.retry_of {
        Some(key) if again.cause == DeliveryCause::Retry && again.mode == Mode::Live => {
            order::take_blocked_place(tx, key)?
        }
        _ => None,
    };
    let kind = if is_test { LaneKind::Tests } else { LaneKind::Events };
    let new = NewDelivery {
        key: tx.next_key(),
        lane: Lane { kind, ..subscriber.target.lane },
        event_key: again.event_key,
        mode: again.mode,
        cause: again.cause,
        retry_of: again.retry_of,
        skipped: None,
        standing: blocked_place.map_or(Standing::Outside, Standing::InPlaceOf),
        is_held: false,
    };
    let overlap = subscriber.also_secret_version(tx.now);
    delivery::insert(tx, &new, &subscriber.target, overlap, None)?;
    let id = DeliveryId::new(new.key, tx.tag);
    let found = delivery::find_one(tx.connection, tx.tag, again.workspace_key, id)?;
    found.map(Ok).ok_or_else(|| unexpected("deliveries.key"))
}
