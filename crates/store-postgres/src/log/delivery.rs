//! The delivery log: the state of each delivery. Writes `deliveries`, for the transactions of the queue.

use std::collections::HashMap;
use std::sync::LazyLock;

use tokio_postgres::Row;

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason, Queued};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EndpointId, EventId, RowKey, StoreTag};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code, schedule_from};
use postrider_store::log::walk::stored_outcome;
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;

use super::search::{DELIVERY_TABLES, LAST_OUTCOME, LAST_RESPONSE, Search, order_column};
use crate::machinery::column::{coded, get, int, key, number, opt_instant, opt_int, opt_number, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
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

/// Ends a delivery by the outcome of its last attempt.
pub async fn finish(
    tx: &WriteTx,
    key: RowKey,
    counted: Counted,
    end: DeliveryEnd,
    last: &Attempt,
) -> Result<(), PgError> {
    tx.count(|rollups| rollups.ended(counted, end));
    let sql = "UPDATE deliveries SET status = $2, reason = $3, attempts = $4, completed_at = $5, last_outcome = $6,
                                     last_response_status = $7 WHERE key = $1";
    let (reason, attempts) = (end.reason.map(EndReason::code), i64::from(last.number));
    let (outcome, response) = (stored_outcome(last.outcome), last.response_status.map(i64::from));
    tx.execute(sql, &[&key.as_i64(), &end.status.code(), &reason, &attempts, &tx.now.millis(), &outcome, &response])
        .await?;
    Ok(())
}

/// Ends many deliveries that nobody is attempting alike, each with its number of attempts. `lost` tells whose last
/// attempt is still to be recorded as abandoned. Returns whose they are.
pub async fn finish_all(
    tx: &WriteTx,
    keys: &Vec<i64>,
    attempts: &Vec<i64>,
    lost: &Vec<bool>,
    end: DeliveryEnd,
) -> Result<HashMap<RowKey, Counted>, PgError> {
    let sql = "UPDATE deliveries
               SET status = $3, reason = $4, attempts = ended.attempts, completed_at = $5,
                   (last_outcome, last_response_status) =
                       (SELECT CASE WHEN ended.lost THEN $7 ELSE last.outcome END,
                               CASE WHEN ended.lost THEN NULL ELSE last.response_status END
                        FROM (SELECT 1) AS one
                        LEFT JOIN LATERAL (SELECT a.outcome, a.response_status FROM attempts a
                                           WHERE a.delivery_key = ended.key ORDER BY a.number DESC LIMIT 1) last ON true)
               FROM unnest($1, $2, $6) AS ended (key, attempts, lost) WHERE deliveries.key = ended.key
               RETURNING deliveries.key, workspace_key, mode, endpoint_key,
                         (SELECT project_id FROM endpoints WHERE endpoints.key = endpoint_key) AS project_id";
    let (status, reason) = (end.status.code(), end.reason.map(EndReason::code));
    let abandoned = AttemptOutcome::Abandoned.code();
    let rows = tx.query(sql, &[keys, attempts, &status, &reason, &tx.now.millis(), lost, &abandoned]).await?;
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

fn delivery_from_row(row: &Row, tag: StoreTag) -> Result<Delivery, PgError> {
    let queued = queued_from_row(row, tag)?;
    let own_schedule: Option<&str> = get(row, "retry_schedule")?;
    Ok(Delivery {
        id: DeliveryId::new(key(row, "key")?, tag),
        event_id: EventId::new(key(row, "event_key")?, tag),
        event_type: EventTypeName::from_stored(get(row, "type")?),
        endpoint_id: parsed(row, "endpoint_id")?,
        project_id: get(row, "project_id")?,
        external_id: get(row, "external_id")?,
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
        last_outcome: opt_int(row, "last_outcome")?
            .map(|code| AttemptOutcome::from_code(code).ok_or_else(|| unexpected("deliveries.last_outcome")))
            .transpose()?,
        last_response_status: opt_number(row, "last_response_status")?,
        own_schedule: own_schedule.map(schedule_from).transpose()?,
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
        // The lane of a listener is delayed for ever.
        not_before: opt_instant(row, "not_before")?.filter(|at| *at != NOT_YET),
        order_head: opt_int(row, "order_head")?.map(|key| DeliveryId::new(RowKey::from_i64(key), tag)),
    }))
}

/// A page of the log.
///
/// A filter that passes few rows would walk a large log from end to end. Such a walk stops after
/// [`LOG_ROWS_PER_PAGE`](postrider_domain::limits::LOG_ROWS_PER_PAGE) rows, and the page names the next one however few
/// rows it holds.
pub async fn list(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    filter: &DeliveryFilter,
    page: PageRequest,
) -> Result<Page<Delivery>, PgError> {
    let search = Search::new(session, tag, tenant, filter, page.before(), page.limit()).await?;
    let chosen = search.choose().await?;
    let columns = DELIVERY_COLUMNS.as_str();
    let mut found = Vec::with_capacity(chosen.walks.len());
    for walk in &chosen.walks {
        let mut query = search.query(*walk, chosen.cut);
        let limit = query.conditions.value(i64::from(page.limit()) + 1);
        let (tables, text, order) = (&query.tables, query.conditions.text(), order_column(*walk));
        let sql = format!("{columns} {tables} WHERE {text} ORDER BY {order} DESC LIMIT {limit}");
        let rows = session.query(&sql, &query.conditions.values()).await?;
        found.push(rows.iter().map(|row| delivery_from_row(row, tag)).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(chosen.merge(page, found))
}

/// Counts up to `max` deliveries that match.
pub async fn count(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    filter: &DeliveryFilter,
    max: u32,
) -> Result<BoundedCount, PgError> {
    let search = Search::new(session, tag, tenant, filter, RowKey::from_i64(i64::MAX), max).await?;
    let chosen = search.choose().await?;
    let mut count = BoundedCount::searched_from(chosen.cut);
    for walk in &chosen.walks {
        let mut query = search.query(*walk, chosen.cut);
        let limit = query.conditions.value(i64::from(max) + 1);
        let (tables, text, order) = (&query.tables, query.conditions.text(), order_column(*walk));
        let sql = format!(
            "SELECT COUNT(*) AS rows FROM (SELECT 1 {tables} WHERE {text} ORDER BY {order} DESC LIMIT {limit}) found"
        );
        let row = session.query_one(&sql, &query.conditions.values()).await?;
        count.add(number(&row, "rows")?, max);
    }
    Ok(count)
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
    let (columns, tables) = (DELIVERY_COLUMNS.as_str(), DELIVERY_TABLES.as_str());
    let sql = format!(
        "{columns} {tables} WHERE d.key = $1 AND d.workspace_key = $2 AND d.mode = $3
           AND ($4 IS NULL OR (ep.project_id = $4 AND e.project_id = $4))"
    );
    let values = (id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    let found = session.query_opt(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    found.map(|row| delivery_from_row(&row, tag)).transpose()
}

/// The deliveries at which strict orders have stopped, the oldest first. Few orders are stopped at a time, so the
/// search begins at them. Their keys are read by a statement of their own: given the keys in a subquery, the planner
/// may read the whole log in key order and look for each row in the subquery.
pub async fn blocking(session: &Session, tag: StoreTag, tenant: Tenant, limit: u32) -> Result<Vec<Delivery>, PgError> {
    let stopped = "SELECT blocked_by FROM ordered_lanes WHERE blocked_since IS NOT NULL";
    let stopped = session.query(stopped, &[]).await?;
    let keys: Vec<i64> = stopped.iter().map(|row| get(row, "blocked_by")).collect::<Result<_, _>>()?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let (columns, tables) = (DELIVERY_COLUMNS.as_str(), DELIVERY_TABLES.as_str());
    let sql = format!(
        "{columns} {tables}
         WHERE d.key = ANY($1) AND d.workspace_key + 0 = $2 AND d.mode = $3
           AND ($4 IS NULL OR (ep.project_id = $4 AND e.project_id = $4))
         ORDER BY d.key LIMIT $5"
    );
    let values = (tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text(), i64::from(limit));
    let rows = session.query(&sql, &[&keys, &values.0, &values.1, &values.2, &values.3]).await?;
    rows.iter().map(|row| delivery_from_row(row, tag)).collect()
}

/// The delivery at which the strict order of this endpoint has stopped.
pub async fn blocking_of(
    session: &Session,
    tag: StoreTag,
    tenant: Tenant,
    endpoint: EndpointId,
) -> Result<Option<Delivery>, PgError> {
    // The number of a lane of events is the key of its endpoint.
    let sql = "SELECT blocked_by FROM ordered_lanes JOIN endpoints ON endpoints.key = lane_key
               WHERE endpoints.id = $1 AND blocked_by IS NOT NULL";
    let Some(row) = session.query_opt(sql, &[&endpoint.to_string()]).await? else { return Ok(None) };
    find_one(session, tag, tenant, DeliveryId::new(key(&row, "blocked_by")?, tag)).await
}
