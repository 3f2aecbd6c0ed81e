//! The delivery log: the state of each delivery. Writes `deliveries`, for the transactions of the queue.
//!
//! The planner cannot be told which index to use, and may have no statistics for a day that has just begun. So a column
//! that must not lead the walk is written as a sum (`d.key + 0`), which no index serves. Then only the walk's own index
//! fits.

use std::collections::HashMap;
use std::sync::LazyLock;

use tokio_postgres::Row;

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason, Queued};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::tenant::Tenant;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::last_attempt::{is_answer, last_outcome, last_response};
use postrider_store::log::walk::{ChosenWalks, Walk, rows_per_endpoint, stored_outcome};
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;

use super::conditions::Conditions;
use crate::machinery::column::{coded, get, int, key, number, opt_instant, opt_int, opt_number, parsed, unexpected};
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
        "SELECT d.key, d.event_key, e.type, ep.id AS endpoint_id, e.project_id, d.mode, d.status, d.reason, d.cause,
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

/// How the last recorded attempt of a delivery ended.
static LAST_OUTCOME: LazyLock<String> = LazyLock::new(|| last_outcome("d"));
/// What the receiver answered to it.
static LAST_RESPONSE: LazyLock<String> = LazyLock::new(|| last_response("d"));

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
        last_outcome: opt_int(row, "last_outcome")?
            .map(|code| AttemptOutcome::from_code(code).ok_or_else(|| unexpected("deliveries.last_outcome")))
            .transpose()?,
        last_response_status: opt_number(row, "last_response_status")?,
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
    let columns = DELIVERY_COLUMNS.as_str();
    let sql = format!(
        "{columns} {DELIVERY_TABLES} WHERE d.key = $1 AND d.workspace_key = $2 AND d.mode = $3
           AND ($4 IS NULL OR (ep.project_id = $4 AND e.project_id = $4))"
    );
    let values = (id.key().as_i64(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    let found = session.query_opt(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    found.map(|row| delivery_from_row(&row, tag)).transpose()
}

/// The deliveries at which strict orders have stopped, the oldest first. Few orders are stopped at a time, so the
/// search begins at them.
pub async fn blocking(session: &Session, tag: StoreTag, tenant: Tenant, limit: u32) -> Result<Vec<Delivery>, PgError> {
    let columns = DELIVERY_COLUMNS.as_str();
    let sql = format!(
        "{columns} {DELIVERY_TABLES}
         WHERE d.key IN (SELECT blocked_by FROM ordered_lanes WHERE blocked_since IS NOT NULL)
           AND d.workspace_key + 0 = $1 AND d.mode = $2
           AND ($3 IS NULL OR (ep.project_id = $3 AND e.project_id = $3))
         ORDER BY d.key LIMIT $4"
    );
    let values = (tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text(), i64::from(limit));
    let rows = session.query(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    rows.iter().map(|row| delivery_from_row(row, tag)).collect()
}

/// A filter with the rows that it may show: from `since`, before `before`.
struct Search<'t> {
    session: &'t Session,
    tag: StoreTag,
    tenant: Tenant,
    filter: &'t DeliveryFilter,
    /// Those of the filter's endpoints that the tenant has or had.
    endpoint_keys: Vec<RowKey>,
    since: RowKey,
    before: RowKey,
    /// Those of the project that the tenant is narrowed to.
    project_endpoints: Vec<i64>,
    /// Rows that are wanted at most.
    limit: u32,
}

/// The tables and conditions of one walk.
struct Query {
    tables: String,
    conditions: Conditions,
}

impl<'t> Search<'t> {
    async fn new(
        session: &'t Session,
        tag: StoreTag,
        tenant: Tenant,
        filter: &'t DeliveryFilter,
        before: RowKey,
        limit: u32,
    ) -> Result<Self, PgError> {
        let endpoint_keys =
            if filter.endpoint_ids.is_empty() { Vec::new() } else { endpoint_keys(session, tenant, filter).await? };
        let project_endpoints =
            if tenant.project.is_some() { project_endpoints(session, tenant).await? } else { Vec::new() };
        Ok(Self {
            session,
            tag,
            tenant,
            filter,
            endpoint_keys,
            since: filter.since.map_or(RowKey::from_i64(i64::MIN), RowKey::first_at),
            before: filter.until.map_or(before, |until| before.min(RowKey::first_at(until))),
            project_endpoints,
            limit,
        })
    }

    /// The first set of walks that need no cut, or else the one that reaches furthest back.
    async fn choose(&self) -> Result<ChosenWalks, PgError> {
        let mut best = None;
        for walks in Walk::choices(self.tenant, self.filter, &self.endpoint_keys) {
            let mut cut = None;
            for walk in &walks {
                cut = cut.max(match walk {
                    Walk::OfProject => self.find_project_cut().await?,
                    walk if walk.is_sparse(self.tenant, self.filter) => {
                        self.find_cut(*walk, Walk::rows_each(&walks)).await?
                    }
                    _ => None,
                });
            }
            let searched = ChosenWalks::or_further(best, ChosenWalks { walks, cut });
            if searched.cut.is_none() {
                return Ok(searched);
            }
            best = Some(searched);
        }
        Ok(best.unwrap_or(ChosenWalks { walks: Vec::new(), cut: None }))
    }

    /// The oldest row that this page of a sparse walk looks at, if there are more behind it.
    async fn find_cut(&self, walk: Walk, rows: u32) -> Result<Option<RowKey>, PgError> {
        let (table, column) = if walk == Walk::Queue { ("due q", "q.delivery_key") } else { ("deliveries d", "d.key") };
        let mut conditions = Conditions::default();
        conditions.and(&format!("{column} >= ?"), self.since.as_i64());
        conditions.and(&format!("{column} < ?"), self.before.as_i64());
        self.lead(&mut conditions, walk);
        let offset = conditions.value(i64::from(rows));
        let text = conditions.text();
        let sql =
            format!("SELECT {column} AS key FROM {table} WHERE {text} ORDER BY {column} DESC LIMIT 1 OFFSET {offset}");
        let found = self.session.query_opt(&sql, &conditions.values()).await?;
        found.map(|row| key(&row, "key")).transpose()
    }

    /// As [`Self::find_cut`], for the merged rows of the endpoints of a project: behind this row, one of them has more
    /// rows than a page looks at.
    async fn find_project_cut(&self) -> Result<Option<RowKey>, PgError> {
        let is_sparse = Walk::OfProject.is_sparse(self.tenant, self.filter);
        let rows = rows_per_endpoint(self.project_endpoints.len(), self.limit, is_sparse);
        let sql = "SELECT max(last.key) AS key FROM unnest($1::bigint[]) AS endpoint (key)
                   CROSS JOIN LATERAL (
                       SELECT d.key FROM deliveries d
                       WHERE d.endpoint_key = endpoint.key AND d.key >= $2 AND d.key < $3
                       ORDER BY d.key DESC LIMIT 1 OFFSET $4) last";
        let parameters: [&dyn Parameter; 4] =
            [&self.project_endpoints, &self.since.as_i64(), &self.before.as_i64(), &rows];
        let found = self.session.query_one(sql, &parameters).await?;
        Ok(opt_int(&found, "key")?.map(RowKey::from_i64))
    }

    /// The conditions by which an index is entered.
    fn lead(&self, conditions: &mut Conditions, walk: Walk) {
        match walk {
            Walk::OfEvents | Walk::Queue | Walk::OfProject => return,
            Walk::OfEndpoint(key) => return conditions.and("d.endpoint_key = ?", key.as_i64()),
            Walk::Unusual(status) => conditions.and_text(&format!("d.unusual = {}", status.code())),
            Walk::OfOutcome(outcome) => conditions.and_text(&format!("d.last_outcome = {}", outcome.code())),
            Walk::OfCause(cause) => conditions.and_text(&format!("d.cause = {}", cause.code())),
            Walk::OfWorkspace => {}
        }
        conditions.and("d.workspace_key = ?", self.tenant.workspace.as_i64());
        conditions.and("d.mode = ?", mode_code(self.tenant.mode));
    }

    /// The query of one walk with all conditions of the filter.
    fn query(&self, walk: Walk, cut: Option<RowKey>) -> Query {
        let filter = self.filter;
        let mut conditions = Conditions::default();
        let tables = self.tables(walk, &mut conditions, cut.unwrap_or(self.since));
        self.lead(&mut conditions, walk);
        if matches!(walk, Walk::OfEvents | Walk::Queue | Walk::OfProject | Walk::OfEndpoint(_)) {
            conditions.and("d.workspace_key + 0 = ?", self.tenant.workspace.as_i64());
            conditions.and("d.mode + 0 = ?", mode_code(self.tenant.mode));
        }
        if let Some(project) = self.tenant.project {
            // Both: an endpoint may have received events of another project before it came to this one. The planner
            // must not start with either.
            conditions.and("COALESCE(ep.project_id, '') = ?", project.as_str().to_owned());
            conditions.and("COALESCE(e.project_id, '') = ?", project.as_str().to_owned());
        }
        if walk == Walk::OfProject {
            conditions.and("d.endpoint_key = ANY (?)", self.project_endpoints.clone());
        }
        if !matches!(walk, Walk::OfEndpoint(_)) {
            conditions.and_any("d.endpoint_key + 0", self.endpoint_keys.iter().map(|key| key.as_i64()));
        }
        // An id from another store names no event here.
        let events: Vec<i64> =
            filter.event_ids.iter().map(|id| if id.tag() == self.tag { id.key().as_i64() } else { -1 }).collect();
        // A delivery is younger than its event: so only some days are looked at.
        conditions.and_any("d.event_key", events.iter().copied());
        if let Some(oldest) = events.iter().min() {
            conditions.and("d.key >= ?", *oldest);
        }
        if !filter.statuses.is_empty() {
            conditions.and_any("d.status", filter.possible_statuses().into_iter().map(DeliveryStatus::code));
        }
        conditions.and_any("d.cause + 0", filter.causes.iter().map(|cause| cause.code()));
        conditions.and_any(&LAST_OUTCOME, filter.outcomes.iter().map(|outcome| outcome.code()));
        if let Some(condition) = is_answer(&LAST_RESPONSE, &filter.response_statuses) {
            conditions.and_text(&condition);
        }
        conditions.and_any_text("e.type", filter.event_types.iter().map(ToString::to_string));
        conditions.and_any_text("e.project_id", filter.project_ids.iter().map(|project| project.as_str().to_owned()));
        Query { tables, conditions }
    }

    /// The tables of a walk. Adds the range as a condition.
    fn tables(&self, walk: Walk, conditions: &mut Conditions, since: RowKey) -> String {
        if walk != Walk::Queue {
            conditions.and("d.key >= ?", since.as_i64());
            conditions.and("d.key < ?", self.before.as_i64());
            return DELIVERY_TABLES.to_owned();
        }
        let (since, before) = (conditions.value(since.as_i64()), conditions.value(self.before.as_i64()));
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
}

/// The endpoints of a project, deleted ones too: their deliveries are still shown.
async fn project_endpoints(session: &Session, tenant: Tenant) -> Result<Vec<i64>, PgError> {
    let sql = "SELECT key FROM endpoints WHERE workspace_key = $1 AND project_id = $2 AND mode = $3";
    let parameters: [&dyn Parameter; 3] = [&tenant.workspace.as_i64(), &tenant.project_text(), &mode_code(tenant.mode)];
    session.query(sql, &parameters).await?.iter().map(|row| int(row, "key")).collect()
}

async fn endpoint_keys(session: &Session, tenant: Tenant, filter: &DeliveryFilter) -> Result<Vec<RowKey>, PgError> {
    let sql = "SELECT key FROM endpoints WHERE id = ANY ($1) AND workspace_key + 0 = $2 AND mode + 0 = $3";
    let ids: Vec<String> = filter.endpoint_ids.iter().map(ToString::to_string).collect();
    let rows = session.query(sql, &[&ids, &tenant.workspace.as_i64(), &mode_code(tenant.mode)]).await?;
    rows.iter().map(|row| key(row, "key")).collect()
}

const fn order_column(walk: Walk) -> &'static str {
    match walk {
        Walk::Queue => "q.delivery_key",
        // Events have few rows, and those of a project are cut before: they are sorted.
        Walk::OfEvents | Walk::OfProject => "d.key + 0",
        Walk::Unusual(_) | Walk::OfOutcome(_) | Walk::OfCause(_) | Walk::OfEndpoint(_) | Walk::OfWorkspace => "d.key",
    }
}
