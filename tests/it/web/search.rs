//! The box that takes any id, and the pages that it leads to.

use postrider_domain::access::{Mode, Scope};
use serde_json::json;

use crate::support::app::{App, text};
use crate::support::visitor::{EVERYTHING, READS, Visitor, browser, path_of, portal_link};

/// Where a text leads.
async fn leads_to(visitor: &Visitor, text: &str) -> String {
    let reply = visitor.get(&format!("/dashboard/search?q={text}")).await;
    assert_eq!(reply.status, 303, "{text}: {}", reply.text());
    reply.header("location").unwrap().to_owned()
}

#[tokio::test]
async fn a_request_and_its_entry_lead_to_the_audit_log() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let auditor = app.caller_of("Acme", &[Scope::AuditRead]).await;
    app.endpoint_at("https://hooks.example.com/", &["post.created"]).await;
    app.endpoint_at("https://hooks.example.com/other", &["post.created"]).await;
    let entries = auditor.get("/v1/audit-log?action=endpoint.created").await.data(200);
    let (id, request) = (text(&entries[0], "id"), text(&entries[0], "requestId"));
    let (of_entry, of_request) = (leads_to(&visitor, &id).await, leads_to(&visitor, &request).await);
    assert_eq!(of_entry, format!("/dashboard/audit?id={id}"));
    assert_eq!(of_request, format!("/dashboard/audit?requestId={request}"));
    for path in [of_entry, of_request] {
        let page = visitor.page(&path).await;
        assert!(page.contains(&format!("<tr id=\"{id}\"")), "{page}");
        assert!(!page.contains(&text(&entries[1], "id")), "{path} shows only what was asked for");
    }
    let faulty = visitor.page("/dashboard/audit?requestId=x").await;
    assert!(faulty.contains("is not such an id"), "{faulty}");
    let own = text(&app.get("/v1/workspaces/me").await.json()["workspace"], "id");
    assert_eq!(leads_to(&visitor, &own).await, "/dashboard", "one's own workspace");
}

#[tokio::test]
async fn a_portal_session_is_found_shown_and_ended() {
    let app = App::start().await;
    let link = path_of(&portal_link(&app, json!({"projectId": "proj_7", "readOnly": true, "expiresIn": 600})).await);
    let id = link.split('/').nth(2).unwrap();
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let path = leads_to(&visitor, id).await;
    assert_eq!(path, format!("/dashboard/portal-sessions/{id}"));
    let page = visitor.page(&path).await;
    assert!(page.contains("proj_7") && page.contains("endpoints:read, deliveries:read, payloads:read"), "{page}");
    assert!(visitor.page("/dashboard/portal-sessions?projectId=proj_7").await.contains(id));
    assert!(visitor.page("/dashboard/portal-sessions?projectId=other").await.contains("Nothing matches"));
    assert!(visitor.page("/dashboard/portal-embed").await.contains("/dashboard/portal-sessions"));
    assert_eq!(visitor.submit(&page, &format!("{path}/end"), &[]).await.status, 303);
    let page = visitor.page(&path).await;
    assert!(page.contains("</svg>ended</span>") && !page.contains("End the session"), "{page}");
    // Neither another workspace, nor the other mode, nor a sign-in without the scope.
    let others = app.create_key("Other", Mode::Live, EVERYTHING, None).await;
    let others = Visitor::with_key(&app, others.secret.reveal()).await;
    let test = app.create_key("Acme", Mode::Test, EVERYTHING, None).await;
    let test = Visitor::with_key(&app, test.secret.reveal()).await;
    for stranger in [&others, &test] {
        assert_eq!(stranger.get(&path).await.status, 404);
        assert_eq!(stranger.post(&format!("{path}/end"), &[]).await.status, 404);
        assert!(stranger.page(&format!("/dashboard/search?q={id}")).await.contains("Nothing has this id"));
    }
    let reader = Visitor::of(&app, READS).await;
    assert_eq!(reader.get(&path).await.status, 403);
    assert!(reader.page(&format!("/dashboard/search?q={id}")).await.contains("Nothing has this id"));
}

#[tokio::test]
async fn old_files_of_the_look_are_gone_and_no_session() {
    let app = App::start().await;
    let stranger = browser(&app);
    for path in ["/portal/theme.0123456789abcdef.css", "/portal/logo.0123456789abcdef.png"] {
        let reply = stranger.get(path).await;
        assert_eq!((reply.status, reply.header("cache-control")), (404, Some("no-store")), "{path}");
        assert_eq!(reply.text(), "");
    }
    assert_eq!(stranger.get("/portal/nothing").await.status, 401);
}
