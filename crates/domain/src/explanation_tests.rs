//! Each branch of an explanation.

use std::sync::Arc;

use super::*;
use crate::access::Mode;
use crate::endpoint_options::EndpointOptions;
use crate::event_type::EventTypeName;
use crate::id::{EndpointId, EventId, RowKey, StoreTag};
use crate::payload::PayloadState;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_778_846_400_000 + seconds * 1000)
}

fn id(key: i64) -> DeliveryId {
    DeliveryId::new(RowKey::from_i64(key), StoreTag::from_u32(7))
}

fn delivery(status: DeliveryStatus, reason: Option<EndReason>, queued: Option<Queued>) -> Delivery {
    Delivery {
        id: id(1),
        event_id: EventId::new(RowKey::from_i64(2), StoreTag::from_u32(7)),
        event_type: EventTypeName::from_stored("post.created"),
        endpoint_id: "whe_a1b2c3d4e5f6g7h8".parse::<EndpointId>().unwrap(),
        project_id: None,
        external_id: None,
        mode: Mode::Live,
        status,
        reason,
        cause: DeliveryCause::Event,
        retry_of: None,
        attempt_count: 0,
        next_attempt_at: None,
        completed_at: None,
        is_blocking: false,
        queued,
        last_outcome: None,
        last_response_status: None,
        own_schedule: None,
    }
}

fn endpoint() -> Endpoint {
    Endpoint {
        key: RowKey::from_i64(3),
        id: "whe_a1b2c3d4e5f6g7h8".parse().unwrap(),
        url: "https://hooks.example/".to_owned(),
        listener: None,
        name: "A receiver".to_owned(),
        events: Vec::new(),
        is_active: true,
        disabled_reason: None,
        project_id: None,
        secret_last4: "abcd".to_owned(),
        created_at: at(0),
        updated_at: at(0),
        failure_streak: None,
        options: Arc::new(EndpointOptions::default()),
        mode: Mode::Live,
    }
}

fn due(seconds: i64) -> Queued {
    Queued {
        due_at: Some(at(seconds)),
        is_claimed: false,
        step: 0,
        is_held: false,
        held_since: None,
        paused_since: None,
        not_before: None,
        order_head: None,
    }
}

fn attempt(outcome: AttemptOutcome, retry_after: Option<&str>) -> Attempt {
    Attempt {
        number: 1,
        started_at: at(0),
        duration_ms: 1000,
        outcome,
        request: None,
        request_headers: Vec::new(),
        remote_address: None,
        response_status: None,
        response_headers: retry_after.map(|value| ("retry-after".to_owned(), value.to_owned())).into_iter().collect(),
        response_body: None,
        error: None,
        next_attempt_at: None,
        phases: None,
        payload: PayloadState::Kept,
    }
}

fn explained(delivery: &Delivery, attempts: &[Attempt], endpoint: Option<&Endpoint>) -> Explanation {
    explain(Situation { delivery, attempts, endpoint, schedule: &RetrySchedule::default() })
}

fn pending(queued: Queued, attempts: &[Attempt]) -> Explanation {
    explained(&delivery(DeliveryStatus::Pending, None, Some(queued)), attempts, Some(&endpoint()))
}

fn whole_schedule() -> Duration {
    Duration::from_secs(RetrySchedule::default().seconds().sum())
}

#[test]
fn a_first_attempt_comes_at_once_and_the_whole_schedule_is_left() {
    let found = pending(due(0), &[]);
    assert_eq!((found.cause, found.next, found.next_at), (StateCause::NotAttempted, NextStep::Attempt, Some(at(0))));
    assert_eq!(found.why_then, Some(WhyThen::AtOnce));
    assert_eq!(found.gives_up_at, Some(at(0).plus(whole_schedule())));
}

