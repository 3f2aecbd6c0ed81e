//! The delivery log: the state of each delivery. Writes `deliveries`, for the transactions of the queue.
//!
//! The planner cannot be told which index to use, and may have no statistics for a day that has just begun. So a column
//! that must not lead the walk is written as a sum (`d.key + 0`), which no index serves. Then only the walk's own index
//! fits.

use std::collections::HashMap;

use tokio_postgres::Row;

use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason, Queued};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::{Walk, rows_per_endpoint};
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;

use super::conditions::Conditions;
use crate::machinery::column::{coded, get, int, key, number, opt_instant, opt_int, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};
use crate::machinery::transaction::WriteTx;

pub const INSERT_DELIVERIES: &str =
    "INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, reason, cause, retry_of, completed_at)
               SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

/// Adds deliveries to the log.
pub async fn insert(tx: &WriteTx, new: &[NewDelivery]) -> Result<(), PgError> {
    let of = |column: fn(&NewDelivery) -> i64| new.iter().map(column).collect::<Vec<i64>>();
    let now = tx.now.millis();
    tx.count(|rollups| new.iter().for_each(|new| rollups.created(new)));
    let status = |new: &NewDelivery| match new.skipped {
        Some(_) => DeliveryStatus::Skipped.code(),
        None => DeliveryStatus::Pending.code(),
    };
    tx.execute(
        INSERT_DELIVERIES,
        &[
            &of(|new| new.key.as_i64()),
            &of(|new| new.lane.workspace_key.as_i64()),
            &of(|new| new.lane.endpoint_key.as_i64()),
            &of(|new| new.event_key.as_i64()),
            &of(|new| mode_code(new.mode)),
            &new.iter().map(status).collect::<Vec<i64>>(),
            &new.iter().map(|new| new.skipped.map(EndReason::code)).collect::<Vec<Option<i64>>>(),
            &of(|new| new.cause.code()),
            &new.iter().map(|new| new.retry_of.map(RowKey::as_i64)).collect::<Vec<Option<i64>>>(),
            &new.iter().map(|new| new.skipped.map(|_| now)).collect::<Vec<Option<i64>>>(),
        ],
    )
    .await?;
    Ok(())
}

/// Ends a delivery.
pub async fn finish(
    tx: &WriteTx,
    key: RowKey,
    counted: Counted,
    end: DeliveryEnd,
    attempts: u32,
) -> Result<(), PgError> {
    tx.count(|rollups| rollups.ended(counted, end));
    let sql = "UPDATE deliveries SET status = $2, reason = $3, attempts = $4, completed_at = $5 WHERE key = $1";
    let (reason, attempts) = (end.reason.map(EndReason::code), i64::from(attempts));
    tx.execute(sql, &[&key.as_i64(), &end.status.code(), &reason, &attempts, &tx.now.millis()]).await?;
    Ok(())
}

/// Ends many deliveries alike, each with its number of attempts. Returns whose they are.
pub async fn finish_all(
    tx: &WriteTx,
    keys: &Vec<i64>,
    attempts: &Vec<i64>,
    end: DeliveryEnd,
) -> Result<HashMap<RowKey, Counted>, PgError> {
    let sql = "UPDATE deliveries SET status = $3, reason = $4, attempts = ended.attempts, completed_at = $5
               FROM unnest($1, $2) AS ended (key, attempts) WHERE deliveries.key = ended.key
               RETURNING deliveries.key, workspace_key, mode, endpoint_key,
                         (SELECT project_id FROM endpoints WHERE endpoints.key = endpoint_key) AS project_id";
    let (status, reason) = (end.status.code(), end.reason.map(EndReason::code));
    let rows = tx.query(sql, &[keys, attempts, &status, &reason, &tx.now.millis()]).await?;
    let ended = rows
        .iter()
        .map(|row| {
            let counted = Counted {
                tenant: (int(row, "workspace_key")?, int(row, "mode")?),
                endpoint: key(row, "endpoint_key")?,
                project: get::<Option<&str>>(row, "project_id")?.and_then(|project| ProjectId::parse(project).ok()),
            };
            Ok((key(row, "key")?, counted))
        })
        .collect::<Result<HashMap<_, _>, PgError>>()?;
    tx.count(|rollups| ended.values().for_each(|counted| rollups.ended(*counted, end)));
    Ok(ended)
}

