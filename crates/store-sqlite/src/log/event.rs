//! Reads the log of events. Events are written where they are accepted (`publish/event.rs`).

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};

use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::event::{Event, EventDetail, EventFilter, SkippedEndpoint};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};

use super::conditions::Conditions;
use crate::machinery::column::{coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;

pub fn list(
    tx: ReadTx<'_>,
    tenant: Tenant,
    filter: &EventFilter,
    page: PageRequest,
) -> Result<Page<Event>, rusqlite::Error> {
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let mut conditions = Conditions::default();
    conditions.and("e.workspace_key = ?", tenant.workspace.as_i64());
    conditions.and("e.mode = ?", mode_code(tenant.mode));
    conditions.and("e.key < ?", before.as_i64());
    if let Some(project) = tenant.project {
        conditions.and("e.project_id = ?", project.as_str().to_owned());
    }
    if let Some(since) = filter.since {
        conditions.and("e.key >= ?", RowKey::first_at(since).as_i64());
    }
    if let Some(event_type) = &filter.event_type {
        conditions.and("e.type = ?", event_type.as_str().to_owned());
    }
    if let Some(project) = &filter.project_id {
        conditions.and("e.project_id = ?", project.as_str().to_owned());
    }
    if let Some(external_id) = &filter.external_id {
        // `publish_keys` finds the event by its primary key.
        conditions.and(
            "e.key IN (SELECT event_key FROM publish_keys
                       WHERE workspace_key = ?1 AND mode = ?2 AND external_id = ?)",
            external_id.as_str().to_owned(),
        );
    }
    conditions.push(i64::from(page.limit()) + 1);
    let Conditions { text, values } = conditions;
    let sql = format!("SELECT {EVENT_COLUMNS} FROM events e WHERE {text} ORDER BY e.key DESC LIMIT ?");
    let items = tx
        .connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| event_from_row(row, tx.tag))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |event| event.id.key()))
}

pub fn find(tx: ReadTx<'_>, tenant: Tenant, id: EventId) -> Result<Option<EventDetail>, rusqlite::Error> {
    if id.tag() != tx.tag {
        return Ok(None);
    }
    let sql = format!(
        "SELECT {EVENT_COLUMNS}, e.envelope FROM events e
         WHERE e.key = ?1 AND e.workspace_key = ?2 AND e.mode = ?3 AND (?4 IS NULL OR e.project_id = ?4)"
    );
    let parameters =
        params![id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text()];
    let found = tx
        .connection
        .prepare_cached(&sql)?
        .query_row(parameters, |row| {
            Ok((event_from_row(row, tx.tag)?, Bytes::from(row.get::<_, Vec<u8>>("envelope")?)))
        })
        .optional()?;
    let Some((event, envelope)) = found else { return Ok(None) };
    Ok(Some(EventDetail { event, skipped: list_skipped(tx, tenant, id)?, envelope }))
}

/// An endpoint that matched has a delivery, even if that was skipped.
const EVENT_COLUMNS: &str = "e.key, e.mode, e.type, e.project_id, e.external_id, e.occurred_at, e.deliveries,
     (e.deliveries = 0 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_key = e.key)) AS matched_none";

fn event_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Event, rusqlite::Error> {
    Ok(Event {
        id: EventId::new(RowKey::from_i64(row.get("key")?), tag),
        event_type: EventTypeName::from_stored(row.get_ref("type")?.as_str()?),
        project_id: row.get("project_id")?,
        external_id: row.get("external_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        occurred_at: row.get::<_, Option<i64>>("occurred_at")?.map(Timestamp::from_millis),
        deliveries: row.get("deliveries")?,
        matched_none: row.get("matched_none")?,
    })
}

fn list_skipped(tx: ReadTx<'_>, tenant: Tenant, id: EventId) -> Result<Vec<SkippedEndpoint>, rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "SELECT d.key, d.reason, ep.id AS endpoint_id FROM deliveries d JOIN endpoints ep ON ep.key = d.endpoint_key
             WHERE d.event_key = ?1 AND d.status = ?2 AND d.cause = ?3 AND (?4 IS NULL OR ep.project_id = ?4)
             ORDER BY d.key",
        )?
        .query_map(
            params![
                id.key().as_i64(),
                DeliveryStatus::Skipped.code(),
                DeliveryCause::Event.code(),
                tenant.project_text()
            ],
            |row| {
                let reason: Option<i64> = row.get("reason")?;
                Ok(SkippedEndpoint {
                    endpoint_id: parsed(row, "endpoint_id")?,
                    delivery_id: DeliveryId::new(RowKey::from_i64(row.get("key")?), tx.tag),
                    reason: reason.and_then(EndReason::from_code).ok_or_else(|| unexpected("deliveries.reason"))?,
                })
            },
        )?
        .collect()
}
