//! Deliveries that wait behind an inactive endpoint, and when they expire.

use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::DisabledReason;
use postrider_domain::limits;
use postrider_store::Recorded;

use crate::store::fixture::{Fixture, outline};

on_each_backend! {
    waiting_deliveries_expire_after_exactly_fourteen_days,
    waiting_deliveries_expire_in_bounded_steps,
    waiting_deliveries_expire_after_a_restart_too,
    the_wait_begins_when_a_delivery_falls_due,
    the_wait_begins_when_the_endpoint_becomes_inactive,
    a_claimed_delivery_does_not_expire_under_its_holder,
    a_claim_lost_behind_an_inactive_endpoint_is_logged,
    nothing_expires_behind_an_active_endpoint,
}

const INSTANT: Duration = Duration::from_millis(1);

async fn waiting_deliveries_expire_after_exactly_fourteen_days(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    at.disable_by_outcome(DisabledReason::Failing).await;
    at.advance(limits::WAITING_MAX - INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
    let deliveries = at.deliveries().await;
    let expired = deliveries.iter().find(|delivery| delivery.reason == Some(EndReason::Expired)).unwrap();
    assert_eq!((expired.status, expired.attempt_count), (DeliveryStatus::Failed, 0));
    assert_eq!((expired.completed_at, expired.next_attempt_at), (Some(at.clock_now()), None));
    assert!(deliveries.iter().all(|delivery| delivery.status != DeliveryStatus::Pending));
}

async fn waiting_deliveries_expire_in_bounded_steps(at: Fixture) {
    at.endpoints(2).await;
    at.publish(4).await;
    for claim in at.claim(2).await.claims {
        at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    }
    at.advance(limits::WAITING_MAX);
    for expired in [4, 2, 0] {
        assert_eq!(at.store().expire_waiting(4).await.unwrap(), expired);
    }
}

async fn waiting_deliveries_expire_after_a_restart_too(mut at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    at.disable_by_outcome(DisabledReason::Gone).await;
    at.reopen().await;
    at.advance(limits::WAITING_MAX);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
}

async fn the_wait_begins_when_a_delivery_falls_due(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let later = at.claim_one().await;
    at.record(at.retry(&later, Duration::from_secs(3600))).await;
    at.disable_by_outcome(DisabledReason::Gone).await;
    at.advance(limits::WAITING_MAX + Duration::from_secs(3600) - INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
}

async fn the_wait_begins_when_the_endpoint_becomes_inactive(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    // The delivery is due but nothing claims it. That is our fault, so the wait behind the endpoint has not begun.
    at.advance(limits::WAITING_MAX * 2);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.disable_by_outcome(DisabledReason::Gone).await;
    at.advance(limits::WAITING_MAX - INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
}

async fn a_claimed_delivery_does_not_expire_under_its_holder(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let in_flight = at.claim_one().await;
    at.disable_by_outcome(DisabledReason::Gone).await;
    at.advance(limits::WAITING_MAX);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    assert_eq!(at.record(at.delivered(&in_flight)).await, Recorded::Done);
}

async fn a_claim_lost_behind_an_inactive_endpoint_is_logged(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let started_at = at.clock_now();
    let lost = at.claim_one().await;
    at.disable_by_outcome(DisabledReason::Gone).await;
    at.advance(limits::LEASE + limits::WAITING_MAX);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
    let (delivery, attempts) = at.delivery(lost.delivery_id).await;
    assert_eq!((delivery.reason, delivery.attempt_count), (Some(EndReason::Expired), 1));
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned)], "each attempt number is in the log");
    assert_eq!((attempts[0].started_at, attempts[0].next_attempt_at), (started_at, None));
    assert_eq!(at.record(at.delivered(&lost)).await, Recorded::ClaimLost);
}

async fn nothing_expires_behind_an_active_endpoint(at: Fixture) {
    at.endpoint().await;
    at.publish(3).await;
    at.advance(limits::WAITING_MAX * 3);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    assert_eq!(at.claim(10).await.claims.len(), 3);
}
