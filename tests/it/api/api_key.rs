//! API keys over the API: create, list and revoke. A key never has more rights than the key that created it.

use std::time::Duration;

use postrider_domain::access::{Mode, Scope};
use postrider_domain::time::Day;
use serde_json::{Value, json};

use super::{API_KEYS, DELIVERIES, EVENTS, an_event, faults};
use crate::support::app::{App, text};
use crate::support::caller::Caller;

/// A caller with a key of `Acme` that may manage keys, publish events and read webhooks.
async fn manager(app: &App) -> Caller {
    app.caller_of("Acme", &[Scope::KeysManage, Scope::EventsWrite, Scope::WebhooksRead]).await
}

#[tokio::test]
async fn a_key_is_shown_once_works_and_is_listed_without_its_secret() {
    let app = App::start().await;
    let manager = manager(&app).await;
    let body = json!({"name": "billing", "scopes": ["events:write", "webhooks:read"], "expiresAt": "2026-06-01"});
    let maker = text(&manager.get("/v1/workspaces/me").await.json()["principal"], "id");
    let mut made = manager.post(API_KEYS, body).await.data(200);
    let key = text(&made, "key");
    assert!(key.starts_with("scripe_sk_live_") && key.ends_with(&text(&made, "last4")));
    assert_eq!(manager.key(&key).post(EVENTS, an_event()).await.status, 202);
    made.as_object_mut().unwrap().remove("key");
    let expected = json!({
        "id": made["id"], "name": "billing", "mode": "live", "scopes": ["webhooks:read", "events:write"],
        "last4": made["last4"], "createdAt": "2026-05-15T12:00:00.000Z", "expiresAt": "2026-06-01", "revokedAt": null,
        "createdBy": {"type": "api_key", "id": maker}, "lastUsedAt": null,
    });
    assert_eq!(made, expected);
    made["lastUsedAt"] = "2026-05-15T12:00:00.000Z".into();
    assert_eq!(manager.get(&format!("{API_KEYS}/{}", text(&made, "id"))).await.data(200), made);
    let list = manager.get(&format!("{API_KEYS}?limit=1")).await;
    assert!(!list.text().contains(&key));
    assert_eq!(list.json()["data"][0], made);
    assert_eq!(list.json()["pagination"]["has_more"], true);
}

#[tokio::test]
async fn a_new_key_has_no_scope_by_default_and_its_creators_mode() {
    let app = App::start().await;
    let manager = manager(&app).await;
    let made = manager.post(API_KEYS, json!({})).await.data(200);
    assert_eq!((&made["scopes"], &made["mode"], &made["name"]), (&json!([]), &json!("live"), &Value::Null));
    manager.key(&text(&made, "key")).get(DELIVERIES).await.error(403, "scope_missing");
    let tester = app.caller_with(app.create_key("Acme", Mode::Test, &[Scope::KeysManage], None).await);
    assert_eq!(tester.post(API_KEYS, json!({})).await.data(200)["mode"], "test");
}

#[tokio::test]
async fn a_key_grants_no_scope_and_no_mode_that_it_lacks() {
    let app = App::start().await;
    let manager = manager(&app).await;
    let scopes = json!(["audit:read", "events:write", "dashboard", "workspaces:manage"]);
    let error = manager.post(API_KEYS, json!({"scopes": scopes})).await.error(403, "scope_missing");
    assert_eq!(error["details"], json!({"required": ["audit:read", "dashboard", "workspaces:manage"]}));
    for mode in ["live", "test"] {
        assert_eq!(manager.post(API_KEYS, json!({"mode": mode})).await.data(200)["mode"], mode);
    }
    let tester = app.caller_with(app.create_key("Acme", Mode::Test, &[Scope::KeysManage], None).await);
    let error = tester.post(API_KEYS, json!({"mode": "live"})).await.error(422, "unprocessable");
    assert_eq!(faults(&error)["mode"], "a test key can create only test keys");
    let operator = app.caller_of("Acme", &Scope::ALL).await;
    operator.post(API_KEYS, json!({"scopes": ["workspaces:manage"]})).await.error(422, "unprocessable");
}

#[tokio::test]
async fn a_fault_in_the_body_is_reported_with_its_parameter() {
    let app = App::start().await;
    let manager = manager(&app).await;
    let faulty = [
        (json!({"name": ""}), "name"),
        (json!({"name": "é".repeat(129)}), "name"),
        (json!({"scopes": "events:write"}), "scopes"),
        (json!({"scopes": ["events:all"]}), "scopes"),
        (json!({"scopes": null}), "scopes"),
        (json!({"mode": "Live"}), "mode"),
        (json!({"expiresAt": "2026-06-01T00:00:00Z"}), "expiresAt"),
        (json!({"expiresAt": "2026-06-31"}), "expiresAt"),
        (json!({"key": "mine"}), "key"),
    ];
    for (body, parameter) in faulty {
        let error = manager.post(API_KEYS, body).await.error(400, "invalid_request");
        assert!(faults(&error)[parameter].is_string(), "{error}");
    }
    assert_eq!(manager.post(API_KEYS, json!({"name": "é".repeat(128), "expiresAt": null})).await.status, 200);
}

