//! How endpoints do: paused, probed, resumed, switched off, and what the operator is told of it.

use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::{DisabledReason, Endpoint, EndpointChange, EndpointUrl};
use postrider_domain::endpoint_health::{Failure, FailureStreak, HealthState, Signal};
use postrider_domain::event::NewEvent;
use postrider_domain::limits;
use postrider_store::{AfterAttempt, Claim, OutcomeRecord, Recorded};
use serde_json::Value;

use crate::store::fixture::{Fixture, OPERATIONAL_EVENTS};

on_each_backend! {
    five_failures_over_ten_seconds_pause_an_endpoint_and_keep_its_queue,
    a_paused_endpoint_gets_one_probe_at_a_time_and_each_time_another_delivery,
    a_probe_waits_until_something_is_due,
    a_success_resumes_a_paused_endpoint_at_once,
    what_is_published_to_a_paused_endpoint_waits_with_the_others,
    a_pause_outlives_an_empty_queue,
    a_pause_outlives_a_restart_with_its_next_probe,
    a_probe_whose_holder_died_is_followed_by_another,
    a_probe_that_was_given_back_is_followed_by_another_at_once,
    switching_on_and_another_url_forgive,
    what_waits_for_a_paused_endpoint_is_cancelled_with_it,
    what_a_test_key_published_uses_up_no_probe,
    an_attempt_from_before_the_pause_sets_no_second_probe_off,
    a_test_that_fails_is_nothing_to_be_told_of,
    what_was_sent_to_another_url_says_nothing,
    a_busy_receiver_is_left_alone_as_long_as_it_asked_and_not_longer,
    an_endpoint_without_a_success_for_five_days_is_switched_off,
    what_waits_behind_a_paused_endpoint_expires_after_fourteen_days,
    a_success_writes_no_streak_and_ends_the_one_before,
    the_operator_is_told_of_each_turn_once_in_order,
    the_operators_own_endpoint_is_not_reported_on,
    without_an_operator_nobody_is_told,
    an_exhausted_delivery_is_told_of,
}

const SECOND: Duration = Duration::from_secs(1);
/// Where a failed probe goes.
const BEHIND: Duration = Duration::from_millis(1);
const LATER: Duration = Duration::from_secs(7200);

/// Brings the endpoint to its pause: five failures over ten seconds, of five deliveries that wait two hours then.
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

async fn shown(at: &Fixture, endpoint: &Endpoint) -> Endpoint {
    at.store().find_endpoint(at.workspace.key, endpoint.id).await.unwrap().unwrap()
}

async fn failure_streak(at: &Fixture, endpoint: &Endpoint) -> Option<FailureStreak> {
    shown(at, endpoint).await.failure_streak
}

pub async fn probe(at: &Fixture) -> Claim {
    let mut claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 1, "one probe at a time");
    let claim = claims.remove(0);
    assert!(claim.probe);
    claim
}

async fn five_failures_over_ten_seconds_pause_an_endpoint_and_keep_its_queue(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    let failure_streak = failure_streak(&at, &endpoint).await.unwrap();
    assert_eq!((failure_streak.state(), failure_streak.failures), (HealthState::Paused, 5));
    assert_eq!(failure_streak.since(), Some(at.clock_now()));
    assert_eq!(failure_streak.pause.unwrap().next_probe_at, at.clock_now().plus(limits::PROBE_WAIT_MIN));
    assert!(shown(&at, &endpoint).await.is_active, "pausing is not disabling");
    at.publish(1).await;
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty());
    assert_eq!(claimed.next_due_in, Some(limits::PROBE_WAIT_MIN));
    assert!(at.deliveries().await.iter().all(|delivery| delivery.status == DeliveryStatus::Pending));
}

async fn a_paused_endpoint_gets_one_probe_at_a_time_and_each_time_another_delivery(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(3).await;
    let mut probed = Vec::new();
    for wait in [30, 60, 120, 240] {
        at.advance(SECOND * wait - Duration::from_millis(1));
        assert!(at.claim(10).await.claims.is_empty(), "before the probe's time");
        at.advance(Duration::from_millis(1));
        let claim = probe(&at).await;
        assert!(at.claim(10).await.claims.is_empty(), "while the probe is under way");
        probed.push(claim.delivery_id);
        at.record(at.failing(&claim, BEHIND)).await;
    }
    assert_eq!(probed[0], probed[3], "after the last one the first again");
    probed.truncate(3);
    probed.sort_by_key(|id| id.key());
    probed.dedup();
    assert_eq!(probed.len(), 3, "each time another");
    assert_eq!(failure_streak(&at, &endpoint).await.unwrap().pause.unwrap().failed_probes, 4);
    let (_, attempts) = at.delivery(probed[0]).await;
    assert!(!attempts.is_empty(), "a probe is an attempt like others");
}

