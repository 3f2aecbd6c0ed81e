//! Gauges of the store, for metrics. Of the nodes that send, the one with the smallest number reads them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::time::Timestamp;
use postrider_metrics::{Only, PoolState};
use postrider_store::StoreError;
use postrider_store::gauges::{Gauges, LANES_LOOKED_AT, StatePart, StateStep, StoreSize, state_of};

use crate::PostgresStore;
use crate::machinery::column::{int, number, opt_int};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::Database;

pub const SELECT_OLDEST_DUE: &str =
    "SELECT MIN((SELECT due_at FROM due WHERE due.lane_key = ready.lane_key ORDER BY due_at LIMIT 1)) AS oldest
     FROM (SELECT lane_key FROM lanes WHERE held_since IS NULL AND next_at <= $1 AND not_before IS NULL
           ORDER BY next_at LIMIT $2) AS ready";

/// Counts the states of some rows behind a key. Parameters: the instant, the key, the number of rows.
pub fn count_states(part: StatePart) -> String {
    let state = state_of(part, "$1::bigint");
    let rows = match part {
        StatePart::Deliveries => {
            "(SELECT delivery_key AS key, lane_key, due_at, claim_token FROM due WHERE delivery_key > $2
              ORDER BY delivery_key LIMIT $3) AS seen LEFT JOIN lanes ON lanes.lane_key = seen.lane_key"
        }
        StatePart::Lanes => {
            "(SELECT lane_key AS key, next_at, held_since, paused_since FROM lanes WHERE lane_key > $2
              ORDER BY lane_key LIMIT $3) AS seen"
        }
        StatePart::Endpoints => {
            "(SELECT key, is_active, disabled_reason, deleted_at FROM endpoints WHERE key > $2 AND $1::bigint IS NOT NULL
              ORDER BY key LIMIT $3) AS seen LEFT JOIN endpoint_health ON endpoint_key = seen.key"
        }
    };
    format!("SELECT ({state})::bigint AS state, COUNT(*) AS count, MAX(seen.key) AS last FROM {rows} GROUP BY 1")
}

#[async_trait]
impl Gauges for PostgresStore {
    fn reads_gauges(&self) -> bool {
        self.database.is_first_node.load(Ordering::Relaxed)
    }

    async fn oldest_due(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.database.time.about_now();
        let find = self.read(move |session| {
            Box::pin(async move {
                let row = session.query_one(SELECT_OLDEST_DUE, &[&now.millis(), &LANES_LOOKED_AT]).await?;
                opt_int(&row, "oldest")
            })
        });
        let due_at = find.await?.map(Timestamp::from_millis);
        Ok(due_at.filter(|at| *at <= now).map(|at| now.since(at)))
    }

    async fn count_states(&self, part: StatePart, after: i64, limit: usize) -> Result<StateStep, StoreError> {
        let now = self.database.time.about_now().millis();
        self.read(move |session| {
            Box::pin(async move {
                let rows_at_most = i64::try_from(limit).unwrap_or(i64::MAX);
                let rows = session.query(&count_states(part), &[&now, &after, &rows_at_most]).await?;
                let counted = rows.iter().map(|row| Ok((int(row, "state")?, number(row, "count")?, int(row, "last")?)));
                Ok(StateStep::of(counted.collect::<Result<Vec<_>, PgError>>()?, limit))
            })
        })
        .await
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        self.read(|session| {
            Box::pin(async move {
                let row = session.query_one("SELECT pg_database_size(current_database()) AS bytes", &[]).await?;
                Ok(StoreSize { bytes: number(&row, "bytes")?, free_bytes: None })
            })
        })
        .await
    }
}

/// Shows what memory tells at each scrape, as long as the store is open.
pub fn show_at_scrape(database: &Arc<Database>) {
    let weak = Arc::downgrade(database);
    database.metrics.before_scrape.run(move || {
        let Some(database) = weak.upgrade() else { return };
        let (metrics, pool) = (&database.metrics, database.pool.status());
        metrics.pool.set_count(PoolState::Idle, pool.available as u64);
        metrics.pool.set_count(PoolState::Busy, pool.size.saturating_sub(pool.available) as u64);
        metrics.pool_waiting.set_count(Only, pool.waiting as u64);
        metrics.clock_offset_seconds.set(Only, database.time.ahead_of_database_seconds());
    });
}
