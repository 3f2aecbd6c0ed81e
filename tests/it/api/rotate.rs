//! `/v1/webhook-endpoints/{endpointId}/rotate-secret`.

use std::time::Duration;

use serde_json::{Value, json};
use standardwebhooks::Webhook;

use super::{ENDPOINTS, an_endpoint, faults};
use crate::support::app::{App, Endpoint, instant, text};
use crate::support::receiver::{Behaviour, Received, Receiver};
use crate::support::verify::verify_signature;

fn path(endpoint: &Endpoint) -> String {
    format!("{ENDPOINTS}/{}/rotate-secret", endpoint.id)
}

async fn rotate(app: &App, endpoint: &Endpoint, body: Value) -> String {
    text(&app.post(&path(endpoint), body).await.data(200), "secret")
}

/// The signature of a request with this secret.
fn signature(secret: &str, received: &Received) -> String {
    let timestamp = received.header("webhook-timestamp").unwrap().parse().unwrap();
    let id = received.header("webhook-id").unwrap();
    Webhook::new(secret).unwrap().sign(id, timestamp, &received.body).unwrap()
}

fn signatures(received: &Received) -> Vec<&str> {
    received.header("webhook-signature").unwrap().split(' ').collect()
}

/// An endpoint with one delivery that has failed once and waits for its retry.
async fn with_one_queued(app: &App, receiver: &Receiver) -> (Endpoint, String) {
    let endpoint = app.endpoint_to(receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    app.attempted(&event, 1).await;
    (endpoint, event)
}

async fn deliver_queued(app: &App, receiver: &Receiver, event: &str) -> Received {
    app.clock().set(instant(&app.attempted(event, 1).await, "nextAttemptAt"));
    app.delivery_ended(event, "delivered").await;
    receiver.received().pop().unwrap()
}

async fn deliver_one(app: &App, receiver: &Receiver) -> Received {
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    receiver.received().pop().unwrap()
}

#[tokio::test]
async fn a_rotation_shows_a_new_secret_once() {
    let app = App::start().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    app.clock().advance(Duration::from_secs(60));
    let reply = app.caller().post_text(&path(&endpoint), "").await;
    let rotated = reply.data(200);
    let secret = text(&rotated, "secret");
    assert!(secret.starts_with("whsec_") && secret.len() == 70 && secret != endpoint.secret, "{secret}");
    assert_eq!(rotated["secretLast4"], secret[66..]);
    assert_eq!(rotated["updatedAt"], "2026-05-15T12:01:00.000Z");
    let shown = app.get(&format!("{ENDPOINTS}/{}", endpoint.id)).await.data(200);
    let mut without = rotated.clone();
    without.as_object_mut().unwrap().remove("secret");
    assert_eq!(shown, without);
    let members: Vec<&String> = rotated.as_object().unwrap().keys().collect();
    let published = "id url name events isActive disabledReason projectId secretLast4 createdAt secret updatedAt";
    let published: Vec<_> = published.split(' ').collect();
    assert_eq!(members[..published.len()], published, "what was added stands behind");
}

#[tokio::test]
async fn each_call_creates_a_new_secret_despite_an_idempotency_key() {
    let app = App::start().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let caller = app.caller().keyed("k");
    let replies = [caller.post(&path(&endpoint), json!({})).await, caller.post(&path(&endpoint), json!({})).await];
    let secrets = replies.each_ref().map(|reply| text(&reply.data(200), "secret"));
    assert_ne!(secrets[0], secrets[1]);
    assert!(replies.iter().all(|reply| reply.header("idempotent-replayed").is_none()));
}

#[tokio::test]
async fn concurrent_rotations_all_succeed_and_one_secret_signs() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let rotations = futures_util::future::join_all((0..4).map(|_| rotate(&app, &endpoint, json!({})))).await;
    let received = deliver_one(&app, &receiver).await;
    assert_eq!(rotations.iter().filter(|secret| verify_signature(secret, &received).is_ok()).count(), 1);
    verify_signature(&endpoint.secret, &received).unwrap_err();
}

#[tokio::test]
async fn queued_events_keep_the_old_secret_and_later_ones_use_the_new() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let (endpoint, queued) = with_one_queued(&app, &receiver).await;
    let fresh = rotate(&app, &endpoint, json!({})).await;
    let later = deliver_one(&app, &receiver).await;
    assert_eq!(signatures(&later), [signature(&fresh, &later)]);
    let before = deliver_queued(&app, &receiver, &queued).await;
    assert_eq!(signatures(&before), [signature(&endpoint.secret, &before)]);
    verify_signature(&fresh, &before).unwrap_err();
}

#[tokio::test]
async fn in_an_overlap_both_secrets_verify_and_the_new_one_is_first() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let (endpoint, queued) = with_one_queued(&app, &receiver).await;
    let fresh = rotate(&app, &endpoint, json!({"overlapSeconds": 60, "revokeQueued": false})).await;
    let both = deliver_one(&app, &receiver).await;
    assert_eq!(signatures(&both), [signature(&fresh, &both), signature(&endpoint.secret, &both)]);
    for secret in [&fresh, &endpoint.secret] {
        verify_signature(secret, &both).unwrap();
    }
    let before = deliver_queued(&app, &receiver, &queued).await;
    assert_eq!(signatures(&before), [signature(&endpoint.secret, &before)], "what was queued before keeps its own");
    app.clock().advance(Duration::from_secs(60));
    let after = deliver_one(&app, &receiver).await;
    assert_eq!(signatures(&after), [signature(&fresh, &after)]);
}

#[tokio::test]
async fn queued_events_use_the_new_secret_when_the_old_is_revoked() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let (endpoint, queued) = with_one_queued(&app, &receiver).await;
    let fresh = rotate(&app, &endpoint, json!({"revokeQueued": true, "overlapSeconds": 60})).await;
    let revoked = deliver_queued(&app, &receiver, &queued).await;
    assert_eq!(signatures(&revoked), [signature(&fresh, &revoked)]);
    let later = deliver_one(&app, &receiver).await;
    assert_eq!(signatures(&later), [signature(&fresh, &later), signature(&endpoint.secret, &later)]);
}

#[tokio::test]
async fn a_rotation_survives_a_restart() {
    let mut app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let (endpoint, queued) = with_one_queued(&app, &receiver).await;
    let fresh = rotate(&app, &endpoint, json!({})).await;
    app.restart().await;
    let later = deliver_one(&app, &receiver).await;
    verify_signature(&fresh, &later).unwrap();
    let before = deliver_queued(&app, &receiver, &queued).await;
    verify_signature(&endpoint.secret, &before).unwrap();
}

#[tokio::test]
async fn an_overlap_lasts_up_to_seven_days() {
    let app = App::start().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    for taken in [0, 604_800] {
        rotate(&app, &endpoint, json!({"overlapSeconds": taken})).await;
    }
    let before = app.get(&format!("{ENDPOINTS}/{}", endpoint.id)).await.data(200);
    for wrong in [json!(604_801), json!(-1), json!(1.5), json!("60"), Value::Null, json!(true)] {
        let error = app.post(&path(&endpoint), json!({"overlapSeconds": wrong})).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({"overlapSeconds": "must be a whole number from 0 to 604800"}));
    }
    let error =
        app.post(&path(&endpoint), json!({"revokeQueued": 1, "secret": "x"})).await.error(400, "invalid_request");
    let expected = json!({"revokeQueued": "must be true or false", "secret": "is not a known parameter"});
    assert_eq!(*faults(&error), expected);
    assert_eq!(app.get(&format!("{ENDPOINTS}/{}", endpoint.id)).await.data(200), before);
}
