//! The choice of the store: PostgreSQL if the settings contain a URL, otherwise SQLite in the data directory.

use std::sync::Arc;

use crate::config::Settings;
use postrider_domain::time::Clock;
use postrider_metrics::StoreMetrics;
use postrider_store::directory::DirectoryLock;
use postrider_store::{Store, StoreSeed};
use postrider_store_postgres::{PostgresSettings, PostgresStore};
use postrider_store_sqlite::SqliteStore;
use postrider_store_sqlite::examine::examine;

use super::error::StartError;

/// The purpose for which a store is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenedFor {
    /// A server, which sends deliveries. The store adopts the event catalogue of the settings.
    Serving,
    /// A command. It uses the catalogue in the store, if there is one, so that it needs no `--events`.
    Command,
}

/// An open store.
pub struct BackEnd {
    pub store: Arc<dyn Store>,
    /// The lock of a server whose store is not in the data directory. Its admin socket is there.
    pub directory: Option<DirectoryLock>,
}

/// # Errors
/// When the store cannot be opened, or a setting that it needs is missing.
pub async fn open(
    settings: &Settings,
    clock: Arc<dyn Clock>,
    seed: StoreSeed,
    opened_for: OpenedFor,
    metrics: &StoreMetrics,
) -> Result<BackEnd, StartError> {
    let Some(mut database) = postgres_settings(settings) else {
        let store = SqliteStore::open_measured(&settings.data_dir, clock, seed, metrics.clone()).await?;
        if opened_for == OpenedFor::Serving {
            hint_at_compact(settings);
        }
        return Ok(BackEnd { store: Arc::new(store), directory: None });
    };
    check_shared_secrets_are_named(settings)?;
    database.metrics = metrics.clone();
    database.sends = opened_for == OpenedFor::Serving;
    let directory = match opened_for {
        OpenedFor::Serving => Some(DirectoryLock::take(&settings.data_dir)?),
        OpenedFor::Command => None,
    };
    if opened_for == OpenedFor::Serving && SqliteStore::is_in(&settings.data_dir) {
        tracing::warn!(
            data_dir = %settings.data_dir.display(),
            "--database-url is set, so the SQLite store in the data directory is not used"
        );
    }
    Ok(BackEnd { store: Arc::new(PostgresStore::open(&database, clock, seed).await?), directory })
}

/// A database of an early version keeps every page that it once had. Only a copy of it can change that.
fn hint_at_compact(settings: &Settings) {
    if let Ok(Some(found)) = examine(&settings.data_dir)
        && !found.gives_back_space
    {
        tracing::warn!(
            database_bytes = found.database_bytes,
            free_bytes = found.free_bytes,
            "the database was made by an early version and never gives space back to the file system: stop the server and \
             run `postrider store compact` once"
        );
    }
}

/// The connection settings of the database, if there is one.
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

/// Nodes that share a database need the same secrets, so no node may generate its own.
fn check_shared_secrets_are_named(settings: &Settings) -> Result<(), StartError> {
    if settings.master_key_file.is_none() && settings.master_key_command.is_none() {
        return Err(StartError::MasterKeyNotNamed);
    }
    if settings.operator_webhook_url.is_some() && settings.operator_webhook_secret_file.is_none() {
        return Err(StartError::OperatorSecretNotNamed);
    }
    Ok(())
}
