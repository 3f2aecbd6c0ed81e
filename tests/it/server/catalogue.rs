//! A custom event catalogue, and the rules for a catalogue that changes between starts.

use std::path::PathBuf;

use postrider::server::StartError;
use postrider_domain::access::{Mode, Scopes};
use postrider_domain::error_chain::Chain;
use postrider_domain::workspace::WorkspaceName;
use postrider_service::CreateApiKey;
use serde_json::{Value, json};

use crate::support::app::{ALL_SCOPES, App, Setup, text};
use crate::support::receiver::Receiver;
use crate::support::verify::verify_signature;

/// A catalogue file. A name with a leading `-` is retired.
fn catalogue(version: u32, brand: &str, names: &[&str]) -> String {
    let mut file = format!("version = {version}\n[brand]\nname = '{brand}'\n");
    for name in names {
        let (name, retired) = (name.trim_start_matches('-'), name.starts_with('-'));
        file.push_str(&format!(
            "[[event]]\nname = '{name}'\ndescription = 'It is {name}.'\nretired = {retired}\n\
             schema = '{{\"type\":\"object\"}}'\nexample = '{{\"n\":1}}'\n"
        ));
    }
    file
}

fn path_of(setup: &Setup) -> PathBuf {
    setup.settings.data_dir.with_file_name("events.toml")
}

async fn set_up(file: &str) -> Setup {
    let setup = App::set_up().await.allow("127.0.0.0/8");
    let path = path_of(&setup);
    std::fs::write(&path, file).unwrap();
    setup.change(|settings| settings.events_file = Some(path))
}

/// Starts with this file and stops again. Returns the event names, or the error when the server does not start.
async fn start_with(setup: &Setup, file: &str) -> Result<Vec<String>, String> {
    std::fs::write(path_of(setup), file).unwrap();
    let describe = |error: StartError| Chain(&error).to_string();
    let server = setup.start_server().await.map_err(describe)?;
    let names = server.service().catalogue().names().map(ToString::to_string).collect();
    server.stop().await;
    Ok(names)
}

async fn make_key(setup: &Setup) {
    let server = setup.start_server().await.unwrap();
    let workspace = WorkspaceName::parse("Acme").unwrap();
    let create = CreateApiKey { name: None, mode: Mode::Live, scopes: Scopes::of(ALL_SCOPES), expires_at: None };
    server.operator().create_api_key(workspace, create).await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_custom_brand_and_catalogue_work_end_to_end() {
    let app = set_up(&catalogue(1, "acme", &["order.paid", "order.sent"])).await.start().await;
    assert!(app.caller().secret().unwrap().starts_with("acme_sk_live_"));
    let test_key = app.create_key("Acme", Mode::Test, ALL_SCOPES, None).await;
    assert!(test_key.secret.reveal().starts_with("acme_sk_test_"));

    let reply = app.caller().with("acme-api-version", "2026-08-01").get("/v1/event-types").await;
    assert_eq!(reply.header("acme-api-version"), Some("2026-08-01"));
    assert_eq!(reply.header("scripe-api-version"), None);
    let names: Vec<String> = reply.data(200).as_array().unwrap().iter().map(|event| text(event, "name")).collect();
    assert_eq!(names, ["order.paid", "order.sent"]);
    let unknown = app.caller().with("acme-api-version", "2020-01-01").get("/v1/event-types").await;
    unknown.error(400, "version_unsupported");

    let receiver = Receiver::start().await;
    let body = json!({"name": "n", "url": receiver.url("/"), "events": ["post.created"]});
    app.post("/v1/webhook-endpoints", body).await.error(400, "invalid_request");
    let endpoint = app.endpoint_to(&receiver, &["order.paid"]).await;
    let body = json!({"type": "post.created", "data": {}});
    app.post("/v1/events", body).await.error(400, "invalid_request");
    let event = app.publish("order.paid", json!({"n": 1})).await;
    app.delivery_ended(&event, "delivered").await;
    let received = &receiver.wait_for(1).await[0];
    assert_eq!(received.json()["type"], "order.paid");
    assert!(received.header("acme-delivery-id").unwrap().starts_with("dlv_"));
    assert_eq!(received.header("acme-delivery-attempt"), Some("1"));
    assert_eq!(received.header("scripe-delivery-id"), None);
    verify_signature(&endpoint.secret, received).unwrap();
}

#[tokio::test]
async fn a_key_of_another_brand_is_unknown() {
    let app = set_up(&catalogue(1, "acme", &["order.paid"])).await.start().await;
    let key = app.caller().secret().unwrap().replace("acme", "scripe");
    app.caller().key(&key).get("/v1/event-types").await.error(401, "invalid_token");
}

#[tokio::test]
async fn a_newer_catalogue_is_stored_and_an_older_one_is_ignored() {
    let setup = set_up("").await;
    let (first, second) = (catalogue(1, "acme", &["a.b"]), catalogue(2, "acme", &["a.b", "a.c"]));
    assert_eq!(start_with(&setup, &first).await.unwrap(), ["a.b"]);
    assert_eq!(start_with(&setup, &second).await.unwrap(), ["a.b", "a.c"]);
    assert_eq!(start_with(&setup, &first).await.unwrap(), ["a.b", "a.c"]);
    assert_eq!(start_with(&setup, &format!("# laid out anew\n{second}")).await.unwrap(), ["a.b", "a.c"]);
}

#[tokio::test]
async fn changed_content_under_the_same_version_is_refused() {
    let setup = set_up("").await;
    start_with(&setup, &catalogue(3, "acme", &["a.b"])).await.unwrap();
    let told = start_with(&setup, &catalogue(3, "acme", &["a.b", "a.c"])).await.unwrap_err();
    assert!(told.contains("a different event catalogue with the same version 3: raise `version`"), "{told}");
}

#[tokio::test]
async fn a_name_in_use_can_be_retired_but_not_removed() {
    let mut app = set_up(&catalogue(1, "acme", &["a.published", "a.subscribed", "a.free"])).await.start().await;
    app.publish("a.published", json!({})).await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &["a.subscribed"]).await;
    app.stop().await;
    let setup = app.setup();
    let error = start_with(setup, &catalogue(2, "acme", &["a.other"])).await.unwrap_err();
    assert!(
        error.contains("no longer names a.published, a.subscribed, which stored events or endpoints use"),
        "{error}"
    );
    assert!(error.contains("`retired = true`"), "{error}");
    let retired = catalogue(2, "acme", &["-a.published", "-a.subscribed", "a.other"]);
    assert_eq!(start_with(setup, &retired).await.unwrap(), ["a.other"]);
}

