//! Gauges of the store, for metrics.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, params};

use postrider_domain::time::{Clock, Timestamp};
use postrider_metrics::{Only, PoolState, StoreMetrics};
use postrider_store::StoreError;
use postrider_store::gauges::{Gauges, LANES_LOOKED_AT, StatePart, StateStep, StoreSize, state_of};

use crate::SqliteStore;
use crate::machinery::reader::Readers;

pub const SELECT_OLDEST_DUE: &str =
    "SELECT MIN((SELECT due_at FROM due WHERE due.lane_key = ready.lane_key ORDER BY due_at LIMIT 1))
     FROM (SELECT lane_key FROM lanes INDEXED BY lanes_by_next
           WHERE held_since IS NULL AND next_at <= ?1 AND not_before IS NULL ORDER BY next_at LIMIT ?2) AS ready";

/// Counts the states of some rows behind a key. Parameters: the instant, the key, the number of rows.
pub fn count_states(part: StatePart) -> String {
    let state = state_of(part, "?1");
    let rows = match part {
        StatePart::Deliveries => {
            "(SELECT delivery_key AS key, lane_key, due_at, claim_token FROM due WHERE delivery_key > ?2
              ORDER BY delivery_key LIMIT ?3) AS seen LEFT JOIN lanes ON lanes.lane_key = seen.lane_key"
        }
        StatePart::Lanes => {
            "(SELECT lane_key AS key, next_at, held_since, paused_since FROM lanes WHERE lane_key > ?2
              ORDER BY lane_key LIMIT ?3) AS seen"
        }
        StatePart::Endpoints => {
            "(SELECT key, is_active, disabled_reason, deleted_at FROM endpoints WHERE key > ?2
              ORDER BY key LIMIT ?3) AS seen LEFT JOIN endpoint_health ON endpoint_key = seen.key"
        }
    };
    format!("SELECT {state} AS state, COUNT(*), MAX(seen.key) FROM {rows} GROUP BY state")
}

#[async_trait]
impl Gauges for SqliteStore {
    async fn oldest_due(&self) -> Result<Option<Duration>, StoreError> {
        let now = self.clock.now();
        let find = move |connection: &Connection| {
            let parameters = params![now.millis(), LANES_LOOKED_AT];
            connection.prepare_cached(SELECT_OLDEST_DUE)?.query_row(parameters, |row| row.get::<_, Option<i64>>(0))
        };
        let due_at = self.read(move |tx| find(tx.connection)).await?.map(Timestamp::from_millis);
        Ok(due_at.filter(|at| *at <= now).map(|at| now.since(at)))
    }

    async fn count_states(&self, part: StatePart, after: i64, limit: usize) -> Result<StateStep, StoreError> {
        let now = self.clock.now().millis();
        self.read(move |tx| {
            let mut statement = tx.connection.prepare_cached(&count_states(part))?;
            let rows =
                statement.query_map(params![now, after, limit], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            Ok(StateStep::of(rows.collect::<Result<Vec<_>, _>>()?, limit))
        })
        .await
    }

    async fn size(&self) -> Result<StoreSize, StoreError> {
        self.read(|tx| {
            let number = |pragma: &str| tx.connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
            let page_bytes = number("PRAGMA page_size")?;
            let free_bytes = Some(number("PRAGMA freelist_count")? * page_bytes);
            Ok(StoreSize { bytes: number("PRAGMA page_count")? * page_bytes, free_bytes })
        })
        .await
    }
}

/// Shows what memory tells at each scrape. `clock` is the machine's, `store_clock` the store's.
pub fn show_at_scrape(metrics: &StoreMetrics, readers: &Readers, clock: Arc<dyn Clock>, store_clock: Arc<dyn Clock>) {
    let (metrics, usage) = (metrics.clone(), readers.usage());
    metrics.before_scrape.clone().run(move || {
        let (idle, busy) = usage();
        metrics.pool.set_count(PoolState::Idle, idle);
        metrics.pool.set_count(PoolState::Busy, busy);
        #[expect(clippy::cast_precision_loss, reason = "a difference of two clocks is below 2^53 milliseconds")]
        let ahead = (clock.now().millis() - store_clock.now().millis()) as f64 / 1_000.0;
        metrics.clock_offset_seconds.set(Only, ahead);
    });
}
