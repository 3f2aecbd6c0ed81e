//! Reads the gauges of the whole store in the background, so that a scrape needs no statement.
//!
//! The age of the oldest due delivery comes from an index and is read often. Counts of rows cost the more the longer
//! the queue is. So they are taken in short steps, and seldom enough that they take a hundredth of the time at most.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::time::Clock;
use postrider_metrics::{Gauges as Series, Only, QueueMetrics};
use postrider_store::StoreError;
use postrider_store::gauges::{Gauges, STATES, StatePart};

/// A third of the interval at which Prometheus usually scrapes.
const OLDEST_DUE_EVERY: Duration = Duration::from_secs(5);
const COUNTED_EVERY: Duration = Duration::from_secs(15);
/// The time between two counts is at least this many times the time of a count.
const REST: u32 = 100;
const ROWS_PER_STEP: usize = 5_000;
/// The wait between two steps. Deliveries have priority.
const STEP_WAIT: Duration = Duration::from_millis(20);

pub struct GaugeReader {
    pub store: Arc<dyn Gauges>,
    pub metrics: QueueMetrics,
    pub clock: Arc<dyn Clock>,
}

impl GaugeReader {
    /// Returns when `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        stop.run_until_cancelled(self.keep_reading()).await;
        self.metrics.clear();
    }

    async fn keep_reading(&self) {
        let mut count_at = Instant::now();
        loop {
            if self.store.reads_gauges() {
                if let Err(error) = self.read(&mut count_at).await {
                    tracing::debug!(error = %Chain(&error), "cannot read the gauges of the store; trying again");
                    self.metrics.clear();
                    count_at = Instant::now();
                }
            } else {
                // Another node reads them, and a value of ours would get old.
                self.metrics.clear();
                count_at = Instant::now();
            }
            sleep(OLDEST_DUE_EVERY).await;
        }
    }

    async fn read(&self, count_at: &mut Instant) -> Result<(), StoreError> {
        let oldest = self.store.oldest_due().await?.unwrap_or_default();
        self.metrics.oldest_due_age_seconds.set(Only, oldest.as_secs_f64());
        if Instant::now() < *count_at {
            return Ok(());
        }
        let size = self.store.size().await?;
        self.metrics.file_bytes.set_count(Only, size.bytes);
        if let Some(bytes) = size.free_bytes {
            self.metrics.free_bytes.set_count(Only, bytes);
        }
        let started = Instant::now();
        let mut worked = Duration::ZERO;
        for (part, series) in [
            (StatePart::Deliveries, &self.metrics.deliveries),
            (StatePart::Lanes, &self.metrics.lanes),
            (StatePart::Endpoints, &self.metrics.endpoints),
        ] {
            worked += self.count(part, series).await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "milliseconds are below 2^53 for 280,000 years")]
        self.metrics.counted_at.set(Only, self.clock.now().millis() as f64 / 1_000.0);
        *count_at = started + COUNTED_EVERY.max(worked * REST);
        Ok(())
    }

    /// Counts all rows of a part. Returns the time that its statements took.
    async fn count(&self, part: StatePart, series: &Series) -> Result<Duration, StoreError> {
        let (mut counts, mut worked, mut after) = ([0; STATES], Duration::ZERO, 0);
        loop {
            let started = Instant::now();
            let step = self.store.count_states(part, after, ROWS_PER_STEP).await?;
            worked += started.elapsed();
            counts.iter_mut().zip(step.counts).for_each(|(sum, count)| *sum += count);
            let Some(next) = step.next else { break };
            after = next;
            sleep(STEP_WAIT).await;
        }
        counts.into_iter().enumerate().for_each(|(position, count)| series.set_count(position, count));
        Ok(worked)
    }
}