#[test]
fn a_retry_names_its_step_of_the_schedule() {
    let found = pending(Queued { step: 2, ..due(301) }, &[attempt(AttemptOutcome::HttpError, None)]);
    assert_eq!((found.cause, found.next_at), (StateCause::AttemptFailed, Some(at(301))));
    assert_eq!(found.why_then, Some(WhyThen::Schedule { step: 2, steps: 9 }));
    let left = whole_schedule() - Duration::from_secs(305);
    assert_eq!(found.gives_up_at, Some(at(301).plus(left)));
}

#[test]
fn an_endpoints_own_schedule_counts() {
    let mut own = endpoint();
    let retry_schedule = Some(RetrySchedule::from_seconds(&[60, 60]).unwrap());
    own.options = Arc::new(EndpointOptions { retry_schedule, ..EndpointOptions::default() });
    let queued = delivery(DeliveryStatus::Pending, None, Some(Queued { step: 1, ..due(60) }));
    let found = explained(&queued, &[attempt(AttemptOutcome::Timeout, None)], Some(&own));
    assert_eq!(found.why_then, Some(WhyThen::Schedule { step: 1, steps: 2 }));
    assert_eq!(found.gives_up_at, Some(at(120)));
}

#[test]
fn a_retry_after_longer_than_the_step_is_the_reason() {
    let asked = attempt(AttemptOutcome::HttpError, Some("120"));
    let step_one = Queued { step: 1, ..due(121) };
    assert_eq!(pending(step_one, std::slice::from_ref(&asked)).why_then, Some(WhyThen::RetryAfter));
    let date = attempt(AttemptOutcome::HttpError, Some("Fri, 15 May 2026 12:02:01 GMT"));
    assert_eq!(pending(step_one, &[date]).why_then, Some(WhyThen::RetryAfter));
    // The step was longer than what the receiver asked for.
    let step_two = Queued { step: 2, ..due(301) };
    assert_eq!(pending(step_two, &[asked]).why_then, Some(WhyThen::Schedule { step: 2, steps: 9 }));
}

#[test]
fn a_fault_of_ours_uses_no_step() {
    for outcome in [AttemptOutcome::InternalError, AttemptOutcome::DnsUnavailable, AttemptOutcome::ProxyFailed] {
        let found = pending(due(30), &[attempt(outcome, None)]);
        assert_eq!((found.cause, found.why_then), (StateCause::SenderFault, Some(WhyThen::SenderFault)));
        assert_eq!(found.gives_up_at, Some(at(30).plus(whole_schedule())));
    }
    let lost = pending(due(0), &[attempt(AttemptOutcome::Abandoned, None)]);
    assert_eq!((lost.cause, lost.why_then), (StateCause::SenderFault, Some(WhyThen::AtOnce)));
}

#[test]
fn an_attempt_under_way_has_no_next_one_yet() {
    let found = pending(Queued { is_claimed: true, ..due(60) }, &[]);
    assert_eq!((found.cause, found.next), (StateCause::AttemptUnderWay, NextStep::Outcome));
    assert_eq!((found.next_at, found.why_then, found.gives_up_at), (None, None, None));
}

#[test]
fn a_paused_endpoint_names_its_next_probe_and_its_end() {
    let paused = Queued { paused_since: Some(at(10)), not_before: Some(at(40)), step: 1, ..due(5) };
    let found = pending(paused, &[attempt(AttemptOutcome::Timeout, None)]);
    assert_eq!((found.cause, found.next), (StateCause::EndpointPaused, NextStep::Probe));
    assert_eq!((found.next_at, found.why_then), (Some(at(40)), Some(WhyThen::Paused)));
    assert_eq!(found.gives_up_at, Some(at(10).plus(14 * DAY)));
    assert_eq!(paused.next_attempt_at(), None);
}

#[test]
fn an_overloaded_endpoint_gets_a_break() {
    let slowed = Queued { not_before: Some(at(90)), step: 1, ..due(5) };
    let found = pending(slowed, &[attempt(AttemptOutcome::HttpError, None)]);
    assert_eq!((found.next_at, found.why_then), (Some(at(90)), Some(WhyThen::Overloaded)));
}

