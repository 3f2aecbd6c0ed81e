//! The search of the log for a replay by filter: forward in time, a bounded number of rows at once. Reads only.

use rusqlite::{Connection, OptionalExtension, Params, params, params_from_iter};

use postrider_domain::id::RowKey;
use postrider_store::column::mode_code;
use postrider_store::filter_replay::{FilterScope, Found};
use postrider_store::log::walk::{ChosenWalks, Walk};
use postrider_store::replay::{Candidate, Verdict};

use super::conditions::Conditions;
use super::search::{PROJECT_ENDPOINTS, Search, index_of};
use crate::machinery::column::coded;
use crate::machinery::reader::ReadTx;

/// The rows to repeat among the next ones behind `after`, at most `limit` of the followed index. With an endpoint only
/// its rows count, up to and with `last`.
pub fn find(
    tx: ReadTx<'_>,
    scope: &FilterScope,
    endpoint: Option<RowKey>,
    (after, last): (RowKey, RowKey),
    limit: usize,
) -> Result<Found, rusqlite::Error> {
    let end = last.as_i64().saturating_add(1).min(scope.before().as_i64());
    let rows = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut search = Search::new(tx, scope.tenant, &scope.filter, RowKey::from_i64(end), rows)?;
    search.since = search.since.max(after.as_i64() + 1);
    if let Some(endpoint) = endpoint {
        search.endpoint_keys = vec![endpoint];
    }
    let chosen = search.choose_ahead(rows)?;
    let to = chosen.cut.unwrap_or(RowKey::from_i64(end - 1));
    search.before = RowKey::from_i64(to.as_i64() + 1);
    let mut found = Vec::new();
    for walk in chosen.walks {
        found.append(&mut search.candidates(scope, walk)?);
    }
    found.sort_unstable_by_key(|row| row.key);
    found.dedup_by_key(|row| row.key);
    Ok(Found { rows: found, to })
}

impl Search<'_> {
    /// The set of walks that reaches furthest ahead with so many rows. Its cut is the newest row that all reach.
    fn choose_ahead(&self, rows: u32) -> Result<ChosenWalks, rusqlite::Error> {
        let mut best: Option<ChosenWalks> = None;
        for walks in Walk::choices(self.tenant, self.filter, &self.endpoint_keys) {
            let rows_each = (rows / u32::try_from(walks.len().max(1)).unwrap_or(u32::MAX)).max(1);
            let mut ends = Vec::new();
            for walk in &walks {
                ends.extend(self.find_end(*walk, rows_each)?);
            }
            let reached = ChosenWalks { walks, cut: ends.into_iter().min() };
            if reached.cut.is_none() {
                return Ok(reached);
            }
            if best.as_ref().is_none_or(|best| best.cut < reached.cut) {
                best = Some(reached);
            }
        }
        Ok(best.unwrap_or(ChosenWalks { walks: Vec::new(), cut: None }))
    }

    /// The last of the next `rows` rows of a walk. `None` if it has fewer.
    fn find_end(&self, walk: Walk, rows: u32) -> Result<Option<RowKey>, rusqlite::Error> {
        let connection = self.tx.connection;
        match walk {
            Walk::OfEvents => {
                let events = self.filter.event_ids.iter().filter(|id| id.tag() == self.tx.tag);
                self.find_first_end("event_key", events.map(|id| id.key().as_i64()).collect(), rows)
            }
            Walk::OfProject => {
                let tenant = self.tenant;
                let values = params![tenant.workspace.as_i64(), tenant.project_text(), mode_code(tenant.mode)];
                let endpoints = connection
                    .prepare_cached(PROJECT_ENDPOINTS)?
                    .query_map(values, |row| row.get(0))?
                    .collect::<Result<Vec<i64>, _>>()?;
                self.find_first_end("endpoint_key", endpoints, rows)
            }
            walk => {
                let mut conditions = Conditions::default();
                self.lead(&mut conditions, walk);
                conditions.and("d.key >= ?", self.since);
                conditions.and("d.key < ?", self.before.as_i64());
                conditions.push(rows - 1);
                let Conditions { text, values } = conditions;
                let sql = format!(
                    "SELECT d.key FROM deliveries d INDEXED BY {} WHERE {text} ORDER BY d.key LIMIT 1 OFFSET ?",
                    index_of(walk)
                );
                one_key(connection, &sql, params_from_iter(values))
            }
        }
    }

    /// The nearest end of the rows with each of these keys in a column.
    fn find_first_end(&self, column: &str, keys: Vec<i64>, rows: u32) -> Result<Option<RowKey>, rusqlite::Error> {
        let rows_each = (i64::from(rows) / i64::try_from(keys.len().max(1)).unwrap_or(i64::MAX)).max(1);
        let index = if column == "event_key" { "deliveries_by_event" } else { "deliveries_by_endpoint" };
        let sql = format!(
            "SELECT key FROM deliveries INDEXED BY {index} WHERE {column} = ?1 AND key >= ?2 AND key < ?3
             ORDER BY key LIMIT 1 OFFSET ?4"
        );
        let mut end: Option<RowKey> = None;
        for key in keys {
            // Nothing behind the nearest end so far can be nearer.
            let before = end.unwrap_or(self.before).as_i64();
            let found = one_key(self.tx.connection, &sql, params![key, self.since, before, rows_each - 1])?;
            end = found.or(end);
        }
        Ok(end)
    }

    fn candidates(&self, scope: &FilterScope, walk: Walk) -> Result<Vec<Candidate>, rusqlite::Error> {
        let Conditions { text, values } = self.conditions(walk, None);
        let (index, is_last) = (index_of(walk), scope.is_last());
        let sql = format!(
            "SELECT d.key, d.endpoint_key, d.event_key,
                    CASE WHEN e.key IS NULL OR e.payload <> 0 OR ep.deleted_at IS NOT NULL OR ep.mode <> d.mode
                         THEN 1 ELSE 2 END AS verdict
             FROM deliveries d INDEXED BY {index} JOIN endpoints ep ON ep.key = d.endpoint_key
             LEFT JOIN events e ON e.key = d.event_key WHERE {text} AND {is_last}"
        );
        self.tx
            .connection
            .prepare_cached(&sql)?
            .query_map(params_from_iter(values), |row| {
                Ok(Candidate {
                    key: RowKey::from_i64(row.get(0)?),
                    endpoint_key: RowKey::from_i64(row.get(1)?),
                    event_key: RowKey::from_i64(row.get(2)?),
                    verdict: coded(row, "verdict", Verdict::from_code)?,
                })
            })?
            .collect()
    }
}

fn one_key(connection: &Connection, sql: &str, values: impl Params) -> Result<Option<RowKey>, rusqlite::Error> {
    connection.prepare_cached(sql)?.query_row(values, |row| Ok(RowKey::from_i64(row.get(0)?))).optional()
}
