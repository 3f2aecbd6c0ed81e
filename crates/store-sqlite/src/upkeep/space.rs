//! Space given back to the file system: free pages at the end of the database, above what is soon used again.
//!
//! Only a database that was created with `auto_vacuum = INCREMENTAL` can do that (`machinery/schema.rs`). SQLite moves
//! the last page of the file to a free one, so a step writes about as many pages as it gives back. The file shrinks at
//! the next checkpoint.
//!
//! Differs from PostgreSQL, whose server gives space back by itself.

use std::time::{Duration, Instant};

use rusqlite::Connection;

/// Free pages that stay, in bytes: what a day of ordinary traffic uses again.
const KEPT_FREE_BYTES_MIN: i64 = 64_000_000;
/// The part of the file that stays free.
const KEPT_FREE_PART: i64 = 10;
/// Pages given back in one step: a few milliseconds.
const PAGES_PER_STEP: i64 = 100;

/// The value of `PRAGMA auto_vacuum` with which free pages can be given back.
pub const INCREMENTAL: i64 = 2;

/// How many free pages the next step gives back.
pub fn pages_to_give_back(connection: &Connection) -> Result<usize, rusqlite::Error> {
    let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0));
    if number("PRAGMA auto_vacuum")? != INCREMENTAL {
        return Ok(0);
    }
    let (pages, free, page_bytes) =
        (number("PRAGMA page_count")?, number("PRAGMA freelist_count")?, number("PRAGMA page_size")?);
    Ok(excess(pages, free, page_bytes))
}

fn excess(pages: i64, free: i64, page_bytes: i64) -> usize {
    let kept = (KEPT_FREE_BYTES_MIN / page_bytes).max(pages / KEPT_FREE_PART);
    usize::try_from((free - kept).clamp(0, PAGES_PER_STEP)).unwrap_or_default()
}

/// Gives back so many pages. Returns how long it took.
pub fn give_back(connection: &Connection, pages: usize) -> Result<Duration, rusqlite::Error> {
    let started = Instant::now();
    let mut statement = connection.prepare(&format!("PRAGMA incremental_vacuum({pages})"))?;
    // Each step of the statement frees one page.
    let mut steps = statement.query([])?;
    while steps.next()?.is_some() {}
    Ok(started.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::schema;

    #[test]
    fn the_larger_of_64_mb_and_a_tenth_stays_free() {
        let small = KEPT_FREE_BYTES_MIN / 4096;
        assert_eq!(excess(small * 2, small, 4096), 0);
        assert_eq!(excess(small * 2, small + 1, 4096), 1);
        assert_eq!(excess(small * 20, small * 2, 4096), 0, "a tenth of the file");
        assert_eq!(excess(small * 20, small * 3, 4096), 100, "a step is bounded");
    }

    #[test]
    fn a_step_gives_back_every_page_that_it_was_asked_for() {
        let directory = tempfile::tempdir().unwrap();
        let connection = schema::connect(&schema::database_path(directory.path())).unwrap();
        let number = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(number("PRAGMA auto_vacuum"), INCREMENTAL);
        connection
            .execute_batch(
                "CREATE TABLE t (a BLOB);
                 WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500)
                 INSERT INTO t SELECT zeroblob(4000) FROM n;
                 DELETE FROM t;",
            )
            .unwrap();
        let (pages, free) = (number("PRAGMA page_count"), number("PRAGMA freelist_count"));
        assert!(free > 400, "{free}");
        give_back(&connection, 100).unwrap();
        assert_eq!((number("PRAGMA page_count"), number("PRAGMA freelist_count")), (pages - 100, free - 100));
    }
}
