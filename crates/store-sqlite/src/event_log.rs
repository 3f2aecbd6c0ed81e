//! The log of events: what was accepted, and what became of it endpoint by endpoint.

use std::fmt::Write as _;

use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::event::{Event, EventDetail, EventFilter, SkippedEndpoint};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::time::Timestamp;

use super::column::{coded, parsed, unexpected};
use postrider_store::column::mode_from_code;

/// Whatever matched has a delivery, if only one that was skipped.
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

pub fn list(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    filter: &EventFilter,
    page: PageRequest,
) -> Result<Page<Event>, rusqlite::Error> {
    let mut sql = format!("SELECT {EVENT_COLUMNS} FROM events e WHERE e.workspace_key = ? AND e.key < ?");
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let mut values: Vec<Box<dyn ToSql>> = vec![Box::new(workspace_key.as_i64()), Box::new(before.as_i64())];
    let mut and = |condition: &str, value: Box<dyn ToSql>| {
        let _ = write!(sql, " AND {condition}");
        values.push(value);
    };
    if let Some(since) = filter.since {
        and("e.key >= ?", Box::new(RowKey::first_at(since).as_i64()));
    }
    if let Some(event_type) = &filter.event_type {
        and("e.type = ?", Box::new(event_type.as_str().to_owned()));
    }
    if let Some(project) = &filter.project_id {
        and("e.project_id = ?", Box::new(project.as_str().to_owned()));
    }
    if let Some(external_id) = &filter.external_id {
        // The dedupe table leads to it at once, in either mode.
        and(
            "e.key IN (SELECT event_key FROM publish_keys
                       WHERE workspace_key = ?1 AND mode IN (0, 1) AND external_id = ?)",
            Box::new(external_id.as_str().to_owned()),
        );
    }
    sql.push_str(" ORDER BY e.key DESC LIMIT ?");
    values.push(Box::new(i64::from(page.limit()) + 1));
    let items = connection
        .prepare_cached(&sql)?
        .query_map(rusqlite::params_from_iter(values), |row| event_from_row(row, tag))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |event| event.id.key()))
}

pub fn find(
    connection: &Connection,
    tag: StoreTag,
    workspace_key: RowKey,
    id: EventId,
) -> Result<Option<EventDetail>, rusqlite::Error> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!("SELECT {EVENT_COLUMNS}, e.envelope FROM events e WHERE e.key = ?1 AND e.workspace_key = ?2");
    let found = connection
        .prepare_cached(&sql)?
        .query_row(params![id.key().as_i64(), workspace_key.as_i64()], |row| {
            Ok((event_from_row(row, tag)?, Bytes::from(row.get::<_, Vec<u8>>("envelope")?)))
        })
        .optional()?;
    let Some((event, envelope)) = found else { return Ok(None) };
    let skipped = skipped(connection, tag, id)?;
    Ok(Some(EventDetail { event, skipped, envelope }))
}

fn skipped(connection: &Connection, tag: StoreTag, id: EventId) -> Result<Vec<SkippedEndpoint>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT d.key, d.reason, ep.id AS endpoint_id FROM deliveries d JOIN endpoints ep ON ep.key = d.endpoint_key
             WHERE d.event_key = ?1 AND d.status = ?2 AND d.cause = ?3 ORDER BY d.key",
        )?
        .query_map(
            params![id.key().as_i64(), DeliveryStatus::Skipped.code(), DeliveryCause::Event.code()],
            |row| {
                let reason: Option<i64> = row.get("reason")?;
                Ok(SkippedEndpoint {
                    endpoint_id: parsed(row, "endpoint_id")?,
                    delivery_id: DeliveryId::new(RowKey::from_i64(row.get("key")?), tag),
                    reason: reason.and_then(EndReason::from_code).ok_or_else(|| unexpected("deliveries.reason"))?,
                })
            },
        )?
        .collect()
}
