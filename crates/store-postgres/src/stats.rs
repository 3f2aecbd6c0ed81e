//! Statistics: the rollups of each transaction, their sums, and the questions that they answer. The rules stand in
//! `postrider_store::stats`.
//!
//! A transaction gathers its counts and writes them in one statement before it commits.
//!
//! Differs from SQLite: several transactions of one workspace run at once, and must not wait for each other. So each
//! writes to counters of its own, in a shard that it holds until it ends (`machinery/shard.rs`).
//!
//! Writes `rollups`, and the progress of the sums in `meta`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

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

use crate::PostgresStore;
use crate::machinery::column::{get, int, number, opt_instant, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::{Parameter, Session};
use crate::machinery::shard::Shard;
use crate::machinery::transaction::WriteTx;
use crate::meta;

/// Adds counts to a shard.
pub const ADD: &str =
    "INSERT INTO rollups (size, start, workspace_key, mode, endpoint_key, name, counter, shard, count)
     SELECT size, start, workspace_key, mode, endpoint_key, name, counter, $9, count
     FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
          AS new (size, start, workspace_key, mode, endpoint_key, name, counter, count)
     ON CONFLICT (size, start, workspace_key, mode, endpoint_key, name, counter, shard) DO UPDATE
     SET count = CASE WHEN excluded.size = 3 THEN GREATEST(rollups.count, excluded.count)
                      ELSE rollups.count + excluded.count END";

/// The counts of endpoints in buckets of one size.
pub const SELECT_COUNTS: &str = "SELECT r.endpoint_key, r.start, r.counter, SUM(r.count)::bigint AS count
     FROM unnest($1) AS bucket (start) CROSS JOIN unnest($2) AS asked (endpoint_key)
     JOIN rollups r ON r.size = $3 AND r.start = bucket.start AND r.workspace_key = $4 AND r.mode = $5
                   AND r.endpoint_key = asked.endpoint_key AND r.name >= $6 AND r.name <= $7
     GROUP BY r.endpoint_key, r.start, r.counter";

/// The events of one project.
pub const SELECT_EVENTS_OF_PROJECT: &str = "SELECT r.start, r.counter, SUM(r.count)::bigint AS count
     FROM unnest($1) AS bucket (start)
     JOIN rollups r ON r.size = $2 AND r.start = bucket.start AND r.workspace_key = $3 AND r.mode = $4
                   AND r.endpoint_key = 0 AND r.name = $5 AND r.counter = $6
     GROUP BY r.start, r.counter";

/// The events of each type.
pub const SELECT_EVENTS_BY_TYPE: &str = "SELECT r.name, SUM(r.count)::bigint AS count
     FROM unnest($1) AS bucket (start)
     JOIN rollups r ON r.size = $2 AND r.start = bucket.start AND r.workspace_key = $3 AND r.mode = $4
                   AND r.endpoint_key = 0 AND r.name > '' AND r.counter = $5
     GROUP BY r.name ORDER BY r.name";

/// The rows of one size behind a position.
pub const SELECT_TO_FOLD: &str =
    "SELECT start, workspace_key, mode, endpoint_key, name, counter, shard, count FROM rollups
     WHERE size = $1 AND (start, workspace_key, mode, endpoint_key, name, counter, shard) > ($2, $3, $4, $5, $6, $7, $8)
       AND start < $9
     ORDER BY start, workspace_key, mode, endpoint_key, name, counter, shard LIMIT $10";

/// Writes the counts of a transaction. Call it before the commit.
pub async fn flush(tx: &WriteTx, shard: &Shard) -> Result<(), PgError> {
    // The bucket is that of the commit, not that of the beginning: a bucket must not change once it is added up.
    let rows = tx.count(|rollups| rollups.take(tx.now.plus(tx.age())));
    add(tx, &rows, shard.number(tx)).await
}

async fn add(tx: &WriteTx, rows: &[RollupRow], shard: i64) -> Result<(), PgError> {
    if rows.is_empty() {
        return Ok(());
    }
    let of = |column: fn(&RollupRow) -> i64| rows.iter().map(column).collect::<Vec<i64>>();
    tx.execute(
        ADD,
        &[
            &of(|row| row.size),
            &of(|row| row.start),
            &of(|row| row.key.tenant.0),
            &of(|row| row.key.tenant.1),
            &of(|row| row.key.endpoint),
            &rows.iter().map(|row| row.key.name.as_str()).collect::<Vec<&str>>(),
            &of(|row| row.key.counter),
            &of(|row| row.count),
            &shard,
        ],
    )
    .await?;
    Ok(())
}

/// Removes what is kept of an endpoint for as long as it exists.
pub async fn forget_endpoint(tx: &WriteTx, endpoint: RowKey) -> Result<(), PgError> {
    let sql = "DELETE FROM rollups WHERE size = $2 AND start = 0 AND endpoint_key = $1 AND mode IN (0, 1)
               AND workspace_key = (SELECT workspace_key FROM endpoints WHERE key = $1)";
    tx.execute(sql, &[&endpoint.as_i64(), &WHOLE_TIME]).await?;
    Ok(())
}

/// Removes what is kept of a workspace for as long as it exists.
pub async fn forget_workspace(tx: &WriteTx, workspace: RowKey) -> Result<(), PgError> {
    let sql = "DELETE FROM rollups WHERE size = $2 AND start = 0 AND workspace_key = $1";
    tx.execute(sql, &[&workspace.as_i64(), &WHOLE_TIME]).await?;
    Ok(())
}

/// Notes that an endpoint, or the order of its deliveries, no longer needs somebody.
pub async fn trouble_ended(tx: &WriteTx, endpoint: RowKey) -> Result<(), PgError> {
    let found = tx.query_opt("SELECT workspace_key, mode FROM endpoints WHERE key = $1", &[&endpoint.as_i64()]).await?;
    if let Some(row) = found {
        let tenant = (int(&row, "workspace_key")?, int(&row, "mode")?);
        tx.count(|rollups| rollups.trouble_ended(tenant, tx.now));
    }
    Ok(())
}

/// One step of [`Upkeep::fold_rollups`](postrider_store::Upkeep::fold_rollups).
pub async fn fold(tx: &WriteTx, limit: usize) -> Result<bool, PgError> {
    let Some(_) = find_progress(tx).await?.at(tx.now).step(tx.now) else { return Ok(false) };
    let progress = lock_progress(tx).await?.at(tx.now);
    let Some(step) = progress.step(tx.now) else { return Ok(false) };
    let rows = rows_to_fold(tx, &step, limit).await?;
    let last = rows.last().map(|(cursor, _)| cursor.clone()).filter(|_| rows.len() == limit);
    // Only the holder of the progress writes sums, so they need no shards.
    add(tx, &folded(&step, rows.into_iter().map(|(_, row)| row)), 0).await?;
    let progress = progress.after_step(&step, last);
    set_progress(tx, &progress).await?;
    Ok(progress.step(tx.now).is_some())
}

async fn rows_to_fold(tx: &WriteTx, step: &FoldStep, limit: usize) -> Result<Vec<(FoldCursor, RollupRow)>, PgError> {
    tx.batch("SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off").await?;
    let FoldCursor { start, key: RollupKey { tenant: (workspace, mode), endpoint, name, counter }, shard } =
        &step.after;
    let (size, closed) = (step.from.code(), step.closed.millis());
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let rows = tx
        .query(SELECT_TO_FOLD, &[&size, start, workspace, mode, endpoint, name, counter, shard, &closed, &limit])
        .await?;
    rows.iter()
        .map(|row| {
            let key = RollupKey {
                tenant: (int(row, "workspace_key")?, int(row, "mode")?),
                endpoint: int(row, "endpoint_key")?,
                name: get(row, "name")?,
                counter: int(row, "counter")?,
            };
            let (start, count) = (int(row, "start")?, int(row, "count")?);
            let cursor = FoldCursor { start, key: key.clone(), shard: int(row, "shard")? };
            Ok((cursor, RollupRow { size, start, key, count }))
        })
        .collect()
}

/// One step of [`Upkeep::remove_aged_rollups`](postrider_store::Upkeep::remove_aged_rollups).
pub async fn remove_aged(tx: &WriteTx, log: Duration, limit: usize) -> Result<bool, PgError> {
    let mut progress = lock_progress(tx).await?;
    let mut is_more = false;
    for size in BucketSize::ALL {
        let before = progress.removable(size, log, tx.now);
        let removed = remove(tx, size, before, limit).await?;
        if removed > 0 {
            progress = progress.after_removal(size, before);
            set_progress(tx, &progress).await?;
        }
        is_more |= removed >= limit as u64;
    }
    Ok(is_more)
}

async fn remove(tx: &WriteTx, size: BucketSize, before: Timestamp, limit: usize) -> Result<u64, PgError> {
    let sql = "DELETE FROM rollups WHERE ctid = ANY (ARRAY (
                   SELECT ctid FROM rollups WHERE size = $1 AND start < $2 ORDER BY size, start LIMIT $3))";
    tx.execute(sql, &[&size.code(), &before.millis(), &i64::try_from(limit).unwrap_or(i64::MAX)]).await
}

