//! The embedded store: one SQLite file in the data directory, written by one thread and read by a few.
//!
//! A role of the store is implemented in the file that holds its SQL. `machinery` runs that SQL: threads, group commit,
//! flushing, checkpoints, schema.
//!
//! A file that writes tables names them at the end of its head. Besides these, `copy.rs` fills every table of a new
//! store.
//!
//! The process holds the data directory alone. So a claim that is found at start belongs to a process that has ended.
//! It is released at once instead of when its lease ends.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use postrider_domain::id::StoreTag;
use postrider_domain::idempotency::Recording;
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::directory::DirectoryLock;
use postrider_store::disk::DiskGate;
use postrider_store::{StoreError, Written};

pub mod backup;
pub mod ceiling;
pub mod compact;
pub mod copy;
mod erasure;
pub mod examine;
mod gauges;
mod idempotency;
mod log;
mod machinery;
mod meta;
mod node;
mod parked_message;
mod publish;
mod queue;
mod rate;
mod registry;
mod replay;
pub mod restore;
mod sealing;
mod secrets;
mod stats;
mod stored_bytes;
mod upkeep;

pub use machinery::drive::{Drive, FlushLog};
use machinery::reader::{ReadTx, Readers};
use machinery::writer::{JobSize, SharedKeySequence, WriteResult, WriteTx, Writer};

/// The store in one directory.
pub struct SqliteStore {
    // Fields drop in this order: the writer's inbox closes before the threads are joined, and the lock is released
    // last.
    writer: Option<Writer>,
    readers: Readers,
    clock: Arc<dyn Clock>,
    keys: Arc<SharedKeySequence>,
    tag: StoreTag,
    /// The version of the program, and when it opened the store.
    version: &'static str,
    opened_at: Timestamp,
    backups: backup::Source,
    /// The writer thread, then the threads that flush and checkpoint. These end after the writer.
    threads: Vec<JoinHandle<()>>,
    directory: PathBuf,
    drive: Drive,
    disk: DiskGate,
    _lock: DirectoryLock,
}

impl SqliteStore {
    /// Runs `query` on a read connection, in one snapshot.
    async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(ReadTx<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let tag = self.tag;
        self.readers.read(move |connection| query(ReadTx { connection, tag })).await
    }

    /// Runs `effect` in the next group of writes. Returns once the group is on disk.
    async fn write<T, F>(&self, size: JobSize, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut WriteTx<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.writer()?.write(size, false, effect).await
    }

    /// A write that may carry an idempotency key. The answer is recorded in the same transaction.
    async fn write_once<T, E, F>(
        &self,
        size: JobSize,
        recording: Option<Recording<T>>,
        mut effect: F,
    ) -> Result<Written<T>, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
        F: FnMut(&mut WriteTx<'_>) -> WriteResult<T, E> + Send + 'static,
    {
        self.disk.check_write()?;
        self.write(size, move |tx| idempotency::once(tx, recording.as_ref(), |tx| effect(tx))).await?
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer.as_ref().ok_or_else(|| unavailable("the store is closing"))
    }
}

fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable { why, source: None }
}

fn broken(what: &'static str) -> StoreError {
    StoreError::Broken(what.into())
}
