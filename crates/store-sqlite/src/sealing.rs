//! Walks over everything that is sealed under the master key. The SQL is in the files that write those tables.

use async_trait::async_trait;

use postrider_domain::limits;
use postrider_store::StoreError;
use postrider_store::sealing::{FactChange, Resealed, SealedPage, SealedPosition, Sealing};

use crate::machinery::writer::JobSize;
use crate::{SqliteStore, idempotency, meta, secrets};

#[async_trait]
impl Sealing for SqliteStore {
    async fn sealed_values(&self, after: SealedPosition, rows: usize) -> Result<SealedPage, StoreError> {
        self.read(move |tx| match after {
            SealedPosition::Secrets { endpoint_key, version } => {
                secrets::secrets_page(tx.connection, (endpoint_key, version), rows)
            }
            SealedPosition::Parts { endpoint_key, part } => {
                secrets::parts_page(tx.connection, (endpoint_key, &part), rows)
            }
            SealedPosition::Answers { key } => idempotency::sealed_page(tx.connection, key, rows),
        })
        .await
    }

    async fn count_sealed(&self) -> Result<u64, StoreError> {
        self.read(|tx| secrets::count_sealed(tx.connection)).await
    }

    async fn change_facts_if_unchanged(&self, facts: Vec<FactChange>) -> Result<bool, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| meta::change_if_unchanged(tx, &facts)).await
    }

    async fn reseal_if_unchanged(&self, values: Vec<Resealed>, walk: FactChange) -> Result<bool, StoreError> {
        let bytes = values.iter().map(|value| value.to.len()).sum::<usize>();
        let size = JobSize { rows: values.len() + 1, bytes: bytes.min(limits::GROUP_BYTES) };
        self.write(size, move |tx| {
            if !meta::change_if_unchanged(tx, std::slice::from_ref(&walk))? {
                return Ok(false);
            }
            for value in &values {
                secrets::reseal(tx, value)?;
                idempotency::reseal(tx, value)?;
            }
            Ok(true)
        })
        .await
    }

    /// No other process uses the store.
    fn report_key_epoch(&self, _epoch: i64) {}

    async fn nodes_before_key_epoch(&self, _epoch: i64) -> Result<Vec<u16>, StoreError> {
        Ok(Vec::new())
    }
}
