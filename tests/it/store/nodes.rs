//! Several nodes on one database at the same time: what one has changed counts for the others, and nothing is done twice.

use std::collections::HashSet;
use std::time::Duration;

use postrider::domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider::domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange, ReplayStatus};
use postrider::domain::time::Timestamp;
use postrider::store::{Claim, Store};

use super::fixture::{Fixture, START};
use super::postgres::PostgresBackend;
use crate::support::clock::ManualClock;

const HOUR: Duration = Duration::from_secs(3600);

async fn publish(at: &Fixture, node: &dyn Store) {
    node.accept_events(vec![at.event()], None).await.unwrap();
}

/// The versions that sign a claim.
fn signed(claim: &Claim) -> (u32, Option<u32>) {
    (claim.secret_version.0, claim.also_secret_version.map(|also| also.0))
}

#[tokio::test]
async fn what_one_node_changes_counts_at_once_for_another() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let other = at.another_node(at.clock.clone()).await;
    let endpoint = at.endpoint().await;
    publish(&at, &*other).await;
    assert_eq!(signed(&at.claim_one().await), (1, None));
    at.rotate(&endpoint, 2, HOUR, false).await;
    publish(&at, &*other).await;
    assert_eq!(signed(&at.claim_one().await), (2, Some(1)));
    at.switch(&endpoint, false).await;
    publish(&at, &*other).await;
    assert_eq!(at.deliveries().await[0].status, DeliveryStatus::Skipped);
    at.switch(&endpoint, true).await;
    at.endpoint().await;
    publish(&at, &*other).await;
    assert_eq!(at.claim(10).await.claims.len(), 2);
    at.delete(&endpoint).await;
    publish(&at, &*other).await;
    assert_eq!(at.claim(10).await.claims.len(), 1);
}

#[tokio::test]
async fn what_a_node_still_queues_in_an_overlap_is_never_signed_with_a_secret_that_was_erased() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    // It looks at the time and then stands still for an hour, as a transaction may.
    let late = at.another_node(ManualClock::new(START)).await;
    publish(&at, &*late).await;
    let claim = at.claim_one().await;
    assert_eq!(signed(&claim), (2, Some(1)), "it knows the overlap");
    at.advance(HOUR);
    assert_eq!(at.store().erase_unused_secrets(10).await.unwrap(), 0, "an attempt is under way");
    at.record(at.delivered(&claim)).await;
    assert_eq!(at.store().erase_unused_secrets(10).await.unwrap(), 1);
    publish(&at, &*late).await;
    assert_eq!(signed(&at.claim_one().await), (2, None));
}

#[tokio::test]
async fn nodes_that_replay_at_once_send_nothing_twice() {
    const FAILED: usize = 20;
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let other = at.another_node(at.clock.clone()).await;
    let endpoint = at.endpoint().await;
    at.publish(FAILED).await;
    for claim in at.claim(FAILED).await.claims {
        at.record(at.failed(&claim)).await;
    }
    let ever = Timestamp::from_millis(253_402_300_799_999);
    let range = ReplayRange { since: START, until: ever, statuses: REPLAYED_BY_DEFAULT.to_vec() };
    let mut replays = Vec::new();
    // More than one node takes at once, so that each takes some.
    for _ in 0..24 {
        replays.push(at.replay(&endpoint, range.clone()).await.id);
    }
    loop {
        let (here, there) = tokio::join!(at.store().advance_replays(), other.advance_replays());
        if (here.unwrap(), there.unwrap()) == (None, None) {
            break;
        }
    }
    let mut replayed = at.deliveries().await;
    replayed.retain(|delivery| delivery.cause == DeliveryCause::Replay);
    let sources: HashSet<_> = replayed.iter().map(|delivery| delivery.retry_of).collect();
    assert_eq!((replayed.len(), sources.len()), (FAILED, FAILED));
    let mut counted = 0;
    for id in replays {
        let replay = at.store().find_replay(at.workspace.key, endpoint.id, id).await.unwrap().unwrap();
        assert_eq!(replay.status, ReplayStatus::Completed);
        counted += replay.replayed;
    }
    assert_eq!(counted, FAILED as u64);
}

#[tokio::test]
async fn nodes_that_create_endpoints_at_once_keep_to_the_limit() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let other = at.another_node(at.clock.clone()).await;
    let mut new = Vec::new();
    for _ in 0..5 {
        let mut endpoint = at.new_endpoint();
        endpoint.limits.per_workspace = 3;
        new.push(endpoint);
    }
    let creating = new.into_iter().enumerate().map(|(turn, endpoint)| {
        let node = if turn % 2 == 0 { at.store() } else { &other };
        node.create_endpoint(endpoint, None)
    });
    let created = futures_util::future::join_all(creating).await;
    assert_eq!(created.iter().filter(|outcome| outcome.is_ok()).count(), 3);
}
