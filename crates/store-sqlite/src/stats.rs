//! Statistics: the rollups of each group of writes, their sums, and the questions that they answer. The rules stand in
//! `postrider_store::stats`.
//!
//! The writer gathers the counts of a group and writes them before it commits: one row for each count, however many
//! events and outcomes the group has.
//!
//! Writes `rollups`, and the progress of the sums in `meta`.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::limits;
use postrider_domain::stats::{
    BucketSize, Counter, EndpointActivity, QueueState, StatsPeriod, StatsScope, StatsSeries,
};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::mode_code;
use postrider_store::stats::{
    COUNTED_SINCE, FoldCursor, FoldProgress, FoldStep, PROGRESS, RollupKey, RollupRow, WHOLE_TIME, complete_since,
    counted_since_from, endpoint_names, folded, narrowed, series, sources,
};
use postrider_store::{Stats, StoreError};

use crate::SqliteStore;
use crate::machinery::column::unexpected;
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::WriteTx;

pub const ADD: &str =
    "INSERT INTO rollups (size, start, workspace_key, mode, endpoint_key, name, counter, shard, count)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 0, ?8)
     ON CONFLICT (size, start, workspace_key, mode, endpoint_key, name, counter, shard) DO UPDATE
     SET count = CASE WHEN excluded.size = 3 THEN max(count, excluded.count) ELSE count + excluded.count END";

pub const SELECT_COUNTS: &str = "SELECT counter, count FROM rollups
     WHERE size = ?1 AND start = ?2 AND workspace_key = ?3 AND mode = ?4 AND endpoint_key = ?5
       AND name >= ?6 AND name <= ?7";

/// As [`SELECT_COUNTS`], of all endpoints from one key to another.
pub const SELECT_COUNTS_BETWEEN: &str = "SELECT endpoint_key, counter, count FROM rollups
     WHERE size = ?1 AND start = ?2 AND workspace_key = ?3 AND mode = ?4 AND endpoint_key BETWEEN ?5 AND ?6
       AND name >= ?7 AND name <= ?8";

pub const SELECT_EVENTS_OF_PROJECT: &str = "SELECT counter, count FROM rollups
     WHERE size = ?1 AND start = ?2 AND workspace_key = ?3 AND mode = ?4 AND endpoint_key = 0 AND name = ?5
       AND counter = ?6";

pub const SELECT_EVENTS_BY_TYPE: &str = "SELECT name, count FROM rollups
     WHERE size = ?1 AND start = ?2 AND workspace_key = ?3 AND mode = ?4 AND endpoint_key = 0 AND name > ''
       AND counter = ?5";

pub const SELECT_TO_FOLD: &str =
    "SELECT start, workspace_key, mode, endpoint_key, name, counter, shard, count FROM rollups
     WHERE size = ?1 AND (start, workspace_key, mode, endpoint_key, name, counter, shard) > (?2, ?3, ?4, ?5, ?6, ?7, ?8)
       AND start < ?9
     ORDER BY start, workspace_key, mode, endpoint_key, name, counter, shard LIMIT ?10";

/// Writes the counts of the group. Call it before the commit.
pub fn flush(tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
    if tx.rollups.is_empty() {
        return Ok(());
    }
    let rows = tx.rollups.take(tx.now);
    add(tx.connection, &rows)
}

fn add(connection: &Connection, rows: &[RollupRow]) -> Result<(), rusqlite::Error> {
    let mut statement = connection.prepare_cached(ADD)?;
    for RollupRow { size, start, key, count } in rows {
        let RollupKey { tenant: (workspace, mode), endpoint, name, counter } = key;
        statement.execute(params![size, start, workspace, mode, endpoint, name, counter, count])?;
    }
    Ok(())
}

/// Removes what is kept of an endpoint for as long as it exists.
pub fn forget_endpoint(tx: &WriteTx<'_>, endpoint: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "DELETE FROM rollups WHERE size = ?2 AND start = 0 AND endpoint_key = ?1 AND mode IN (0, 1)
             AND workspace_key = (SELECT workspace_key FROM endpoints WHERE key = ?1)",
        )?
        .execute(params![endpoint.as_i64(), WHOLE_TIME])?;
    Ok(())
}

