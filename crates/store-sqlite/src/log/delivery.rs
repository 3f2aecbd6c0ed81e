//! The delivery log: a delivery, its end, and pages of both.
//!
//! Writes `deliveries`. Only retention removes rows (`upkeep/retention.rs`).

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason, Queued};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EndpointId, EventId, RowKey, StoreTag};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code, schedule_from};
use postrider_store::log::walk::stored_outcome;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;

use super::conditions::Conditions;
use super::search::{LAST_OUTCOME, LAST_RESPONSE, Search, key_of, tables_of};
use crate::machinery::column::{broken, coded, parsed, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::WriteTx;
use crate::queue::enqueue::enqueue;

pub const INSERT_DELIVERY: &str =
    "INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, reason, cause, retry_of,
                             completed_at)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";

pub const FINISH_DELIVERY: &str = "UPDATE deliveries SET status = ?2, reason = ?3, attempts = ?4, completed_at = ?5,
                          last_outcome = ?6, last_response_status = ?7 WHERE key = ?1";

const FINISH_UNSENT: &str = "UPDATE deliveries SET status = ?2, reason = ?3, attempts = ?4, completed_at = ?5,
     (last_outcome, last_response_status) =
         (SELECT a.outcome, a.response_status FROM attempts a WHERE a.delivery_key = ?1 ORDER BY a.number DESC LIMIT 1)
     WHERE key = ?1";

/// Writes a delivery to the log and, unless it is skipped, to the queue.
pub fn insert(tx: &mut WriteTx<'_>, new: &NewDelivery) -> Result<(), rusqlite::Error> {
    let status = if new.skipped.is_some() { DeliveryStatus::Skipped } else { DeliveryStatus::Pending };
    tx.connection.prepare_cached(INSERT_DELIVERY)?.execute(params![
        new.key.as_i64(),
        new.lane.workspace_key.as_i64(),
        new.lane.endpoint_key.as_i64(),
        new.event_key.as_i64(),
        mode_code(new.mode),
        status.code(),
        new.skipped.map(EndReason::code),
        new.cause.code(),
        new.retry_of.map(RowKey::as_i64),
        new.skipped.map(|_| tx.now.millis()),
    ])?;
    tx.rollups.created(new);
    if new.skipped.is_some() {
        return Ok(());
    }
    enqueue(tx, new)
}

/// Ends a delivery by the outcome of its last attempt.
pub fn finish(
    tx: &mut WriteTx<'_>,
    key: RowKey,
    counted: Counted,
    end: DeliveryEnd,
    last: &Attempt,
) -> Result<(), rusqlite::Error> {
    let DeliveryEnd { status, reason } = end;
    tx.connection.prepare_cached(FINISH_DELIVERY)?.execute(params![
        key.as_i64(),
        status.code(),
        reason.map(EndReason::code),
        last.number,
        tx.now.millis(),
        stored_outcome(last.outcome),
        last.response_status,
    ])?;
    tx.rollups.ended(counted, end);
    Ok(())
}

/// Ends a delivery that nobody is attempting. Its attempts must have been recorded.
pub fn finish_unsent(
    tx: &mut WriteTx<'_>,
    key: RowKey,
    counted: Counted,
    end: DeliveryEnd,
    attempts: u32,
) -> Result<(), rusqlite::Error> {
    tx.connection.prepare_cached(FINISH_UNSENT)?.execute(params![
        key.as_i64(),
        end.status.code(),
        end.reason.map(EndReason::code),
        attempts,
        tx.now.millis(),
    ])?;
    tx.rollups.ended(counted, end);
    Ok(())
}

/// Whose delivery it is.
pub fn find_counted(connection: &Connection, key: RowKey) -> Result<Option<Counted>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT d.workspace_key, d.mode, endpoint_key, project_id FROM deliveries d
             LEFT JOIN endpoints ON endpoints.key = endpoint_key WHERE d.key = ?1",
        )?
        .query_row([key.as_i64()], |row| {
            let project = row.get_ref("project_id")?.as_str_or_null()?;
            Ok(Counted {
                tenant: (row.get("workspace_key")?, row.get("mode")?),
                endpoint: RowKey::from_i64(row.get("endpoint_key")?),
                project: project.and_then(|project| ProjectId::parse(project).ok()),
            })
        })
        .optional()
}

