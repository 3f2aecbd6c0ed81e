//! Strict order: one delivery at a time, in the order of acceptance, and a stop at a failed delivery.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::audit::AuditAction;
use postrider_domain::delivery::{DeliveryCause, DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::{DisabledReason, EndpointChange, ProjectId};
use postrider_domain::endpoint_options::{DeliveryOrder, OptionsChange};
use postrider_domain::event::EventReceipt;
use postrider_domain::id::{DeliveryId, EventId, RowKey};
use postrider_domain::limits;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange};
use postrider_domain::tenant::Tenant;
use postrider_store::{AgedStep, Claim, LogPart, NewEndpoint, Recorded, RequeueError, SkipDeliveryError};

use crate::store::fixture::{Fixture, START, outline, tenant_of};

on_each_backend! {
    events_are_claimed_one_at_a_time_in_acceptance_order,
    a_head_that_waits_for_its_retry_blocks_the_lane,
    a_returned_claim_is_the_head_again,
    a_lost_claim_is_taken_over_before_anything_else_moves,
    a_claim_lost_to_a_restart_is_retried_first,
    a_failed_head_stops_the_order,
    stopped_orders_are_listed_for_their_tenant,
    a_stopped_order_is_found_by_its_endpoint,
    events_accepted_behind_a_stopped_order_wait,
    a_skip_resumes_the_order_and_is_audited,
    only_a_blocking_delivery_can_be_skipped,
    a_manual_retry_takes_the_position_of_the_failed_delivery,
    a_failed_manual_retry_stops_the_order_again,
    a_test_key_leaves_the_order_stopped,
    other_retries_and_replays_are_outside_the_order,
    a_test_does_not_wait_for_the_order,
    an_event_of_test_mode_is_outside_the_order,
    events_wait_in_order_for_an_inactive_endpoint,
    a_reactivated_endpoint_resumes_at_its_head,
    a_held_order_expires_from_the_front_and_stops_there,
    deliveries_behind_a_stopped_order_expire_too,
    a_stopped_order_survives_retention_and_a_restart,
    an_order_switched_on_applies_to_later_events,
    an_order_switched_off_keeps_positions_and_never_stops,
    deleting_the_endpoint_cancels_its_ordered_queue,
    each_endpoint_has_an_order_of_its_own,
    nothing_is_due_while_an_order_is_stopped,
    the_probe_of_a_paused_strict_endpoint_is_its_head,
    a_paused_order_expires_from_the_front,
}

const INSTANT: Duration = Duration::from_millis(1);
const MINUTE: Duration = Duration::from_secs(60);

fn ids(receipts: &[EventReceipt]) -> Vec<EventId> {
    receipts.iter().map(|receipt| receipt.id).collect()
}

/// Claims everything that is due. That must be one delivery.
async fn only_claim(at: &Fixture) -> Claim {
    let mut claims = at.claim(100).await.claims;
    assert_eq!(claims.len(), 1, "one at a time");
    claims.remove(0)
}

async fn assert_nothing_due(at: &Fixture) {
    let claims = at.claim(100).await.claims;
    assert!(claims.is_empty(), "{claims:?}");
}

/// Delivers everything that becomes due, one at a time. Returns the events in the order of the claims.
async fn deliver_all(at: &Fixture) -> Vec<EventId> {
    let mut order = Vec::new();
    loop {
        let claims = at.claim(100).await.claims;
        if claims.is_empty() {
            return order;
        }
        assert_eq!(claims.len(), 1, "one at a time");
        order.push(claims[0].event_id);
        assert_eq!(at.record(at.delivered(&claims[0])).await, Recorded::Done);
    }
}

/// Claims the head and fails its delivery.
async fn fail_head(at: &Fixture) -> DeliveryId {
    let head = only_claim(at).await;
    assert_eq!(at.record(at.failed(&head)).await, Recorded::Done);
    head.delivery_id
}

async fn delivery_of(at: &Fixture, event: EventId) -> DeliveryId {
    let filter = DeliveryFilter { event_ids: vec![event], ..DeliveryFilter::default() };
    at.deliveries_of(at.tenant(), filter).await[0].id
}

