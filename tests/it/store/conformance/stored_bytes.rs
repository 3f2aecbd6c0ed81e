//! The budget of stored bytes: what counts, what is refused, and what goes on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::RowKey;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::limits;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayRange};
use postrider_store::{AcceptError, AgedStep, LogPart, NewEndpoint, Recorded, RequeueError};

use crate::store::fixture::{Fixture, tenant_of};

on_each_backend! {
    a_workspace_is_full_at_its_last_byte,
    a_full_workspace_still_delivers_and_leaves_room_to_others,
    attempts_and_remembered_answers_count,
    retention_makes_room_again,
    what_was_stored_before_the_budget_is_counted_once,
    without_a_budget_an_earlier_count_is_forgotten,
}

const MAX: u64 = 1_000;

/// Sets the budget, and counts what is stored.
async fn limit(at: &Fixture, max: u64) {
    at.store().limit_stored_bytes(max);
    count_all(at).await;
}

async fn count_all(at: &Fixture) {
    while at.store().count_stored_bytes(2).await.unwrap() {}
}

fn sized(at: &Fixture, bytes: u64) -> NewEvent {
    NewEvent { envelope: Bytes::from(vec![b'x'; usize::try_from(bytes).unwrap()]), ..at.event() }
}

async fn publish(at: &Fixture, bytes: u64) -> Result<(), AcceptError> {
    at.store().accept_events(vec![sized(at, bytes)], None).await.map(drop)
}

/// Asserts how many bytes a workspace has left: an event of that size fits, and one byte more does not.
async fn assert_left(at: &Fixture, bytes: u64) {
    let refused = publish(at, bytes + 1).await;
    assert!(matches!(refused, Err(AcceptError::WorkspaceFull { max: MAX })), "{bytes} bytes left: {refused:?}");
    publish(at, bytes).await.unwrap();
}

async fn a_workspace_is_full_at_its_last_byte(at: Fixture) {
    limit(&at, MAX).await;
    publish(&at, 300).await.unwrap();
    let batch = at.store().accept_events(vec![sized(&at, 400), sized(&at, 301)], None).await;
    assert!(matches!(batch, Err(AcceptError::WorkspaceFull { .. })), "a batch is accepted whole or not at all");
    at.accept(vec![at.event_with("order-1", 1)]).await;
    let again = at.accept(vec![at.event_with("order-1", 1)]).await.remove(0);
    assert!(again.replayed, "what is stored already needs no room");
    let stored = 300 + at.event().envelope.len() as u64;
    assert_left(&at, MAX - stored).await;
    assert!(matches!(publish(&at, 1).await, Err(AcceptError::WorkspaceFull { .. })));
    assert!(at.accept(vec![at.event_with("order-1", 1)]).await[0].replayed);
}

async fn a_full_workspace_still_delivers_and_leaves_room_to_others(at: Fixture) {
    limit(&at, MAX).await;
    let endpoint = at.endpoint().await;
    publish(&at, MAX).await.unwrap();
    let claim = at.claim_one().await;
    assert_eq!(at.record(at.failed(&claim)).await, Recorded::Done);
    let (_, attempts) = at.delivery(claim.delivery_id).await;
    assert_eq!(attempts.len(), 1, "attempts are recorded all the same");
    let full =
        |refused: RequeueError| assert!(matches!(refused, RequeueError::WorkspaceFull { max: MAX }), "{refused}");
    full(at.try_retry(at.tenant(), claim.delivery_id).await.unwrap_err());
    full(at.try_test(endpoint.id, at.event()).await.unwrap_err());
    let range =
        ReplayRange { since: at.workspace.created_at, until: at.clock_now(), statuses: REPLAYED_BY_DEFAULT.to_vec() };
    full(at.try_replay(&endpoint, range, at.tenant().mode, 1).await.unwrap_err());
    let other = tenant_of(at.other_workspace().await.key);
    at.create_in(other, NewEndpoint { ..at.new_endpoint() }).await;
    at.accept(vec![NewEvent { tenant: other, ..sized(&at, MAX) }]).await;
    at.delete(&endpoint).await;
}

async fn attempts_and_remembered_answers_count(at: Fixture) {
    limit(&at, MAX).await;
    at.endpoint().await;
    publish(&at, 300).await.unwrap();
    let claim = at.claim_one().await;
    at.record(at.delivered(&claim)).await;
    let attempt = r#"[["content-type","text/plain"]]"#.len() as u64 + "answer".len() as u64;
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /v1/events".to_owned() };
    let request = IdempotentRequest { scope, key: OpaqueId::parse("k").unwrap(), body_hash: [1; 32], caller: None };
    let render = |_: &Vec<EventReceipt>| RecordedAnswer { status: 202, body: vec![0; 50].into(), sealed: false };
    let recording = Recording { request, render: Arc::new(render) };
    at.store().accept_events(vec![sized(&at, 10)], Some(recording)).await.unwrap();
    assert_left(&at, MAX - 300 - attempt - 10 - 50).await;
}

async fn remove_all(at: &Fixture, age: Duration) {
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after {
            after = at.store().remove_aged(AgedStep { part, age, after: from, limit: 2 }).await.unwrap().next;
        }
    }
    at.store().forget_answers(100).await.unwrap();
}

async fn retention_makes_room_again(at: Fixture) {
    limit(&at, MAX).await;
    at.endpoint().await;
    publish(&at, 600).await.unwrap();
    at.record(at.delivered(&at.claim_one().await)).await;
    // Pending: it stays, whatever its age.
    publish(&at, 100).await.unwrap();
    at.advance(limits::RETENTION * 2);
    remove_all(&at, limits::RETENTION).await;
    at.advance(Duration::from_secs(2));
    assert_left(&at, MAX - 100).await;
    for claim in at.claim(10).await.claims {
        at.record(at.delivered(&claim)).await;
    }
    at.advance(limits::RETENTION * 2);
    remove_all(&at, limits::RETENTION).await;
    at.advance(Duration::from_secs(2));
    assert_left(&at, MAX).await;
}

async fn what_was_stored_before_the_budget_is_counted_once(mut at: Fixture) {
    at.endpoint().await;
    for _ in 0..5 {
        publish(&at, 100).await.unwrap();
        at.record(at.delivered(&at.claim_one().await)).await;
    }
    let attempt = r#"[["content-type","text/plain"]]"#.len() as u64 + "answer".len() as u64;
    at.store().limit_stored_bytes(MAX);
    assert!(at.store().count_stored_bytes(2).await.unwrap());
    assert!(at.store().count_stored_bytes(2).await.unwrap());
    // Written while the count is under way.
    publish(&at, 50).await.unwrap();
    count_all(&at).await;
    assert!(!at.store().count_stored_bytes(2).await.unwrap(), "it is counted once");
    at.reopen().await;
    limit(&at, MAX).await;
    assert_left(&at, MAX - 550 - 5 * attempt).await;
}

async fn without_a_budget_an_earlier_count_is_forgotten(mut at: Fixture) {
    limit(&at, MAX).await;
    publish(&at, 100).await.unwrap();
    at.reopen().await;
    count_all(&at).await;
    publish(&at, 200).await.unwrap();
    at.reopen().await;
    limit(&at, MAX).await;
    assert_left(&at, MAX - 300).await;
}
