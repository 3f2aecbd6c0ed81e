//! When attempts are made: the retry schedule and its end, stops and starts, and the limits that keep endpoints apart.

use std::time::Duration;

use postrider_domain::limits;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::time::Clock;
use serde_json::{Value, json};

use crate::support::app::{ALL_SCOPES, App, instant};
use crate::support::receiver::{Behaviour, Gate, Receiver};
use crate::support::verify::verify_signature;
use crate::support::wait::eventually;

/// Waits until `made` attempts are recorded, then moves the clock to the next attempt. Returns the delivery.
async fn go_to_next_attempt(app: &App, event: &str, made: usize) -> Value {
    let delivery = app.attempted(event, made).await;
    app.clock().set(instant(&delivery, "nextAttemptAt"));
    delivery
}

#[tokio::test]
async fn two_retries_send_the_same_bytes_on_the_default_schedule() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500)).then(Behaviour::status(500));
    let event = app.publish("post.created", json!({"n": 1.0})).await;
    for (made, seconds) in [(1, 5.0), (2, 300.0)] {
        let before = app.clock().now();
        let delivery = go_to_next_attempt(&app, &event, made).await;
        let wait = instant(&delivery, "nextAttemptAt").since(before).as_secs_f64() / seconds;
        assert!((0.8..=1.2).contains(&wait), "attempt {made} waits {wait} of its step");
    }
    let delivery = app.delivery_ended(&event, "delivered").await;
    let outcomes: Vec<_> = delivery["attempts"].as_array().unwrap().iter().map(|made| &made["outcome"]).collect();
    assert_eq!(outcomes, ["http_error", "http_error", "delivered"]);
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    for (index, request) in received.iter().enumerate() {
        assert_eq!(request.body, received[0].body);
        assert_eq!(request.header("webhook-id"), Some(&*event));
        assert_eq!(request.header("scripe-delivery-attempt"), Some(&*(index + 1).to_string()));
        let started = instant(&delivery["attempts"][index], "startedAt");
        assert_eq!(request.header("webhook-timestamp"), Some(&*started.seconds().to_string()));
        verify_signature(&endpoint.secret, request).unwrap();
    }
}

#[tokio::test]
async fn a_retry_is_not_made_before_its_time() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    let due = instant(&app.attempted(&event, 1).await, "nextAttemptAt");
    app.clock().set(due.minus(Duration::from_millis(1)));
    // The dispatcher has polled and sleeps again. The second sleeper is the janitor.
    app.clock().until_asleep(2).await;
    assert_eq!(receiver.counts().requests, 1);
    app.clock().set(due);
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn a_delivery_that_fails_the_whole_schedule_is_exhausted() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created", "note.created"]).await;
    receiver.then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    for step in 0..9 {
        app.attempted(&event, step + 1).await;
        // Other events succeed meanwhile, so the endpoint is not paused.
        let other = app.publish("note.created", json!({})).await;
        app.delivery_ended(&other, "delivered").await;
        receiver.then(Behaviour::status(500));
        let before = app.clock().now();
        let delivery = go_to_next_attempt(&app, &event, step + 1).await;
        let wait = instant(&delivery, "nextAttemptAt").since(before);
        let step = RetrySchedule::default().step(u32::try_from(step).unwrap()).unwrap();
        assert!(wait >= step.mul_f64(0.8) && wait <= step.mul_f64(1.2), "{wait:?} for {step:?}");
    }
    let delivery = app.delivery_ended(&event, "failed").await;
    assert_eq!((&delivery["reason"], &delivery["attemptCount"]), (&json!("exhausted"), &json!(10)));
    assert_eq!((&delivery["nextAttemptAt"], &delivery["attempts"][9]["nextAttemptAt"]), (&Value::Null, &Value::Null));
    let numbers: Vec<_> = delivery["attempts"].as_array().unwrap().iter().map(|made| &made["number"]).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    app.clock().advance(Duration::from_secs(7 * 24 * 3600));
    app.clock().until_asleep(2).await;
    assert_eq!(receiver.counts().requests, 10 + 9);
}

#[tokio::test]
async fn a_restart_continues_the_schedule_where_it_was() {
    let mut app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500)).then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    go_to_next_attempt(&app, &event, 1).await;
    let before = app.attempted(&event, 2).await;
    app.restart().await;
    assert_eq!(app.attempted(&event, 2).await, before);
    assert_eq!(receiver.counts().requests, 2);
    app.clock().set(instant(&before, "nextAttemptAt"));
    let delivery = app.delivery_ended(&event, "delivered").await;
    assert_eq!(delivery["attemptCount"], 3);
    let last = receiver.received().pop().unwrap();
    assert_eq!(last.header("scripe-delivery-attempt"), Some("3"));
    verify_signature(&endpoint.secret, &last).unwrap();
}

