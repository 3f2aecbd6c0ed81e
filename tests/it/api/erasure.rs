//! `DELETE /v1/events/{eventId}` and `/v1/erasures`.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{ENDPOINTS, EVENTS, assert_done_once, faults};
use crate::support::app::{App, text};
use crate::support::caller::Reply;
use crate::support::files::count_in_files;
use crate::support::postgres::TestDatabase;
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::wait::eventually;

const ERASURES: &str = "/v1/erasures";

async fn delete(app: &App, event: &str, query: &str) -> Reply {
    app.caller().send(Method::DELETE, &format!("{EVENTS}/{event}{query}"), String::new()).await
}

/// Advances the clock, which drives an erasure, until the job has ended.
async fn erased(app: &App, erasure: &Value) -> Value {
    let path = format!("{ERASURES}/{}", text(erasure, "id"));
    let probe = || async {
        app.clock().advance(Duration::from_secs(1));
        Some(app.get(&path).await.data(200)).filter(|shown| shown["status"] == "erased")
    };
    eventually("the end of the erasure", probe).await
}

#[tokio::test]
async fn an_event_is_erased_and_shows_its_progress() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.decide(|_| Behaviour::status(200));
    app.endpoint_to(&receiver, &["post.created"]).await;
    let body = json!({"type": "post.created", "data": {"name": "Ada"}, "externalId": "ada-1", "projectId": null});
    let event = text(&app.post(EVENTS, body).await.data(202), "id");
    let delivery = text(&app.delivery_ended(&event, "delivered").await, "id");
    let started = delete(&app, &event, "").await.data(200);
    let members: Vec<&String> = started.as_object().unwrap().keys().collect();
    let expected = "id eventId projectId endpointId pending status events attempts cancelled answers waiting \
                    needsCompact createdAt completedAt mode";
    assert_eq!(members, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!((&started["eventId"], &started["pending"]), (&json!(event), &json!("cancel")));
    let ended = erased(&app, &started).await;
    assert_eq!((&ended["events"], &ended["attempts"], &ended["cancelled"]), (&json!(1), &json!(1), &json!(0)));
    assert!(ended["completedAt"].is_string() && ended["needsCompact"] == false, "{ended}");
    let shown = app.get(&format!("{EVENTS}/{event}")).await.data(200);
    let (payload, data, external_id) = (&shown["payload"], &shown["data"], &shown["externalId"]);
    assert_eq!((payload, data, external_id), (&json!("erased"), &Value::Null, &Value::Null));
    let attempt = app.delivery(&delivery).await["attempts"][0].clone();
    assert_eq!((&attempt["payload"], &attempt["responseBody"]), (&json!("erased"), &Value::Null));
    let retry = app.post(&format!("/v1/webhook-deliveries/{delivery}/retry"), json!({})).await;
    assert!(retry.error(409, "conflict")["message"].as_str().unwrap().contains("erased"));
    assert_eq!(delete(&app, &event, "?pending=finish").await.data(200), ended, "the same erasure again");
    assert_eq!(app.get(ERASURES).await.data(200), json!([ended]));
    assert_eq!(receiver.counts().requests, 1);
}

