//! Tells the operator what became of endpoints and deliveries, in the transaction in which it became so: an event in the
//! operations workspace, for whatever endpoint the operator has there. What happens to that endpoint itself is not told.

use serde::Serialize;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, WorkspaceId};
use postrider_domain::operational_event::{DeliveryReport, OperationalEvent};
use postrider_store::queue::operational_event::{OperationalReport, endpoint_report};
use postrider_store::{EndpointTarget, Lane};

use super::column::{get, key, parsed};
use super::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};
use super::fault::PgError;
use super::transaction::WriteTx;
use super::{event, health};

/// Tells how an endpoint does now.
pub async fn report_endpoint(tx: &mut WriteTx, target: &EndpointTarget, what: OperationalEvent) -> Result<(), PgError> {
    let Some(operations) = listener(tx, target.lane) else { return Ok(()) };
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, (SELECT id FROM workspaces WHERE key = workspace_key) AS workspace_id
         FROM endpoints WHERE key = $1"
    );
    let Some(row) = tx.query_opt(&sql, &[&target.lane.endpoint_key.as_i64()]).await? else { return Ok(()) };
    let (endpoint, workspace_id) = (endpoint_from_row(&row)?, parsed(&row, "workspace_id")?);
    let failure_streak = health::failure_streak(tx, endpoint.key).await?;
    let report = endpoint_report(&endpoint, workspace_id, failure_streak);
    publish(tx, operations, what, workspace_id, endpoint.project_id.as_deref(), &report).await
}

/// Tells that a delivery's schedule has come to its end.
pub async fn report_exhausted(
    tx: &mut WriteTx,
    target: &EndpointTarget,
    delivery_id: DeliveryId,
    attempts: u32,
) -> Result<(), PgError> {
    let Some(operations) = listener(tx, target.lane) else { return Ok(()) };
    let found = tx
        .query_opt(
            "SELECT event_key, type, project_id, workspaces.id AS workspace_id FROM deliveries
             JOIN events ON events.key = event_key JOIN workspaces ON workspaces.key = deliveries.workspace_key
             WHERE deliveries.key = $1",
            &[&delivery_id.key().as_i64()],
        )
        .await?;
    let Some(row) = found else { return Ok(()) };
    let workspace_id = parsed(&row, "workspace_id")?;
    let project_id: Option<&str> = get(&row, "project_id")?;
    let report = DeliveryReport {
        delivery_id,
        event_id: EventId::new(key(&row, "event_key")?, tx.tag),
        event_type: &EventTypeName::from_stored(get(&row, "type")?),
        endpoint_id: target.id,
        workspace_id,
        project_id,
        status: DeliveryStatus::Failed.as_str(),
        attempts,
    };
    publish(tx, operations, OperationalEvent::DeliveryExhausted, workspace_id, project_id, &report).await
}

/// The workspace in which the operator is told, unless this is about that workspace itself.
fn listener(tx: &WriteTx, lane: Lane) -> Option<RowKey> {
    tx.shared.operations.get().copied().filter(|operations| *operations != lane.workspace_key)
}

async fn publish(
    tx: &mut WriteTx,
    operations: RowKey,
    what: OperationalEvent,
    workspace_id: WorkspaceId,
    project_id: Option<&str>,
    report: &(impl Serialize + Sync),
) -> Result<(), PgError> {
    let id = EventId::new(tx.next_key(), tx.tag);
    let told = OperationalReport { id, operations, what, at: tx.now, workspace_id, project_id };
    let event = told.event(report)?;
    // Without an `externalId`, and for the few endpoints that an operator has, nothing refuses it.
    event::accept_one(tx, event).await
}
