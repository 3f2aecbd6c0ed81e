//! Outcomes: the result that the holder of a claim records, and its consequences.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases};
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint::DisabledReason;
use postrider_domain::payload::PayloadState;
use postrider_domain::sent_request::SentRequest;
use postrider_store::{AfterAttempt, EndpointTarget, OutcomeRecord, Recorded};

use crate::store::fixture::{Fixture, outline};

on_each_backend! {
    a_finished_delivery_leaves_the_queue_and_stays_logged,
    an_attempt_reads_back_as_recorded,
    a_delivery_keeps_its_end_reason,
    a_retry_is_not_claimed_before_it_is_due,
    a_retry_uses_a_step_of_the_schedule_only_if_asked,
    each_outcome_of_a_group_is_recorded_independently,
    an_outcome_survives_a_restart,
    an_outcome_can_disable_its_endpoint_and_hold_its_queue,
    an_endpoint_with_a_new_url_is_not_disabled,
    the_first_disabled_reason_stays,
    an_attempt_in_flight_is_recorded_after_its_endpoint_is_off,
}

async fn a_finished_delivery_leaves_the_queue_and_stays_logged(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.advance(Duration::from_secs(2));
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Delivered, None));
    assert_eq!((delivery.completed_at, delivery.next_attempt_at), (Some(at.clock_now()), None));
    assert_eq!(delivery.attempt_count, 1);
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Delivered)]);
    at.advance(Duration::from_secs(86_400));
    assert!(at.claim(10).await.claims.is_empty());
}

async fn an_attempt_reads_back_as_recorded(at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let full = at.claim_one().await;
    let bare = at.claim_one().await;
    let answered = Attempt {
        number: 1,
        started_at: at.clock_now(),
        duration_ms: 14_999,
        outcome: AttemptOutcome::HttpError,
        request: Some(SentRequest::from_bytes(vec![0, 255, 7])),
        request_headers: vec![("webhook-id".to_owned(), "evt_1".to_owned())],
        remote_address: Some(IpAddr::from([192, 0, 2, 1])),
        response_status: Some(500),
        response_headers: vec![("x-a".to_owned(), "1\u{e9}".to_owned()), ("x-a".to_owned(), String::new())],
        response_body: Some(Bytes::from_static(&[0, 255, b'\n'])),
        error: None,
        next_attempt_at: None,
        phases: Some(AttemptPhases {
            dns_ms: None,
            connect_ms: Some(0),
            tls_ms: Some(1),
            first_byte_ms: Some(u32::MAX),
            body_ms: Some(3),
            connection_reused: true,
        }),
        payload: PayloadState::Kept,
    };
    let unanswered = Attempt {
        outcome: AttemptOutcome::ConnectFailed,
        request: None,
        request_headers: Vec::new(),
        remote_address: Some(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1])),
        response_status: None,
        response_headers: Vec::new(),
        response_body: None,
        error: Some("connection refused".to_owned()),
        phases: None,
        ..answered.clone()
    };
    for (claim, attempt) in [(&full, answered), (&bare, unanswered)] {
        at.record(OutcomeRecord { attempt: attempt.clone(), ..at.failed(claim) }).await;
        assert_eq!(at.delivery(claim.delivery_id).await.1, [attempt]);
    }
}

async fn a_delivery_keeps_its_end_reason(at: Fixture) {
    at.endpoint().await;
    let ends = [
        (DeliveryStatus::Failed, Some(EndReason::Exhausted)),
        (DeliveryStatus::Cancelled, Some(EndReason::EndpointDeleted)),
        (DeliveryStatus::Simulated, None),
    ];
    at.publish(ends.len()).await;
    for (status, reason) in ends {
        let claim = at.claim_one().await;
        at.record(at.outcome(&claim, 500, AfterAttempt::Finish { status, reason })).await;
        let (delivery, _) = at.delivery(claim.delivery_id).await;
        assert_eq!((delivery.status, delivery.reason), (status, reason));
    }
}

async fn a_retry_is_not_claimed_before_it_is_due(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    let first = at.claim_one().await;
    at.advance(Duration::from_secs(1));
    let wait = Duration::from_secs(5);
    assert_eq!(at.record(at.retry(&first, wait)).await, Recorded::Done);
    let due_at = at.clock_now().plus(wait);
    let (delivery, attempts) = at.delivery(first.delivery_id).await;
    assert_eq!((delivery.status, delivery.next_attempt_at), (DeliveryStatus::Pending, Some(due_at)));
    assert_eq!((delivery.attempt_count, delivery.completed_at), (1, None));
    assert_eq!(attempts[0].next_attempt_at, Some(due_at));
    at.advance(wait - Duration::from_millis(1));
    assert!(at.claim(10).await.claims.is_empty());
    at.advance(Duration::from_millis(1));
    assert_eq!(at.claim_one().await.attempt, 2);
}

async fn a_retry_uses_a_step_of_the_schedule_only_if_asked(at: Fixture) {
    at.endpoint().await;
    at.publish(1).await;
    for (uses_step, step_before) in [(true, 0), (false, 1), (false, 1), (true, 1), (true, 2)] {
        let claim = at.claim_one().await;
        assert_eq!(claim.step, step_before);
        at.record(at.outcome(&claim, 503, AfterAttempt::Retry { after: Duration::ZERO, uses_step })).await;
    }
    let last = at.claim_one().await;
    assert_eq!((last.step, last.attempt), (3, 6));
}

