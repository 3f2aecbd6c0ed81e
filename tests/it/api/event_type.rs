//! `/v1/event-types`, and the effect of the catalogue's schemas on publishing.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::app::{App, text};
use crate::support::caller::Caller;

#[tokio::test]
async fn every_name_is_listed_in_order_with_a_publishable_example() {
    let app = App::start().await;
    let reply = app.caller_of("Acme", &[]).await.get("/v1/event-types").await;
    let types = reply.data(200);
    let names: Vec<String> = types.as_array().unwrap().iter().map(|event| text(event, "name")).collect();
    assert_eq!(names.len(), 9);
    assert_eq!((names[0].as_str(), names[8].as_str()), ("note.created", "knowledge.indexed"));
    assert_eq!(reply.json()["pagination"], json!({"next_cursor": null, "has_more": false}));
    for event in types.as_array().unwrap() {
        let members: Vec<&String> = event.as_object().unwrap().keys().collect();
        assert_eq!(members, ["name", "description", "retired", "schema", "example"]);
        assert_eq!((&event["retired"], &event["schema"]["type"]), (&json!(false), &json!("object")));
        app.publish(&text(event, "name"), event["example"].clone()).await;
    }
    Caller::stranger(app.server().address()).get("/v1/event-types").await.error(401, "invalid_token");
    app.get("/v1/event-types?limit=1").await.error(400, "invalid_request");
}

const STRICT: &str = r#"
version = 1
[[event]]
name = "order.paid"
description = "An order was paid."
validation = "reject"
schema = '{"type":"object","required":["id"],"properties":{"id":{"type":"string"},"lines":{"items":{"required":["sku"]}}}}'
example = '{"id":"order_1"}'
[[event]]
name = "order.seen"
description = "An order was looked at."
validation = "record"
schema = '{"type":"object","required":["id"]}'
example = '{"id":"order_1"}'
[[event]]
name = "order.lost"
description = "Not sent any more."
retired = true
schema = '{}'
example = '{}'
"#;

async fn strict() -> App {
    let setup = App::set_up().await;
    let path = setup.settings.data_dir.with_file_name("events.toml");
    std::fs::write(&path, STRICT).unwrap();
    setup.change(|settings| settings.events_file = Some(path)).start().await
}

#[tokio::test]
async fn a_schema_that_rejects_refuses_bad_data_with_its_path() {
    let app = strict().await;
    let publish = async |data: Value| app.post("/v1/events", json!({"type": "order.paid", "data": data})).await;
    publish(json!({"id": "o", "more": true})).await.data(202);
    let error = publish(json!({"id": 7, "lines": [{"sku": 1}, {}]})).await.error(400, "invalid_request");
    assert_eq!(
        error["details"]["parameters"],
        json!({"data.id": "value is not of type \"string\"", "data.lines[1]": "\"sku\" is a required property"})
    );
    let batch = json!({"events": [
        {"type": "order.paid", "data": {"id": "o"}},
        {"type": "order.paid", "data": {}},
    ]});
    let error = app.post("/v1/events/batch", batch).await.error(400, "invalid_request");
    assert_eq!(error["details"]["parameters"], json!({"events[1].data": "\"id\" is a required property"}));
    assert_eq!(app.get("/v1/events").await.data(200).as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_schema_that_records_accepts_bad_data_unchanged() {
    let app = strict().await;
    let id = app.publish("order.seen", json!({"other": 1})).await;
    assert_eq!(app.get(&format!("/v1/events/{id}")).await.data(200)["data"], json!({"other": 1}));
}

#[tokio::test]
async fn a_retired_name_is_listed_but_not_published_or_subscribed_to() {
    let app = strict().await;
    let types = app.get("/v1/event-types").await.data(200);
    let retired: Vec<&Value> = types.as_array().unwrap().iter().map(|event| &event["retired"]).collect();
    assert_eq!(retired, [false, false, true]);
    let error = app.post("/v1/events", json!({"type": "order.lost", "data": {}})).await.error(400, "invalid_request");
    let fault = "\"order.lost\" is not an event name; the event names are order.paid, order.seen";
    assert_eq!(error["details"]["parameters"]["type"], fault);
    let body = json!({"name": "n", "url": "https://hooks.example.com/", "events": ["order.lost"]});
    app.post("/v1/webhook-endpoints", body).await.error(400, "invalid_request");
    assert_eq!(app.get("/v1/events?type=order.lost").await.data(200), json!([]));
}

#[tokio::test]
async fn the_built_in_catalogue_equals_the_file_at_the_root() {
    let file = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("events.toml")).unwrap();
    assert_eq!(postrider_domain::event_type::Catalogue::BUILT_IN, file);
}
