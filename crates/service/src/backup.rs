//! Backups of the whole store, which an operator takes.

use std::sync::Arc;
use std::time::Instant;

use postrider_domain::error_chain::Chain;
use postrider_domain::time::Timestamp;
use postrider_metrics::Only;
use postrider_store::StoreError;
use postrider_store::backup::{BackupError, BackupPlan, BackupWatch, LAST_BACKUP, LastBackup, Manifest};

use crate::operator::Operator;

impl Operator {
    /// Copies the store into a file while it is in use. There is one backup at a time.
    ///
    /// # Errors
    /// When the copy cannot be made, or is damaged.
    pub async fn back_up(&self, plan: BackupPlan, watch: Arc<dyn BackupWatch>) -> Result<Manifest, BackupError> {
        let (to, began) = (plan.to.display().to_string(), Instant::now());
        let manifest = self.store.back_up(plan, watch).await?;
        let seconds = began.elapsed().as_secs();
        tracing::info!(
            to,
            bytes = manifest.bytes,
            seconds,
            taken_at = manifest.taken_at,
            "took a backup of the store; keep the master key apart from it"
        );
        if let Err(error) = self.measure_last_backup().await {
            tracing::warn!(error = %Chain(&error), "cannot read when the last backup was taken");
        }
        Ok(manifest)
    }

    /// The last good backup of the store that it knows of.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn last_backup(&self) -> Result<Option<LastBackup>, StoreError> {
        Ok(self.store.meta(LAST_BACKUP).await?.as_deref().and_then(LastBackup::from_fact))
    }

    /// Shows the last backup in the metrics.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn measure_last_backup(&self) -> Result<(), StoreError> {
        if let Some(last) = self.last_backup().await? {
            self.service.metrics.last_backup.set(Only, seconds(last.at));
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds are below 2^53 for 280,000 years")]
fn seconds(at: Timestamp) -> f64 {
    at.millis() as f64 / 1_000.0
}
