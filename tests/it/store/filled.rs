//! A store with at least one row in each table, for tests that are about every table: the copy, and growth.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::{Endpoint, OpaqueId, SecretVersion};
use postrider_domain::endpoint_options::{OptionsChange, SignatureSchemes};
use postrider_domain::erasure::PendingDeliveries;
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::id::{ApiKeyId, SessionId};
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::private_options::HeaderName;
use postrider_domain::replay::{REPLAYED_BY_DEFAULT, ReplayCount, ReplayRange, ReplaySelection};
use postrider_domain::source::SourceName;
use postrider_domain::trace_context::TraceContext;
use postrider_store::{Claim, NewCatalogue, NewEndpoint, NewReplay, PayloadStep, SealedHeader, SealedOptions, Written};

use super::conformance::endpoint_health::pause;
use super::conformance::erasure::{erase, project};
use super::conformance::parked_message::park;
use super::conformance::portal_session::new_session;
use super::fixture::{EVENT_TYPE, Fixture, signing_key, write};

/// What [`fill`] left in various states.
pub struct Filled {
    /// Under way.
    pub claimed: Claim,
    /// Waits for its retry.
    pub retried: Claim,
    /// Failed, and stops its strict order.
    pub blocked: Claim,
    /// One of the endpoints.
    pub endpoint: Endpoint,
}

/// A trace that a publisher might name.
pub fn trace() -> TraceContext {
    let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    TraceContext::of_headers(std::iter::once(text.as_bytes())).unwrap()
}

/// Adds rows to each table, in the fixture's workspace. `round` differs for each call on one store.
pub async fn fill(at: &Fixture, round: u8) -> Filled {
    at.store().limit_stored_bytes(1 << 40);
    while at.store().count_stored_bytes(100).await.unwrap() {}
    at.store().meta_or_insert("master_key_id", vec![7; 8]).await.unwrap();
    adopt_catalogue(at, round).await;
    let api_key = at.api_key(at.new_api_key(round)).await;
    sign_in(at, round, api_key.id).await;
    let portal = new_session(at, "p");
    at.store().create_portal_session(write(at.tenant()), portal).await.unwrap();
    park(at, "poison").await;
    let source = SourceName::parse("orders").unwrap();
    at.store().set_source_paused(write(at.tenant()), source, true).await.unwrap();
    let paused = at.endpoint().await;
    pause(at, &paused).await;
    let options = OptionsChange {
        signature_schemes: Some(SignatureSchemes::V1AndV1a),
        trace_forwarding: Some(Some(false)),
        ..OptionsChange::default()
    };
    let name = HeaderName::parse("X-Team").unwrap();
    let sealed = SealedOptions {
        headers: Some(vec![SealedHeader { name, sealed: Some(vec![0, 255]) }]),
        signing_key: Some((SecretVersion(1), signing_key(1))),
        ..SealedOptions::default()
    };
    at.create(NewEndpoint { options, sealed, ..at.new_endpoint() }).await;
    let strict = at.strict_endpoint().await;
    at.publish(3).await;
    let blocked = at.claim_of(&strict).await;
    at.record(at.failed(&blocked)).await;
    let retried = at.claim_one().await;
    at.record(at.retry(&retried, Duration::from_secs(30))).await;
    at.accept(vec![NewEvent { trace: Some(trace()), ..at.event_with("an-external-id", 9) }]).await;
    accept_with_idempotency_key(at).await;
    let range =
        ReplayRange { since: at.workspace.created_at, until: at.clock_now(), statuses: REPLAYED_BY_DEFAULT.to_vec() };
    let endpoint = at.endpoint().await;
    at.replay(&endpoint, range).await;
    let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Cancelled], ..DeliveryFilter::default() };
    let selection = ReplaySelection::Filter(Box::new(filter));
    let new = NewReplay { selection, count: ReplayCount::default() };
    at.store().create_replay(write(at.tenant()), new).await.unwrap();
    erase(at, project("nobody"), PendingDeliveries::Cancel).await;
    let claimed = at.claim_one().await;
    // Payloads of what is pending are noted as late.
    at.advance(Duration::from_millis(1));
    at.store().expire_payloads(PayloadStep { age: Duration::ZERO, limit: 100 }).await.unwrap();
    Filled { claimed, retried, blocked, endpoint }
}

/// An open session, and a login code that nobody uses.
async fn sign_in(at: &Fixture, round: u8, api_key: ApiKeyId) {
    let id = SessionId::from_letters(at.letters());
    at.store().create_session(id, api_key, at.session_opening(round)).await.unwrap().expect("the key is in use");
    at.store().create_login_code(at.new_login_code(round)).await.unwrap().expect("the workspace exists");
}

async fn adopt_catalogue(at: &Fixture, round: u8) {
    let new = NewCatalogue {
        version: round.into(),
        text: "text".to_owned(),
        content_hash: [round; 32],
        brand: "b".to_owned(),
        names: vec![EVENT_TYPE.to_owned()],
    };
    at.store().adopt_catalogue(new).await.unwrap();
}

async fn accept_with_idempotency_key(at: &Fixture) {
    let scope = IdempotencyScope { tenant: at.tenant(), route: "POST /v1/events".to_owned() };
    let request = IdempotentRequest { scope, key: OpaqueId::parse("k").unwrap(), body_hash: [1; 32], caller: None };
    let render =
        |_: &Vec<EventReceipt>| RecordedAnswer { status: 202, body: Bytes::from_static(b"\0{}"), sealed: true };
    let recording = Recording { request, render: Arc::new(render) };
    let written = at.store().accept_events(vec![at.event_of(EVENT_TYPE, Some("p"))], Some(recording)).await.unwrap();
    assert!(matches!(written, Written::Done(_)));
}
