//! Copying a store from one back end to the other: nothing is lost or duplicated, and deliveries resume.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider::clock::SystemClock;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::time::Clock;
use postrider_store::copy::{self, CopyError, NulText, Row, Selection, Side, TABLES, Tables, Value, Watch};
use postrider_store::{Claim, Meta, OpenError, Store, StoreSeed};
use postrider_store_postgres::copy::PostgresTables;
use postrider_store_postgres::{PostgresSettings, PostgresStore, TimeSource};
use postrider_store_sqlite::SqliteStore;
use postrider_store_sqlite::copy::SqliteTables;
use tempfile::TempDir;

use super::filled::{Filled, fill};
use super::fixture::{Backend, Fixture, START, TAG, outline};
use crate::support::clock::ManualClock;
use crate::support::postgres::{CONNECTIONS, TestDatabase};
use crate::support::wait::eventually;

/// A store in a directory that outlives the fixture.
struct Directory(Arc<TempDir>);

/// A store in a database that outlives the fixture.
struct Database(String);

#[async_trait]
impl Backend for Directory {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        // A process that another test starts holds copies of all open files, including the lock, until it executes its
        // program.
        let open = || async {
            match SqliteStore::open(self.0.path(), Arc::clone(&clock), seed).await {
                Err(OpenError::InUse { .. }) => None,
                opened => Some(opened.unwrap()),
            }
        };
        Arc::new(eventually("the lock of the directory", open).await)
    }
}

#[async_trait]
impl Backend for Database {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        let settings = PostgresSettings { time: TimeSource::Given, ..settings(&self.0) };
        Arc::new(PostgresStore::open(&settings, clock, seed).await.unwrap())
    }
}

fn settings(url: &str) -> PostgresSettings {
    PostgresSettings { pool_size: CONNECTIONS, ..PostgresSettings::new(url) }
}

struct NoProgress;