async fn find_progress(session: &Session) -> Result<FoldProgress, PgError> {
    meta::find(session, PROGRESS).await?.map_or_else(|| Ok(FoldProgress::default()), |text| progress_from(&text))
}

/// One node at a time changes the progress.
async fn lock_progress(tx: &WriteTx) -> Result<FoldProgress, PgError> {
    meta::find_or_insert(tx, PROGRESS, &FoldProgress::default().to_text().into_bytes()).await?;
    let sql = "SELECT value FROM meta WHERE name = $1 FOR UPDATE";
    progress_from(&get::<Vec<u8>>(&tx.query_one(sql, &[&PROGRESS]).await?, "value")?)
}

fn progress_from(text: &[u8]) -> Result<FoldProgress, PgError> {
    FoldProgress::from_text(text).ok_or_else(|| unexpected("meta.rollups"))
}

async fn set_progress(tx: &WriteTx, progress: &FoldProgress) -> Result<(), PgError> {
    let sql = "UPDATE meta SET value = $2 WHERE name = $1";
    tx.execute(sql, &[&PROGRESS, &progress.to_text().into_bytes()]).await?;
    Ok(())
}

#[async_trait]
impl Stats for PostgresStore {
    async fn stats(&self, tenant: Tenant, scope: StatsScope, period: StatsPeriod) -> Result<StatsSeries, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| {
            Box::pin(async move {
                let book = Book::open(session, tenant, now).await?;
                let scope = narrowed(tenant, scope);
                let rows = match &scope {
                    Some(scope) => book.rows_of(scope, period).await?,
                    None => Vec::new(),
                };
                let since = complete_since(period.bucket(), book.counted_since().await?, &book.progress);
                Ok(series(period, scope.as_ref(), since, rows))
            })
        })
        .await
    }

    async fn endpoint_activity(
        &self,
        tenant: Tenant,
        endpoints: Vec<EndpointId>,
        period: StatsPeriod,
    ) -> Result<Vec<EndpointActivity>, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| {
            Box::pin(async move { Book::open(session, tenant, now).await?.activity(&endpoints, period).await })
        })
        .await
    }

    async fn events_by_type(&self, tenant: Tenant, period: StatsPeriod) -> Result<Vec<(String, u64)>, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| {
            Box::pin(
                async move { Book::open(session, tenant, now).await?.by_type(Counter::EventsOfType, period).await },
            )
        })
        .await
    }

    async fn misfits_by_type(&self, tenant: Tenant, period: StatsPeriod) -> Result<Vec<(String, u64)>, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| {
            Box::pin(
                async move { Book::open(session, tenant, now).await?.by_type(Counter::MisfitsOfType, period).await },
            )
        })
        .await
    }

    async fn last_trouble(&self, tenant: Tenant) -> Result<Option<Timestamp>, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| Box::pin(async move { Book::open(session, tenant, now).await?.last_trouble().await }))
            .await
    }

    async fn queue_state(&self, tenant: Tenant, endpoint: Option<EndpointId>) -> Result<QueueState, StoreError> {
        let now = self.database.time.about_now();
        self.read(move |session| {
            Box::pin(async move {
                let book = Book::open(session, tenant, now).await?;
                let Some(id) = endpoint else { return book.queue_of_workspace().await };
                let Some(key) = book.keys_of(&[id]).await?.remove(&id) else { return Ok(QueueState::default()) };
                Ok(book.queues_of(&vec![key]).await?.remove(&key).unwrap_or_default())
            })
        })
        .await
    }
}

