//! Opens the store in its directory, and closes it.

use std::path::Path;
use std::sync::Arc;

use postrider_domain::id::KeySequence;
use postrider_domain::time::{Clock, SteadyClock};
use postrider_metrics::StoreMetrics;
use postrider_store::directory::DirectoryLock;
use postrider_store::disk::DiskGate;
use postrider_store::{OpenError, StoreSeed};

use super::drive::Drive;
use super::reader::Readers;
use super::writer::{JobSize, SharedKeySequence, Writer, WriterParts};
use super::{checkpoint, row_key, schema};
use crate::queue::due;
use crate::{SqliteStore, backup, compact, gauges, meta};

impl SqliteStore {
    /// Whether the directory holds a store.
    pub fn is_in(directory: &Path) -> bool {
        schema::database_path(directory).exists()
    }

    /// Opens the store in `directory`. Creates the directory if it does not exist.
    ///
    /// # Errors
    /// When another process holds the directory, it cannot be used, a newer version made the database, or it is an
    /// unfinished copy.
    pub async fn open(directory: &Path, clock: Arc<dyn Clock>, seed: StoreSeed) -> Result<Self, OpenError> {
        Self::open_measured(directory, clock, seed, StoreMetrics::default()).await
    }

    /// As [`Self::open`], and measures what it does.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_measured(
        directory: &Path,
        clock: Arc<dyn Clock>,
        seed: StoreSeed,
        metrics: StoreMetrics,
    ) -> Result<Self, OpenError> {
        Self::open_driven(directory, clock, seed, metrics, Drive::Threads).await
    }

    /// As [`Self::open_measured`], and says what runs the store's work.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn open_driven(
        directory: &Path,
        clock: Arc<dyn Clock>,
        seed: StoreSeed,
        metrics: StoreMetrics,
        drive: Drive,
    ) -> Result<Self, OpenError> {
        let directory_fault = |source| OpenError::Directory { path: directory.display().to_string(), source };
        let lock = DirectoryLock::take(directory)?;
        compact::remove_rest(directory);
        let database = schema::database_path(directory);
        let database_fault = |error: rusqlite::Error| OpenError::Database(error.into());
        let mut connection = schema::connect(&database).map_err(database_fault)?;
        schema::migrate(&mut connection)?;
        if meta::is_unfinished_copy(&connection).map_err(database_fault)? {
            return Err(OpenError::UnfinishedCopy);
        }
        let tag = meta::store_tag(&connection, seed.tag).map_err(database_fault)?;
        let last_key = row_key::largest(&connection, clock.now()).map_err(database_fault)?;
        let last = meta::last_time(&connection, clock.now()).map_err(database_fault)?.max(last_key.created_at());
        let machine_clock = Arc::clone(&clock);
        // Due times and leases follow this clock, so a clock that is set back delays nothing.
        let clock: Arc<dyn Clock> = Arc::new(SteadyClock::after(last, clock));
        let keys = Arc::new(SharedKeySequence::new(KeySequence::after(seed.node, last_key)));
        let (checkpointer, checkpoint_thread) =
            checkpoint::Checkpointer::start(&database, &mut connection, &drive).map_err(database_fault)?;
        let backups = backup::Source::new(&database, checkpointer.hold());
        let readers = Readers::open(&database, drive.clone()).map_err(database_fault)?;
        let log = schema::open_log_for_flushing(&connection, &database)?;
        gauges::show_at_scrape(&metrics, &readers, machine_clock, Arc::clone(&clock));
        let (clock_of_writer, keys_of_writer) = (Arc::clone(&clock), Arc::clone(&keys));
        let parts =
            WriterParts { connection, tag, clock: clock_of_writer, keys: keys_of_writer, checkpointer, log, metrics };
        let (writer, threads) = Writer::start(parts, &drive).map_err(directory_fault)?;
        let opened_at = clock.now();
        let store = Self {
            writer: Some(writer),
            readers,
            clock,
            keys,
            tag,
            version: seed.version,
            opened_at,
            backups,
            threads: threads.into_iter().chain(checkpoint_thread).collect(),
            directory: directory.to_owned(),
            drive,
            disk: DiskGate::default(),
            _lock: lock,
        };
        let released = store
            .write(JobSize::ONE_ROW, due::release_predecessors_claims)
            .await
            .map_err(|error| OpenError::Database(error.into()))?;
        if released > 0 {
            tracing::info!(claims = released, "released the claims of the previous process");
        }
        Ok(store)
    }
}

impl Drop for SqliteStore {
    /// Waits until every job of the writer is on disk and no file of the directory is open.
    fn drop(&mut self) {
        self.writer = None;
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(name, "a thread of the store panicked");
            }
        }
    }
}