#[tokio::test]
async fn a_key_expires_tomorrow_at_the_earliest() {
    let app = App::start().await;
    let manager = manager(&app).await;
    for day in ["2026-05-14", "2026-05-15"] {
        let error = manager.post(API_KEYS, json!({"expiresAt": day})).await.error(422, "unprocessable");
        assert_eq!(faults(&error)["expiresAt"], "must be a day after today (UTC)");
    }
    let body = json!({"expiresAt": "2026-05-16", "scopes": ["webhooks:read"]});
    let key = manager.key(&text(&manager.post(API_KEYS, body).await.data(200), "key"));
    let midnight = postrider_domain::time::Timestamp::parse("2026-05-16T00:00:00Z").unwrap();
    app.clock().set(midnight.minus(std::time::Duration::from_millis(1)));
    assert_eq!(key.get(DELIVERIES).await.status, 200);
    app.clock().set(midnight);
    key.get(DELIVERIES).await.error(401, "key_expired");
}

#[tokio::test]
async fn a_revoked_key_stops_at_once_and_stays_in_the_list() {
    let app = App::start().await;
    let manager = manager(&app).await;
    let made = manager.post(API_KEYS, json!({"scopes": ["webhooks:read"]})).await.data(200);
    let key = manager.key(&text(&made, "key"));
    assert_eq!(key.get(DELIVERIES).await.status, 200);
    let path = format!("{API_KEYS}/{}", text(&made, "id"));
    for _ in 0..2 {
        let reply = manager.delete(&path).await;
        assert_eq!((reply.status, reply.body.len()), (204, 0));
        key.get(DELIVERIES).await.error(401, "key_revoked");
    }
    assert_eq!(manager.get(&path).await.data(200)["revokedAt"], "2026-05-15T12:00:00.000Z");
    assert_eq!(manager.get(API_KEYS).await.data(200)[0]["id"], made["id"]);
}

#[tokio::test]
async fn the_keys_of_another_workspace_are_not_found() {
    let app = App::start().await;
    let manager = manager(&app).await;
    let theirs = app.create_key("Globex", Mode::Live, &[Scope::KeysManage], None).await;
    for id in [theirs.key.id.to_string(), "key_zzzzzzzzzzzzzzzz".to_owned(), "nonsense".to_owned()] {
        manager.get(&format!("{API_KEYS}/{id}")).await.error(404, "not_found");
        manager.delete(&format!("{API_KEYS}/{id}")).await.error(404, "not_found");
    }
    let id = theirs.key.id.to_string();
    assert!(!manager.get(API_KEYS).await.text().contains(&id));
    assert_eq!(app.caller_with(theirs).get(API_KEYS).await.data(200)[0]["id"], id);
}

#[tokio::test]
async fn key_routes_need_the_scope_keys_manage() {
    let app = App::start().await;
    let bare = app.caller_of("Acme", &[Scope::WebhooksManage]).await;
    let path = format!("{API_KEYS}/key_zzzzzzzzzzzzzzzz");
    let replies = [
        bare.get(API_KEYS).await,
        bare.post(API_KEYS, json!({})).await,
        bare.get(&path).await,
        bare.delete(&path).await,
    ];
    for reply in replies {
        assert_eq!(reply.error(403, "scope_missing")["details"], json!({"required": ["keys:manage"]}));
    }
}

#[tokio::test]
async fn a_repeated_request_shows_the_same_key_that_no_file_contains() {
    let mut app = App::start().await;
    let manager = manager(&app).await.keyed("once");
    let first = manager.post(API_KEYS, json!({})).await;
    let key = text(&first.data(200), "key");
    app.restart().await;
    let manager = manager.at(app.server().address());
    let again = manager.post(API_KEYS, json!({})).await;
    assert_eq!((&again.body, again.header("idempotent-replayed")), (&first.body, Some("true")));
    manager.post(API_KEYS, json!({"name": "other"})).await.error(409, "idempotency_key_conflict");
    app.stop().await;
    let nowhere: [String; 0] = [];
    assert_eq!(app.files_holding(key.as_bytes()), nowhere);
}

#[tokio::test]
async fn no_key_outlives_the_key_that_made_it() {
    let app = App::start().await;
    let ends = Day::parse("2026-06-01").unwrap().starts_at();
    let maker = app.caller_with(app.create_key("Acme", Mode::Live, &[Scope::KeysManage], Some(ends)).await);
    for body in [json!({}), json!({"expiresAt": null}), json!({"expiresAt": "2026-06-01"})] {
        assert_eq!(maker.post(API_KEYS, body).await.data(200)["expiresAt"], "2026-06-01");
    }
    assert_eq!(maker.post(API_KEYS, json!({"expiresAt": "2026-05-31"})).await.data(200)["expiresAt"], "2026-05-31");
    let error = maker.post(API_KEYS, json!({"expiresAt": "2026-06-02"})).await.error(422, "unprocessable");
    let fault = "must not be later than 2026-06-01, when the key that creates it expires";
    assert_eq!(faults(&error)["expiresAt"], fault);
}

#[tokio::test]
async fn the_last_use_is_shown_at_once_and_survives_a_restart() {
    let mut app = App::start().await;
    let manager = manager(&app).await;
    let made = manager.post(API_KEYS, json!({})).await.data(200);
    let path = format!("{API_KEYS}/{}", text(&made, "id"));
    assert_eq!(manager.get(&path).await.data(200)["lastUsedAt"], Value::Null);
    app.clock().advance(Duration::from_secs(10));
    manager.key(&text(&made, "key")).get("/v1/workspaces/me").await;
    let used = "2026-05-15T12:00:10.000Z";
    assert_eq!(manager.get(&path).await.data(200)["lastUsedAt"], used);
    assert_eq!(manager.get(API_KEYS).await.data(200)[0]["lastUsedAt"], used);
    app.restart().await;
    assert_eq!(manager.at(app.server().address()).get(&path).await.data(200)["lastUsedAt"], used);
}
