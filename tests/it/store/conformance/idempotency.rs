//! Idempotency keys: the same request twice has one effect and one answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::endpoint::{Endpoint, OpaqueId};
use postrider_domain::event::EventReceipt;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::limits;
use postrider_store::{AcceptError, CreateEndpointError, EndpointLimits, NewEndpoint, Write, Written};

use crate::store::fixture::{Fixture, tenant_of, write};

on_each_backend! {
    the_same_request_twice_has_one_effect_and_one_answer,
    a_key_with_another_body_is_refused_and_does_nothing,
    a_key_is_scoped_to_workspace_mode_and_route,
    an_answer_is_kept_for_exactly_twenty_four_hours,
    an_answer_survives_a_restart,
    a_refused_effect_is_not_recorded,
    a_refused_endpoint_is_not_recorded,
    an_endpoint_is_created_once_per_idempotency_key,
    the_first_answer_without_effect_is_kept,
    a_sealed_answer_goes_only_to_the_key_that_made_the_request,
    concurrent_requests_with_one_key_have_one_effect,
    answers_are_forgotten_in_bounded_steps_after_their_window,
}

fn request(at: &Fixture, key: &str, body_hash: u8) -> IdempotentRequest {
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /v1/events".to_owned() };
    IdempotentRequest { scope, key: OpaqueId::parse(key).unwrap(), body_hash: [body_hash; 32], caller: None }
}

fn answer(body: &str) -> RecordedAnswer {
    RecordedAnswer { status: 202, body: Bytes::copy_from_slice(body.as_bytes()), sealed: false }
}

/// Records the id of the first accepted event as the answer.
fn recording(request: IdempotentRequest) -> Option<Recording<Vec<EventReceipt>>> {
    let render = |receipts: &Vec<EventReceipt>| answer(&format!("{:?}", receipts[0].id));
    Some(Recording { request, render: Arc::new(render) })
}

async fn publish(at: &Fixture, request: IdempotentRequest) -> Written<Vec<EventReceipt>> {
    at.store().accept_events(vec![at.event()], recording(request)).await.unwrap()
}

async fn publish_once(at: &Fixture, request: IdempotentRequest) -> RecordedAnswer {
    match publish(at, request).await {
        Written::Done(receipts) => answer(&format!("{:?}", receipts[0].id)),
        other => panic!("the key is new: {other:?}"),
    }
}

async fn the_same_request_twice_has_one_effect_and_one_answer(at: Fixture) {
    at.endpoint().await;
    assert_eq!(at.store().find_answer(&request(&at, "k", 1)).await.unwrap(), None);
    let first = publish_once(&at, request(&at, "k", 1)).await;
    for _ in 0..2 {
        assert_eq!(publish(&at, request(&at, "k", 1)).await, Written::Replayed(first.clone()));
    }
    let found = at.store().find_answer(&request(&at, "k", 1)).await.unwrap();
    assert_eq!(found, Some(Written::Replayed(first)));
    assert_eq!(at.deliveries().await.len(), 1);
}

async fn a_key_with_another_body_is_refused_and_does_nothing(at: Fixture) {
    at.endpoint().await;
    publish_once(&at, request(&at, "k", 1)).await;
    assert_eq!(publish(&at, request(&at, "k", 2)).await, Written::KeyReused);
    assert_eq!(at.store().find_answer(&request(&at, "k", 2)).await.unwrap(), Some(Written::KeyReused));
    assert_eq!(at.store().record_answer(request(&at, "k", 2), answer("x")).await.unwrap(), Written::KeyReused);
    assert_eq!(at.deliveries().await.len(), 1);
}

