//! The search of the delivery log by a filter: which indexes it follows, and its conditions. Reads only.
//!
//! The planner cannot be told which index to use, and may have no statistics for a day that has just begun. So a column
//! that must not lead the walk is written as a sum (`d.key + 0`), which no index serves. Then only the walk's own index
//! fits.

use std::sync::LazyLock;

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::id::{RowKey, StoreTag};
use postrider_domain::tenant::Tenant;
use postrider_store::column::mode_code;
use postrider_store::log::last_attempt::{is_answer, last_outcome, last_response};
use postrider_store::log::walk::{ChosenWalks, Walk, rows_per_endpoint};

use super::conditions::Conditions;
use crate::machinery::column::{int, key, opt_int};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};

/// A filter with the rows that it may show: from `since`, before `before`.
pub struct Search<'t> {
    pub(super) session: &'t Session,
    pub(super) tag: StoreTag,
    pub(super) tenant: Tenant,
    pub(super) filter: &'t DeliveryFilter,
    /// Those of the filter's endpoints that the tenant has or had.
    pub(super) endpoint_keys: Vec<RowKey>,
    pub(super) since: RowKey,
    pub(super) before: RowKey,
    /// Those of the project that the tenant is narrowed to.
    pub(super) project_endpoints: Vec<i64>,
    /// Rows that are wanted at most.
    pub(super) limit: u32,
}

/// The tables and conditions of one walk.
pub struct Query {
    pub tables: String,
    pub conditions: Conditions,
}

impl<'t> Search<'t> {
    pub async fn new(
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
    pub async fn choose(&self) -> Result<ChosenWalks, PgError> {
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
    pub(super) fn lead(&self, conditions: &mut Conditions, walk: Walk) {
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
    pub fn query(&self, walk: Walk, cut: Option<RowKey>) -> Query {
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
            return DELIVERY_TABLES.clone();
        }
        let (since, before) = (conditions.value(since.as_i64()), conditions.value(self.before.as_i64()));
        // OFFSET 0 keeps the planner from starting with the log.
        format!(
            "FROM (SELECT * FROM due WHERE delivery_key >= {since} AND delivery_key < {before}
                       ORDER BY delivery_key DESC OFFSET 0) q
                 CROSS JOIN LATERAL (SELECT * FROM deliveries WHERE key = q.delivery_key OFFSET 0) d
                 {OF_DELIVERY}"
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

pub const fn order_column(walk: Walk) -> &'static str {
    match walk {
        Walk::Queue => "q.delivery_key",
        // Events have few rows, and those of a project are cut before: they are sorted.
        Walk::OfEvents | Walk::OfProject => "d.key + 0",
        Walk::Unusual(_) | Walk::OfOutcome(_) | Walk::OfCause(_) | Walk::OfEndpoint(_) | Walk::OfWorkspace => "d.key",
    }
}

/// How the last recorded attempt of a delivery ended.
pub static LAST_OUTCOME: LazyLock<String> = LazyLock::new(|| last_outcome("d"));
/// What the receiver answered to it.
pub static LAST_RESPONSE: LazyLock<String> = LazyLock::new(|| last_response("d"));

/// What belongs to a row of a delivery and of the queue. OFFSET 0 keeps the planner from starting with one of these: a
/// filter by type or project would have it read all events of a day, those of other tenants too.
const OF_DELIVERY: &str = "CROSS JOIN LATERAL (SELECT * FROM events WHERE key = d.event_key OFFSET 0) e
     CROSS JOIN LATERAL (SELECT * FROM endpoints WHERE key = d.endpoint_key OFFSET 0) ep
     LEFT JOIN LATERAL (SELECT * FROM lanes WHERE lane_key = q.lane_key OFFSET 0) l ON true";

/// The tables of a walk through the log.
pub static DELIVERY_TABLES: LazyLock<String> = LazyLock::new(|| {
    format!(
        "FROM deliveries d LEFT JOIN LATERAL (SELECT * FROM due WHERE delivery_key = d.key OFFSET 0) q ON true
         {OF_DELIVERY}"
    )
});
