//! What the disk and SQLite could do at best: a yardstick for `postrider bench`, which may not name the driver itself.
//!
//! It is no part of the store: it knows neither its schema nor its tricks, and no server calls it.

use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use postrider_store::StoreError;

/// Rows of one transaction, and so of one flush: what a busy server gathers.
pub const GROUP_ROWS: u32 = 64;
/// Bytes of a row: about an event.
pub const ROW_BYTES: usize = 1_024;

/// Inserts rows into a new database in `directory` for so long, each group of [`GROUP_ROWS`] on disk before the next
/// begins. Answers with the rows a second.
///
/// # Errors
/// When the database cannot be made or written.
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
    fn rows_are_counted_as_they_stand_on_the_disk() {
        let directory = tempfile::tempdir().unwrap();
        let per_second = rows_per_second(directory.path(), Duration::from_millis(20)).unwrap();
        let connection = Connection::open(directory.path().join("ceiling.db")).unwrap();
        let rows: u32 = connection.query_row("SELECT count(*) FROM log", [], |row| row.get(0)).unwrap();
        assert!(per_second > 0.0 && rows >= GROUP_ROWS && rows.is_multiple_of(GROUP_ROWS), "{rows}");
    }
}
