//! Partitions of the PostgreSQL log: one a day, created in advance, and dropped as a whole when old.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use postrider_domain::id::RowKey;
use postrider_domain::time::Clock;
use postrider_store::{AgedStep, LogPart, Recorded, Store, StoreSeed};
use postrider_store_postgres::{PostgresSettings, PostgresStore, TimeSource};
use tokio_postgres::Client;

use super::fixture::{Backend, Fixture, START, TAG};
use crate::support::clock::ManualClock;
use crate::support::postgres::{CONNECTIONS, TestDatabase};

const DAY: Duration = Duration::from_secs(24 * 3600);
const TABLES: [&str; 3] = ["attempts", "deliveries", "events"];

/// A database that the test inspects beside the store.
#[derive(Clone)]
struct InspectedDatabase(Arc<TestDatabase>);

#[async_trait]
impl Backend for InspectedDatabase {
    async fn open(&self, clock: Arc<dyn Clock>, seed: StoreSeed) -> Arc<dyn Store> {
        let settings =
            PostgresSettings { pool_size: CONNECTIONS, time: TimeSource::Given, ..PostgresSettings::new(self.0.url()) };
        Arc::new(PostgresStore::open(&settings, clock, seed).await.unwrap())
    }
}

impl InspectedDatabase {
    /// A database without the partitions of earlier tests, and a connection to it. `None` without a server.
    async fn new() -> Option<(Self, Client)> {
        let database = Self(Arc::new(TestDatabase::new().await?));
        let client = database.0.client().await;
        let sql = "SELECT inhrelid::regclass::text FROM pg_inherits
                   WHERE inhparent IN (to_regclass('attempts'), to_regclass('deliveries'), to_regclass('events'))";
        for row in client.query(sql, &[]).await.unwrap() {
            let partition: String = row.get(0);
            if !partition.ends_with("_kept") {
                client.batch_execute(&format!("DROP TABLE {partition}")).await.unwrap();
            }
        }
        Some((database, client))
    }
}

async fn inspected() -> Option<(Fixture, Client)> {
    let (database, client) = InspectedDatabase::new().await?;
    Some((Fixture::new(database).await, client))
}

/// The days of a table's partitions, without the default partition.
async fn days(client: &Client, table: &str) -> Vec<String> {
    let sql = "SELECT c.relname FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
               WHERE inhparent = $1::text::regclass ORDER BY 1";
    let rows = client.query(sql, &[&table]).await.unwrap();
    let names = rows.iter().map(|row| row.get::<_, String>(0).split_off(table.len() + 1));
    names.filter(|day| day != "kept").collect()
}

async fn count(client: &Client, table: &str) -> i64 {
    client.query_one(&format!("SELECT COUNT(*) FROM {table}"), &[]).await.unwrap().get(0)
}

async fn remove_all(at: &Fixture) {
    remove_all_by(at.store().as_ref()).await;
}

async fn remove_all_by(store: &dyn Store) {
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after {
            after = store.remove_aged(AgedStep { part, age: DAY, after: from, limit: 3 }).await.unwrap().next;
        }
    }
}

#[tokio::test]
async fn yesterday_today_and_a_week_ahead_are_partitions_of_their_own() {
    let Some((at, client)) = inspected().await else { return };
    for table in TABLES {
        let days = days(&client, table).await;
        assert_eq!((days.len(), days[0].as_str(), days[8].as_str()), (9, "20260514", "20260522"), "{table}");
    }
    at.endpoint().await;
    at.publish(1).await;
    assert_eq!((count(&client, "events_20260515").await, count(&client, "deliveries_20260515").await), (1, 1));
}

#[tokio::test]
async fn nodes_that_start_together_create_each_day_once() {
    let Some((database, client)) = InspectedDatabase::new().await else { return };
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(START));
    let starts = (0..3).map(|node| database.open(Arc::clone(&clock), super::seed(TAG, node)));
    futures_util::future::join_all(starts).await;
    // A start that finds another node creating a day soon leaves that day to it, or to its own next round.
    assert_eq!(days(&client, "attempts").await.len(), 9);
}

