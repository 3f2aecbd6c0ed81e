//! Backups of a SQLite store that is in use, and the back end of the conformance suite that is restored from one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use postrider_domain::time::Clock;
use postrider_store::backup::file::{PartialBackup, manifest_path, read_manifest};
use postrider_store::backup::{
    BackupError, BackupPlan, BackupStage, BackupWatch, LAST_BACKUP, LastBackup, RESTORED_COPY, Unwatched,
};
use postrider_store::sealing::FactChange;
use postrider_store::{Meta, Store, StoreSeed};
use postrider_store_sqlite::{SqliteStore, restore};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::fixture::{Backend, Fixture};
use super::postgres::PostgresBackend;
use super::sqlite::SqliteBackend;
use crate::support::wait::bounded;

fn plan(to: &Path) -> BackupPlan {
    BackupPlan { to: to.to_owned(), replace: false, bytes_per_second: None }
}

/// A store that was backed up while it was written, and restored into another directory.
pub struct RestoredBackend {
    first: SqliteBackend,
    restored: SqliteBackend,
    folder: TempDir,
    is_restored: AtomicBool,
}

impl RestoredBackend {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (first, restored) = (SqliteBackend::new(), SqliteBackend::new());
        Self { first, restored, folder, is_restored: AtomicBool::new(false) }
    }

    async fn restore(&self, clock: Arc<dyn Clock>, seed: StoreSeed) {
        let file = self.folder.path().join("backup.db");
        let original = self.first.open(clock, seed).await;
        let writes = async {
            for _ in 0..20 {
                original.check().await.unwrap();
            }
        };
        let (taken, ()) = tokio::join!(original.back_up(plan(&file), Arc::new(Unwatched)), writes);
        taken.unwrap();
        restore::restore(&file, self.restored.directory()).unwrap();
    }
}

#[async_trait]
impl Backend for RestoredBackend {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        if !self.is_restored.swap(true, Ordering::Relaxed) {
            self.restore(Arc::clone(&clock), seed).await;
        }
        self.restored.open(clock, seed).await
    }
}

/// Ends the backup when this many bytes are copied.
#[derive(Default)]
struct Watch {
    ends_at: Option<u64>,
    copied: AtomicU64,
    was_sealing: AtomicBool,
}

impl BackupWatch for Watch {
    fn progress(&self, stage: BackupStage, done: u64, total: u64) {
        assert!(done <= total, "{done} of {total}");
        self.copied.fetch_max(done, Ordering::Relaxed);
        self.was_sealing.fetch_or(stage == BackupStage::Sealing, Ordering::Relaxed);
    }

    fn is_cancelled(&self) -> bool {
        self.ends_at.is_some_and(|bytes| self.copied.load(Ordering::Relaxed) >= bytes)
    }
}

/// A store with some megabytes in it, a connection to it, and the path of a backup.
struct Filled {
    at: Fixture,
    database: Connection,
    to: PathBuf,
    _folder: TempDir,
}

