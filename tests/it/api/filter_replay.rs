//! `/v1/webhook-deliveries/replay` and `/v1/replays`: replays of every delivery that passes a filter.

use std::time::Duration;

use http::Method;
use postrider_domain::access::Scope;
use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, assert_done_once, faults, patch};
use crate::support::app::{App, Endpoint, text};
use crate::support::receiver::Receiver;
use crate::support::wait::eventually;

const REPLAYS: &str = "/v1/replays";

fn path() -> String {
    format!("{DELIVERIES}/replay")
}

/// An app with two endpoints that were inactive while two events were published, and are active again.
async fn with_skipped() -> (App, Receiver, [Endpoint; 2]) {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoints = [
        app.endpoint_to(&receiver, &["post.created", "job.failed"]).await,
        app.endpoint_to(&receiver, &["post.created"]).await,
    ];
    for endpoint in &endpoints {
        patch(app.caller(), &endpoint.id, json!({"isActive": false})).await.data(200);
    }
    app.publish("post.created", json!({})).await;
    app.publish("job.failed", json!({})).await;
    app.clock().advance(Duration::from_millis(1));
    for endpoint in &endpoints {
        patch(app.caller(), &endpoint.id, json!({"isActive": true})).await.data(200);
    }
    (app, receiver, endpoints)
}

/// Advances the clock, which drives a replay, until the job has ended.
async fn ended(app: &App, replay: &Value) -> Value {
    let path = format!("{REPLAYS}/{}", text(replay, "id"));
    let probe = || async {
        app.clock().advance(Duration::from_millis(100));
        Some(app.get(&path).await.data(200)).filter(|shown| shown["status"] != "running")
    };
    eventually("the end of the replay", probe).await
}

#[tokio::test]
async fn a_replay_by_filter_sends_to_every_endpoint() {
    let (app, receiver, endpoints) = with_skipped().await;
    let body = json!({"filter": {"status": "skipped", "eventType": ["post.created"]}});
    let replay = app.post(&path(), body).await.data(202);
    let members: Vec<&String> = replay.as_object().unwrap().keys().collect();
    let expected = "id endpointId filter status total countedTo replayed unavailable createdAt completedAt mode";
    assert_eq!(members, expected.split(' ').collect::<Vec<_>>());
    let filter = json!({"eventType": ["post.created"], "status": ["skipped"], "until": "2026-05-15T12:00:00.001Z"});
    let shape = json!({
        "id": replay["id"], "endpointId": null, "filter": filter, "status": "running", "total": 2, "countedTo": null,
        "replayed": 0, "unavailable": 0, "createdAt": "2026-05-15T12:00:00.001Z", "completedAt": null, "mode": "live",
    });
    assert_eq!(replay, shape);
    let done = ended(&app, &replay).await;
    assert_eq!((&done["status"], &done["replayed"]), (&json!("completed"), &json!(2)));
    receiver.wait_for(2).await;
    let sent = app.deliveries_when("status=delivered", "have arrived", |all| all.len() == 2).await;
    assert!(sent.iter().all(|delivery| delivery["cause"] == "replay" && delivery["eventType"] == "post.created"));
    let mut to: Vec<String> = sent.iter().map(|delivery| text(delivery, "endpointId")).collect();
    to.sort_unstable();
    let mut both = endpoints.map(|endpoint| endpoint.id);
    both.sort_unstable();
    assert_eq!(to, both);
    assert_eq!(app.get(REPLAYS).await.data(200), json!([done]));
    let auditor = app.caller_of("Acme", &[Scope::AuditRead]).await;
    let audit = auditor.get(&format!("/v1/audit-log?resourceId={}", text(&replay, "id"))).await.data(200);
    assert_eq!((audit.as_array().unwrap().len(), &audit[0]["action"]), (1, &json!("replay.started")));
    assert_eq!(audit[0]["changes"][0]["field"], "filter");
}

#[tokio::test]
async fn a_dry_run_counts_and_shows_the_filter_that_would_be_kept() {
    let (app, receiver, [first, _]) = with_skipped().await;
    for (filter, total) in [
        (json!({"status": "skipped"}), 3),
        (json!({"status": ["skipped", "failed"]}), 3),
        (json!({"status": "skipped,failed", "endpointId": first.id}), 2),
        (json!({"eventType": "job.failed"}), 1),
        (json!({"since": "2026-05-15T12:00:00Z", "until": "2027-01-01T00:00:00Z"}), 3),
        (json!({"responseStatus": ["5xx", "404"]}), 0),
    ] {
        let counted = app.post(&path(), json!({"filter": filter, "dryRun": true})).await.data(200);
        let filter = counted["filter"].clone();
        let expected = json!({"dryRun": true, "filter": filter, "total": total, "unavailable": 0, "countedTo": null});
        assert_eq!(counted, expected);
        assert_eq!(filter["until"], "2026-05-15T12:00:00.001Z", "later ones do not exist yet");
        let again = app.post(&path(), json!({"filter": filter, "dryRun": true})).await.data(200);
        assert_eq!(again, counted, "a filter that was shown is accepted as it is");
    }
    assert_eq!(app.get(REPLAYS).await.data(200), json!([]));
    assert_eq!(receiver.counts().requests, 0);
}

