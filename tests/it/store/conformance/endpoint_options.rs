//! Endpoint options: stored, copied into each claim, sealed if secret, and deleted with the endpoint.

use std::time::Duration;

use postrider_domain::endpoint::{Endpoint, EndpointChange, EndpointUrl, SecretVersion};
use postrider_domain::endpoint_options::{
    CertificateFacts, DeliveryOrder, DeliveryRate, EndpointOptions, OptionsChange, SignatureSchemes,
};
use postrider_domain::private_options::HeaderName;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_store::{
    CreateEndpointError, EndpointLimits, EndpointUpdate, NewEndpoint, SealedCertificate, SealedHeader, SealedKind,
    SealedOptions, UpdateEndpointError,
};

use crate::store::fixture::{AUTHOR, Fixture, done, signing_key, write};

on_each_backend! {
    an_endpoint_without_options_has_the_defaults,
    each_option_is_stored_changed_and_reset,
    a_claim_carries_the_options_of_its_instant,
    sealed_parts_read_back_and_each_change_bumps_the_version,
    a_header_keeps_its_value_under_its_name_in_any_case,
    a_header_without_a_stored_value_to_keep_is_refused,
    sealed_parts_stay_with_the_origin_that_they_were_given_for,
    a_signing_key_is_set_once_and_for_the_newest_version_only,
    a_rotation_stores_a_signing_key_only_with_v1a,
    signing_keys_are_erased_with_their_secrets,
    sealed_parts_are_deleted_with_endpoint_and_workspace,
}

fn name(text: &str) -> HeaderName {
    HeaderName::parse(text).unwrap()
}

fn set(text: &str, sealed: &[u8]) -> SealedHeader {
    SealedHeader { name: name(text), sealed: Some(sealed.to_vec()) }
}

fn keep(text: &str) -> SealedHeader {
    SealedHeader { name: name(text), sealed: None }
}

fn with_headers(headers: Vec<SealedHeader>) -> SealedOptions {
    SealedOptions { headers: Some(headers), ..SealedOptions::default() }
}

fn certificate() -> SealedCertificate {
    SealedCertificate { facts: CertificateFacts { sha256: "ab".repeat(32) }, sealed: vec![9, 9] }
}

fn schemes(schemes: SignatureSchemes) -> OptionsChange {
    OptionsChange { signature_schemes: Some(schemes), ..OptionsChange::default() }
}

async fn try_change(
    at: &Fixture,
    endpoint: &Endpoint,
    options: OptionsChange,
    sealed: SealedOptions,
) -> Result<Endpoint, UpdateEndpointError> {
    let limits = EndpointLimits { per_project: 10_000, per_workspace: 10_000 };
    let update = EndpointUpdate { change: EndpointChange { options, ..EndpointChange::default() }, sealed, limits };
    at.store().update_endpoint(write(at.tenant()), endpoint.id, update).await.map(done)
}

async fn change(at: &Fixture, endpoint: &Endpoint, options: OptionsChange, sealed: SealedOptions) -> EndpointOptions {
    let changed = try_change(at, endpoint, options, sealed).await.unwrap();
    let found = at.found(endpoint).await.unwrap();
    assert_eq!(changed.options, found.options, "the answer equals the stored options");
    (*found.options).clone()
}

fn with_key(version: u32) -> SealedOptions {
    SealedOptions { signing_key: Some((SecretVersion(version), signing_key(version))), ..SealedOptions::default() }
}

async fn key_of(at: &Fixture, endpoint: &Endpoint, version: u32) -> Option<Vec<u8>> {
    at.store().find_signing_key(endpoint.key, SecretVersion(version)).await.unwrap()
}

async fn an_endpoint_without_options_has_the_defaults(at: Fixture) {
    let endpoint = at.endpoint().await;
    assert_eq!(*endpoint.options, EndpointOptions::default());
    assert_eq!(at.found(&endpoint).await.unwrap().options, endpoint.options);
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!((parts.version, parts.headers, parts.client_certificate), (0, vec![], None));
    assert_eq!(key_of(&at, &endpoint, 1).await, None);
}

async fn each_option_is_stored_changed_and_reset(mut at: Fixture) {
    let all = OptionsChange {
        retry_schedule: Some(Some(RetrySchedule::from_seconds(&[1, 300, 604_800]).unwrap())),
        timeout: Some(Some(Duration::from_secs(45))),
        signature_schemes: Some(SignatureSchemes::V1AndV1a),
        rate_limit: Some(Some(DeliveryRate::parse(1000).unwrap())),
        ordering: Some(DeliveryOrder::Strict),
        trace_forwarding: Some(Some(true)),
    };
    let sealed = SealedOptions { client_certificate: Some(Some(certificate())), ..with_key(1) };
    let new = NewEndpoint { options: all.clone(), sealed, ..at.new_endpoint() };
    let endpoint = at.create(new).await;
    at.reopen().await;
    let kept = at.found(&endpoint).await.unwrap().options;
    let mut expected = EndpointOptions::default();
    expected.apply(&all);
    expected.public_key = Some("whpk_1".to_owned());
    expected.client_certificate = Some(certificate().facts);
    expected.sealed_version = 1;
    assert_eq!(*kept, expected);
    let steps = [
        OptionsChange { retry_schedule: Some(None), ..OptionsChange::default() },
        OptionsChange { timeout: Some(None), ..OptionsChange::default() },
        OptionsChange { rate_limit: Some(None), ..OptionsChange::default() },
        OptionsChange { ordering: Some(DeliveryOrder::None), ..OptionsChange::default() },
        OptionsChange { trace_forwarding: Some(Some(false)), ..OptionsChange::default() },
        OptionsChange { trace_forwarding: Some(None), ..OptionsChange::default() },
        schemes(SignatureSchemes::V1),
    ];
    for step in steps {
        expected.apply(&step);
        assert_eq!(change(&at, &endpoint, step, SealedOptions::default()).await, expected);
    }
    assert_eq!(expected.shown_public_key(), None);
}