#[test]
fn an_inactive_endpoint_is_waited_for_with_its_reason() {
    let reasons = [
        (None, StateCause::EndpointOff),
        (Some(DisabledReason::Gone), StateCause::EndpointGone),
        (Some(DisabledReason::Failing), StateCause::EndpointFailing),
        (Some(DisabledReason::SsrfBlocked), StateCause::EndpointSsrfBlocked),
    ];
    for (disabled_reason, cause) in reasons {
        let off = Endpoint { is_active: false, disabled_reason, ..endpoint() };
        // Both: being off counts.
        let held = Queued {
            is_held: true,
            held_since: Some(at(7)),
            paused_since: Some(at(1)),
            not_before: Some(at(9)),
            ..due(60)
        };
        let found = explained(&delivery(DeliveryStatus::Pending, None, Some(held)), &[], Some(&off));
        assert_eq!((found.cause, found.next, found.next_at), (cause, NextStep::Activation, None));
        assert_eq!(found.gives_up_at, Some(at(60).plus(14 * DAY)), "the later of the two instants counts");
        assert_eq!(held.next_attempt_at(), None);
    }
}

#[test]
fn behind_the_head_of_an_order_the_head_is_named() {
    let found = pending(Queued { due_at: None, order_head: Some(id(9)), ..due(0) }, &[]);
    assert_eq!((found.cause, found.next), (StateCause::BehindHead, NextStep::HeadEnds));
    assert_eq!((found.waits_for, found.next_at), (Some(id(9)), None));
    let head = pending(Queued { order_head: Some(id(1)), ..due(0) }, &[]);
    assert_eq!((head.cause, head.waits_for), (StateCause::NotAttempted, None));
}

#[test]
fn a_deleted_endpoint_cancels_what_waits() {
    let queued = delivery(DeliveryStatus::Pending, None, Some(due(60)));
    let found = explained(&queued, &[], None);
    assert_eq!((found.cause, found.next), (StateCause::EndpointDeleted, NextStep::Cancellation));
}

#[test]
fn a_test_has_no_schedule() {
    let test = Delivery { cause: DeliveryCause::Test, ..delivery(DeliveryStatus::Pending, None, Some(due(0))) };
    assert_eq!(explained(&test, &[], Some(&endpoint())).gives_up_at, Some(at(0)));
}

#[test]
fn what_has_ended_has_its_reason_and_nothing_next() {
    use DeliveryStatus::{Cancelled, Delivered, Failed, Simulated, Skipped};
    let ends = [
        (Delivered, None, StateCause::Received),
        (Simulated, None, StateCause::Simulated),
        (Failed, Some(EndReason::Exhausted), StateCause::Ended(EndReason::Exhausted)),
        (Failed, Some(EndReason::Expired), StateCause::Ended(EndReason::Expired)),
        (Skipped, Some(EndReason::Inactive), StateCause::Ended(EndReason::Inactive)),
        (Skipped, Some(EndReason::DisabledGone), StateCause::Ended(EndReason::DisabledGone)),
        (Cancelled, Some(EndReason::EndpointDeleted), StateCause::Ended(EndReason::EndpointDeleted)),
        (Cancelled, Some(EndReason::EventGone), StateCause::Ended(EndReason::EventGone)),
        (Failed, None, StateCause::Unknown),
    ];
    for (status, reason, cause) in ends {
        let found = explained(&delivery(status, reason, None), &[], None);
        assert_eq!(found, stands(&delivery(status, reason, None), cause, NextStep::Nothing));
    }
}

#[test]
fn a_head_that_failed_asks_for_a_decision() {
    let failed = delivery(DeliveryStatus::Failed, Some(EndReason::Exhausted), None);
    let found = explained(&Delivery { is_blocking: true, ..failed }, &[], Some(&endpoint()));
    assert_eq!((found.cause, found.next), (StateCause::BlocksOrder(EndReason::Exhausted), NextStep::SkipOrRetry));
}