impl Watch for NoProgress {
    fn table_begins(&mut self, _table: &'static str, _rows: u64, _done: u64) {}
    fn rows_written(&mut self, _rows: u64) {}
    fn text_replaced(&mut self, _key: &str, _column: &str) {}
    fn table_ends(&mut self) {}
}

async fn directory(path: &Path, side: Side) -> SqliteTables {
    let open = || async {
        match SqliteTables::open(path, side) {
            Err(CopyError::Open(_, OpenError::InUse { .. })) => None,
            opened => Some(opened.unwrap()),
        }
    };
    eventually("the lock of the directory", open).await
}

async fn database(url: &str, side: Side) -> PostgresTables {
    // The connection of an earlier copy may still hold its lock while it closes.
    let open = || async {
        match PostgresTables::open(&settings(url), side).await {
            Err(CopyError::Busy(_)) => None,
            opened => Some(opened.unwrap()),
        }
    };
    eventually("the lock of the database", open).await
}

/// All rows of a table, in the order of its key.
async fn rows(store: &dyn Tables, table: copy::Table) -> (Vec<String>, Vec<Row>) {
    let mut others = store.columns(table.name).await.unwrap();
    others.retain(|column| !table.key.contains(&column.as_str()));
    others.sort_unstable();
    let columns: Vec<String> = table.key.iter().map(|column| (*column).to_owned()).chain(others).collect();
    let selection = Selection { table: table.name, columns, key_columns: table.key.len() };
    let mut all: Vec<Row> = Vec::new();
    loop {
        let after = all.last().map(|row| row[..selection.key_columns].to_vec());
        let more = store.read(&selection, after.as_deref()).await.unwrap();
        if more.is_empty() {
            // The databases collate text differently.
            all.sort_by_key(|row| format!("{row:?}"));
            return (selection.columns, all);
        }
        all.extend(more);
    }
}

/// Asserts that both sides hold the same rows. Ignores the due times of claims, which a copy to PostgreSQL releases.
/// Returns the number of rows.
async fn assert_same(source: &dyn Tables, target: &dyn Tables) -> usize {
    let mut total = 0;
    for table in TABLES {
        let (columns, mut before) = rows(source, *table).await;
        let (target_columns, mut after) = rows(target, *table).await;
        assert_eq!(columns, target_columns);
        let at = |name: &str| columns.iter().position(|column| column == name);
        for rows in [&mut before, &mut after] {
            for row in rows {
                let is_claimed = at("claim_token").is_some_and(|at| row[at] != Value::Null);
                let released = if table.name == "lanes" { at("next_at") } else { at("due_at").filter(|_| is_claimed) };
                released.into_iter().for_each(|at| row[at] = Value::Null);
            }
        }
        assert!(!before.is_empty(), "{} has no rows, so the test proves nothing about it", table.name);
        assert_eq!(before, after, "{} {columns:?}", table.name);
        total += before.len();
    }
    total
}

/// A store with at least one row in each table, and deliveries in various states.
struct Full {
    directory: Arc<TempDir>,
    clock: ManualClock,
    claimed: Claim,
    retried: Claim,
    blocked: Claim,
}

async fn full() -> Full {
    let directory = Arc::new(tempfile::tempdir().unwrap());
    let clock = ManualClock::new(START);
    let at = Fixture::on_clock(Directory(Arc::clone(&directory)), clock.clone()).await;
    let Filled { claimed, retried, blocked, .. } = fill(&at, 1).await;
    Full { directory, clock, claimed, retried, blocked }
}

async fn copy_all(source: &dyn Tables, target: &dyn Tables, clock: &ManualClock) -> Result<(), CopyError> {
    for counted in copy::copy(source, target, clock.now(), NulText::Refuse, &mut NoProgress).await? {
        assert_eq!(counted.source, counted.target, "{}", counted.table);
    }
    Ok(())
}

/// Asserts that every delivery resumes: the lost claim is recorded, and attempt numbers have no gap and no repeat.
async fn assert_resumes(at: &Fixture, full: &Full) {
    let first = at.claim(100).await.claims;
    let again = first
        .iter()
        .find(|claim| claim.delivery_id == full.claimed.delivery_id)
        .expect("the claim is released at once");
    assert_eq!(again.attempt, full.claimed.attempt + 1);
    let (_, attempts) = at.delivery(again.delivery_id).await;
    assert_eq!(attempts.last().unwrap().outcome, AttemptOutcome::Abandoned);
    for claim in &first {
        at.record(at.delivered(claim)).await;
    }
    assert!(!first.iter().any(|claim| claim.delivery_id == full.retried.delivery_id), "the retry waits");
    at.advance(Duration::from_secs(31));
    let later = at.claim(100).await.claims;
    let retried = later.iter().find(|claim| claim.delivery_id == full.retried.delivery_id).expect("the retry is due");
    assert_eq!(retried.attempt, 2);
    for claim in &later {
        at.record(at.delivered(claim)).await;
    }
    let (_, attempts) = at.delivery(full.retried.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::of_status(503)), (2, AttemptOutcome::of_status(200))]);
    let (blocked, _) = at.delivery(full.blocked.delivery_id).await;
    assert_eq!(blocked.status, DeliveryStatus::Failed);
    at.skip(full.blocked.delivery_id).await;
    assert!(!at.claim(100).await.claims.is_empty(), "the order resumes");
}

#[tokio::test]
async fn a_copy_to_postgres_and_back_holds_the_same_and_resumes() {
    let Some(test_database) = TestDatabase::new().await else { return };
    let url = test_database.url();
    let full = full().await;
    let back = Arc::new(tempfile::tempdir().unwrap());
    {
        let source = directory(full.directory.path(), Side::Source).await;
        let target = database(&url, Side::Target).await;
        copy_all(&source, &target, &full.clock).await.unwrap();
        assert!(assert_same(&source, &target).await > 60);
    }
    {
        let source = database(&url, Side::Source).await;
        let target = directory(back.path(), Side::Target).await;
        copy_all(&source, &target, &full.clock).await.unwrap();
        assert_same(&source, &target).await;
    }
    let on_postgres = Fixture::on_clock(Database(url), full.clock.clone()).await;
    assert_resumes(&on_postgres, &full).await;
    let clock = ManualClock::new(full.clock.now().minus(Duration::from_secs(31)));
    let on_sqlite = Fixture::on_clock(Directory(back), clock).await;
    assert_resumes(&on_sqlite, &full).await;
}

