//! Behaviour of the SQLite store alone: it follows from one process that holds the data directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{Delivery, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::DeliveryId;
use postrider_domain::limits;
use postrider_domain::page::{PageRequest, encode_cursor};
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayCount, ReplayRange};
use postrider_domain::time::Clock;
use postrider_store::{Meta, NewEndpoint, OpenError, Recorded, RequeueError, Store, StoreSeed};
use postrider_store_sqlite::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

use super::conformance::endpoint_health::{pause, probe};
use super::conformance::mode;
use super::fixture::{Backend, EVENT_TYPE, Fixture, START, TAG, outline};
use crate::support::clock::ManualClock;
use crate::support::wait::eventually;

/// A directory of its own for each test.
pub struct SqliteBackend {
    directory: TempDir,
}

impl SqliteBackend {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The path of the database, for changes that no method of the store makes.
    fn database(&self) -> PathBuf {
        self.directory.path().join("postrider.db")
    }
}

/// A fixture and a second connection to its database.
pub async fn with_database() -> (Fixture, Connection) {
    let backend = SqliteBackend::new();
    let path = backend.database();
    let at = Fixture::new(backend).await;
    (at, Connection::open(path).unwrap())
}

#[async_trait]
impl Backend for SqliteBackend {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        // A process that another test starts holds copies of all open files, including the lock, until it executes its
        // program.
        let open = || async {
            match SqliteStore::open(self.directory.path(), Arc::clone(&clock), seed).await {
                Err(OpenError::InUse { .. }) => None,
                opened => Some(opened.unwrap()),
            }
        };
        Arc::new(eventually("the lock of the closed store", open).await)
    }
}

#[tokio::test]
async fn old_test_deliveries_of_live_endpoints_are_only_read() {
    let (at, connection) = with_database().await;
    let endpoint = mode::with_failed_and_replay(&at).await;
    connection.execute_batch(mode::MAKE_OLD).unwrap();
    mode::check_old(&at, &endpoint).await;
}

#[tokio::test]
async fn the_probe_of_a_dead_process_is_replaced_within_its_lease() {
    let mut at = Fixture::new(SqliteBackend::new()).await;
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    probe(&at).await;
    at.reopen().await;
    assert_eq!(probe(&at).await.attempt, 2);
}

#[tokio::test]
async fn the_claims_of_a_dead_process_are_due_at_once() {
    let mut at = Fixture::new(SqliteBackend::new()).await;
    at.endpoint().await;
    at.publish(2).await;
    let lost = at.claim_one().await;
    let retried = at.claim_one().await;
    at.record(at.retry(&retried, Duration::from_secs(5))).await;
    at.reopen().await;
    let claimed = at.claim(10).await;
    let numbers: Vec<_> = claimed.claims.iter().map(|claim| (claim.delivery_id, claim.attempt)).collect();
    assert_eq!(numbers, [(lost.delivery_id, 2)], "a waiting retry is not due");
    let (_, attempts) = at.delivery(lost.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned)]);
    assert_eq!(at.record(at.delivered(&lost)).await, Recorded::ClaimLost);
}

#[tokio::test]
async fn a_clock_set_back_delays_no_retry_and_no_restart() {
    const HOUR: Duration = Duration::from_secs(3600);
    let mut at = Fixture::new(SqliteBackend::new()).await;
    at.endpoint().await;
    at.publish(1).await;
    let failed = at.claim_one().await;
    at.record(at.retry(&failed, Duration::from_secs(30))).await;
    at.advance(Duration::from_secs(10));
    assert!(at.claim(1).await.claims.is_empty());
    at.clock.set(at.clock.now().minus(HOUR));
    assert!(at.claim(1).await.claims.is_empty(), "20 s are left");
    at.advance(Duration::from_secs(20));
    let again = at.claim_one().await;
    assert_eq!(again.attempt, 2);

    at.record(at.retry(&again, Duration::from_secs(30))).await;
    at.advance(Duration::from_secs(10));
    at.store().check().await.unwrap(); // keeps the time, as upkeep does each minute
    at.clock.set(at.clock.now().minus(HOUR));
    at.reopen().await;
    assert!(at.claim(1).await.claims.is_empty());
    at.advance(Duration::from_secs(20));
    assert_eq!(at.claim_one().await.attempt, 3);
}

