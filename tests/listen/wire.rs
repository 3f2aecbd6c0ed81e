//! The routes of listeners.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use postrider_domain::access::Mode;
use serde_json::{Value, json};

use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::receiver::Received;
use crate::support::verify::verify_signature;
use crate::support::wait::bounded;

const LISTENERS: &str = "/v1/listeners";

async fn listener(app: &App) -> Value {
    app.post(LISTENERS, json!({"name": "A worker", "events": ["post.created"]})).await.data(200)
}

fn path(listener: &Value, rest: &str) -> String {
    format!("{LISTENERS}/{}{rest}", text(listener, "id"))
}

async fn lease(app: &App, listener: &Value, body: Value) -> Vec<Value> {
    match app.post(&path(listener, "/lease"), body).await.data(200) {
        Value::Array(leased) => leased,
        other => panic!("not a list: {other}"),
    }
}

async fn one(app: &App, listener: &Value) -> Value {
    let mut leased = lease(app, listener, json!({"waitSeconds": 30})).await;
    assert_eq!(leased.len(), 1);
    leased.remove(0)
}

/// A result for a lease.
fn result(lease: &Value, result: Value) -> Value {
    let mut body = result;
    body["deliveryId"] = lease["deliveryId"].clone();
    body["leaseToken"] = lease["leaseToken"].clone();
    body
}

async fn settle(app: &App, listener: &Value, results: &[Value]) -> Vec<String> {
    let settled = app.post(&path(listener, "/settle"), json!({ "results": results })).await.data(200);
    settled.as_array().unwrap().iter().map(|settled| text(settled, "result")).collect()
}

