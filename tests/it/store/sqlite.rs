//! The SQLite store's own ways: what follows from one process holding the data directory.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider::domain::attempt::AttemptOutcome;
use postrider::domain::time::Clock;
use postrider::store::sqlite::SqliteStore;
use postrider::store::{OpenError, Recorded, Store, StoreSeed};
use tempfile::TempDir;

use super::fixture::{Backend, Fixture, TAG, outline};
use crate::support::clock::ManualClock;

/// A directory of its own for each test.
pub struct SqliteBackend {
    directory: TempDir,
}

impl SqliteBackend {
    pub fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }
}

#[async_trait]
impl Backend for SqliteBackend {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        Arc::new(SqliteStore::open(self.directory.path(), clock, seed).await.unwrap())
    }
}

#[tokio::test]
async fn the_claims_of_a_process_that_is_gone_are_due_at_once() {
    let mut at = Fixture::new(SqliteBackend::new()).await;
    at.endpoint().await;
    at.publish(2).await;
    let lost = at.claim_one().await;
    let kept_for_later = at.claim_one().await;
    at.record(at.retry(&kept_for_later, Duration::from_secs(5))).await;
    at.reopen().await;
    let claimed = at.claim(10).await;
    let numbers: Vec<_> = claimed.claims.iter().map(|claim| (claim.delivery_id, claim.attempt)).collect();
    assert_eq!(numbers, [(lost.delivery_id, 2)], "what waits for its retry goes on waiting");
    let (_, attempts) = at.delivery(lost.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned)]);
    assert_eq!(at.record(at.delivered(&lost)).await, Recorded::ClaimLost);
}

#[tokio::test]
async fn a_directory_in_use_is_refused() {
    let backend = SqliteBackend::new();
    let clock = Arc::new(ManualClock::new(super::fixture::START));
    let seed = StoreSeed { tag: TAG, node: 0 };
    let held = backend.open(clock.clone(), seed).await;
    let refused = SqliteStore::open(backend.directory.path(), clock.clone(), seed).await;
    assert!(matches!(refused.err(), Some(OpenError::InUse { .. })));
    drop(held);
    backend.open(clock, seed).await.check().await.unwrap();
}

#[tokio::test]
async fn the_data_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("data");
    let clock = Arc::new(ManualClock::new(super::fixture::START));
    let store = SqliteStore::open(&directory, clock, StoreSeed { tag: TAG, node: 0 }).await.unwrap();
    store.check().await.unwrap();
    assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
}