async fn a_key_is_scoped_to_workspace_mode_and_route(at: Fixture) {
    let other = at.other_workspace().await;
    let here = request(&at, "k", 1);
    let elsewhere = IdempotencyScope { tenant: tenant_of(other.key), ..here.scope.clone() };
    let in_test = IdempotencyScope { tenant: at.test_tenant(), ..here.scope.clone() };
    let by_another_route = IdempotencyScope { route: "POST /v1/events/batch".to_owned(), ..here.scope.clone() };
    for scope in [here.scope.clone(), elsewhere, in_test, by_another_route] {
        publish_once(&at, IdempotentRequest { scope, ..here.clone() }).await;
    }
    publish_once(&at, request(&at, "K", 1)).await;
}

async fn an_answer_is_kept_for_exactly_twenty_four_hours(at: Fixture) {
    let first = publish_once(&at, request(&at, "k", 1)).await;
    at.advance(Duration::from_secs(24 * 3600));
    assert_eq!(publish(&at, request(&at, "k", 1)).await, Written::Replayed(first.clone()));
    at.advance(Duration::from_millis(1));
    assert_eq!(at.store().find_answer(&request(&at, "k", 1)).await.unwrap(), None);
    let second = publish_once(&at, request(&at, "k", 7)).await;
    assert_ne!(second, first, "after the window the key is free for any body");
    at.advance(limits::IDEMPOTENCY_WINDOW);
    assert_eq!(publish(&at, request(&at, "k", 7)).await, Written::Replayed(second), "and begins a new window");
}

async fn a_sealed_answer_goes_only_to_the_key_that_made_the_request(at: Fixture) {
    let by = |letter: u8, key: &str| {
        let caller = Some(format!("key_{}", char::from(letter)));
        IdempotentRequest { caller, ..request(&at, key, 1) }
    };
    let sealed = RecordedAnswer { sealed: true, ..answer("a secret") };
    at.store().record_answer(by(b'a', "k"), sealed.clone()).await.unwrap();
    let found = async |request: IdempotentRequest| at.store().find_answer(&request).await.unwrap();
    assert_eq!(found(by(b'a', "k")).await, Some(Written::Replayed(sealed.clone())));
    let nobody = request(&at, "k", 1);
    for other in [by(b'b', "k"), nobody.clone()] {
        assert_eq!(found(other.clone()).await, Some(Written::SealedForOther));
        let recording = Some(Recording { request: other.clone(), render: Arc::new(|_: &Endpoint| answer("other")) });
        let written = at.store().create_endpoint(Write { recording, ..write(at.tenant()) }, at.new_endpoint()).await;
        assert!(matches!(written, Ok(Written::SealedForOther)), "{written:?}");
        assert_eq!(at.store().record_answer(other, answer("other")).await.unwrap(), Written::SealedForOther);
    }
    assert_eq!(found(IdempotentRequest { body_hash: [2; 32], ..by(b'b', "k") }).await, Some(Written::KeyReused));
    assert_eq!(found(by(b'a', "k")).await, Some(Written::Replayed(sealed.clone())));

    at.store().record_answer(request(&at, "of-nobody", 1), sealed).await.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(found(request(&at, "of-nobody", 1)).await, Some(Written::SealedForOther), "nobody may see it");
    at.store().record_answer(by(b'a', "open"), answer("no secret")).await.unwrap();
    assert_eq!(found(by(b'b', "open")).await, Some(Written::Replayed(answer("no secret"))));
}

async fn an_answer_survives_a_restart(mut at: Fixture) {
    let sealed = RecordedAnswer { status: 503, body: Bytes::from_static(&[0, 159, 146, 150]), sealed: true };
    let by_key = IdempotentRequest { caller: Some("key_a".to_owned()), ..request(&at, "sealed", 1) };
    at.store().record_answer(by_key.clone(), sealed.clone()).await.unwrap();
    let first = publish_once(&at, request(&at, "k", 1)).await;
    at.advance(Duration::from_secs(1));
    at.reopen().await;
    assert_eq!(publish(&at, request(&at, "k", 1)).await, Written::Replayed(first));
    let found = at.store().find_answer(&by_key).await.unwrap();
    assert_eq!(found, Some(Written::Replayed(sealed)));
}

