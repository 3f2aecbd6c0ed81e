//! Operational events: reports to the operator about endpoints, deliveries and the disk, published in the operations
//! workspace. One about an endpoint or a delivery is written in the transaction of the change that it reports. A change
//! in that workspace itself is not reported.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, WorkspaceId};
use postrider_domain::operational_event::{DeliveryReport, DiskReport, OperationalEvent};
use postrider_store::EndpointTarget;
use postrider_store::queue::operational_event::{OperationalReport, endpoint_report};

use super::endpoint_health;
use crate::machinery::column::{broken, parsed, unexpected};
use crate::machinery::writer::WriteTx;
use crate::publish::event;
use crate::registry::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};

/// Reports the state of an endpoint.
pub fn report_endpoint(
    tx: &mut WriteTx<'_>,
    target: &EndpointTarget,
    what: OperationalEvent,
) -> Result<(), rusqlite::Error> {
    let Some(operations) = operations_workspace(tx, target) else { return Ok(()) };
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, (SELECT id FROM workspaces WHERE key = workspace_key) AS workspace_id
         FROM endpoints WHERE key = ?1"
    );
    let found = tx
        .connection
        .prepare_cached(&sql)?
        .query_row([target.endpoint_key.as_i64()], |row| {
            Ok((endpoint_from_row(row)?, parsed::<WorkspaceId>(row, "workspace_id")?))
        })
        .optional()?;
    let Some((endpoint, workspace_id)) = found else { return Ok(()) };
    let failures = endpoint_health::find(tx, endpoint.key)?;
    let report = endpoint_report(&endpoint, workspace_id, failures);
    publish(tx, operations, what, workspace_id, endpoint.project_id.as_deref(), &report)
}

/// Reports that a delivery's schedule has ended.
pub fn report_exhausted(
    tx: &mut WriteTx<'_>,
    target: &EndpointTarget,
    delivery_id: DeliveryId,
    attempts: u32,
) -> Result<(), rusqlite::Error> {
    let Some(operations) = operations_workspace(tx, target) else { return Ok(()) };
    let found = tx
        .connection
        .prepare_cached(
            "SELECT event_key, type, project_id, workspaces.id FROM deliveries
             JOIN events ON events.key = event_key JOIN workspaces ON workspaces.key = deliveries.workspace_key
             WHERE deliveries.key = ?1",
        )?
        .query_row(params![delivery_id.key().as_i64()], |row| {
            let event_type = EventTypeName::from_stored(row.get_ref(1)?.as_str()?);
            Ok((RowKey::from_i64(row.get(0)?), event_type, row.get::<_, Option<String>>(2)?, parsed(row, "id")?))
        })
        .optional()?;
    let Some((event_key, event_type, project_id, workspace_id)) = found else { return Ok(()) };
    let report = DeliveryReport {
        delivery_id,
        event_id: EventId::new(event_key, tx.tag),
        event_type: &event_type,
        endpoint_id: target.id,
        workspace_id,
        project_id: project_id.as_deref(),
        status: DeliveryStatus::Failed.as_str(),
        attempts,
    };
    publish(tx, operations, OperationalEvent::DeliveryExhausted, workspace_id, project_id.as_deref(), &report)
}

/// Reports that the disk has got fuller, or has room again.
pub fn report_disk(tx: &mut WriteTx<'_>, report: DiskReport) -> Result<(), rusqlite::Error> {
    let Some(operations) = tx.operations else { return Ok(()) };
    let workspace_id = tx
        .connection
        .prepare_cached("SELECT id FROM workspaces WHERE key = ?1")?
        .query_row([operations.as_i64()], |row| parsed(row, "id"))?;
    publish(tx, operations, OperationalEvent::DiskState, workspace_id, None, &report)
}

/// The workspace that receives the report. `None` if there is none, or if the endpoint is in that workspace itself.
fn operations_workspace(tx: &WriteTx<'_>, target: &EndpointTarget) -> Option<RowKey> {
    tx.operations.filter(|operations| *operations != target.workspace_key)
}

fn publish(
    tx: &mut WriteTx<'_>,
    operations: RowKey,
    what: OperationalEvent,
    workspace_id: WorkspaceId,
    project_id: Option<&str>,
    report: &impl Serialize,
) -> Result<(), rusqlite::Error> {
    let id = EventId::new(tx.next_key(), tx.tag);
    let frame = OperationalReport { id, operations, what, at: tx.now, workspace_id, project_id };
    let event = frame.event(report).map_err(broken)?;
    // Nothing refuses this event: it has no `externalId`, and the operator has few endpoints.
    event::accept(tx, &[event])?.map(drop).map_err(|_| unexpected("an operational event"))
}
