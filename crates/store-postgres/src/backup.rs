//! Backups: none. Differs from SQLite: PostgreSQL's own tools copy a database, and they can do it to an instant.

use std::sync::Arc;

use async_trait::async_trait;

use postrider_store::backup::{BackupError, BackupPlan, BackupWatch, Backups, Manifest};

use crate::PostgresStore;

#[async_trait]
impl Backups for PostgresStore {
    async fn back_up(&self, _plan: BackupPlan, _watch: Arc<dyn BackupWatch>) -> Result<Manifest, BackupError> {
        Err(BackupError::NotHere)
    }
}
