//! Endpoint health: pause, probe, recovery, disabling, and the operational events about them.

use std::time::Duration;

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::{DisabledReason, Endpoint, EndpointChange, EndpointUrl};
use postrider_domain::endpoint_health::{Failure, FailureStreak, HealthState, Signal};
use postrider_domain::limits;
use postrider_domain::operational_event::OperationalEvent;
use postrider_store::{AfterAttempt, Claim, OutcomeRecord, Recorded};
use serde_json::Value;

use crate::store::fixture::Fixture;

on_each_backend! {
    five_failures_over_ten_seconds_pause_an_endpoint,
    a_paused_endpoint_gets_one_probe_at_a_time_in_rotation,
    a_probe_waits_until_something_is_due,
    a_success_resumes_a_paused_endpoint_at_once,
    a_delivery_to_a_paused_endpoint_is_queued_not_skipped,
    a_pause_outlives_an_empty_queue,
    a_pause_outlives_a_restart_with_its_next_probe,
    a_probe_whose_holder_died_is_followed_by_another,
    a_returned_probe_is_followed_by_another_at_once,
    reactivation_and_a_new_url_clear_the_failures,
    deleting_a_paused_endpoint_cancels_its_queue,
    a_simulated_delivery_does_not_use_up_the_probe,
    a_late_attempt_from_before_the_pause_adds_no_second_probe,
    a_failed_test_is_not_reported,
    a_failure_at_a_former_url_does_not_count,
    a_busy_receiver_gets_nothing_before_its_retry_after,
    an_endpoint_without_success_for_five_days_is_disabled,
    deliveries_behind_a_pause_expire_after_fourteen_days,
    a_success_clears_the_stored_failures,
    each_change_of_health_is_reported_once_in_order,
    an_endpoint_of_the_operations_workspace_is_not_reported,
    operational_events_are_off_by_default,
    an_exhausted_delivery_is_reported,
}

const SECOND: Duration = Duration::from_secs(1);
/// The retry wait of a failed probe: it requeues the delivery behind the others.
const BEHIND: Duration = Duration::from_millis(1);
const LATER: Duration = Duration::from_secs(7200);

/// Pauses the endpoint by five failures over ten seconds. Their five deliveries then wait two hours for a retry.
pub async fn pause(at: &Fixture, endpoint: &Endpoint) {
    at.publish(5).await;
    for _ in 0..4 {
        let claim = at.claim_of(endpoint).await;
        assert_eq!(at.record(at.failing(&claim, LATER)).await, Recorded::Done);
    }
    at.advance(limits::PAUSE_SPAN);
    let claim = at.claim_of(endpoint).await;
    assert!(!claim.probe);
    at.record(at.failing(&claim, LATER)).await;
}

async fn refresh(at: &Fixture, endpoint: &Endpoint) -> Endpoint {
    at.found(endpoint).await.unwrap()
}

/// The stored failures.
async fn health(at: &Fixture, endpoint: &Endpoint) -> Option<FailureStreak> {
    refresh(at, endpoint).await.failure_streak
}

pub async fn probe(at: &Fixture) -> Claim {
    let mut claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 1, "one probe at a time");
    let claim = claims.remove(0);
    assert!(claim.probe);
    claim
}

async fn five_failures_over_ten_seconds_pause_an_endpoint(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    let health = health(&at, &endpoint).await.unwrap();
    assert_eq!((health.state(), health.failures), (HealthState::Paused, 5));
    assert_eq!(health.since(), Some(at.clock_now()));
    assert_eq!(health.pause.unwrap().next_probe_at, at.clock_now().plus(limits::PROBE_WAIT_MIN));
    assert!(refresh(&at, &endpoint).await.is_active, "a paused endpoint is not disabled");
    at.publish(1).await;
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty());
    assert_eq!(claimed.next_due_in, Some(limits::PROBE_WAIT_MIN));
    assert!(at.deliveries().await.iter().all(|delivery| delivery.status == DeliveryStatus::Pending));
}

async fn a_paused_endpoint_gets_one_probe_at_a_time_in_rotation(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(3).await;
    let mut probed = Vec::new();
    for wait in [30, 60, 120, 240] {
        at.advance(SECOND * wait - Duration::from_millis(1));
        assert!(at.claim(10).await.claims.is_empty(), "the probe is not due yet");
        at.advance(Duration::from_millis(1));
        let claim = probe(&at).await;
        assert!(at.claim(10).await.claims.is_empty(), "a probe is in flight");
        probed.push(claim.delivery_id);
        at.record(at.failing(&claim, BEHIND)).await;
    }
    assert_eq!(probed[0], probed[3], "the fourth probe takes the first delivery again");
    probed.truncate(3);
    probed.sort_by_key(|id| id.key());
    probed.dedup();
    assert_eq!(probed.len(), 3, "the first three probes take different deliveries");
    assert_eq!(health(&at, &endpoint).await.unwrap().pause.unwrap().failed_probes, 4);
    let (_, attempts) = at.delivery(probed[0]).await;
    assert!(!attempts.is_empty(), "a probe is logged as an attempt");
}