async fn a_claim_carries_the_options_of_its_instant(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.publish(2).await;
    assert_eq!(*at.claim_one().await.endpoint.options, EndpointOptions::default());
    let slow = OptionsChange { timeout: Some(Some(Duration::from_secs(40))), ..OptionsChange::default() };
    let now = change(&at, &endpoint, slow, with_headers(vec![set("x-a", b"1")])).await;
    let claim = at.claim_one().await;
    assert_eq!(*claim.endpoint.options, now);
    assert_eq!((now.timeout, now.sealed_version), (Some(Duration::from_secs(40)), 1));
}

async fn sealed_parts_read_back_and_each_change_bumps_the_version(mut at: Fixture) {
    let endpoint = at.endpoint().await;
    let both = SealedOptions {
        client_certificate: Some(Some(certificate())),
        ..with_headers(vec![set("X-B", &[0, 255]), set("X-A", b"a")])
    };
    let options = change(&at, &endpoint, OptionsChange::default(), both).await;
    assert_eq!((options.headers, options.sealed_version), (vec![name("X-B"), name("X-A")], 1));
    at.reopen().await;
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!(parts.headers, [(name("X-B"), vec![0, 255]), (name("X-A"), b"a".to_vec())], "headers keep their order");
    assert_eq!((parts.version, parts.client_certificate), (1, Some(vec![9, 9])));

    let without = SealedOptions { client_certificate: Some(None), ..with_headers(vec![set("x-a", b"new")]) };
    let options = change(&at, &endpoint, OptionsChange::default(), without).await;
    assert_eq!((options.sealed_version, options.client_certificate), (2, None));
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!((parts.version, parts.headers), (2, vec![(name("x-a"), b"new".to_vec())]));
    assert_eq!(parts.client_certificate, None);
    let renamed = schemes(SignatureSchemes::V1);
    assert_eq!(change(&at, &endpoint, renamed, SealedOptions::default()).await.sealed_version, 2);
}

async fn a_header_keeps_its_value_under_its_name_in_any_case(at: Fixture) {
    let sealed = with_headers(vec![set("X-Token", b"t"), set("X-Gone", b"g")]);
    let endpoint = at.create(NewEndpoint { sealed, ..at.new_endpoint() }).await;
    let kept = with_headers(vec![set("X-New", b"n"), keep("x-TOKEN")]);
    let options = change(&at, &endpoint, OptionsChange::default(), kept).await;
    assert_eq!(options.headers[1].as_str(), "x-TOKEN", "the name has the case of the last change");
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!(parts.headers, [(name("X-New"), b"n".to_vec()), (name("X-Token"), b"t".to_vec())]);
}

async fn a_header_without_a_stored_value_to_keep_is_refused(at: Fixture) {
    let endpoint = at.create(NewEndpoint { sealed: with_headers(vec![set("X-A", b"a")]), ..at.new_endpoint() }).await;
    let entries = at.audit().await.len();
    let faulty = with_headers(vec![set("X-A", b"changed"), keep("X-B")]);
    let refusal = try_change(&at, &endpoint, OptionsChange::default(), faulty).await;
    assert!(matches!(refusal, Err(UpdateEndpointError::NothingToKeep(name)) if name == "X-B"));
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!((parts.version, parts.headers), (1, vec![(name("X-A"), b"a".to_vec())]));
    let new = NewEndpoint { sealed: with_headers(vec![keep("X-A")]), ..at.new_endpoint() };
    let id = new.id;
    let refusal = at.try_create(at.tenant(), new).await;
    assert!(matches!(refusal, Err(CreateEndpointError::NothingToKeep(_))));
    assert!(at.store().find_endpoint(at.tenant(), id).await.unwrap().is_none());
    assert_eq!(at.audit().await.len(), entries);
}

