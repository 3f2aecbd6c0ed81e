//! The page that shows how to embed the portal.

use postrider_domain::access::Scope;
use postrider_domain::portal::FrameAncestor;

use crate::support::app::App;
use crate::support::visitor::{EVERYTHING, READS, Visitor, hidden};

#[tokio::test]
async fn a_preview_is_framed_by_this_page_alone() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let page = visitor.page("/dashboard/portal-embed").await;
    assert!(page.contains("--portal-frame-ancestors http://127.0.0.1:3000"), "the setting is named: {page}");
    let once = hidden(&page, "once").to_owned();
    let fields = [("once", once.as_str()), ("projectId", "proj_a"), ("theme", "dark"), ("readOnly", "on")];
    let made = visitor.post("/dashboard/portal-embed", &fields).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let policy = made.header("content-security-policy").unwrap();
    assert!(policy.contains("frame-src 'self'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    let link = made.text().split('"').find(|text| text.starts_with("/portal/pts_")).expect("a link").to_owned();
    assert!(made.text().contains(&format!("<iframe class=\"preview\" src=\"{link}\"")), "{}", made.text());
    let again = visitor.post("/dashboard/portal-embed", &fields).await;
    assert!(again.text().contains(&link), "a double click makes one session");

    let opened = crate::support::visitor::browser(&app).get(&link).await;
    assert_eq!(opened.status, 303, "{}", opened.text());
    let base = link.split("/open").next().unwrap();
    let customer = crate::support::visitor::browser(&app).with("cookie", crate::support::visitor::cookie_of(&opened));
    let inside = customer.get(&format!("{base}/")).await;
    assert!(inside.text().contains("data-theme=\"dark\"") && !inside.text().contains("/endpoints/new"), "read only");
    assert!(inside.header("content-security-policy").unwrap().contains("frame-ancestors 'self'"));
    let other = visitor.get("/dashboard/endpoints").await;
    assert!(!other.header("content-security-policy").unwrap().contains("frame-src"));
}

#[tokio::test]
async fn the_lines_to_paste_follow_the_form() {
    let app = App::set_up().await.change(|settings| {
        settings.public_url = Some("https://hooks.example.com/sub".to_owned());
        let origins = ["https://app.example.com", "https://b.example.com"];
        settings.portal.frame_ancestors = origins.map(|origin| FrameAncestor::parse(origin).unwrap()).to_vec();
    });
    let app = app.start().await;
    let visitor = Visitor::of(&app, &[Scope::Dashboard, Scope::PortalCreate]).await;
    let all = visitor.page("/dashboard/portal-embed?projectId=proj_a").await;
    assert!(all.contains("https://hooks.example.com/sub/v1/portal-sessions"), "{all}");
    assert!(!all.contains("frameAncestors&quot;:"), "all origins need no mention: {all}");
    assert!(all.contains("origin !== &quot;https://hooks.example.com&quot;"), "{all}");
    let query = "?projectId=proj_a&chosen=yes&frameAncestors=https%3A%2F%2Fb.example.com&locale=de";
    let one = visitor.page(&format!("/dashboard/portal-embed{query}")).await;
    assert!(one.contains("&quot;frameAncestors&quot;:[&quot;https://b.example.com&quot;]"), "{one}");
    assert!(one.contains("&quot;locale&quot;:&quot;de&quot;"), "{one}");
    assert_eq!(visitor.get("/dashboard/portal-embed?projectId=a%20b").await.status, 400);
}

#[tokio::test]
async fn without_the_scope_there_is_no_such_page() {
    let app = App::start().await;
    let reader = Visitor::of(&app, READS).await;
    assert!(!reader.page("/dashboard").await.contains("portal-embed"));
    let refused = reader.get("/dashboard/portal-embed").await;
    assert!(refused.status == 403 && refused.text().contains("portal:create"), "{}", refused.text());
    assert_eq!(reader.post("/dashboard/portal-embed", &[("projectId", "p")]).await.status, 403);
}
