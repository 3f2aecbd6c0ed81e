//! What an operator does beside deliveries: endpoints that are filtered and sorted, periods, sessions of the portal,
//! and another workspace.

use serde_json::json;

use crate::support::desk::Desk;
use crate::support::page::{assert_faultless, check};
use crate::support::server::app::text;
use crate::support::tab::View;

#[tokio::test]
async fn lists_and_their_states_keep_the_rules() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let session = desk.caller.post("/v1/portal-sessions", json!({"projectId": "proj_1"})).await.data(200);
    let session = text(&session, "id");
    desk.app.caller_of("Another product with a name as long as names of products sometimes are", &[]).await;
    let tab = desk.visitor(View::WIDE).await;
    let mut faults = Vec::new();
    for (name, path) in [
        ("endpoints-failing-first", "/dashboard/endpoints?sort=failing&limit=2".to_owned()),
        ("endpoints-in-need", "/dashboard/endpoints?state=failing,paused,disabled".to_owned()),
        ("endpoints-none", "/dashboard/endpoints?q=nowhere&state=off".to_owned()),
        ("endpoint-30d", format!("/dashboard/endpoints/{}?period=30d", world.failing.id)),
        ("portal-sessions", "/dashboard/portal-sessions".to_owned()),
        ("portal-sessions-none", "/dashboard/portal-sessions?projectId=none".to_owned()),
        ("portal-session", format!("/dashboard/portal-sessions/{session}")),
        ("workspaces", "/dashboard/workspaces".to_owned()),
        ("event-type", "/dashboard/event-types/post.created".to_owned()),
        ("audit-of-one", "/dashboard/audit?requestId=req_0000000000000000".to_owned()),
    ] {
        faults.extend(check(&tab, &desk.url(&path), name).await);
    }
    faults.extend(tab.console());
    assert_faultless(&faults);
}

#[tokio::test]
async fn the_filter_of_endpoints_works_with_and_without_script() {
    let Some(desk) = Desk::open().await else { return };
    desk.fill().await;
    for view in [View::WIDE, View::NARROW.without_script()] {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url("/dashboard/endpoints?state=disabled,off&limit=1")).await;
        let shown = tab.text("document.querySelector('#field-state').selectedOptions[0].textContent").await;
        assert_eq!(shown, "disabled or off");
        tab.eval("document.querySelector('#field-sort').value = 'failing'").await;
        let loaded = tab.go_by(tab.click("form.filters button")).await;
        assert_eq!(loaded.status, 200);
        assert!(loaded.url.contains("sort=failing") && loaded.url.contains("state=disabled%2Coff"), "{}", loaded.url);
        let caption = tab.text("document.querySelector('caption').textContent").await;
        assert_eq!(caption, "Endpoints, failing first");
        assert_eq!(tab.console(), [""; 0]);
    }
}

#[tokio::test]
async fn another_workspace_is_chosen_in_the_bar() {
    let Some(desk) = Desk::open().await else { return };
    desk.app.caller_of("Other", &[]).await;
    for view in [View::WIDE, View::NARROW.without_script()] {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url("/dashboard/endpoints")).await;
        tab.eval("document.querySelector('#switch').selectedIndex = 1").await;
        let loaded = tab.go_by(tab.click("form.switch button")).await;
        assert_eq!(loaded.status, 200);
        let (chosen, notice) = (
            tab.text("document.querySelector('#switch').selectedOptions[0].textContent").await,
            tab.text("document.querySelector('[role=status]').textContent").await,
        );
        assert_eq!((chosen.as_str(), notice.as_str()), ("Other", "You are in this workspace now."));
    }
}
