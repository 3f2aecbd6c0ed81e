//! Endpoints whose receivers fail: they are paused, probed, resumed and disabled, and the API and the operator see it.

use std::time::Duration;

use postrider_domain::time::{Clock, Timestamp};
use serde_json::{Value, json};

use crate::support::app::{App, Endpoint, instant, text};
use crate::support::receiver::{Answer, Behaviour, Received, Receiver};
use crate::support::verify::verify_signature;
use crate::support::wait::eventually;

async fn shown(app: &App, endpoint: &Endpoint) -> Value {
    app.get(&format!("/v1/webhook-endpoints/{}", endpoint.id)).await.data(200)
}

/// Waits until the endpoint has failed `failures` times since its last success. Returns the endpoint.
async fn failed(app: &App, endpoint: &Endpoint, failures: u64) -> Value {
    let what = format!("{failures} failures of {}", endpoint.id);
    eventually(&what, || async {
        let shown = shown(app, endpoint).await;
        (shown["health"]["failures"] == failures).then_some(shown)
    })
    .await
}

/// Fails five attempts of one event, which pauses the endpoint. Returns the event's id and the endpoint.
async fn pause(app: &App, receiver: &Receiver, endpoint: &Endpoint) -> (String, Value) {
    receiver.otherwise(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    for made in 1..5 {
        let delivery = app.attempted(&event, made).await;
        app.clock().set(instant(&delivery, "nextAttemptAt"));
    }
    app.attempted(&event, 5).await;
    (event, failed(app, endpoint, 5).await)
}

/// Waits for `count` different events. A clock that jumps past a lease causes attempts in flight to be sent again.
async fn distinct(receiver: &Receiver, count: usize) -> Vec<Received> {
    eventually(&format!("{count} different events"), || async {
        let mut seen = std::collections::HashSet::new();
        let mut arrived = receiver.received();
        arrived.retain(|request| seen.insert(request.header("webhook-id").map(str::to_owned)));
        (arrived.len() >= count).then_some(arrived)
    })
    .await
}

fn next_probe(endpoint: &Value) -> Timestamp {
    instant(&endpoint["health"], "nextProbeAt")
}

#[tokio::test]
async fn a_dead_endpoint_is_paused_and_resumes_with_its_backlog() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let (first, paused) = pause(&app, &receiver, &endpoint).await;
    assert_eq!((&paused["health"]["state"], &paused["isActive"]), (&json!("paused"), &json!(true)));
    assert_eq!(instant(&paused["health"], "since"), app.clock().now());
    assert_eq!(next_probe(&paused), app.clock().now().plus(Duration::from_secs(30)));
    let disables_at = instant(&paused["health"], "disablesAt");
    assert!(disables_at > app.clock().now().plus(Duration::from_secs(4 * 24 * 3600)));

    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(app.publish("post.created", json!({})).await);
    }
    app.clock().set(next_probe(&paused).minus(Duration::from_millis(1)));
    app.clock().until_asleep(2).await;
    assert_eq!(receiver.counts().requests, 5, "nothing is sent before the probe's time");

    app.clock().set(next_probe(&paused));
    let probed = failed(&app, &endpoint, 6).await;
    assert_eq!(next_probe(&probed), app.clock().now().plus(Duration::from_secs(60)));
    assert_eq!(receiver.counts().requests, 6, "one probe");

    receiver.otherwise(Behaviour::status(200));
    app.clock().set(next_probe(&probed));
    for event in &waiting {
        app.delivery_ended(event, "delivered").await;
    }
    let resumed = shown(&app, &endpoint).await;
    assert_eq!(
        resumed["health"],
        json!({"state": "ok", "since": null, "failures": 0, "nextProbeAt": null, "disablesAt": null})
    );
    // The failed delivery continues its own schedule. The probes have used none of its steps.
    let delivery = app.delivery_when(&first, "waits", |delivery| delivery["status"] == "pending").await;
    app.clock().set(instant(&delivery, "nextAttemptAt"));
    assert_eq!(app.delivery_ended(&first, "delivered").await["attemptCount"], 6);
}