async fn events_are_claimed_one_at_a_time_in_acceptance_order(at: Fixture) {
    at.strict_endpoint().await;
    let mut accepted = ids(&at.publish(3).await);
    accepted.extend(ids(&at.publish(2).await));
    let first = only_claim(&at).await;
    assert_nothing_due(&at).await;
    assert_eq!(at.record(at.delivered(&first)).await, Recorded::Done);
    assert_eq!([&[first.event_id], &deliver_all(&at).await[..]].concat(), accepted);
}

async fn a_head_that_waits_for_its_retry_blocks_the_lane(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let head = only_claim(&at).await;
    at.record(at.retry(&head, MINUTE)).await;
    at.advance(MINUTE - INSTANT);
    let idle = at.claim(100).await;
    assert_eq!((idle.claims.len(), idle.next_due_in), (0, Some(INSTANT)));
    let (waiting, _) = at.delivery(delivery_of(&at, accepted[1]).await).await;
    assert_eq!(
        (waiting.status, waiting.next_attempt_at),
        (DeliveryStatus::Pending, None),
        "a delivery behind the head has no due time"
    );
    at.advance(INSTANT);
    let again = only_claim(&at).await;
    assert_eq!((again.event_id, again.attempt, again.step), (accepted[0], 2, 1));
    at.record(at.delivered(&again)).await;
    assert_eq!(deliver_all(&at).await, accepted[1..]);
}

async fn a_returned_claim_is_the_head_again(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let head = only_claim(&at).await;
    at.give_back(&head).await;
    let again = only_claim(&at).await;
    assert_eq!((again.event_id, again.attempt), (accepted[0], 1));
}

async fn a_lost_claim_is_taken_over_before_anything_else_moves(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let lost = only_claim(&at).await;
    at.advance(limits::LEASE - INSTANT);
    assert_nothing_due(&at).await;
    at.advance(INSTANT);
    let again = only_claim(&at).await;
    assert_eq!((again.event_id, again.attempt), (accepted[0], 2));
    assert_eq!(at.record(at.delivered(&lost)).await, Recorded::ClaimLost, "a late outcome changes nothing");
    assert_nothing_due(&at).await;
    at.record(at.delivered(&again)).await;
    let (_, attempts) = at.delivery(again.delivery_id).await;
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned), (2, AttemptOutcome::Delivered)]);
    assert_eq!(deliver_all(&at).await, accepted[1..]);
}

async fn a_claim_lost_to_a_restart_is_retried_first(mut at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(3).await);
    let first = only_claim(&at).await;
    at.record(at.delivered(&first)).await;
    only_claim(&at).await;
    at.reopen().await;
    at.advance(limits::LEASE);
    assert_eq!(deliver_all(&at).await, accepted[1..]);
}

async fn a_failed_head_stops_the_order(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let failed = fail_head(&at).await;
    at.advance(limits::LEASE);
    assert_nothing_due(&at).await;
    let (delivery, _) = at.delivery(failed).await;
    assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Failed, Some(EndReason::Exhausted)));
    assert!(delivery.is_blocking);
    let (waiting, _) = at.delivery(delivery_of(&at, accepted[1]).await).await;
    assert_eq!((waiting.status, waiting.is_blocking), (DeliveryStatus::Pending, false));
}