#[tokio::test]
async fn an_erasure_with_an_idempotency_key_is_done_once() {
    let app = App::start().await;
    let event = app.publish("post.created", json!({})).await;
    assert_done_once(app.caller(), Method::DELETE, &format!("{EVENTS}/{event}"), json!({}), 200).await;
    let body = json!({"projectId": "proj_1"});
    assert_done_once(app.caller(), Method::POST, ERASURES, body, 202).await;
    assert_eq!(app.get(ERASURES).await.data(200).as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_wrong_erasure_is_refused_with_its_fault() {
    let app = App::start().await;
    let event = app.publish("post.created", json!({})).await;
    let error = delete(&app, &event, "?pending=stop").await.error(400, "invalid_request");
    assert_eq!(faults(&error)["pending"], "must be cancel or finish");
    delete(&app, &event, "?mode=live").await.error(400, "invalid_request");
    delete(&app, "evt_0zzzzzzzzzzzzzzzzzzz", "").await.error(404, "not_found");
    let post = async |body: Value| app.post(ERASURES, body).await;
    post(json!({})).await.error(422, "unprocessable");
    post(json!({"projectId": "p", "endpointId": "whe_a1b2c3d4e5f6g7h8"})).await.error(422, "unprocessable");
    post(json!({"endpointId": "whe_a1b2c3d4e5f6g7h8"})).await.error(404, "not_found");
    post(json!({"endpointId": "p"})).await.error(400, "invalid_request");
    post(json!({"projectId": "not a project"})).await.error(400, "invalid_request");
    post(json!({"projectId": "p", "pending": "stop"})).await.error(400, "invalid_request");
    app.get("/v1/erasures/era_0zzzzzzzzzzzzzzzzzzz").await.error(404, "not_found");
    assert_eq!(app.get(ERASURES).await.data(200), json!([]), "nothing was started");
}

const MARKER: &str = "zq8-somebody-7w";

/// Erases a project on a server that accepts and delivers meanwhile. Returns the erasure.
async fn erase_under_load(app: &App) -> Value {
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let publish = async |number: usize, is_marked: bool| {
        let (word, project) = if is_marked { (MARKER, "gone") } else { ("somebody else", "stays") };
        let data = json!({ "text": word.repeat(1 + (number % 7) * 60) });
        let id = format!("{}-{number}", word.replace(' ', "-"));
        let event = json!({"type": "post.created", "data": data, "projectId": project, "externalId": id});
        app.caller().keyed(&format!("key-{number}")).post(EVENTS, event).await.data(202);
    };
    for number in 0..600 {
        publish(number, number % 3 == 1).await;
    }
    let started = app.post(ERASURES, json!({"projectId": "gone"})).await.data(202);
    let load = async {
        for number in 600..900 {
            publish(number, false).await;
        }
    };
    let (ended, ()) = tokio::join!(erased(app, &started), load);
    let delivered = || async {
        let pending = app.get("/v1/webhook-deliveries?status=pending&limit=1").await.data(200);
        pending.as_array().unwrap().is_empty().then_some(())
    };
    eventually("the last delivery", delivered).await;
    assert_eq!(ended["events"], 200);
    let event = app.get(&format!("{EVENTS}?projectId=stays&limit=1")).await.data(200);
    assert_eq!(event[0]["payload"], "kept");
    ended
}

#[tokio::test]
async fn no_file_holds_what_was_erased_while_the_server_delivers() {
    let app = App::to_loopback().await;
    let ended = erase_under_load(&app).await;
    assert_eq!(count_in_files(app.data_dir(), MARKER), 0);
    assert!(count_in_files(app.data_dir(), "somebody else") > 400);
    assert!(ended["answers"].as_u64().unwrap() > 150, "{ended}");
}

#[tokio::test]
async fn no_row_holds_what_was_erased_on_postgres() {
    let Some(database) = TestDatabase::new().await.map(std::sync::Arc::new) else { return };
    let app = App::set_up().await.allow("127.0.0.0/8").on(&database).start().await;
    erase_under_load(&app).await;
    let client = database.client().await;
    let sql = "SELECT (SELECT COUNT(*) FROM events WHERE convert_from(envelope, 'UTF8') LIKE $1 OR external_id LIKE $1)
                    + (SELECT COUNT(*) FROM publish_keys WHERE external_id LIKE $1)
                    + (SELECT COUNT(*) FROM idempotency WHERE NOT sealed AND convert_from(body, 'UTF8') LIKE $1)";
    let left: i64 = client.query_one(sql, &[&format!("%{MARKER}%")]).await.unwrap().get(0);
    assert_eq!(left, 0);
}

#[tokio::test]
async fn an_endpoint_loses_what_it_was_sent() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({})).await;
    let delivery = text(&app.delivery_ended(&event, "delivered").await, "id");
    app.caller().send(Method::DELETE, &format!("{ENDPOINTS}/{}", endpoint.id), String::new()).await;
    let started = app.post(ERASURES, json!({"endpointId": endpoint.id, "pending": "finish"})).await.data(202);
    let ended = erased(&app, &started).await;
    assert_eq!((&ended["endpointId"], &ended["attempts"]), (&json!(endpoint.id), &json!(1)));
    assert_eq!(app.delivery(&delivery).await["attempts"][0]["payload"], "erased");
    assert_eq!(app.get(&format!("{EVENTS}/{event}")).await.data(200)["payload"], "kept");
}
