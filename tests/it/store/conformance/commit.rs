//! Commits: an answered write is durable, a submitted write is written, and a bad write does not affect others.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{join, join_all};
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::event::EventReceipt;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_store::{AcceptError, CreateApiKeyError, NewApiKey, StoreError};

use crate::store::fixture::Fixture;

on_each_backend! {
    many_concurrent_accepts_all_commit,
    a_failed_write_leaves_the_other_writes_committed,
    a_panicking_write_leaves_the_other_writes_committed,
    a_submitted_write_commits_although_its_caller_left,
}

async fn many_concurrent_accepts_all_commit(mut at: Fixture) {
    at.endpoint().await;
    let receipts = join_all((0..100).map(|_| at.publish(2))).await;
    let accepted: HashSet<_> = receipts.iter().flatten().map(|receipt| receipt.id).collect();
    assert_eq!(accepted.len(), 200);
    at.reopen().await;
    let kept: HashSet<_> = at.deliveries().await.iter().map(|delivery| delivery.event_id).collect();
    assert_eq!(kept, accepted);
}

async fn a_failed_write_leaves_the_other_writes_committed(mut at: Fixture) {
    at.endpoint().await;
    let key = at.new_api_key(1);
    at.api_key(key.clone()).await;
    // The id exists already. No caller can fix that, so the error is `Broken`.
    let again = |hash| NewApiKey { id: key.id, ..at.new_api_key(hash) };
    let bad = join_all((2..8).map(|hash| at.store().create_api_key(again(hash), None)));
    let (receipts, bad) = join(join_all((0..40).map(|_| at.publish(1))), bad).await;
    assert!(
        bad.iter().all(|outcome| matches!(outcome, Err(CreateApiKeyError::Store(StoreError::Broken(_))))),
        "{bad:?}"
    );
    at.reopen().await;
    assert_eq!((receipts.len(), at.deliveries().await.len()), (40, 40));
    assert_eq!(at.claim(100).await.claims.len(), 40, "each delivery is in the queue once");
}

async fn a_panicking_write_leaves_the_other_writes_committed(at: Fixture) {
    at.endpoint().await;
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /".to_owned() };
    let request = IdempotentRequest { scope, key: OpaqueId::parse("k").unwrap(), body_hash: [0; 32], caller: None };
    let render = |_: &Vec<EventReceipt>| -> RecordedAnswer { panic!("a bug in a renderer") };
    let recording = Recording { request: request.clone(), render: Arc::new(render) };
    let bad = at.store().accept_events(vec![at.event()], Some(recording));
    let (_, bad) = join(join_all((0..20).map(|_| at.publish(1))), bad).await;
    assert!(matches!(bad, Err(AcceptError::Store(StoreError::Broken(_)))), "{bad:?}");
    assert_eq!(at.publish(1).await[0].deliveries, 1, "the store still works");
    assert_eq!(at.deliveries().await.len(), 21, "the effect was rolled back with its answer");
    assert_eq!(at.store().find_answer(&request).await.unwrap(), None);
}

async fn a_submitted_write_commits_although_its_caller_left(mut at: Fixture) {
    at.endpoint().await;
    for _ in 0..50 {
        let event = at.event();
        let submitted = at.store().accept_events(vec![event], None);
        // The first poll submits the write. Then the caller drops the future.
        let _ = submitted.now_or_never();
    }
    at.reopen().await;
    assert_eq!(at.deliveries().await.len(), 50);
}
