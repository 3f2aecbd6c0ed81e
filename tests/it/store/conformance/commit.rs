//! Commits: what was answered is kept, what was handed in is written, and one bad write costs no other its own.

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
    a_write_that_fails_costs_no_other_its_commit,
    a_write_that_panics_costs_no_other_its_commit,
    what_was_handed_in_is_written_though_its_caller_left,
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

async fn a_write_that_fails_costs_no_other_its_commit(mut at: Fixture) {
    at.endpoint().await;
    let key = at.new_api_key(1);
    at.api_key(key.clone()).await;
    // An id that is taken already: a fault of ours, which no caller can mend.
    let again = |hash| NewApiKey { id: key.id, ..at.new_api_key(hash) };
    let bad = join_all((2..8).map(|hash| at.store().create_api_key(again(hash), None)));
    let (receipts, bad) = join(join_all((0..40).map(|_| at.publish(1))), bad).await;
    assert!(
        bad.iter().all(|outcome| matches!(outcome, Err(CreateApiKeyError::Store(StoreError::Broken(_))))),
        "{bad:?}"
    );
    at.reopen().await;
    assert_eq!((receipts.len(), at.deliveries().await.len()), (40, 40));
    assert_eq!(at.claim(100).await.claims.len(), 40, "each is in the queue once");
}

async fn a_write_that_panics_costs_no_other_its_commit(at: Fixture) {
    at.endpoint().await;
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /".to_owned() };
    let request = IdempotentRequest { scope, key: OpaqueId::parse("k").unwrap(), body_hash: [0; 32] };
    let render = |_: &Vec<EventReceipt>| -> RecordedAnswer { panic!("a bug in a renderer") };
    let recording = Recording { request: request.clone(), render: Arc::new(render) };
    let bad = at.store().accept_events(vec![at.event()], Some(recording));
    let (_, bad) = join(join_all((0..20).map(|_| at.publish(1))), bad).await;
    assert!(matches!(bad, Err(AcceptError::Store(StoreError::Broken(_)))), "{bad:?}");
    assert_eq!(at.publish(1).await[0].deliveries, 1, "the store goes on");
    assert_eq!(at.deliveries().await.len(), 21, "the effect went with its answer");
    assert_eq!(at.store().find_answer(&request).await.unwrap(), None);
}

async fn what_was_handed_in_is_written_though_its_caller_left(mut at: Fixture) {
    at.endpoint().await;
    for _ in 0..50 {
        let event = at.event();
        let handed_in = at.store().accept_events(vec![event], None);
        // Asked once, the write is on its way; then the caller goes.
        let _ = handed_in.now_or_never();
    }
    at.reopen().await;
    assert_eq!(at.deliveries().await.len(), 50);
}