async fn stopped_orders_are_listed_for_their_tenant(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(2).await;
    let listed = async |tenant, limit| {
        let found = at.store().blocking_deliveries(tenant, limit).await.unwrap();
        found.iter().map(|delivery| delivery.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(at.tenant(), 10).await, []);
    let failed = fail_head(&at).await;
    assert_eq!(listed(at.tenant(), 10).await, [failed]);
    assert_eq!(listed(at.tenant(), 0).await, []);
    let other = Tenant { mode: Mode::Test, ..at.tenant() };
    assert_eq!(listed(other, 10).await, []);
    let project = Tenant { project: Some(ProjectId::parse("proj_1").unwrap()), ..at.tenant() };
    assert_eq!(listed(project, 10).await, [], "the endpoint has no project");
}

async fn a_stopped_order_is_found_by_its_endpoint(at: Fixture) {
    let (one, other) = (at.strict_endpoint().await, at.strict_endpoint().await);
    at.publish(2).await;
    let stopped = async |tenant, endpoint| {
        let found = at.store().blocking_delivery(tenant, endpoint).await.unwrap();
        found.map(|delivery| (delivery.id, delivery.endpoint_id, delivery.is_blocking))
    };
    assert_eq!(stopped(at.tenant(), one.id).await, None);
    let mut failed = Vec::new();
    for claim in at.claim(100).await.claims {
        at.record(at.failed(&claim)).await;
        failed.push((claim.endpoint.id, claim.delivery_id));
    }
    for (endpoint, delivery) in &failed {
        assert_eq!(stopped(at.tenant(), *endpoint).await, Some((*delivery, *endpoint, true)));
    }
    assert_eq!(failed.len(), 2);
    // Found only within its tenant, and by no other endpoint.
    assert_eq!(stopped(at.test_tenant(), one.id).await, None);
    assert_eq!(stopped(tenant_of(at.other_workspace().await.key), one.id).await, None);
    let project = Tenant { project: Some(ProjectId::parse("proj_1").unwrap()), ..at.tenant() };
    assert_eq!(stopped(project, one.id).await, None, "the endpoint has no project");
    assert_eq!(stopped(at.tenant(), at.endpoint().await.id).await, None);
    let skipped = failed.iter().find(|(endpoint, _)| *endpoint == one.id).unwrap().1;
    at.skip(skipped).await;
    assert_eq!(stopped(at.tenant(), one.id).await, None);
    assert!(stopped(at.tenant(), other.id).await.is_some());
}

async fn nothing_is_due_while_an_order_is_stopped(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(2).await;
    fail_head(&at).await;
    at.advance(limits::LEASE);
    at.claim(10).await;
    let idle = at.claim(10).await;
    assert_eq!((idle.claims.len(), idle.next_due_in), (0, None));
}

/// Fails the head until its endpoint is paused. The head then waits two hours for its own retry.
async fn pause(at: &Fixture) -> Claim {
    for _ in 0..4 {
        let head = only_claim(at).await;
        at.record(at.failing(&head, INSTANT)).await;
        at.advance(limits::PAUSE_SPAN);
    }
    let head = only_claim(at).await;
    assert!(!head.probe);
    at.record(at.failing(&head, Duration::from_secs(7200))).await;
    head
}

async fn the_probe_of_a_paused_strict_endpoint_is_its_head(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let head = pause(&at).await;
    for wait in [30, 60, 120] {
        at.advance(Duration::from_secs(wait) - INSTANT);
        assert_nothing_due(&at).await;
        at.advance(INSTANT);
        let probe = only_claim(&at).await;
        assert_eq!((probe.delivery_id, probe.probe, probe.step), (head.delivery_id, true, head.step + 1));
        assert_nothing_due(&at).await;
        at.record(at.failing(&probe, INSTANT)).await;
    }
    at.advance(Duration::from_secs(240));
    let probe = only_claim(&at).await;
    at.record(at.succeeding(&probe)).await;
    assert_eq!(deliver_all(&at).await, accepted[1..]);
}

async fn a_paused_order_expires_from_the_front(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(2).await;
    pause(&at).await;
    let kept = ids(&at.publish(1).await);
    at.advance(limits::WAITING_MAX - INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(INSTANT);
    // The delivery behind the head has waited since the pause began.
    assert_eq!(
        at.store().expire_waiting(2).await.unwrap(),
        0,
        "the head has waited only since the first probe was due"
    );
    at.advance(limits::PROBE_WAIT_MIN);
    assert_eq!(at.store().expire_waiting(2).await.unwrap(), 2);
    let blocking: Vec<_> = at.deliveries().await.into_iter().filter(|delivery| delivery.is_blocking).collect();
    assert_eq!((blocking.len(), blocking[0].reason), (1, Some(EndReason::Expired)));
    at.skip(blocking[0].id).await;
    let probe = only_claim(&at).await;
    assert_eq!(probe.event_id, kept[0]);
}

async fn events_accepted_behind_a_stopped_order_wait(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(1).await;
    let failed = fail_head(&at).await;
    let accepted = ids(&at.publish(2).await);
    assert_nothing_due(&at).await;
    at.skip(failed).await;
    assert_eq!(deliver_all(&at).await, accepted);
}

async fn a_skip_resumes_the_order_and_is_audited(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(3).await);
    let failed = fail_head(&at).await;
    let skipped = at.skip(failed).await;
    assert_eq!((skipped.id, skipped.status, skipped.is_blocking), (failed, DeliveryStatus::Failed, false));
    assert!(!at.delivery(failed).await.0.is_blocking);
    let entry = &at.audit().await[0];
    assert_eq!((entry.action, &entry.resource_id), (AuditAction::DeliverySkipped, &failed.to_string()));
    assert_eq!(deliver_all(&at).await, accepted[1..]);
}

async fn only_a_blocking_delivery_can_be_skipped(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let failed = fail_head(&at).await;
    let waiting = delivery_of(&at, accepted[1]).await;
    let refused = at.try_skip(at.tenant(), waiting).await.unwrap_err();
    assert!(matches!(refused, SkipDeliveryError::NotBlocking));
    let other = at.other_workspace().await;
    assert!(matches!(at.try_skip(tenant_of(other.key), failed).await.unwrap_err(), SkipDeliveryError::NotFound));
    at.skip(failed).await;
    let twice = at.try_skip(at.tenant(), failed).await.unwrap_err();
    assert!(matches!(twice, SkipDeliveryError::NotBlocking));
}

async fn a_manual_retry_takes_the_position_of_the_failed_delivery(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(3).await);
    let failed = fail_head(&at).await;
    let again = at.retry_by_hand(failed).await;
    assert_eq!((again.cause, again.retry_of), (DeliveryCause::Retry, Some(failed)));
    let head = only_claim(&at).await;
    assert_eq!((head.delivery_id, head.event_id, head.cause), (again.id, accepted[0], DeliveryCause::Retry));
    at.record(at.retry(&head, MINUTE)).await;
    assert_nothing_due(&at).await;
    at.advance(MINUTE);
    assert_eq!(deliver_all(&at).await, accepted);
    let skip = at.try_skip(at.tenant(), failed).await.unwrap_err();
    assert!(matches!(skip, SkipDeliveryError::NotBlocking));
}