async fn a_probe_waits_until_something_is_due(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.advance(LATER - limits::PAUSE_SPAN - SECOND);
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty(), "a retry is not advanced for a probe");
    at.advance(SECOND);
    let claim = probe(&at).await;
    assert_eq!((claim.attempt, claim.step), (2, 1));
    at.record(at.failing(&claim, BEHIND)).await;
    at.advance(SECOND * 60);
    let again = probe(&at).await;
    at.record(at.failing(&again, BEHIND)).await;
    let (_, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!(attempts.len(), 2);
}

async fn a_success_resumes_a_paused_endpoint_at_once(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(3).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let claim = probe(&at).await;
    at.record(at.succeeding(&claim)).await;
    assert_eq!(health(&at, &endpoint).await, None);
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 2);
    assert!(claims.iter().all(|claim| !claim.probe));
}

async fn a_delivery_to_a_paused_endpoint_is_queued_not_skipped(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    let receipt = at.publish(1).await;
    assert_eq!(receipt[0].deliveries, 1, "the delivery is queued");
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(limits::PROBE_WAIT_MIN);
    probe(&at).await;
}

async fn a_pause_outlives_an_empty_queue(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(5).await;
    let claims = at.claim(5).await.claims;
    for (index, claim) in claims.iter().enumerate() {
        if index == 4 {
            at.advance(limits::PAUSE_SPAN);
        }
        let failure = Signal::Failure(Failure::default());
        at.record(OutcomeRecord { signal: failure, ..at.failed(claim) }).await;
    }
    assert_eq!(health(&at, &endpoint).await.unwrap().state(), HealthState::Paused);
    at.publish(2).await;
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(limits::PROBE_WAIT_MIN);
    let claim = probe(&at).await;
    at.record(at.succeeding(&claim)).await;
    assert_eq!(at.claim(10).await.claims.len(), 1);
}

async fn a_pause_outlives_a_restart_with_its_next_probe(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.reopen().await;
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(limits::PROBE_WAIT_MIN);
    probe(&at).await;
}

async fn a_probe_whose_holder_died_is_followed_by_another(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    probe(&at).await;
    at.advance(limits::LEASE);
    assert_eq!(probe(&at).await.attempt, 2);
}

async fn a_returned_probe_is_followed_by_another_at_once(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let unsent = probe(&at).await;
    at.give_back(&unsent).await;
    assert_eq!(probe(&at).await.attempt, 1);
}

async fn reactivation_and_a_new_url_clear_the_failures(at: Fixture) {
    let endpoint = at.endpoint().await;
    let url = EndpointUrl::parse("https://hooks.example.com/moved").unwrap();
    for change in [
        EndpointChange { is_active: Some(true), ..EndpointChange::default() },
        EndpointChange { url: Some(url), ..EndpointChange::default() },
    ] {
        pause(&at, &endpoint).await;
        at.publish(1).await;
        let changed = at.update(&endpoint, change).await;
        assert_eq!(changed.failure_streak, None);
        assert_eq!(health(&at, &endpoint).await, None);
        let claims = at.claim(10).await.claims;
        assert_eq!(claims.len(), 1, "the due delivery is claimed");
        assert!(!claims[0].probe);
        at.record(at.delivered(&claims[0])).await;
    }
}

async fn a_simulated_delivery_does_not_use_up_the_probe(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(2).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let simulated = probe(&at).await;
    let mut record =
        at.outcome(&simulated, 200, AfterAttempt::Finish { status: DeliveryStatus::Simulated, reason: None });
    record.attempt.outcome = AttemptOutcome::Simulated;
    at.record(record).await;
    assert_ne!(probe(&at).await.delivery_id, simulated.delivery_id, "another probe follows at once");
}

async fn a_late_attempt_from_before_the_pause_adds_no_second_probe(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let slow = at.claim_of(&endpoint).await;
    pause(&at, &endpoint).await;
    at.publish(3).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let in_flight = probe(&at).await;
    at.record(at.failing(&slow, LATER)).await;
    assert!(at.claim(10).await.claims.is_empty(), "one probe at a time");
    at.give_back(&in_flight).await;
    probe(&at).await;
}

async fn a_failed_test_is_not_reported(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    at.accept_test(&endpoint).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.failed(&claim)).await;
    assert!(at.reported(&operations).await.is_empty());
}

async fn deleting_a_paused_endpoint_cancels_its_queue(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(2).await;
    at.delete(&endpoint).await;
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(LATER);
    assert!(at.claim(10).await.claims.is_empty());
    let deliveries = at.deliveries().await;
    assert_eq!(deliveries.len(), 7);
    assert!(deliveries.iter().all(|delivery| delivery.status == DeliveryStatus::Cancelled));
}

async fn a_failure_at_a_former_url_does_not_count(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    let url = EndpointUrl::parse("https://hooks.example.com/moved").unwrap();
    at.update(&endpoint, EndpointChange { url: Some(url), ..EndpointChange::default() }).await;
    at.record(at.failing(&claim, LATER)).await;
    assert_eq!(health(&at, &endpoint).await, None);
}

