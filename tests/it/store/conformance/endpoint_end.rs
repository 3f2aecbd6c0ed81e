//! Deleting an endpoint: its queue is cancelled at once, attempts in flight are recorded, and its log stays.

use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::SecretVersion;
use postrider_domain::limits;
use postrider_store::{DeleteEndpointError, Recorded, RotateSecretError};

use crate::store::fixture::{EachLane, Fixture, outline, tenant_of};

on_each_backend! {
    a_deleted_endpoint_and_its_secrets_are_gone,
    an_endpoint_of_another_workspace_is_not_deleted,
    nothing_is_claimed_after_the_deletion,
    an_attempt_in_flight_during_the_deletion_is_recorded,
    a_retry_of_a_deleted_endpoint_is_cancelled,
    a_claim_returned_after_the_deletion_is_cancelled,
    a_claim_lost_after_the_deletion_is_logged_and_cancelled,
    held_deliveries_are_cancelled_too,
    a_long_queue_is_cancelled_in_a_few_bounded_steps,
    a_long_queue_is_cancelled_after_a_restart_too,
    a_long_deleted_queue_without_quota_is_not_reported_as_due,
    no_event_matches_a_deleted_endpoint,
    the_log_of_a_deleted_endpoint_stays,
}

/// More deliveries than one call of `delete_endpoint` cancels.
const LONG: usize = 2_500;

async fn a_deleted_endpoint_and_its_secrets_are_gone(mut at: Fixture) {
    let (endpoint, kept) = (at.endpoint().await, at.endpoint().await);
    at.rotate(&endpoint, 2, Duration::from_secs(60), false).await;
    at.delete(&endpoint).await;
    for _ in 0..2 {
        assert!(at.found(&endpoint).await.is_none());
        for version in [SecretVersion(1), SecretVersion(2)] {
            assert_eq!(at.store().find_secret(endpoint.key, version).await.unwrap(), None);
        }
        assert!(at.store().find_secret(kept.key, SecretVersion::FIRST).await.unwrap().is_some());
        let again = at.try_delete(at.tenant(), endpoint.id).await;
        assert!(matches!(again, Err(DeleteEndpointError::NotFound)), "{again:?}");
        at.reopen().await;
    }
    let version = at.store().secret_version(at.tenant(), endpoint.id).await.unwrap();
    assert_eq!(version, None);
    let rotated = at.try_rotate(at.tenant(), endpoint.id, 3, Duration::ZERO, false).await;
    assert!(matches!(rotated, Err(RotateSecretError::NotFound)), "{rotated:?}");
}

async fn an_endpoint_of_another_workspace_is_not_deleted(at: Fixture) {
    let (endpoint, other) = (at.endpoint().await, at.other_workspace().await);
    at.publish(1).await;
    let refused = at.try_delete(tenant_of(other.key), endpoint.id).await;
    assert!(matches!(refused, Err(DeleteEndpointError::NotFound)), "{refused:?}");
    assert!(at.found(&endpoint).await.is_some());
    assert_eq!(at.claim(10).await.claims.len(), 1);
}

async fn nothing_is_claimed_after_the_deletion(at: Fixture) {
    let (endpoint, kept) = (at.endpoint().await, at.endpoint().await);
    at.publish(3).await;
    at.accept_test(&endpoint).await;
    let again = at.claim_within(2, EachLane(1)).await.claims;
    let again = again.iter().find(|claim| claim.endpoint.id == endpoint.id).unwrap();
    at.record(at.retry(again, Duration::from_secs(5))).await;
    at.delete(&endpoint).await;
    let of_endpoint = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..DeliveryFilter::default() };
    for delivery in at.deliveries_of(at.tenant(), of_endpoint).await {
        let end = (delivery.status, delivery.reason, delivery.completed_at, delivery.next_attempt_at);
        let now = Some(at.clock_now());
        assert_eq!(end, (DeliveryStatus::Cancelled, Some(EndReason::EndpointDeleted), now, None));
    }
    for _ in 0..3 {
        at.advance(Duration::from_secs(60));
        assert!(at.claim(10).await.claims.iter().all(|claim| claim.endpoint.id == kept.id));
    }
}

async fn an_attempt_in_flight_during_the_deletion_is_recorded(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claims = at.claim(2).await.claims;
    at.delete(&endpoint).await;
    assert_eq!(at.delivery(claims[0].delivery_id).await.0.status, DeliveryStatus::Pending);
    at.advance(Duration::from_secs(3));
    assert_eq!(at.record(at.delivered(&claims[0])).await, Recorded::Done);
    assert_eq!(at.record(at.failed(&claims[1])).await, Recorded::Done);
    let ends = [(DeliveryStatus::Delivered, None), (DeliveryStatus::Failed, Some(EndReason::Exhausted))];
    for (claim, (status, reason)) in claims.iter().zip(ends) {
        let (delivery, attempts) = at.delivery(claim.delivery_id).await;
        assert_eq!((delivery.status, delivery.reason, attempts.len()), (status, reason, 1));
    }
    assert_eq!(at.claim(10).await.next_due_in, None);
}

