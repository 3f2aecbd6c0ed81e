//! The delivery log: a delivery, its end, and pages of both.
//!
//! Writes `deliveries`. Only retention removes rows (`upkeep/retention.rs`).

use std::sync::LazyLock;

use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason, Queued};
use postrider_domain::endpoint::ProjectId;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EventId, RowKey, StoreTag};
use postrider_domain::page::{BoundedCount, Page, PageRequest};
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::log::last_attempt::{last_outcome, last_response};
use postrider_store::log::walk::{ChosenWalks, Walk, rows_per_endpoint, stored_outcome};
use postrider_store::publish::delivery::NewDelivery;
use postrider_store::queue::order::NOT_YET;
use postrider_store::stats::Counted;

use super::conditions::Conditions;
use crate::machinery::column::{coded, parsed, unexpected};
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

const DELIVERY_TABLES: &str = "FROM deliveries d
     JOIN events e ON e.key = d.event_key
     JOIN endpoints ep ON ep.key = d.endpoint_key
     LEFT JOIN due q ON q.delivery_key = d.key
     LEFT JOIN lanes l ON l.lane_key = q.lane_key";

fn delivery_from_row(row: &Row<'_>, tag: StoreTag) -> Result<Delivery, rusqlite::Error> {
    let queued = queued_from_row(row, tag)?;
    Ok(Delivery {
        id: DeliveryId::new(RowKey::from_i64(row.get("key")?), tag),
        event_id: EventId::new(RowKey::from_i64(row.get("event_key")?), tag),
        event_type: EventTypeName::from_stored(row.get_ref("type")?.as_str()?),
        endpoint_id: parsed(row, "endpoint_id")?,
        project_id: row.get("project_id")?,
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
        not_before: instant("not_before")?,
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

/// A filter with the rows that it may show: `since` included, `before` not.
struct Search<'t> {
    tx: ReadTx<'t>,
    tenant: Tenant,
    filter: &'t DeliveryFilter,
    /// Those of the filter's endpoints that the tenant has or had.
    endpoint_keys: Vec<RowKey>,
    since: i64,
    before: RowKey,
    /// Rows that are wanted at most.
    limit: u32,
}

impl<'t> Search<'t> {
    fn new(
        tx: ReadTx<'t>,
        tenant: Tenant,
        filter: &'t DeliveryFilter,
        before: RowKey,
        limit: u32,
    ) -> Result<Self, rusqlite::Error> {
        let mut endpoint_keys = Vec::new();
        for endpoint in &filter.endpoint_ids {
            let sql = "SELECT key FROM endpoints WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3";
            let values = params![endpoint.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode)];
            let found = tx.connection.prepare_cached(sql)?.query_row(values, |row| row.get(0)).optional()?;
            endpoint_keys.extend(found.map(RowKey::from_i64));
        }
        Ok(Self {
            tx,
            tenant,
            filter,
            endpoint_keys,
            since: filter.since.map_or(i64::MIN, |since| RowKey::first_at(since).as_i64()),
            before: filter.until.map_or(before, |until| before.min(RowKey::first_at(until))),
            limit,
        })
    }

    /// The first set of walks that need no cut, or else the one that reaches furthest back.
    fn choose(&self) -> Result<ChosenWalks, rusqlite::Error> {
        let mut best = None;
        for walks in Walk::choices(self.tenant, self.filter, &self.endpoint_keys) {
            let mut cut = None;
            for walk in &walks {
                cut = cut.max(match walk {
                    Walk::OfProject => self.find_project_cut()?,
                    walk if walk.is_sparse(self.tenant, self.filter) => {
                        self.find_cut(*walk, Walk::rows_each(&walks))?
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

    /// The oldest row that this walk looks at. `None` if there are no more rows behind it.
    fn find_cut(&self, walk: Walk, rows: u32) -> Result<Option<RowKey>, rusqlite::Error> {
        let key = key_of(walk);
        let mut conditions = Conditions::default();
        self.lead(&mut conditions, walk);
        conditions.and(&format!("{key} >= ?"), self.since);
        conditions.and(&format!("{key} < ?"), self.before.as_i64());
        conditions.push(rows);
        let table = match walk {
            Walk::Queue => "due q".to_owned(),
            _ => format!("deliveries d INDEXED BY {}", index_of(walk)),
        };
        let Conditions { text, values } = conditions;
        self.tx
            .connection
            .prepare_cached(&format!("SELECT {key} FROM {table} WHERE {text} ORDER BY {key} DESC LIMIT 1 OFFSET ?"))?
            .query_row(params_from_iter(values), |row| Ok(RowKey::from_i64(row.get(0)?)))
            .optional()
    }

    /// As [`Self::find_cut`], for the merged rows of the endpoints of a project: behind this row, one of them has more
    /// rows than a page looks at.
    fn find_project_cut(&self) -> Result<Option<RowKey>, rusqlite::Error> {
        let tenant = self.tenant;
        let endpoints = self
            .tx
            .connection
            .prepare_cached(PROJECT_ENDPOINTS)?
            .query_map(params![tenant.workspace.as_i64(), tenant.project_text(), mode_code(tenant.mode)], |row| {
                row.get(0)
            })?
            .collect::<Result<Vec<i64>, _>>()?;
        let is_sparse = Walk::OfProject.is_sparse(tenant, self.filter);
        let rows = rows_per_endpoint(endpoints.len(), self.limit, is_sparse);
        let mut statement = self.tx.connection.prepare_cached(
            "SELECT key FROM deliveries INDEXED BY deliveries_by_endpoint
             WHERE endpoint_key = ?1 AND key >= ?2 AND key < ?3 ORDER BY key DESC LIMIT 1 OFFSET ?4",
        )?;
        let mut cut = None;
        for endpoint in endpoints {
            // Nothing behind the cut so far can move it forward.
            let since = cut.map_or(self.since, RowKey::as_i64);
            let range = params![endpoint, since, self.before.as_i64(), rows];
            let found = statement.query_row(range, |row| row.get(0)).optional()?;
            cut = found.map(RowKey::from_i64).or(cut);
        }
        Ok(cut)
    }

    /// The conditions by which an index is entered.
    fn lead(&self, conditions: &mut Conditions, walk: Walk) {
        // A number in the text, so that the planner sees which partial index fits.
        match walk {
            Walk::OfEvents | Walk::Queue | Walk::OfProject => return,
            Walk::OfEndpoint(key) => return conditions.and("d.endpoint_key = ?", key.as_i64()),
            Walk::Unusual(status) => conditions.and_text(&format!("d.status = {}", status.code())),
            Walk::OfOutcome(outcome) => conditions.and_text(&format!("d.last_outcome = {}", outcome.code())),
            Walk::OfCause(cause) => conditions.and_text(&format!("d.cause = {}", cause.code())),
            Walk::OfWorkspace => {}
        }
        conditions.and("d.workspace_key = ?", self.tenant.workspace.as_i64());
        conditions.and("d.mode = ?", mode_code(self.tenant.mode));
    }

    /// All conditions of the filter, for one walk.
    fn conditions(&self, walk: Walk, cut: Option<RowKey>) -> Conditions {
        let (filter, key) = (self.filter, key_of(walk));
        let mut conditions = Conditions::default();
        self.lead(&mut conditions, walk);
        if matches!(walk, Walk::OfEvents | Walk::Queue | Walk::OfProject | Walk::OfEndpoint(_)) {
            conditions.and("d.workspace_key = ?", self.tenant.workspace.as_i64());
            conditions.and("d.mode = ?", mode_code(self.tenant.mode));
        }
        if let Some(project) = self.tenant.project {
            // Both: an endpoint may have received events of another project before it came to this one.
            conditions.and("ep.project_id = ?", project.as_str().to_owned());
            conditions.and("e.project_id = ?", project.as_str().to_owned());
            if walk == Walk::OfProject {
                conditions.and_text(&format!("d.endpoint_key IN ({PROJECT_ENDPOINTS})"));
                conditions.push(self.tenant.workspace.as_i64());
                conditions.push(project.as_str().to_owned());
                conditions.push(mode_code(self.tenant.mode));
            }
        }
        conditions.and(&format!("{key} < ?"), self.before.as_i64());
        conditions.and(&format!("{key} >= ?"), cut.map_or(self.since, RowKey::as_i64));
        if !matches!(walk, Walk::OfEndpoint(_)) {
            conditions.and_any("d.endpoint_key", self.endpoint_keys.iter().map(|key| key.as_i64()));
        }
        // The id of an event in another store matches nothing here.
        let events = filter.event_ids.iter().map(|id| if id.tag() == self.tx.tag { id.key().as_i64() } else { -1 });
        conditions.and_any("d.event_key", events);
        if !filter.statuses.is_empty() {
            conditions.and_any("d.status", filter.possible_statuses().into_iter().map(DeliveryStatus::code));
        }
        conditions.and_any("d.cause", filter.causes.iter().map(|cause| cause.code()));
        conditions.and_any(&LAST_OUTCOME, filter.outcomes.iter().map(|outcome| outcome.code()));
        conditions.and_answers(&LAST_RESPONSE, &filter.response_statuses);
        conditions.and_any("e.type", filter.event_types.iter().map(ToString::to_string));
        conditions.and_any("e.project_id", filter.project_ids.iter().map(|project| project.as_str().to_owned()));
        conditions
    }
}

/// The endpoints of a project, deleted ones too: their deliveries are still shown.
const PROJECT_ENDPOINTS: &str = "SELECT key FROM endpoints WHERE workspace_key = ? AND project_id = ? AND mode = ?";

/// How the last recorded attempt of a delivery ended.
static LAST_OUTCOME: LazyLock<String> = LazyLock::new(|| last_outcome("d"));
/// What the receiver answered to it.
static LAST_RESPONSE: LazyLock<String> = LazyLock::new(|| last_response("d"));

/// The tables of a page.
// Differs from PostgreSQL: the index is fixed. The planner has no statistics here, and might choose another.
fn tables_of(walk: Walk) -> String {
    let (first, queue) = match walk {
        Walk::Queue => ("due q CROSS JOIN deliveries d ON d.key = q.delivery_key".to_owned(), ""),
        _ => (format!("deliveries d INDEXED BY {}", index_of(walk)), " LEFT JOIN due q ON q.delivery_key = d.key"),
    };
    format!(
        "FROM {first} JOIN events e ON e.key = d.event_key JOIN endpoints ep ON ep.key = d.endpoint_key{queue}
         LEFT JOIN lanes l ON l.lane_key = q.lane_key"
    )
}

const fn index_of(walk: Walk) -> &'static str {
    match walk {
        Walk::OfEvents => "deliveries_by_event",
        Walk::Queue => "",
        Walk::Unusual(_) => "deliveries_unusual",
        Walk::OfOutcome(_) => "deliveries_by_outcome",
        Walk::OfCause(_) => "deliveries_by_cause",
        Walk::OfEndpoint(_) | Walk::OfProject => "deliveries_by_endpoint",
        Walk::OfWorkspace => "deliveries_by_workspace",
    }
}

const fn key_of(walk: Walk) -> &'static str {
    if matches!(walk, Walk::Queue) { "q.delivery_key" } else { "d.key" }
}