async fn a_refused_effect_is_not_recorded(at: Fixture) {
    at.accept(vec![at.event_with("order-1", 1)]).await;
    let contradiction = vec![at.event_with("order-1", 2)];
    let refused = at.store().accept_events(contradiction, recording(request(&at, "k", 1))).await;
    assert!(matches!(refused, Err(AcceptError::ExternalIdReused { index: 0 })), "{refused:?}");
    assert_eq!(at.store().find_answer(&request(&at, "k", 1)).await.unwrap(), None);
    publish_once(&at, request(&at, "k", 2)).await;
}

/// A write of an endpoint. Records the endpoint's id as the answer.
fn recorded(at: &Fixture, key: &str) -> Write<Endpoint> {
    let render = |endpoint: &Endpoint| answer(&endpoint.id.to_string());
    let recording = Some(Recording { request: request(at, key, 1), render: Arc::new(render) });
    Write { recording, ..write(at.tenant()) }
}

async fn a_refused_endpoint_is_not_recorded(at: Fixture) {
    let none_allowed = EndpointLimits { per_project: 0, per_workspace: 1 };
    let new = NewEndpoint { limits: none_allowed, ..at.new_endpoint() };
    let refused = at.store().create_endpoint(recorded(&at, "k"), new).await;
    assert!(matches!(refused, Err(CreateEndpointError::ProjectFull(0))), "{refused:?}");
    assert_eq!(at.store().find_answer(&request(&at, "k", 1)).await.unwrap(), None);
}

async fn an_endpoint_is_created_once_per_idempotency_key(at: Fixture) {
    let created = at.store().create_endpoint(recorded(&at, "k"), at.new_endpoint()).await.unwrap();
    let Written::Done(created) = created else { panic!("the key is new: {created:?}") };
    let new = at.new_endpoint();
    let id = new.id;
    match at.store().create_endpoint(recorded(&at, "k"), new).await.unwrap() {
        Written::Replayed(kept) => assert_eq!(kept, answer(&created.id.to_string())),
        other => panic!("the same request: {other:?}"),
    }
    assert!(at.store().find_endpoint(at.tenant(), id).await.unwrap().is_none());
}

async fn the_first_answer_without_effect_is_kept(at: Fixture) {
    let record = |body: &str| at.store().record_answer(request(&at, "k", 1), answer(body));
    assert_eq!(record("first").await.unwrap(), Written::Done(()));
    assert_eq!(record("second").await.unwrap(), Written::Replayed(answer("first")));
    at.endpoint().await;
    assert_eq!(publish(&at, request(&at, "k", 1)).await, Written::Replayed(answer("first")));
    assert!(at.deliveries().await.is_empty(), "the recorded answer prevents the effect");
}

async fn concurrent_requests_with_one_key_have_one_effect(at: Fixture) {
    at.endpoint().await;
    let outcomes = futures_util::future::join_all((0..10).map(|_| publish(&at, request(&at, "k", 1)))).await;
    assert_eq!(outcomes.iter().filter(|outcome| matches!(outcome, Written::Done(_))).count(), 1);
    assert_eq!(at.deliveries().await.len(), 1);
}

async fn answers_are_forgotten_in_bounded_steps_after_their_window(at: Fixture) {
    for key in ["a", "b", "c"] {
        publish_once(&at, request(&at, key, 1)).await;
    }
    at.advance(limits::IDEMPOTENCY_WINDOW);
    let young = publish_once(&at, request(&at, "young", 1)).await;
    assert_eq!(at.store().forget_answers(10).await.unwrap(), 0);
    at.advance(Duration::from_millis(1));
    for removed in [2, 1, 0] {
        assert_eq!(at.store().forget_answers(2).await.unwrap(), removed);
    }
    assert_eq!(publish(&at, request(&at, "young", 1)).await, Written::Replayed(young));
}
