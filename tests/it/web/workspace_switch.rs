//! The workspace switch of the bar.

use postrider_domain::access::Scope;
use serde_json::Value;

use crate::support::app::{App, text};
use crate::support::caller::Caller;
use crate::support::visitor::{EVERYTHING, READS, Visitor, browser, cookie_of};

const MANAGES: &[Scope] = &[Scope::Dashboard, Scope::WorkspacesManage, Scope::WebhooksManage, Scope::AuditRead];

/// The id of a workspace by its name.
async fn id_of(operator: &Caller, name: &str) -> String {
    let listed = operator.get("/v1/workspaces").await.data(200);
    let found = listed.as_array().unwrap().iter().find(|workspace| workspace["name"] == name);
    text(found.unwrap_or(&Value::Null), "id")
}

#[tokio::test]
async fn a_visitor_who_manages_workspaces_goes_on_in_another() {
    let app = App::start().await;
    app.caller_of("Other", EVERYTHING).await;
    let operator = app.caller_of("Acme", MANAGES).await;
    let other = id_of(&operator, "Other").await;
    let visitor = Visitor::of(&app, MANAGES).await;
    let page = visitor.page("/dashboard/endpoints").await;
    assert!(page.contains("selected>Acme</option>") && page.contains(">Other</option>"), "{page}");
    let reply = visitor.post("/dashboard/switch", &[("workspace", &other)]).await;
    assert_eq!((reply.status, reply.header("location")), (303, Some("/dashboard?done=switched")));
    assert_eq!(visitor.get("/dashboard/endpoints").await.status, 303, "the session of the first workspace has ended");
    let there = visitor.with("cookie", cookie_of(&reply));
    let page = there.page("/dashboard/endpoints?done=switched").await;
    assert!(page.contains("selected>Other</option>") && page.contains("You are in this workspace now."), "{page}");
    assert!(there.page("/dashboard/workspaces").await.contains("you are in it"));
    assert_eq!(there.get("/dashboard/keys").await.status, 403, "with the scopes of the sign-in, and no more");
    let log = there.page("/dashboard/audit").await;
    assert!(log.contains(">session.created</th>") && !log.contains(">session.ended</th>"), "{log}");
    let ended = operator.get("/v1/audit-log?action=session.ended").await.data(200);
    assert!(ended[0]["changes"].to_string().contains("switch"), "{ended:#}");
}

#[tokio::test]
async fn nobody_else_switches_and_not_to_the_server_s_own() {
    let app = App::start().await;
    app.operations_caller().await;
    let operator = app.caller_of("Acme", MANAGES).await;
    let operations = id_of(&operator, "operations").await;
    let reader = Visitor::of(&app, READS).await;
    let page = reader.page("/dashboard/deliveries").await;
    assert!(!page.contains("/dashboard/switch") && !page.contains("/dashboard/workspaces"), "{page}");
    assert_eq!(reader.post("/dashboard/switch", &[("workspace", &operations)]).await.status, 403);
    let visitor = Visitor::of(&app, MANAGES).await;
    for unknown in [operations.as_str(), "org_0000000000000000", "x", ""] {
        assert_eq!(visitor.post("/dashboard/switch", &[("workspace", unknown)]).await.status, 404, "{unknown}");
    }
    assert_eq!(visitor.get("/dashboard").await.status, 200, "the session is as it was");
    let cross_site = visitor.with("sec-fetch-site", "cross-site");
    assert_eq!(cross_site.post("/dashboard/switch", &[("workspace", &operations)]).await.status, 403);
    assert_eq!(browser(&app).send(http::Method::POST, "/dashboard/switch", String::new()).await.status, 303);
}

#[tokio::test]
async fn a_revoked_key_ends_the_session_in_the_other_workspace_too() {
    let app = App::start().await;
    app.caller_of("Other", EVERYTHING).await;
    let operator = app.caller_of("Acme", MANAGES).await;
    let key = app.create_key("Acme", postrider_domain::access::Mode::Live, MANAGES, None).await;
    let visitor = Visitor::with_key(&app, key.secret.reveal()).await;
    let other = id_of(&operator, "Other").await;
    let reply = visitor.post("/dashboard/switch", &[("workspace", &other)]).await;
    let there = visitor.with("cookie", cookie_of(&reply));
    assert_eq!(there.get("/dashboard/endpoints").await.status, 200);
    app.server().operator().revoke_api_key(key.key.id).await.unwrap();
    assert_eq!(there.get("/dashboard/endpoints").await.status, 303);
}
