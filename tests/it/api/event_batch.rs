//! `/v1/events/batch`: all or nothing, at the edges of its limits.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::receiver::Receiver;

const PATH: &str = "/v1/events/batch";
const KILOBYTE: usize = 1024;
const MEGABYTE: usize = 1024 * KILOBYTE;

fn event(external_id: &str) -> Value {
    json!({"type": "post.created", "data": {"id": "post_1"}, "externalId": external_id})
}

fn plain(count: usize) -> Value {
    json!({"events": vec![json!({"type": "post.created", "data": {}}); count]})
}

/// The body padded with white space to exactly this many bytes.
fn padded(body: &Value, bytes: usize) -> String {
    let mut text = body.to_string();
    text.push_str(&" ".repeat(bytes - text.len()));
    text
}

/// An event whose JSON has exactly this many bytes.
fn event_of(bytes: usize) -> String {
    let empty = r#"{"type":"post.created","data":{"text":""}}"#;
    empty.replace(r#""""#, &format!("\"{}\"", "x".repeat(bytes - empty.len())))
}

async fn events_stored(app: &App) -> usize {
    let page = app.get("/v1/events?limit=200").await.data(200);
    page.as_array().unwrap().len()
}

#[tokio::test]
async fn the_results_are_in_the_order_of_the_events() {
    let app = App::start().await;
    let body = json!({"events": [
        {"type": "post.created", "data": {"n": 1}, "externalId": "b", "projectId": "proj_1"},
        {"type": "job.failed", "data": {"n": 2}, "externalId": "a"},
        {"type": "note.created", "data": {"n": 3}, "occurredAt": "2026-05-15T08:21:00.000Z"},
    ]});
    let reply = app.post(PATH, body).await;
    let receipts = reply.data(202);
    let members: Vec<_> =
        receipts.as_array().unwrap().iter().map(|r| (&r["type"], &r["externalId"], &r["projectId"])).collect();
    assert_eq!(
        members,
        [
            (&json!("post.created"), &json!("b"), &json!("proj_1")),
            (&json!("job.failed"), &json!("a"), &Value::Null),
            (&json!("note.created"), &Value::Null, &Value::Null),
        ]
    );
    for (index, receipt) in receipts.as_array().unwrap().iter().enumerate() {
        let shown = app.get(&format!("/v1/events/{}", text(receipt, "id"))).await.data(200);
        assert_eq!(shown["data"]["n"], index + 1);
    }
}

#[tokio::test]
async fn a_batch_holds_1_to_1000_events() {
    let app = App::start().await;
    for (count, status) in [(0, 400), (1, 202), (1000, 202), (1001, 400)] {
        let reply = app.post(PATH, plain(count)).await;
        assert_eq!(reply.status, status, "{count}: {}", reply.text());
        if status == 202 {
            let receipts = reply.data(202);
            let ids: HashSet<String> = receipts.as_array().unwrap().iter().map(|receipt| text(receipt, "id")).collect();
            assert_eq!(ids.len(), count);
        } else {
            let error = reply.error(400, "invalid_request");
            let fault = format!("must hold 1 to 1000 events, not {count}");
            assert_eq!(error["details"]["parameters"]["events"], fault);
        }
    }
}

#[tokio::test]
async fn one_bad_event_refuses_the_batch_and_each_fault_has_its_path() {
    let app = App::start().await;
    let body = json!({"events": [
        {"type": "post.created", "data": {}},
        {"type": "post.destroyed", "data": []},
        "event",
        {"type": "post.created", "data": {}, "externalId": "a b", "colour": 1},
    ]});
    let parameters = app.post(PATH, body).await.error(400, "invalid_request")["details"]["parameters"].take();
    let names: Vec<&String> = parameters.as_object().unwrap().keys().collect();
    assert_eq!(names, ["events[1].type", "events[1].data", "events[2]", "events[3].externalId", "events[3].colour"]);
    assert_eq!(events_stored(&app).await, 0);
    for (body, name) in
        [(json!({}), "events"), (json!({"events": {}}), "events"), (json!({"events": [{}], "x": 1}), "x")]
    {
        let error = app.post(PATH, body).await.error(400, "invalid_request");
        assert!(error["details"]["parameters"][name].is_string(), "{error}");
    }
}

#[tokio::test]
async fn the_number_of_reported_faults_is_limited() {
    let app = App::start().await;
    let body = json!({"events": vec![json!({"type": "nothing"}); 1000]});
    let reply = app.post(PATH, body).await;
    let error = reply.error(400, "invalid_request");
    assert!(error["details"]["parameters"].as_object().unwrap().len() < 50);
    assert!(reply.body.len() < 20_000, "{} bytes", reply.body.len());
}

#[tokio::test]
async fn a_duplicate_external_id_is_refused_with_both_positions() {
    let app = App::start().await;
    let body = json!({"events": [event("a"), event("b"), event("c"), event("b")]});
    let error = app.post(PATH, body).await.error(422, "unprocessable");
    assert_eq!(error["details"]["parameters"], json!({"events[3].externalId": "is the same as events[1].externalId"}));
    assert_eq!(events_stored(&app).await, 0);
}

#[tokio::test]
async fn a_known_external_id_gets_its_first_result_in_a_batch() {
    let app = App::start().await;
    let first = app.post("/v1/events", event("a")).await.data(202);
    let body = json!({"events": [event("b"), event("a")]});
    let reply = app.post(PATH, body.clone()).await;
    let receipts = reply.data(202);
    assert_eq!(receipts[1], first);
    assert_ne!(receipts[0]["id"], first["id"]);
    assert_eq!(reply.header("idempotent-replayed"), None);
    // An event with its keys in another order is the same event.
    let again = format!(
        r#"{{ "events": [ {{"externalId":"b","data":{{"id":"post_1"}},"type":"post.created"}},{} ]}}"#,
        event("a")
    );
    let again = app.caller().post_text(PATH, &again).await;
    assert_eq!(again.data(200), receipts);
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(events_stored(&app).await, 2);
}

#[tokio::test]
async fn a_known_external_id_with_other_content_refuses_the_batch() {
    let app = App::start().await;
    app.post("/v1/events", event("a")).await.data(202);
    let other = json!({"type": "post.created", "data": {"id": "post_2"}, "externalId": "a"});
    let reply = app.post(PATH, json!({"events": [event("b"), other]})).await;
    let error = reply.error(409, "idempotency_key_conflict");
    assert!(text(&error, "message").contains("events[1].externalId"), "{error}");
    assert_eq!(events_stored(&app).await, 1);
}

#[tokio::test]
async fn a_repeated_event_is_marked_as_replayed() {
    let app = App::start().await;
    let first = app.post("/v1/events", event("a")).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None));
    let again = app.post("/v1/events", event("a")).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!(again.text(), first.text());
}

