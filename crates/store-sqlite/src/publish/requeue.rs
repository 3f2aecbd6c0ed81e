//! Deliveries queued by hand or by a replay: a retry, a test, a row of a replay. Each goes through [`queue`].

use rusqlite::{OptionalExtension, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{Delivery, DeliveryCause};
use postrider_domain::event::NewEvent;
use postrider_domain::id::{DeliveryId, EndpointId, RowKey};
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_store::RequeueError;
use postrider_store::column::mode_code;
use postrider_store::log::changes;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::publish::requeue::{Original, Requeue, RetriedDelivery};
use postrider_store::queue::order::OrderPlacement;

use super::event;
use crate::log::{audit, delivery};
use crate::machinery::column::{coded, unexpected};
use crate::machinery::writer::{WriteResult, WriteTx};
use crate::queue::order;
use crate::registry::endpoint;
use crate::stored_bytes;

/// Queues the event of a delivery for the same endpoint again.
pub fn retry(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: DeliveryId,
) -> WriteResult<Delivery, RequeueError> {
    let Some(original) = find_original(tx, tenant, id)? else { return Ok(Err(RequeueError::NotFound)) };
    if original.payload != PayloadState::Kept {
        return Ok(Err(RequeueError::PayloadGone));
    }
    if let Some(max) = stored_bytes::exceeded_budget(tx, tenant.workspace, 0)? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    let queued = queue(tx, &Requeue::retry(tenant, &original))?;
    if let Ok(delivery) = &queued {
        let queued = changes::delivery_retried(delivery);
        audit::append(tx, tenant.workspace, author, AuditAction::DeliveryRetried, id, &queued)?;
    }
    Ok(queued)
}

/// Queues the events of several deliveries again.
pub fn retry_all(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    ids: &[DeliveryId],
) -> WriteResult<Vec<RetriedDelivery>, RequeueError> {
    let mut results = Vec::with_capacity(ids.len());
    for &id in ids {
        match RetriedDelivery::new(id, retry(tx, tenant, author, id)?) {
            Ok(result) => results.push(result),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(results))
}

/// Accepts an event for one endpoint alone. The endpoint may be inactive.
pub fn accept_test(
    tx: &mut WriteTx<'_>,
    author: Author,
    endpoint_id: EndpointId,
    new: &NewEvent,
) -> WriteResult<Delivery, RequeueError> {
    let Some(endpoint) = endpoint::find(tx.connection, new.tenant, endpoint_id)? else {
        return Ok(Err(RequeueError::NotFound));
    };
    if let Some(max) = stored_bytes::exceeded_budget(tx, new.tenant.workspace, new.envelope.len())? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    event::insert_for_one(tx, new)?;
    let sent = changes::endpoint_tested(&new.event_type);
    audit::append(tx, new.tenant.workspace, author, AuditAction::EndpointTested, endpoint_id, &sent)?;
    queue(tx, &Requeue::test(new, endpoint.key))
}

/// Creates the new delivery, signed with the secret that signs now.
pub fn queue(tx: &mut WriteTx<'_>, requeue: &Requeue) -> WriteResult<Delivery, RequeueError> {
    let subscribers = tx.matching.subscribers(tx.connection, requeue.tenant)?;
    let found = subscribers.iter().find(|subscriber| subscriber.endpoint.key == requeue.endpoint_key);
    let subscriber = match requeue.receiver(found) {
        Ok(subscriber) => subscriber,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let blocked_position = match requeue.takes_place_of() {
        Some(key) => order::take_blocked_position(tx, key)?,
        None => None,
    };
    let new = NewDelivery {
        placement: blocked_position.map_or(OrderPlacement::Outside, OrderPlacement::InPlaceOf),
        ..NewDelivery::of_requeue(tx.next_key(), requeue, subscriber, tx.now)
    };
    delivery::insert(tx, &new)?;
    let found = delivery::find_one(tx.as_read(), requeue.tenant, DeliveryId::new(new.key, tx.tag))?;
    found.map(Ok).ok_or_else(|| unexpected("deliveries.key"))
}

/// The delivery to retry. `None` if the tenant has no such delivery, or its event is gone.
fn find_original(tx: &WriteTx<'_>, tenant: Tenant, id: DeliveryId) -> Result<Option<Original>, rusqlite::Error> {
    if id.tag() != tx.tag {
        return Ok(None);
    }
    let parameters =
        params![id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text()];
    tx.connection
        .prepare_cached(
            "SELECT d.event_key, d.endpoint_key, d.cause, e.payload FROM deliveries d JOIN events e ON e.key = d.event_key
             WHERE d.key = ?1 AND d.workspace_key = ?2 AND d.mode = ?3 AND (?4 IS NULL OR e.project_id = ?4)
             AND (?4 IS NULL OR EXISTS (SELECT 1 FROM endpoints WHERE key = d.endpoint_key AND project_id = ?4))",
        )?
        .query_row(parameters, |row| {
            Ok(Original {
                key: id.key(),
                event_key: RowKey::from_i64(row.get(0)?),
                endpoint_key: RowKey::from_i64(row.get(1)?),
                cause: coded(row, "cause", DeliveryCause::from_code)?,
                payload: coded(row, "payload", PayloadState::from_code)?,
            })
        })
        .optional()
}
