//! Gauges of the store: rows counted by state in short steps, and the age of what is due.

use std::time::Duration;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::endpoint::DisabledReason;
use postrider_metrics::{EndpointState, LaneState, Position, QueueState};
use postrider_store::Store;
use postrider_store::gauges::{STATES, StatePart};

use crate::store::fixture::Fixture;

on_each_backend! {
    deliveries_are_counted_by_state_whatever_the_step,
    a_scheduled_delivery_falls_due_without_a_write,
    lanes_and_endpoints_are_counted_by_state,
    the_oldest_due_delivery_is_as_old_as_its_wait,
    what_is_held_back_or_not_due_has_no_age,
    the_size_is_that_of_the_database,
}

const MINUTE: Duration = Duration::from_secs(60);

/// The sums of all steps of this many rows, and how many steps it took.
async fn count(store: &dyn Store, part: StatePart, limit: usize) -> ([u64; STATES], usize) {
    let (mut sums, mut after, mut steps) = ([0; STATES], 0, 0);
    loop {
        let step = store.count_states(part, after, limit).await.unwrap();
        sums.iter_mut().zip(step.counts).for_each(|(sum, count)| *sum += count);
        steps += 1;
        match step.next {
            Some(next) => after = next,
            None => return (sums, steps),
        }
    }
}

async fn deliveries(at: &Fixture) -> [u64; STATES] {
    count(&**at.store(), StatePart::Deliveries, 100).await.0
}

fn counts(given: &[(impl Position + Copy, u64)]) -> [u64; STATES] {
    let mut counts = [0; STATES];
    given.iter().for_each(|(position, count)| counts[position.position()] = *count);
    counts
}

async fn deliveries_are_counted_by_state_whatever_the_step(at: Fixture) {
    assert_eq!(deliveries(&at).await, [0; STATES]);
    at.endpoint().await;
    at.publish(5).await;
    let claims = at.claim(2).await.claims;
    at.record(at.retry(&claims[0], MINUTE)).await;
    let expected = counts(&[(QueueState::Due, 3), (QueueState::Scheduled, 1), (QueueState::Claimed, 1)]);
    for (limit, steps) in [(100, 1), (5, 2), (2, 3)] {
        assert_eq!(count(&**at.store(), StatePart::Deliveries, limit).await, (expected, steps), "{limit} rows");
    }
    at.record(at.disabling(&claims[1], DisabledReason::Gone)).await;
    let pending = at.deliveries().await.iter().filter(|delivery| delivery.status == DeliveryStatus::Pending).count();
    assert_eq!(deliveries(&at).await, counts(&[(QueueState::Held, pending as u64)]));
}

async fn a_scheduled_delivery_falls_due_without_a_write(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.retry(&claim, MINUTE)).await;
    assert_eq!(deliveries(&at).await, counts(&[(QueueState::Scheduled, 1)]));
    at.advance(MINUTE);
    assert_eq!(deliveries(&at).await, counts(&[(QueueState::Due, 1)]));
}

async fn lanes_and_endpoints_are_counted_by_state(at: Fixture) {
    let endpoints = at.endpoints(3).await;
    at.publish(2).await;
    at.switch(&endpoints[0], false).await;
    at.delete(&endpoints[1]).await;
    assert_eq!(
        count(&**at.store(), StatePart::Endpoints, 1).await.0,
        counts(&[(EndpointState::Ok, 1), (EndpointState::Off, 1)])
    );
    let (lanes, _) = count(&**at.store(), StatePart::Lanes, 100).await;
    assert_eq!(lanes[LaneState::Held.position()], 1);
    let claim = at.claim_one().await;
    at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    assert_eq!(
        count(&**at.store(), StatePart::Endpoints, 100).await.0,
        counts(&[(EndpointState::Disabled, 1), (EndpointState::Off, 1)])
    );
}

async fn the_oldest_due_delivery_is_as_old_as_its_wait(at: Fixture) {
    at.endpoints(2).await;
    assert_eq!(at.store().oldest_due().await.unwrap(), None);
    at.publish(1).await;
    at.advance(MINUTE);
    at.publish(1).await;
    assert_eq!(at.store().oldest_due().await.unwrap(), Some(MINUTE));
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 4);
    assert_eq!(at.store().oldest_due().await.unwrap(), None);
    at.record(at.retry(&claims[0], MINUTE)).await;
    at.advance(MINUTE + Duration::from_secs(5));
    assert_eq!(at.store().oldest_due().await.unwrap(), Some(Duration::from_secs(5)));
}

async fn what_is_held_back_or_not_due_has_no_age(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.switch(&endpoint, false).await;
    at.advance(MINUTE);
    assert_eq!(at.store().oldest_due().await.unwrap(), None);
    at.switch(&endpoint, true).await;
    assert_eq!(at.store().oldest_due().await.unwrap(), Some(MINUTE));
}

async fn the_size_is_that_of_the_database(at: Fixture) {
    let size = at.store().size().await.unwrap();
    assert!(size.bytes > 100_000, "{size:?}");
    assert!(size.free_bytes.is_none_or(|free| free < size.bytes), "{size:?}");
}
