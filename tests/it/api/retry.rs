//! `/v1/webhook-deliveries/{deliveryId}/retry`.

use std::time::Duration;

use http::Method;
use postrider_domain::time::Clock;
use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, assert_done_once, faults, patch};
use crate::support::app::{App, instant, text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::verify::verify_signature;

/// An app, its receiver, an endpoint and a delivery that has arrived there.
async fn with_delivered() -> (App, Receiver, crate::support::app::Endpoint, Value) {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({"n": 1.0, "a": "\u{e9}"})).await;
    let delivered = app.delivery_ended(&event, "delivered").await;
    (app, receiver, endpoint, delivered)
}

fn path(delivery: &Value) -> String {
    format!("{DELIVERIES}/{}/retry", text(delivery, "id"))
}

#[tokio::test]
async fn a_retry_sends_the_same_bytes_signed_with_the_current_secret() {
    let (app, receiver, endpoint, first) = with_delivered().await;
    app.clock().advance(Duration::from_secs(60));
    let rotated = app.post(&format!("{ENDPOINTS}/{}/rotate-secret", endpoint.id), json!({})).await.data(200);
    let retry = app.caller().post_text(&path(&first), "").await.data(202);
    assert_ne!(retry["id"], first["id"]);
    assert_eq!((&retry["retryOf"], &retry["cause"]), (&first["id"], &json!("retry")));
    assert_eq!((&retry["status"], &retry["attemptCount"]), (&json!("pending"), &json!(0)));
    for member in ["eventId", "eventType", "endpointId", "projectId", "mode"] {
        assert_eq!(retry[member], first[member], "{member}");
    }
    let received = receiver.wait_for(2).await;
    assert_eq!(received[0].body, received[1].body);
    assert_eq!(received[0].header("webhook-id"), received[1].header("webhook-id"));
    assert_eq!(received[1].header("scripe-replay"), Some("true"));
    assert_eq!(received[0].header("scripe-replay"), None);
    assert_eq!(received[1].header("scripe-delivery-id"), retry["id"].as_str());
    assert_eq!(received[1].header("scripe-delivery-attempt"), Some("1"));
    verify_signature(&text(&rotated, "secret"), &received[1]).unwrap();
    verify_signature(&endpoint.secret, &received[1]).unwrap_err();
    assert_eq!(app.delivery(&text(&first, "id")).await, first, "the first stays as it was");
}

#[tokio::test]
async fn a_retry_gets_the_whole_schedule() {
    let (app, receiver, _endpoint, first) = with_delivered().await;
    receiver.otherwise(Behaviour::status(500));
    let retry = app.post(&path(&first), json!({})).await.data(202);
    let filter = format!("eventId={}&status=pending", text(&first, "eventId"));
    for (made, seconds) in [(1, 5.0), (2, 300.0), (3, 1800.0)] {
        let before = app.clock().now();
        let attempted = app
            .deliveries_when(&filter, "is attempted", |all| {
                all[0]["attemptCount"] == made && all[0]["nextAttemptAt"] != Value::Null
            })
            .await;
        assert_eq!(attempted[0]["id"], retry["id"]);
        let due = instant(&attempted[0], "nextAttemptAt");
        let wait = due.since(before).as_secs_f64() / seconds;
        assert!((0.8..=1.2).contains(&wait), "attempt {made} waits {wait} of its step");
        app.clock().set(due);
    }
    let received = receiver.wait_for(5).await;
    let numbers: Vec<_> = received[1..].iter().map(|request| request.header("scripe-delivery-attempt")).collect();
    assert_eq!(numbers, [Some("1"), Some("2"), Some("3"), Some("4")]);
    assert!(received[1..].iter().all(|request| request.header("scripe-replay") == Some("true")));
}

#[tokio::test]
async fn an_inactive_endpoint_is_a_conflict() {
    let (app, receiver, endpoint, first) = with_delivered().await;
    patch(app.caller(), &endpoint.id, json!({"isActive": false})).await.data(200);
    let error = app.post(&path(&first), json!({})).await.error(409, "conflict");
    assert_eq!(error["message"], "The endpoint is not active: set isActive to true first.");
    assert_eq!(app.deliveries("").await.len(), 1);
    patch(app.caller(), &endpoint.id, json!({"isActive": true})).await.data(200);
    app.post(&path(&first), json!({})).await.data(202);
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn a_retry_is_queued_once_per_idempotency_key() {
    let (app, _receiver, _endpoint, first) = with_delivered().await;
    assert_done_once(app.caller(), Method::POST, &path(&first), json!({}), 202).await;
    assert_eq!(app.deliveries("").await.len(), 2);
}

#[tokio::test]
async fn an_unknown_delivery_cannot_be_retried() {
    let (app, _receiver, _endpoint, first) = with_delivered().await;
    for id in ["dlv_00000000000000000000", "dlv_1", &text(&first, "eventId")] {
        app.post(&format!("{DELIVERIES}/{id}/retry"), json!({})).await.error(404, "not_found");
    }
    let error = app.post(&path(&first), json!({"at": "once"})).await.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"at": "is not a known parameter"}));
}