/// Removes what is kept of a workspace for as long as it exists.
pub fn forget_workspace(tx: &WriteTx<'_>, workspace: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached("DELETE FROM rollups WHERE size = ?2 AND start = 0 AND workspace_key = ?1")?
        .execute(params![workspace.as_i64(), WHOLE_TIME])?;
    Ok(())
}

/// Notes that an endpoint, or the order of its deliveries, no longer needs somebody.
pub fn trouble_ended(tx: &mut WriteTx<'_>, endpoint: RowKey) -> Result<(), rusqlite::Error> {
    let tenant = tx
        .connection
        .prepare_cached("SELECT workspace_key, mode FROM endpoints WHERE key = ?1")?
        .query_row([endpoint.as_i64()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some(tenant) = tenant {
        tx.rollups.trouble_ended(tenant, tx.now);
    }
    Ok(())
}

/// One step of [`Upkeep::fold_rollups`](postrider_store::Upkeep::fold_rollups).
pub fn fold(tx: &mut WriteTx<'_>, limit: usize) -> Result<bool, rusqlite::Error> {
    let progress = find_progress(tx.connection)?.at(tx.now);
    let Some(step) = progress.step(tx.now) else { return Ok(false) };
    let rows = rows_to_fold(tx.connection, &step, limit)?;
    let last = rows.last().map(|(cursor, _)| cursor.clone()).filter(|_| rows.len() == limit);
    add(tx.connection, &folded(&step, rows.into_iter().map(|(_, row)| row)))?;
    let progress = progress.after_step(&step, last);
    set_progress(tx.connection, &progress)?;
    Ok(progress.step(tx.now).is_some())
}

fn rows_to_fold(
    connection: &Connection,
    step: &FoldStep,
    limit: usize,
) -> Result<Vec<(FoldCursor, RollupRow)>, rusqlite::Error> {
    let FoldCursor { start, key: RollupKey { tenant: (workspace, mode), endpoint, name, counter }, shard } =
        &step.after;
    let closed = step.closed.millis();
    let parameters = params![step.from.code(), start, workspace, mode, endpoint, name, counter, shard, closed, limit];
    connection
        .prepare_cached(SELECT_TO_FOLD)?
        .query_map(parameters, |row| {
            let key = RollupKey {
                tenant: (row.get(1)?, row.get(2)?),
                endpoint: row.get(3)?,
                name: row.get(4)?,
                counter: row.get(5)?,
            };
            let (size, start, count) = (step.from.code(), row.get(0)?, row.get(7)?);
            let cursor = FoldCursor { start, key: key.clone(), shard: row.get(6)? };
            Ok((cursor, RollupRow { size, start, key, count }))
        })?
        .collect()
}

/// One step of [`Upkeep::remove_aged_rollups`](postrider_store::Upkeep::remove_aged_rollups).
pub fn remove_aged(tx: &WriteTx<'_>, log: Duration, limit: usize) -> Result<bool, rusqlite::Error> {
    let mut progress = find_progress(tx.connection)?;
    let mut is_more = false;
    for size in BucketSize::ALL {
        let before = progress.removable(size, log, tx.now);
        let removed = remove(tx.connection, size, before, limit)?;
        if removed > 0 {
            progress = progress.after_removal(size, before);
            set_progress(tx.connection, &progress)?;
        }
        is_more |= removed >= limit;
    }
    Ok(is_more)
}

fn remove(
    connection: &Connection,
    size: BucketSize,
    before: Timestamp,
    limit: usize,
) -> Result<usize, rusqlite::Error> {
    const KEY: &str = "size, start, workspace_key, mode, endpoint_key, name, counter, shard";
    connection
        .prepare_cached(&format!(
            "DELETE FROM rollups WHERE ({KEY}) IN
                 (SELECT {KEY} FROM rollups WHERE size = ?1 AND start < ?2 ORDER BY {KEY} LIMIT ?3)"
        ))?
        .execute(params![size.code(), before.millis(), limit])
}

fn find_progress(connection: &Connection) -> Result<FoldProgress, rusqlite::Error> {
    let text = find_fact(connection, PROGRESS)?;
    text.map_or_else(
        || Ok(FoldProgress::default()),
        |text| FoldProgress::from_text(&text).ok_or_else(|| unexpected("meta.rollups")),
    )
}

fn set_progress(connection: &Connection, progress: &FoldProgress) -> Result<(), rusqlite::Error> {
    let sql = "INSERT INTO meta (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    connection.prepare_cached(sql)?.execute(params![PROGRESS, progress.to_text().into_bytes()])?;
    Ok(())
}

fn find_fact(connection: &Connection, name: &str) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

#[async_trait]
impl Stats for SqliteStore {
    async fn stats(&self, tenant: Tenant, scope: StatsScope, period: StatsPeriod) -> Result<StatsSeries, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| {
            let book = Book::open(tx, tenant, now)?;
            let scope = narrowed(tenant, scope);
            let rows = scope.as_ref().map_or_else(|| Ok(Vec::new()), |scope| book.rows_of(scope, period))?;
            let since = complete_since(period.bucket(), book.counted_since()?, &book.progress);
            Ok(series(period, scope.as_ref(), since, rows))
        })
        .await
    }

    async fn endpoint_activity(
        &self,
        tenant: Tenant,
        endpoints: Vec<EndpointId>,
        period: StatsPeriod,
    ) -> Result<Vec<EndpointActivity>, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| {
            let book = Book::open(tx, tenant, now)?;
            endpoints.into_iter().map(|id| book.activity(id, period)).collect()
        })
        .await
    }

    async fn events_by_type(&self, tenant: Tenant, period: StatsPeriod) -> Result<Vec<(String, u64)>, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| Book::open(tx, tenant, now)?.by_type(Counter::EventsOfType, period)).await
    }

    async fn misfits_by_type(&self, tenant: Tenant, period: StatsPeriod) -> Result<Vec<(String, u64)>, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| Book::open(tx, tenant, now)?.by_type(Counter::MisfitsOfType, period)).await
    }

    async fn last_trouble(&self, tenant: Tenant) -> Result<Option<Timestamp>, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| Book::open(tx, tenant, now)?.last_trouble()).await
    }

    async fn queue_state(&self, tenant: Tenant, endpoint: Option<EndpointId>) -> Result<QueueState, StoreError> {
        let now = self.clock.now();
        self.read(move |tx| {
            let book = Book::open(tx, tenant, now)?;
            match endpoint {
                None => book.queue_of_workspace(),
                Some(id) => match book.find_endpoint(id)? {
                    Some(key) => book.queue_of_endpoint(key),
                    None => Ok(QueueState::default()),
                },
            }
        })
        .await
    }
}

