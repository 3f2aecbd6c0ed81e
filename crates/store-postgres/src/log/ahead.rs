//! The search of the log for a replay by filter: forward in time, a bounded number of rows at once. Reads only.

use postrider_domain::id::{RowKey, StoreTag};
use postrider_store::filter_replay::{FilterScope, Found};
use postrider_store::log::walk::{ChosenWalks, Walk};
use postrider_store::replay::{Candidate, Verdict};

use super::conditions::Conditions;
use super::search::{Search, order_column};
use crate::machinery::column::{coded, key, opt_int};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};

/// The rows to repeat among the next ones behind `after`, at most `limit` of the followed index. With an endpoint only
/// its rows count, up to and with `last`.
pub async fn find(
    session: &Session,
    tag: StoreTag,
    scope: &FilterScope,
    endpoint: Option<RowKey>,
    (after, last): (RowKey, RowKey),
    limit: usize,
) -> Result<Found, PgError> {
    let end = last.as_i64().saturating_add(1).min(scope.before().as_i64());
    let rows = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut search = Search::new(session, tag, scope.tenant, &scope.filter, RowKey::from_i64(end), rows).await?;
    search.since = search.since.max(RowKey::from_i64(after.as_i64() + 1));
    if let Some(endpoint) = endpoint {
        search.endpoint_keys = vec![endpoint];
    }
    let chosen = search.choose_ahead(rows).await?;
    let to = chosen.cut.unwrap_or(RowKey::from_i64(end - 1));
    search.before = RowKey::from_i64(to.as_i64() + 1);
    let mut found = Vec::new();
    for walk in chosen.walks {
        found.append(&mut search.candidates(scope, walk, rows).await?);
    }
    found.sort_unstable_by_key(|row| row.key);
    found.dedup_by_key(|row| row.key);
    Ok(Found { rows: found, to })
}

impl Search<'_> {
    /// The set of walks that reaches furthest ahead with so many rows. Its cut is the newest row that all reach.
    async fn choose_ahead(&self, rows: u32) -> Result<ChosenWalks, PgError> {
        let mut best: Option<ChosenWalks> = None;
        for walks in Walk::choices(self.tenant, self.filter, &self.endpoint_keys) {
            let rows_each = (rows / u32::try_from(walks.len().max(1)).unwrap_or(u32::MAX)).max(1);
            let mut ends = Vec::new();
            for walk in &walks {
                ends.extend(self.find_end(*walk, rows_each).await?);
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
    async fn find_end(&self, walk: Walk, rows: u32) -> Result<Option<RowKey>, PgError> {
        match walk {
            Walk::OfEvents => {
                let events = self.filter.event_ids.iter().filter(|id| id.tag() == self.tag);
                self.find_first_end("event_key", &events.map(|id| id.key().as_i64()).collect(), rows).await
            }
            Walk::OfProject => self.find_first_end("endpoint_key", &self.project_endpoints, rows).await,
            walk => {
                let mut conditions = Conditions::default();
                conditions.and("d.key >= ?", self.since.as_i64());
                conditions.and("d.key < ?", self.before.as_i64());
                self.lead(&mut conditions, walk);
                let offset = conditions.value(i64::from(rows) - 1);
                let text = conditions.text();
                let sql = format!("SELECT d.key FROM deliveries d WHERE {text} ORDER BY d.key LIMIT 1 OFFSET {offset}");
                let found = self.session.query_opt(&sql, &conditions.values()).await?;
                found.map(|row| key(&row, "key")).transpose()
            }
        }
    }

    /// The nearest end of the rows with each of these keys in a column.
    async fn find_first_end(&self, column: &str, keys: &Vec<i64>, rows: u32) -> Result<Option<RowKey>, PgError> {
        let rows_each = (i64::from(rows) / i64::try_from(keys.len().max(1)).unwrap_or(i64::MAX)).max(1);
        // Events have few rows, which are sorted.
        let order = if column == "event_key" { "d.key + 0" } else { "d.key" };
        let sql = format!(
            "SELECT min(last.key) AS key FROM unnest($1::bigint[]) AS asked (key)
             CROSS JOIN LATERAL (
                 SELECT d.key FROM deliveries d WHERE d.{column} = asked.key AND d.key >= $2 AND d.key < $3
                 ORDER BY {order} LIMIT 1 OFFSET $4) last"
        );
        let parameters: [&dyn Parameter; 4] = [keys, &self.since.as_i64(), &self.before.as_i64(), &(rows_each - 1)];
        let found = self.session.query_one(&sql, &parameters).await?;
        Ok(opt_int(&found, "key")?.map(RowKey::from_i64))
    }

    /// The rows of a walk, of which there are about `rows`.
    async fn candidates(&self, scope: &FilterScope, walk: Walk, rows: u32) -> Result<Vec<Candidate>, PgError> {
        let mut conditions = self.query(walk, None).conditions;
        let merged = i64::try_from(self.project_endpoints.len() + self.filter.event_ids.len()).unwrap_or(i64::MAX);
        let limit = conditions.value(i64::from(rows).saturating_add(merged) + 1);
        let (text, is_last, order) = (conditions.text(), scope.is_last(), order_column(walk));
        // The limit is never reached. It tells the planner that there are few rows, so it follows the walk's index.
        let sql = format!(
            "SELECT d.key, d.endpoint_key, d.event_key,
                    CASE WHEN e.key IS NULL OR e.payload <> 0 OR ep.deleted_at IS NOT NULL OR ep.mode <> d.mode
                         THEN 1 ELSE 2 END AS verdict
             FROM deliveries d JOIN endpoints ep ON ep.key = d.endpoint_key
             LEFT JOIN LATERAL (SELECT * FROM events WHERE key = d.event_key OFFSET 0) e ON true
             WHERE {text} AND {is_last} ORDER BY {order} LIMIT {limit}"
        );
        let candidate = |row| {
            Ok(Candidate {
                key: key(row, "key")?,
                endpoint_key: key(row, "endpoint_key")?,
                event_key: key(row, "event_key")?,
                verdict: coded(row, "verdict", Verdict::from_code)?,
            })
        };
        self.session.query(&sql, &conditions.values()).await?.iter().map(candidate).collect()
    }
}