const DELIVERY_COLUMNS: &str =
    "SELECT d.key, d.event_key, e.type, ep.id AS endpoint_id, e.project_id, d.mode, d.status, d.reason, d.cause,
            d.retry_of, COALESCE(q.attempts, d.attempts) AS attempts, d.completed_at, q.due_at, q.claim_token, q.step,
            NOT ep.is_active AND q.lane_key > 0 AS is_held, l.held_since, l.paused_since, l.not_before,
            CASE WHEN q.sequence IS NOT NULL THEN COALESCE(
                (SELECT blocked_by FROM ordered_lanes WHERE lane_key = q.lane_key),
                (SELECT h.delivery_key FROM due h WHERE h.lane_key = q.lane_key AND h.sequence IS NOT NULL
                 ORDER BY h.sequence LIMIT 1)) END AS order_head,
            EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = d.key) AS is_blocking";

const DELIVERY_TABLES: &str = "FROM deliveries d
     JOIN events e ON e.key = d.event_key
     JOIN endpoints ep ON ep.key = d.endpoint_key
     LEFT JOIN due q ON q.delivery_key = d.key
     LEFT JOIN lanes l ON l.lane_key = q.lane_key";

fn delivery_from_row(row: &Row, tag: StoreTag) -> Result<Delivery, PgError> {
    let queued = queued_from_row(row, tag)?;
    Ok(Delivery {
        id: DeliveryId::new(key(row, "key")?, tag),
        event_id: EventId::new(key(row, "event_key")?, tag),
        event_type: EventTypeName::from_stored(get(row, "type")?),
        endpoint_id: parsed(row, "endpoint_id")?,
        project_id: get(row, "project_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        status: coded(row, "status", DeliveryStatus::from_code)?,
        reason: opt_int(row, "reason")?
            .map(|code| EndReason::from_code(code).ok_or_else(|| unexpected("deliveries.reason")))
            .transpose()?,
        cause: coded(row, "cause", DeliveryCause::from_code)?,
        retry_of: opt_int(row, "retry_of")?.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
        attempt_count: number(row, "attempts")?,
        next_attempt_at: queued.and_then(|queued| queued.next_attempt_at()),
        completed_at: opt_instant(row, "completed_at")?,
        is_blocking: get(row, "is_blocking")?,
        queued,
    })
}

fn queued_from_row(row: &Row, tag: StoreTag) -> Result<Option<Queued>, PgError> {
    let Some(due_at) = opt_instant(row, "due_at")? else { return Ok(None) };
    Ok(Some(Queued {
        due_at: Some(due_at).filter(|at| *at != NOT_YET),
        is_claimed: opt_int(row, "claim_token")?.is_some(),
        step: number(row, "step")?,
        is_held: get(row, "is_held")?,
        held_since: opt_instant(row, "held_since")?,
        paused_since: opt_instant(row, "paused_since")?,
        not_before: opt_instant(row, "not_before")?,
        order_head: opt_int(row, "order_head")?.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
    }))
}

/// A page of the log.
///
/// A filter that passes few rows would walk a large log from end to end. Such a walk stops after
/// [`LOG_ROWS_PER_PAGE`](limits::LOG_ROWS_PER_PAGE) rows, and the page names the next one however few rows it holds.
pub async fn list(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, PgError> {
    let walk = Walk::of(tenant, filter);
    let before = filter.until.map_or(page.before(), |until| page.before().min(RowKey::first_at(until)));
    let range = KeyRange { since: filter.since.map_or(RowKey::from_i64(i64::MIN), RowKey::first_at), before };
    let endpoints = if walk == Walk::OfProject { project_endpoints(session, tenant).await? } else { Vec::new() };
    let cut = match walk {
        Walk::OfProject => find_project_cut(session, &endpoints, walk.is_sparse(tenant, filter), range, page).await?,
        _ if walk.is_sparse(tenant, filter) => find_cut(session, tenant, walk, filter, range).await?,
        _ => None,
    };
    let mut conditions = Conditions::default();
    let tables = tables(walk, &mut conditions, KeyRange { since: cut.unwrap_or(range.since), ..range });
    of_tenant(&mut conditions, walk, tenant);
    if let Some(project) = tenant.project {
        // Both: an endpoint may have received events of another project before it came to this one. The planner must
        // not start with either.
        conditions.and("COALESCE(ep.project_id, '') = ?", project.as_str().to_owned());
        conditions.and("COALESCE(e.project_id, '') = ?", project.as_str().to_owned());
    }
    if walk == Walk::OfProject {
        conditions.and("d.endpoint_key = ANY (?)", endpoints);
    }
    if let Some(endpoint) = filter.endpoint_id {
        conditions.and(&endpoint_is(walk, tenant), endpoint.to_string());
    }
    if let Some(event) = filter.event_id {
        // An id from another store names no event here.
        let key = if event.tag() == tag { event.key().as_i64() } else { -1 };
        conditions.and("d.event_key = ?", key);
        conditions.and("d.key >= ?", key);
    }
    if let Some(event_type) = &filter.event_type {
        conditions.and("e.type = ?", event_type.as_str().to_owned());
    }
    if let Some(status) = filter.status {
        conditions.and(&format!("{} = ?", status_column(walk)), status.code());
    }
    let limit = conditions.value(i64::from(page.limit()) + 1);
    let order = order_column(walk);
    let sql = format!("{DELIVERY_COLUMNS} {tables} WHERE {} ORDER BY {order} DESC LIMIT {limit}", conditions.text());
    let rows = session.query(&sql, &conditions.values()).await?;
    let items = rows.iter().map(|row| delivery_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?;
    let page = page.cut(items, |delivery| delivery.id.key());
    Ok(Page { next: page.next.or(cut), ..page })
}

/// One delivery without its attempts.
pub async fn find_one(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    id: DeliveryId,
) -> Result<Option<Delivery>, PgError> {
    if id.tag() != tag {
        return Ok(None);
    }
    let sql = format!(
        "{DELIVERY_COLUMNS} {DELIVERY_TABLES} WHERE d.key = $1 AND d.workspace_key = $2 AND d.mode = $3
           AND ($4 IS NULL OR (ep.project_id = $4 AND e.project_id = $4))"
    );
    let values = (id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    let found = session.query_opt(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    found.map(|row| delivery_from_row(&row, tag)).transpose()
}

/// An endpoint of the other mode has no deliveries here, so that no page walks past all of them.
fn endpoint_is(walk: Walk, tenant: Tenant) -> String {
    let (column, mode) = (column(walk, "endpoint_key"), mode_code(tenant.mode));
    format!("{column} = (SELECT key FROM endpoints WHERE id = ? AND mode = {mode})")
}

fn of_tenant(conditions: &mut Conditions, walk: Walk, tenant: Tenant) {
    conditions.and(&format!("{} = ?", column(walk, "workspace_key")), tenant.workspace.as_i64());
    conditions.and(&format!("{} = ?", column(walk, "mode")), mode_code(tenant.mode));
}

/// The rows that a page looks at: from `since`, before `before`.
#[derive(Clone, Copy)]
struct KeyRange {
    since: RowKey,
    before: RowKey,
}

/// The tables of a page. Adds the range as a condition.
fn tables(walk: Walk, conditions: &mut Conditions, range: KeyRange) -> String {
    if walk != Walk::Queue {
        conditions.and("d.key >= ?", range.since.as_i64());
        conditions.and("d.key < ?", range.before.as_i64());
        return DELIVERY_TABLES.to_owned();
    }
    let (since, before) = (conditions.value(range.since.as_i64()), conditions.value(range.before.as_i64()));
    // OFFSET 0 keeps the planner from starting with the log.
    format!(
        "FROM (SELECT * FROM due WHERE delivery_key >= {since} AND delivery_key < {before}
                   ORDER BY delivery_key DESC OFFSET 0) q
             CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE key = q.delivery_key OFFSET 0) d
             JOIN events e ON e.key = d.event_key
             JOIN endpoints ep ON ep.key = d.endpoint_key
             LEFT JOIN lanes l ON l.lane_key = q.lane_key"
    )
}

const fn order_column(walk: Walk) -> &'static str {
    match walk {
        Walk::Queue => "q.delivery_key",
        // An event has few rows, and those of a project are cut before: they are sorted.
        Walk::OfEvent | Walk::OfProject => "d.key + 0",
        Walk::Unusual | Walk::OfEndpoint | Walk::OfWorkspace => "d.key",
    }
}

/// A column of `deliveries`: bare if it leads the walk, as a sum if it only filters its rows.
fn column(walk: Walk, name: &str) -> String {
    let leads = match walk {
        Walk::OfEvent | Walk::OfProject | Walk::Queue => false,
        Walk::OfEndpoint => name == "endpoint_key",
        Walk::Unusual | Walk::OfWorkspace => matches!(name, "workspace_key" | "mode"),
    };
    if leads { format!("d.{name}") } else { format!("d.{name} + 0") }
}

/// The column that holds the status for this walk.
const fn status_column(walk: Walk) -> &'static str {
    if matches!(walk, Walk::Unusual) { "d.unusual" } else { "d.status" }
}

/// The oldest row that this page of a sparse walk looks at, if there are more behind it.
async fn find_cut(
    session: &Session,
    tenant: Tenant,
    walk: Walk,
    filter: &DeliveryFilter,
    range: KeyRange,
) -> Result<Option<RowKey>, PgError> {
    let (table, column) = if walk == Walk::Queue { ("due q", "q.delivery_key") } else { ("deliveries d", "d.key") };
    let mut conditions = Conditions::default();
    conditions.and(&format!("{column} >= ?"), range.since.as_i64());
    conditions.and(&format!("{column} < ?"), range.before.as_i64());
    match (walk, filter) {
        (Walk::Unusual, DeliveryFilter { status: Some(status), .. }) => {
            conditions.and("d.unusual = ?", status.code());
            of_tenant(&mut conditions, walk, tenant);
        }
        (Walk::OfEndpoint, DeliveryFilter { endpoint_id: Some(endpoint), .. }) => {
            conditions.and(&endpoint_is(walk, tenant), endpoint.to_string());
        }
        (Walk::Queue, _) => {}
        _ => of_tenant(&mut conditions, walk, tenant),
    }
    let offset = conditions.value(i64::from(limits::LOG_ROWS_PER_PAGE));
    let text = conditions.text();
    let sql =
        format!("SELECT {column} AS key FROM {table} WHERE {text} ORDER BY {column} DESC LIMIT 1 OFFSET {offset}");
    let found = session.query_opt(&sql, &conditions.values()).await?;
    found.map(|row| key(&row, "key")).transpose()
}

/// The endpoints of a project, deleted ones too: their deliveries are still shown.
async fn project_endpoints(session: &Session, tenant: Tenant) -> Result<Vec<i64>, PgError> {
    let sql = "SELECT key FROM endpoints WHERE workspace_key = $1 AND project_id = $2 AND mode = $3";
    let parameters: [&dyn Parameter; 3] = [&tenant.workspace.as_i64(), &tenant.project_text(), &mode_code(tenant.mode)];
    session.query(sql, &parameters).await?.iter().map(|row| int(row, "key")).collect()
}

/// As [`find_cut`], for the merged rows of the endpoints of a project: behind this row, one of them has more rows than
/// a page looks at.
async fn find_project_cut(
    session: &Session,
    endpoints: &[i64],
    is_sparse: bool,
    range: KeyRange,
    page: PageRequest,
) -> Result<Option<RowKey>, PgError> {
    let rows = rows_per_endpoint(endpoints.len(), page.limit(), is_sparse);
    let sql = "SELECT max(last.key) AS key FROM unnest($1::bigint[]) AS endpoint (key)
               CROSS JOIN LATERAL (
                   SELECT d.key FROM deliveries d
                   WHERE d.endpoint_key = endpoint.key AND d.key >= $2 AND d.key < $3
                   ORDER BY d.key DESC LIMIT 1 OFFSET $4) last";
    let parameters: [&dyn Parameter; 4] = [&endpoints.to_vec(), &range.since.as_i64(), &range.before.as_i64(), &rows];
    let found = session.query_one(sql, &parameters).await?;
    Ok(opt_int(&found, "key")?.map(RowKey::from_i64))
}