/// A tenant's rollups in one snapshot.
struct Book<'c> {
    connection: &'c Connection,
    tenant: Tenant,
    progress: FoldProgress,
    now: Timestamp,
}

/// The name of the rows of a workspace as a whole.
const WHOLE_WORKSPACE: (&str, &str) = ("", "");

/// From this number of endpoints on, the rows of a range are read.
const RANGE_ENDPOINTS: usize = 8;
/// At most this many times as many endpoints as were asked for are between the first and the last of them.
const RANGE_SHARE: usize = 8;

/// Start, counter and count.
type CountRow = (i64, Counter, i64);

impl<'c> Book<'c> {
    fn open(tx: ReadTx<'c>, tenant: Tenant, now: Timestamp) -> Result<Self, rusqlite::Error> {
        Ok(Self { connection: tx.connection, tenant, progress: find_progress(tx.connection)?, now })
    }

    fn counted_since(&self) -> Result<Option<Timestamp>, rusqlite::Error> {
        let text = find_fact(self.connection, COUNTED_SINCE)?;
        text.map(|text| counted_since_from(&text).ok_or_else(|| unexpected("meta.rollups_since"))).transpose()
    }

    fn codes(&self) -> (i64, i64) {
        (self.tenant.workspace.as_i64(), mode_code(self.tenant.mode))
    }

