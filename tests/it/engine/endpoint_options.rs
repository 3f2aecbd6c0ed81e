//! The effect of endpoint options on deliveries: headers, deadline, retry schedule, signature schemes and client
//! certificate.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::support::app::{App, Endpoint, NOON, instant, text};
use crate::support::dns::Answer;
use crate::support::receiver::{Behaviour, Gate, Received, Receiver};
use crate::support::tls::{Clients, TestCa};
use crate::support::verify::{verify_public, verify_signature};

const EVENT: &str = "post.created";

fn body(receiver: &Receiver, more: Value) -> Value {
    let mut body = json!({"name": "A receiver", "url": receiver.url("/hook"), "events": [EVENT]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn path(endpoint: &Endpoint) -> String {
    format!("/v1/webhook-endpoints/{}", endpoint.id)
}

async fn patch(app: &App, endpoint: &Endpoint, change: Value) -> Value {
    app.caller().send(http::Method::PATCH, &path(endpoint), change.to_string()).await.data(200)
}

async fn public_key(app: &App, endpoint: &Endpoint) -> String {
    text(&app.get(&path(endpoint)).await.data(200), "publicKey")
}

async fn rotate(app: &App, endpoint: &Endpoint, body: Value) -> Value {
    app.post(&format!("{}/rotate-secret", path(endpoint)), body).await.data(200)
}

async fn deliver_one(app: &App, receiver: &Receiver) -> Received {
    let event = app.publish(EVENT, json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    receiver.received().pop().unwrap()
}

/// The schemes of the signatures, in order.
fn schemes(received: &Received) -> Vec<&str> {
    let signatures = received.header("webhook-signature").unwrap().split(' ');
    signatures.map(|signature| signature.split_once(',').unwrap().0).collect()
}

#[tokio::test]
async fn custom_headers_arrive_and_a_change_applies_to_later_claims() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let headers = json!({"headers": {"Authorization": "Bearer one", "X-Tenant": "acme"}});
    let endpoint = app.endpoint(body(&receiver, headers)).await;
    let first = deliver_one(&app, &receiver).await;
    assert_eq!(first.header("authorization"), Some("Bearer one"));
    assert_eq!(first.header("x-tenant"), Some("acme"));

    let changed = patch(&app, &endpoint, json!({"headers": {"AUTHORIZATION": "[redacted]", "X-New": "n"}})).await;
    assert_eq!(changed["headers"], json!({"AUTHORIZATION": "[redacted]", "X-New": "[redacted]"}));
    let second = deliver_one(&app, &receiver).await;
    assert_eq!(second.header("authorization"), Some("Bearer one"), "the stored value is kept");
    assert_eq!((second.header("x-new"), second.header("x-tenant")), (Some("n"), None));

    patch(&app, &endpoint, json!({"headers": changed["headers"], "name": "sent back as it was shown"})).await;
    assert_eq!(deliver_one(&app, &receiver).await.header("authorization"), Some("Bearer one"));
    patch(&app, &endpoint, json!({"headers": {"authorization": "Bearer two"}})).await;
    assert_eq!(deliver_one(&app, &receiver).await.header("authorization"), Some("Bearer two"));
    patch(&app, &endpoint, json!({"headers": null})).await;
    let bare = deliver_one(&app, &receiver).await;
    assert_eq!(bare.header("authorization"), None);
    verify_signature(&endpoint.secret, &bare).unwrap();
}

#[tokio::test]
async fn the_headers_of_one_origin_never_reach_another() {
    // More than may be in flight to one endpoint, fewer than are claimed.
    const EVENTS: usize = 24;
    let app = App::to_loopback().await;
    let (old, new) = (Receiver::start().await, Receiver::start().await);
    let endpoint = app.endpoint(body(&old, json!({"headers": {"X-Token": "for-the-old"}}))).await;
    // A fast answer, so that the next deliveries are claimed ahead of their turn.
    deliver_one(&app, &old).await;
    let gate = Gate::closed();
    old.otherwise(Behaviour::hold(&gate));
    let mut events = Vec::new();
    for _ in 0..EVENTS {
        events.push(app.publish(EVENT, json!({})).await);
    }
    old.wait_for(1 + 8).await;
    patch(&app, &endpoint, json!({"url": new.url("/hook"), "headers": {"X-Token": "for-the-new"}})).await;
    // A test does not wait for its turn: from now on the new header is in the cache of opened options.
    app.post(&format!("{}/test", path(&endpoint)), json!({})).await.data(202);
    new.wait_for(1).await;
    gate.open();
    for event in events {
        app.delivery_ended(&event, "delivered").await;
    }
    let tokens = |receiver: &Receiver| {
        let mut tokens: Vec<_> =
            receiver.received().iter().map(|got| got.header("x-token").map(str::to_owned)).collect();
        tokens.dedup();
        tokens
    };
    assert_eq!(tokens(&old), [Some("for-the-old".to_owned())]);
    assert_eq!(tokens(&new), [Some("for-the-new".to_owned())]);
    assert_eq!(old.counts().requests + new.counts().requests, 1 + EVENTS + 1, "none is sent twice");
}

#[tokio::test]
async fn a_simulated_attempt_logs_custom_headers_without_values() {
    let app = App::to_loopback().await.in_test_mode().await;
    let receiver = Receiver::start().await;
    app.endpoint(body(&receiver, json!({"headers": {"X-Token": "hush-hush"}}))).await;
    let event = app.publish(EVENT, json!({})).await;
    let delivery = app.delivery_ended(&event, "simulated").await;
    let headers = delivery["attempts"][0]["requestHeaders"].to_string();
    assert!(headers.contains("x-token") && headers.contains("[redacted]"), "{headers}");
    assert!(!delivery.to_string().contains("hush-hush"), "{delivery}");
}

#[tokio::test]
async fn an_endpoints_own_schedule_sets_times_and_number_of_retries() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Behaviour::status(500));
    app.endpoint(body(&receiver, json!({"retrySchedule": [1000]}))).await;
    let event = app.publish(EVENT, json!({})).await;
    let next = instant(&app.attempted(&event, 1).await["attempts"][0], "nextAttemptAt");
    let wait = next.since(NOON).as_secs();
    assert!((800..=1200).contains(&wait), "{wait} s");
    app.clock().set(next);
    let failed = app.delivery_ended(&event, "failed").await;
    assert_eq!(failed["attempts"].as_array().unwrap().len(), 2, "the server's own schedule has nine waits");
}

#[tokio::test]
async fn an_endpoints_own_deadline_cuts_the_whole_exchange() {
    let app = App::set_up().await.allow("127.0.0.1").real_time().start().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.otherwise(Behaviour::hold(&gate));
    app.endpoint(body(&receiver, json!({"timeoutSeconds": 1}))).await;
    let event = app.publish(EVENT, json!({})).await;
    let attempt = app.attempted(&event, 1).await["attempts"][0].clone();
    assert_eq!(attempt["outcome"], "timeout");
    let took = attempt["durationMs"].as_u64().unwrap();
    assert!((900..10_000).contains(&took), "{took} ms; the server's own deadline is 15 s");
    gate.open();
}

#[tokio::test]
async fn v1a_is_sent_beside_v1_and_verifies_with_the_public_key() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint(body(&receiver, json!({"signatureSchemes": ["v1", "v1a"]}))).await;
    let received = deliver_one(&app, &receiver).await;
    assert_eq!(schemes(&received), ["v1", "v1a"]);
    let key = public_key(&app, &endpoint).await;
    verify_public(&key, &received).unwrap();
    verify_signature(&endpoint.secret, &received).unwrap();
    let forged = Received { body: b"{}".to_vec(), ..received.clone() };
    verify_public(&key, &forged).unwrap_err();
    let other = app.endpoint(body(&receiver, json!({"signatureSchemes": ["v1", "v1a"]}))).await;
    verify_public(&public_key(&app, &other).await, &received).unwrap_err();
}