#[tokio::test]
async fn dropping_an_old_day_keeps_its_pending_deliveries() {
    let Some((at, client)) = inspected().await else { return };
    at.endpoint().await;
    at.accept(vec![at.event_with("order-1", 1)]).await;
    let claim = at.claim_one().await;
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    let waiting = at.accept(vec![at.event_with("order-2", 1)]).await.remove(0);
    let lost = at.claim_one().await;
    at.advance(DAY * 2);
    let again = at.claim_one().await;
    assert_eq!((again.delivery_id, again.attempt), (lost.delivery_id, 2));
    remove_all(&at).await;
    for table in TABLES {
        let days = days(&client, table).await;
        assert_eq!(days[0], "20260516", "{table}");
        let kept = count(&client, &format!("{table}_kept")).await;
        assert_eq!((kept, count(&client, table).await), (1, 1), "{table}");
    }
    assert_eq!(at.deliveries().await[0].id, lost.delivery_id);
    let published = client.query("SELECT external_id FROM publish_keys", &[]).await.unwrap();
    assert_eq!(published.iter().map(|row| row.get(0)).collect::<Vec<String>>(), ["order-2"]);
    assert_eq!(at.accept(vec![at.event_with("order-2", 1)]).await[0].id, waiting.id);
    assert_eq!(at.record(at.delivered(&again)).await, Recorded::Done);
    remove_all(&at).await;
    for table in ["attempts", "deliveries", "events", "publish_keys"] {
        assert_eq!(count(&client, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn an_old_event_stays_while_a_later_delivery_refers_to_it() {
    let Some((at, client)) = inspected().await else { return };
    at.endpoint().await;
    let event = at.publish(2).await.remove(0);
    for claim in at.claim(10).await.claims {
        assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    }
    // A second delivery of the event, two days later.
    let later = RowKey::first_at(START.plus(DAY * 2)).as_i64();
    let sql = "INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, cause)
               SELECT $1, workspace_key, endpoint_key, event_key, mode, status, cause
               FROM deliveries WHERE event_key = $2";
    assert_eq!(client.execute(sql, &[&later, &event.id.key().as_i64()]).await.unwrap(), 1);
    at.advance(DAY * 2);
    remove_all(&at).await;
    assert_eq!((days(&client, "events").await[0].as_str(), count(&client, "events").await), ("20260516", 1));
    assert!(at.store().find_event(at.tenant(), event.id).await.unwrap().is_some());
}

#[tokio::test]
async fn an_old_day_in_use_is_left_to_a_later_walk() {
    let Some((at, mut client)) = inspected().await else { return };
    at.endpoint().await;
    at.publish(1).await;
    for claim in at.claim(10).await.claims {
        assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    }
    at.advance(DAY * 2);
    let reading = client.transaction().await.unwrap();
    reading.execute("SELECT 1 FROM deliveries_20260515", &[]).await.unwrap();
    remove_all(&at).await;
    reading.rollback().await.unwrap();
    assert_eq!(days(&client, "deliveries").await.iter().filter(|day| *day == "20260515").count(), 1);
    assert_eq!((count(&client, "deliveries").await, count(&client, "events").await), (1, 1));
    remove_all(&at).await;
    assert_eq!((count(&client, "deliveries").await, count(&client, "events").await), (0, 0));
    assert_eq!(days(&client, "deliveries").await[0], "20260516");
}

#[tokio::test]
async fn a_day_begun_in_the_default_partition_is_removed_by_row() {
    let Some((mut at, client)) = inspected().await else { return };
    at.endpoint().await;
    at.advance(DAY * 30);
    at.publish(1).await;
    for claim in at.claim(10).await.claims {
        assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    }
    at.reopen().await;
    for table in TABLES {
        let days = days(&client, table).await;
        assert!(!days.contains(&"20260614".to_owned()) && days.contains(&"20260615".to_owned()), "{table}: {days:?}");
        assert_eq!(count(&client, &format!("{table}_kept")).await, 1, "{table}");
    }
    at.advance(DAY + Duration::from_millis(1));
    remove_all(&at).await;
    for table in TABLES {
        assert_eq!(count(&client, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn a_day_with_missing_partitions_is_dropped_too() {
    let Some((at, client)) = inspected().await else { return };
    client.batch_execute("DROP TABLE deliveries_20260515; DROP TABLE attempts_20260516").await.unwrap();
    at.endpoint().await;
    for _ in 0..2 {
        at.publish(5).await;
        for claim in at.claim(10).await.claims.into_iter().take(4) {
            assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
        }
        at.advance(DAY);
    }
    at.advance(DAY * 2);
    remove_all(&at).await;
    for table in TABLES {
        assert_eq!(days(&client, table).await[0], "20260518", "{table}");
    }
    assert_eq!((count(&client, "deliveries").await, count(&client, "events").await), (2, 2), "pending deliveries stay");
    assert_eq!(count(&client, "attempts").await, 0);
}

#[tokio::test]
async fn two_nodes_age_the_log_without_loss_or_leftovers() {
    let Some((database, client)) = InspectedDatabase::new().await else { return };
    let at = Fixture::new(database.clone()).await;
    let other = database.open(Arc::new(at.clock.clone()), super::seed(TAG, 1)).await;
    at.endpoint().await;
    for _ in 0..3 {
        at.publish(20).await;
        for claim in at.claim(19).await.claims {
            assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
        }
        at.advance(DAY);
    }
    at.advance(Duration::from_secs(12 * 3600) + Duration::from_millis(1));
    tokio::join!(remove_all(&at), remove_all_by(other.as_ref()));
    remove_all(&at).await;
    for table in ["deliveries", "events"] {
        assert_eq!(count(&client, table).await, 3, "{table}: pending deliveries stay");
        assert_eq!(days(&client, table).await[0], "20260518", "{table}");
    }
    assert_eq!(count(&client, "attempts").await, 0);
}
