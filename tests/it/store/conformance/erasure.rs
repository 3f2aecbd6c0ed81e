//! Erasures: what they take, what stays, what becomes of pending deliveries, and how they progress.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::audit::AuditAction;
use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus, EndReason};
use postrider_domain::endpoint::{OpaqueId, ProjectId};
use postrider_domain::erasure::{Erasure, ErasureStatus, ErasureTarget, PendingDeliveries};
use postrider_domain::event::{EventDetail, EventReceipt, NewEvent};
use postrider_domain::id::{EndpointId, EventId, StoreTag};
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange};
use postrider_domain::tenant::Tenant;
use postrider_store::{AcceptError, Claim, EraseError, NewEndpoint, NewErasure, Recorded, RequeueError, Written};

use crate::store::fixture::{EVENT_TYPE, Fixture, done, outline, tenant_of, write};
use crate::support::wait::eventually;

on_each_backend! {
    an_erased_event_keeps_its_rows_without_content,
    pending_deliveries_are_cancelled,
    an_erasure_can_wait_for_pending_deliveries,
    the_outcome_of_an_attempt_under_way_is_not_recorded,
    an_event_answers_its_erasure_again,
    a_later_cancel_ends_the_wait,
    an_erased_event_is_never_sent_again,
    the_events_of_a_project_up_to_the_request_are_erased,
    an_endpoint_loses_what_was_sent_and_answered,
    remembered_answers_that_name_an_erased_event_go,
    an_erasure_is_visible_to_its_tenant_only,
    an_external_id_may_be_published_again,
    an_order_goes_on_past_what_was_erased,
    an_erasure_goes_on_after_a_restart,
    an_erasure_makes_room_in_a_full_workspace,
    erasures_that_have_not_ended_are_limited,
}

const CANCEL: PendingDeliveries = PendingDeliveries::Cancel;
const FINISH: PendingDeliveries = PendingDeliveries::Finish;

pub fn project(name: &str) -> ErasureTarget {
    ErasureTarget::Project(ProjectId::parse(name).unwrap())
}

pub async fn try_erase(
    at: &Fixture,
    tenant: Tenant,
    target: ErasureTarget,
    pending: PendingDeliveries,
) -> Result<Erasure, EraseError> {
    at.store().create_erasure(write(tenant), NewErasure { target, pending }).await.map(done)
}

pub async fn erase(at: &Fixture, target: ErasureTarget, pending: PendingDeliveries) -> Erasure {
    try_erase(at, at.tenant(), target, pending).await.unwrap()
}

async fn erase_event(at: &Fixture, id: EventId, pending: PendingDeliveries) -> Erasure {
    erase(at, ErasureTarget::Event(id), pending).await
}

/// Takes steps until none of the erasures advances.
async fn advance(at: &Fixture) {
    while at.store().advance_erasures().await.unwrap().is_some_and(|done| done > 0) {}
}

/// Takes steps until all erasures have ended.
pub async fn run(at: &Fixture) {
    let ended = || async {
        loop {
            match at.store().advance_erasures().await.unwrap() {
                None => return Some(()),
                Some(0) => return None,
                Some(_) => {}
            }
        }
    };
    eventually("the end of the erasures", ended).await;
}

pub async fn refresh(at: &Fixture, erasure: &Erasure) -> Erasure {
    at.store().find_erasure(Some(at.tenant()), erasure.id).await.unwrap().expect("the erasure was created")
}

async fn event(at: &Fixture, id: EventId) -> EventDetail {
    at.store().find_event(at.tenant(), id).await.unwrap().expect("the event is in the log")
}

/// Publishes an event with an `externalId`, and delivers it.
async fn delivered(at: &Fixture) -> (EventId, Claim) {
    let id = at.accept(vec![at.event_with("customer-7", 1)]).await.remove(0).id;
    let claim = at.claim_one().await;
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    (id, claim)
}

