//! The walk over everything that is sealed under the master key, and what the store takes while the key changes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use postrider_crypto::{MasterKey, Random};
use postrider_domain::endpoint::{Endpoint, EndpointChange, OpaqueId, SecretVersion};
use postrider_domain::endpoint_options::{OptionsChange, SignatureSchemes};
use postrider_domain::event::EventReceipt;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::private_options::HeaderName;
use postrider_store::sealing::key_state::{KeyState, Phase};
use postrider_store::sealing::{FactChange, OUTDATED_KEY, Resealed, SealedPlace, SealedPosition};
use postrider_store::{
    CreateEndpointError, EndpointUpdate, NewEndpoint, SealedHeader, SealedOptions, SealedSigningKey, StoreError,
};

use crate::store::fixture::{Fixture, signing_key, write};

on_each_backend! {
    the_walk_meets_every_sealed_value_exactly_once,
    the_walk_ends_in_an_empty_store,
    a_value_is_replaced_only_if_it_is_as_it_was_read,
    a_step_does_nothing_when_another_process_moved_the_walk,
    facts_change_together_or_not_at_all,
    values_of_a_replaced_key_are_refused_once_resealing_began,
}

const WALK: &str = "a walk";

fn header(value: &[u8]) -> SealedOptions {
    let name = HeaderName::parse("X-Team").unwrap();
    SealedOptions {
        headers: Some(vec![SealedHeader { name, sealed: Some(value.to_vec()) }]),
        ..SealedOptions::default()
    }
}

fn request(at: &Fixture, key: &str) -> IdempotentRequest {
    let scope = IdempotencyScope { tenant: at.test_tenant(), route: "POST /v1/api-keys".to_owned() };
    let caller = Some("key_a".to_owned());
    IdempotentRequest { scope, key: OpaqueId::parse(key).unwrap(), body_hash: [1; 32], caller }
}

async fn record(at: &Fixture, key: &str, body: &[u8], sealed: bool) -> Result<(), StoreError> {
    let answer = RecordedAnswer { status: 200, body: Bytes::copy_from_slice(body), sealed };
    at.store().record_answer(request(at, key), answer).await.map(|_| ())
}

fn with_v1a() -> OptionsChange {
    OptionsChange { signature_schemes: Some(SignatureSchemes::V1AndV1a), ..OptionsChange::default() }
}

/// An endpoint with a header, a signing key and a rotated secret.
async fn full_endpoint(at: &Fixture) -> Endpoint {
    let sealed = SealedOptions { signing_key: Some((SecretVersion(1), signing_key(1))), ..header(b"team") };
    let endpoint = at.create(NewEndpoint { sealed, options: with_v1a(), ..at.new_endpoint() }).await;
    at.rotate(&endpoint, 2, Duration::from_secs(60), false).await
}

async fn walk(at: &Fixture, rows: usize) -> Vec<(SealedPlace, Vec<u8>)> {
    let (mut all, mut position) = (Vec::new(), Some(SealedPosition::START));
    while let Some(after) = position {
        let page = at.store().sealed_values(after, rows).await.unwrap();
        assert!(page.values.len() <= 2 * rows, "a row has at most two values");
        all.extend(page.values);
        position = page.next;
    }
    all
}

async fn the_walk_meets_every_sealed_value_exactly_once(at: Fixture) {
    let first = full_endpoint(&at).await;
    let second = full_endpoint(&at).await;
    for number in 0..5 {
        record(&at, &format!("k{number}"), b"answer", number % 2 == 0).await.unwrap();
    }
    let mut expected = Vec::new();
    for endpoint in [&first, &second] {
        expected.extend([
            format!("{}/1", endpoint.id),
            format!("{}/2", endpoint.id),
            format!("{}/1/v1a", endpoint.id),
            format!("{}/2/v1a", endpoint.id),
            format!("{}/header/x-team", endpoint.id),
        ]);
    }
    let workspace = at.workspace.key.as_i64();
    expected.extend([0, 2, 4].map(|number| format!("answer/{workspace}/test/POST /v1/api-keys/k{number}")));
    expected.sort();
    for rows in [1, 2, 3, 100] {
        let mut met: Vec<String> = walk(&at, rows).await.iter().map(|(place, _)| place.record()).collect();
        met.sort();
        assert_eq!(met, expected, "{rows} rows a page");
    }
    assert_eq!(at.store().count_sealed().await.unwrap(), 10);
}

async fn the_walk_ends_in_an_empty_store(at: Fixture) {
    assert_eq!(walk(&at, 10).await, []);
    assert_eq!(at.store().count_sealed().await.unwrap(), 0);
}

async fn a_value_is_replaced_only_if_it_is_as_it_was_read(at: Fixture) {
    let endpoint = full_endpoint(&at).await;
    record(&at, "k", b"answer", true).await.unwrap();
    let met = walk(&at, 100).await;
    let resealed: Vec<Resealed> = met
        .iter()
        .map(|(place, from)| Resealed { place: place.clone(), from: from.clone(), to: [b"new ", &**from].concat() })
        .collect();
    // An endpoint's header changes between the read and the write.
    let update = EndpointUpdate {
        change: EndpointChange::default(),
        sealed: header(b"another"),
        limits: at.new_endpoint().limits,
    };
    at.store().update_endpoint(write(at.tenant()), endpoint.id, update).await.unwrap();
    let begun = FactChange { name: WALK, from: None, to: Some(b"1".to_vec()) };
    assert!(at.store().reseal_if_unchanged(resealed, begun).await.unwrap());
    let mut after = walk(&at, 100).await;
    assert_eq!(after.len(), met.len());
    for ((place, before), (place_after, now)) in met.iter().zip(after.drain(..)) {
        assert_eq!(*place, place_after);
        match place {
            SealedPlace::Part { .. } => assert_eq!(now, b"another"),
            _ => assert_eq!(now, [b"new ", &**before].concat(), "{place:?}"),
        }
    }
    let secret = at.store().find_secret(endpoint.key, SecretVersion(2)).await.unwrap().unwrap();
    assert_eq!(secret, b"new \x02");
    assert_eq!(at.store().meta(WALK).await.unwrap().unwrap(), b"1");
}