#[tokio::test]
async fn deliveries_that_fell_due_without_a_server_are_sent_at_start() {
    let mut app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    app.attempted(&event, 1).await;
    app.stop().await;
    app.clock().advance(Duration::from_secs(3600));
    app.start_again().await;
    app.delivery_ended(&event, "delivered").await;
}

#[tokio::test]
async fn a_graceful_stop_waits_for_running_attempts_and_records_them() {
    let mut app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let gate = Gate::closed();
    receiver.then(Behaviour::hold(&gate));
    let event = app.publish("post.created", json!({})).await;
    receiver.wait_for(1).await;
    let address = app.server().address();
    let ((), ()) = tokio::join!(app.stop(), async {
        let refused = || async { crate::support::receiver::refuses(address).await.then_some(()) };
        eventually("the API to be closed", refused).await;
        gate.open();
    });
    app.start_again().await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    assert_eq!(delivery["attemptCount"], 1);
    assert_eq!(receiver.counts().requests, 1);
}

#[tokio::test]
async fn one_event_goes_to_each_of_many_endpoints_once() {
    let app = App::to_loopback().await;
    let receivers = [Receiver::start().await, Receiver::start().await, Receiver::start().await];
    for receiver in &receivers {
        app.endpoint_to(receiver, &["post.created"]).await;
    }
    let event = app.publish("post.created", json!({})).await;
    let filter = format!("eventId={event}&status=delivered");
    app.deliveries_when(&filter, "are all there", |deliveries| deliveries.len() == 3).await;
    for receiver in &receivers {
        assert_eq!(receiver.received().len(), 1);
    }
}

#[tokio::test]
async fn a_stuck_receiver_does_not_delay_another() {
    let app = App::to_loopback().await;
    let (stuck, quick) = (Receiver::start().await, Receiver::start().await);
    app.endpoint_to(&stuck, &["post.created"]).await;
    app.endpoint_to(&quick, &["note.created"]).await;
    stuck.otherwise(Behaviour::StallBeforeHeaders);
    for _ in 0..200 {
        app.publish("post.created", json!({})).await;
    }
    stuck.wait_for(1).await;
    let event = app.publish("note.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
}

#[tokio::test]
async fn an_endpoint_gets_no_more_requests_than_its_rate_limit() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let url = receiver.url("/hook");
    app.endpoint(json!({"name": "slowly", "url": url, "events": ["post.created"], "rateLimit": 10})).await;
    for _ in 0..5 {
        app.publish("post.created", json!({})).await;
    }
    for sent in 1..=5 {
        receiver.wait_for(sent).await;
        let filter = "status=delivered";
        app.deliveries_when(filter, "are as many as may be", |delivered| delivered.len() == sent).await;
        app.clock().advance(Duration::from_millis(99));
        // The dispatcher has polled and sleeps again. The second sleeper is the janitor.
        app.clock().until_asleep(2).await;
        assert_eq!(receiver.counts().requests, sent, "one each tenth of a second");
        app.clock().advance(Duration::from_millis(1));
    }
}

#[tokio::test]
async fn a_workspace_with_stuck_receivers_does_not_delay_another() {
    // A workspace whose receivers have no history may use a quarter of all permits.
    const THEIRS: usize = limits::SLOTS / 4;
    let app = App::to_loopback().await;
    let other = app.caller_of("Slow", ALL_SCOPES).await;
    let stuck = Receiver::start().await;
    stuck.otherwise(Behaviour::StallBeforeHeaders);
    for number in 0..60 {
        let url = stuck.url(&format!("/{number}"));
        // Longer than this test takes on a busy machine: an attempt that ends makes room for another.
        let timeout = limits::ATTEMPT_DEADLINE_MAX.as_secs();
        let endpoint = json!({"name": "stuck", "url": url, "events": ["post.created"], "timeoutSeconds": timeout});
        other.post("/v1/webhook-endpoints", endpoint).await.data(200);
    }
    for _ in 0..10 {
        other.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
    }
    // 600 deliveries wait.
    stuck.wait_for(THEIRS).await;
    let quick = Receiver::start().await;
    app.endpoint_to(&quick, &["note.created"]).await;
    for _ in 0..20 {
        let event = app.publish("note.created", json!({})).await;
        app.delivery_ended(&event, "delivered").await;
    }
    assert_eq!(stuck.counts().requests, THEIRS, "no more of theirs went out meanwhile");
}

#[tokio::test]
async fn a_test_event_does_not_wait_behind_stuck_attempts() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let gate = Gate::closed();
    receiver.otherwise(Behaviour::hold(&gate));
    for _ in 0..20 {
        app.publish("post.created", json!({})).await;
    }
    // The limit for attempts in flight at an endpoint without history.
    receiver.wait_for(8).await;
    app.post(&format!("/v1/webhook-endpoints/{}/test", endpoint.id), json!({})).await.data(202);
    let arrived = receiver.wait_for(9).await;
    assert_eq!(arrived[8].header("scripe-test"), Some("true"));
    gate.open();
}