async fn a_failed_manual_retry_stops_the_order_again(at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(2).await);
    let first = fail_head(&at).await;
    let second = at.retry_by_hand(first).await.id;
    assert_eq!(fail_head(&at).await, second);
    assert!(at.delivery(second).await.0.is_blocking && !at.delivery(first).await.0.is_blocking);
    assert_nothing_due(&at).await;
    // The order no longer waits for the first delivery.
    at.retry_by_hand(first).await;
    assert_eq!(deliver_all(&at).await, accepted[..1]);
    assert!(at.delivery(second).await.0.is_blocking);
    at.retry_by_hand(second).await;
    assert_eq!(deliver_all(&at).await, accepted);
}

async fn a_test_key_leaves_the_order_stopped(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(2).await;
    let failed = fail_head(&at).await;
    let retried = at.try_retry(at.test_tenant(), failed).await;
    assert!(matches!(retried, Err(RequeueError::NotFound)), "{retried:?}");
    let skipped = at.try_skip(at.test_tenant(), failed).await;
    assert!(matches!(skipped, Err(SkipDeliveryError::NotFound)), "{skipped:?}");
    assert_nothing_due(&at).await;
    assert!(at.delivery(failed).await.0.is_blocking);
}

async fn other_retries_and_replays_are_outside_the_order(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    let accepted = ids(&at.publish(3).await);
    let skipped = fail_head(&at).await;
    at.skip(skipped).await;
    let delivered = only_claim(&at).await;
    at.record(at.delivered(&delivered)).await;
    let head = only_claim(&at).await;
    at.record(at.retry(&head, MINUTE)).await;
    let retry = at.retry_by_hand(delivered.delivery_id).await;
    let until = at.clock_now().plus(MINUTE);
    let range = ReplayRange { since: START, until, statuses: REPLAYED_BY_DEFAULT.to_vec() };
    at.replay(&endpoint, range).await;
    at.store().advance_replays().await.unwrap();
    let mut beside = at.claim(100).await.claims;
    beside.sort_by_key(|claim| claim.cause != DeliveryCause::Retry);
    let claimed: Vec<_> = beside.iter().map(|claim| (claim.cause, claim.event_id)).collect();
    assert_eq!(claimed, [(DeliveryCause::Retry, accepted[1]), (DeliveryCause::Replay, accepted[0])]);
    assert_eq!(beside[0].delivery_id, retry.id);
    for claim in &beside {
        at.record(at.failed(claim)).await;
        assert!(!at.delivery(claim.delivery_id).await.0.is_blocking);
    }
    at.advance(MINUTE);
    assert_eq!(only_claim(&at).await.event_id, accepted[2]);
}

