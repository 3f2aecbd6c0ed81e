//! `/v1/webhook-deliveries`.

use std::collections::HashSet;
use std::time::Duration;

use postrider_domain::access::Mode;
use serde_json::{Value, json};

use super::{DELIVERIES, EVENTS, an_endpoint, an_endpoint_with, faults};
use crate::support::app::{ALL_SCOPES, App, text};
use crate::support::caller::Caller;

/// An app in test mode, and its caller. Deliveries are simulated, so that the log fills without a receiver.
async fn with_test_key() -> (App, Caller) {
    let app = App::start().await.in_test_mode().await;
    let test = app.caller().clone();
    (app, test)
}

async fn publish(caller: &Caller, event_type: &str) -> String {
    text(&caller.post(EVENTS, json!({"type": event_type, "data": {}})).await.data(202), "id")
}

fn ids(deliveries: &[Value]) -> Vec<String> {
    deliveries.iter().map(|delivery| text(delivery, "id")).collect()
}

#[tokio::test]
async fn a_delivery_is_shown_with_attempts_and_listed_without() {
    let (app, test) = with_test_key().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let event = publish(&test, "post.created").await;
    let delivery = app.delivery_ended(&event, "simulated").await;
    let members: Vec<&str> = delivery.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "id",
        "eventId",
        "eventType",
        "endpointId",
        "projectId",
        "mode",
        "status",
        "reason",
        "cause",
        "retryOf",
        "attemptCount",
        "nextAttemptAt",
        "createdAt",
        "completedAt",
        "isBlocking",
        "lastOutcome",
        "lastResponseStatus",
        "attempts",
        "explanation",
    ];
    assert_eq!(members, expected);
    assert_eq!(delivery["endpointId"], *endpoint.id);
    assert_eq!(delivery["mode"], "test");
    assert_eq!(delivery["cause"], "event");
    assert_eq!(delivery["attemptCount"], 1);
    assert_eq!((&delivery["lastOutcome"], &delivery["lastResponseStatus"]), (&json!("simulated"), &Value::Null));
    assert_eq!(delivery["createdAt"], "2026-05-15T12:00:00.000Z");
    assert_eq!(delivery["completedAt"], "2026-05-15T12:00:00.000Z");
    for member in ["projectId", "reason", "retryOf", "nextAttemptAt"] {
        assert_eq!(delivery[member], Value::Null, "{member}");
    }
    let mut listed = app.deliveries(&format!("eventId={event}")).await.remove(0);
    assert!(listed.get("attempts").is_none());
    assert!(listed.get("explanation").is_none());
    listed["attempts"] = delivery["attempts"].clone();
    listed["explanation"] = delivery["explanation"].clone();
    assert_eq!(listed, delivery);
}

#[tokio::test]
async fn events_of_a_test_key_are_rendered_and_signed_but_not_sent() {
    let app = App::to_loopback().await.in_test_mode().await;
    let receiver = crate::support::receiver::Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let event = publish(app.caller(), "post.created").await;
    let delivery = app.delivery_ended(&event, "simulated").await;
    let [attempt] = &delivery["attempts"].as_array().unwrap()[..] else { panic!("not one attempt: {delivery}") };
    assert_eq!((&attempt["number"], &attempt["outcome"]), (&json!(1), &json!("simulated")));
    assert_eq!(attempt["responseStatus"], Value::Null);
    let header = |name: &str| {
        let headers = attempt["requestHeaders"].as_array().unwrap();
        text(headers.iter().find(|header| header["name"] == name).unwrap(), "value")
    };
    assert_eq!(header("webhook-id"), event);
    assert_eq!(header("webhook-timestamp"), "1778846400");
    assert_eq!(header("scripe-delivery-id"), text(&delivery, "id"));
    assert_eq!(header("scripe-delivery-attempt"), "1");
    let body = format!(
        "{{\"id\":\"{event}\",\"type\":\"post.created\",\"timestamp\":\"2026-05-15T12:00:00.000Z\",\
         \"apiVersion\":\"2026-08-01\",\"workspaceId\":\"{}\",\"projectId\":null,\"data\":{{}}}}",
        app.create_key("Acme", Mode::Live, &[], None).await.key.workspace_id
    );
    let library = standardwebhooks::Webhook::new(&endpoint.secret).unwrap();
    assert_eq!(header("webhook-signature"), library.sign(&event, 1_778_846_400, body.as_bytes()).unwrap());
    assert_eq!(receiver.counts().connections, 0);
}

#[tokio::test]
async fn the_log_is_filtered_by_each_of_its_parameters() {
    let (app, test) = with_test_key().await;
    let posts = app.endpoint(an_endpoint()).await;
    let notes = app.endpoint(an_endpoint_with("events", json!(["note.created", "post.created"]))).await;
    let first = publish(&test, "post.created").await;
    app.deliveries_when("status=simulated", "are simulated", |all| all.len() == 2).await;
    app.clock().advance(Duration::from_secs(60));
    let second = publish(&test, "note.created").await;
    app.delivery_ended(&second, "simulated").await;

    let count = async |filter: &str| app.deliveries(filter).await.len();
    assert_eq!(count("").await, 3);
    assert_eq!(count(&format!("endpointId={}", posts.id)).await, 1);
    assert_eq!(count(&format!("endpointId={}", notes.id)).await, 2);
    assert_eq!(count(&format!("eventId={first}")).await, 2);
    assert_eq!(count("eventType=note.created").await, 1);
    assert_eq!(count("eventType=job.failed").await, 0);
    assert_eq!(count("status=simulated").await, 3);
    assert_eq!(count("status=pending").await, 0);
    assert_eq!(count("since=2026-05-15T12:01:00Z").await, 1);
    assert_eq!(count("since=2026-05-15T12:00:00Z").await, 3);
    assert_eq!(count("until=2026-05-15T12:01:00Z").await, 2);
    assert_eq!(count("until=2026-05-15T12:00:00Z").await, 0);
    assert_eq!(count("since=2026-05-15T14:00:30%2B02:00&until=2026-05-15T12:01:00.001Z").await, 1);
    assert_eq!(count(&format!("endpointId={}&eventId={second}&status=simulated", notes.id)).await, 1);
    assert_eq!(count(&format!("endpointId={}&eventId={second}", posts.id)).await, 0);
    assert_eq!(count("endpointId=whe_0000000000000000").await, 0);
}