    fn rows_of(&self, scope: &StatsScope, period: StatsPeriod) -> Result<Vec<CountRow>, rusqlite::Error> {
        match scope {
            StatsScope::Workspace => self.rows(&[0], WHOLE_WORKSPACE, period),
            StatsScope::Endpoint(id) => {
                self.rows(&Vec::from_iter(self.find_endpoint(*id)?), endpoint_names(None), period)
            }
            StatsScope::EndpointOfProject(id, project) => {
                let of_project = self.endpoints_of_project(project.as_str())?;
                let endpoint = self.find_endpoint(*id)?.filter(|key| of_project.contains(key));
                self.rows(&Vec::from_iter(endpoint), endpoint_names(Some(project)), period)
            }
            StatsScope::Project(project) => {
                let endpoints = self.endpoints_of_project(project.as_str())?;
                let mut rows = self.rows(&endpoints, endpoint_names(Some(project)), period)?;
                self.events_of_project(project.as_str(), period, &mut rows)?;
                Ok(rows)
            }
        }
    }

    /// The counts of endpoints under names from the first to the last.
    fn rows(
        &self,
        endpoints: &[i64],
        names: (&str, &str),
        period: StatsPeriod,
    ) -> Result<Vec<CountRow>, rusqlite::Error> {
        if let Some(range) = self.range_of(endpoints)? {
            return self.rows_between(endpoints, range, names, period);
        }
        let (workspace, mode) = self.codes();
        let mut statement = self.connection.prepare_cached(SELECT_COUNTS)?;
        let mut rows = Vec::new();
        for source in sources(period, &self.progress, self.now) {
            for start in source.starts() {
                for endpoint in endpoints {
                    let parameters = params![source.size.code(), start, workspace, mode, endpoint, names.0, names.1];
                    let mut found = statement.query(parameters)?;
                    while let Some(row) = found.next()? {
                        rows.push(count_row(start, row)?);
                    }
                }
            }
        }
        Ok(rows)
    }

    /// The keys from the first to the last of many endpoints, when few other endpoints are between them. Then one look
    /// at each bucket replaces one for each endpoint and bucket.
    fn range_of(&self, endpoints: &[i64]) -> Result<Option<(i64, i64)>, rusqlite::Error> {
        let (Some(first), Some(last)) = (endpoints.iter().min(), endpoints.iter().max()) else { return Ok(None) };
        if endpoints.len() < RANGE_ENDPOINTS {
            return Ok(None);
        }
        let (workspace, mode) = self.codes();
        let most = endpoints.len() * RANGE_SHARE;
        let between: usize = self
            .connection
            .prepare_cached(
                "SELECT COUNT(*) FROM
                     (SELECT 1 FROM endpoints INDEXED BY endpoints_by_workspace
                      WHERE workspace_key = ?1 AND mode = ?2 AND deleted_at IS NULL AND key BETWEEN ?3 AND ?4
                      LIMIT ?5)",
            )?
            .query_row(params![workspace, mode, first, last, most + 1], |row| row.get(0))?;
        Ok((between <= most).then_some((*first, *last)))
    }

    /// As [`Self::rows`], by walking over the endpoints of a range.
    fn rows_between(
        &self,
        endpoints: &[i64],
        range: (i64, i64),
        names: (&str, &str),
        period: StatsPeriod,
    ) -> Result<Vec<CountRow>, rusqlite::Error> {
        let (workspace, mode) = self.codes();
        let endpoints: HashSet<i64> = endpoints.iter().copied().collect();
        let mut statement = self.connection.prepare_cached(SELECT_COUNTS_BETWEEN)?;
        let mut rows = Vec::new();
        for source in sources(period, &self.progress, self.now) {
            for start in source.starts() {
                let (size, (first, last)) = (source.size.code(), range);
                let mut found =
                    statement.query(params![size, start, workspace, mode, first, last, names.0, names.1])?;
                while let Some(row) = found.next()? {
                    if endpoints.contains(&row.get("endpoint_key")?) {
                        rows.push(count_row(start, row)?);
                    }
                }
            }
        }
        Ok(rows)
    }

