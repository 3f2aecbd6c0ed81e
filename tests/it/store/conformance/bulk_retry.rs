//! Several deliveries retried by one request.

use std::sync::Arc;

use bytes::Bytes;
use postrider_domain::access::Mode;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus};
use postrider_domain::endpoint::{Endpoint, OpaqueId};
use postrider_domain::id::DeliveryId;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::tenant::Tenant;
use postrider_store::publish::requeue::{RetriedDelivery, RetryRefusal};
use postrider_store::{Write, Written};

use crate::store::fixture::{Fixture, done, tenant_of, write};

on_each_backend! {
    each_of_several_retries_has_its_own_result,
    a_foreign_delivery_is_not_found_among_others,
    a_retry_among_others_takes_the_place_of_a_failed_head,
    several_retries_happen_once_per_idempotency_key,
    several_retries_survive_a_restart,
}

async fn retry_all(at: &Fixture, ids: Vec<DeliveryId>) -> Vec<RetriedDelivery> {
    done(at.store().retry_deliveries(write(at.tenant()), ids).await.unwrap())
}

/// The refusals, in the order of the request. `None`: the new delivery is in the queue.
fn refusals(retried: &[RetriedDelivery]) -> Vec<Option<RetryRefusal>> {
    retried.iter().map(|retried| retried.result.as_ref().err().copied()).collect()
}

/// Delivers one event to this endpoint.
async fn delivered_to(at: &Fixture, endpoint: &Endpoint) -> DeliveryId {
    let claim = at.claim_of(endpoint).await;
    at.record(at.delivered(&claim)).await;
    claim.delivery_id
}

async fn each_of_several_retries_has_its_own_result(at: Fixture) {
    let endpoints = at.endpoints(3).await;
    at.publish(1).await;
    let mut ids = Vec::new();
    for endpoint in &endpoints {
        ids.push(delivered_to(&at, endpoint).await);
    }
    at.switch(&endpoints[1], false).await;
    at.delete(&endpoints[2]).await;
    let unknown = DeliveryId::new(at.store().next_key(), at.store().tag());
    let asked = vec![ids[2], ids[0], unknown, ids[1]];
    let retried = retry_all(&at, asked.clone()).await;
    assert_eq!(retried.iter().map(|retried| retried.id).collect::<Vec<_>>(), asked, "in the order of the request");
    use RetryRefusal::{EndpointDeleted, EndpointOff, NotFound};
    assert_eq!(refusals(&retried), [Some(EndpointDeleted), None, Some(NotFound), Some(EndpointOff)]);
    let queued = retried[1].result.as_ref().unwrap();
    assert_eq!((queued.cause, queued.retry_of), (DeliveryCause::Retry, Some(ids[0])));
    let claims = at.claim(10).await.claims;
    assert_eq!(claims.iter().map(|claim| claim.delivery_id).collect::<Vec<_>>(), [queued.id], "only that one is due");
    let audited: Vec<String> = at.audit().await.into_iter().map(|entry| entry.resource_id).collect();
    for (id, is_audited) in [(ids[0], true), (ids[1], false), (ids[2], false), (unknown, false)] {
        assert_eq!(audited.contains(&id.to_string()), is_audited, "{id}");
    }
}

async fn a_foreign_delivery_is_not_found_among_others(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(1).await;
    let own = delivered_to(&at, &endpoint).await;
    let other = tenant_of(at.other_workspace().await.key);
    let test = Tenant { mode: Mode::Test, ..at.tenant() };
    for tenant in [other, test] {
        let retried = done(at.store().retry_deliveries(write(tenant), vec![own]).await.unwrap());
        assert_eq!(refusals(&retried), [Some(RetryRefusal::NotFound)]);
    }
    assert!(at.claim(10).await.claims.is_empty());
}

async fn a_retry_among_others_takes_the_place_of_a_failed_head(at: Fixture) {
    let (strict, plain) = (at.strict_endpoint().await, at.endpoint().await);
    at.publish(2).await;
    let delivered = delivered_to(&at, &plain).await;
    delivered_to(&at, &plain).await;
    let head = at.claim_of(&strict).await;
    at.record(at.failed(&head)).await;
    assert!(at.claim(10).await.claims.is_empty(), "the order has stopped");
    let retried = retry_all(&at, vec![delivered, head.delivery_id]).await;
    assert_eq!(refusals(&retried), [None, None]);
    let next = at.claim_of(&strict).await;
    assert_eq!(Some(next.delivery_id), retried[1].result.as_ref().ok().map(|delivery| delivery.id));
    at.record(at.delivered(&next)).await;
    assert_eq!(at.claim_of(&strict).await.attempt, 1, "the order goes on behind it");
    assert!(!at.delivery(head.delivery_id).await.0.is_blocking);
}

async fn several_retries_happen_once_per_idempotency_key(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let ids = vec![delivered_to(&at, &endpoint).await, delivered_to(&at, &endpoint).await];
    let recorded = || {
        let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /v1/webhook-deliveries/retry".to_owned() };
        let request = IdempotentRequest { scope, key: OpaqueId::parse("k").unwrap(), body_hash: [1; 32], caller: None };
        let render = |retried: &Vec<RetriedDelivery>| RecordedAnswer {
            status: 200,
            body: Bytes::from(retried.len().to_string()),
            sealed: false,
        };
        Write { recording: Some(Recording { request, render: Arc::new(render) }), ..write(at.tenant()) }
    };
    let first = at.store().retry_deliveries(recorded(), ids.clone()).await.unwrap();
    assert!(matches!(&first, Written::Done(retried) if retried.len() == 2), "{first:?}");
    let again = at.store().retry_deliveries(recorded(), ids).await.unwrap();
    assert!(matches!(&again, Written::Replayed(answer) if answer.body == "2"), "{again:?}");
    assert_eq!(at.claim(10).await.claims.len(), 2, "the repeat has queued nothing");
}

async fn several_retries_survive_a_restart(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    let ids = vec![delivered_to(&at, &endpoint).await, delivered_to(&at, &endpoint).await];
    let retried = retry_all(&at, ids).await;
    at.reopen().await;
    let mut claimed: Vec<_> = at.claim(10).await.claims.iter().map(|claim| claim.delivery_id).collect();
    let mut queued: Vec<_> = retried.iter().map(|retried| retried.result.as_ref().unwrap().id).collect();
    claimed.sort_unstable();
    queued.sort_unstable();
    assert_eq!(claimed, queued);
    for id in queued {
        assert_eq!(at.delivery(id).await.0.status, DeliveryStatus::Pending);
    }
}
