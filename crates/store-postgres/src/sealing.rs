//! Walks over everything that is sealed under the master key. The SQL is in the files that write those tables.

use std::sync::atomic::Ordering;

use async_trait::async_trait;

use postrider_store::StoreError;
use postrider_store::sealing::{FactChange, Resealed, SealedPage, SealedPosition, Sealing};

use crate::machinery::fault::PgError;
use crate::machinery::node;
use crate::machinery::transaction::{WriteTx, effect};
use crate::{PostgresStore, idempotency, meta, secrets};

#[async_trait]
impl Sealing for PostgresStore {
    async fn sealed_values(&self, after: SealedPosition, rows: usize) -> Result<SealedPage, StoreError> {
        self.read(move |session| {
            Box::pin(async move {
                match after {
                    SealedPosition::Secrets { endpoint_key, version } => {
                        secrets::secrets_page(session, (endpoint_key, version), rows).await
                    }
                    SealedPosition::Parts { endpoint_key, part } => {
                        secrets::parts_page(session, (endpoint_key, &part), rows).await
                    }
                    SealedPosition::Answers { key } => idempotency::sealed_page(session, key, rows).await,
                }
            })
        })
        .await
    }

    async fn count_sealed(&self) -> Result<u64, StoreError> {
        self.read(|session| Box::pin(secrets::count_sealed(session))).await
    }

    async fn change_facts_if_unchanged(&self, facts: Vec<FactChange>) -> Result<bool, StoreError> {
        self.write(effect!(|tx, facts| meta::change_if_unchanged(tx, &facts))).await
    }

    async fn reseal_if_unchanged(&self, values: Vec<Resealed>, walk: FactChange) -> Result<bool, StoreError> {
        self.write(effect!(|tx, values, walk| reseal(tx, &values, &walk))).await
    }

    fn report_key_epoch(&self, epoch: i64) {
        self.database.key_epoch.store(epoch, Ordering::Relaxed);
    }

    async fn nodes_before_key_epoch(&self, epoch: i64) -> Result<Vec<u16>, StoreError> {
        self.read(move |session| Box::pin(node::before_key_epoch(session, epoch))).await
    }
}

/// The fact about the walk is locked first, so that two processes that walk do not wait for each other's rows.
async fn reseal(tx: &WriteTx, values: &[Resealed], walk: &FactChange) -> Result<bool, PgError> {
    if !meta::change_if_unchanged(tx, std::slice::from_ref(walk)).await? {
        return Ok(false);
    }
    secrets::reseal(tx, values).await?;
    idempotency::reseal(tx, values).await?;
    Ok(true)
}
