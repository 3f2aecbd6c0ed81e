//! `/v1/webhook-endpoints/{endpointId}/test`.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, an_endpoint_with, assert_done_once, faults, patch};
use crate::support::app::{App, text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::verify::verify_signature;

async fn ended(app: &App, queued: &Value, status: &str) -> Value {
    app.delivery_ended(&text(queued, "eventId"), status).await
}

#[tokio::test]
async fn a_test_arrives_signed_and_marked_at_an_inactive_endpoint() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["job.failed", "post.created"]).await;
    patch(app.caller(), &endpoint.id, json!({"isActive": false})).await.data(200);
    let queued = app.caller().post_text(&format!("{ENDPOINTS}/{}/test", endpoint.id), "").await.data(202);
    assert_eq!(
        (&queued["cause"], &queued["status"], &queued["mode"]),
        (&json!("test"), &json!("pending"), &json!("live"))
    );
    assert_eq!((&queued["eventType"], &queued["endpointId"]), (&json!("job.failed"), &json!(endpoint.id)));
    ended(&app, &queued, "delivered").await;
    let received = receiver.wait_for(1).await.remove(0);
    assert_eq!((received.header("scripe-test"), received.header("scripe-replay")), (Some("true"), None));
    assert_eq!(received.header("scripe-delivery-id"), queued["id"].as_str());
    verify_signature(&endpoint.secret, &received).unwrap();
    let body = received.json();
    assert_eq!((&body["type"], &body["id"]), (&json!("job.failed"), &queued["eventId"]));
    assert_eq!(body["data"]["status"], "FAILED", "the example of the catalogue: {body}");
    let shown = app.get(&format!("{ENDPOINTS}/{}", endpoint.id)).await.data(200);
    assert_eq!(shown["isActive"], false);
}

#[tokio::test]
async fn an_ordinary_delivery_is_not_marked_as_a_test() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    app.publish("post.created", json!({})).await;
    assert_eq!(receiver.wait_for(1).await[0].header("scripe-test"), None);
}

#[tokio::test]
async fn a_failed_test_is_retried_only_by_hand_and_stays_a_test() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500));
    let queued = app.post(&format!("{ENDPOINTS}/{}/test", endpoint.id), json!({})).await.data(202);
    let failed = ended(&app, &queued, "failed").await;
    assert_eq!((&failed["reason"], &failed["attemptCount"]), (&json!("exhausted"), &json!(1)));
    app.clock().advance(Duration::from_secs(3600));
    app.clock().until_asleep(3).await;
    assert_eq!(receiver.counts().requests, 1);
    let retried = app.post(&format!("{DELIVERIES}/{}/retry", text(&queued, "id")), json!({})).await.data(202);
    assert_eq!((&retried["cause"], &retried["retryOf"]), (&json!("test"), &queued["id"]));
    assert_eq!(receiver.wait_for(2).await[1].header("scripe-test"), Some("true"));
}

#[tokio::test]
async fn the_event_must_be_one_that_the_endpoint_is_subscribed_to() {
    let app = App::start().await.in_test_mode().await;
    let events = json!(["post.created", "note.created"]);
    let endpoint = app.endpoint(an_endpoint_with("events", events)).await;
    let path = format!("{ENDPOINTS}/{}/test", endpoint.id);
    let chosen = app.post(&path, json!({"event": "note.created"})).await.data(202);
    assert_eq!(chosen["eventType"], "note.created");
    assert_eq!(app.post(&path, json!({"event": null})).await.data(202)["eventType"], "post.created");
    let error = app.post(&path, json!({"event": "job.failed"})).await.error(422, "unprocessable");
    assert_eq!(*faults(&error), json!({"event": "must be one that the endpoint is subscribed to"}));
    for wrong in [json!({"event": "nope"}), json!({"event": 1}), json!({"events": []})] {
        app.post(&path, wrong).await.error(400, "invalid_request");
    }
    app.post(&format!("{ENDPOINTS}/whe_0000000000000000/test"), json!({})).await.error(404, "not_found");
}

#[tokio::test]
async fn a_test_is_sent_once_per_idempotency_key() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let path = format!("{ENDPOINTS}/{}/test", endpoint.id);
    let first = assert_done_once(app.caller(), Method::POST, &path, json!({}), 202).await;
    ended(&app, &first.data(202), "delivered").await;
    assert_eq!(app.deliveries("").await.len(), 1);
}

#[tokio::test]
async fn with_a_test_key_no_request_is_sent() {
    let app = App::to_loopback().await.in_test_mode().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let tested = app.post(&format!("{ENDPOINTS}/{}/test", endpoint.id), json!({})).await.data(202);
    let shown = ended(&app, &tested, "simulated").await;
    let headers = shown["attempts"][0]["requestHeaders"].as_array().unwrap();
    assert!(headers.iter().any(|header| *header == json!({"name": "scripe-test", "value": "true"})), "{headers:?}");
    let retried = app.post(&format!("{DELIVERIES}/{}/retry", text(&tested, "id")), json!({})).await.data(202);
    let id = text(&retried, "id");
    app.deliveries_when("status=simulated", "are simulated", |all| all.iter().any(|one| one["id"] == *id)).await;
    assert_eq!(receiver.counts().requests, 0);
}
