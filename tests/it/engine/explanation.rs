//! What the API says about how a delivery stands.

use http::Method;
use postrider_domain::limits;
use serde_json::{Value, json};

use crate::support::app::{App, NOON, instant, text};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};

const EVENT: &str = "post.created";

fn part(delivery: &Value, name: &str) -> Value {
    delivery["explanation"][name].clone()
}

async fn patch(app: &App, endpoint: &str, change: Value) {
    app.caller().send(Method::PATCH, &format!("/v1/webhook-endpoints/{endpoint}"), change.to_string()).await.data(200);
}

#[tokio::test]
async fn a_failed_delivery_names_its_step_then_what_it_waits_for() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Behaviour::status(500));
    let endpoint = app.endpoint_to(&receiver, &[EVENT]).await;
    let event = app.publish(EVENT, json!({})).await;
    let failed = app.attempted(&event, 1).await;
    assert_eq!((part(&failed, "cause"), part(&failed, "next")), (json!("attempt_failed"), json!("attempt")));
    assert_eq!((part(&failed, "whyThen"), part(&failed, "step")), (json!("schedule"), json!(1)));
    assert_eq!((part(&failed, "steps"), part(&failed, "nextAt")), (json!(9), failed["nextAttemptAt"].clone()));
    let left: u64 = instant(&failed["explanation"], "givesUpAt").since(instant(&failed, "nextAttemptAt")).as_secs();
    assert_eq!(left, 300 + 1_800 + 7_200 + 18_000 + 36_000 + 50_400 + 72_000 + 86_400);

    patch(&app, &endpoint.id, json!({"isActive": false})).await;
    let held = app.delivery(&text(&failed, "id")).await;
    assert_eq!((held["status"].clone(), held["nextAttemptAt"].clone()), (json!("pending"), Value::Null));
    assert_eq!((part(&held, "cause"), part(&held, "next")), (json!("endpoint_off"), json!("activation")));
    let gives_up = instant(&held["explanation"], "givesUpAt").since(NOON).as_secs();
    assert!((14 * 86_400..14 * 86_400 + 10).contains(&gives_up), "{gives_up}");
}

#[tokio::test]
async fn a_retry_after_is_named_as_the_reason() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Answer::status(429).header("retry-after", "120"));
    app.endpoint_to(&receiver, &[EVENT]).await;
    let event = app.publish(EVENT, json!({})).await;
    let failed = app.attempted(&event, 1).await;
    assert_eq!(part(&failed, "whyThen"), json!("retry_after"), "{failed}");
    assert_eq!(instant(&failed["explanation"], "nextAt").since(NOON).as_secs(), 120);
}

#[tokio::test]
async fn a_paused_endpoint_names_its_next_probe() {
    // No retry falls due within the test, so only the first attempts count: the fifth is the one that pauses.
    let set_up = App::set_up().await.allow("127.0.0.0/8");
    let app = set_up.change(|settings| settings.retry_schedule = "1h".parse().unwrap()).start().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Behaviour::status(500));
    let endpoint = app.endpoint_to(&receiver, &[EVENT]).await;
    for _ in 1..limits::PAUSE_FAILURES {
        let event = app.publish(EVENT, json!({})).await;
        app.attempted(&event, 1).await;
    }
    app.clock().advance(limits::PAUSE_SPAN);
    let last = app.publish(EVENT, json!({})).await;
    app.attempted(&last, 1).await;
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    let health = app.get(&path).await.data(200)["health"].clone();
    assert_eq!(health["state"], "paused", "{health}");
    let waiting = app.delivery_when(&last, "waits", |delivery| delivery["status"] == "pending").await;
    assert_eq!(waiting["nextAttemptAt"], Value::Null, "{waiting}");
    assert_eq!((part(&waiting, "cause"), part(&waiting, "next")), (json!("endpoint_paused"), json!("probe")));
    assert_eq!((part(&waiting, "whyThen"), part(&waiting, "nextAt")), (json!("paused"), health["nextProbeAt"].clone()));
}

#[tokio::test]
async fn behind_the_head_of_a_strict_order_the_head_is_linked() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.otherwise(Behaviour::hold(&gate));
    let body = json!({"name": "A receiver", "url": receiver.url("/"), "events": [EVENT], "ordering": "strict"});
    app.endpoint(body).await;
    let first = app.publish(EVENT, json!({})).await;
    receiver.wait_for(1).await;
    let second = app.publish(EVENT, json!({})).await;
    let head = app.delivery_when(&first, "is under way", |one| one["attemptCount"] == 1).await;
    assert_eq!((part(&head, "cause"), part(&head, "next")), (json!("attempt_under_way"), json!("outcome")));
    let behind = app.delivery_when(&second, "waits", |one| one["status"] == "pending").await;
    assert_eq!((part(&behind, "cause"), part(&behind, "waitsFor")), (json!("behind_head"), head["id"].clone()));
    gate.open();
    let ended = app.delivery_ended(&second, "delivered").await;
    assert_eq!((part(&ended, "cause"), part(&ended, "next")), (json!("received"), json!("nothing")));
}
