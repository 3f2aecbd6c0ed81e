//! Several nodes on one PostgreSQL: a change on one applies to the others, and nothing is done twice.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::erasure::{ErasureStatus, PendingDeliveries};
use postrider_domain::limits;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange, ReplayStatus};
use postrider_domain::time::Timestamp;
use postrider_store::{Claim, Nodes, OutcomeRecord, Recorded, Store, StoreSeed, Written};
use postrider_store_postgres::PostgresStore;

use super::conformance::erasure;
use super::fixture::{EVENT_TYPE, EachLane, Fixture, START, TAG, write};
use super::postgres::PostgresBackend;
use crate::support::clock::{ManualClock, ShiftedClock};
use crate::support::wait::eventually;

const HOUR: Duration = Duration::from_secs(3600);

async fn publish(at: &Fixture, node: &dyn Store) {
    node.accept_events(vec![at.event()], None).await.unwrap();
}

/// The versions that sign a claim.
fn signed(claim: &Claim) -> (u32, Option<u32>) {
    (claim.secret_version.0, claim.also_secret_version.map(|also| also.0))
}

#[tokio::test]
async fn a_change_on_one_node_applies_to_another_at_once() {
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
async fn an_erasure_that_two_nodes_advance_empties_each_event_once() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    at.endpoint().await;
    let other = at.another_node(at.clock.clone()).await;
    at.accept((0..200).map(|_| at.event_of(EVENT_TYPE, Some("p"))).collect()).await;
    at.advance(Duration::from_millis(1));
    let erasure = erasure::erase(&at, erasure::project("p"), PendingDeliveries::Cancel).await;
    let claimed = at.claim(50).await.claims;
    let advance = async |node: &dyn Store| {
        // A node that finds nothing to do waits for the other.
        while node.advance_erasures().await.unwrap().is_some_and(|done| done > 0) {}
    };
    let late = async {
        let mut lost = 0;
        for claim in &claimed {
            lost += usize::from(other_record(&*other, at.delivered(claim)).await == Recorded::ClaimLost);
        }
        lost
    };
    let ((), (), lost) = tokio::join!(advance(&**at.store()), advance(&*other), late);
    erasure::run(&at).await;
    let erased = erasure::refresh(&at, &erasure).await;
    assert_eq!((erased.status, erased.events), (ErasureStatus::Erased, 200));
    let (lost, recorded) = (lost as u64, (claimed.len() - lost) as u64);
    assert_eq!(erased.cancelled, 200 - recorded, "a delivery was cancelled or its outcome was recorded");
    assert_eq!(erased.attempts, lost + recorded);
    for claim in &claimed {
        let attempts = at.delivery(claim.delivery_id).await.1;
        assert!(attempts.len() == 1 && attempts[0].response_body.is_none(), "{attempts:?}");
    }
}

async fn other_record(node: &dyn Store, outcome: OutcomeRecord) -> Recorded {
    node.record_outcomes_if_claimed(vec![outcome]).await.unwrap()[0]
}

#[tokio::test]
async fn a_late_node_never_signs_with_an_erased_secret() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, HOUR, false).await;
    // A node whose clock stays an hour behind, as if its transaction had read the time and then stalled.
    let late = at.another_node(ManualClock::new(START)).await;
    publish(&at, &*late).await;
    let claim = at.claim_one().await;
    assert_eq!(signed(&claim), (2, Some(1)), "the late node is still in the overlap");
    at.advance(HOUR);
    assert_eq!(at.store().erase_unused_secrets(10).await.unwrap(), 0, "an attempt is in flight");
    at.record(at.delivered(&claim)).await;
    assert_eq!(at.store().erase_unused_secrets(10).await.unwrap(), 1);
    publish(&at, &*late).await;
    assert_eq!(signed(&at.claim_one().await), (2, None));
}

#[tokio::test]
async fn two_nodes_that_replay_concurrently_send_nothing_twice() {
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
    // More replays than one step advances, so that each node advances some.
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
        let replay = at.store().find_replay(at.tenant(), Some(endpoint.id), id).await.unwrap().unwrap();
        assert_eq!(replay.status, ReplayStatus::Completed);
        counted += replay.replayed;
    }
    assert_eq!(counted, FAILED as u64);
}

