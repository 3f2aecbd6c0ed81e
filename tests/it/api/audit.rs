//! The audit log over the API.

use std::time::Duration;

use postrider_domain::access::{Mode, Scope};
use postrider_domain::audit::{Actor, AuditFilter};
use postrider_domain::page::PageRequest;
use serde_json::{Value, json};

use super::{API_KEYS, AUDIT, DELIVERIES, ENDPOINTS, EVENTS, an_endpoint, an_event, faults};
use crate::support::app::{App, text};
use crate::support::caller::Caller;
use crate::support::wait::eventually;

const SCOPES: &[Scope] = &[Scope::WebhooksManage, Scope::KeysManage, Scope::EventsWrite, Scope::AuditRead];

async fn entries(caller: &Caller, query: &str) -> Vec<Value> {
    caller.get(&format!("{AUDIT}?{query}")).await.data(200).as_array().unwrap().clone()
}

#[tokio::test]
async fn an_entry_names_the_key_action_resource_and_request() {
    let app = App::start().await;
    let made = app.create_key("Acme", Mode::Live, SCOPES, None).await;
    let key_id = made.key.id.to_string();
    let caller = app.caller_with(made);
    let reply = caller.post(ENDPOINTS, an_endpoint()).await;
    let entry = entries(&caller, "limit=1").await.remove(0);
    let expected = json!({
        "id": entry["id"], "action": "endpoint.created", "resourceId": reply.data(200)["id"],
        "actor": {"type": "api_key", "id": key_id}, "mode": "live", "requestId": reply.header("x-request-id"),
        "address": "127.0.0.1", "changes": entry["changes"], "refusal": null, "createdAt": "2026-05-15T12:00:00.000Z",
    });
    assert_eq!(entry, expected);
    let by_hand = entries(&caller, &format!("resourceId={key_id}")).await.remove(0);
    assert_eq!((&by_hand["actor"], &by_hand["requestId"]), (&json!({"type": "command_line"}), &Value::Null));
}

#[tokio::test]
async fn writes_are_logged_once_but_not_reads_refusals_or_publishes() {
    let app = App::start().await;
    let caller = app.caller_of("Acme", SCOPES).await;
    let before = entries(&caller, "limit=200").await.len();
    let endpoint = text(&caller.keyed("k").post(ENDPOINTS, an_endpoint()).await.data(200), "id");
    caller.keyed("k").post(ENDPOINTS, an_endpoint()).await.data(200);
    let path = format!("{ENDPOINTS}/{endpoint}");
    caller.patch(&path, json!({"name": "Other"})).await.data(200);
    caller.post(&format!("{path}/rotate-secret"), json!({})).await.data(200);
    assert_eq!(caller.post(&format!("{path}/test"), json!({})).await.status, 202);
    caller.post(ENDPOINTS, json!({})).await.error(400, "invalid_request");
    caller.get(&path).await.data(200);
    caller.post(EVENTS, an_event()).await.data(202);
    let key = text(&caller.post(API_KEYS, json!({})).await.data(200), "id");
    assert_eq!(caller.delete(&format!("{API_KEYS}/{key}")).await.status, 204);
    assert_eq!(caller.delete(&path).await.status, 204);
    let entries = entries(&caller, "limit=200").await;
    let actions: Vec<_> = entries[..entries.len() - before].iter().map(|entry| text(entry, "action")).collect();
    let expected = [
        "endpoint.deleted",
        "api_key.revoked",
        "api_key.created",
        "endpoint.tested",
        "endpoint.secret_rotated",
        "endpoint.updated",
        "endpoint.created",
    ];
    assert_eq!(actions, expected);
}

#[tokio::test]
async fn writes_of_a_test_key_are_marked() {
    let app = App::start().await;
    let tester = app.caller_with(app.create_key("Acme", Mode::Test, SCOPES, None).await);
    tester.post(ENDPOINTS, an_endpoint()).await.data(200);
    assert_eq!(entries(&tester, "limit=1").await[0]["mode"], "test");
}

#[tokio::test]
async fn the_log_is_filtered_and_paged() {
    let app = App::start().await;
    let caller = app.caller_of("Acme", SCOPES).await;
    let mut made = Vec::new();
    for _ in 0..3 {
        made.push(text(&caller.post(ENDPOINTS, an_endpoint()).await.data(200), "id"));
    }
    assert_eq!(caller.delete(&format!("{ENDPOINTS}/{}", made[0])).await.status, 204);
    let first = caller.get(&format!("{AUDIT}?action=endpoint.created&limit=2")).await.json();
    let cursor = text(&first["pagination"], "next_cursor");
    let rest = caller.get(&format!("{AUDIT}?action=endpoint.created&limit=2&cursor={cursor}")).await.json();
    let ids: Vec<_> = [&first, &rest]
        .iter()
        .flat_map(|page| page["data"].as_array().unwrap())
        .map(|entry| text(entry, "resourceId"))
        .collect();
    made.reverse();
    assert_eq!((ids, &rest["pagination"]["has_more"]), (made.clone(), &json!(false)));
    assert_eq!(entries(&caller, &format!("resourceId={}", made[2])).await.len(), 2);
    let error = caller.get(&format!("{AUDIT}?action=endpoint.admired")).await.error(400, "invalid_request");
    assert!(faults(&error)["action"].as_str().unwrap().contains("endpoint.created"));
    caller.get(&format!("{AUDIT}?limit=0")).await.error(400, "bad_pagination");
}