    fn events_of_project(
        &self,
        project: &str,
        period: StatsPeriod,
        rows: &mut Vec<CountRow>,
    ) -> Result<(), rusqlite::Error> {
        let (workspace, mode) = self.codes();
        let counter = Counter::EventsOfProject.code();
        let mut statement = self.connection.prepare_cached(SELECT_EVENTS_OF_PROJECT)?;
        for source in sources(period, &self.progress, self.now) {
            for start in source.starts() {
                let parameters = params![source.size.code(), start, workspace, mode, project, counter];
                rows.extend(statement.query_row(parameters, |row| count_row(start, row)).optional()?);
            }
        }
        Ok(())
    }

    /// The events of a period by type, all or those that are misfits.
    fn by_type(&self, counter: Counter, period: StatsPeriod) -> Result<Vec<(String, u64)>, rusqlite::Error> {
        if self.tenant.project.is_some() {
            return Ok(Vec::new());
        }
        let (workspace, mode) = self.codes();
        let counter = counter.code();
        let mut statement = self.connection.prepare_cached(SELECT_EVENTS_BY_TYPE)?;
        let mut sums = HashMap::<String, u64>::new();
        for source in sources(period, &self.progress, self.now) {
            for start in source.starts() {
                let mut found = statement.query(params![source.size.code(), start, workspace, mode, counter])?;
                while let Some(row) = found.next()? {
                    *sums.entry(row.get(0)?).or_default() += row.get::<_, u64>(1)?;
                }
            }
        }
        let mut sums: Vec<(String, u64)> = sums.into_iter().collect();
        sums.sort();
        Ok(sums)
    }

    /// A deleted endpoint is found as long as its row exists.
    fn find_endpoint(&self, id: EndpointId) -> Result<Option<i64>, rusqlite::Error> {
        let (workspace, mode) = self.codes();
        self.connection
            .prepare_cached(
                "SELECT key FROM endpoints WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3
                 AND (?4 IS NULL OR project_id = ?4)",
            )?
            .query_row(params![id.to_string(), workspace, mode, self.tenant.project_text()], |row| row.get(0))
            .optional()
    }

    fn endpoints_of_project(&self, project: &str) -> Result<Vec<i64>, rusqlite::Error> {
        let (workspace, mode) = self.codes();
        self.connection
            .prepare_cached(
                "SELECT key FROM endpoints INDEXED BY endpoints_by_project
                 WHERE workspace_key = ?1 AND project_id = ?3 AND mode = ?2",
            )?
            .query_map(params![workspace, mode, project], |row| row.get(0))?
            .collect()
    }

    fn activity(&self, id: EndpointId, period: StatsPeriod) -> Result<EndpointActivity, rusqlite::Error> {
        let key = self.find_endpoint(id)?;
        let rows = self.rows(&Vec::from_iter(key), endpoint_names(self.tenant.project.as_ref()), period)?;
        let scope = StatsScope::Endpoint(id);
        let (last_success_at, queue) = match key {
            Some(key) => (self.last_success(key)?, self.queue_of_endpoint(key)?),
            None => (None, QueueState::default()),
        };
        let hours = series(period, Some(&scope), period.since(), rows).buckets;
        Ok(EndpointActivity { endpoint_id: id, hours, last_success_at, queue })
    }

