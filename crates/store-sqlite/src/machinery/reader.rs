//! The read connections. A query runs in one snapshot, in a server on a thread for blocking work.
//!
//! An open snapshot keeps the write-ahead log from restarting. So a read that takes longer than [`LONGEST_READ`] is
//! interrupted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::Connection;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use postrider_domain::id::StoreTag;
use postrider_store::StoreError;

use super::drive::Drive;
use super::schema;
use super::writer::store_error;
use crate::{broken, unavailable};

const READERS: usize = 3;
const LONGEST_READ: Duration = Duration::from_secs(1);
/// SQLite checks the time after this many steps of its virtual machine.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;

/// What a query works with.
#[derive(Clone, Copy)]
pub struct ReadTx<'c> {
    /// In a snapshot of its own, or in the transaction of a write.
    pub connection: &'c Connection,
    pub tag: StoreTag,
}

#[derive(Clone)]
pub struct Readers {
    free: Arc<Semaphore>,
    connections: Arc<Mutex<Vec<Connection>>>,
    drive: Drive,
}

impl Readers {
    pub fn open(database: &Path, drive: Drive) -> Result<Self, rusqlite::Error> {
        let connections = (0..READERS)
            .map(|_| {
                let connection = schema::connect(database)?;
                connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096")?;
                Ok(connection)
            })
            .collect::<Result<Vec<_>, rusqlite::Error>>()?;
        Ok(Self { free: Arc::new(Semaphore::new(READERS)), connections: Arc::new(Mutex::new(connections)), drive })
    }

    /// Tells how many connections are idle and how many busy. Keeps none of them open.
    pub fn usage(&self) -> impl Fn() -> (u64, u64) + use<> {
        let free = Arc::clone(&self.free);
        move || {
            let idle = free.available_permits().min(READERS);
            (idle as u64, (READERS - idle) as u64)
        }
    }

    /// Runs `query` on a free connection, inside one snapshot.
    pub async fn read<T, F>(&self, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let permit = Arc::clone(&self.free).acquire_owned().await.map_err(|_| unavailable("the store is closing"))?;
        let connections = Arc::clone(&self.connections);
        let work = move || {
            let _permit = permit;
            let mut connection = lock(&connections).pop().ok_or_else(|| broken("no read connection for a permit"))?;
            let outcome = catch_unwind(AssertUnwindSafe(|| read_in_snapshot(&mut connection, query)));
            lock(&connections).push(connection);
            outcome.unwrap_or(Err(rusqlite::Error::UnwindingPanic)).map_err(|error| match error.sqlite_error_code() {
                Some(rusqlite::ffi::ErrorCode::OperationInterrupted) => unavailable("the query took too long"),
                _ => store_error(&error),
            })
        };
        self.drive.run(work).await?
    }
}

fn read_in_snapshot<T>(
    connection: &mut Connection,
    query: impl FnOnce(&Connection) -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    let started = Instant::now();
    connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || started.elapsed() > LONGEST_READ))?;
    let snapshot = connection.unchecked_transaction()?;
    let value = query(&snapshot)?;
    snapshot.finish()?;
    Ok(value)
}

fn lock(connections: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
    connections.lock().unwrap_or_else(PoisonError::into_inner)
}