impl Filled {
    async fn new() -> Self {
        let (at, database) = super::sqlite::with_database().await;
        database.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
        database.execute("INSERT INTO filler VALUES (randomblob(6000000))", []).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("backup.db");
        Self { at, database, to, _folder: folder }
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.to.parent().unwrap()).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn count(database: &Connection, sql: &str) -> u64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_beside_writers_is_the_store_of_one_instant() {
    let filled = Filled::new().await;
    filled.at.endpoint().await;
    filled.at.publish(5).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    for _ in 0..4 {
        let (store, stop) = (Arc::clone(filled.at.store()), Arc::clone(&stop));
        let events: Vec<_> = (0..2_000).map(|_| filled.at.event()).collect();
        writers.spawn(async move {
            let mut accepted = 0_u64;
            for event in events {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                store.accept_events(vec![event], None).await.unwrap();
                accepted += 1;
            }
            accepted
        });
    }
    let watch = Arc::new(Watch::default());
    let manifest = filled.at.store().back_up(plan(&filled.to), watch.clone()).await.unwrap();
    stop.store(true, Ordering::Relaxed);
    let later: u64 = bounded("the writers", writers.join_all()).await.iter().sum();
    assert!(watch.was_sealing.load(Ordering::Relaxed) && manifest.bytes > 6_000_000);

    let checked = restore::check(&filled.to).unwrap();
    assert_eq!(checked.manifest, Some(manifest));
    assert!(checked.facts.is_restored_copy);
    let copy = Connection::open(&filled.to).unwrap();
    let events = count(&copy, "SELECT COUNT(*) FROM events");
    assert!((5..=5 + later).contains(&events), "{events}");
    // Each was accepted with one delivery in one transaction.
    assert_eq!(count(&copy, "SELECT COUNT(*) FROM deliveries"), events);
    assert_eq!(count(&copy, "SELECT COUNT(*) FROM due"), events);
    assert_eq!(count(&filled.database, "SELECT COUNT(*) FROM events"), 5 + later, "the writers lost nothing");
}

#[tokio::test]
async fn the_store_keeps_when_its_last_backup_was_taken() {
    let filled = Filled::new().await;
    let manifest = filled.at.store().back_up(plan(&filled.to), Arc::new(Unwatched)).await.unwrap();
    let fact = filled.at.store().meta(LAST_BACKUP).await.unwrap().unwrap();
    let last = LastBackup::from_fact(&fact).unwrap();
    assert_eq!((last.at.to_string(), last.bytes), (manifest.taken_at, manifest.bytes));
    assert_eq!(filled.at.store().meta(RESTORED_COPY).await.unwrap(), None, "the original is no copy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_backup_leaves_nothing_and_another_can_run() {
    let filled = Filled::new().await;
    let watch = Arc::new(Watch { ends_at: Some(2_000_000), ..Watch::default() });
    let ended = filled.at.store().back_up(plan(&filled.to), watch.clone()).await;
    assert!(matches!(ended, Err(BackupError::Cancelled)), "{ended:?}");
    assert!(watch.copied.load(Ordering::Relaxed) < 6_000_000, "it ended halfway");
    assert_eq!(filled.names(), [""; 0]);
    assert_eq!(filled.at.store().meta(LAST_BACKUP).await.unwrap(), None);
    filled.at.store().back_up(plan(&filled.to), Arc::new(Unwatched)).await.unwrap();
    assert_eq!(filled.names(), ["backup.db", "backup.db.manifest"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_one_backup_of_a_store_at_a_time() {
    let filled = Filled::new().await;
    let slow = BackupPlan { bytes_per_second: 1_000_000.try_into().ok(), ..plan(&filled.to) };
    let other = plan(&filled.to.with_extension("other"));
    let watch = Arc::new(Watch { ends_at: Some(2_000_000), ..Watch::default() });
    let both = async {
        let second = async { filled.at.store().back_up(other, Arc::new(Unwatched)).await };
        tokio::join!(filled.at.store().back_up(slow, watch), second)
    };
    let (first, second) = bounded("both backups", both).await;
    assert!(matches!(first, Err(BackupError::Cancelled)), "{first:?}");
    assert!(matches!(second, Err(BackupError::Running)), "{second:?}");
}

#[tokio::test]
async fn a_backup_overwrites_neither_a_file_nor_the_store() {
    let filled = Filled::new().await;
    std::fs::write(&filled.to, "older").unwrap();
    let refused = filled.at.store().back_up(plan(&filled.to), Arc::new(Unwatched)).await;
    assert!(matches!(refused, Err(BackupError::Exists { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&filled.to).unwrap(), b"older");
    let database = PathBuf::from(filled.database.path().unwrap());
    for to in [database.clone(), database.with_extension("copy")] {
        let onto = BackupPlan { replace: true, ..plan(&to) };
        let refused = filled.at.store().back_up(onto, Arc::new(Unwatched)).await;
        assert!(matches!(refused, Err(BackupError::InDataDirectory { .. })), "{refused:?}");
    }
    filled.at.store().check().await.unwrap();
    let replacing = BackupPlan { replace: true, ..plan(&filled.to) };
    filled.at.store().back_up(replacing, Arc::new(Unwatched)).await.unwrap();
    restore::check(&filled.to).unwrap();
}

#[tokio::test]
async fn a_restored_store_is_marked_until_the_mark_is_removed() {
    let filled = Filled::new().await;
    filled.at.store().back_up(plan(&filled.to), Arc::new(Unwatched)).await.unwrap();
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("restored");
    restore::restore(&filled.to, &directory).unwrap();
    let again = restore::restore(&filled.to, &directory);
    assert!(again.unwrap_err().to_string().ends_with("is not empty: restore into a new directory (--data-dir)"));
    let seed = super::seed(super::fixture::TAG, 3);
    let store = SqliteStore::open(&directory, Arc::new(filled.at.clock.clone()), seed).await.unwrap();
    let mark = store.meta(RESTORED_COPY).await.unwrap();
    assert!(mark.is_some());
    let removal = FactChange { name: RESTORED_COPY, from: mark, to: None };
    assert!(postrider_store::sealing::Sealing::change_facts_if_unchanged(&store, vec![removal]).await.unwrap());
    assert_eq!(store.meta(RESTORED_COPY).await.unwrap(), None);
}

#[tokio::test]
async fn a_copy_by_another_program_is_marked_when_it_is_restored() {
    let filled = Filled::new().await;
    let to = filled.to.to_str().unwrap();
    filled.database.execute("VACUUM INTO ?1", [to]).unwrap();
    assert!(!restore::check(&filled.to).unwrap().facts.is_restored_copy);
    let directory = filled.to.with_extension("restored");
    let restored = restore::restore(&filled.to, &directory).unwrap();
    assert!(restored.manifest.is_none() && restored.facts.is_restored_copy);
    let database = Connection::open(directory.join("postrider.db")).unwrap();
    assert_eq!(count(&database, "SELECT COUNT(*) FROM meta WHERE name = 'restored_copy'"), 1);
}

#[tokio::test]
async fn a_damaged_backup_is_refused_and_leaves_no_directory() {
    let filled = Filled::new().await;
    filled.at.store().back_up(plan(&filled.to), Arc::new(Unwatched)).await.unwrap();
    let good = std::fs::read(&filled.to).unwrap();
    let directory = filled.to.with_extension("restored");
    let refused = |what: &str, bytes: &[u8], fault: &str| {
        std::fs::write(&filled.to, bytes).unwrap();
        for outcome in [restore::check(&filled.to), restore::restore(&filled.to, &directory)] {
            let text = outcome.unwrap_err().to_string();
            assert!(text.contains(fault), "{what}: {text}");
        }
        assert!(!directory.exists(), "{what}");
    };
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    refused("a flipped bit", &flipped, "the file was changed or damaged");
    refused("a cut file", &good[..good.len() / 2], "it was not copied whole");
    // Without its manifest, SQLite finds what the checksum would have found.
    std::fs::remove_file(manifest_path(&filled.to)).unwrap();
    let mut torn = good.clone();
    torn[4096..8192].fill(0xff);
    refused("a torn page", &torn, "the database is damaged");
    refused("another file", b"not a database", "is not the database of a store");
    std::fs::write(&filled.to, &good).unwrap();
    let newer = Connection::open(&filled.to).unwrap();
    newer.execute_batch("UPDATE refinery_schema_history SET version = 900 WHERE version = 1").unwrap();
    drop(newer);
    refused("a newer schema", &std::fs::read(&filled.to).unwrap(), "use a newer postrider");
}

#[tokio::test]
async fn a_file_with_a_log_beside_it_is_no_backup() {
    let filled = Filled::new().await;
    filled.at.publish(1).await;
    let database = PathBuf::from(filled.database.path().unwrap());
    let refused = restore::check(&database).unwrap_err().to_string();
    assert!(refused.contains("has a write-ahead log beside it"), "{refused}");
}

#[tokio::test]
async fn the_rest_of_a_killed_restore_is_no_obstacle() {
    let filled = Filled::new().await;
    filled.at.store().back_up(plan(&filled.to), Arc::new(Unwatched)).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    for name in ["lock", "postrider.db.restoring"] {
        std::fs::write(directory.path().join(name), "rest").unwrap();
    }
    restore::restore(&filled.to, directory.path()).unwrap();
    assert!(!directory.path().join("postrider.db.restoring").exists());
    drop(PartialBackup::create(&filled.to.with_extension("unused"), false).unwrap());
    assert!(read_manifest(&filled.to).unwrap().is_some());
}

#[tokio::test]
async fn postgresql_refers_to_its_own_tools() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let refused = at.store().back_up(plan(Path::new("/nowhere/backup.db")), Arc::new(Unwatched)).await;
    assert!(matches!(refused, Err(BackupError::NotHere)), "{refused:?}");
}
