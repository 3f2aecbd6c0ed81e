//! `/v1/events`.

use postrider_domain::access::Mode;
use serde_json::{Value, json};

use super::{EVENTS, an_endpoint, an_endpoint_with, an_event, faults};
use crate::support::app::{ALL_SCOPES, App, text};

#[tokio::test]
async fn an_accepted_event_gets_202_and_its_number_of_deliveries() {
    let app = App::start().await.in_test_mode().await;
    app.endpoint(an_endpoint()).await;
    app.endpoint(an_endpoint()).await;
    app.endpoint(an_endpoint_with("events", json!(["note.created"]))).await;
    let body = json!({
        "type": "post.created",
        "data": {"id": "post_1"},
        "projectId": "proj_a",
        "externalId": "order-17",
        "occurredAt": "2026-05-15T10:21:00+02:00",
    });
    let reply = app.post(EVENTS, body).await;
    let id = text(&reply.data(202), "id");
    assert_eq!(
        reply.text(),
        format!(
            "{{\"data\":{{\"id\":\"{id}\",\"externalId\":\"order-17\",\"type\":\"post.created\",\"projectId\":\"proj_a\",\
             \"createdAt\":\"2026-05-15T12:00:00.000Z\",\"deliveries\":2}}}}"
        )
    );
    assert!(id.starts_with("evt_"));
    assert_eq!(app.deliveries(&format!("eventId={id}")).await.len(), 2);

    let bare = app.post(EVENTS, json!({"type": "job.failed", "data": {}})).await.data(202);
    assert_eq!((&bare["externalId"], &bare["projectId"]), (&Value::Null, &Value::Null));
    assert_eq!(bare["deliveries"], 0);
}

#[tokio::test]
async fn each_fault_of_an_event_is_named() {
    let app = App::start().await;
    let wrong = [
        (json!({}), json!({"type": "is required", "data": "is required"})),
        (json!({"type": 1, "data": []}), json!({"type": "must be a string", "data": "must be an object"})),
        (json!({"type": "post.created", "data": null}), json!({"data": "must be an object"})),
        (json!({"type": "post.created", "data": "{}"}), json!({"data": "must be an object"})),
        (json!({"type": "post.created", "data": {}, "time": 1}), json!({"time": "is not a known parameter"})),
    ];
    for (body, expected) in wrong {
        assert_eq!(*faults(&app.post(EVENTS, body).await.error(400, "invalid_request")), expected);
    }
    let fault_of = async |member: &str, value: Value| {
        let mut body = an_event();
        body[member] = value;
        text(faults(&app.post(EVENTS, body).await.error(400, "invalid_request")), member)
    };
    assert!(fault_of("type", json!("post.deleted")).await.starts_with("\"post.deleted\" is not an event name"));
    for id in ["", "a b", "é", &"x".repeat(65)] {
        let rule = "must be 1 to 64 characters of A-Z, a-z, 0-9, _ and -";
        assert_eq!(fault_of("externalId", json!(id)).await, rule);
        assert_eq!(fault_of("projectId", json!(id)).await, rule);
    }
    for instant in ["yesterday", "2026-05-15", "2026-05-15T08:21:00", ""] {
        let fault = fault_of("occurredAt", json!(instant)).await;
        assert!(fault.starts_with("must be an ISO 8601 date and time with an offset"), "{fault}");
    }
    assert_eq!(fault_of("occurredAt", json!(1_778_846_400)).await, "must be a string");
}

#[tokio::test]
async fn optional_fields_may_be_null() {
    let app = App::start().await;
    let mut body = an_event();
    for member in ["projectId", "externalId", "occurredAt"] {
        body[member] = Value::Null;
    }
    assert_eq!(app.post(EVENTS, body).await.status, 202);
}

#[tokio::test]
async fn a_repeated_external_id_gets_the_first_answer_only() {
    let app = App::start().await.in_test_mode().await;
    let test = app.caller();
    app.endpoint(an_endpoint()).await;
    let body = json!({"type": "post.created", "data": {"n": 1}, "externalId": "order-17"});
    let first = test.post(EVENTS, body).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (202, None));
    let same = "{ \"externalId\":\"order-17\", \"data\":{\"n\":1}, \"type\":\"post.created\" }";
    for (caller, moment) in [(test.clone(), "without a key"), (test.keyed("k"), "with a key")] {
        let again = caller.post_text(EVENTS, same).await;
        assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")), "{moment}");
        assert_eq!(again.body, first.body);
    }
    assert_eq!(app.deliveries("").await.len(), 1);
}

#[tokio::test]
async fn an_external_id_with_other_content_is_a_conflict() {
    let app = App::start().await;
    let body = |data: &str| format!("{{\"type\":\"post.created\",\"data\":{data},\"externalId\":\"order-17\"}}");
    assert_eq!(app.caller().post_text(EVENTS, &body("{\"n\":1}")).await.status, 202);
    for other in ["{\"n\":1.0}", "{\"n\":2}", "{}"] {
        let error = app.caller().post_text(EVENTS, &body(other)).await.error(409, "idempotency_key_conflict");
        assert_eq!(error["message"], "The externalId was published before with other content.");
    }
}

#[tokio::test]
async fn an_external_id_belongs_to_one_workspace_and_one_mode() {
    let app = App::start().await;
    let body = json!({"type": "post.created", "data": {}, "externalId": "order-17"});
    let callers = [
        app.caller().clone(),
        app.caller_of("Globex", ALL_SCOPES).await,
        app.caller_with(app.create_key("Acme", Mode::Test, ALL_SCOPES, None).await),
    ];
    for caller in callers {
        assert_eq!(caller.post(EVENTS, body.clone()).await.status, 202);
        assert_eq!(caller.post(EVENTS, body.clone()).await.status, 200);
    }
}

#[tokio::test]
async fn an_external_id_survives_a_restart() {
    let mut app = App::start().await;
    let body = json!({"type": "post.created", "data": {}, "externalId": "order-17"});
    let first = app.post(EVENTS, body.clone()).await;
    app.restart().await;
    let again = app.post(EVENTS, body).await;
    assert_eq!((again.status, again.body), (200, first.body));
}

#[tokio::test]
async fn an_event_reaches_endpoints_of_its_project_and_of_none() {
    let app = App::start().await.in_test_mode().await;
    let every = app.endpoint(an_endpoint()).await.id;
    let a = app.endpoint(an_endpoint_with("projectId", json!("proj_a"))).await.id;
    let _b = app.endpoint(an_endpoint_with("projectId", json!("proj_b"))).await.id;
    app.caller_of("Globex", ALL_SCOPES).await.post("/v1/webhook-endpoints", an_endpoint()).await.data(200);
    let reached = async |project: Value| {
        let mut body = an_event();
        body["projectId"] = project;
        let event = text(&app.post(EVENTS, body).await.data(202), "id");
        let deliveries = app.deliveries(&format!("eventId={event}")).await;
        let mut reached: Vec<String> = deliveries.iter().map(|delivery| text(delivery, "endpointId")).collect();
        reached.sort_unstable();
        reached
    };
    let mut both = vec![every.clone(), a];
    both.sort_unstable();
    assert_eq!(reached(json!("proj_a")).await, both);
    assert_eq!(reached(json!("proj_unknown")).await, std::slice::from_ref(&every));
    assert_eq!(reached(Value::Null).await, [every]);
}