async fn an_erased_event_keeps_its_rows_without_content(at: Fixture) {
    at.endpoint().await;
    let (id, claim) = delivered(&at).await;
    let other = at.publish(1).await.remove(0).id;
    let erasure = erase_event(&at, id, CANCEL).await;
    assert_eq!((erasure.status, erasure.target.clone()), (ErasureStatus::Pending, ErasureTarget::Event(id)));
    run(&at).await;
    let found = event(&at, id).await;
    assert!(found.envelope.is_empty());
    assert_eq!((found.event.payload, found.event.external_id), (PayloadState::Erased, None));
    assert_eq!((found.event.event_type.as_str(), found.event.deliveries), (EVENT_TYPE, 1));
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.status, attempts.len()), (DeliveryStatus::Delivered, 1));
    let attempt = &attempts[0];
    assert_eq!((attempt.payload, attempt.response_status), (PayloadState::Erased, Some(200)));
    assert!(attempt.response_headers.is_empty() && attempt.response_body.is_none() && attempt.request.is_none());
    let kept = event(&at, other).await;
    assert!(kept.event.payload == PayloadState::Kept && !kept.envelope.is_empty(), "other events are untouched");
    let erased = refresh(&at, &erasure).await;
    assert_eq!((erased.status, erased.completed_at), (ErasureStatus::Erased, Some(at.clock_now())));
    assert_eq!((erased.events, erased.attempts, erased.cancelled), (1, 1, 0));
    assert!(!erased.needs_compact, "this version has made the store");
    let entry = at.audit().await.remove(0);
    assert_eq!((entry.action, entry.resource_id), (AuditAction::ErasureStarted, erasure.id.to_string()));
}

async fn pending_deliveries_are_cancelled(at: Fixture) {
    at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    let claim = at.claim_one().await;
    at.record(at.retry(&claim, Duration::from_secs(30))).await;
    let erasure = erase_event(&at, id, CANCEL).await;
    run(&at).await;
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Cancelled, Some(EndReason::Erased)));
    assert_eq!((delivery.completed_at, delivery.queued), (Some(at.clock_now()), None));
    assert_eq!(attempts[0].payload, PayloadState::Erased);
    assert_eq!(refresh(&at, &erasure).await.cancelled, 1);
    at.advance(Duration::from_secs(3600));
    assert!(at.claim(10).await.claims.is_empty());
}

async fn an_erasure_can_wait_for_pending_deliveries(at: Fixture) {
    at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    let claim = at.claim_one().await;
    let erasure = erase_event(&at, id, FINISH).await;
    advance(&at).await;
    let waiting = refresh(&at, &erasure).await;
    assert_eq!((waiting.status, waiting.waiting, waiting.events), (ErasureStatus::Running, 1, 0));
    assert!(!event(&at, id).await.envelope.is_empty(), "the rest of the schedule needs it");
    at.record(at.retry(&claim, Duration::from_secs(30))).await;
    at.advance(Duration::from_secs(30));
    advance(&at).await;
    let claim = at.claim_one().await;
    assert!(!claim.envelope.is_empty());
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::Done);
    assert_eq!(event(&at, id).await.event.payload, PayloadState::Kept, "it looks again after a while");
    at.advance(limits::ERASURE_PASS_WAIT);
    run(&at).await;
    let erased = refresh(&at, &erasure).await;
    assert_eq!((erased.status, erased.waiting, erased.cancelled), (ErasureStatus::Erased, 0, 0));
    assert_eq!((erased.events, erased.attempts), (1, 2));
    assert_eq!(at.delivery(claim.delivery_id).await.0.status, DeliveryStatus::Delivered);
}

