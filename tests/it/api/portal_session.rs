//! `/v1/portal-sessions`.

use postrider_domain::access::{Mode, Scope};
use postrider_domain::portal::FrameAncestor;
use serde_json::{Value, json};

use crate::support::app::{App, text};
use crate::support::caller::Caller;

const PORTAL_SESSIONS: &str = "/v1/portal-sessions";

async fn with_key() -> (App, Caller) {
    let set_up = App::set_up().await.change(|settings| {
        settings.portal.frame_ancestors = vec![FrameAncestor::parse("https://app.example.com").unwrap()];
    });
    let app = set_up.start().await;
    let key = app.create_key("Acme", Mode::Live, &[Scope::PortalCreate, Scope::AuditRead], None).await;
    let caller = app.caller_with(key);
    (app, caller)
}

#[tokio::test]
async fn a_session_is_created_listed_and_ended() {
    let (_app, caller) = with_key().await;
    let body = json!({
        "projectId": "proj_1", "expiresIn": 300, "capabilities": ["endpoints:write"], "eventTypes": ["note.created"],
        "locale": "de-AT", "theme": "dark", "next": "/endpoints/new", "returnUrl": "https://app.example.com/x",
        "frameAncestors": ["https://app.example.com"],
    });
    let made = caller.post(PORTAL_SESSIONS, body).await.data(200);
    let id = text(&made, "id");
    let (start, code) = text(&made, "url").split_once("?code=").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(start.ends_with(&format!("/portal/{id}/open")) && code.len() == 32, "{made}");
    assert_eq!(made.as_object().unwrap().len(), 3, "{made}");
    let listed = caller.get(&format!("{PORTAL_SESSIONS}?projectId=proj_1")).await;
    assert!(!listed.text().contains(&code));
    let shown = listed.data(200)[0].clone();
    assert_eq!(shown["capabilities"], json!(["endpoints:read", "endpoints:write"]), "writing implies reading");
    assert_eq!((&shown["locale"], &shown["theme"], &shown["endedAt"]), (&json!("de"), &json!("dark"), &Value::Null));
    assert_eq!(shown["createdBy"]["type"], "api_key");
    assert_eq!(caller.get(&format!("{PORTAL_SESSIONS}?projectId=other")).await.data(200), json!([]));

    assert_eq!(caller.delete(&format!("{PORTAL_SESSIONS}/{id}")).await.status, 204);
    assert_eq!(caller.delete(&format!("{PORTAL_SESSIONS}/{id}")).await.status, 204, "ending it again is no error");
    assert!(caller.get(PORTAL_SESSIONS).await.data(200)[0]["endedAt"].is_string());
    caller.delete(&format!("{PORTAL_SESSIONS}/pts_zzzzzzzzzzzzzzzz")).await.error(404, "not_found");

    for project in ["proj_1", "proj_1", "proj_2"] {
        caller.post(PORTAL_SESSIONS, json!({"projectId": project})).await.data(200);
    }
    caller.delete(PORTAL_SESSIONS).await.error(400, "invalid_request");
    assert_eq!(caller.delete(&format!("{PORTAL_SESSIONS}?projectId=proj_1")).await.status, 204);
    let live = caller.get(PORTAL_SESSIONS).await.data(200);
    let live: Vec<&Value> = live.as_array().unwrap().iter().filter(|session| session["endedAt"].is_null()).collect();
    assert_eq!((live.len(), &live[0]["projectId"]), (1, &json!("proj_2")));
    let actions = caller.get("/v1/audit-log?action=portal_session.ended").await.data(200);
    assert_eq!(actions.as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn what_a_session_may_not_be_is_refused_by_name() {
    let (_app, caller) = with_key().await;
    for (member, value) in [
        ("expiresIn", json!(299)),
        ("expiresIn", json!(86_401)),
        ("expiresIn", json!("300")),
        ("capabilities", json!([])),
        ("capabilities", json!(["keys:manage"])),
        ("eventTypes", json!([])),
        ("eventTypes", json!(["nothing.happened"])),
        ("locale", json!("fr")),
        ("locale", json!("de-")),
        ("theme", json!("pink")),
        ("next", json!("//evil.example")),
        ("next", json!("/../keys")),
        ("next", json!("/%2e%2e/keys")),
        ("returnUrl", json!("javascript:alert(1)")),
        ("frameAncestors", json!(["*"])),
        ("frameAncestors", json!(["https://*.example.com"])),
        ("frameAncestors", json!(["https://app.example.com/path"])),
        ("unknown", json!(1)),
    ] {
        let mut body = json!({"projectId": "proj_1"});
        body[member] = value.clone();
        let error = caller.post(PORTAL_SESSIONS, body).await.error(400, "invalid_request");
        assert!(error["details"].to_string().contains(member), "{member} {value}: {error}");
    }
    let both = json!({"projectId": "proj_1", "readOnly": false, "capabilities": ["test"]});
    caller.post(PORTAL_SESSIONS, both).await.error(400, "invalid_request");
    caller.post(PORTAL_SESSIONS, json!({})).await.error(400, "invalid_request");
    let unlisted = json!({"projectId": "proj_1", "frameAncestors": ["https://other.example.com"]});
    caller.post(PORTAL_SESSIONS, unlisted).await.error(422, "unprocessable");
    assert_eq!(caller.get(PORTAL_SESSIONS).await.data(200), json!([]));

    let read_only = json!({"projectId": "proj_1", "readOnly": true});
    caller.post(PORTAL_SESSIONS, read_only).await.data(200);
    let shown = caller.get(PORTAL_SESSIONS).await.data(200)[0].clone();
    assert_eq!(shown["capabilities"], json!(["endpoints:read", "deliveries:read", "payloads:read"]));
    assert_eq!(shown["frameAncestors"], json!(["https://app.example.com"]), "those of the setting");
}

#[tokio::test]
async fn a_repeated_request_gets_the_same_link() {
    let (_app, caller) = with_key().await;
    let create = async || caller.keyed("visit-1").post(PORTAL_SESSIONS, json!({"projectId": "p"})).await.data(200);
    assert_eq!(create().await, create().await);
    assert_eq!(caller.get(PORTAL_SESSIONS).await.data(200).as_array().unwrap().len(), 1);
}