#[tokio::test]
async fn an_endpoint_dead_for_five_days_is_disabled_until_reactivated() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let (first, mut last) = pause(&app, &receiver, &endpoint).await;
    let waiting = app.publish("post.created", json!({})).await;
    let began = instant(&app.delivery_when(&first, "is there", |_| true).await["attempts"][0], "startedAt");
    let mut failures = 5;
    while last["isActive"] == true {
        app.clock().set(next_probe(&last));
        failures += 1;
        last = failed(&app, &endpoint, failures).await;
    }
    assert_eq!(last["disabledReason"], "failing");
    assert_eq!((&last["health"]["nextProbeAt"], &last["health"]["disablesAt"]), (&Value::Null, &Value::Null));
    let age = app.clock().now().since(began).as_secs();
    assert!((5 * 24 * 3600..5 * 24 * 3600 + 3600).contains(&age), "{age} s");
    let skipped = app.publish("post.created", json!({})).await;
    assert_eq!(app.delivery_ended(&skipped, "skipped").await["reason"], "failing");

    receiver.otherwise(Behaviour::status(200));
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    let on = app.caller().patch(&path, json!({"isActive": true})).await.data(200);
    assert_eq!((&on["disabledReason"], &on["health"]["state"]), (&Value::Null, &json!("ok")));
    // A failed probe is rescheduled behind everything that was due then.
    app.clock().advance(Duration::from_millis(1));
    app.delivery_ended(&first, "delivered").await;
    app.delivery_ended(&waiting, "delivered").await;
}

#[tokio::test]
async fn retry_after_holds_back_all_deliveries_of_the_endpoint() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Answer::status(429).header("retry-after", "60"));
    let refused = app.publish("post.created", json!({})).await;
    app.attempted(&refused, 1).await;
    failed(&app, &endpoint, 1).await;
    let other = app.publish("post.created", json!({})).await;
    app.clock().advance(Duration::from_millis(59_999));
    app.clock().until_asleep(2).await;
    assert_eq!(receiver.counts().requests, 1);
    app.clock().advance(Duration::from_millis(1));
    app.delivery_ended(&refused, "delivered").await;
    app.delivery_ended(&other, "delivered").await;
}

#[tokio::test]
async fn the_operator_webhook_gets_signed_operational_events() {
    let (operations, receiver) = (Receiver::start().await, Receiver::start().await);
    let url = operations.url("/operations");
    // The rule is for the customer's receiver. The operator's needs none.
    let set_up = App::set_up().await.allow(&format!("http://{}", receiver.address()));
    let mut app = set_up.change(|settings| settings.operator_webhook_url = Some(url)).start().await;
    let secret = std::fs::read_to_string(app.data_dir().join("operator-webhook.secret")).unwrap();
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let (_, paused) = pause(&app, &receiver, &endpoint).await;
    let arrived = distinct(&operations, 2).await;
    let envelopes: Vec<Value> = arrived.iter().map(|request| serde_json::from_slice(&request.body).unwrap()).collect();
    assert_eq!(
        envelopes.iter().map(|envelope| &envelope["type"]).collect::<Vec<_>>(),
        ["endpoint.failing", "endpoint.paused"]
    );
    for request in &arrived {
        verify_signature(secret.trim(), request).unwrap();
    }
    let data = &envelopes[1]["data"];
    assert_eq!((&data["endpointId"], &data["nextProbeAt"]), (&json!(endpoint.id), &paused["health"]["nextProbeAt"]));
    assert_eq!(data["url"], receiver.url("/hook"));

    // A restart keeps the endpoint and the secret. A changed secret file changes the secret.
    app.restart().await;
    let other = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    app.stop().await;
    std::fs::write(app.data_dir().join("operator-webhook.secret"), other).unwrap();
    app.start_again().await;
    receiver.otherwise(Behaviour::status(200));
    let event = app.publish("post.created", json!({})).await;
    app.clock().set(next_probe(&paused));
    app.delivery_ended(&event, "delivered").await;
    let arrived = distinct(&operations, 3).await;
    let recovered: Value = serde_json::from_slice(&arrived[2].body).unwrap();
    assert_eq!(recovered["type"], "endpoint.recovered");
    verify_signature(other, &arrived[2]).unwrap();
    let listed = app.get("/v1/webhook-endpoints").await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 1, "customers do not see it");
    assert_eq!(text(&listed["data"][0], "id"), endpoint.id);
}

#[tokio::test]
async fn without_the_setting_the_operator_endpoint_is_removed() {
    let operations = Receiver::start().await;
    let url = operations.url("/operations");
    let set_up = App::set_up().await.allow("127.0.0.0/8");
    let app = set_up.change(|settings| settings.operator_webhook_url = Some(url)).start().await;
    let operator = app.operations_caller().await;
    assert_eq!(operator.get("/v1/webhook-endpoints").await.json()["data"].as_array().unwrap().len(), 1);
    let mut app = app.change_settings(|settings| settings.operator_webhook_url = None);
    app.restart().await;
    let operator = app.operations_caller().await;
    assert_eq!(operator.get("/v1/webhook-endpoints").await.json()["data"].as_array().unwrap().len(), 0);
}
