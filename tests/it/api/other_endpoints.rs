//! Why endpoints did not get an event.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::{ENDPOINTS, EVENTS, an_endpoint, an_endpoint_with};
use crate::support::app::{App, text};

async fn others(app: &App, event: &str, query: &str) -> Value {
    let reply = app.get(&format!("{EVENTS}/{event}/other-endpoints{query}")).await;
    assert_eq!(reply.status, 200, "{}", reply.json());
    reply.json()
}

fn other(endpoint: &str, reason: &str, configured_as: &str) -> Value {
    json!({"endpointId": endpoint, "reason": reason, "configuredAs": configured_as})
}

async fn publish(app: &App, body: Value) -> String {
    text(&app.post(EVENTS, body).await.data(202), "id")
}

#[tokio::test]
async fn each_other_endpoint_has_its_reason_and_says_when_it_held() {
    let app = App::start().await.in_test_mode().await;
    let got = app.endpoint(an_endpoint()).await;
    let skipped = app.endpoint(an_endpoint()).await;
    let path = |id: &str| format!("{ENDPOINTS}/{id}");
    let patch = async |id: &str, body: Value| {
        app.caller().send(Method::PATCH, &path(id), body.to_string()).await.data(200);
    };
    patch(&skipped.id, json!({"isActive": false})).await;
    let types = app.endpoint(an_endpoint_with("events", json!(["note.created"]))).await;
    let project = app.endpoint(an_endpoint_with("projectId", json!("proj_b"))).await;
    let joined = app.endpoint(an_endpoint_with("events", json!(["note.created"]))).await;
    let moved = app.endpoint(an_endpoint_with("events", json!(["note.created"]))).await;
    app.clock().advance(Duration::from_secs(61));
    let event = publish(&app, json!({"type": "post.created", "data": {}, "projectId": "proj_a"})).await;
    app.clock().advance(Duration::from_secs(1));
    let later = app.endpoint(an_endpoint()).await;
    patch(&joined.id, json!({"events": ["post.created"]})).await;
    patch(&moved.id, json!({"events": ["job.failed"]})).await;
    let expected = [
        other(&later.id, "created_later", "at_accept"),
        other(&moved.id, "other_types", "now"),
        other(&joined.id, "changed_since", "now"),
        other(&project.id, "other_project", "at_accept"),
        other(&types.id, "other_types", "at_accept"),
    ];
    let all = others(&app, &event, "").await;
    assert_eq!(all["data"], json!(expected));
    assert!(!all.to_string().contains(&got.id) && !all.to_string().contains(&skipped.id), "{all}");

    let mut paged = Vec::new();
    let mut query = "?limit=2".to_owned();
    loop {
        let page = others(&app, &event, &query).await;
        paged.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["pagination"]["next_cursor"].as_str() else { break };
        query = format!("?limit=2&cursor={next}");
    }
    assert_eq!(paged, expected);
}

#[tokio::test]
async fn a_change_just_before_the_event_is_not_taken_for_settled() {
    let app = App::start().await.in_test_mode().await;
    let types = app.endpoint(an_endpoint_with("events", json!(["note.created"]))).await;
    app.clock().advance(Duration::from_secs(60));
    let event = publish(&app, json!({"type": "post.created", "data": {}})).await;
    assert_eq!(others(&app, &event, "").await["data"], json!([other(&types.id, "other_types", "now")]));
}

#[tokio::test]
async fn others_did_not_get_an_event_that_was_a_test_of_one() {
    let app = App::start().await.in_test_mode().await;
    let (tested, other_one) = (app.endpoint(an_endpoint()).await, app.endpoint(an_endpoint()).await);
    let test = app.post(&format!("{ENDPOINTS}/{}/test", tested.id), json!({})).await.data(202);
    let all = others(&app, &text(&test, "eventId"), "").await;
    assert_eq!(all["data"], json!([other(&other_one.id, "test_of_other", "at_accept")]));
}
