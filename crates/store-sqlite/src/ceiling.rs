//! The most rows per second that the disk and SQLite can write: the ceiling that `postrider bench` compares with.
//!
//! It is in this crate because only this crate may name the SQLite driver. It is no part of the store: it uses neither
//! its schema nor its group commit, and no server calls it.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use postrider_store::StoreError;

/// Rows of one transaction, and so of one flush: as many as a busy server commits together.
pub const GROUP_ROWS: u32 = 64;
/// Bytes of a row: about the size of an event.
pub const ROW_BYTES: usize = 1_024;

/// Inserts rows into a new database in `directory` for this long. Each group of [`GROUP_ROWS`] is on disk before the
/// next begins. Returns rows per second.
///
/// # Errors
/// When the database cannot be created or written.
pub fn rows_per_second(directory: &Path, duration: Duration) -> Result<f64, StoreError> {
    measure(directory, duration).map_err(|error| StoreError::Broken(error.into()))
}

fn measure(directory: &Path, duration: Duration) -> Result<f64, rusqlite::Error> {
    let mut connection = Connection::open(directory.join("ceiling.db"))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         CREATE TABLE log (key INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;",
    )?;
    let (body, started, mut rows) = (vec![b'x'; ROW_BYTES], Instant::now(), 0_u32);
    while started.elapsed() < duration {
        let transaction = connection.transaction()?;
        {
            let mut insert = transaction.prepare_cached("INSERT INTO log (body) VALUES (?1)")?;
            for _ in 0..GROUP_ROWS {
                insert.execute(params![body])?;
            }
        }
        transaction.commit()?;
        rows += GROUP_ROWS;
    }
    Ok(f64::from(rows) / started.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counted_rows_are_on_disk() {
        let directory = tempfile::tempdir().unwrap();
        let per_second = rows_per_second(directory.path(), Duration::from_millis(20)).unwrap();
        let connection = Connection::open(directory.path().join("ceiling.db")).unwrap();
        let rows: u32 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
        assert!(per_second > 0.0 && rows >= GROUP_ROWS && rows.is_multiple_of(GROUP_ROWS), "{rows}");
    }
}
