//! Upkeep: one bounded step per call. The SQL of each step stands with its tables.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::id::RowKey;
use postrider_store::{AgedStep, EndedCursor, EndedStep, StoreError, Upkeep};

use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::transaction::effect;
use crate::queue::unsent;
use crate::registry::session;
use crate::{idempotency, replay, secrets, stats, stored_bytes};

pub mod ended;
mod retention;

#[async_trait]
impl Upkeep for PostgresStore {
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| unsent::expire_waiting(tx, limit))).await
    }

    async fn remove_aged(&self, step: AgedStep) -> Result<Option<RowKey>, StoreError> {
        retention::remove(&self.database, step).await
    }

    async fn remove_aged_audit(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| audit::remove_aged(tx, RowKey::first_at(tx.now.minus(age)), limit))).await
    }

    async fn remove_ended(&self, step: EndedStep) -> Result<Option<EndedCursor>, StoreError> {
        self.write(effect!(|tx| ended::remove(tx, step))).await
    }

    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| idempotency::forget(tx, limit))).await
    }

    async fn remove_ended_sessions(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| session::remove_ended(tx, limit))).await
    }

    async fn forget_refusals(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| audit::remove_refusals(tx, RowKey::first_at(tx.now.minus(age)), limit))).await
    }

    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| secrets::erase_unused(tx, limit))).await
    }

    async fn count_stored_bytes(&self, limit: usize) -> Result<bool, StoreError> {
        self.write(effect!(|tx| stored_bytes::count_step(tx, limit))).await
    }

    async fn remove_empty_counters(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| stored_bytes::remove_empty(tx, RowKey::first_at(tx.now.minus(age)), limit))).await
    }

    async fn fold_rollups(&self, limit: usize) -> Result<bool, StoreError> {
        self.write(effect!(|tx| stats::fold(tx, limit))).await
    }

    async fn remove_aged_rollups(&self, log: Duration, limit: usize) -> Result<bool, StoreError> {
        self.write(effect!(|tx| stats::remove_aged(tx, log, limit))).await
    }

    async fn advance_replays(&self) -> Result<Option<usize>, StoreError> {
        self.write(effect!(|tx| replay::advance(tx))).await
    }
}