/// A tenant's rollups in one snapshot.
struct Book<'s> {
    session: &'s Session,
    tenant: Tenant,
    progress: FoldProgress,
    now: Timestamp,
}

/// The name of the rows of a workspace as a whole.
const WHOLE_WORKSPACE: (&str, &str) = ("", "");

/// Start, counter and count.
type CountRow = (i64, Counter, i64);

impl<'s> Book<'s> {
    async fn open(session: &'s Session, tenant: Tenant, now: Timestamp) -> Result<Self, PgError> {
        Ok(Self { session, tenant, progress: find_progress(session).await?, now })
    }

    async fn counted_since(&self) -> Result<Option<Timestamp>, PgError> {
        let text = meta::find(self.session, COUNTED_SINCE).await?;
        text.map(|text| counted_since_from(&text).ok_or_else(|| unexpected("meta.rollups_since"))).transpose()
    }

    fn codes(&self) -> (i64, i64) {
        (self.tenant.workspace.as_i64(), mode_code(self.tenant.mode))
    }

    async fn rows_of(&self, scope: &StatsScope, period: StatsPeriod) -> Result<Vec<CountRow>, PgError> {
        let of_project = match scope {
            StatsScope::Project(project) | StatsScope::EndpointOfProject(_, project) => {
                self.endpoints_of_project(project.as_str()).await?
            }
            StatsScope::Workspace | StatsScope::Endpoint(_) => Vec::new(),
        };
        let (endpoints, names) = match scope {
            StatsScope::Workspace => (vec![0], WHOLE_WORKSPACE),
            StatsScope::Project(project) => (of_project, endpoint_names(Some(project))),
            StatsScope::Endpoint(id) => (self.keys_of(&[*id]).await?.into_values().collect(), endpoint_names(None)),
            StatsScope::EndpointOfProject(id, project) => {
                let found = self.keys_of(&[*id]).await?.into_values();
                (found.filter(|key| of_project.contains(key)).collect(), endpoint_names(Some(project)))
            }
        };
        let mut rows: Vec<CountRow> =
            self.rows(&endpoints, names, period).await?.into_iter().map(|(_, row)| row).collect();
        if let StatsScope::Project(project) = scope {
            rows.extend(self.events_of_project(project.as_str(), period).await?);
        }
        Ok(rows)
    }

