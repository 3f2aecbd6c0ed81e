//! Deliveries by hand: a retry of one, a test.

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::delivery::{Delivery, DeliveryCause};
use postrider_domain::event::NewEvent;
use postrider_domain::id::{DeliveryId, EndpointId, RowKey};
use postrider_store::column::mode_from_code;
use postrider_store::publish::matching::Subscriber;
use postrider_store::publish::requeue::{Again, First, RequeueRefusal};
use postrider_store::{Lane, RequeueError};

use super::column::{coded, key, unexpected};
use super::enqueue::{self, NewDelivery};
use super::fault::PgError;
use super::lane::Bounds;
use super::order::OrderPlacement;
use super::transaction::WriteTx;
use super::{audit, delivery, endpoint, event, matching, order};

/// Queues the same event for the same endpoint once more. With a test key, or for an event of one, nothing is sent.
pub async fn retry(
    tx: &mut WriteTx,
    workspace_key: RowKey,
    id: DeliveryId,
    author: Author,
) -> Result<Result<Delivery, RequeueError>, PgError> {
    if id.tag() != tx.tag {
        return Ok(Err(RequeueError::NotFound));
    }
    let Some(first) = find_first(tx, workspace_key, id.key()).await? else { return Ok(Err(RequeueError::NotFound)) };
    let queued = queue_again(tx, &Again::retry(workspace_key, &first, author.mode)).await?;
    if queued.is_ok() {
        audit::append(tx, workspace_key, author, AuditAction::DeliveryRetried, id).await?;
    }
    Ok(queued)
}

/// A delivery whose event is still there.
async fn find_first(tx: &WriteTx, workspace_key: RowKey, delivery_key: RowKey) -> Result<Option<First>, PgError> {
    let found = tx
        .query_opt(
            "SELECT event_key, endpoint_key, mode, cause FROM deliveries WHERE key = $1 AND workspace_key = $2
             AND EXISTS (SELECT 1 FROM events WHERE events.key = event_key)",
            &[&delivery_key.as_i64(), &workspace_key.as_i64()],
        )
        .await?;
    let Some(row) = found else { return Ok(None) };
    Ok(Some(First {
        key: delivery_key,
        event_key: key(&row, "event_key")?,
        endpoint_key: key(&row, "endpoint_key")?,
        mode: coded(&row, "mode", mode_from_code)?,
        cause: coded(&row, "cause", DeliveryCause::from_code)?,
    }))
}

/// Accepts an event for one endpoint alone, off or not.
pub async fn accept_test(
    tx: &mut WriteTx,
    endpoint_id: EndpointId,
    new: &NewEvent,
    author: Author,
) -> Result<Result<Delivery, RequeueError>, PgError> {
    tx.share_workspaces([new.workspace_key]).await?;
    let Some(endpoint) = endpoint::find(tx, new.workspace_key, endpoint_id).await? else {
        return Ok(Err(RequeueError::NotFound));
    };
    event::insert_for_one(tx, new).await?;
    audit::append(tx, new.workspace_key, author, AuditAction::EndpointTested, endpoint_id).await?;
    queue_again(tx, &Again::test(new, endpoint.key)).await
}

/// Makes a new delivery with the secret that signs now.
async fn queue_again(tx: &mut WriteTx, again: &Again) -> Result<Result<Delivery, RequeueError>, PgError> {
    tx.share_workspaces([again.workspace_key]).await?;
    let subscribers = matching::subscribers(tx, again.workspace_key).await?;
    let subscriber = match receiver(subscribers.get(again.endpoint_key), again) {
        Ok(subscriber) => subscriber,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    let blocked_place = match again.takes_place_of() {
        Some(key) => order::take_blocked_place(tx, key).await?,
        None => None,
    };
    let standing = blocked_place.map_or(OrderPlacement::Outside, OrderPlacement::InPlaceOf);
    let new = NewDelivery { standing, ..new_delivery(tx, again, subscriber) };
    let id = DeliveryId::new(new.key, tx.tag);
    enqueue::insert(tx, vec![new], Bounds::new()).await?;
    let found = delivery::find_one(tx, tx.tag, again.workspace_key, id).await?;
    found.map(Ok).ok_or_else(|| unexpected("deliveries.key"))
}

/// The endpoint, if it is to get this.
pub fn receiver<'s>(subscriber: Option<&'s Subscriber>, again: &Again) -> Result<&'s Subscriber, RequeueRefusal> {
    let subscriber = subscriber.ok_or(RequeueRefusal::EndpointDeleted)?;
    if again.is_sent_to(subscriber.endpoint.is_active) { Ok(subscriber) } else { Err(RequeueRefusal::EndpointOff) }
}

/// A delivery outside of any order, signed as what is queued now.
pub fn new_delivery(tx: &WriteTx, again: &Again, subscriber: &Subscriber) -> NewDelivery {
    NewDelivery {
        key: tx.next_key(),
        lane: Lane { kind: again.lane_kind(), ..subscriber.target.lane },
        event_key: again.event_key,
        mode: again.mode,
        cause: again.cause,
        retry_of: again.retry_of,
        skipped: None,
        standing: OrderPlacement::Outside,
        is_held: false,
        target: subscriber.target.clone(),
        also_secret_version: subscriber.also_secret_version(tx.now),
        payload: None,
    }
}