#[tokio::test]
async fn the_brand_can_change_until_keys_exist() {
    let setup = set_up("").await;
    start_with(&setup, &catalogue(1, "acme", &["a.b"])).await.unwrap();
    start_with(&setup, &catalogue(2, "globex", &["a.b"])).await.unwrap();
    make_key(&setup).await;
    let told = start_with(&setup, &catalogue(3, "initech", &["a.b"])).await.unwrap_err();
    assert!(told.contains("the brand cannot change from \"globex\" to \"initech\": existing API keys"), "{told}");
    start_with(&setup, &catalogue(3, "globex", &["a.b", "a.c"])).await.unwrap();
}

#[tokio::test]
async fn an_invalid_catalogue_prevents_the_start_with_the_reason() {
    let setup = set_up("").await;
    let misfit = catalogue(1, "acme", &["a.b"]).replace("{\"type\":\"object\"}", "{\"required\":[\"id\"]}");
    let error = start_with(&setup, &misfit).await.unwrap_err();
    assert!(
        error.contains("the example of \"a.b\" violates its schema: data \"id\" is a required property"),
        "{error}"
    );
    let outside = catalogue(1, "acme", &["a.b"]).replace("\"type\":\"object\"", "\"$ref\":\"https://example.com/\"");
    let error = start_with(&setup, &outside).await.unwrap_err();
    assert!(error.contains("the schema of \"a.b\""), "{error}");
    std::fs::remove_file(path_of(&setup)).unwrap();
    let error = Chain(&setup.start_server().await.err().unwrap()).to_string();
    assert!(error.contains("cannot read the event catalogue") && error.contains("events.toml"), "{error}");
}

#[tokio::test]
async fn a_retired_name_stays_in_the_log_but_cannot_be_published() {
    let mut app = set_up(&catalogue(1, "acme", &["a.b", "a.c"])).await.start().await;
    let id = app.publish("a.b", json!({"n": 1})).await;
    std::fs::write(path_of(app.setup()), catalogue(2, "acme", &["-a.b", "a.c"])).unwrap();
    app.restart().await;
    assert_eq!(app.get(&format!("/v1/events/{id}")).await.data(200)["data"], json!({"n": 1}));
    let listed = app.get("/v1/events?type=a.b").await.data(200);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    let body = json!({"type": "a.b", "data": {}});
    let error: Value = app.post("/v1/events", body).await.error(400, "invalid_request");
    assert!(text(&error, "message").contains("is not an event name"), "{error}");
}