async fn a_probe_waits_until_something_is_due(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.advance(LATER - limits::PAUSE_SPAN - SECOND);
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty(), "a step that has not fallen due is not brought forward");
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
    assert_eq!(failure_streak(&at, &endpoint).await, None);
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 2);
    assert!(claims.iter().all(|claim| !claim.probe));
}

async fn what_is_published_to_a_paused_endpoint_waits_with_the_others(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    let receipt = at.publish(1).await;
    assert_eq!(receipt[0].deliveries, 1, "it is not skipped");
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
    assert_eq!(failure_streak(&at, &endpoint).await.unwrap().state(), HealthState::Paused);
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

async fn a_probe_that_was_given_back_is_followed_by_another_at_once(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let unsent = probe(&at).await;
    at.give_back(&unsent).await;
    assert_eq!(probe(&at).await.attempt, 1);
}

async fn switching_on_and_another_url_forgive(at: Fixture) {
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
        assert_eq!(failure_streak(&at, &endpoint).await, None);
        let claims = at.claim(10).await.claims;
        assert_eq!(claims.len(), 1, "what is due goes on");
        assert!(!claims[0].probe);
        at.record(at.delivered(&claims[0])).await;
    }
}

async fn what_a_test_key_published_uses_up_no_probe(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.accept(vec![NewEvent { mode: Mode::Test, ..at.event() }]).await;
    at.advance(Duration::from_millis(1));
    at.publish(1).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let simulated = probe(&at).await;
    assert_eq!(simulated.mode, Mode::Test);
    let mut record =
        at.outcome(&simulated, 200, AfterAttempt::Finish { status: DeliveryStatus::Simulated, reason: None });
    record.attempt.outcome = AttemptOutcome::Simulated;
    at.record(record).await;
    assert_eq!(probe(&at).await.mode, Mode::Live, "the real probe goes at once");
}

async fn an_attempt_from_before_the_pause_sets_no_second_probe_off(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let slow = at.claim_of(&endpoint).await;
    pause(&at, &endpoint).await;
    at.publish(3).await;
    at.advance(limits::PROBE_WAIT_MIN);
    let under_way = probe(&at).await;
    at.record(at.failing(&slow, LATER)).await;
    assert!(at.claim(10).await.claims.is_empty(), "one probe at a time");
    at.give_back(&under_way).await;
    probe(&at).await;
}

async fn a_test_that_fails_is_nothing_to_be_told_of(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    at.accept_test(&endpoint).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.failed(&claim)).await;
    assert!(at.told(&operations).await.is_empty());
}

async fn what_waits_for_a_paused_endpoint_is_cancelled_with_it(at: Fixture) {
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

async fn what_was_sent_to_another_url_says_nothing(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    let url = EndpointUrl::parse("https://hooks.example.com/moved").unwrap();
    at.update(&endpoint, EndpointChange { url: Some(url), ..EndpointChange::default() }).await;
    at.record(at.failing(&claim, LATER)).await;
    assert_eq!(failure_streak(&at, &endpoint).await, None);
}

async fn a_busy_receiver_is_left_alone_as_long_as_it_asked_and_not_longer(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let claim = at.claim_one().await;
    let failure = Failure { busy: true, retry_after: Some(SECOND * 100), ..Failure::default() };
    at.record(OutcomeRecord { signal: Signal::Failure(failure), ..at.retry(&claim, SECOND * 100) }).await;
    at.publish(1).await;
    at.advance(SECOND * 100 - Duration::from_millis(1));
    let claimed = at.claim(10).await;
    assert!(claimed.claims.is_empty(), "neither what it refused nor anything else");
    assert_eq!(claimed.next_due_in, Some(Duration::from_millis(1)));
    at.advance(Duration::from_millis(1));
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.len(), 3);
    assert!(claims.iter().all(|claim| !claim.probe));
}

