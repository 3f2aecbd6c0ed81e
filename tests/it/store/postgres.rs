//! The PostgreSQL store's own ways: what follows from several nodes on one database.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_store::{Recorded, Store, StoreSeed};
use postrider_store_postgres::{PostgresSettings, PostgresStore, TimeSource};
use tokio_postgres::Client;

use super::fixture::{Backend, Fixture, outline};
use crate::support::postgres::{CONNECTIONS, TestDatabase};

/// A schema of its own for each test. Opened again, it is another node that opens it.
pub struct PostgresBackend {
    database: TestDatabase,
    time: TimeSource,
}

impl PostgresBackend {
    /// `None` where there is no server.
    pub async fn new() -> Option<Self> {
        Some(Self { database: TestDatabase::new().await?, time: TimeSource::Given })
    }

    /// As [`Self::new`], but by the database's clock, as outside of tests.
    pub async fn with_time_of_its_own() -> Option<Self> {
        Some(Self { time: TimeSource::Database, ..Self::new().await? })
    }

    /// One without tables, whose schema is the test's own.
    pub async fn without_tables() -> Option<Self> {
        Some(Self { database: TestDatabase::without_tables().await?, time: TimeSource::Given })
    }

    pub fn settings(&self) -> PostgresSettings {
        PostgresSettings { pool_size: CONNECTIONS, time: self.time, ..PostgresSettings::new(self.database.url()) }
    }

    /// A way past the store, to be in its way as another node would.
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
async fn the_claims_of_a_node_that_is_gone_are_due_when_their_lease_is_over() {
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