#[tokio::test]
async fn v1a_can_be_switched_and_keeps_its_key_until_a_rotation() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &[EVENT]).await;
    assert_eq!(schemes(&deliver_one(&app, &receiver).await), ["v1"]);
    let key = text(&patch(&app, &endpoint, json!({"signatureSchemes": ["v1", "v1a"]})).await, "publicKey");
    verify_public(&key, &deliver_one(&app, &receiver).await).unwrap();
    assert_eq!(patch(&app, &endpoint, json!({"signatureSchemes": null})).await["publicKey"], Value::Null);
    assert_eq!(schemes(&deliver_one(&app, &receiver).await), ["v1"]);
    let again = patch(&app, &endpoint, json!({"signatureSchemes": ["v1", "v1a"]})).await;
    assert_eq!(again["publicKey"], key.as_str());
    patch(&app, &endpoint, json!({"signatureSchemes": ["v1"]})).await;
    assert_eq!(rotate(&app, &endpoint, json!({})).await["publicKey"], Value::Null);
    let fresh = text(&patch(&app, &endpoint, json!({"signatureSchemes": ["v1", "v1a"]})).await, "publicKey");
    assert_ne!(fresh, key);
    verify_public(&fresh, &deliver_one(&app, &receiver).await).unwrap();
}

