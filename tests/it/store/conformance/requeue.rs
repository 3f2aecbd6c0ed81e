//! Deliveries queued by hand: a test of an endpoint, and a retry of a delivery.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::DisabledReason;
use postrider_domain::id::{DeliveryId, EndpointId, StoreTag};
use postrider_domain::limits;
use postrider_store::{Recorded, RequeueError};

use crate::store::fixture::{Fixture, tenant_of};

on_each_backend! {
    a_test_goes_to_its_endpoint_only_and_ignores_subscriptions,
    a_test_is_sent_to_an_inactive_endpoint_too,
    a_test_is_never_held,
    a_test_does_not_expire_behind_an_inactive_endpoint,
    a_test_with_a_test_key_is_simulated,
    an_unknown_foreign_or_deleted_endpoint_is_not_tested,
    a_retry_is_a_new_delivery_of_the_same_event,
    a_delivery_in_any_state_can_be_retried,
    a_retry_has_the_mode_of_its_delivery,
    a_retry_of_a_test_is_a_test,
    a_retry_to_an_inactive_or_deleted_endpoint_is_refused,
    an_unknown_or_foreign_delivery_is_not_retried,
    a_retry_survives_a_restart,
}

async fn a_test_goes_to_its_endpoint_only_and_ignores_subscriptions(at: Fixture) {
    let (endpoint, _other) = (at.endpoint().await, at.endpoint().await);
    let event = at.event_of("note.created", Some("proj_z"));
    let envelope = event.envelope.clone();
    let test = at.try_test(endpoint.id, event.clone()).await.unwrap();
    assert_eq!((test.endpoint_id, test.event_id, test.cause), (endpoint.id, event.id, DeliveryCause::Test));
    assert_eq!((test.status, test.retry_of, test.attempt_count), (DeliveryStatus::Pending, None, 0));
    assert_eq!(test.next_attempt_at, Some(at.clock_now()));
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 1);
    let claim = &claims[0];
    assert_eq!((claim.delivery_id, claim.cause, claim.attempt), (test.id, DeliveryCause::Test, 1));
    assert_eq!((&claim.envelope, claim.mode, claim.endpoint.id), (&envelope, Mode::Live, endpoint.id));
    assert_eq!(at.record(at.delivered(claim)).await, Recorded::Done);
    assert_eq!(at.delivery(test.id).await.0.status, DeliveryStatus::Delivered);
}

async fn a_test_is_sent_to_an_inactive_endpoint_too(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    at.disable_by_outcome(DisabledReason::Failing).await;
    let test = at.accept_test(&endpoint).await;
    at.reopen().await;
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.delivery_id).collect::<Vec<_>>(), [test.id], "only the test is claimed");
    at.record(at.delivered(&claims[0])).await;
    let after = at.found(&endpoint).await.unwrap();
    assert_eq!((after.is_active, after.disabled_reason), (false, Some(DisabledReason::Failing)));
}

async fn a_test_is_never_held(at: Fixture) {
    let endpoint = at.endpoint().await;
    let test = at.accept_test(&endpoint).await;
    at.publish(1).await;
    at.switch(&endpoint, false).await;
    let claim = at.claim_one().await;
    assert_eq!(claim.delivery_id, test.id);
    at.record(at.retry(&claim, Duration::from_secs(5))).await;
    assert_eq!(at.claim(10).await.next_due_in, Some(Duration::from_secs(5)));
    at.advance(Duration::from_secs(5));
    assert_eq!(at.claim_one().await.attempt, 2);
}

async fn a_test_does_not_expire_behind_an_inactive_endpoint(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    at.switch(&endpoint, false).await;
    let test = at.accept_test(&endpoint).await;
    at.advance(limits::WAITING_MAX);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
    assert_eq!(at.claim_one().await.delivery_id, test.id);
}

async fn a_test_with_a_test_key_is_simulated(at: Fixture) {
    let endpoint = at.test_endpoint().await;
    let test = at.try_test(endpoint.id, at.test_event()).await.unwrap();
    assert_eq!((test.mode, at.claim_one().await.mode), (Mode::Test, Mode::Test));
}

async fn an_unknown_foreign_or_deleted_endpoint_is_not_tested(at: Fixture) {
    let other = at.other_workspace().await;
    let foreign = at.create_in(tenant_of(other.key), at.new_endpoint()).await;
    let deleted = at.endpoint().await;
    at.delete(&deleted).await;
    for id in [foreign.id, deleted.id, EndpointId::from_letters([b'z'; 16])] {
        let refused = at.try_test(id, at.event()).await;
        assert!(matches!(refused, Err(RequeueError::NotFound)), "{id}: {refused:?}");
    }
    assert!(at.claim(10).await.claims.is_empty());
    assert!(at.deliveries().await.is_empty());
}

