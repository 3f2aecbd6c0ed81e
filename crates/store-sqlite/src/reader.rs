//! A few connections that only read, each on a thread of its own.
//!
//! A snapshot that stays open keeps the write-ahead log from being recycled, so a read that lasts longer than a
//! second is interrupted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::Semaphore;

use super::writer::store_error;
use super::{StoreError, broken, schema, unavailable};

const READERS: usize = 3;
const LONGEST_READ: Duration = Duration::from_secs(1);
/// SQLite asks whether to go on after this many of its virtual machine's steps.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;

#[derive(Clone)]
pub struct Readers {
    free: Arc<Semaphore>,
    connections: Arc<Mutex<Vec<Connection>>>,
}

impl Readers {
    pub fn open(database: &Path) -> Result<Self, rusqlite::Error> {
        let connections = (0..READERS)
            .map(|_| {
                let connection = schema::connect(database)?;
                connection.execute_batch("PRAGMA query_only = ON; PRAGMA cache_size = -4096")?;
                Ok(connection)
            })
            .collect::<Result<Vec<_>, rusqlite::Error>>()?;
        Ok(Self { free: Arc::new(Semaphore::new(READERS)), connections: Arc::new(Mutex::new(connections)) })
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
            let mut connection = lock(&connections).pop().ok_or_else(|| broken("a permit without a connection"))?;
            let outcome = catch_unwind(AssertUnwindSafe(|| read_in_snapshot(&mut connection, query)));
            lock(&connections).push(connection);
            outcome.unwrap_or(Err(rusqlite::Error::UnwindingPanic)).map_err(|error| match error.sqlite_error_code() {
                Some(rusqlite::ffi::ErrorCode::OperationInterrupted) => unavailable("the query took too long"),
                _ => store_error(&error),
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Broken(Box::new(error)))?
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