#[tokio::test]
async fn a_rotation_renews_the_v1a_key_and_an_overlap_accepts_both() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint(body(&receiver, json!({"signatureSchemes": ["v1", "v1a"]}))).await;
    let old = public_key(&app, &endpoint).await;
    receiver.then(Behaviour::status(500));
    let queued = app.publish(EVENT, json!({})).await;
    let next = instant(&app.attempted(&queued, 1).await["attempts"][0], "nextAttemptAt");
    let rotated = rotate(&app, &endpoint, json!({"overlapSeconds": 60})).await;
    let (new, secret) = (text(&rotated, "publicKey"), text(&rotated, "secret"));
    assert_ne!(new, old);

    let both = deliver_one(&app, &receiver).await;
    assert_eq!(schemes(&both), ["v1", "v1a", "v1", "v1a"]);
    for key in [&new, &old] {
        verify_public(key, &both).unwrap();
    }
    for secret in [&secret, &endpoint.secret] {
        verify_signature(secret, &both).unwrap();
    }
    app.clock().set(next);
    app.delivery_ended(&queued, "delivered").await;
    let before = receiver.received().pop().unwrap();
    assert_eq!(schemes(&before), ["v1", "v1a"]);
    verify_public(&old, &before).unwrap();
    verify_public(&new, &before).unwrap_err();

    app.clock().advance(Duration::from_secs(61));
    let after = deliver_one(&app, &receiver).await;
    assert_eq!(schemes(&after), ["v1", "v1a"]);
    verify_public(&new, &after).unwrap();
}

#[tokio::test]
async fn queued_events_use_the_new_v1a_key_when_the_old_is_revoked() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint(body(&receiver, json!({"signatureSchemes": ["v1", "v1a"]}))).await;
    let old = public_key(&app, &endpoint).await;
    receiver.then(Behaviour::status(500));
    let queued = app.publish(EVENT, json!({})).await;
    let next = instant(&app.attempted(&queued, 1).await["attempts"][0], "nextAttemptAt");
    let new = text(&rotate(&app, &endpoint, json!({"revokeQueued": true})).await, "publicKey");
    app.clock().set(next);
    app.delivery_ended(&queued, "delivered").await;
    let received = receiver.received().pop().unwrap();
    verify_public(&new, &received).unwrap();
    verify_public(&old, &received).unwrap_err();
}

#[tokio::test]
async fn a_receiver_gets_the_client_certificate_of_the_endpoint() {
    let (servers, clients) = (TestCa::new(), TestCa::new());
    let app = App::set_up().await.allow("127.0.0.1").trust(&servers).start().await;
    app.dns().set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let settings = servers.leaf(&["hooks.test"]).server_config_for(Clients::Of(&clients), &["http/1.1"]);
    let receiver = Receiver::start_tls_with(settings).await;
    let pem = clients.client("acme");
    let mut body = body(&receiver, json!({"clientCertificate": {"certificate": pem.chain, "privateKey": pem.key}}));
    body["url"] = receiver.url_at("hooks.test", "/").into();
    let endpoint = app.endpoint(body).await;
    let received = deliver_one(&app, &receiver).await;
    assert_eq!(received.tls.unwrap().client, Some(pem.der.clone()));
    let der = BASE64_STANDARD.decode(pem.chain.lines().filter(|line| !line.starts_with("--")).collect::<String>());
    assert_eq!(der.unwrap(), pem.der);

    patch(&app, &endpoint, json!({"clientCertificate": null})).await;
    let event = app.publish(EVENT, json!({})).await;
    let attempt = app.attempted(&event, 1).await["attempts"][0].clone();
    assert_eq!(attempt["outcome"], "tls_failed", "{attempt}");
}
