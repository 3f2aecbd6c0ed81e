//! Access: unknown, revoked and expired keys, and scopes.

use std::time::Duration;

use postrider_domain::access::{Mode, Scope};
use postrider_domain::time::Timestamp;
use serde_json::json;

use super::{DELIVERIES, ENDPOINTS, EVENTS, an_endpoint, an_event};
use crate::support::app::{ALL_SCOPES, App};

#[tokio::test]
async fn a_request_without_a_known_key_is_refused() {
    let app = App::start().await;
    let known = app.caller().secret().unwrap().to_owned();
    let refused = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some(known.clone()),
        Some(format!("Basic {known}")),
        Some(format!("Bearer {known}x")),
        Some(format!("Bearer {}", &known[..known.len() - 1])),
        Some(format!("Bearer {}", known.replace("_live_", "_test_"))),
        Some("Bearer scripe_sk_live_0000000000000000000000000000000000000000".to_owned()),
    ];
    for header in refused {
        let caller = match &header {
            None => app.caller().without("authorization"),
            Some(value) => app.caller().with("authorization", value),
        };
        for reply in [caller.get(DELIVERIES).await, caller.post(EVENTS, an_event()).await] {
            let error = reply.error(401, "invalid_token");
            assert_eq!(error["message"], "The API key is missing or unknown.", "{header:?}");
        }
    }
}

#[tokio::test]
async fn the_word_bearer_is_accepted_in_any_case() {
    let app = App::start().await;
    let key = app.caller().secret().unwrap();
    for word in ["bearer", "BEARER"] {
        let caller = app.caller().with("authorization", &format!("{word} {key}"));
        assert_eq!(caller.get(DELIVERIES).await.status, 200);
    }
}

#[tokio::test]
async fn a_key_without_a_scope_is_refused_with_the_required_scopes() {
    let app = App::start().await;
    let bare = app.caller_of("Acme", &[]).await;
    let endpoint = app.endpoint(an_endpoint()).await;
    let needs = [
        (bare.post(ENDPOINTS, an_endpoint()).await, vec!["webhooks:manage"]),
        (bare.get(&format!("{ENDPOINTS}/{}", endpoint.id)).await, vec!["webhooks:manage", "webhooks:read"]),
        (bare.get(DELIVERIES).await, vec!["webhooks:manage", "webhooks:read"]),
        (bare.post(EVENTS, an_event()).await, vec!["events:write"]),
    ];
    for (reply, scopes) in needs {
        let error = reply.error(403, "scope_missing");
        assert_eq!(error["details"], json!({"required": scopes}));
        let message = format!("Token lacks the required scope. Need one of: {}.", scopes.join(", "));
        assert_eq!(error["message"], message);
    }
}

#[tokio::test]
async fn each_scope_allows_only_its_own_routes() {
    let app = App::start().await;
    let made = app.endpoint(an_endpoint()).await;
    let shown = format!("{ENDPOINTS}/{}", made.id);
    let expected = [
        (Scope::WebhooksManage, [200, 200, 200, 403]),
        (Scope::WebhooksRead, [403, 200, 200, 403]),
        (Scope::EventsWrite, [403, 403, 403, 202]),
        (Scope::KeysManage, [403, 403, 403, 403]),
    ];
    for (scope, statuses) in expected {
        let caller = app.caller_of("Acme", &[scope]).await;
        let event = json!({"type": "note.created", "data": {}});
        let answered = [
            caller.post(ENDPOINTS, an_endpoint()).await.status,
            caller.get(&shown).await.status,
            caller.get(DELIVERIES).await.status,
            caller.post(EVENTS, event).await.status,
        ];
        assert_eq!(answered, statuses, "{scope}");
    }
}

#[tokio::test]
async fn the_scope_is_checked_before_the_body_is_read() {
    let app = App::start().await;
    let bare = app.caller_of("Acme", &[]).await;
    bare.post_text(EVENTS, "{").await.error(403, "scope_missing");
}

#[tokio::test]
async fn a_key_revoked_on_this_node_stops_at_once() {
    let app = App::start().await;
    let created = app.create_key("Acme", Mode::Live, ALL_SCOPES, None).await;
    let id = created.key.id;
    let caller = app.caller_with(created);
    assert_eq!(caller.get(DELIVERIES).await.status, 200);
    app.server().operator().revoke_api_key(id).await.unwrap();
    let error = caller.get(DELIVERIES).await.error(401, "key_revoked");
    assert_eq!(error["message"], "The API key has been revoked.");
}

#[tokio::test]
async fn a_key_revoked_by_another_node_stops_within_5_seconds() {
    let app = App::start().await;
    let created = app.create_key("Acme", Mode::Live, ALL_SCOPES, None).await;
    let id = created.key.id.to_string();
    let caller = app.caller_with(created);
    assert_eq!(caller.get(DELIVERIES).await.status, 200);
    // This node sees the writes of another node only in the database.
    let database = rusqlite::Connection::open(app.data_dir().join("postrider.db")).unwrap();
    let revoke = "UPDATE api_keys SET revoked_at = 1 WHERE id = ?1";
    assert_eq!(database.execute(revoke, [&id]).unwrap(), 1);
    app.clock().advance(Duration::from_secs(5));
    caller.get(DELIVERIES).await.error(401, "key_revoked");
}

#[tokio::test]
async fn a_key_in_use_stops_at_midnight_of_its_expiry_date() {
    let app = App::start().await;
    let midnight = Timestamp::parse("2026-05-20T00:00:00Z").unwrap();
    let caller = app.caller_with(app.create_key("Acme", Mode::Live, ALL_SCOPES, Some(midnight)).await);
    app.clock().set(midnight.minus(Duration::from_millis(1)));
    assert_eq!(caller.get(DELIVERIES).await.status, 200);
    app.clock().set(midnight);
    let error = caller.get(DELIVERIES).await.error(401, "key_expired");
    assert_eq!(error["message"], "The API key has expired.");
}

#[tokio::test]
async fn no_file_contains_a_key() {
    let mut app = App::start().await;
    let key = app.caller().secret().unwrap().to_owned();
    let nowhere: [String; 0] = [];
    assert_eq!(app.files_holding(key.as_bytes()), nowhere);
    app.stop().await;
    assert_eq!(app.files_holding(key.as_bytes()), nowhere);
}