    /// The counts of endpoints under names from the first to the last, each with the key of its endpoint.
    async fn rows(
        &self,
        endpoints: &Vec<i64>,
        (first, last): (&str, &str),
        period: StatsPeriod,
    ) -> Result<Vec<(i64, CountRow)>, PgError> {
        let (workspace, mode) = self.codes();
        let mut rows = Vec::new();
        for source in sources(period, &self.progress, self.now) {
            let (starts, size) = (Vec::from_iter(source.starts()), source.size.code());
            let parameters: [&dyn Parameter; 7] = [&starts, endpoints, &size, &workspace, &mode, &first, &last];
            for row in &self.session.query(SELECT_COUNTS, &parameters).await? {
                rows.push((int(row, "endpoint_key")?, count_row(row)?));
            }
        }
        Ok(rows)
    }

    async fn events_of_project(&self, project: &str, period: StatsPeriod) -> Result<Vec<CountRow>, PgError> {
        let (workspace, mode) = self.codes();
        let counter = Counter::EventsOfProject.code();
        let mut rows = Vec::new();
        for source in sources(period, &self.progress, self.now) {
            let (starts, size) = (Vec::from_iter(source.starts()), source.size.code());
            let sql = SELECT_EVENTS_OF_PROJECT;
            for row in &self.session.query(sql, &[&starts, &size, &workspace, &mode, &project, &counter]).await? {
                rows.push(count_row(row)?);
            }
        }
        Ok(rows)
    }