/// The delivery as a receiver would have got it.
fn received(lease: &Value) -> Received {
    let headers: Vec<(&str, &str)> = lease["headers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|header| (header["name"].as_str().unwrap(), header["value"].as_str().unwrap()))
        .collect();
    Received::for_test(&headers, &BASE64_STANDARD.decode(lease["body"].as_str().unwrap()).unwrap())
}

#[tokio::test]
async fn a_listener_is_made_read_changed_and_deleted() {
    let app = App::start().await;
    let made = listener(&app).await;
    assert!(text(&made, "id").starts_with("lst_") && text(&made, "secret").starts_with("whsec_"));
    assert_eq!((&made["durable"], &made["ordering"], &made["url"]), (&json!(false), &json!("none"), &Value::Null));
    let shown = app.get(&path(&made, "")).await.data(200);
    assert_eq!((&shown["id"], &shown["secret"]), (&made["id"], &Value::Null));
    let changed = app.caller().patch(&path(&made, ""), json!({"name": "B", "events": ["job.failed"]})).await.data(200);
    assert_eq!((&changed["name"], &changed["events"]), (&json!("B"), &json!(["job.failed"])));
    let rotated = app.post(&path(&made, "/rotate-secret"), json!({})).await.data(200);
    assert_ne!(rotated["secret"], made["secret"]);
    assert_eq!(app.get(LISTENERS).await.data(200).as_array().unwrap().len(), 1);
    assert_eq!(app.caller().delete(&path(&made, "")).await.status, 204);
    assert_eq!(app.get(&path(&made, "")).await.status, 404);
    assert_eq!(app.get(LISTENERS).await.data(200), json!([]));
}

#[tokio::test]
async fn endpoints_and_listeners_have_paths_of_their_own() {
    let app = App::to_loopback().await;
    let made = listener(&app).await;
    let endpoint = app.endpoint_at("http://127.0.0.1:9/", &["post.created"]).await;
    let id = text(&made, "id");
    for (crossed, rest) in [(format!("/v1/webhook-endpoints/{id}"), ""), (format!("{LISTENERS}/{}", endpoint.id), "")] {
        let crossed = format!("{crossed}{rest}");
        assert_eq!(app.get(&crossed).await.status, 404, "{crossed}");
        assert_eq!(app.caller().patch(&crossed, json!({"name": "x"})).await.status, 404);
        assert_eq!(app.caller().delete(&crossed).await.status, 404);
        assert_eq!(app.post(&format!("{crossed}/rotate-secret"), json!({})).await.status, 404);
        assert_eq!(app.get(&format!("{crossed}/deliveries")).await.status, 404);
    }
    assert_eq!(app.post(&format!("{LISTENERS}/{}/lease", endpoint.id), json!({})).await.status, 404);
    assert_eq!(app.post(&format!("/v1/webhook-endpoints/{id}/test"), json!({})).await.status, 404);
    let endpoints = app.get("/v1/webhook-endpoints").await.data(200);
    assert_eq!(endpoints.as_array().unwrap().len(), 1);
    assert_eq!(endpoints[0]["id"], json!(endpoint.id));
}

#[tokio::test]
async fn a_lease_is_what_a_receiver_would_get_and_ends_as_an_attempt() {
    let app = App::start().await;
    let made = listener(&app).await;
    let event = app.publish("post.created", json!({"n": 1})).await;
    let lease = one(&app, &made).await;
    let received = received(&lease);
    verify_signature(&text(&made, "secret"), &received).unwrap();
    assert_eq!(received.header("webhook-id"), Some(event.as_str()));
    assert_eq!(received.header("scripe-delivery-id"), lease["deliveryId"].as_str());
    assert_eq!(received.header("scripe-delivery-attempt"), Some("1"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.json()["data"], json!({"n": 1}));
    let done = result(&lease, json!({"status": 204.0, "durationMs": 23.0}));
    assert_eq!(settle(&app, &made, std::slice::from_ref(&done)).await, ["recorded"]);
    let delivery = app.delivery(&text(&lease, "deliveryId")).await;
    assert_eq!((&delivery["status"], &delivery["endpointId"]), (&json!("delivered"), &made["id"]));
    let attempt = &delivery["attempts"][0];
    assert_eq!((&attempt["responseStatus"], &attempt["durationMs"]), (&json!(204), &json!(23)));
    let again = app.post(&path(&made, "/settle"), json!({"results": [done]})).await;
    assert_eq!((again.status, text(&again.json()["error"], "code")), (409, "conflict".to_owned()));
    assert_eq!(app.get(&path(&made, "/deliveries")).await.data(200).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failure_is_retried_and_a_410_switches_nothing_off() {
    let app = App::start().await;
    let made = listener(&app).await;
    app.publish("post.created", json!({})).await;
    let (mut lease, mut outcomes) = (one(&app, &made).await, Vec::new());
    for failure in [json!({"status": 410}), json!({"error": "no\ndatabase"}), json!({"status": 200})] {
        assert_eq!(settle(&app, &made, &[result(&lease, failure.clone())]).await, ["recorded"]);
        if failure["status"] == 200 {
            break;
        }
        assert_eq!(lease_now(&app, &made).await, 0, "not before its time");
        app.clock().advance(Duration::from_secs(600));
        lease = one(&app, &made).await;
        outcomes.push(lease["attempt"].clone());
    }
    assert_eq!(outcomes, [json!(2), json!(3)]);
    let delivery = app.delivery(&text(&lease, "deliveryId")).await;
    assert_eq!(delivery["status"], "delivered");
    let errors: Vec<&Value> =
        delivery["attempts"].as_array().unwrap().iter().map(|attempt| &attempt["error"]).collect();
    assert_eq!(errors, [&Value::Null, &json!("no database"), &Value::Null]);
    assert_eq!(app.get(&path(&made, "")).await.data(200)["isActive"], true);
}

async fn lease_now(app: &App, listener: &Value) -> usize {
    lease(app, listener, json!({"max": 100})).await.len()
}

#[tokio::test]
async fn each_result_of_several_stands_alone() {
    let app = App::start().await;
    let made = listener(&app).await;
    for _ in 0..3 {
        app.publish("post.created", json!({})).await;
    }
    let leased = lease(&app, &made, json!({"max": 3, "waitSeconds": 30})).await;
    assert_eq!(leased.len(), 3);
    let mut lost = result(&leased[2], json!({"status": 200}));
    lost["leaseToken"] = json!("0000000000000007");
    let results = [result(&leased[0], json!({"status": 200})), result(&leased[1], json!({"release": true})), lost];
    assert_eq!(settle(&app, &made, &results).await, ["recorded", "released", "lease_lost"]);
    let again = one(&app, &made).await;
    assert_eq!((&again["deliveryId"], &again["attempt"]), (&leased[1]["deliveryId"], &json!(1)));
    let held = |lease: &Value| json!({"deliveryId": lease["deliveryId"], "leaseToken": lease["leaseToken"]});
    app.clock().advance(Duration::from_secs(50));
    let renewed = app.post(&path(&made, "/renew"), json!({"leases": [held(&leased[2]), held(&leased[0])]})).await;
    let renewed = renewed.data(200);
    assert_eq!((&renewed[0]["result"], &renewed[1]["result"]), (&json!("renewed"), &json!("lease_lost")));
    assert_eq!(app.post(&path(&made, "/renew"), json!({"leases": [held(&leased[0])]})).await.status, 409);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_named() {
    let app = App::start().await;
    let made = listener(&app).await;
    app.publish("post.created", json!({})).await;
    let lease = one(&app, &made).await;
    let many = |count: usize| vec![result(&lease, json!({"status": 200})); count];
    let longest = "x".repeat(1_000);
    for (verb, body, fault) in [
        ("lease", json!({"max": 0}), "max"),
        ("lease", json!({"max": 101}), "max"),
        ("lease", json!({"waitSeconds": 31}), "waitSeconds"),
        ("settle", json!({}), "results"),
        ("settle", json!({"results": []}), "results"),
        ("settle", json!({"results": many(101)}), "results"),
        ("settle", json!({"results": many(2)}), "results"),
        ("settle", json!({"results": [result(&lease, json!({}))]}), "results"),
        ("settle", json!({"results": [result(&lease, json!({"status": 99}))]}), "results"),
        ("settle", json!({"results": [result(&lease, json!({"status": 200, "error": "x"}))]}), "results"),
        ("settle", json!({"results": [result(&lease, json!({"error": format!("{longest}x")}))]}), "results"),
        ("settle", json!({"results": [result(&lease, json!({"release": false}))]}), "results"),
        ("settle", json!({"results": [{"deliveryId": "dlv_x", "leaseToken": "x", "status": 200}]}), "results"),
        ("renew", json!({"leases": [{"deliveryId": lease["deliveryId"], "leaseToken": "short"}]}), "leases"),
        ("lease", json!({"wait": 1}), "wait"),
    ] {
        let reply = app.post(&path(&made, &format!("/{verb}")), body.clone()).await;
        assert_eq!(reply.status, 400, "{verb} {body}: {}", reply.text());
        assert!(reply.text().contains(fault), "{}", reply.text());
    }
    assert_eq!(app.post(LISTENERS, json!({"name": "x", "events": [], "url": "https://x.example"})).await.status, 400);
    assert_eq!(app.caller().patch(&path(&made, ""), json!({"projectId": "p"})).await.status, 400);
    let held = settle(&app, &made, &[result(&lease, json!({"error": longest}))]).await;
    assert_eq!(held, ["recorded"]);
}

#[tokio::test]
async fn a_wait_gets_an_event_at_once_and_ends_with_its_key() {
    let app = App::start().await;
    let made = listener(&app).await;
    let waiting = async { lease(&app, &made, json!({"max": 10, "waitSeconds": 30})).await };
    let publishing = async { app.publish("post.created", json!({})).await };
    let (leased, _) = bounded("a lease that was waited for", async { tokio::join!(waiting, publishing) }).await;
    assert_eq!(leased.len(), 1);

    let other = app.create_key("Acme", Mode::Live, ALL_SCOPES, None).await;
    let (id, caller) = (other.key.id, app.caller_with(other));
    let lease_path = path(&made, "/lease");
    let waiting = caller.post(&lease_path, json!({"waitSeconds": 30}));
    let revoking = async {
        app.server().operator().revoke_api_key(id).await.unwrap();
        app.publish("post.created", json!({})).await;
    };
    let (refused, ()) = bounded("a request whose key is revoked", async { tokio::join!(waiting, revoking) }).await;
    // It may have been answered before the key was revoked: then the key is refused as any other.
    assert_eq!(refused.status, 401, "{}", refused.text());
    assert_eq!(lease_now(&app, &made).await, 1, "the revoked key has leased nothing");
}

#[tokio::test]
async fn a_server_that_stops_ends_the_waits() {
    let mut app = App::start().await;
    let made = listener(&app).await;
    let caller = app.caller().clone();
    let lease_path = path(&made, "/lease");
    let waiting = tokio::spawn(async move { caller.post(&lease_path, json!({"waitSeconds": 30})).await });
    app.deliveries_when("limit=1", "are none", <[Value]>::is_empty).await;
    app.stop().await;
    if let Ok(reply) = bounded("the end of the wait", waiting).await {
        assert_eq!(reply.data(200), json!([]));
    }
}

#[tokio::test]
async fn another_workspace_and_the_other_mode_see_nothing() {
    let app = App::start().await;
    let made = listener(&app).await;
    let other = app.caller_of("Other", ALL_SCOPES).await;
    let tests = app.caller_with(app.create_key("Acme", Mode::Test, ALL_SCOPES, None).await);
    for stranger in [&other, &tests] {
        for reply in [
            stranger.get(&path(&made, "")).await,
            stranger.post(&path(&made, "/lease"), json!({})).await,
            stranger.delete(&path(&made, "")).await,
        ] {
            assert_eq!(reply.status, 404);
        }
        assert_eq!(stranger.get(LISTENERS).await.data(200), json!([]));
    }
    let own = tests.post(LISTENERS, json!({"name": "T", "events": ["post.created"]})).await.data(200);
    tests.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
    let leased = tests.post(&path(&own, "/lease"), json!({"waitSeconds": 30})).await.data(200);
    assert_eq!(leased.as_array().unwrap().len(), 1, "a listener of test mode leases its deliveries");
    assert_eq!(lease_now(&app, &made).await, 0);
}
