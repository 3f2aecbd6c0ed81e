//! Reports to the operator about endpoints, deliveries and the disk: events of the operations workspace, written in the
//! transaction of the change that they report. Changes in the operations workspace itself are not reported. This file
//! writes no table itself.

use serde::Serialize;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey};
use postrider_domain::operational_event::{DeliveryReport, DiskReport, OperationalEvent};
use postrider_store::EndpointTarget;
use postrider_store::queue::operational_event::{OperationalReport, endpoint_report};

use super::endpoint_health;
use crate::machinery::column::{get, key, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;
use crate::publish::event;
use crate::registry::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};

/// Reports the current state of an endpoint.
pub async fn report_endpoint(tx: &mut WriteTx, target: &EndpointTarget, what: OperationalEvent) -> Result<(), PgError> {
    let Some(operations) = operations_workspace(tx, target) else { return Ok(()) };
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, (SELECT id FROM workspaces WHERE key = workspace_key) AS workspace_id
         FROM endpoints WHERE key = $1"
    );
    let Some(row) = tx.query_opt(&sql, &[&target.endpoint_key.as_i64()]).await? else { return Ok(()) };
    let (endpoint, workspace_id) = (endpoint_from_row(&row)?, parsed(&row, "workspace_id")?);
    let streak = endpoint_health::find(tx, endpoint.key).await?;
    let report = endpoint_report(&endpoint, workspace_id, streak);
    let (id, project_id) = (EventId::new(tx.next_key(), tx.tag), endpoint.project_id.as_deref());
    let frame = OperationalReport { id, operations, what, at: tx.now, workspace_id, project_id };
    publish(tx, frame, &report).await
}

/// Reports that a delivery's schedule has ended.
pub async fn report_exhausted(
    tx: &mut WriteTx,
    target: &EndpointTarget,
    delivery_id: DeliveryId,
    attempts: u32,
) -> Result<(), PgError> {
    let Some(operations) = operations_workspace(tx, target) else { return Ok(()) };
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
    let (id, what) = (EventId::new(tx.next_key(), tx.tag), OperationalEvent::DeliveryExhausted);
    let frame = OperationalReport { id, operations, what, at: tx.now, workspace_id, project_id };
    publish(tx, frame, &report).await
}

/// Reports that the disk has got fuller, or has room again.
pub async fn report_disk(tx: &mut WriteTx, report: DiskReport) -> Result<(), PgError> {
    let Some(operations) = tx.database.operations.get().copied() else { return Ok(()) };
    let row = tx.query_one("SELECT id FROM workspaces WHERE key = $1", &[&operations.as_i64()]).await?;
    let (id, what, workspace_id) =
        (EventId::new(tx.next_key(), tx.tag), OperationalEvent::DiskState, parsed(&row, "id")?);
    let frame = OperationalReport { id, operations, what, at: tx.now, workspace_id, project_id: None };
    publish(tx, frame, &report).await
}

/// The workspace that receives reports. `None` when reports are not enabled, or when the endpoint is in that workspace
/// itself.
fn operations_workspace(tx: &WriteTx, target: &EndpointTarget) -> Option<RowKey> {
    tx.database.operations.get().copied().filter(|operations| *operations != target.workspace_key)
}

async fn publish(
    tx: &mut WriteTx,
    frame: OperationalReport<'_>,
    report: &(impl Serialize + Sync),
) -> Result<(), PgError> {
    let event = frame.event(report)?;
    // Cannot be refused: it has no `externalId`, and an operator has few endpoints.
    event::accept_one(tx, event).await
}