async fn an_endpoint_without_a_success_for_five_days_is_switched_off(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    at.publish(2).await;
    let mut failures = 5;
    while shown(&at, &endpoint).await.is_active {
        let wait = failure_streak(&at, &endpoint).await.unwrap().pause.unwrap().next_probe_at.since(at.clock_now());
        at.advance(wait);
        let claim = probe(&at).await;
        at.record(at.failing(&claim, BEHIND)).await;
        failures += 1;
        assert!(failures < 200, "it is never switched off");
    }
    let off = shown(&at, &endpoint).await;
    assert_eq!(off.disabled_reason, Some(DisabledReason::Failing));
    let age = at.clock_now().since(off.failure_streak.unwrap().first_failure_at);
    assert!(age >= limits::DISABLE_AGE && age < limits::DISABLE_AGE + limits::PROBE_WAIT_MAX, "{age:?}");
    at.advance(LATER);
    assert!(at.claim(10).await.claims.is_empty());
    let skipped = at.publish(1).await;
    assert_eq!(skipped[0].deliveries, 0);
    at.update(&endpoint, EndpointChange { is_active: Some(true), ..EndpointChange::default() }).await;
    assert_eq!(at.claim(10).await.claims.len(), 7, "what waited goes on");
}

async fn what_waits_behind_a_paused_endpoint_expires_after_fourteen_days(at: Fixture) {
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

async fn a_success_writes_no_streak_and_ends_the_one_before(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claims = at.claim(2).await.claims;
    at.record(at.succeeding(&claims[0])).await;
    assert_eq!(failure_streak(&at, &endpoint).await, None);
    at.record(at.failing(&claims[1], SECOND)).await;
    assert_eq!(failure_streak(&at, &endpoint).await.unwrap().failures, 1);
    at.advance(SECOND);
    let claim = at.claim_one().await;
    at.record(at.succeeding(&claim)).await;
    assert_eq!(failure_streak(&at, &endpoint).await, None);
}

async fn the_operator_is_told_of_each_turn_once_in_order(at: Fixture) {
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
    let told = at.told(&operations).await;
    let names: Vec<&str> = told.iter().map(|envelope| envelope["type"].as_str().unwrap()).collect();
    // The delivery that ended with the 410 was exhausted as far as this fixture is concerned.
    let expected =
        ["endpoint.failing", "endpoint.paused", "endpoint.recovered", "endpoint.disabled", "delivery.exhausted"];
    assert_eq!(names, expected);
    assert!(names.iter().all(|name| OPERATIONAL_EVENTS.contains(name)));
    for (envelope, health) in told.iter().zip(["failing", "paused", "ok", "ok"]) {
        assert_eq!(envelope["data"]["endpointId"], endpoint.id.to_string());
        assert_eq!(envelope["data"]["health"], health);
        assert_eq!(envelope["workspaceId"], at.workspace.id.to_string());
    }
    assert_ne!(told[1]["data"]["nextProbeAt"], Value::Null);
    assert_eq!(told[3]["data"]["disabledReason"], "gone");
}

async fn the_operators_own_endpoint_is_not_reported_on(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    let told = at.told(&operations).await.len();
    for claim in at.claim(10).await.claims {
        at.record(at.disabling(&claim, DisabledReason::Gone)).await;
    }
    assert_eq!(at.told(&operations).await.len(), told);
}

async fn without_an_operator_nobody_is_told(at: Fixture) {
    let endpoint = at.endpoint().await;
    pause(&at, &endpoint).await;
    assert_eq!(at.store().list_workspaces(Fixture::page()).await.unwrap().items.len(), 1);
    assert_eq!(at.deliveries().await.len(), 5);
}

async fn an_exhausted_delivery_is_told_of(at: Fixture) {
    let operations = at.operations().await;
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.failed(&claim)).await;
    let told = at.told(&operations).await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["type"], "delivery.exhausted");
    assert_eq!(told[0]["data"]["deliveryId"], claim.delivery_id.to_string());
    assert_eq!(told[0]["data"]["eventId"], claim.event_id.to_string());
    assert_eq!((&told[0]["data"]["attempts"], &told[0]["data"]["status"]), (&1.into(), &"failed".into()));
}
