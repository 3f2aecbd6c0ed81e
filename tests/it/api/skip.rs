//! `/v1/webhook-deliveries/{deliveryId}/skip`.

use http::Method;
use postrider_domain::access::Scope;
use serde_json::{Value, json};

use super::{DELIVERIES, assert_done_once, faults, patch};
use crate::support::app::{App, text};
use crate::support::receiver::{Behaviour, Receiver};

/// An app with one retry, a receiver that fails twice, and an endpoint whose strict order has stopped at a failed
/// delivery. Returns the app, the receiver, the event that waits, and the failed delivery.
async fn with_stopped() -> (App, Receiver, String, Value) {
    let setup = App::set_up().await.allow("127.0.0.0/8").real_time();
    let app = setup.change(|settings| settings.retry_schedule = "10ms".parse().unwrap()).start().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    assert_eq!(patch(app.caller(), &endpoint.id, json!({"ordering": "strict"})).await.status, 200);
    receiver.then(Behaviour::status(500)).then(Behaviour::status(500));
    let first = app.publish("post.created", json!({"n": 1})).await;
    let failed = app.delivery_ended(&first, "failed").await;
    let second = app.publish("post.created", json!({"n": 2})).await;
    (app, receiver, second, failed)
}

fn path(delivery: &Value) -> String {
    format!("{DELIVERIES}/{}/skip", text(delivery, "id"))
}

#[tokio::test]
async fn a_skip_resumes_the_order_and_leaves_the_delivery_failed() {
    let (app, receiver, second, failed) = with_stopped().await;
    assert_eq!((&failed["reason"], &failed["isBlocking"]), (&json!("exhausted"), &json!(true)));
    let waiting = app.deliveries(&format!("eventId={second}")).await.remove(0);
    assert_eq!((&waiting["status"], &waiting["nextAttemptAt"]), (&json!("pending"), &Value::Null));
    assert_eq!(receiver.counts().requests, 2);
    let skipped = app.post(&path(&failed), json!({})).await.data(200);
    assert_eq!((&skipped["id"], &skipped["status"]), (&failed["id"], &json!("failed")));
    assert_eq!(skipped["isBlocking"], false);
    app.delivery_ended(&second, "delivered").await;
    let received = receiver.wait_for(3).await;
    assert_eq!(received[2].header("scripe-replay"), None);
    let error = app.post(&path(&failed), json!({})).await.error(409, "conflict");
    assert_eq!(error["message"], "No strict order has stopped at this delivery, so there is nothing to skip.");
}

#[tokio::test]
async fn a_manual_retry_precedes_the_waiting_events_and_is_marked() {
    let (app, receiver, second, failed) = with_stopped().await;
    let retried = app.post(&format!("{DELIVERIES}/{}/retry", text(&failed, "id")), json!({})).await.data(202);
    app.delivery_ended(&second, "delivered").await;
    let received = receiver.wait_for(4).await;
    let summary = |index: usize| (received[index].json()["data"]["n"].clone(), received[index].header("scripe-replay"));
    assert_eq!([summary(2), summary(3)], [(json!(1), Some("true")), (json!(2), None)]);
    assert_eq!(received[2].header("scripe-delivery-id"), retried["id"].as_str());
    assert_eq!(app.delivery(&text(&failed, "id")).await["isBlocking"], false);
}

#[tokio::test]
async fn a_skip_is_done_once_per_idempotency_key() {
    let (app, _receiver, second, failed) = with_stopped().await;
    assert_done_once(app.caller(), Method::POST, &path(&failed), json!({}), 200).await;
    app.delivery_ended(&second, "delivered").await;
}

#[tokio::test]
async fn a_delivery_that_blocks_nothing_cannot_be_skipped() {
    let (app, _receiver, second, failed) = with_stopped().await;
    let waiting = app.deliveries(&format!("eventId={second}")).await.remove(0);
    app.post(&path(&waiting), json!({})).await.error(409, "conflict");
    for id in ["dlv_00000000000000000000", "dlv_1", &text(&failed, "eventId")] {
        app.post(&format!("{DELIVERIES}/{id}/skip"), json!({})).await.error(404, "not_found");
    }
    let error = app.post(&path(&failed), json!({"at": "once"})).await.error(400, "invalid_request");
    assert_eq!(*faults(&error), json!({"at": "is not a known parameter"}));
    let reader = app.caller_of("Acme", &[Scope::WebhooksRead]).await;
    reader.post(&path(&failed), json!({})).await.error(403, "scope_missing");
}
