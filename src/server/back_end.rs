//! Which store the settings name: PostgreSQL if they give a URL, SQLite in the data directory otherwise.

use std::sync::Arc;

use crate::config::Settings;
use postrider_domain::time::Clock;
use postrider_store::directory::DirectoryLock;
use postrider_store::{Store, StoreSeed};
use postrider_store_postgres::{PostgresSettings, PostgresStore};
use postrider_store_sqlite::SqliteStore;

use super::error::StartError;

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenedFor {
    /// A server, which sends. The event catalogue of the settings counts, and the store adopts it.
    Serving,
    /// A command, which need not be told what the server was told: the store's own catalogue counts, if it has one.
    Command,
}

/// An open store.
pub struct BackEnd {
    pub store: Arc<dyn Store>,
    /// Of a server whose store does not lie in the data directory, but its admin socket does.
    pub directory: Option<DirectoryLock>,
}

/// # Errors
/// When the store cannot be opened, or the settings lack what it needs.
pub async fn open(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    seed: StoreSeed,
    opened_for: OpenedFor,
) -> Result<BackEnd, StartError> {
    let Some(mut database) = postgres_settings(settings) else {
        return Ok(BackEnd {
            store: Arc::new(SqliteStore::open(&settings.data_dir, clock, seed).await?),
            directory: None,
        });
    };
    check_files_are_named(settings)?;
    database.sends = opened_for == OpenedFor::Serving;
    let directory = match opened_for {
        OpenedFor::Serving => Some(DirectoryLock::take(&settings.data_dir)?),
        OpenedFor::Command => None,
    };
    if opened_for == OpenedFor::Serving && SqliteStore::is_in(&settings.data_dir) {
        tracing::warn!(
            data_dir = %settings.data_dir.display(),
            "a database is set, so the SQLite store in the data directory is not used"
        );
    }
    Ok(BackEnd { store: Arc::new(PostgresStore::open(&database, clock, seed).await?), directory })
}

/// How the database is reached, if the settings name one.
pub fn postgres_settings(settings: &Settings) -> Option<PostgresSettings> {
    let database = &settings.database;
    Some(PostgresSettings {
        direct_url: database.direct_url.as_ref().map(|url| url.reveal().to_owned()),
        password_file: database.password_file.clone(),
        ca_file: database.ca_file.clone(),
        pool_size: database.pool_size,
        statement_timeout: database.statement_timeout,
        ..PostgresSettings::new(database.url.as_ref()?.reveal())
    })
}

/// Nodes that share a database need the same keys. One that a node made for itself would be another's stranger.
fn check_files_are_named(settings: &Settings) -> Result<(), StartError> {
    if settings.master_key_file.is_none() {
        return Err(StartError::MasterKeyNotNamed);
    }
    if settings.operator_webhook_url.is_some() && settings.operator_webhook_secret_file.is_none() {
        return Err(StartError::OperatorSecretNotNamed);
    }
    Ok(())
}
