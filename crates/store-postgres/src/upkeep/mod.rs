//! Upkeep: one bounded step per call. The SQL of each step stands with its tables.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::disk::DiskState;
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::DiskReport;
use postrider_store::disk::DiskUse;
use postrider_store::gauges::Gauges as _;
use postrider_store::{AgedStep, EndedCursor, EndedStep, PayloadStep, Removed, StoreError, Upkeep};

use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::transaction::effect;
use crate::queue::{operational_event, unsent};
use crate::registry::{endpoint, session};
use crate::{erasure, idempotency, replay, secrets, stats, stored_bytes};

mod disk;
pub mod ended;
pub mod payload;
mod retention;

#[async_trait]
impl Upkeep for PostgresStore {
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(effect!(|tx| unsent::expire_waiting(tx, limit))).await
    }

    async fn remove_unseen_listeners(&self, unseen: Duration, limit: usize) -> Result<usize, StoreError> {
        // One transaction for each: it holds the workspace.
        for removed in 0..limit {
            if !self.write(effect!(|tx| endpoint::remove_unseen(tx, unseen))).await? {
                return Ok(removed);
            }
        }
        Ok(limit)
    }

    async fn remove_aged(&self, step: AgedStep) -> Result<Removed, StoreError> {
        retention::remove(&self.database, step).await
    }

    async fn expire_payloads(&self, step: PayloadStep) -> Result<Removed, StoreError> {
        self.write(effect!(|tx| payload::expire(tx, step))).await
    }

    async fn expire_late_payloads(&self, step: PayloadStep, after: RowKey) -> Result<Removed, StoreError> {
        self.write(effect!(|tx| payload::expire_late(tx, step, after))).await
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

    async fn give_space_back(&self) -> Result<Option<Duration>, StoreError> {
        // The server of the database does that: dropped days at once, the rest by its vacuum.
        Ok(None)
    }

    async fn disk_use(&self) -> Result<DiskUse, StoreError> {
        disk::measure(self).await
    }

    async fn hold_reserve(&self, _bytes: u64) -> Result<(), StoreError> {
        Ok(())
    }

    fn set_disk_state(&self, state: DiskState) {
        self.disk.set(state);
    }

    async fn report_disk(&self, report: DiskReport) -> Result<(), StoreError> {
        if !self.reads_gauges() {
            return Ok(());
        }
        self.write(effect!(|tx| operational_event::report_disk(tx, report))).await
    }

    async fn advance_replays(&self) -> Result<Option<usize>, StoreError> {
        if self.disk.check_growth().is_err() {
            return Ok(None);
        }
        self.write(effect!(|tx| replay::advance(tx))).await
    }

    async fn advance_erasures(&self) -> Result<Option<usize>, StoreError> {
        erasure::advance(self).await
    }
}