#[tokio::test]
async fn two_nodes_create_one_event_for_one_external_id() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let other = at.another_node(at.clock.clone()).await;
    at.endpoint().await;
    for round in 0..50 {
        let name = format!("order-{round}");
        let accept = |node: &Arc<dyn Store>| {
            let (node, event) = (Arc::clone(node), at.event_with(&name, 1));
            async move { node.accept_events(vec![event], None).await.unwrap() }
        };
        let (Written::Done(here), Written::Done(there)) = tokio::join!(accept(at.store()), accept(&other)) else {
            panic!("a write without a key is never replayed");
        };
        assert_eq!(here[0].id, there[0].id, "in round {round}");
        assert!(here[0].replayed != there[0].replayed, "in round {round}");
    }
    assert_eq!(at.deliveries().await.len(), 50);
}

#[tokio::test]
async fn two_nodes_together_respect_the_limit_of_endpoints() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let at = Fixture::new(backend).await;
    let other = at.another_node(at.clock.clone()).await;
    let mut new = Vec::new();
    for _ in 0..5 {
        let mut endpoint = at.new_endpoint();
        endpoint.limits.per_workspace = 3;
        new.push(endpoint);
    }
    let creating = new.into_iter().enumerate().map(|(index, endpoint)| {
        let node = if index % 2 == 0 { at.store() } else { &other };
        node.create_endpoint(write(at.tenant()), endpoint)
    });
    let created = futures_util::future::join_all(creating).await;
    assert_eq!(created.iter().filter(|outcome| outcome.is_ok()).count(), 3);
}

#[tokio::test]
async fn a_node_claims_only_while_its_clock_is_right() {
    const WHY: &str = "this node's clock is more than 30 seconds off the database's";
    let Some(backend) = PostgresBackend::on_database_time().await else { return };
    let at = Fixture::new(backend).await;
    at.endpoint().await;
    let clock = ShiftedClock::default();
    let node = at.another_node(clock.clone()).await;
    let claim = || async { node.claim_due(10, limits::LEASE, Arc::new(EachLane(10))).await };
    // Ten seconds from the limit, because a slow answer from the database adds to the measured difference.
    for (off_ms, near_ms) in [(40_000, 20_000), (-40_000, -20_000)] {
        at.publish(1).await;
        clock.set_ahead_ms(off_ms);
        // The first use of the wrong clock is refused, and so is the second.
        for _ in 0..2 {
            let refused = claim().await.map(|claimed| claimed.claims.len()).unwrap_err();
            assert!(refused.to_string().ends_with(WHY), "{refused}");
        }
        let unhealthy = node.check().await.unwrap_err();
        assert!(unhealthy.to_string().ends_with(WHY), "{unhealthy}");
        clock.set_ahead_ms(near_ms);
        assert_eq!(claim().await.unwrap().claims.len(), 1, "{near_ms} ms ahead");
        node.check().await.unwrap();
    }
}

#[tokio::test]
async fn the_list_of_nodes_has_versions_and_silent_nodes() {
    let Some(backend) = PostgresBackend::new().await else { return };
    let client = backend.client().await;
    let newer = StoreSeed { version: "1.3.0", tag: TAG, node: 9 };
    let settings = backend.settings();
    let at = Fixture::new(backend).await;
    let clock = Arc::new(at.clock.clone());
    let newer = PostgresStore::open(&settings, clock, newer).await.unwrap();
    // Two nodes of a version that reports nothing: one was last seen a minute ago, the other two hours ago.
    let (minute_ago, hours_ago) = (START.minus(HOUR / 60), START.minus(2 * HOUR));
    let sql = "INSERT INTO nodes (number, holder, seen_at, sends) VALUES (7, 1, $1, TRUE), (8, 2, $2, TRUE)";
    client.execute(sql, &[&minute_ago.millis(), &hours_ago.millis()]).await.unwrap();
    let listed = async || {
        let nodes = at.store().list_nodes().await.unwrap().into_iter();
        nodes.map(|node| (node.number, node.version, node.is_running)).collect::<Vec<_>>()
    };
    let of = |number, version: &str| (number, Some(version.to_owned()), true);
    let silent = (7, None, false);
    assert_eq!(listed().await, [of(0, super::VERSION), of(1, "1.3.0"), silent.clone()]);
    assert_eq!(newer.list_nodes().await.unwrap()[2].last_seen_at, minute_ago);
    // A node that stops is not listed as silent.
    drop(newer);
    let left = || async { (listed().await == [of(0, super::VERSION), silent.clone()]).then_some(()) };
    eventually("a list without the node that stopped", left).await;
}