#[tokio::test]
async fn a_check_fails_when_nothing_can_be_written() {
    let (at, database) = with_database().await;
    at.store().check().await.unwrap();
    let refuse = "CREATE TRIGGER refuse BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    database.execute_batch(refuse).unwrap();
    at.store().check().await.unwrap_err();
    database.execute_batch("DROP TRIGGER refuse").unwrap();
    at.store().check().await.unwrap();
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let backend = SqliteBackend::new();
    let clock = Arc::new(ManualClock::new(super::fixture::START));
    let seed = super::seed(TAG, 0);
    let held = backend.open(clock.clone(), seed).await;
    let refused = SqliteStore::open(backend.directory.path(), clock.clone(), seed).await;
    assert!(matches!(refused.err(), Some(OpenError::InUse { .. })));
    drop(held);
    backend.open(clock, seed).await.check().await.unwrap();
}

#[tokio::test]
async fn the_data_directory_is_private_to_its_owner() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let clock = Arc::new(ManualClock::new(super::fixture::START));
    let store = SqliteStore::open(&directory, clock, super::seed(TAG, 0)).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn a_delivery_without_its_event_fails() {
    let (at, database) = with_database().await;
    at.endpoint().await;
    let published = at.publish(3).await;
    let ids: Vec<_> = at.deliveries().await.iter().rev().map(|delivery| delivery.id).collect();
    let lost = at.claim_one().await;
    assert_eq!(lost.delivery_id, ids[0]);
    at.advance(limits::LEASE);
    for gone in &published[..2] {
        database.execute("DELETE FROM events WHERE key = ?1", [gone.id.key().as_i64()]).unwrap();
    }
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.delivery_id).collect::<Vec<_>>(), ids[2..]);
    assert!(!claims[0].envelope.is_empty());
    let mut statement = database
        .prepare(
            "SELECT status, reason, attempts, (SELECT COUNT(*) FROM attempts WHERE delivery_key = key),
                    EXISTS (SELECT 1 FROM due WHERE delivery_key = key)
             FROM deliveries ORDER BY key LIMIT 2",
        )
        .unwrap();
    let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?));
    let ends: Vec<(i64, i64, u32, u32, bool)> = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    let (failed, gone) = (DeliveryStatus::Failed.code(), EndReason::EventGone.code());
    assert_eq!(ends, [(failed, gone, 1, 1, false), (failed, gone, 0, 0, false)], "the lost attempt is in the log");
}

#[tokio::test]
async fn a_removed_event_is_counted_but_not_replayed_or_retried() {
    let (at, database) = with_database().await;
    let endpoint = at.endpoint().await;
    let published = at.publish(3).await;
    let claims = at.claim(3).await.claims;
    for claim in &claims {
        at.record(at.failed(claim)).await;
    }
    database.execute("DELETE FROM events WHERE key = ?1", [published[1].id.key().as_i64()]).unwrap();
    at.advance(Duration::from_secs(1));
    let range = ReplayRange { since: START, until: at.clock_now(), statuses: REPLAYED_BY_DEFAULT.to_vec() };
    let count = at.count_replay(&endpoint, range.clone(), Mode::Live).await;
    assert_eq!(count, ReplayCount { total: 3, unavailable: 1, counted_to: None });
    let replay = at.replay(&endpoint, range).await;
    at.store().advance_replays().await.unwrap();
    let done = at.store().find_replay(at.tenant(), Some(endpoint.id), replay.id).await.unwrap().unwrap();
    assert_eq!((done.total, done.replayed, done.unavailable), (3, 2, 1));
    let mut replayed: Vec<_> = at.claim(10).await.claims.iter().map(|claim| claim.event_id).collect();
    replayed.sort_unstable();
    assert_eq!(replayed, [published[0].id, published[2].id]);
    let gone = claims.iter().find(|claim| claim.event_id == published[1].id).unwrap();
    let refused = at.try_retry(at.tenant(), gone.delivery_id).await;
    assert!(matches!(refused, Err(RequeueError::NotFound)), "{refused:?}");
}

/// A store that starts with the same node number each time. Random numbers repeat now and then.
async fn open_at(directory: &Path, clock: &ManualClock) -> Fixture {
    struct SameNode(PathBuf);
    #[async_trait]
    impl Backend for SameNode {
        async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
            Arc::new(SqliteStore::open(&self.0, clock, StoreSeed { node: 7, ..seed }).await.unwrap())
        }
    }
    Fixture::on_clock(SameNode(directory.to_owned()), clock.clone()).await
}

#[tokio::test]
async fn keys_stay_unique_when_a_restart_sets_the_clock_back() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let mut at = open_at(directory.path(), &clock).await;
    at.endpoint().await;
    at.publish(100).await;
    let mut before = at.deliveries().await;
    for back in [Duration::ZERO, Duration::from_secs(3)] {
        clock.set(START.minus(back));
        at.reopen().await;
        at.publish(50).await;
        let after = at.deliveries().await;
        assert_eq!(ids(&after)[50..], ids(&before), "no delivery is lost, and the newest come first");
        before = after;
    }
}

