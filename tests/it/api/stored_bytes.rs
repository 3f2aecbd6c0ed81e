//! The budget of stored bytes of a workspace, as a caller meets it.

use std::sync::Arc;

use serde_json::json;

use super::{ENDPOINTS, EVENTS, an_endpoint, event_of_bytes};
use crate::support::app::{App, Setup, text};
use crate::support::postgres::TestDatabase;
use crate::support::wait::eventually;

async fn a_full_workspace_is_refused_with_its_reason(setup: Setup) {
    let app = setup.change(|settings| settings.workspace_max_bytes = Some(100_000)).start().await;
    let caller = app.caller();
    let endpoint = text(&caller.post(ENDPOINTS, an_endpoint()).await.data(200), "id");
    // The server begins to count when it starts, so the first events may come before it has.
    let refused = eventually("a full workspace", || async {
        let reply = caller.send(http::Method::POST, EVENTS, event_of_bytes(60_000)).await;
        if reply.status == 202 { None } else { Some(reply) }
    })
    .await;
    let error = refused.error(409, "conflict");
    assert_eq!(error["details"], json!({"reason": "workspace_full"}));
    let batch = format!(r#"{{"events":[{}]}}"#, event_of_bytes(60_000));
    caller.send(http::Method::POST, "/v1/events/batch", batch).await.error(409, "conflict");
    // Refused for what is stored now: the same key succeeds once there is room.
    let keyed = caller.keyed("later");
    for _ in 0..2 {
        let reply = keyed.send(http::Method::POST, EVENTS, event_of_bytes(60_000)).await;
        assert_ne!(reply.header("idempotent-replayed"), Some("true"));
        reply.error(409, "conflict");
    }
    let other = app.caller_of("Neighbour", crate::support::app::ALL_SCOPES).await;
    assert_eq!(other.send(http::Method::POST, EVENTS, event_of_bytes(60_000)).await.status, 202);
    let deleted = caller.send(http::Method::DELETE, &format!("{ENDPOINTS}/{endpoint}"), String::new()).await;
    assert_eq!(deleted.status, 204, "what stores nothing goes on");
}

#[tokio::test]
async fn on_sqlite_a_full_workspace_is_refused_with_its_reason() {
    a_full_workspace_is_refused_with_its_reason(App::set_up().await).await;
}

#[tokio::test]
async fn on_postgres_a_full_workspace_is_refused_with_its_reason() {
    let Some(database) = TestDatabase::new().await.map(Arc::new) else { return };
    a_full_workspace_is_refused_with_its_reason(App::set_up().await.on(&database)).await;
}
