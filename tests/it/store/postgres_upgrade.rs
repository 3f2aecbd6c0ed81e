//! Rolling upgrade: a node of this version on a schema that the next version has extended.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange, ReplayStatus};
use postrider_domain::time::Timestamp;
use postrider_store::OpenError;
use postrider_store_postgres::PostgresStore;
use tokio_postgres::Client;

use super::fixture::{Fixture, START, TAG};
use super::postgres::PostgresBackend;
use crate::support::clock::ManualClock;

/// A migration as the next version may run it while nodes of this version are running: it only adds. It extends every
/// table by two columns and an index, and adds a table.
async fn migrate_as_the_next_version(client: &Client) {
    let tables = "SELECT relname::text FROM pg_class
                  WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition
                    AND relname <> 'refinery_schema_history'";
    for row in client.query(tables, &[]).await.unwrap() {
        let table: &str = row.get(0);
        let added = format!(
            "ALTER TABLE {table} ADD COLUMN later TEXT, ADD COLUMN later_still BIGINT NOT NULL DEFAULT 7;
             CREATE INDEX ON {table} (later)"
        );
        client.batch_execute(&added).await.unwrap();
    }
    let noted = "CREATE TABLE later (key BIGINT PRIMARY KEY);
                 INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                     SELECT MAX(version) + 1, 'later', MAX(applied_on), '1' FROM refinery_schema_history";
    client.batch_execute(noted).await.unwrap();
}

#[tokio::test]
async fn a_node_runs_on_a_newer_schema_but_cannot_start_on_it() {
    let Some(backend) = PostgresBackend::without_tables().await else { return };
    let (client, settings) = (backend.client().await, backend.settings());
    let at = Fixture::new(backend).await;
    let before = at.endpoint().await;
    at.publish(1).await;
    migrate_as_the_next_version(&client).await;

    let after = at.strict_endpoint().await;
    at.accept(vec![at.event_with("order-1", 1), at.event_with("order-2", 2)]).await;
    assert!(at.accept(vec![at.event_with("order-1", 1)]).await[0].replayed);
    at.rotate(&before, 2, Duration::from_secs(3600), false).await;
    at.accept_test(&after).await;
    // One delivery of `before` fails, and its others take two attempts. Those of `after` follow one by one in order.
    let mut has_failed = false;
    loop {
        let claims = at.claim(10).await.claims;
        if claims.is_empty() {
            break;
        }
        for claim in claims {
            let is_before = claim.endpoint.id == before.id;
            at.record(if is_before && !has_failed {
                has_failed = true;
                at.failed(&claim)
            } else if is_before && claim.attempt == 1 {
                at.retry(&claim, Duration::ZERO)
            } else {
                at.delivered(&claim)
            })
            .await;
        }
    }
    let undelivered: Vec<_> =
        at.deliveries().await.into_iter().filter(|one| one.status != DeliveryStatus::Delivered).collect();
    assert!(undelivered.iter().all(|one| one.status == DeliveryStatus::Failed), "{undelivered:?}");
    assert_eq!(undelivered.len(), 1, "{undelivered:?}");

    let ever = Timestamp::from_millis(253_402_300_799_999);
    let range = ReplayRange { since: START, until: ever, statuses: REPLAYED_BY_DEFAULT.to_vec() };
    let replay = at.replay(&before, range).await.id;
    while at.store().advance_replays().await.unwrap().is_some() {}
    let replay = at.store().find_replay(at.tenant(), Some(before.id), replay).await.unwrap().unwrap();
    assert_eq!((replay.status, replay.replayed), (ReplayStatus::Completed, 1));
    let again = at.claim_one().await;
    at.record(at.delivered(&again)).await;
    at.delete(&after).await;

    let seed = super::seed(TAG, 7);
    let opened = PostgresStore::open(&settings, Arc::new(ManualClock::new(START)), seed).await;
    assert!(matches!(opened, Err(OpenError::Migration(_))), "this version does not know the schema");
}

#[tokio::test]
async fn an_upgrade_that_is_cut_off_can_be_repeated() {
    let Some(backend) = PostgresBackend::without_tables().await else { return };
    let (client, settings) = (backend.client().await, backend.settings());
    // As if the process had ended after a migration and before its row.
    let history = "CREATE TABLE refinery_schema_history (version INT4 PRIMARY KEY, name VARCHAR(255),
                       applied_on VARCHAR(255), checksum VARCHAR(255), CONSTRAINT cut_off CHECK (version <> 4))";
    client.batch_execute(history).await.unwrap();
    let seed = || super::seed(TAG, 7);
    let opened = PostgresStore::open(&settings, Arc::new(ManualClock::new(START)), seed()).await;
    assert!(matches!(opened, Err(OpenError::Database(_))));
    client.batch_execute("ALTER TABLE refinery_schema_history DROP CONSTRAINT cut_off").await.unwrap();
    PostgresStore::open(&settings, Arc::new(ManualClock::new(START)), seed()).await.unwrap();
}