#[tokio::test]
async fn an_event_of_a_batch_is_at_most_256_kb_as_sent() {
    let app = App::start().await;
    let batch = |bytes: usize| format!(r#"{{"events":[{},{}]}}"#, event_of(100), event_of(bytes));
    app.caller().post_text(PATH, &batch(256 * KILOBYTE)).await.data(202);
    let error = app.caller().post_text(PATH, &batch(256 * KILOBYTE + 1)).await.error(413, "payload_too_large");
    assert_eq!(error["message"], "events[1] is larger than 256 KB.");
    assert_eq!(events_stored(&app).await, 2);
}

#[tokio::test]
async fn a_batch_is_at_most_8_mb() {
    let app = App::start().await;
    let full = |bytes: usize| {
        let events = vec![event_of(256 * KILOBYTE - 1); 31].join(",");
        let open = format!(r#"{{"events":[{events}]}}"#);
        format!("{open}{}", " ".repeat(bytes - open.len()))
    };
    assert_eq!(app.caller().post_text(PATH, &full(8 * MEGABYTE)).await.data(202).as_array().unwrap().len(), 31);
    let error = app.caller().post_text(PATH, &full(8 * MEGABYTE + 1)).await.error(413, "payload_too_large");
    assert_eq!(error["message"], "The body is larger than 8 MB.");
}

#[tokio::test]
async fn a_batch_with_an_idempotency_key_is_at_most_256_kb() {
    let app = App::start().await;
    let keyed = app.caller().keyed("batch-1");
    let error = keyed.post_text(PATH, &padded(&plain(2), 256 * KILOBYTE + 1)).await.error(413, "payload_too_large");
    assert!(text(&error, "message").contains("Idempotency-Key"), "{error}");
    let first = keyed.post_text(PATH, &padded(&plain(2), 256 * KILOBYTE)).await;
    first.data(202);
    let again = keyed.post(PATH, plain(2)).await;
    assert_eq!((again.status, again.text()), (202, first.text()));
    assert_eq!(again.header("idempotent-replayed"), Some("true"));
    assert_eq!(events_stored(&app).await, 2);
    // A key that does not match the pattern is ignored, so the larger limit applies.
    app.caller().keyed("not a key").post_text(PATH, &padded(&plain(1), MEGABYTE)).await.data(202);
}

#[tokio::test]
async fn a_request_creates_at_most_10000_deliveries() {
    // The deliveries of a test key are simulated, so no receiver gets 10,000 requests.
    let app = App::to_loopback().await.in_test_mode().await;
    let receiver = Receiver::start().await;
    for _ in 0..10 {
        app.endpoint_to(&receiver, &["post.created"]).await;
    }
    let in_project =
        json!({"name": "One more", "url": receiver.url("/"), "events": ["post.created"], "projectId": "p"});
    app.endpoint(in_project).await;
    let mut body = plain(1000);
    body["events"][999]["projectId"] = json!("p");
    let error = app.post(PATH, body.clone()).await.error(422, "unprocessable");
    assert_eq!(error["message"], "The request would create 10001 deliveries, more than 10000.");
    assert_eq!(events_stored(&app).await, 0);
    body["events"][999]["projectId"] = json!("q");
    let receipts = app.post(PATH, body).await.data(202);
    assert!(receipts.as_array().unwrap().iter().all(|receipt| receipt["deliveries"] == 10));
    assert_eq!(receiver.received().len(), 0);
}

#[tokio::test]
async fn a_batch_needs_the_scope_of_publishing() {
    let app = App::start().await;
    let reader = app.caller_of("Acme", &ALL_SCOPES[..2]).await;
    let error = reader.post(PATH, plain(1)).await.error(403, "scope_missing");
    assert_eq!(error["details"]["required"], json!(["events:write"]));
}

#[tokio::test]
async fn an_event_in_a_batch_may_nest_as_deeply_as_one_alone() {
    let app = App::start().await;
    let nested = |depth: usize| {
        let data = format!("{}{}", "[".repeat(depth - 2), "]".repeat(depth - 2));
        format!(r#"{{"type":"post.created","data":{{"n":{data}}}}}"#)
    };
    for (depth, status) in [(64, 202), (65, 400)] {
        assert_eq!(app.caller().post_text("/v1/events", &nested(depth)).await.status, status, "{depth}");
        let batch = format!(r#"{{"events":[{}]}}"#, nested(depth));
        assert_eq!(app.caller().post_text(PATH, &batch).await.status, status, "{depth} in a batch");
    }
}
