//! Behaviour of the PostgreSQL store alone: it follows from several nodes on one database.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_store::{Recorded, Store, StoreSeed};
use postrider_store_postgres::{PostgresSettings, PostgresStore, TimeSource};
use tokio_postgres::Client;

use super::conformance::mode;
use super::fixture::{Backend, Fixture, outline};
use crate::support::postgres::{CONNECTIONS, TestDatabase};

/// A separate schema for each test. Opening it again opens another node.
pub struct PostgresBackend {
    database: TestDatabase,
    time: TimeSource,
}

impl PostgresBackend {
    /// `None` without a PostgreSQL server.
    pub async fn new() -> Option<Self> {
        Some(Self { database: TestDatabase::new().await?, time: TimeSource::Given })
    }

    /// [`Self::new`] on the clock of the database, as in production.
    pub async fn on_database_time() -> Option<Self> {
        Some(Self { time: TimeSource::Database, ..Self::new().await? })
    }

    /// A schema without tables, which is not reused by other tests.
    pub async fn without_tables() -> Option<Self> {
        Some(Self { database: TestDatabase::without_tables().await?, time: TimeSource::Given })
    }

    pub fn settings(&self) -> PostgresSettings {
        PostgresSettings { pool_size: CONNECTIONS, time: self.time, ..PostgresSettings::new(self.database.url()) }
    }

    /// A connection that bypasses the store, to interfere as another node would.
    pub async fn client(&self) -> Client {
        self.database.client().await
    }
}

#[async_trait]
impl Backend for PostgresBackend {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        Arc::new(PostgresStore::open(&self.settings(), clock, seed).await.unwrap())
    }
}

#[tokio::test]
async fn old_test_deliveries_of_live_endpoints_are_only_read() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let client = backend.client().await;
    let at = Fixture::new(backend).await;
    let endpoint = mode::with_failed_and_replay(&at).await;
    client.batch_execute(mode::MAKE_OLD).await.unwrap();
    mode::check_old(&at, &endpoint).await;
}

#[tokio::test]
async fn the_claims_of_a_dead_node_are_due_after_their_lease() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let mut at = Fixture::new(backend).await;
    at.endpoint().await;
    at.publish(1).await;
    let lost = at.claim_one().await;
    at.reopen().await;
    at.advance(limits::LEASE - Duration::from_millis(1));
    assert_eq!(at.claim(10).await.claims.len(), 0, "another node may still be sending");
    at.advance(Duration::from_millis(1));
    let claimed = at.claim_one().await;
    assert_eq!((claimed.delivery_id, claimed.attempt), (lost.delivery_id, 2));
    let (_, attempts) = at.delivery(lost.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned)]);
    assert_eq!(at.record(at.delivered(&lost)).await, Recorded::ClaimLost);
}
