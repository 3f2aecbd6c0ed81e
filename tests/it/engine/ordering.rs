//! Strict order as a receiver sees it: events arrive in order and one at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::app::{App, Endpoint};
use crate::support::receiver::{Behaviour, Gate, Received, Receiver};
use crate::support::wait::eventually;

/// An app on the machine's clock with short retries, and an endpoint with strict order.
async fn with_short_waits() -> (App, Receiver, Endpoint) {
    let waits = "10ms,10ms,10ms,10ms,10ms".parse().unwrap();
    let setup = App::set_up().await.allow("127.0.0.0/8").real_time();
    let app = setup.change(|settings| settings.retry_schedule = waits).start().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    strict(&app, &endpoint).await;
    (app, receiver, endpoint)
}

async fn strict(app: &App, endpoint: &Endpoint) {
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    app.caller().patch(&path, json!({"ordering": "strict"})).await.data(200);
}

async fn publish(app: &App, numbers: std::ops::Range<u64>) {
    let events: Vec<_> = numbers.map(|n| json!({"type": "post.created", "data": {"n": n}})).collect();
    app.post("/v1/events/batch", json!({ "events": events })).await.data(202);
}

async fn all_ended(app: &App) {
    let done = || async { app.deliveries("status=pending&limit=1").await.is_empty().then_some(()) };
    eventually("the last delivery", done).await;
}

fn number(request: &Received) -> u64 {
    request.json()["data"]["n"].as_u64().expect("a number")
}

#[tokio::test]
async fn events_arrive_in_order_although_some_attempts_fail() {
    let (app, receiver, _endpoint) = with_short_waits().await;
    receiver.decide(|request| {
        let attempt: u64 = request.header("scripe-delivery-attempt").unwrap().parse().unwrap();
        Behaviour::status(if attempt <= number(request) % 3 { 500 } else { 200 })
    });
    publish(&app, 0..20).await;
    publish(&app, 20..40).await;
    all_ended(&app).await;
    let arrived: Vec<u64> = receiver.received().iter().map(number).collect();
    let expected: Vec<u64> =
        (0..40).flat_map(|n| std::iter::repeat_n(n, usize::try_from(n % 3).unwrap() + 1)).collect();
    assert_eq!(arrived, expected);
}

#[tokio::test]
async fn one_request_is_in_flight_at_a_time_despite_free_permits() {
    let (app, receiver, _endpoint) = with_short_waits().await;
    let gate = Gate::closed();
    receiver.then(Behaviour::hold(&gate));
    app.publish("post.created", json!({"n": 0})).await;
    receiver.wait_for(1).await;
    // The engine has free permits, so each of these could start at once.
    for n in 1..10 {
        app.publish("post.created", json!({ "n": n })).await;
    }
    assert_eq!(receiver.counts().requests, 1);
    gate.open();
    all_ended(&app).await;
    assert_eq!(receiver.received().iter().map(number).collect::<Vec<_>>(), (0..10).collect::<Vec<_>>());
}

#[tokio::test]
async fn other_endpoints_do_not_wait_for_a_strict_one() {
    let (app, slow, _endpoint) = with_short_waits().await;
    let gate = Gate::closed();
    slow.otherwise(Behaviour::hold(&gate));
    let quick = Receiver::start().await;
    app.endpoint_to(&quick, &["post.created"]).await;
    publish(&app, 0..30).await;
    quick.wait_for(30).await;
    assert_eq!(slow.counts().requests, 1);
    gate.open();
    slow.wait_for(30).await;
}

#[tokio::test]
async fn events_published_to_an_inactive_endpoint_arrive_in_order() {
    let (app, receiver, endpoint) = with_short_waits().await;
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    publish(&app, 0..3).await;
    all_ended(&app).await;
    app.caller().patch(&path, json!({"isActive": false})).await.data(200);
    publish(&app, 3..6).await;
    publish(&app, 6..9).await;
    assert_eq!(app.deliveries("status=pending").await.len(), 6);
    assert_eq!(receiver.counts().requests, 3);
    app.caller().patch(&path, json!({"isActive": true})).await.data(200);
    all_ended(&app).await;
    assert_eq!(receiver.received().iter().map(number).collect::<Vec<_>>(), (0..9).collect::<Vec<_>>());
}

#[tokio::test]
async fn after_a_410_and_reactivation_the_same_event_comes_first() {
    let (app, receiver, endpoint) = with_short_waits().await;
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    receiver.decide(move |_| Behaviour::status(if count.fetch_add(1, Ordering::Relaxed) == 1 { 410 } else { 200 }));
    publish(&app, 0..4).await;
    let off = || async {
        let seen = app.get(&path).await.data(200);
        (seen["disabledReason"] == "gone").then_some(())
    };
    eventually("the endpoint to be disabled", off).await;
    publish(&app, 4..6).await;
    app.caller().patch(&path, json!({"isActive": true})).await.data(200);
    all_ended(&app).await;
    let arrived: Vec<u64> = receiver.received().iter().map(number).collect();
    assert_eq!(arrived, [0, 1, 1, 2, 3, 4, 5]);
}