async fn sealed_parts_stay_with_the_origin_that_they_were_given_for(at: Fixture) {
    let sealed = SealedOptions {
        client_certificate: Some(Some(certificate())),
        ..with_headers(vec![set("X-A", b"a"), set("X-B", b"b")])
    };
    let endpoint = at.create(NewEndpoint { sealed, ..at.new_endpoint() }).await;
    let moved = async |sealed: SealedOptions| {
        let url = Some(EndpointUrl::parse("https://other.example.com/hook").unwrap());
        let change = EndpointChange { url, ..EndpointChange::default() };
        let limits = EndpointLimits { per_project: 10_000, per_workspace: 10_000 };
        let update = EndpointUpdate { change, sealed, limits };
        at.store().update_endpoint(write(at.tenant()), endpoint.id, update).await.map(done)
    };
    let without = |headers| SealedOptions { client_certificate: Some(None), ..with_headers(headers) };
    for (kept, kind) in [
        (SealedOptions::default(), SealedKind::Headers),
        (without(vec![set("X-A", b"new"), keep("x-b")]), SealedKind::Headers),
        (with_headers(vec![set("X-A", b"new")]), SealedKind::ClientCertificate),
    ] {
        let refusal = moved(kept).await;
        assert!(matches!(refusal, Err(UpdateEndpointError::SealedForOtherOrigin(named)) if named == kind));
    }
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!((parts.version, parts.url, parts.headers.len()), (1, endpoint.url.clone(), 2));

    moved(without(vec![set("X-A", b"new")])).await.unwrap();
    let parts = at.store().find_sealed_parts(endpoint.key).await.unwrap().unwrap();
    assert_eq!((parts.version, parts.url.as_str()), (2, "https://other.example.com/hook"));
    assert_eq!((parts.headers, parts.client_certificate), (vec![(name("X-A"), b"new".to_vec())], None));
}

async fn a_signing_key_is_set_once_and_for_the_newest_version_only(at: Fixture) {
    let endpoint = at.endpoint().await;
    at.rotate(&endpoint, 2, Duration::ZERO, false).await;
    let both = || schemes(SignatureSchemes::V1AndV1a);
    for late in [with_key(1), SealedOptions::default()] {
        let refusal = try_change(&at, &endpoint, both(), late).await;
        assert!(matches!(refusal, Err(UpdateEndpointError::SecretVersionChanged)));
    }
    assert_eq!(change(&at, &endpoint, both(), with_key(2)).await.public_key.as_deref(), Some("whpk_2"));
    assert_eq!(key_of(&at, &endpoint, 2).await, Some(b"sealed 2".to_vec()));
    assert_eq!(key_of(&at, &endpoint, 1).await, None);

    change(&at, &endpoint, schemes(SignatureSchemes::V1), SealedOptions::default()).await;
    let mut other = with_key(2);
    if let Some((_, key)) = &mut other.signing_key {
        (key.sealed, key.public_key) = (b"another".to_vec(), "whpk_another".to_owned());
    }
    assert_eq!(change(&at, &endpoint, both(), other).await.public_key.as_deref(), Some("whpk_2"));
    assert_eq!(
        key_of(&at, &endpoint, 2).await,
        Some(b"sealed 2".to_vec()),
        "a receiver that has the public key relies on it"
    );
}

async fn a_rotation_stores_a_signing_key_only_with_v1a(at: Fixture) {
    let off = at.endpoint().await;
    let options = schemes(SignatureSchemes::V1AndV1a);
    let on = at.create(NewEndpoint { options, sealed: with_key(1), ..at.new_endpoint() }).await;
    let rotated = at.rotate(&off, 2, Duration::ZERO, false).await;
    assert_eq!((rotated.options.public_key.clone(), key_of(&at, &off, 2).await), (None, None));
    let rotated = at.rotate(&on, 2, Duration::ZERO, false).await;
    assert_eq!(rotated.options.shown_public_key(), Some("whpk_2"));
    assert_eq!(key_of(&at, &on, 2).await, Some(b"sealed 2".to_vec()));
    assert_eq!(key_of(&at, &on, 1).await, Some(b"sealed 1".to_vec()), "the old version keeps its key");
}

async fn signing_keys_are_erased_with_their_secrets(at: Fixture) {
    let options = schemes(SignatureSchemes::V1AndV1a);
    let endpoint = at.create(NewEndpoint { options, sealed: with_key(1), ..at.new_endpoint() }).await;
    at.rotate(&endpoint, 2, Duration::ZERO, false).await;
    assert_eq!(at.store().erase_unused_secrets(10).await.unwrap(), 1);
    assert_eq!(key_of(&at, &endpoint, 1).await, None);
    assert!(key_of(&at, &endpoint, 2).await.is_some());
}

async fn sealed_parts_are_deleted_with_endpoint_and_workspace(at: Fixture) {
    let sealed = || with_headers(vec![set("X-A", b"a")]);
    let (gone, other) = (
        at.create(NewEndpoint { sealed: sealed(), ..at.new_endpoint() }).await,
        at.create(NewEndpoint { sealed: sealed(), ..at.new_endpoint() }).await,
    );
    at.delete(&gone).await;
    assert_eq!(at.store().find_sealed_parts(gone.key).await.unwrap(), None);
    assert!(at.store().find_sealed_parts(other.key).await.unwrap().is_some());
    at.store().delete_workspace(at.workspace.id, AUTHOR, None).await.unwrap();
    assert_eq!(at.store().find_sealed_parts(other.key).await.unwrap(), None);
}