async fn the_outcome_of_an_attempt_under_way_is_not_recorded(at: Fixture) {
    at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    let claim = at.claim_one().await;
    erase_event(&at, id, CANCEL).await;
    run(&at).await;
    assert_eq!(at.record(at.delivered(&claim)).await, Recorded::ClaimLost);
    let (delivery, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!((delivery.status, delivery.reason), (DeliveryStatus::Cancelled, Some(EndReason::Erased)));
    assert_eq!(outline(&attempts), [(1, AttemptOutcome::Abandoned)], "the log shows that there was one");
    assert!(attempts[0].error.as_ref().is_some_and(|error| error.contains("erased")));
    assert_eq!((attempts[0].payload, attempts[0].response_body.clone()), (PayloadState::Erased, None));
    assert!(event(&at, id).await.envelope.is_empty());
    at.publish(1).await;
    assert_eq!(at.claim_one().await.attempt, 1, "the endpoint goes on");
}

async fn an_event_answers_its_erasure_again(at: Fixture) {
    at.endpoint().await;
    let (id, _) = delivered(&at).await;
    let first = erase_event(&at, id, CANCEL).await;
    assert_eq!(erase_event(&at, id, FINISH).await.id, first.id, "before the end");
    run(&at).await;
    let again = erase_event(&at, id, CANCEL).await;
    assert_eq!((again.id, again.status, again.events), (first.id, ErasureStatus::Erased, 1));
    assert_eq!(at.store().list_erasures(at.tenant(), Fixture::page()).await.unwrap().items.len(), 1);
    let of_project = at.accept(vec![at.event_of(EVENT_TYPE, Some("p"))]).await.remove(0).id;
    let whole = erase(&at, project("p"), CANCEL).await;
    run(&at).await;
    assert_eq!(erase_event(&at, of_project, CANCEL).await.id, whole.id, "the one that emptied it");
}

async fn a_later_cancel_ends_the_wait(at: Fixture) {
    at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    let first = erase_event(&at, id, FINISH).await;
    advance(&at).await;
    assert_eq!(erase_event(&at, id, FINISH).await.pending, FINISH);
    let hurried = erase_event(&at, id, CANCEL).await;
    assert_eq!((hurried.id, hurried.pending), (first.id, CANCEL));
    run(&at).await;
    let erased = refresh(&at, &first).await;
    assert_eq!((erased.status, erased.cancelled), (ErasureStatus::Erased, 1));
    let changes = at.audit().await.into_iter().filter(|entry| entry.action == AuditAction::ErasureStarted);
    assert_eq!(changes.count(), 2, "both requests are in the audit log");
}

async fn an_erased_event_is_never_sent_again(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let claim = at.claim_one().await;
    at.record(at.failed(&claim)).await;
    erase_event(&at, claim.event_id, CANCEL).await;
    run(&at).await;
    let refused = at.try_retry(at.tenant(), claim.delivery_id).await;
    assert!(matches!(refused, Err(RequeueError::PayloadGone)), "{refused:?}");
    at.advance(Duration::from_secs(1));
    let range =
        ReplayRange { since: at.workspace.created_at, until: at.clock_now(), statuses: REPLAYED_BY_DEFAULT.to_vec() };
    let replay = at.replay(&endpoint, range).await;
    while at.store().advance_replays().await.unwrap().is_some_and(|passed| passed > 0) {}
    let replay = at.store().find_replay(at.tenant(), None, replay.id).await.unwrap().unwrap();
    assert_eq!((replay.total, replay.replayed, replay.unavailable), (1, 0, 1));
    assert!(at.claim(10).await.claims.is_empty());
}

async fn the_events_of_a_project_up_to_the_request_are_erased(at: Fixture) {
    at.endpoint().await;
    // More than one step empties.
    let of = |project| (0..70).map(|_| at.event_of(EVENT_TYPE, project)).collect::<Vec<NewEvent>>();
    let mine: Vec<EventId> = at.accept(of(Some("p"))).await.iter().map(|receipt| receipt.id).collect();
    let mut others = at.accept(of(Some("q"))).await;
    others.extend(at.accept(of(None)).await);
    let tests: Vec<NewEvent> =
        (0..2).map(|_| NewEvent { tenant: at.test_tenant(), ..at.event_of(EVENT_TYPE, Some("p")) }).collect();
    let tests = at.accept(tests).await;
    at.advance(Duration::from_secs(1));
    let erasure = erase(&at, project("p"), CANCEL).await;
    at.advance(Duration::from_secs(1));
    others.extend(at.accept(vec![at.event_of(EVENT_TYPE, Some("p"))]).await);
    run(&at).await;
    for id in &mine {
        assert!(event(&at, *id).await.envelope.is_empty(), "{id}");
    }
    for receipt in &others {
        assert_eq!(event(&at, receipt.id).await.event.payload, PayloadState::Kept, "{receipt:?}");
    }
    let test = at.store().find_event(at.test_tenant(), tests[0].id).await.unwrap().unwrap();
    assert_eq!(test.event.payload, PayloadState::Kept, "the other mode is another tenant");
    let erased = refresh(&at, &erasure).await;
    assert_eq!((erased.events, erased.cancelled, erased.status), (70, 70, ErasureStatus::Erased));
}

async fn an_endpoint_loses_what_was_sent_and_answered(at: Fixture) {
    let (one, two) = (at.endpoint().await, at.endpoint().await);
    let id = at.publish(1).await.remove(0).id;
    let (of_one, of_two) = (at.claim_of(&one).await, at.claim_of(&two).await);
    at.record(at.delivered(&of_one)).await;
    at.record(at.delivered(&of_two)).await;
    at.publish(1).await;
    at.delete(&one).await;
    let erasure = erase(&at, ErasureTarget::Endpoint(one.id), CANCEL).await;
    run(&at).await;
    let erased = refresh(&at, &erasure).await;
    assert_eq!((erased.target, erased.events, erased.attempts), (ErasureTarget::Endpoint(one.id), 0, 1));
    let bodies = async |claim: &Claim| at.delivery(claim.delivery_id).await.1.remove(0).response_body;
    assert_eq!((bodies(&of_one).await, bodies(&of_two).await), (None, Some(Bytes::from_static(b"answer"))));
    assert_eq!(event(&at, id).await.event.payload, PayloadState::Kept, "the other endpoint has the event too");
}

/// Publishes with an idempotency key, whose remembered answer names the event.
async fn publish_once(at: &Fixture, key: &str) -> EventId {
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /v1/events".to_owned() };
    let request = IdempotentRequest { scope, key: OpaqueId::parse(key).unwrap(), body_hash: [1; 32], caller: None };
    let render = |receipts: &Vec<EventReceipt>| {
        let body = format!("{{\"data\":{{\"id\":\"{}\"}}}}", receipts[0].id);
        RecordedAnswer { status: 202, body: body.into(), sealed: false }
    };
    let recording = Recording { request, render: Arc::new(render) };
    match at.store().accept_events(vec![at.event()], Some(recording)).await.unwrap() {
        Written::Done(receipts) => receipts[0].id,
        Written::Replayed(answer) => {
            let text = String::from_utf8(answer.body.to_vec()).unwrap();
            text.split('"').find_map(|part| part.parse().ok()).unwrap()
        }
        other => panic!("{other:?}"),
    }
}

async fn remembered_answers_that_name_an_erased_event_go(at: Fixture) {
    let (one, two) = (publish_once(&at, "one").await, publish_once(&at, "two").await);
    assert_eq!(publish_once(&at, "one").await, one);
    let erasure = erase_event(&at, one, CANCEL).await;
    run(&at).await;
    assert_eq!(refresh(&at, &erasure).await.answers, 1);
    assert_eq!(publish_once(&at, "two").await, two, "the answer of another event is remembered");
    assert_ne!(publish_once(&at, "one").await, one, "the request is no longer remembered");
}

async fn an_erasure_is_visible_to_its_tenant_only(at: Fixture) {
    let endpoint = at.endpoint().await;
    let id = at.publish(1).await.remove(0).id;
    let other = at.other_workspace().await;
    for stranger in [tenant_of(other.key), at.test_tenant()] {
        for target in [ErasureTarget::Event(id), ErasureTarget::Endpoint(endpoint.id)] {
            let refused = try_erase(&at, stranger, target, CANCEL).await;
            assert!(matches!(refused, Err(EraseError::NotFound)), "{refused:?}");
        }
    }
    let unknown = EventId::new(id.key(), StoreTag::from_u32(7));
    for target in [ErasureTarget::Event(unknown), ErasureTarget::Endpoint(EndpointId::from_letters([b'z'; 16]))] {
        assert!(matches!(try_erase(&at, at.tenant(), target, CANCEL).await, Err(EraseError::NotFound)));
    }
    let erasure = erase_event(&at, id, CANCEL).await;
    let seen = async |tenant: Tenant| {
        let listed = at.store().list_erasures(tenant, Fixture::page()).await.unwrap().items.len();
        (at.store().find_erasure(Some(tenant), erasure.id).await.unwrap().is_some(), listed)
    };
    assert_eq!(seen(at.tenant()).await, (true, 1));
    for stranger in [tenant_of(other.key), at.test_tenant()] {
        assert_eq!(seen(stranger).await, (false, 0));
    }
    assert!(at.store().find_erasure(None, erasure.id).await.unwrap().is_some(), "the operator sees all");
    assert_eq!(at.store().find_event_owner(id).await.unwrap(), Some(at.tenant()));
    assert_eq!(at.store().find_event_owner(unknown).await.unwrap(), None);
}

async fn an_external_id_may_be_published_again(at: Fixture) {
    at.endpoint().await;
    let (id, _) = delivered(&at).await;
    erase_event(&at, id, CANCEL).await;
    run(&at).await;
    let again = at.accept(vec![at.event_with("customer-7", 2)]).await.remove(0);
    assert!(!again.replayed && again.id != id);
}

async fn an_order_goes_on_past_what_was_erased(at: Fixture) {
    let endpoint = at.strict_endpoint().await;
    let ids: Vec<EventId> = at.publish(4).await.iter().map(|receipt| receipt.id).collect();
    // The first stops the order, and the second waits behind it.
    let claim = at.claim_of(&endpoint).await;
    at.record(at.failed(&claim)).await;
    assert!(at.claim(10).await.claims.is_empty());
    erase_event(&at, ids[1], CANCEL).await;
    run(&at).await;
    assert!(at.claim(10).await.claims.is_empty(), "the order still stops at the first");
    erase_event(&at, ids[0], CANCEL).await;
    run(&at).await;
    let third = at.claim_one().await;
    assert_eq!(third.event_id, ids[2], "nothing could be retried at the first any more");
    erase_event(&at, ids[2], CANCEL).await;
    run(&at).await;
    assert_eq!(at.claim_one().await.event_id, ids[3], "the head that was under way has ended");
}

async fn an_erasure_goes_on_after_a_restart(mut at: Fixture) {
    let events = (0..100).map(|_| at.event_of(EVENT_TYPE, Some("p"))).collect();
    at.accept(events).await;
    at.advance(Duration::from_millis(1));
    let erasure = erase(&at, project("p"), CANCEL).await;
    at.store().advance_erasures().await.unwrap();
    let begun = refresh(&at, &erasure).await;
    assert!(begun.status == ErasureStatus::Running && (1..100).contains(&begun.events), "{begun:?}");
    at.reopen().await;
    run(&at).await;
    let erased = refresh(&at, &erasure).await;
    assert_eq!((erased.status, erased.events), (ErasureStatus::Erased, 100));
    let kept = at.store().list_events(at.tenant(), Default::default(), Fixture::page()).await.unwrap().items;
    assert!(kept.iter().all(|event| event.payload == PayloadState::Erased));
}

async fn an_erasure_makes_room_in_a_full_workspace(at: Fixture) {
    at.store().limit_stored_bytes(1_000);
    while at.store().count_stored_bytes(100).await.unwrap() {}
    let endpoint = at.create(NewEndpoint { ..at.new_endpoint() }).await;
    let sized = |bytes| NewEvent { envelope: Bytes::from(vec![b'x'; bytes]), ..at.event() };
    let id = at.accept(vec![sized(900)]).await.remove(0).id;
    let claim = at.claim_of(&endpoint).await;
    at.record(at.delivered(&claim)).await;
    let full = at.store().accept_events(vec![sized(901)], None).await;
    assert!(matches!(full, Err(AcceptError::WorkspaceFull { .. })), "{full:?}");
    erase_event(&at, id, CANCEL).await;
    run(&at).await;
    at.advance(Duration::from_secs(2));
    at.accept(vec![sized(1_000)]).await;
}

async fn erasures_that_have_not_ended_are_limited(at: Fixture) {
    for number in 0..limits::ERASURES_UNFINISHED {
        erase(&at, project(&format!("p{number}")), CANCEL).await;
    }
    let one_more = try_erase(&at, at.tenant(), project("p"), CANCEL).await;
    assert!(matches!(one_more, Err(EraseError::TooMany { max }) if max == limits::ERASURES_UNFINISHED));
    let other = at.other_workspace().await;
    try_erase(&at, tenant_of(other.key), project("p"), CANCEL).await.expect("another workspace has its own limit");
    run(&at).await;
    erase(&at, project("p"), CANCEL).await;
    assert!(at.deliveries_of(at.tenant(), DeliveryFilter::default()).await.is_empty());
}