    /// The events of a period by type, all or those that are misfits.
    async fn by_type(&self, counter: Counter, period: StatsPeriod) -> Result<Vec<(String, u64)>, PgError> {
        if self.tenant.project.is_some() {
            return Ok(Vec::new());
        }
        let (workspace, mode) = self.codes();
        let counter = counter.code();
        let mut sums = BTreeMap::<String, u64>::new();
        for source in sources(period, &self.progress, self.now) {
            let (starts, size) = (Vec::from_iter(source.starts()), source.size.code());
            let found =
                self.session.query(SELECT_EVENTS_BY_TYPE, &[&starts, &size, &workspace, &mode, &counter]).await?;
            for row in &found {
                *sums.entry(get(row, "name")?).or_default() += number::<u64>(row, "count")?;
            }
        }
        Ok(sums.into_iter().collect())
    }

    /// The keys of endpoints. A deleted one is found as long as its row exists.
    async fn keys_of(&self, ids: &[EndpointId]) -> Result<HashMap<EndpointId, i64>, PgError> {
        let (workspace, mode) = self.codes();
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        let sql = "SELECT id, key FROM endpoints WHERE id = ANY ($1) AND workspace_key = $2 AND mode = $3
                   AND ($4 IS NULL OR project_id = $4)";
        let rows = self.session.query(sql, &[&ids, &workspace, &mode, &self.tenant.project_text()]).await?;
        rows.iter().map(|row| Ok((parsed(row, "id")?, int(row, "key")?))).collect()
    }

    async fn endpoints_of_project(&self, project: &str) -> Result<Vec<i64>, PgError> {
        let (workspace, mode) = self.codes();
        let sql = "SELECT key FROM endpoints WHERE workspace_key = $1 AND mode = $2 AND project_id = $3";
        let rows = self.session.query(sql, &[&workspace, &mode, &project]).await?;
        rows.iter().map(|row| int(row, "key")).collect()
    }

    async fn activity(&self, endpoints: &[EndpointId], period: StatsPeriod) -> Result<Vec<EndpointActivity>, PgError> {
        let keys = self.keys_of(endpoints).await?;
        let asked: Vec<i64> = keys.values().copied().collect();
        let mut rows = HashMap::<i64, Vec<CountRow>>::new();
        let names = endpoint_names(self.tenant.project.as_ref());
        for (endpoint, row) in self.rows(&asked, names, period).await? {
            rows.entry(endpoint).or_default().push(row);
        }
        let (successes, mut queues) = (self.last_successes(&asked).await?, self.queues_of(&asked).await?);
        let activity = |id: &EndpointId| {
            let key = keys.get(id).copied().unwrap_or_default();
            let rows = rows.remove(&key).unwrap_or_default();
            EndpointActivity {
                endpoint_id: *id,
                hours: series(period, Some(&StatsScope::Endpoint(*id)), period.since(), rows).buckets,
                last_success_at: successes.get(&key).copied(),
                queue: queues.remove(&key).unwrap_or_default(),
            }
        };
        Ok(endpoints.iter().map(activity).collect())
    }

    async fn last_successes(&self, endpoints: &Vec<i64>) -> Result<HashMap<i64, Timestamp>, PgError> {
        let (workspace, mode) = self.codes();
        let sql = "SELECT r.endpoint_key, MAX(r.count) AS succeeded_at FROM unnest($1) AS asked (endpoint_key)
                   JOIN rollups r ON r.size = $2 AND r.start = 0 AND r.workspace_key = $3 AND r.mode = $4
                                 AND r.endpoint_key = asked.endpoint_key AND r.counter = $5
                                 AND r.name >= $6 AND r.name <= $7
                   GROUP BY r.endpoint_key";
        let (counter, (first, last)) = (Counter::LastSuccess.code(), endpoint_names(self.tenant.project.as_ref()));
        let parameters: [&dyn Parameter; 7] = [endpoints, &WHOLE_TIME, &workspace, &mode, &counter, &first, &last];
        let rows = self.session.query(sql, &parameters).await?;
        rows.iter()
            .map(|row| Ok((int(row, "endpoint_key")?, Timestamp::from_millis(int(row, "succeeded_at")?))))
            .collect()
    }