static DELIVERY_COLUMNS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT d.key, d.event_key, e.type, ep.id AS endpoint_id, e.project_id, e.external_id,
                ep.retry_schedule, d.mode, d.status, d.reason, d.cause,
                d.retry_of, COALESCE(q.attempts, d.attempts) AS attempts, d.completed_at, q.due_at, q.claim_token, q.step,
                NOT ep.is_active AND q.lane_key > 0 AS is_held, l.held_since, l.paused_since, l.not_before,
                CASE WHEN q.sequence IS NOT NULL THEN COALESCE(
                    (SELECT blocked_by FROM ordered_lanes WHERE lane_key = q.lane_key),
                    (SELECT h.delivery_key FROM due h WHERE h.lane_key = q.lane_key AND h.sequence IS NOT NULL
                     ORDER BY h.sequence LIMIT 1)) END AS order_head,
                EXISTS (SELECT 1 FROM ordered_lanes WHERE blocked_by = d.key) AS is_blocking,
                {} AS last_outcome, {} AS last_response_status",
        *LAST_OUTCOME, *LAST_RESPONSE
    )
});

const DELIVERY_TABLES: &str = "FROM deliveries d
     JOIN events e ON e.key = d.event_key
     JOIN endpoints ep ON ep.key = d.endpoint_key
     LEFT JOIN due q ON q.delivery_key = d.key
     LEFT JOIN lanes l ON l.lane_key = q.lane_key";

fn delivery_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Delivery, rusqlite::Error> {
    let queued = queued_from_row(row, tag)?;
    let own_schedule: Option<String> = row.get("retry_schedule")?;
    Ok(Delivery {
        id: DeliveryId::new(RowKey::from_i64(row.get("key")?), tag),
        event_id: EventId::new(RowKey::from_i64(row.get("event_key")?), tag),
        event_type: EventTypeName::from_stored(row.get_ref("type")?.as_str()?),
        endpoint_id: parsed(row, "endpoint_id")?,
        project_id: row.get("project_id")?,
        external_id: row.get("external_id")?,
        mode: coded(row, "mode", mode_from_code)?,
        status: coded(row, "status", DeliveryStatus::from_code)?,
        reason: row
            .get::<_, Option<i64>>("reason")?
            .map(|code| EndReason::from_code(code).ok_or_else(|| unexpected("deliveries.reason")))
            .transpose()?,
        cause: coded(row, "cause", DeliveryCause::from_code)?,
        retry_of: row.get::<_, Option<i64>>("retry_of")?.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
        attempt_count: row.get("attempts")?,
        next_attempt_at: queued.and_then(|queued| queued.next_attempt_at()),
        completed_at: row.get::<_, Option<i64>>("completed_at")?.map(Timestamp::from_millis),
        is_blocking: row.get("is_blocking")?,
        queued,
        last_outcome: row
            .get::<_, Option<i64>>("last_outcome")?
            .map(|code| AttemptOutcome::from_code(code).ok_or_else(|| unexpected("deliveries.last_outcome")))
            .transpose()?,
        last_response_status: row.get("last_response_status")?,
        own_schedule: own_schedule.map(|text| schedule_from(&text)).transpose().map_err(broken)?,
    })
}

fn queued_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Option<Queued>, rusqlite::Error> {
    let instant = |column| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(column)?.map(Timestamp::from_millis));
    let Some(due_at) = instant("due_at")? else { return Ok(None) };
    let order_head: Option<i64> = row.get("order_head")?;
    Ok(Some(Queued {
        due_at: Some(due_at).filter(|at| *at != NOT_YET),
        is_claimed: row.get::<_, Option<i64>>("claim_token")?.is_some(),
        step: row.get("step")?,
        is_held: row.get("is_held")?,
        held_since: instant("held_since")?,
        paused_since: instant("paused_since")?,
        // The lane of a listener is delayed for ever.
        not_before: instant("not_before")?.filter(|at| *at != NOT_YET),
        order_head: order_head.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
    }))
}

