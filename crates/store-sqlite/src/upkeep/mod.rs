//! Upkeep: expiry, retention, forgotten answers, erased secrets, replays. Each call is one bounded step.

use async_trait::async_trait;

use postrider_domain::id::RowKey;
use postrider_store::replay::ROWS_PER_STEP;
use postrider_store::{AgedStep, StoreError, Upkeep};

use crate::machinery::writer::JobSize;
use crate::queue::unsent;
use crate::{SqliteStore, idempotency, replay, secrets};

mod retention;

#[async_trait]
impl Upkeep for SqliteStore {
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| unsent::expire_waiting(tx, limit)).await
    }

    async fn remove_aged(&self, step: AgedStep) -> Result<Option<RowKey>, StoreError> {
        self.write(JobSize { rows: step.limit, bytes: 0 }, move |tx| retention::remove(tx, step)).await
    }

    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| idempotency::forget(tx, limit)).await
    }

    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.clock.now();
        // Differs from PostgreSQL: searched on a read connection first, so that the only writer is not held up. An
        // unused version stays unused.
        let unused = self.read(move |tx| secrets::find_unused(tx.connection, now, limit)).await?;
        if unused.is_empty() {
            return Ok(0);
        }
        self.write(JobSize::ONE_ROW, move |tx| secrets::erase(tx, &unused)).await
    }

    async fn advance_replays(&self) -> Result<Option<usize>, StoreError> {
        self.write(JobSize { rows: ROWS_PER_STEP, bytes: 0 }, replay::advance).await
    }
}