async fn each_outcome_of_a_group_is_recorded_independently(at: Fixture) {
    at.endpoint().await;
    at.publish(3).await;
    let claims = at.claim(3).await.claims;
    at.give_back(&claims[1]).await;
    let outcomes = claims.iter().map(|claim| at.delivered(claim)).collect();
    let recorded = at.store().record_outcomes_if_claimed(outcomes).await.unwrap();
    assert_eq!(recorded, [Recorded::Done, Recorded::ClaimLost, Recorded::Done]);
    assert_eq!(at.store().record_outcomes_if_claimed(Vec::new()).await.unwrap(), []);
    assert_eq!(at.claim_one().await.delivery_id, claims[1].delivery_id);
}

async fn an_outcome_survives_a_restart(mut at: Fixture) {
    at.endpoint().await;
    at.publish(2).await;
    let (done, again) = (at.claim_one().await, at.claim_one().await);
    at.record(at.delivered(&done)).await;
    at.record(at.retry(&again, Duration::from_secs(30))).await;
    at.advance(Duration::from_secs(29));
    at.reopen().await;
    assert!(at.claim(10).await.claims.is_empty(), "a waiting retry is not a lost claim");
    at.advance(Duration::from_secs(1));
    let claim = at.claim_one().await;
    assert_eq!((claim.delivery_id, claim.attempt, claim.step), (again.delivery_id, 2, 1));
    assert_eq!(at.delivery(done.delivery_id).await.0.status, DeliveryStatus::Delivered);
}

async fn an_outcome_can_disable_its_endpoint_and_hold_its_queue(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(3).await;
    at.advance(Duration::from_secs(1));
    let claim = at.disable_by_outcome(DisabledReason::Gone).await;
    let disabled = at.store().find_endpoint(at.tenant(), endpoint.id).await.unwrap().unwrap();
    assert_eq!((disabled.is_active, disabled.disabled_reason), (false, Some(DisabledReason::Gone)));
    assert_eq!((disabled.created_at, disabled.updated_at), (endpoint.created_at, at.clock_now()));
    assert_eq!(at.delivery(claim.delivery_id).await.0.status, DeliveryStatus::Failed);
    at.advance(Duration::from_secs(86_400));
    for _ in 0..2 {
        let claimed = at.claim(10).await;
        assert!(claimed.claims.is_empty(), "deliveries of an inactive endpoint are not claimed");
        assert_eq!(claimed.next_due_in, None, "and are not reported as due");
        at.reopen().await;
    }
    let waiting = at.deliveries().await.into_iter().filter(|delivery| delivery.status == DeliveryStatus::Pending);
    assert_eq!(waiting.count(), 2);
}

async fn an_endpoint_with_a_new_url_is_not_disabled(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claim = at.claim_one().await;
    let called = EndpointTarget {
        workspace_key: claim.endpoint.workspace_key,
        workspace_id: claim.endpoint.workspace_id,
        endpoint_key: claim.endpoint.endpoint_key,
        id: claim.endpoint.id,
        project: claim.endpoint.project,
        url: "https://hooks.example.com/before-it-moved".to_owned(),
        secret_version: claim.endpoint.secret_version,
        oldest_secret_version: claim.endpoint.oldest_secret_version,
        options: Arc::clone(&claim.endpoint.options),
    };
    let outcome = OutcomeRecord { endpoint: Arc::new(called), ..at.disabling(&claim, DisabledReason::Gone) };
    assert_eq!(at.record(outcome).await, Recorded::Done, "the attempt is recorded");
    let endpoint = at.store().find_endpoint(at.tenant(), endpoint.id).await.unwrap().unwrap();
    assert_eq!((endpoint.is_active, endpoint.disabled_reason), (true, None));
    assert_eq!(at.claim(10).await.claims.len(), 1);
}

async fn the_first_disabled_reason_stays(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let claims = at.claim(2).await.claims;
    for (claim, reason) in claims.iter().zip([DisabledReason::Failing, DisabledReason::Gone]) {
        at.record(at.disabling(claim, reason)).await;
    }
    let endpoint = at.store().find_endpoint(at.tenant(), endpoint.id).await.unwrap().unwrap();
    assert_eq!(endpoint.disabled_reason, Some(DisabledReason::Failing));
}

async fn an_attempt_in_flight_is_recorded_after_its_endpoint_is_off(at: Fixture) {
    at.endpoint().await;
    at.publish(4).await;
    let claims = at.claim(4).await.claims;
    at.record(at.disabling(&claims[0], DisabledReason::Gone)).await;
    assert_eq!(at.record(at.delivered(&claims[1])).await, Recorded::Done);
    assert_eq!(at.record(at.retry(&claims[2], Duration::from_secs(5))).await, Recorded::Done);
    at.give_back(&claims[3]).await;
    at.advance(Duration::from_secs(60));
    assert!(at.claim(10).await.claims.is_empty(), "a retried or returned delivery is held too");
}
