//! The event log: accepted events, and the endpoints that were skipped. Reads only; `publish/event.rs` writes `events`.

use bytes::Bytes;
use tokio_postgres::Row;

use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::event::{Event, EventDetail, EventFilter, SkippedEndpoint};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::event_walk::EventWalk;

use super::conditions::Conditions;
use crate::machinery::column::{coded, get, int, key, number, opt_instant, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;

/// An event that matched an endpoint has a delivery, even if it was skipped.
const EVENT_COLUMNS: &str =
    "e.key, e.mode, e.type, e.project_id, e.external_id, e.occurred_at, e.deliveries, e.payload,
     (e.deliveries = 0 AND NOT EXISTS
         (SELECT 1 FROM deliveries d WHERE d.event_key = e.key AND d.key >= e.key)) AS matched_none";

fn event_from_row(row: &Row, tag: StoreTag) -> Result<Event, PgError> {
    Ok(Event {
        id: EventId::new(key(row, "key")?, tag),
        event_type: EventTypeName::from_stored(get(row, "type")?),
        project_id: get(row, "project_id")?,
        external_id: get(row, "external_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        occurred_at: opt_instant(row, "occurred_at")?,
        deliveries: number(row, "deliveries")?,
        matched_none: get(row, "matched_none")?,
        payload: coded(row, "payload", PayloadState::from_code)?,
    })
}

/// A page of events. A filter that passes few events looks at a bounded number of rows, as a page of deliveries does.
pub async fn list(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    filter: &EventFilter,
    page: PageRequest,
) -> Result<Page<Event>, PgError> {
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let since = filter.since.map_or(RowKey::from_i64(i64::MIN), RowKey::first_at);
    let walk = EventWalk::of(filter);
    let cut = if walk.is_sparse(tenant, filter) { find_cut(session, tenant, walk, since, before).await? } else { None };
    let mut conditions = of_tenant(tenant, cut.unwrap_or(since), before);
    conditions.and_any_text("e.type", filter.event_types.iter().map(ToString::to_string));
    conditions.and_any_text("e.project_id", filter.project_ids.iter().map(|project| project.as_str().to_owned()));
    if filter.matched_none {
        conditions.and_text("e.deliveries = 0");
        conditions.and_text("NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.event_key = e.key AND d.key >= e.key)");
    }
    if walk == EventWalk::OfExternalIds {
        let events = published_as(session, tenant, filter).await?;
        if events.is_empty() {
            return Ok(Page::all(Vec::new()));
        }
        conditions.and_any("e.key", events);
    }
    let limit = conditions.value(i64::from(page.limit()) + 1);
    let sql =
        format!("SELECT {EVENT_COLUMNS} FROM events e WHERE {} ORDER BY e.key DESC LIMIT {limit}", conditions.text());
    let rows = session.query(&sql, &conditions.values()).await?;
    let items = rows.iter().map(|row| event_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
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

/// The oldest event that a page looks at. `None` if there are no more behind it.
async fn find_cut(
    session: &Session,
    tenant: Tenant,
    walk: EventWalk,
    since: RowKey,
    before: RowKey,
) -> Result<Option<RowKey>, PgError> {
    let mut conditions = of_tenant(tenant, since, before);
    if walk == EventWalk::WithoutDeliveries {
        conditions.and_text("e.deliveries = 0");
    }
    let offset = conditions.value(i64::from(limits::LOG_ROWS_PER_PAGE));
    let text = conditions.text();
    let sql = format!("SELECT e.key FROM events e WHERE {text} ORDER BY e.key DESC LIMIT 1 OFFSET {offset}");
    let found = session.query_opt(&sql, &conditions.values()).await?;
    found.map(|row| key(&row, "key")).transpose()
}

/// The events of these `externalId`s, by the index of `publish_keys`.
async fn published_as(session: &Session, tenant: Tenant, filter: &EventFilter) -> Result<Vec<i64>, PgError> {
    let sql = "SELECT event_key FROM publish_keys WHERE workspace_key = $1 AND mode = $2 AND external_id = ANY ($3)";
    let ids: Vec<String> = filter.external_ids.iter().map(|id| id.as_str().to_owned()).collect();
    let rows = session.query(sql, &[&tenant.workspace.as_i64(), &mode_code(tenant.mode), &ids]).await?;
    rows.iter().map(|row| int(row, "event_key")).collect()
}

pub async fn find(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    id: EventId,
) -> Result<Option<EventDetail>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!(
        "SELECT {EVENT_COLUMNS}, e.envelope FROM events e
         WHERE e.key = $1 AND e.workspace_key = $2 AND e.mode = $3 AND ($4 IS NULL OR e.project_id = $4)"
    );
    let values = (id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    let found = session.query_opt(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    let Some(row) = found else { return Ok(None) };
    let (event, envelope) = (event_from_row(&row, tag)?, Bytes::from(get::<Vec<u8>>(&row, "envelope")?));
    let skipped = skipped(session, tag, tenant, id).await?;
    Ok(Some(EventDetail { event, skipped, envelope }))
}

async fn skipped(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    id: EventId,
) -> Result<Vec<SkippedEndpoint>, PgError> {
    let rows = session
        .query(
            "SELECT d.key, d.reason, ep.id AS endpoint_id
             FROM deliveries d JOIN endpoints ep ON ep.key = d.endpoint_key
             WHERE d.event_key = $1 AND d.key >= $1 AND d.status = $2 AND d.cause = $3
               AND ($4 IS NULL OR ep.project_id = $4) ORDER BY d.key",
            &[
                &id.key().as_i64(),
                &DeliveryStatus::Skipped.code(),
                &DeliveryCause::Event.code(),
                &tenant.project_text(),
            ],
        )
        .await?;
    let skipped = |row: &Row| {
        Ok(SkippedEndpoint {
            endpoint_id: parsed(row, "endpoint_id")?,
            delivery_id: DeliveryId::new(key(row, "key")?, tag),
            reason: coded(row, "reason", EndReason::from_code)?,
        })
    };
    rows.iter().map(skipped).collect()
}
