//! `/v1/webhook-endpoints/{endpointId}/replay` and the jobs it creates.

use std::time::Duration;

use http::Method;
use postrider_domain::access::Mode;
use serde_json::{Value, json};

use super::{ENDPOINTS, assert_done_once, faults, patch};
use crate::support::app::{App, Endpoint, text};
use crate::support::receiver::Receiver;
use crate::support::verify::verify_signature;
use crate::support::wait::eventually;

const SINCE: &str = "2026-05-15T12:00:00Z";

/// An app whose endpoint was inactive while `count` events were published, and is active again.
async fn with_skipped(count: usize) -> (App, Receiver, Endpoint, Vec<String>) {
    with_skipped_in(Mode::Live, count).await
}

async fn with_skipped_in(mode: Mode, count: usize) -> (App, Receiver, Endpoint, Vec<String>) {
    let live = App::to_loopback().await;
    let app = if mode == Mode::Live { live } else { live.in_test_mode().await };
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    patch(app.caller(), &endpoint.id, json!({"isActive": false})).await.data(200);
    let mut events = Vec::new();
    for n in 0..count {
        events.push(app.publish("post.created", json!({"n": n})).await);
        app.clock().advance(Duration::from_millis(1));
    }
    patch(app.caller(), &endpoint.id, json!({"isActive": true})).await.data(200);
    (app, receiver, endpoint, events)
}

fn path(endpoint: &Endpoint) -> String {
    format!("{ENDPOINTS}/{}/replay", endpoint.id)
}

/// Advances the clock, which drives a replay, until the job has ended.
async fn ended(app: &App, endpoint: &Endpoint, replay: &Value) -> Value {
    let path = format!("{ENDPOINTS}/{}/replays/{}", endpoint.id, text(replay, "id"));
    let probe = || async {
        app.clock().advance(Duration::from_millis(100));
        Some(app.get(&path).await.data(200)).filter(|shown| shown["status"] != "running")
    };
    eventually("the end of the replay", probe).await
}

#[tokio::test]
async fn a_replay_sends_skipped_events_and_shows_its_progress() {
    let (app, receiver, endpoint, events) = with_skipped(3).await;
    let reply = app.post(&path(&endpoint), json!({"since": SINCE})).await;
    let replay = reply.data(202);
    let members: Vec<&String> = replay.as_object().unwrap().keys().collect();
    let expected = "id endpointId status since until statuses total replayed unavailable createdAt completedAt mode";
    assert_eq!(members, expected.split(' ').collect::<Vec<_>>());
    let shape = json!({
        "id": replay["id"], "endpointId": endpoint.id, "status": "running", "since": "2026-05-15T12:00:00.000Z",
        "until": "2026-05-15T12:00:00.003Z", "statuses": ["failed", "skipped"], "total": 3, "replayed": 0,
        "unavailable": 0, "createdAt": "2026-05-15T12:00:00.003Z", "completedAt": null, "mode": "live",
    });
    assert_eq!(replay, shape);
    assert!(text(&replay, "id").starts_with("rpl_"));
    let done = ended(&app, &endpoint, &replay).await;
    assert_eq!((&done["status"], &done["replayed"]), (&json!("completed"), &json!(3)));
    assert_ne!(done["completedAt"], Value::Null);
    let received = receiver.wait_for(3).await;
    let mut ids: Vec<_> = received.iter().map(|request| request.header("webhook-id").unwrap()).collect();
    ids.sort_unstable();
    assert_eq!(ids, events);
    for request in &received {
        assert_eq!(request.header("scripe-replay"), Some("true"));
        verify_signature(&endpoint.secret, request).unwrap();
    }
    let again = app.deliveries_when("status=delivered", "have arrived", |all| all.len() == 3).await;
    assert!(again.iter().all(|delivery| delivery["cause"] == "replay" && delivery["retryOf"] != Value::Null));
    let listed = app.get(&format!("{ENDPOINTS}/{}/replays", endpoint.id)).await.data(200);
    assert_eq!(listed, json!([done]));
    let counted = app.post(&path(&endpoint), json!({"since": SINCE, "dryRun": true})).await.data(200);
    assert_eq!(counted["total"], 0, "what has arrived by now is not sent again");
}

#[tokio::test]
async fn a_dry_run_only_counts_even_at_an_inactive_endpoint() {
    let (app, receiver, endpoint, _) = with_skipped(3).await;
    for is_active in [true, false] {
        patch(app.caller(), &endpoint.id, json!({"isActive": is_active})).await.data(200);
        for (body, total) in [
            (json!({"since": SINCE, "dryRun": true}), 3),
            (json!({"since": "2026-05-15T12:00:00.001Z", "dryRun": true}), 2),
            (json!({"since": SINCE, "until": "2026-05-15T12:00:00.001Z", "dryRun": true}), 1),
            (json!({"since": SINCE, "statuses": ["failed"], "dryRun": true}), 0),
            (json!({"since": SINCE, "statuses": ["skipped", "skipped"], "dryRun": true}), 3),
        ] {
            let counted = app.post(&path(&endpoint), body.clone()).await.data(200);
            assert_eq!(counted, json!({"dryRun": true, "total": total, "unavailable": 0}), "{body}");
        }
    }
    assert_eq!(app.get(&format!("{ENDPOINTS}/{}/replays", endpoint.id)).await.data(200), json!([]));
    assert_eq!(receiver.counts().requests, 0);
}