#[tokio::test]
async fn it_goes_on_after_a_restart_and_waits_for_what_is_off() {
    let (mut app, receiver, [first, second]) = with_skipped().await;
    patch(app.caller(), &second.id, json!({"isActive": false})).await.data(200);
    let replay = app.post(&path(), json!({"filter": {"eventType": "post.created"}})).await.data(202);
    app.restart().await;
    assert_eq!(ended(&app, &replay).await["replayed"], 2);
    app.deliveries_when("status=delivered", "have arrived", |all| all.len() == 1).await;
    let waiting = app.deliveries("status=pending").await;
    assert_eq!(
        (waiting.len(), &waiting[0]["endpointId"], &waiting[0]["nextAttemptAt"]),
        (1, &json!(second.id), &Value::Null)
    );
    patch(app.caller(), &second.id, json!({"isActive": true})).await.data(200);
    app.deliveries_when("status=delivered", "have arrived", |all| all.len() == 2).await;
    assert_eq!(receiver.counts().requests, 2, "{:?}", first.id);
}

#[tokio::test]
async fn every_replay_is_shown_and_stopped_by_its_id() {
    let (app, _receiver, [first, _]) = with_skipped().await;
    let replay = json!({"since": "2026-05-15T12:00:00Z"});
    let of_endpoint = app.post(&format!("{ENDPOINTS}/{}/replay", first.id), replay).await.data(202);
    let body = json!({"filter": {"status": "skipped"}});
    let by_filter = assert_done_once(app.caller(), Method::POST, &path(), body, 202).await.data(202);
    let shown = app.get(&format!("{REPLAYS}/{}", text(&of_endpoint, "id"))).await.data(200);
    let filter = json!({
        "endpointId": [first.id], "status": ["failed", "skipped"], "cause": ["event"],
        "since": "2026-05-15T12:00:00.000Z", "until": "2026-05-15T12:00:00.001Z",
    });
    assert_eq!((&shown["endpointId"], &shown["filter"]), (&json!(first.id), &filter));
    let listed = app.get(REPLAYS).await.data(200);
    let ids: Vec<&Value> = listed.as_array().unwrap().iter().map(|replay| &replay["id"]).collect();
    assert_eq!(ids, [&by_filter["id"], &of_endpoint["id"]], "newest first, once per idempotency key");
    let of_endpoints = app.get(&format!("{ENDPOINTS}/{}/replays", first.id)).await.data(200);
    assert_eq!(of_endpoints, json!([of_endpoint]));
    for replay in [&by_filter, &of_endpoint] {
        let stop = format!("{REPLAYS}/{}/stop", text(replay, "id"));
        assert_eq!(app.caller().post_text(&stop, "").await.data(200)["status"], "stopped");
    }
    let of_other_kind = format!("{ENDPOINTS}/{}/replays/{}", first.id, text(&by_filter, "id"));
    app.get(&of_other_kind).await.error(404, "not_found");
}

#[tokio::test]
async fn each_fault_of_a_filter_is_named() {
    let (app, _receiver, _) = with_skipped().await;
    let several = "must be a string or an array of at least one string";
    for (body, name, fault) in [
        (json!({}), "filter", "is required"),
        (json!({"filter": "failed"}), "filter", "must be an object"),
        (json!({"filter": null}), "filter", "must be an object"),
        (json!({"filter": {"status": 5}}), "filter.status", several),
        (json!({"filter": {"status": []}}), "filter.status", several),
        (json!({"filter": {"state": "failed"}}), "filter.state", "is not a known parameter"),
        (json!({"filter": {"endpointId": "whe_x"}}), "filter.endpointId", "not an id of this kind"),
        (json!({"filter": {"status": "failed"}, "dryRun": 1}), "dryRun", "must be true or false"),
        (json!({"filter": {"status": "failed"}, "limit": 1}), "limit", "is not a known parameter"),
    ] {
        let error = app.post(&path(), body.clone()).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({name: fault}), "{body}");
    }
    let nothing = "nothing that passes is failed, skipped, cancelled or delivered: only these can be sent again";
    for (filter, name, fault) in [
        (json!({}), "filter", "must have at least one parameter"),
        (json!({"status": "pending"}), "filter.status", nothing),
        (
            json!({"cause": "test"}),
            "filter.cause",
            "must name at least one of event, retry, replay: tests are not sent again",
        ),
        (
            json!({"since": "2027-01-01T00:00:00Z"}),
            "filter.since",
            "must be earlier than until, which is now at the latest",
        ),
    ] {
        for dry_run in [false, true] {
            let body = json!({"filter": filter, "dryRun": dry_run});
            let error = app.post(&path(), body.clone()).await.error(422, "unprocessable");
            assert_eq!(*faults(&error), json!({name: fault}), "{body}");
        }
    }
    assert_eq!(app.get(REPLAYS).await.data(200), json!([]));
}