#[tokio::test]
async fn keys_do_not_follow_a_clock_that_once_ran_far_ahead() {
    let directory = tempfile::tempdir().unwrap();
    let clock = ManualClock::new(START);
    let mut at = open_at(directory.path(), &clock).await;
    at.endpoint().await;
    clock.set(START.plus(limits::CLOCK_AHEAD_MAX * 1000));
    at.publish(1).await;
    clock.set(START);
    at.reopen().await;
    at.publish(2).await;
    let created: Vec<_> = at.deliveries().await.iter().map(|delivery| delivery.id.created_at()).collect();
    assert!(created[1..].iter().all(|at| at.since(START) <= Duration::from_millis(1)), "{created:?}");
}

fn ids(deliveries: &[Delivery]) -> Vec<DeliveryId> {
    deliveries.iter().map(|delivery| delivery.id).collect()
}

#[tokio::test]
async fn a_rare_delivery_is_found_by_pages_of_bounded_cost() {
    const ROWS: i64 = 48_000;
    let (at, database) = with_database().await;
    let events = [EVENT_TYPE, "job.failed"].map(EventTypeName::from_stored).to_vec();
    let endpoint = at.create(NewEndpoint { events, ..at.new_endpoint() }).await;
    let rare = at.accept(vec![at.event_of("job.failed", None)]).await[0].id;
    let failed = at.claim_one().await;
    at.record(at.failed(&failed)).await;
    at.publish(1).await;
    let pending = at.deliveries().await[0].id;
    at.advance(Duration::from_secs(1));
    let common = at.publish(1).await[0].id;
    let delivered = "INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, cause)
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
        SELECT ?2 + i, ?3, ?4, ?5, 0, 1, 0 FROM n";
    let first = at.store().next_key().as_i64();
    let keys = (ROWS, first, at.workspace.key.as_i64(), endpoint.key.as_i64(), common.key().as_i64());
    database.execute(delivered, keys).unwrap();
    let any = DeliveryFilter::default;
    let of_type = DeliveryFilter { event_types: vec![EventTypeName::from_stored("job.failed")], ..any() };
    let of_status = |status| DeliveryFilter { statuses: vec![status], ..any() };
    let of_endpoint = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..of_type.clone() };
    let of_event = DeliveryFilter { event_ids: vec![rare], ..of_type.clone() };
    let narrow = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..of_status(DeliveryStatus::Failed) };
    let oldest = DeliveryFilter { until: Some(START.plus(Duration::from_millis(500))), ..of_type.clone() };
    let recent = DeliveryFilter { since: Some(START.plus(Duration::from_millis(500))), ..of_type.clone() };
    for (filter, expected, pages) in [
        (of_status(DeliveryStatus::Failed), vec![failed.delivery_id], 1),
        (narrow, vec![failed.delivery_id], 1),
        (of_status(DeliveryStatus::Skipped), vec![], 1),
        (of_event, vec![failed.delivery_id], 1),
        (oldest, vec![failed.delivery_id], 1),
        (of_type, vec![failed.delivery_id], 5),
        (of_endpoint, vec![failed.delivery_id], 5),
        (recent, vec![], 5),
    ] {
        assert_eq!(walk(&at, &filter).await, (expected, pages), "{filter:?}");
    }
    let (pending_ids, pages) = walk(&at, &of_status(DeliveryStatus::Pending)).await;
    assert_eq!((pending_ids.len(), pending_ids[1], pages), (2, pending, 1), "the page follows the queue");
    let page = PageRequest::parse(None, None).unwrap();
    let listed = at.store().list_deliveries(at.tenant(), of_status(DeliveryStatus::Delivered), page).await.unwrap();
    assert_eq!(listed.items.len(), 50, "common rows fill a page");
}

/// All deliveries that match a filter, and the number of pages.
async fn walk(at: &Fixture, filter: &DeliveryFilter) -> (Vec<DeliveryId>, usize) {
    let (mut walked, mut cursor) = (Vec::new(), None);
    for pages in 1.. {
        let page = PageRequest::parse(None, cursor.as_deref()).unwrap();
        let page = at.store().list_deliveries(at.tenant(), filter.clone(), page).await.unwrap();
        walked.extend(ids(&page.items));
        match page.next {
            Some(next) => cursor = Some(encode_cursor(next)),
            None => return (walked, pages),
        }
    }
    unreachable!("the loop counts pages without end")
}