#[tokio::test]
async fn an_invalid_filter_is_named() {
    let app = App::start().await;
    let wrong = [
        ("status=failed,done", "status", "must be one of pending, delivered, failed, skipped, cancelled, simulated"),
        ("cause=hand", "cause", "must be one of event, retry, replay, test"),
        (
            "responseStatus=5x",
            "responseStatus",
            "must be a status from 100 to 999, such as 503, or a class from 1xx to 9xx",
        ),
        ("projectId=p,,q", "projectId", "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -"),
        ("status=done", "status", "must be one of pending, delivered, failed, skipped, cancelled, simulated"),
        ("endpointId=1", "endpointId", "not an id of this kind"),
        ("eventId=dlv_1", "eventId", "not an id of this kind"),
        ("since=today", "since", "must be an ISO 8601 date and time with an offset, like 2026-05-15T08:21:00.000Z"),
        ("colour=red", "colour", "is not a known parameter"),
        ("status=failed&status=pending", "status", "is given twice in the query"),
    ];
    for (query, name, fault) in wrong {
        let error = app.get(&format!("{DELIVERIES}?{query}")).await.error(400, "invalid_request");
        assert_eq!(*faults(&error), json!({name: fault}), "{query}");
    }
    let error = app.get(&format!("{DELIVERIES}?eventType=post.deleted")).await.error(400, "invalid_request");
    assert!(text(faults(&error), "eventType").starts_with("\"post.deleted\" is not an event name"));
}

#[tokio::test]
async fn cursors_walk_the_whole_log_newest_first_while_it_grows() {
    let (app, test) = with_test_key().await;
    app.endpoint(an_endpoint()).await;
    for _ in 0..7 {
        publish(&test, "post.created").await;
        app.clock().advance(Duration::from_millis(1));
    }
    let all = ids(&app.deliveries("").await);
    assert_eq!(all.len(), 7);
    let mut walked = Vec::new();
    let mut cursor = String::new();
    for page in 1.. {
        let reply = app.get(&format!("{DELIVERIES}?limit=3{cursor}")).await;
        let Value::Array(deliveries) = reply.data(200) else { panic!("not a list: {}", reply.text()) };
        walked.extend(ids(&deliveries));
        let pagination = reply.json()["pagination"].clone();
        publish(&test, "post.created").await;
        if pagination["has_more"] == false {
            assert_eq!(pagination["next_cursor"], Value::Null);
            assert_eq!((page, deliveries.len()), (3, 1));
            break;
        }
        assert_eq!(deliveries.len(), 3);
        cursor = format!("&cursor={}", text(&pagination, "next_cursor"));
    }
    assert_eq!(walked, all);
    assert_eq!(walked.iter().collect::<HashSet<_>>().len(), 7);
}

#[tokio::test]
async fn a_page_has_1_to_200_entries_and_50_by_default() {
    let (app, test) = with_test_key().await;
    app.endpoint(an_endpoint()).await;
    for _ in 0..51 {
        publish(&test, "post.created").await;
    }
    assert_eq!(app.deliveries("").await.len(), 50);
    assert_eq!(app.deliveries("limit=1").await.len(), 1);
    assert_eq!(app.deliveries("limit=200").await.len(), 51);
    for bad in ["0", "201", "-1", "ten", "", "1.5"] {
        let error = app.get(&format!("{DELIVERIES}?limit={bad}")).await.error(400, "bad_pagination");
        assert_eq!(error["message"], "The page is out of range: limit must be a whole number from 1 to 200.");
    }
    for bad in ["x", "", "AAAA", "%00"] {
        app.get(&format!("{DELIVERIES}?cursor={bad}")).await.error(400, "bad_cursor");
    }
}

#[tokio::test]
async fn another_workspaces_log_is_neither_listed_nor_found() {
    let (app, test) = with_test_key().await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let event = publish(&test, "post.created").await;
    let id = text(&app.deliveries("").await[0], "id");
    let stranger = app.caller_of("Globex", ALL_SCOPES).await;
    for filter in ["", &format!("?eventId={event}"), &format!("?endpointId={}", endpoint.id)] {
        let reply = stranger.get(&format!("{DELIVERIES}{filter}")).await;
        assert_eq!(reply.text(), "{\"data\":[],\"pagination\":{\"next_cursor\":null,\"has_more\":false}}");
    }
    for id in [&*id, "dlv_00000000000000000000", "dlv_", &event] {
        stranger.get(&format!("{DELIVERIES}/{id}")).await.error(404, "not_found");
    }
}