    fn last_success(&self, endpoint: i64) -> Result<Option<Timestamp>, rusqlite::Error> {
        let (workspace, mode) = self.codes();
        let (first, last) = endpoint_names(self.tenant.project.as_ref());
        let at: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT MAX(count) FROM rollups
                 WHERE size = ?1 AND start = 0 AND workspace_key = ?2 AND mode = ?3 AND endpoint_key = ?4
                   AND name >= ?5 AND name <= ?6 AND counter = ?7",
            )?
            .query_row(
                params![WHOLE_TIME, workspace, mode, endpoint, first, last, Counter::LastSuccess.code()],
                |row| row.get(0),
            )?;
        Ok(at.map(Timestamp::from_millis))
    }

    fn last_trouble(&self) -> Result<Option<Timestamp>, rusqlite::Error> {
        let (workspace, mode) = self.codes();
        let at: Option<i64> = self
            .connection
            .prepare_cached(
                "SELECT MAX(count) FROM rollups
                 WHERE size = ?1 AND start = 0 AND workspace_key = ?2 AND mode = ?3 AND endpoint_key = 0 AND name = ''
                   AND counter = ?4",
            )?
            .query_row(params![WHOLE_TIME, workspace, mode, Counter::LastTrouble.code()], |row| row.get(0))?;
        Ok(at.map(Timestamp::from_millis))
    }

    fn queue_of_endpoint(&self, endpoint: i64) -> Result<QueueState, rusqlite::Error> {
        let pending = self
            .connection
            .prepare_cached("SELECT COUNT(*) FROM (SELECT 1 FROM due WHERE lane_key IN (?1, -?1) LIMIT ?2)")?
            .query_row(params![endpoint, limits::PENDING_COUNTED], |row| row.get(0))?;
        let oldest_due_at = self
            .connection
            .prepare_cached(
                "SELECT MIN((SELECT due_at FROM due WHERE due.lane_key = lanes.lane_key ORDER BY due_at LIMIT 1))
                 FROM lanes WHERE lane_key IN (?1, -?1) AND held_since IS NULL AND not_before IS NULL",
            )?
            .query_row([endpoint], |row| row.get(0))?;
        Ok(QueueState { pending, oldest_due_at: self.due_instant(oldest_due_at) })
    }

    /// Only lanes with something in the queue have a row, so it is these that are walked.
    fn queue_of_workspace(&self) -> Result<QueueState, rusqlite::Error> {
        let ((workspace, mode), project) = (self.codes(), self.tenant.project_text());
        let pending = self
            .connection
            .prepare_cached(
                "SELECT COUNT(*) FROM
                     (SELECT 1 FROM lanes CROSS JOIN endpoints ON endpoints.key = abs(lanes.lane_key)
                          CROSS JOIN due ON due.lane_key = lanes.lane_key
                      WHERE lanes.workspace_key = ?1 AND endpoints.mode = ?2
                        AND (?4 IS NULL OR endpoints.project_id = ?4) LIMIT ?3)",
            )?
            .query_row(params![workspace, mode, limits::PENDING_COUNTED, project], |row| row.get(0))?;
        let oldest_due_at = self
            .connection
            .prepare_cached(
                "SELECT MIN((SELECT due_at FROM due WHERE due.lane_key = lanes.lane_key ORDER BY due_at LIMIT 1))
                 FROM lanes CROSS JOIN endpoints ON endpoints.key = abs(lanes.lane_key)
                 WHERE lanes.workspace_key = ?1 AND endpoints.mode = ?2
                   AND (?3 IS NULL OR endpoints.project_id = ?3) AND held_since IS NULL AND not_before IS NULL",
            )?
            .query_row(params![workspace, mode, project], |row| row.get(0))?;
        Ok(QueueState { pending, oldest_due_at: self.due_instant(oldest_due_at) })
    }

    fn due_instant(&self, at: Option<i64>) -> Option<Timestamp> {
        at.map(Timestamp::from_millis).filter(|at| *at <= self.now)
    }
}

fn count_row(start: i64, row: &Row<'_>) -> Result<CountRow, rusqlite::Error> {
    let counter = Counter::from_code(row.get("counter")?).ok_or_else(|| unexpected("rollups.counter"))?;
    Ok((start, counter, row.get("count")?))
}
