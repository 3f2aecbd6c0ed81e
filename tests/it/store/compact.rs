//! Compacting a SQLite store: its file shrinks, its content stays, and the rest of a killed compaction is no obstacle.

use std::path::{Path, PathBuf};

use postrider_store::StoreSeed;
use postrider_store::backup::CompactError;
use postrider_store_sqlite::SqliteStore;
use postrider_store_sqlite::compact::compact;
use postrider_store_sqlite::examine::examine;
use rusqlite::Connection;

use super::fixture::{START, TAG};
use crate::support::clock::ManualClock;

const SEED: StoreSeed = super::seed(TAG, 1);

async fn open(directory: &Path) -> SqliteStore {
    SqliteStore::open(directory, std::sync::Arc::new(ManualClock::new(START)), SEED).await.unwrap()
}

/// A stopped store with four megabytes of free pages, and without `auto_vacuum`, as an old one is.
async fn old_store() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).await);
    let database = directory.path().join("postrider.db");
    let connection = Connection::open(&database).unwrap();
    connection
        .execute_batch(
            "PRAGMA auto_vacuum = NONE; VACUUM; CREATE TABLE filler (bytes BLOB);
             INSERT INTO filler VALUES (zeroblob(4000000)), (x'00'), (CAST('the marker of a removed row' AS BLOB));
             DELETE FROM filler WHERE length(bytes) > 1;",
        )
        .unwrap();
    (directory, database)
}

fn rows(database: &Path) -> (u32, u32, String) {
    let connection = Connection::open(database).unwrap();
    let count = |sql| connection.query_row(sql, [], |row| row.get(0)).unwrap();
    let checked = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    (count("SELECT COUNT(*) FROM filler"), count("SELECT COUNT(*) FROM meta"), checked)
}

fn holds(database: &Path, needle: &[u8]) -> bool {
    std::fs::read(database).unwrap().windows(needle.len()).any(|window| window == needle)
}

#[tokio::test]
async fn free_pages_go_and_the_rows_stay() {
    let (directory, database) = old_store().await;
    let before = rows(&database);
    assert!(holds(&database, b"the marker of a removed row"), "SQLite leaves it in a free page");
    assert!(!examine(directory.path()).unwrap().unwrap().gives_back_space);
    let compacted = compact(directory.path()).unwrap();
    assert!(compacted.bytes_before > 4_000_000 && compacted.bytes_after < 1_000_000, "{compacted:?}");
    assert_eq!(compacted.bytes_after, std::fs::metadata(&database).unwrap().len());
    assert_eq!(rows(&database), before);
    assert!(!holds(&database, b"the marker of a removed row"));
    assert!(examine(directory.path()).unwrap().unwrap().gives_back_space);
    drop(open(directory.path()).await);
    assert_eq!(rows(&database).2, "ok");
}

#[tokio::test]
async fn a_store_in_use_is_not_compacted() {
    let (directory, _) = old_store().await;
    let store = open(directory.path()).await;
    let refused = compact(directory.path());
    assert!(matches!(refused, Err(CompactError::Open(_))), "{refused:?}");
    drop(store);
    let none = compact(&directory.path().join("none"));
    assert!(matches!(none, Err(CompactError::NoStore { .. })), "{none:?}");
}

#[tokio::test]
async fn a_database_that_another_program_has_open_is_kept() {
    let (directory, database) = old_store().await;
    let other = Connection::open(&database).unwrap();
    // It keeps the log from being removed, and has written into it.
    other.execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; BEGIN; SELECT * FROM meta").unwrap();
    let writer = Connection::open(&database).unwrap();
    writer.execute_batch("INSERT INTO filler VALUES (x'01')").unwrap();
    let refused = compact(directory.path());
    assert!(refused.is_err(), "{refused:?}");
    drop((other, writer));
    assert_eq!(rows(&database).0, 2, "nothing is lost");
}

#[tokio::test]
async fn the_rest_of_a_killed_compaction_is_removed() {
    let (directory, database) = old_store().await;
    let rest = directory.path().join("postrider.db.compact");
    std::fs::write(&rest, "half of a database").unwrap();
    let before = rows(&database);
    drop(open(directory.path()).await);
    assert!(!rest.exists(), "by the next start");
    std::fs::write(&rest, "half of a database").unwrap();
    compact(directory.path()).unwrap();
    assert!(!rest.exists(), "by the next compaction");
    assert_eq!(rows(&database), before);
}
