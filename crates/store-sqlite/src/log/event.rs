//! Reads the log of events. Events are written where they are accepted (`publish/event.rs`).

use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params, params_from_iter};

use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::event::{Event, EventDetail, EventFilter, SkippedEndpoint};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::event_walk::EventWalk;

use super::conditions::Conditions;
use crate::machinery::column::{coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;

/// A page of events. A filter that passes few events looks at a bounded number of rows, as a page of deliveries does.
pub fn list(
    tx: ReadTx<'_>,
    tenant: Tenant,
    filter: &EventFilter,
    page: PageRequest,
) -> Result<Page<Event>, rusqlite::Error> {
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let since = filter.since.map_or(RowKey::from_i64(i64::MIN), RowKey::first_at);
    let walk = EventWalk::of(filter);
    let cut = if walk.is_sparse(tenant, filter) { find_cut(tx, tenant, walk, since, before)? } else { None };
    let mut conditions = of_tenant(tenant, cut.unwrap_or(since), before);
    conditions.and_any("e.type", filter.event_types.iter().map(ToString::to_string));
    conditions.and_any("e.project_id", filter.project_ids.iter().map(|project| project.as_str().to_owned()));
    if filter.matched_none {
        conditions.and_text("e.deliveries = 0 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_key = e.key)");
    }
    if walk == EventWalk::OfExternalIds {
        let events = published_as(tx, tenant, filter)?;
        if events.is_empty() {
            return Ok(Page::all(Vec::new()));
        }
        conditions.and_any("e.key", events);
    }
    conditions.push(i64::from(page.limit()) + 1);
    let Conditions { text, values } = conditions;
    let table = table_of(walk);
    let sql = format!("SELECT {EVENT_COLUMNS} FROM {table} WHERE {text} ORDER BY e.key DESC LIMIT ?");
    let items = tx
        .connection
        .prepare_cached(&sql)?
        .query_map(params_from_iter(values), |row| event_from_row(row, tx.tag))?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |event| event.id.key()).searched_from(cut))
}

fn of_tenant(tenant: Tenant, since: RowKey, before: RowKey) -> Conditions {
    let mut conditions = Conditions::default();
    conditions.and("e.workspace_key = ?", tenant.workspace.as_i64());
    conditions.and("e.mode = ?", mode_code(tenant.mode));
    conditions.and("e.key >= ?", since.as_i64());
    conditions.and("e.key < ?", before.as_i64());
    if let Some(project) = tenant.project {
        conditions.and("e.project_id = ?", project.as_str().to_owned());
    }
    conditions
}

/// The table of a page.
// Differs from PostgreSQL: the index is fixed. The planner has no statistics here, and might choose another.
const fn table_of(walk: EventWalk) -> &'static str {
    match walk {
        EventWalk::OfExternalIds => "events e",
        EventWalk::WithoutDeliveries => "events e INDEXED BY events_without_deliveries",
        EventWalk::OfWorkspace => "events e INDEXED BY events_by_workspace",
    }
}

/// The oldest event that a page looks at. `None` if there are no more behind it.
fn find_cut(
    tx: ReadTx<'_>,
    tenant: Tenant,
    walk: EventWalk,
    since: RowKey,
    before: RowKey,
) -> Result<Option<RowKey>, rusqlite::Error> {
    let mut conditions = of_tenant(tenant, since, before);
    if walk == EventWalk::WithoutDeliveries {
        conditions.and_text("e.deliveries = 0");
    }
    conditions.push(limits::LOG_ROWS_PER_PAGE);
    let Conditions { text, values } = conditions;
    let table = table_of(walk);
    tx.connection
        .prepare_cached(&format!("SELECT e.key FROM {table} WHERE {text} ORDER BY e.key DESC LIMIT 1 OFFSET ?"))?
        .query_row(params_from_iter(values), |row| Ok(RowKey::from_i64(row.get(0)?)))
        .optional()
}

/// The events of these `externalId`s, by the primary key of `publish_keys`.
fn published_as(tx: ReadTx<'_>, tenant: Tenant, filter: &EventFilter) -> Result<Vec<i64>, rusqlite::Error> {
    let mut conditions = Conditions::default();
    conditions.and("workspace_key = ?", tenant.workspace.as_i64());
    conditions.and("mode = ?", mode_code(tenant.mode));
    conditions.and_any("external_id", filter.external_ids.iter().map(|id| id.as_str().to_owned()));
    let Conditions { text, values } = conditions;
    tx.connection
        .prepare_cached(&format!("SELECT event_key FROM publish_keys WHERE {text}"))?
        .query_map(params_from_iter(values), |row| row.get(0))?
        .collect()
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
const EVENT_COLUMNS: &str =
    "e.key, e.mode, e.type, e.project_id, e.external_id, e.occurred_at, e.deliveries, e.payload,
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
        payload: coded(row, "payload", PayloadState::from_code)?,
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