async fn a_retry_is_a_new_delivery_of_the_same_event(at: Fixture) {
    let (endpoint, _other) = (at.endpoint().await, at.endpoint().await);
    at.publish(1).await;
    let first = at.claim(2).await.claims.into_iter().find(|claim| claim.endpoint.id == endpoint.id).unwrap();
    at.record(at.failed(&first)).await;
    let before = format!("{:?}", at.delivery(first.delivery_id).await);
    at.advance(Duration::from_secs(1));
    let retry = at.retry_by_hand(first.delivery_id).await;
    assert_eq!((retry.event_id, retry.endpoint_id), (first.event_id, endpoint.id), "a retry goes to the same endpoint");
    assert_eq!((retry.cause, retry.retry_of), (DeliveryCause::Retry, Some(first.delivery_id)));
    assert_eq!((retry.id.created_at(), retry.attempt_count), (at.clock_now(), 0));
    let claim = at.claim_one().await;
    assert_eq!((claim.delivery_id, claim.attempt, claim.step), (retry.id, 1, 0), "a retry begins the schedule again");
    assert_eq!((&claim.envelope, claim.event_id), (&first.envelope, first.event_id));
    assert_eq!(format!("{:?}", at.delivery(first.delivery_id).await), before, "the first delivery is unchanged");
    let again = at.retry_by_hand(retry.id).await;
    assert_eq!(again.retry_of, Some(retry.id));
}

async fn a_delivery_in_any_state_can_be_retried(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.switch(&endpoint, false).await;
    at.publish(1).await;
    at.switch(&endpoint, true).await;
    at.publish(5).await;
    let claims = at.claim(4).await.claims;
    at.record(at.delivered(&claims[0])).await;
    at.record(at.failed(&claims[1])).await;
    let end = |status, reason| postrider_store::AfterAttempt::Finish { status, reason };
    let deleted = Some(EndReason::EndpointDeleted);
    at.record(at.outcome(&claims[2], 500, end(DeliveryStatus::Cancelled, deleted))).await;
    at.record(at.outcome(&claims[3], 500, end(DeliveryStatus::Simulated, None))).await;
    let all = at.deliveries().await;
    let mut statuses: Vec<_> = all.iter().map(|delivery| delivery.status.code()).collect();
    statuses.sort_unstable();
    assert_eq!(statuses, DeliveryStatus::ALL.map(DeliveryStatus::code));
    for delivery in &all {
        let retry = at.retry_by_hand(delivery.id).await;
        assert_eq!((retry.status, retry.retry_of), (DeliveryStatus::Pending, Some(delivery.id)));
    }
    assert_eq!(at.claim(20).await.claims.len(), 7);
}

async fn a_retry_has_the_mode_of_its_delivery(at: Fixture) {
    at.endpoint().await;
    at.test_endpoint().await;
    at.accept(vec![at.event()]).await;
    at.accept(vec![at.test_event()]).await;
    for claim in at.claim(2).await.claims {
        at.record(at.failed(&claim)).await;
    }
    for (own, other) in [(at.tenant(), at.test_tenant()), (at.test_tenant(), at.tenant())] {
        let [failed] = &at.deliveries_of(own, DeliveryFilter::default()).await[..] else { panic!("one delivery") };
        let refused = at.try_retry(other, failed.id).await;
        assert!(matches!(refused, Err(RequeueError::NotFound)), "{refused:?}");
        assert_eq!(at.try_retry(own, failed.id).await.unwrap().mode, own.mode);
        let claimed: Vec<_> = at.claim(10).await.claims.iter().map(|claim| claim.mode).collect();
        assert_eq!(claimed, [own.mode]);
    }
}

async fn a_retry_of_a_test_is_a_test(at: Fixture) {
    let endpoint = at.endpoint().await;
    let test = at.accept_test(&endpoint).await;
    let claim = at.claim_one().await;
    at.record(at.failed(&claim)).await;
    at.switch(&endpoint, false).await;
    let retry = at.retry_by_hand(test.id).await;
    assert_eq!((retry.cause, retry.retry_of), (DeliveryCause::Test, Some(test.id)));
    let claim = at.claim_one().await;
    assert_eq!(
        (claim.delivery_id, claim.cause),
        (retry.id, DeliveryCause::Test),
        "a retried test is marked as a test and is not held"
    );
}

async fn a_retry_to_an_inactive_or_deleted_endpoint_is_refused(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.failed(&claim)).await;
    let retry = || at.try_retry(at.tenant(), claim.delivery_id);
    at.switch(&endpoint, false).await;
    let refused = retry().await;
    assert!(matches!(refused, Err(RequeueError::EndpointOff)), "{refused:?}");
    at.delete(&endpoint).await;
    let refused = retry().await;
    assert!(matches!(refused, Err(RequeueError::EndpointDeleted)), "{refused:?}");
    assert_eq!(at.deliveries().await.len(), 1, "a refusal writes nothing");
    assert!(at.claim(10).await.claims.is_empty());
}

async fn an_unknown_or_foreign_delivery_is_not_retried(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let delivery = at.deliveries().await.remove(0).id;
    let other = at.other_workspace().await;
    let elsewhere = StoreTag::from_u32(at.store().tag().as_u32() ^ 1);
    for (tenant, id) in [
        (tenant_of(other.key), delivery),
        (at.tenant(), DeliveryId::new(delivery.key(), elsewhere)),
        (at.tenant(), DeliveryId::new(at.store().next_key(), at.store().tag())),
    ] {
        let refused = at.try_retry(tenant, id).await;
        assert!(matches!(refused, Err(RequeueError::NotFound)), "{id}: {refused:?}");
    }
    assert_eq!(at.deliveries().await.len(), 1);
}

async fn a_retry_survives_a_restart(mut at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    let retry = at.retry_by_hand(claim.delivery_id).await;
    at.reopen().await;
    assert_eq!(format!("{:?}", at.delivery(retry.id).await.0), format!("{retry:?}"));
    assert_eq!(at.claim_one().await.delivery_id, retry.id);
}
