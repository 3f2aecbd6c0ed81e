//! Upkeep: expiry, retention, removal, forgotten answers, erased secrets, replays. Each call is one bounded step.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::disk::DiskState;
use postrider_domain::id::RowKey;
use postrider_domain::operational_event::DiskReport;
use postrider_store::disk::DiskUse;
use postrider_store::replay::ROWS_PER_STEP;
use postrider_store::{AgedStep, EndedCursor, EndedStep, PayloadStep, Removed, StoreError, Upkeep};

use crate::log::audit;
use crate::machinery::schema;
use crate::machinery::writer::{JobSize, WriteTx};
use crate::queue::{operational_event, unsent};
use crate::registry::{endpoint, session};
use crate::{SqliteStore, erasure, idempotency, meta, replay, secrets, stats, stored_bytes};

mod disk;
pub mod ended;
pub mod payload;
mod retention;
mod space;

#[async_trait]
impl Upkeep for SqliteStore {
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| {
            meta::keep_time(tx.connection, tx.now)?;
            unsent::expire_waiting(tx, limit)
        })
        .await
    }

    async fn remove_unseen_listeners(&self, unseen: Duration, limit: usize) -> Result<usize, StoreError> {
        // The deletion of each is as large as that of an endpoint with a queue.
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| {
            endpoint::remove_unseen(tx, tx.now.minus(unseen), limit)
        })
        .await
    }

    async fn remove_aged(&self, step: AgedStep) -> Result<Removed, StoreError> {
        let remove = move |tx: &mut WriteTx<'_>| schema::overwriting_freed_pages(tx, |tx| retention::remove(tx, step));
        self.write(JobSize { rows: step.limit, bytes: 0 }, remove).await
    }

    async fn expire_payloads(&self, step: PayloadStep) -> Result<Removed, StoreError> {
        let expire = move |tx: &mut WriteTx<'_>| schema::overwriting_freed_pages(tx, |tx| payload::expire(tx, step));
        self.write(JobSize { rows: step.limit, bytes: 0 }, expire).await
    }

    async fn expire_late_payloads(&self, step: PayloadStep, after: RowKey) -> Result<Removed, StoreError> {
        let expire =
            move |tx: &mut WriteTx<'_>| schema::overwriting_freed_pages(tx, |tx| payload::expire_late(tx, step, after));
        self.write(JobSize { rows: step.limit, bytes: 0 }, expire).await
    }

    async fn remove_aged_audit(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let remove = move |tx: &mut WriteTx<'_>| audit::remove_aged(tx, RowKey::first_at(tx.now.minus(age)), limit);
        self.write(JobSize { rows: limit, bytes: 0 }, remove).await
    }

    async fn remove_ended(&self, step: EndedStep) -> Result<Option<EndedCursor>, StoreError> {
        // Differs from PostgreSQL: searched on a read connection first, so that the only writer is not held up.
        let now = self.clock.now();
        let found = self.read(move |tx| ended::find(tx.connection, now, step)).await?;
        if found.is_empty() {
            return Ok(None);
        }
        self.write(JobSize { rows: found.len(), bytes: 0 }, move |tx| ended::remove(tx, step, &found)).await
    }

    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError> {
        let forget =
            move |tx: &mut WriteTx<'_>| schema::overwriting_freed_pages(tx, |tx| idempotency::forget(tx, limit));
        self.write(JobSize { rows: limit, bytes: 0 }, forget).await
    }

    async fn remove_ended_sessions(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| session::remove_ended(tx, limit)).await
    }

    async fn forget_refusals(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| {
            audit::remove_refusals(tx, RowKey::first_at(tx.now.minus(age)), limit)
        })
        .await
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

    async fn count_stored_bytes(&self, limit: usize) -> Result<bool, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| stored_bytes::count_step(tx, limit)).await
    }

    async fn remove_empty_counters(&self, age: Duration, limit: usize) -> Result<usize, StoreError> {
        let remove =
            move |tx: &mut WriteTx<'_>| stored_bytes::remove_empty(tx, RowKey::first_at(tx.now.minus(age)), limit);
        self.write(JobSize { rows: limit, bytes: 0 }, remove).await
    }

    async fn fold_rollups(&self, limit: usize) -> Result<bool, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| stats::fold(tx, limit)).await
    }

    async fn remove_aged_rollups(&self, log: Duration, limit: usize) -> Result<bool, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| stats::remove_aged(tx, log, limit)).await
    }

    async fn give_space_back(&self) -> Result<Option<Duration>, StoreError> {
        // Read on another connection first, so that the only writer is not held up.
        let pages = self.read(|tx| space::pages_to_give_back(tx.connection)).await?;
        if pages == 0 {
            return Ok(None);
        }
        let give_back = move |tx: &mut WriteTx<'_>| space::give_back(tx.connection, pages);
        self.write(JobSize { rows: pages, bytes: 0 }, give_back).await.map(Some)
    }

    async fn disk_use(&self) -> Result<DiskUse, StoreError> {
        disk::measure(self).await
    }

    async fn hold_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        disk::hold_reserve(self, bytes).await
    }

    fn set_disk_state(&self, state: DiskState) {
        self.disk.set(state);
    }

    async fn report_disk(&self, report: DiskReport) -> Result<(), StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| operational_event::report_disk(tx, report)).await
    }

    async fn advance_replays(&self) -> Result<Option<usize>, StoreError> {
        if self.disk.check_growth().is_err() {
            return Ok(None);
        }
        self.write(JobSize { rows: ROWS_PER_STEP, bytes: 0 }, replay::advance).await
    }

    async fn advance_erasures(&self) -> Result<Option<usize>, StoreError> {
        erasure::advance(self).await
    }
}
