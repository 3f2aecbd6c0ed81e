//! Who may do what on the pages: the buttons and the POSTs ask one table.

use postrider_domain::access::Scope;
use serde_json::json;

use crate::support::app::{App, PUBLIC_HOST};
use crate::support::visitor::{EVERYTHING, READS, Visitor, attributes};

#[tokio::test]
async fn a_reader_has_no_button_and_no_post_of_endpoints() {
    let app = App::start().await;
    let endpoint = app.endpoint_at(&format!("https://{PUBLIC_HOST}/"), &["post.created"]).await;
    let reader = Visitor::of(&app, READS).await;
    let here = format!("/dashboard/endpoints/{}", endpoint.id);
    for path in ["/dashboard/endpoints", &here] {
        let page = reader.page(path).await;
        let targets = attributes(&page, "action");
        let forms: Vec<_> =
            targets.into_iter().filter(|it| !it.ends_with("/logout") && !it.ends_with("/search")).collect();
        assert!(forms.iter().all(|form| *form == "/dashboard/endpoints"), "{path}: {forms:?}");
        for word in ["/edit\"", "/rotate\"", "/delete\"", "/replay\"", "/new\"", "Headers", "Client certificate"] {
            assert!(!page.contains(word), "{path} holds {word}");
        }
    }
    for verb in ["edit", "test", "on", "off", "delete", "secret", "replay", "replays/rpl_0000000000000000/stop"] {
        let fields = [("name", "A receiver"), ("replaces", "1"), ("once", "t"), ("start", "yes")];
        let reply = reader.post(&format!("{here}/{verb}"), &fields).await;
        assert_eq!(reply.status, 403, "{verb}: {}", reply.text());
        assert!(reply.text().contains("webhooks:manage"), "{verb}");
    }
    assert_eq!(reader.post("/dashboard/endpoints/new", &[]).await.status, 403);
    for page in
        ["/dashboard/endpoints/new", &format!("{here}/edit"), &format!("{here}/rotate"), &format!("{here}/delete")]
    {
        assert_eq!(reader.get(page).await.status, 403, "{page}");
    }
    let unchanged = app.get(&format!("/v1/webhook-endpoints/{}", endpoint.id)).await.data(200);
    assert_eq!((&unchanged["name"], &unchanged["isActive"]), (&json!("A receiver"), &json!(true)));
}

#[tokio::test]
async fn no_get_of_a_page_changes_anything() {
    let app = App::start().await;
    let endpoint = app.endpoint_at(&format!("https://{PUBLIC_HOST}/"), &["post.created"]).await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let all = app.caller_of("Acme", &[Scope::AuditRead]).await;
    let before = all.get("/v1/audit-log").await.data(200).as_array().unwrap().len();
    let mut open = vec!["/dashboard".to_owned()];
    let mut seen = std::collections::HashSet::new();
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let reply = visitor.get(&path).await;
        if reply.status == 200 {
            let links = attributes(reply.text(), "href").into_iter().filter(|link| link.starts_with("/dashboard"));
            open.extend(links.filter(|link| !link.contains("/login")).map(|link| link.replace("&amp;", "&")));
        }
    }
    assert!(seen.contains(&format!("/dashboard/endpoints/{}/delete", endpoint.id)), "{seen:?}");
    for verb in ["on", "off", "test", "replays/rpl_0000000000000000/stop"] {
        assert_eq!(visitor.get(&format!("/dashboard/endpoints/{}/{verb}", endpoint.id)).await.status, 405, "{verb}");
    }
    assert_eq!(all.get("/v1/audit-log").await.data(200).as_array().unwrap().len(), before);
}