    async fn last_trouble(&self) -> Result<Option<Timestamp>, PgError> {
        let (workspace, mode) = self.codes();
        let sql = "SELECT MAX(count) AS ended_at FROM rollups
                   WHERE size = $1 AND start = 0 AND workspace_key = $2 AND mode = $3 AND endpoint_key = 0
                     AND name = '' AND counter = $4";
        let parameters: [&dyn Parameter; 4] = [&WHOLE_TIME, &workspace, &mode, &Counter::LastTrouble.code()];
        opt_instant(&self.session.query_one(sql, &parameters).await?, "ended_at")
    }

    async fn queues_of(&self, endpoints: &Vec<i64>) -> Result<HashMap<i64, QueueState>, PgError> {
        let sql = "SELECT asked.endpoint_key,
                          (SELECT COUNT(*) FROM (SELECT 1 FROM due
                               WHERE lane_key IN (asked.endpoint_key, -asked.endpoint_key) LIMIT $2) AS counted) AS pending,
                          (SELECT MIN(first.due_at) FROM lanes l CROSS JOIN LATERAL
                               (SELECT due_at FROM due WHERE due.lane_key = l.lane_key ORDER BY due_at LIMIT 1) AS first
                           WHERE l.lane_key IN (asked.endpoint_key, -asked.endpoint_key)
                             AND l.held_since IS NULL AND l.not_before IS NULL) AS oldest_due_at
                   FROM unnest($1) AS asked (endpoint_key)";
        let rows = self.session.query(sql, &[endpoints, &pending_max()]).await?;
        rows.iter().map(|row| Ok((int(row, "endpoint_key")?, self.queue_from_row(row)?))).collect()
    }

    /// Only lanes with something in the queue have a row, so it is these that are walked.
    async fn queue_of_workspace(&self) -> Result<QueueState, PgError> {
        let ((workspace, mode), project) = (self.codes(), self.tenant.project_text());
        let sql = "SELECT (SELECT COUNT(*) FROM
                               (SELECT 1 FROM lanes l JOIN endpoints e ON e.key = abs(l.lane_key)
                                    JOIN due ON due.lane_key = l.lane_key
                                WHERE l.workspace_key = $1 AND e.mode = $2 AND ($4 IS NULL OR e.project_id = $4)
                                LIMIT $3) AS counted) AS pending,
                          (SELECT MIN(first.due_at) FROM lanes l JOIN endpoints e ON e.key = abs(l.lane_key)
                               CROSS JOIN LATERAL
                               (SELECT due_at FROM due WHERE due.lane_key = l.lane_key ORDER BY due_at LIMIT 1) AS first
                           WHERE l.workspace_key = $1 AND e.mode = $2 AND ($4 IS NULL OR e.project_id = $4)
                             AND l.held_since IS NULL AND l.not_before IS NULL) AS oldest_due_at";
        self.queue_from_row(&self.session.query_one(sql, &[&workspace, &mode, &pending_max(), &project]).await?)
    }

    fn queue_from_row(&self, row: &Row) -> Result<QueueState, PgError> {
        let oldest_due_at = opt_instant(row, "oldest_due_at")?.filter(|at| *at <= self.now);
        Ok(QueueState { pending: number(row, "pending")?, oldest_due_at })
    }
}

fn pending_max() -> i64 {
    i64::try_from(limits::PENDING_COUNTED).unwrap_or(i64::MAX)
}

fn count_row(row: &Row) -> Result<CountRow, PgError> {
    let counter = Counter::from_code(int(row, "counter")?).ok_or_else(|| unexpected("rollups.counter"))?;
    Ok((int(row, "start")?, counter, int(row, "count")?))
}