#[tokio::test]
async fn a_copy_needs_an_empty_target_or_its_own_unfinished_copy() {
    let Some(test_database) = TestDatabase::new().await else { return };
    let url = test_database.url();
    let full = full().await;
    let other = Arc::new(tempfile::tempdir().unwrap());
    drop(Fixture::new(Directory(Arc::clone(&other))).await);
    let source = directory(full.directory.path(), Side::Source).await;
    let refused = copy_all(&source, &directory(other.path(), Side::Target).await, &full.clock).await;
    assert!(matches!(refused, Err(CopyError::NotEmpty("workspaces"))), "{refused:?}");
    let target = database(&url, Side::Target).await;
    copy_all(&source, &target, &full.clock).await.unwrap();
    let refused = copy_all(&source, &target, &full.clock).await;
    assert!(matches!(refused, Err(CopyError::NotEmpty("workspaces"))), "{refused:?}");
    // The mark that an interrupted copy leaves.
    let mark = copy::Mark { name: copy::UNFINISHED.to_owned(), value: b"of another".to_vec() };
    target.set_mark(mark).await.unwrap();
    let refused = copy_all(&source, &target, &full.clock).await;
    assert!(matches!(refused, Err(CopyError::AnotherCopy)), "{refused:?}");
    let seed = super::seed(TAG, 1);
    let refused = PostgresStore::open(&settings(&url), Arc::new(full.clock.clone()), seed).await;
    assert!(matches!(refused.err(), Some(OpenError::UnfinishedCopy)));
    let refused = copy_all(&target, &directory(other.path(), Side::Target).await, &full.clock).await;
    assert!(matches!(refused, Err(CopyError::SourceUnfinished)), "{refused:?}");
}

#[tokio::test]
async fn a_store_in_use_is_neither_source_nor_target_of_a_copy() {
    let Some(test_database) = TestDatabase::new().await else { return };
    let url = test_database.url();
    let used = Arc::new(tempfile::tempdir().unwrap());
    let at = Fixture::new(Directory(Arc::clone(&used))).await;
    let refused = SqliteTables::open(used.path(), Side::Source).err();
    assert!(matches!(refused, Some(CopyError::Open(Side::Source, OpenError::InUse { .. }))), "{refused:?}");
    drop(at);
    let nothing = PostgresTables::open(&settings(&url), Side::Source).await.err();
    assert!(matches!(nothing, Some(CopyError::Missing(Side::Source))), "{nothing:?}");
    let seed = super::seed(TAG, 1);
    let node = PostgresStore::open(&settings(&url), Arc::new(SystemClock), seed).await.unwrap();
    let source = directory(used.path(), Side::Source).await;
    let target = database(&url, Side::Target).await;
    let clock = ManualClock::new(START);
    let refused = copy_all(&source, &target, &clock).await;
    assert!(matches!(refused, Err(CopyError::InUse(Side::Target))), "{refused:?}");
    node.check().await.unwrap();
    let elsewhere = tempfile::tempdir().unwrap();
    let refused = copy_all(&target, &directory(elsewhere.path(), Side::Target).await, &clock).await;
    assert!(matches!(refused, Err(CopyError::InUse(Side::Source))), "{refused:?}");
    // The node deregisters when it is dropped. Then the database is free for a copy.
    drop(node);
    let copied = || async {
        match copy_all(&source, &target, &clock).await {
            Err(CopyError::InUse(_)) => None,
            copied => Some(copied),
        }
    };
    eventually("the end of the node", copied).await.unwrap();
}