async fn a_retry_of_a_deleted_endpoint_is_cancelled(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.delete(&endpoint).await;
    assert_eq!(at.record(at.retry(&claim, Duration::from_secs(5))).await, Recorded::Done);
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Cancelled, Some(EndReason::EndpointDeleted)));
    assert_eq!((delivery.attempt_count, delivery.next_attempt_at), (1, None));
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::HttpError)], "the attempt is in the log");
    assert_eq!(attempts[0].next_attempt_at, None, "and announces no further attempt");
    at.advance(Duration::from_secs(60));
    let claimed = at.claim(10).await;
    assert_eq!((claimed.claims.len(), claimed.next_due_in), (0, None));
}

async fn a_claim_returned_after_the_deletion_is_cancelled(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.delete(&endpoint).await;
    at.give_back(&claim).await;
    let claimed = at.claim(10).await;
    assert_eq!((claimed.claims.len(), claimed.next_due_in), (0, None));
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.status, delivery.attempt_count, attempts.len()), (DeliveryStatus::Cancelled, 0, 0));
}

async fn a_claim_lost_after_the_deletion_is_logged_and_cancelled(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let lost = at.claim_one().await;
    at.delete(&endpoint).await;
    assert_eq!(at.claim(10).await.next_due_in, Some(limits::LEASE), "the holder has until the end of its lease");
    at.advance(limits::LEASE);
    assert!(at.claim(10).await.claims.is_empty());
    let (delivery, attempts) = at.delivery(lost.delivery_id).await;
    assert_eq!((delivery.status, delivery.attempt_count), (DeliveryStatus::Cancelled, 1));
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned)]);
    assert_eq!(at.record(at.delivered(&lost)).await, Recorded::ClaimLost);
}

async fn held_deliveries_are_cancelled_too(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    at.switch(&endpoint, false).await;
    at.accept_test(&endpoint).await;
    at.delete(&endpoint).await;
    let deliveries = at.deliveries().await;
    assert_eq!(deliveries.len(), 3);
    assert!(deliveries.iter().all(|delivery| delivery.status == DeliveryStatus::Cancelled), "{deliveries:?}");
    at.advance(limits::WAITING_MAX * 2);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
}

async fn pending(at: &Fixture) -> usize {
    let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..DeliveryFilter::default() };
    at.deliveries_of(at.tenant(), filter).await.len()
}

/// Claims until the queue reports nothing due. Returns the number of claims.
async fn claim_until_quiet(at: &Fixture) -> usize {
    for rounds in 1..=10 {
        let claimed = at.claim(100).await;
        assert!(claimed.claims.is_empty(), "deliveries of a deleted endpoint are not claimed");
        if claimed.next_due_in != Some(Duration::ZERO) {
            return rounds;
        }
    }
    panic!("the queue still reports something due");
}

async fn long_queue(at: &Fixture) {
    for count in [1_000, 1_000, LONG - 2_000] {
        at.publish(count).await;
    }
}

async fn a_long_queue_is_cancelled_in_a_few_bounded_steps(at: Fixture) {
    let endpoint = at.endpoint().await;
    long_queue(&at).await;
    for _ in 0..3 {
        at.accept_test(&endpoint).await;
    }
    at.delete(&endpoint).await;
    assert!(pending(&at).await > 0, "a deletion cancels a bounded number itself");
    let rounds = claim_until_quiet(&at).await;
    assert!(rounds <= 3, "{rounds} rounds");
    assert_eq!(pending(&at).await, 0);
    assert_eq!(at.claim(10).await.next_due_in, None);
}

async fn a_long_queue_is_cancelled_after_a_restart_too(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    long_queue(&at).await;
    at.delete(&endpoint).await;
    at.reopen().await;
    claim_until_quiet(&at).await;
    assert_eq!(pending(&at).await, 0);
}

async fn a_long_deleted_queue_without_quota_is_not_reported_as_due(at: Fixture) {
    let endpoint = at.endpoint().await;
    long_queue(&at).await;
    at.delete(&endpoint).await;
    let full = at.claim_within(10, EachLane(0)).await;
    assert_ne!(full.next_due_in, Some(Duration::ZERO), "a lane without quota is not reported as due");
}

async fn no_event_matches_a_deleted_endpoint(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.delete(&endpoint).await;
    assert_eq!(at.publish(1).await[0].deliveries, 0);
    assert_eq!(at.deliveries().await.len(), 1);
}

async fn the_log_of_a_deleted_endpoint_stays(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    at.delete(&endpoint).await;
    at.reopen().await;
    let filter = DeliveryFilter { endpoint_ids: vec![endpoint.id], ..DeliveryFilter::default() };
    let statuses: Vec<_> = at.deliveries_of(at.tenant(), filter).await.iter().map(|delivery| delivery.status).collect();
    assert_eq!(statuses, [DeliveryStatus::Cancelled, DeliveryStatus::Delivered]);
    assert_eq!(at.delivery(claim.delivery_id).await.1.len(), 1);
}