#[tokio::test]
async fn a_stopped_replay_sends_no_more() {
    let (app, receiver, endpoint, _) = with_skipped(3).await;
    let replay = app.post(&path(&endpoint), json!({"since": SINCE})).await.data(202);
    patch(app.caller(), &endpoint.id, json!({"isActive": false})).await.data(200);
    let shown = format!("{ENDPOINTS}/{}/replays/{}", endpoint.id, text(&replay, "id"));
    assert_eq!(app.get(&shown).await.data(200)["status"], "running", "it waits while the endpoint is off");
    let stopped = assert_done_once(app.caller(), Method::POST, &format!("{shown}/stop"), json!({}), 200).await;
    let stopped = stopped.data(200);
    assert_eq!((&stopped["status"], &stopped["replayed"]), (&json!("stopped"), &json!(0)));
    app.clock().advance(Duration::from_secs(60));
    assert_eq!(app.caller().post_text(&format!("{shown}/stop"), "").await.data(200), stopped);
    patch(app.caller(), &endpoint.id, json!({"isActive": true})).await.data(200);
    app.clock().advance(Duration::from_secs(60));
    app.clock().until_asleep(3).await;
    assert_eq!(app.get(&shown).await.data(200), stopped);
    assert_eq!(receiver.counts().requests, 0);
}

#[tokio::test]
async fn a_replay_continues_after_a_restart() {
    let (mut app, receiver, endpoint, _) = with_skipped(3).await;
    let replay = app.post(&path(&endpoint), json!({"since": SINCE})).await.data(202);
    app.restart().await;
    assert_eq!(ended(&app, &endpoint, &replay).await["status"], "completed");
    receiver.wait_for(3).await;
    app.deliveries_when("status=delivered", "have arrived", |all| all.len() == 3).await;
    assert_eq!(receiver.counts().requests, 3);
}

#[tokio::test]
async fn an_inactive_endpoint_is_a_conflict() {
    let (app, _receiver, endpoint, _) = with_skipped(1).await;
    patch(app.caller(), &endpoint.id, json!({"isActive": false})).await.data(200);
    let error = app.post(&path(&endpoint), json!({"since": SINCE})).await.error(409, "conflict");
    assert_eq!(error["message"], "The endpoint is not active: set isActive to true first.");
}

#[tokio::test]
async fn a_replay_is_started_once_per_idempotency_key() {
    let (app, receiver, endpoint, _) = with_skipped(2).await;
    let first = assert_done_once(app.caller(), Method::POST, &path(&endpoint), json!({"since": SINCE}), 202).await;
    ended(&app, &endpoint, &first.data(202)).await;
    assert_eq!(app.get(&format!("{ENDPOINTS}/{}/replays", endpoint.id)).await.data(200).as_array().unwrap().len(), 1);
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn each_malformed_parameter_is_named() {
    let (app, _receiver, endpoint, _) = with_skipped(1).await;
    let instant = "must be an ISO 8601 date and time with an offset, like 2026-05-15T08:21:00.000Z";
    let statuses = "each must be one of failed, skipped, cancelled, delivered";
    for (body, name, fault) in [
        (json!({}), "since", "is required"),
        (json!({"since": "yesterday"}), "since", instant),
        (json!({"since": SINCE, "until": 1}), "until", "must be a string"),
        (json!({"since": SINCE, "statuses": []}), "statuses", "must name at least one status"),
        (json!({"since": SINCE, "statuses": ["pending"]}), "statuses", statuses),
        (json!({"since": SINCE, "statuses": ["simulated"]}), "statuses", statuses),
        (json!({"since": SINCE, "statuses": "failed"}), "statuses", "must be an array of statuses"),
        (json!({"since": SINCE, "dryRun": "yes"}), "dryRun", "must be true or false"),
        (json!({"since": SINCE, "limit": 5}), "limit", "is not a known parameter"),
    ] {
        let error = app.post(&path(&endpoint), body.clone()).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({name: fault}), "{body}");
    }
    for (since, until) in [(SINCE, SINCE), ("2026-05-16T00:00:00Z", "2026-05-17T00:00:00Z")] {
        let error = app.post(&path(&endpoint), json!({"since": since, "until": until})).await;
        assert_eq!(
            *faults(&error.error(422, "unprocessable")),
            json!({"since": "must be earlier than until, which is now at the latest"})
        );
    }
    let future = json!({"since": SINCE, "until": "2027-01-01T00:00:00Z"});
    let replay = app.post(&path(&endpoint), future).await.data(202);
    assert_eq!(replay["until"], replay["createdAt"], "what is yet to come cannot be replayed");
}

#[tokio::test]
async fn a_replay_with_a_test_key_sends_nothing() {
    let (app, receiver, endpoint, _) = with_skipped_in(Mode::Test, 2).await;
    let replay = app.post(&path(&endpoint), json!({"since": SINCE})).await.data(202);
    assert_eq!((&replay["total"], &replay["mode"]), (&json!(2), &json!("test")));
    assert_eq!(ended(&app, &endpoint, &replay).await["replayed"], 2);
    app.deliveries_when("status=simulated", "are simulated", |all| all.len() == 2).await;
    assert_eq!(receiver.counts().requests, 0);
}