#[tokio::test]
async fn the_log_shows_only_its_workspace_and_needs_its_scope() {
    let app = App::start().await;
    let caller = app.caller_of("Acme", SCOPES).await;
    let id = text(&caller.post(ENDPOINTS, an_endpoint()).await.data(200), "id");
    let other = app.caller_of("Globex", SCOPES).await;
    assert!(entries(&other, &format!("resourceId={id}")).await.is_empty());
    assert!(!other.get(AUDIT).await.text().contains(&id));
    let bare = app.caller_of("Acme", &[Scope::WebhooksManage]).await;
    assert_eq!(bare.get(AUDIT).await.error(403, "scope_missing")["details"], json!({"required": ["audit:read"]}));
}

#[tokio::test]
async fn operator_actions_are_in_the_log_of_the_workspace() {
    let app = App::start().await;
    let operator = app.create_key("Operators", Mode::Live, &[Scope::WorkspacesManage, Scope::AuditRead], None).await;
    let operator_id = operator.key.id.to_string();
    let operator = app.caller_with(operator);
    let id = text(&operator.post("/v1/workspaces", json!({"name": "Customer"})).await.data(200), "id");
    let body = json!({"scopes": ["audit:read"]});
    let made = operator.post(&format!("/v1/workspaces/{id}/api-keys"), body).await.data(200);
    let entries = entries(&operator.key(&text(&made, "key")), "").await;
    let actions: Vec<_> = entries.iter().map(|entry| text(entry, "action")).collect();
    assert_eq!(actions, ["api_key.created", "workspace.created"]);
    assert!(entries.iter().all(|entry| entry["actor"] == json!({"type": "api_key", "id": operator_id})));
}

#[tokio::test]
async fn an_entry_shows_the_fields_that_changed() {
    let app = App::start().await;
    let caller = app.caller_of("Acme", SCOPES).await;
    let made = caller.post(ENDPOINTS, an_endpoint()).await.data(200);
    let path = format!("{ENDPOINTS}/{}", text(&made, "id"));
    let change = json!({"name": "Other", "headers": {"X-Token": "hunter2"}});
    caller.patch(&path, change).await.data(200);
    let expected = json!([
        {"field": "name", "old": made["name"], "new": "Other"},
        {"field": "headers.X-Token", "old": null, "new": "[redacted]"},
    ]);
    assert_eq!(entries(&caller, "limit=1").await[0]["changes"], expected);
    caller.post(&format!("{path}/rotate-secret"), json!({})).await.data(200);
    let reply = caller.get(&format!("{AUDIT}?limit=200")).await;
    let log = reply.text();
    assert!(log.contains("secretLast4") && !log.contains("hunter2") && !log.contains(&text(&made, "secret")));
}

/// Waits until an entry of this action is in the log.
async fn entry_of(caller: &Caller, action: &str) -> Value {
    let query = format!("action={action}&limit=1");
    eventually("an entry of a refusal", || async { entries(caller, &query).await.pop() }).await
}

#[tokio::test]
async fn refused_keys_and_missing_scopes_are_in_the_log() {
    let app = App::start().await;
    let caller = app.caller_of("Acme", SCOPES).await;
    let made = app.create_key("Acme", Mode::Live, &[], None).await;
    let id = made.key.id.to_string();
    let bare = app.caller_with(made);
    let refused = bare.get(AUDIT).await;
    refused.error(403, "scope_missing");
    let entry = entry_of(&caller, "api_key.scope_missing").await;
    assert_eq!(entry["refusal"], json!({"reason": "scope_missing", "route": "GET /v1/audit-log", "count": 1}));
    assert_eq!((&entry["resourceId"], &entry["actor"]), (&json!(id), &json!({"type": "api_key", "id": id})));
    assert_eq!((&entry["address"], entry["requestId"].as_str()), (&json!("127.0.0.1"), refused.header("x-request-id")));
    app.server().operator().revoke_api_key(id.parse().unwrap()).await.unwrap();
    for _ in 0..3 {
        bare.get(DELIVERIES).await.error(401, "key_revoked");
    }
    let first = entry_of(&caller, "api_key.refused").await;
    assert_eq!((&first["refusal"]["reason"], &first["refusal"]["count"]), (&json!("key_revoked"), &json!(1)));
    app.clock().advance(Duration::from_secs(60));
    let rest = || async {
        let entries = entries(&caller, "action=api_key.refused").await;
        (entries.len() == 2).then(|| entries[0]["refusal"]["count"].clone())
    };
    assert_eq!(eventually("an entry of the further requests", rest).await, json!(2));
}

#[tokio::test]
async fn unknown_keys_are_in_the_log_of_the_operator_alone() {
    let mut app = App::start().await;
    let caller = app.caller_of("Acme", SCOPES).await;
    let unknown = caller.key("scripe_sk_live_0000000000000000000000000000000000000000");
    unknown.get(&format!("{ENDPOINTS}/whe_a1b2c3d4e5f6g7h8")).await.error(401, "invalid_token");
    unknown.get(&format!("{ENDPOINTS}/whe_0000000000000000")).await.error(401, "invalid_token");
    // The end of a server writes what is counted.
    app.restart().await;
    let page = PageRequest::parse(None, None).unwrap();
    let log = app.server().operator().list_audit(None, AuditFilter::default(), page).await.unwrap().items;
    let strangers: Vec<_> = log.iter().filter(|entry| entry.author.actor == Actor::Unknown).collect();
    let counts: u32 = strangers.iter().map(|entry| entry.refusal.as_ref().unwrap().count).sum();
    let route = strangers[0].refusal.as_ref().unwrap().route.as_deref();
    assert_eq!((counts, route), (2, Some("GET /v1/webhook-endpoints/{endpointId}")));
    let caller = caller.at(app.server().address());
    assert!(entries(&caller, "action=api_key.refused").await.is_empty());
}
