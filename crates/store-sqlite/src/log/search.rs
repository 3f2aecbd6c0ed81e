//! The search of the delivery log by a filter: which indexes it follows, and its conditions. Reads only.

use std::sync::LazyLock;

use rusqlite::{OptionalExtension, params, params_from_iter};

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::id::RowKey;
use postrider_domain::tenant::Tenant;
use postrider_store::column::mode_code;
use postrider_store::log::last_attempt::{last_outcome, last_response};
use postrider_store::log::walk::{ChosenWalks, Walk, rows_per_endpoint};

use super::conditions::Conditions;
use crate::machinery::reader::ReadTx;

/// A filter with the rows that it may show: `since` included, `before` not.
pub struct Search<'t> {
    pub(super) tx: ReadTx<'t>,
    pub(super) tenant: Tenant,
    pub(super) filter: &'t DeliveryFilter,
    /// Those of the filter's endpoints that the tenant has or had.
    pub(super) endpoint_keys: Vec<RowKey>,
    pub(super) since: i64,
    pub(super) before: RowKey,
    /// Rows that are wanted at most.
    pub(super) limit: u32,
}

impl<'t> Search<'t> {
    pub fn new(
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
    pub fn choose(&self) -> Result<ChosenWalks, rusqlite::Error> {
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
    pub(super) fn lead(&self, conditions: &mut Conditions, walk: Walk) {
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
    pub fn conditions(&self, walk: Walk, cut: Option<RowKey>) -> Conditions {
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
pub const PROJECT_ENDPOINTS: &str = "SELECT key FROM endpoints WHERE workspace_key = ? AND project_id = ? AND mode = ?";

/// How the last recorded attempt of a delivery ended.
pub static LAST_OUTCOME: LazyLock<String> = LazyLock::new(|| last_outcome("d"));
/// What the receiver answered to it.
pub static LAST_RESPONSE: LazyLock<String> = LazyLock::new(|| last_response("d"));

/// The tables of a page.
// Differs from PostgreSQL: the index is fixed. The planner has no statistics here, and might choose another.
pub fn tables_of(walk: Walk) -> String {
    let (first, queue) = match walk {
        Walk::Queue => ("due q CROSS JOIN deliveries d ON d.key = q.delivery_key".to_owned(), ""),
        _ => (format!("deliveries d INDEXED BY {}", index_of(walk)), " LEFT JOIN due q ON q.delivery_key = d.key"),
    };
    format!(
        "FROM {first} JOIN events e ON e.key = d.event_key JOIN endpoints ep ON ep.key = d.endpoint_key{queue}
         LEFT JOIN lanes l ON l.lane_key = q.lane_key"
    )
}

pub const fn index_of(walk: Walk) -> &'static str {
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

pub const fn key_of(walk: Walk) -> &'static str {
    if matches!(walk, Walk::Queue) { "q.delivery_key" } else { "d.key" }
}