/// A page of the log. A filter that passes few rows could walk a large log from end to end. So such a page looks at a
/// bounded number of rows, and says where the next page begins even when it found few.
pub fn list(
    tx: ReadTx<'_>,
    tenant: Tenant,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, rusqlite::Error> {
    let search = Search::new(tx, tenant, filter, page.before(), page.limit())?;
    let chosen = search.choose()?;
    let limit = i64::from(page.limit()) + 1;
    let columns = DELIVERY_COLUMNS.as_str();
    let mut found = Vec::with_capacity(chosen.walks.len());
    for walk in &chosen.walks {
        let mut conditions = search.conditions(*walk, chosen.cut);
        conditions.push(limit);
        let Conditions { text, values } = conditions;
        let (tables, key) = (tables_of(*walk), key_of(*walk));
        let rows = tx
            .connection
            .prepare_cached(&format!("{columns} {tables} WHERE {text} ORDER BY {key} DESC LIMIT ?"))?
            .query_map(params_from_iter(values), |row| delivery_from_row(row, tx.tag))?
            .collect::<Result<Vec<_>, _>>()?;
        found.push(rows);
    }
    Ok(chosen.merge(page, found))
}

/// Counts up to `max` deliveries that match.
pub fn count(
    tx: ReadTx<'_>,
    tenant: Tenant,
    filter: &DeliveryFilter,
    max: u32,
) -> Result<BoundedCount, rusqlite::Error> {
    let search = Search::new(tx, tenant, filter, RowKey::from_i64(i64::MAX), max)?;
    let chosen = search.choose()?;
    let mut count = BoundedCount::searched_from(chosen.cut);
    for walk in &chosen.walks {
        let mut conditions = search.conditions(*walk, chosen.cut);
        conditions.push(max.saturating_add(1));
        let Conditions { text, values } = conditions;
        let sql = format!("SELECT COUNT(*) FROM (SELECT 1 {} WHERE {text} LIMIT ?)", tables_of(*walk));
        let rows = tx.connection.prepare_cached(&sql)?.query_row(params_from_iter(values), |row| row.get(0))?;
        count.add(rows, max);
    }
    Ok(count)
}

/// One delivery without its attempts.
pub fn find_one(tx: ReadTx<'_>, tenant: Tenant, id: DeliveryId) -> Result<Option<Delivery>, rusqlite::Error> {
    if id.tag() != tx.tag {
        return Ok(None);
    }
    let columns = DELIVERY_COLUMNS.as_str();
    let sql = format!(
        "{columns} {DELIVERY_TABLES} WHERE d.key = ?1 AND d.workspace_key = ?2 AND d.mode = ?3
           AND (?4 IS NULL OR (ep.project_id = ?4 AND e.project_id = ?4))"
    );
    let parameters =
        params![id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text()];
    tx.connection.prepare_cached(&sql)?.query_row(parameters, |row| delivery_from_row(row, tx.tag)).optional()
}

/// The deliveries at which strict orders have stopped, the oldest first. Few orders are stopped at a time, so the
/// search begins at them: `+` keeps the planner from the indexes of the log.
pub fn blocking(tx: ReadTx<'_>, tenant: Tenant, limit: u32) -> Result<Vec<Delivery>, rusqlite::Error> {
    let columns = DELIVERY_COLUMNS.as_str();
    let sql = format!(
        "{columns} {DELIVERY_TABLES}
         WHERE d.key IN (SELECT blocked_by FROM ordered_lanes WHERE blocked_since IS NOT NULL)
           AND +d.workspace_key = ?1 AND +d.mode = ?2
           AND (?3 IS NULL OR (ep.project_id = ?3 AND e.project_id = ?3))
         ORDER BY d.key LIMIT ?4"
    );
    let parameters = params![tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text(), limit];
    tx.connection.prepare_cached(&sql)?.query_map(parameters, |row| delivery_from_row(row, tx.tag))?.collect()
}

/// The delivery at which the strict order of this endpoint has stopped.
pub fn blocking_of(tx: ReadTx<'_>, tenant: Tenant, endpoint: EndpointId) -> Result<Option<Delivery>, rusqlite::Error> {
    // The number of a lane of events is the key of its endpoint.
    let sql = "SELECT blocked_by FROM ordered_lanes JOIN endpoints ON endpoints.key = lane_key
               WHERE endpoints.id = ?1 AND blocked_by IS NOT NULL";
    let found = tx.connection.prepare_cached(sql)?.query_row([endpoint.to_string()], |row| row.get(0)).optional()?;
    let Some(key) = found else { return Ok(None) };
    find_one(tx, tenant, DeliveryId::new(RowKey::from_i64(key), tx.tag))
}
