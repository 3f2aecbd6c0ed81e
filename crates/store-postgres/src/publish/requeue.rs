//! Deliveries queued by hand: the retry of a delivery, and a test. This file writes no table itself.

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

use super::{event, matching};
use crate::log::{audit, delivery};
use crate::machinery::column::{coded, key, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;
use crate::queue::lane::LaneBounds;
use crate::queue::{enqueue, order};
use crate::registry::endpoint;
use crate::stored_bytes;

/// Queues the event of a delivery for the same endpoint again.
pub async fn retry(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    id: DeliveryId,
) -> Result<Result<Delivery, RequeueError>, PgError> {
    if id.tag() != tx.tag {
        return Ok(Err(RequeueError::NotFound));
    }
    let Some(original) = find_original(tx, tenant, id.key()).await? else { return Ok(Err(RequeueError::NotFound)) };
    if original.payload != PayloadState::Kept {
        return Ok(Err(RequeueError::PayloadGone));
    }
    if let Some(max) = stored_bytes::exceeded_budget(tx, tenant.workspace, 0).await? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    let queued = queue(tx, &Requeue::retry(tenant, &original)).await?;
    if let Ok(delivery) = &queued {
        let queued = changes::delivery_retried(delivery);
        audit::append(tx, tenant.workspace, author, AuditAction::DeliveryRetried, id, &queued).await?;
    }
    Ok(queued)
}

/// Queues the events of several deliveries again.
pub async fn retry_all(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    ids: &[DeliveryId],
) -> Result<Result<Vec<RetriedDelivery>, RequeueError>, PgError> {
    let mut results = Vec::with_capacity(ids.len());
    for &id in ids {
        match RetriedDelivery::new(id, retry(tx, tenant, author, id).await?) {
            Ok(result) => results.push(result),
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(results))
}

/// A delivery whose event still exists.
async fn find_original(tx: &WriteTx, tenant: Tenant, delivery_key: RowKey) -> Result<Option<Original>, PgError> {
    let found = tx
        .query_opt(
            "SELECT d.event_key, d.endpoint_key, d.cause, e.payload FROM deliveries d JOIN events e ON e.key = d.event_key
             WHERE d.key = $1 AND d.workspace_key = $2 AND d.mode = $3 AND ($4 IS NULL OR e.project_id = $4)
             AND ($4 IS NULL OR EXISTS (SELECT 1 FROM endpoints WHERE key = d.endpoint_key AND project_id = $4))",
            &[&delivery_key.as_i64(), &tenant.workspace.as_i64(), &mode_code(tenant.mode), &tenant.project_text()],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(Original {
        key: delivery_key,
        event_key: key(&row, "event_key")?,
        endpoint_key: key(&row, "endpoint_key")?,
        cause: coded(&row, "cause", DeliveryCause::from_code)?,
        payload: coded(&row, "payload", PayloadState::from_code)?,
    }))
}

/// Accepts an event for one endpoint alone, active or not.
pub async fn accept_test(
    tx: &mut WriteTx,
    author: Author,
    endpoint_id: EndpointId,
    new: &NewEvent,
) -> Result<Result<Delivery, RequeueError>, PgError> {
    tx.share_workspaces([new.tenant.workspace]).await?;
    let Some(endpoint) = endpoint::find(tx, new.tenant, endpoint_id).await? else {
        return Ok(Err(RequeueError::NotFound));
    };
    if let Some(max) = stored_bytes::exceeded_budget(tx, new.tenant.workspace, new.envelope.len()).await? {
        return Ok(Err(RequeueError::WorkspaceFull { max }));
    }
    event::insert_for_one(tx, new).await?;
    let sent = changes::endpoint_tested(&new.event_type);
    audit::append(tx, new.tenant.workspace, author, AuditAction::EndpointTested, endpoint_id, &sent).await?;
    queue(tx, &Requeue::test(new, endpoint.key)).await
}

async fn queue(tx: &mut WriteTx, requeue: &Requeue) -> Result<Result<Delivery, RequeueError>, PgError> {
    let workspace = requeue.tenant.workspace;
    tx.share_workspaces([workspace]).await?;
    let subscribers = matching::subscribers(tx, workspace).await?;
    let subscriber = match requeue.receiver(subscribers.get(requeue.endpoint_key)) {
        Ok(subscriber) => subscriber,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let blocked_position = match requeue.takes_place_of() {
        Some(key) => order::take_blocked_position(tx, key).await?,
        None => None,
    };
    let placement = blocked_position.map_or(OrderPlacement::Outside, OrderPlacement::InPlaceOf);
    let new = NewDelivery { placement, ..NewDelivery::of_requeue(tx.next_key(), requeue, subscriber, tx.now) };
    let id = DeliveryId::new(new.key, tx.tag);
    enqueue::insert(tx, vec![new], LaneBounds::new()).await?;
    let found = delivery::find_one(tx, tx.tag, requeue.tenant, id).await?;
    found.map(Ok).ok_or_else(|| unexpected("deliveries.key"))
}
