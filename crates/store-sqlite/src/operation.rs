//! Tells the operator what became of endpoints and deliveries, in the transaction in which it became so: an event in the
//! operations workspace, for whatever endpoint the operator has there. What happens to that endpoint itself is not told.

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, WorkspaceId};
use postrider_domain::operational_event::{DeliveryReport, OperationalEvent};
use postrider_store::queue::operational_event::{OperationalReport, endpoint_report};
use postrider_store::{EndpointTarget, Lane};

use super::column::{broken, parsed, unexpected};
use super::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};
use super::writer::WriteTx;
use super::{event, health};

/// Tells how an endpoint does now.
pub fn report_endpoint(
    tx: &mut WriteTx<'_>,
    target: &EndpointTarget,
    what: OperationalEvent,
) -> Result<(), rusqlite::Error> {
    let Some(operations) = listener(tx, target.lane) else { return Ok(()) };
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, (SELECT id FROM workspaces WHERE key = workspace_key) AS workspace_id
         FROM endpoints WHERE key = ?1"
    );
    let found = tx
        .connection
        .prepare_cached(&sql)?
        .query_row([target.lane.endpoint_key.as_i64()], |row| {
            Ok((endpoint_from_row(row)?, parsed::<WorkspaceId>(row, "workspace_id")?))
        })
        .optional()?;
    let Some((endpoint, workspace_id)) = found else { return Ok(()) };
    let failure_streak = health::failure_streak(tx, endpoint.key)?;
    let report = endpoint_report(&endpoint, workspace_id, failure_streak);
    publish(tx, operations, what, workspace_id, endpoint.project_id.as_deref(), &report)
}

/// Tells that a delivery's schedule has come to its end.
pub fn report_exhausted(
    tx: &mut WriteTx<'_>,
    target: &EndpointTarget,
    delivery_id: DeliveryId,
    attempts: u32,
) -> Result<(), rusqlite::Error> {
    let Some(operations) = listener(tx, target.lane) else { return Ok(()) };
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

/// The workspace in which the operator is told, unless this is about that workspace itself.
fn listener(tx: &WriteTx<'_>, lane: Lane) -> Option<RowKey> {
    tx.operations.filter(|operations| *operations != lane.workspace_key)
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
    let told = OperationalReport { id, operations, what, at: tx.now, workspace_id, project_id };
    let event = told.event(report).map_err(broken)?;
    // Without an `externalId`, and for the few endpoints that an operator has, nothing refuses it.
    event::accept(tx, &[event])?.map(|_| ()).map_err(|_| unexpected("an operational event"))
}