async fn a_busy_receiver_gets_nothing_before_its_retry_after(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let claim = at.claim_one().await;
    let failure = Failure { busy: true, retry_after: Some(SECOND * 100), ..Failure::default() };
    at.record(OutcomeRecord { signal: Signal::Failure(failure), ..at.retry(&claim, SECOND * 100) }).await;
    at.publish(1).await;
    at.advance(SECOND * 100 - Duration::from_millis(1));
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty(), "neither the refused delivery nor any other");
    assert_eq!(claimed.next_due_in, Some(Duration::from_millis(1)));
    at.advance(Duration::from_millis(1));
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 3);
    assert!(claims.iter().all(|claim| !claim.probe));
}

async fn an_endpoint_without_success_for_five_days_is_disabled(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(2).await;
    let mut failures = 5;
    while refresh(&at, &endpoint).await.is_active {
        let wait = health(&at, &endpoint).await.unwrap().pause.unwrap().next_probe_at.since(at.clock_now());
        at.advance(wait);
        let claim = probe(&at).await;
        at.record(at.failing(&claim, BEHIND)).await;
        failures += 1;
        assert!(failures < 200, "the endpoint is never disabled");
    }
    let disabled = refresh(&at, &endpoint).await;
    assert_eq!(disabled.disabled_reason, Some(DisabledReason::Failing));
    let age = at.clock_now().since(disabled.failure_streak.unwrap().first_failure_at);
    assert!(age >= limits::DISABLE_AGE && age < limits::DISABLE_AGE + limits::PROBE_WAIT_MAX, "{age:?}");
    at.advance(LATER);
    assert!(at.claim(10).await.claims.is_empty());
    let skipped = at.publish(1).await;
    assert_eq!(skipped[0].deliveries, 0);
    at.update(&endpoint, EndpointChange { is_active: Some(true), ..EndpointChange::default() }).await;
    assert_eq!(at.claim(10).await.claims.len(), 7, "the waiting deliveries are claimed");
}

async fn deliveries_behind_a_pause_expire_after_fourteen_days(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::WAITING_MAX - Duration::from_millis(1));
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 0);
    at.advance(Duration::from_millis(1));
    assert_eq!(at.store().expire_waiting(10).await.unwrap(), 1);
    let expired = at.deliveries().await.into_iter().find(|delivery| delivery.status == DeliveryStatus::Failed).unwrap();
    assert_eq!((expired.reason, expired.attempt_count), (Some(EndReason::Expired), 0));
}

async fn a_success_clears_the_stored_failures(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claims = at.claim(2).await.claims;
    at.record(at.succeeding(&claims[0])).await;
    assert_eq!(health(&at, &endpoint).await, None);
    at.record(at.failing(&claims[1], SECOND)).await;
    assert_eq!(health(&at, &endpoint).await.unwrap().failures, 1);
    at.advance(SECOND);
    let claim = at.claim_one().await;
    at.record(at.succeeding(&claim)).await;
    assert_eq!(health(&at, &endpoint).await, None);
}

async fn each_change_of_health_is_reported_once_in_order(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let claim = at.claim_of(&endpoint).await;
    at.record(at.succeeding(&claim)).await;
    at.publish(1).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    let reported = at.reported(&operations).await;
    let names: Vec<&str> = reported.iter().map(|envelope| envelope["type"].as_str().unwrap()).collect();
    // `disabling` ends the delivery as exhausted, so that is reported too.
    let expected =
        ["endpoint.failing", "endpoint.paused", "endpoint.recovered", "endpoint.disabled", "delivery.exhausted"];
    assert_eq!(names, expected);
    assert!(names.iter().all(|name| OperationalEvent::ALL.iter().any(|known| known.as_str() == *name)));
    for (envelope, health) in reported.iter().zip(["failing", "paused", "ok", "ok"]) {
        assert_eq!(envelope["data"]["endpointId"], endpoint.id.to_string());
        assert_eq!(envelope["data"]["health"], health);
        assert_eq!(envelope["workspaceId"], at.workspace.id.to_string());
    }
    assert_ne!(reported[1]["data"]["nextProbeAt"], Value::Null);
    assert_eq!(reported[3]["data"]["disabledReason"], "gone");
}

async fn an_endpoint_of_the_operations_workspace_is_not_reported(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    let reported = at.reported(&operations).await.len();
    for claim in at.claim(10).await.claims {
        at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    }
    assert_eq!(at.reported(&operations).await.len(), reported);
}

async fn operational_events_are_off_by_default(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    assert_eq!(at.store().list_workspaces(Fixture::page()).await.unwrap().items.len(), 1);
    assert_eq!(at.deliveries().await.len(), 5);
}

async fn an_exhausted_delivery_is_reported(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.failed(&claim)).await;
    let reported = at.reported(&operations).await;
    assert_eq!(reported.len(), 1);
    assert_eq!(reported[0]["type"], "delivery.exhausted");
    assert_eq!(reported[0]["data"]["deliveryId"], claim.delivery_id.to_string());
    assert_eq!(reported[0]["data"]["eventId"], claim.event_id.to_string());
    assert_eq!((&reported[0]["data"]["attempts"], &reported[0]["data"]["status"]), (&1.into(), &"failed".into()));
}