async fn a_test_does_not_wait_for_the_order(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    at.publish(2).await;
    fail_head(&at).await;
    let test = at.accept_test(&endpoint).await;
    let claim = only_claim(&at).await;
    assert_eq!(claim.delivery_id, test.id);
    at.record(at.failed(&claim)).await;
    assert!(!at.delivery(test.id).await.0.is_blocking);
}

async fn an_event_of_test_mode_is_outside_the_order(at: Fixture) {
    let options = OptionsChange { ordering: Some(DeliveryOrder::Strict), ..OptionsChange::default() };
    let endpoint = at.create_in(at.test_tenant(), NewEndpoint { options, ..at.new_endpoint() }).await;
    at.accept(vec![at.test_event(), at.test_event()]).await;
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 2, "a simulated delivery does not wait");
    let off = EndpointChange { is_active: Some(false), ..EndpointChange::default() };
    at.try_update(at.test_tenant(), endpoint.id, off, 10).await.unwrap();
    let receipts = at.accept(vec![at.test_event()]).await;
    assert_eq!(receipts[0].deliveries, 0, "the simulated delivery is skipped while the endpoint is inactive");
}

async fn events_wait_in_order_for_an_inactive_endpoint(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    at.switch(&endpoint, false).await;
    let receipts = at.publish(2).await;
    assert!(receipts.iter().all(|receipt| receipt.deliveries == 1), "the deliveries are queued");
    at.advance(MINUTE);
    let mut accepted = ids(&receipts);
    accepted.extend(ids(&at.publish(1).await));
    assert_nothing_due(&at).await;
    assert!(at.deliveries().await.iter().all(|delivery| delivery.status == DeliveryStatus::Pending));
    at.switch(&endpoint, true).await;
    assert_eq!(deliver_all(&at).await, accepted);
}

async fn a_reactivated_endpoint_resumes_at_its_head(at: Fixture) {
    for reason in [DisabledReason::Gone, DisabledReason::Failing, DisabledReason::SsrfBlocked] {
        let endpoint = at.strict_endpoint().await;
        let mut accepted = ids(&at.publish(2).await);
        let head = only_claim(&at).await;
        let outcome = at.retry(&head, MINUTE);
        at.record(postrider_store::OutcomeRecord { disable: Some(reason), ..outcome }).await;
        accepted.extend(ids(&at.publish(1).await));
        at.advance(MINUTE);
        assert_nothing_due(&at).await;
        at.switch(&endpoint, true).await;
        assert_eq!(deliver_all(&at).await, accepted, "{reason:?}");
        at.delete(&endpoint).await;
    }
}

