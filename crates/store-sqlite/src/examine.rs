//! Facts about the store of a directory, for `postrider doctor`. Changes nothing, and works beside a running server.

use std::path::Path;

use rusqlite::{Connection, OpenFlags};

use postrider_store::OpenError;

use crate::machinery::schema;
use crate::restore::StoreFacts;

/// The facts about a store.
#[derive(Clone, Debug)]
pub struct Examination {
    pub facts: StoreFacts,
    /// Of this program.
    pub newest_schema_version: u32,
    pub database_bytes: u64,
    /// Of the database, in pages that are used again before the file grows.
    pub free_bytes: u64,
    /// Of the file, which keeps its length when the log restarts at its beginning.
    pub log_bytes: u64,
    /// The database gives its free pages back.
    pub gives_back_space: bool,
}

/// Reads the facts. `None` when there is no store.
///
/// # Errors
/// When the database cannot be read.
pub fn examine(directory: &Path) -> Result<Option<Examination>, OpenError> {
    let database = schema::database_path(directory);
    let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |file| file.len());
    if !database.exists() {
        return Ok(None);
    }
    let read = || -> Result<Examination, rusqlite::Error> {
        let connection = Connection::open_with_flags(&database, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.execute_batch("PRAGMA busy_timeout = 5000; BEGIN")?;
        let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, u64>(0));
        Ok(Examination {
            facts: StoreFacts::read(&connection)?,
            newest_schema_version: schema::newest_version(),
            database_bytes: bytes(&database),
            log_bytes: bytes(&database.with_extension("db-wal")),
            free_bytes: number("PRAGMA freelist_count")? * number("PRAGMA page_size")?,
            gives_back_space: number("PRAGMA auto_vacuum")? != 0,
        })
    };
    read().map(Some).map_err(|error| OpenError::Database(error.into()))
}