async fn a_step_does_nothing_when_another_process_moved_the_walk(at: Fixture) {
    full_endpoint(&at).await;
    let met = walk(&at, 100).await;
    at.store().meta_or_insert(WALK, b"2".to_vec()).await.unwrap();
    let resealed: Vec<Resealed> =
        met.iter().map(|(place, from)| Resealed { place: place.clone(), from: from.clone(), to: vec![9] }).collect();
    for from in [None, Some(b"1".to_vec())] {
        let moved = FactChange { name: WALK, from, to: Some(b"3".to_vec()) };
        assert!(!at.store().reseal_if_unchanged(resealed.clone(), moved).await.unwrap());
    }
    assert_eq!(walk(&at, 100).await, met);
    assert_eq!(at.store().meta(WALK).await.unwrap().unwrap(), b"2");
}

async fn facts_change_together_or_not_at_all(at: Fixture) {
    let change = |name, from: Option<&[u8]>, to: Option<&[u8]>| FactChange {
        name,
        from: from.map(<[u8]>::to_vec),
        to: to.map(<[u8]>::to_vec),
    };
    let facts = async || {
        let [a, b] = ["a", "b"];
        (at.store().meta(a).await.unwrap(), at.store().meta(b).await.unwrap())
    };
    let both = vec![change("a", None, Some(b"1")), change("b", None, Some(b"1"))];
    assert!(at.store().change_facts_if_unchanged(both.clone()).await.unwrap());
    assert!(!at.store().change_facts_if_unchanged(both).await.unwrap(), "they exist by now");
    let half = vec![change("a", Some(b"1"), Some(b"2")), change("b", Some(b"0"), Some(b"2"))];
    assert!(!at.store().change_facts_if_unchanged(half).await.unwrap());
    assert_eq!(facts().await, (Some(b"1".to_vec()), Some(b"1".to_vec())));
    let both = vec![change("a", Some(b"1"), None), change("b", Some(b"1"), Some(b"2"))];
    assert!(at.store().change_facts_if_unchanged(both).await.unwrap());
    assert_eq!(facts().await, (None, Some(b"2".to_vec())));
    let (one, other) = tokio::join!(
        at.store().change_facts_if_unchanged(vec![change("a", None, Some(b"3"))]),
        at.store().change_facts_if_unchanged(vec![change("a", None, Some(b"4"))]),
    );
    assert!(one.unwrap() != other.unwrap(), "one of two processes wins");
}

async fn values_of_a_replaced_key_are_refused_once_resealing_began(at: Fixture) {
    let random = Random::default();
    let (old, new) = (MasterKey::new(&[1; 32]), MasterKey::new(&[2; 32]));
    let sealed = |key: &MasterKey| key.seal_labelled(&random, "r", b"x");
    let of_old = sealed(&old);
    let endpoint = at.create(NewEndpoint { sealed_secret: of_old.clone(), ..at.new_endpoint() }).await;
    let state = KeyState::default().announced(&old, &new, &random).in_phase(Phase::Resealing);
    at.store().meta_or_insert("master_key_state", state.to_fact()).await.unwrap();

    let outdated = |error: &StoreError| matches!(error, StoreError::Unavailable { why: OUTDATED_KEY, .. });
    let with_old = NewEndpoint { sealed_secret: of_old.clone(), ..at.new_endpoint() };
    let refused = at.try_create(at.tenant(), with_old).await.unwrap_err();
    assert!(matches!(&refused, CreateEndpointError::Store(error) if outdated(error)), "{refused:?}");
    let with_old = NewEndpoint { sealed_secret: sealed(&new), sealed: header(&of_old), ..at.new_endpoint() };
    at.try_create(at.tenant(), with_old).await.unwrap_err();
    at.try_rotate(at.tenant(), endpoint.id, 2, Duration::ZERO, false).await.unwrap_err();
    let key = SealedSigningKey { sealed: of_old.clone(), public_key: "whpk_".to_owned() };
    let with_old = SealedOptions { signing_key: Some((SecretVersion::FIRST, key)), ..SealedOptions::default() };
    let with_old = NewEndpoint { sealed_secret: sealed(&new), sealed: with_old, ..at.new_endpoint() };
    at.try_create(at.tenant(), NewEndpoint { options: with_v1a(), ..with_old }).await.unwrap_err();
    assert!(outdated(&record(&at, "old", &of_old, true).await.unwrap_err()));
    let body = of_old.clone();
    let render = move |_: &Vec<EventReceipt>| RecordedAnswer { status: 202, body: body.clone().into(), sealed: true };
    let recording = Recording { request: request(&at, "publish"), render: Arc::new(render) };
    at.store().accept_events(vec![at.event()], Some(recording)).await.unwrap_err();
    assert_eq!(at.deliveries().await.len(), 0, "nothing of a refused write stands");

    record(&at, "plain", &of_old, false).await.unwrap();
    record(&at, "new", &sealed(&new), true).await.unwrap();
    at.create(NewEndpoint { sealed_secret: sealed(&new), sealed: header(&sealed(&new)), ..at.new_endpoint() }).await;
    at.publish(1).await;
    assert_eq!(at.deliveries().await.len(), 2);
}