async fn a_held_order_expires_from_the_front_and_stops_there(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    at.publish(1).await;
    at.switch(&endpoint, false).await;
    let lost = ids(&at.publish(2).await);
    at.advance(MINUTE);
    let kept = ids(&at.publish(2).await);
    at.advance(limits::WAITING_MAX - MINUTE - INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(INSTANT);
    assert_eq!(at.store().expire_waiting(2).await.unwrap(), 2, "one step expires at most its limit");
    assert_eq!(at.store().expire_waiting(2).await.unwrap(), 1);
    assert_eq!(at.store().expire_waiting(2).await.unwrap(), 0);
    let last = delivery_of(&at, lost[1]).await;
    let (delivery, _) = at.delivery(last).await;
    assert_eq!((delivery.reason, delivery.is_blocking), (Some(EndReason::Expired), true));
    at.switch(&endpoint, true).await;
    assert_nothing_due(&at).await;
    let blocking = at.deliveries().await.iter().filter(|delivery| delivery.is_blocking).count();
    assert_eq!(blocking, 1, "one delivery blocks the order");
    at.skip(last).await;
    assert_eq!(deliver_all(&at).await, kept);
}

async fn deliveries_behind_a_stopped_order_expire_too(at: Fixture) {
    at.strict_endpoint().await;
    at.publish(1).await;
    let first = fail_head(&at).await;
    let lost = ids(&at.publish(1).await);
    at.advance(MINUTE);
    let kept = ids(&at.publish(1).await);
    at.advance(limits::WAITING_MAX - MINUTE - INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(INSTANT);
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
    assert!(!at.delivery(first).await.0.is_blocking);
    let last = delivery_of(&at, lost[0]).await;
    assert!(at.delivery(last).await.0.is_blocking);
    at.retry_by_hand(last).await;
    assert_eq!(deliver_all(&at).await, [lost, kept].concat());
}

async fn remove_aged(at: &Fixture, part: LogPart) {
    let step = AgedStep { part, age: limits::RETENTION, after: RowKey::from_i64(0), limit: 100 };
    at.store().remove_aged(step).await.unwrap();
}

async fn a_stopped_order_survives_retention_and_a_restart(mut at: Fixture) {
    at.strict_endpoint().await;
    let accepted = ids(&at.publish(1).await);
    let failed = fail_head(&at).await;
    at.advance(limits::RETENTION * 2);
    at.reopen().await;
    for part in [LogPart::Deliveries, LogPart::Events] {
        remove_aged(&at, part).await;
    }
    let later = ids(&at.publish(1).await);
    assert_nothing_due(&at).await;
    at.retry_by_hand(failed).await;
    assert_eq!(deliver_all(&at).await, [accepted, later].concat());
    remove_aged(&at, LogPart::Deliveries).await;
    assert!(matches!(at.try_skip(at.tenant(), failed).await.unwrap_err(), SkipDeliveryError::NotFound));
}

async fn an_order_switched_on_applies_to_later_events(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(3).await;
    at.set_order(&endpoint, DeliveryOrder::Strict).await;
    let accepted = ids(&at.publish(2).await);
    let claims = at.claim(100).await.claims;
    assert_eq!(claims.len(), 4, "the earlier deliveries and the head");
    for claim in &claims {
        at.record(at.delivered(claim)).await;
    }
    assert_eq!(deliver_all(&at).await, accepted[1..]);
}

async fn an_order_switched_off_keeps_positions_and_never_stops(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    let accepted = ids(&at.publish(4).await);
    let failed = fail_head(&at).await;
    at.set_order(&endpoint, DeliveryOrder::None).await;
    assert!(!at.delivery(failed).await.0.is_blocking);
    let second = only_claim(&at).await;
    assert_eq!(second.event_id, accepted[1]);
    let outside = ids(&at.publish(2).await);
    let beside = at.claim(100).await.claims;
    assert_eq!(beside.iter().map(|claim| claim.event_id).collect::<Vec<_>>(), outside);
    at.record(at.failed(&second)).await;
    assert!(!at.delivery(second.delivery_id).await.0.is_blocking, "without an order nothing blocks");
    at.set_order(&endpoint, DeliveryOrder::Strict).await;
    let last = ids(&at.publish(1).await);
    for claim in &beside {
        at.record(at.delivered(claim)).await;
    }
    assert_eq!(deliver_all(&at).await, [&accepted[2..], &last[..]].concat());
}

async fn deleting_the_endpoint_cancels_its_ordered_queue(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    at.publish(1).await;
    let failed = fail_head(&at).await;
    at.publish(2_500).await;
    at.delete(&endpoint).await;
    for _ in 0..4 {
        assert_nothing_due(&at).await;
    }
    let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..DeliveryFilter::default() };
    assert!(at.deliveries_of(at.tenant(), filter).await.is_empty());
    assert!(matches!(at.try_retry(at.tenant(), failed).await, Err(RequeueError::EndpointDeleted)));
    let idle = at.claim(100).await;
    assert_eq!((idle.claims.len(), idle.next_due_in), (0, None));
}

async fn each_endpoint_has_an_order_of_its_own(at: Fixture) {
    let (one, other) = (at.strict_endpoint().await, at.strict_endpoint().await);
    let unordered = at.endpoint().await;
    at.publish(3).await;
    let claims = at.claim(100).await.claims;
    let of = |endpoint: &postrider_domain::endpoint::Endpoint| {
        claims.iter().filter(|claim| claim.endpoint.id == endpoint.id).collect::<Vec<_>>()
    };
    assert_eq!((of(&one).len(), of(&other).len(), of(&unordered).len()), (1, 1, 3));
    at.record(at.failed(of(&one)[0])).await;
    at.record(at.delivered(of(&other)[0])).await;
    let next = only_claim(&at).await;
    assert_eq!(next.endpoint.id, other.id);
}
