//! Keys, the audit log, settings and workspaces on their pages.

use postrider_domain::access::{Mode, Scope};
use serde_json::json;

use crate::support::app::{App, PUBLIC_HOST};
use crate::support::visitor::{EVERYTHING, READS, Visitor, hidden};
use crate::support::wait::eventually;

#[tokio::test]
async fn a_key_is_made_once_shown_once_and_revoked_with_its_sign_ins() {
    let app = App::set_up().await.real_time().start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let form = visitor.page("/dashboard/keys/new").await;
    let fields = [
        ("once", hidden(&form, "once")),
        ("name", "A robot"),
        ("mode", "live"),
        ("scopes", "dashboard"),
        ("scopes", "webhooks:read"),
    ];
    let (first, second) =
        tokio::join!(visitor.post("/dashboard/keys/new", &fields), visitor.post("/dashboard/keys/new", &fields));
    let key = key_in(first.text());
    assert_eq!(key_in(second.text()), key, "a double click makes one key");
    let robot = Visitor::with_key(&app, &key).await;
    assert_eq!(robot.get("/dashboard/endpoints").await.status, 200);

    let listed = app.caller_of("Acme", &[Scope::KeysManage]).await.get("/v1/api-keys").await.data(200);
    let robots: Vec<_> = listed.as_array().unwrap().iter().filter(|key| key["name"] == "A robot").collect();
    assert_eq!(robots.len(), 1, "{listed}");
    let id = robots[0]["id"].as_str().unwrap();
    let page = visitor.page("/dashboard/keys").await;
    assert!(page.contains("A robot") && page.contains(id) && !page.contains(&key), "{page}");
    let revoke = format!("/dashboard/keys/{id}/revoke");
    assert!(visitor.page(&revoke).await.contains("It was last used"), "the page names the last use");
    assert_eq!(visitor.send(&revoke, &[]).await, "/dashboard/keys?done=revoked");
    eventually("the end of the sign-in", || ended(&robot)).await;
}

async fn ended(visitor: &Visitor) -> Option<()> {
    let reply = visitor.get("/dashboard/endpoints").await;
    (reply.status == 303 && reply.header("location").is_some_and(|to| to.contains("/login"))).then_some(())
}

fn key_in(page: &str) -> String {
    let start = page.find("scripe_sk_").unwrap_or_else(|| panic!("no key in {page}"));
    page[start..].chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[tokio::test]
async fn a_key_gets_no_scope_that_the_sign_in_lacks() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, &[Scope::Dashboard, Scope::KeysManage]).await;
    let form = visitor.page("/dashboard/keys/new").await;
    assert!(!form.contains("value=\"events:read\"") && form.contains("value=\"keys:manage\""), "{form}");
    let once = hidden(&form, "once");
    let refused = visitor.post("/dashboard/keys/new", &[("once", once), ("scopes", "events:read")]).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    let faulty = [("once", once), ("name", "<b>Typed"), ("expiresAt", "soon"), ("scopes", "everything")];
    let faulty = visitor.post("/dashboard/keys/new", &faulty).await;
    assert_eq!(faulty.status, 400);
    assert!(faulty.text().contains("value=\"&lt;b&gt;Typed\"") && faulty.text().contains("#field-expiresAt"));
}

#[tokio::test]
async fn a_session_that_only_reads_finds_none_of_these_pages() {
    let app = App::start().await;
    let key = app.create_key("Acme", Mode::Live, &[], None).await;
    let reader = Visitor::of(&app, READS).await;
    let of_key = format!("/dashboard/keys/{}/revoke", key.key.id);
    let of_workspace = format!("/dashboard/workspaces/{}", key.key.workspace_id);
    for path in
        ["/dashboard/keys", "/dashboard/keys/new", &of_key, "/dashboard/audit", "/dashboard/workspaces", &of_workspace]
    {
        assert_eq!(reader.get(path).await.status, 403, "{path}");
    }
    let (rename, delete) = (format!("{of_workspace}/rename"), format!("{of_workspace}/delete"));
    for path in ["/dashboard/keys/new", &of_key, "/dashboard/workspaces", &rename, &delete] {
        let reply = reader.post(path, &[("name", "Acme"), ("confirm", "Acme"), ("once", "t")]).await;
        assert_eq!(reply.status, 403, "{path}");
    }
    for section in ["/dashboard/keys\"", "/dashboard/audit\"", "/dashboard/workspaces\""] {
        assert!(!reader.page("/dashboard").await.contains(section), "{section}");
    }
}

#[tokio::test]
async fn the_audit_log_shows_who_changed_what_as_text() {
    let app = App::start().await;
    let endpoint = app.endpoint_at(&format!("https://{PUBLIC_HOST}/"), &["post.created"]).await;
    let api = format!("/v1/webhook-endpoints/{}", endpoint.id);
    app.caller().patch(&api, json!({"name": "<script>alert(1)</script>"})).await.data(200);
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let page = visitor.page(&format!("/dashboard/audit?action=endpoint.updated&resourceId={}", endpoint.id)).await;
    assert!(page.contains("endpoint.updated") && page.contains("&lt;script&gt;alert(1)") && page.contains("req_"));
    assert!(!page.contains("<script>alert") && !page.contains("endpoint.created</th>"), "{page}");
    let page = visitor.page("/dashboard/audit?since=yesterday").await;
    assert!(page.contains("value=\"yesterday\"") && page.contains("#field-since"), "{page}");
    assert!(visitor.page("/dashboard/audit?resourceId=whe_nothing").await.contains("No entry matches this filter"));
}

#[tokio::test]
async fn workspaces_are_made_renamed_and_deleted_by_their_name() {
    let app = App::start().await;
    let operator = Visitor::of(&app, &[Scope::Dashboard, Scope::WorkspacesManage]).await;
    let page = operator.page("/dashboard/workspaces").await;
    let fields = [("once", hidden(&page, "once")), ("name", "Beta & Co")];
    operator.send("/dashboard/workspaces", &fields).await;
    operator.send("/dashboard/workspaces", &fields).await;
    let listed = app.caller_of("Acme", &[Scope::WorkspacesManage]).await.get("/v1/workspaces").await.data(200);
    let made: Vec<_> = listed.as_array().unwrap().iter().filter(|it| it["name"] == "Beta & Co").collect();
    assert_eq!(made.len(), 1, "{listed}");
    let one = format!("/dashboard/workspaces/{}", made[0]["id"].as_str().unwrap());
    let taken = operator.post(&format!("{one}/rename"), &[("name", "Acme")]).await;
    assert_eq!((taken.status, taken.text().contains("Another workspace has this name")), (409, true));
    operator.send(&format!("{one}/rename"), &[("name", "Gamma")]).await;
    assert_eq!(operator.post(&format!("{one}/delete"), &[("confirm", "Beta & Co")]).await.status, 400);
    operator.send(&format!("{one}/delete"), &[("confirm", "Gamma")]).await;
    assert_eq!(operator.get(&one).await.status, 404);
}

#[tokio::test]
async fn event_types_show_their_fields_and_their_subscribers() {
    let app = App::start().await;
    app.endpoint_at(&format!("https://{PUBLIC_HOST}/"), &["post.created"]).await;
    let reader = Visitor::of(&app, READS).await;
    assert!(reader.page("/dashboard/event-types").await.contains("/dashboard/event-types/post.created"));
    let page = reader.page("/dashboard/event-types/post.created").await;
    assert!(page.contains("A receiver") && page.contains("platform") && page.contains("JSON Schema"), "{page}");
    assert_eq!(reader.get("/dashboard/event-types/post.nothing").await.status, 404);
}
