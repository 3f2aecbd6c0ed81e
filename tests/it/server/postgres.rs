//! The whole server on PostgreSQL: the API keeps its promises there too, and nodes share one database.

use std::sync::Arc;

use postrider::server::StartError;
use postrider_store::OpenError;
use postrider_store::sealing::keyring::MasterKeyError;
use serde_json::json;

use crate::support::app::{ALL_SCOPES, App, Setup, text};
use crate::support::postgres::TestDatabase;
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::verify::verify_as_integrator;

/// `None` without a PostgreSQL server.
async fn database() -> Option<Arc<TestDatabase>> {
    Some(Arc::new(TestDatabase::new().await?))
}

async fn node(database: &Arc<TestDatabase>) -> Setup {
    App::set_up().await.allow("127.0.0.0/8").on(database)
}

#[tokio::test]
async fn an_event_reaches_its_receiver_and_the_log() {
    let Some(database) = database().await else { return };
    let (app, receiver) = (node(&database).await.start().await, Receiver::start().await);
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(503));
    let failed = app.publish("post.created", json!({"id": 1})).await;
    let event = app.publish("post.created", json!({"id": 2})).await;
    for request in receiver.wait_for(2).await {
        verify_as_integrator(&endpoint.secret, &request).unwrap();
    }
    let delivery = app.delivery_ended(&event, "delivered").await;
    assert_eq!(delivery["attempts"][0]["responseStatus"], 200, "{delivery:#}");
    let delivery = app.attempted(&failed, 1).await;
    assert_eq!((&delivery["status"], &delivery["attempts"][0]["responseStatus"]), (&json!("pending"), &json!(503)));
    let listed = app.get("/v1/events").await.data(200);
    assert_eq!((text(&listed[0], "id"), text(&listed[1], "id")), (event, failed), "newest first");
    assert_eq!(app.get("/v1/health").await.status, 200);
}

#[tokio::test]
async fn a_write_on_one_node_is_visible_on_the_others() {
    let Some(database) = database().await else { return };
    let (one, receiver) = (node(&database).await.start().await, Receiver::start().await);
    let mut other = node(&database).await.start().await;
    let key = one.caller_of("Both", ALL_SCOPES).await;
    let at_other = key.at(other.server().address());
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"]});
    let secret = text(&key.post("/v1/webhook-endpoints", body).await.data(200), "secret");
    let body = json!({"type": "post.created", "data": {}});
    let event = text(&at_other.post("/v1/events", body).await.data(202), "id");
    verify_as_integrator(&secret, &receiver.wait_for(1).await[0]).unwrap();
    assert_eq!(text(&key.get(&format!("/v1/events/{event}")).await.data(200), "id"), event);

    other.stop().await;
    let body = json!({"type": "post.created", "data": {}});
    key.post("/v1/events", body).await.data(202);
    receiver.wait_for(2).await;
}

#[tokio::test]
async fn a_node_with_another_master_key_is_refused() {
    let Some(database) = database().await else { return };
    let _first = node(&database).await.start().await;
    let refused = node(&database).await.key(&"ab".repeat(32)).start_server().await;
    assert!(matches!(refused.err(), Some(StartError::MasterKey(MasterKeyError::Other { .. }))));
}

#[tokio::test]
async fn a_node_creates_no_master_key_and_no_operator_secret() {
    let Some(database) = database().await else { return };
    let unnamed = node(&database).await.change(|settings| settings.master_key_file = None);
    assert!(matches!(unnamed.start_server().await.err(), Some(StartError::MasterKeyNotNamed)));
    assert!(!unnamed.settings.data_dir.exists());
    let gone = node(&database).await;
    std::fs::remove_file(gone.settings.master_key_path()).unwrap();
    assert!(matches!(gone.start_server().await.err(), Some(StartError::KeyFile(_))));
    assert!(!gone.settings.master_key_path().exists());
    let webhook = Some("https://ops.example.com/".to_owned());
    let secretless = node(&database).await.change(|settings| settings.operator_webhook_url = webhook);
    assert!(matches!(secretless.start_server().await.err(), Some(StartError::OperatorSecretNotNamed)));
}

#[tokio::test]
async fn two_servers_never_share_a_data_directory_on_postgresql() {
    let Some(database) = database().await else { return };
    let app = node(&database).await.start().await;
    let data_dir = app.data_dir().to_owned();
    let second = node(&database).await.change(|settings| settings.data_dir = data_dir);
    let refused = second.start_server().await;
    assert!(matches!(refused.err(), Some(StartError::Store(OpenError::InUse { .. }))));
}
