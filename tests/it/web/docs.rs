//! The documentation pages: access, links, anchors and caching.

use std::collections::HashSet;

use http::Method;

use crate::support::app::{App, text};

const PAGES: [&str; 3] = ["/docs", "/docs/events", "/docs/errors"];

/// The values of an attribute in a page.
fn attributes<'p>(page: &'p str, name: &str) -> Vec<&'p str> {
    let start = format!(" {name}=\"");
    page.split(start.as_str()).skip(1).map(|rest| rest.split('"').next().unwrap_or_default()).collect()
}

#[tokio::test]
async fn every_page_needs_no_key_and_runs_no_script() {
    let app = App::start().await;
    for path in PAGES {
        let reply = app.caller().without("authorization").get(path).await;
        assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let policy = reply.header("content-security-policy").unwrap();
        assert!(policy.starts_with("default-src 'none'; style-src 'self';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        let page = reply.text();
        for forbidden in ["<script", "<style", " style=\"", " onclick", "javascript:", "src=\"", "<iframe"] {
            assert!(!page.contains(forbidden), "{path} holds {forbidden}");
        }
    }
}

#[tokio::test]
async fn every_link_works_and_every_anchor_is_unique() {
    let app = App::start().await;
    let mut anchors = HashSet::new();
    let mut links = Vec::new();
    for path in PAGES {
        let reply = app.get(path).await;
        for id in attributes(reply.text(), "id") {
            assert!(anchors.insert(format!("{path}#{id}")), "{path} has two #{id}");
        }
        for target in attributes(reply.text(), "href") {
            links.push(if target.starts_with('#') { format!("{path}{target}") } else { target.to_owned() });
        }
    }
    assert!(links.len() > 200, "only {} links", links.len());
    for link in links.into_iter().filter(|link| !link.starts_with("https://www.standardwebhooks.com/")) {
        match link.split_once('#') {
            Some(_) => assert!(anchors.contains(&link), "{link} leads nowhere"),
            None => assert_eq!(app.get(&link).await.status, 200, "{link}"),
        }
    }
}

#[tokio::test]
async fn every_error_code_has_the_anchor_that_docs_url_names() {
    let app = App::start().await;
    let document = app.get("/openapi.json").await.json();
    let page = app.get("/docs/errors").await;
    let anchors = attributes(page.text(), "id");
    let codes = document["x-error-codes"].as_object().unwrap();
    assert_eq!(codes.len(), 22);
    for code in codes.keys() {
        assert!(anchors.contains(&code.as_str()), "{code} has no anchor");
    }
    let error = app.get("/v1/nothing").await.error(404, "not_found");
    let url = text(&error, "docs_url");
    let path = url.strip_prefix(&format!("http://{}", app.server().address())).unwrap();
    assert_eq!(path, "/docs/errors#not_found");
}

#[tokio::test]
async fn every_operation_and_every_event_has_its_anchor() {
    let app = App::start().await;
    let document = app.get("/openapi.json").await.json();
    let (reference, events) = (app.get("/docs").await, app.get("/docs/events").await);
    let (reference, events) = (attributes(reference.text(), "id"), attributes(events.text(), "id"));
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            assert!(reference.contains(&operation["operationId"].as_str().unwrap()), "{operation}");
        }
    }
    for name in document["webhooks"].as_object().unwrap().keys() {
        assert!(events.contains(&name.as_str()), "{name}");
    }
}

#[tokio::test]
async fn the_style_sheet_is_cached_forever_under_its_hashed_name() {
    let app = App::start().await;
    let page = app.get("/docs").await;
    let sheet = attributes(page.text(), "href").into_iter().find(|target| target.ends_with(".css")).unwrap().to_owned();
    let reply = app.get(&sheet).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=31536000, immutable"));
    assert!(!reply.text().contains("url(") && !reply.text().contains("@import"));
}

#[tokio::test]
async fn the_root_and_the_published_path_redirect_to_the_reference() {
    let app = App::start().await;
    for (path, target) in [("/", "/docs"), ("/docs/api/v1/idempotency", "/docs#idempotency")] {
        let reply = app.caller().send(Method::GET, path, "").await;
        assert_eq!((reply.status, reply.header("location")), (307, Some(target)));
    }
}

#[tokio::test]
async fn a_description_cannot_turn_the_direction_of_a_page() {
    let directory = tempfile::tempdir().unwrap();
    let events = directory.path().join("events.toml");
    let event = "version = 1\n[[event]]\nname = 'a.b'\ndescription = \"mark\\u202eed \\u0007\"\nschema = '{}'\nexample = '{}'\n";
    std::fs::write(&events, event).unwrap();
    let app = App::set_up().await.change(|settings| settings.events_file = Some(events)).start().await;
    let page = app.get("/docs/events").await;
    assert!(page.text().contains(r"mark\u{202e}ed \u{7}"), "{}", page.text());
    assert!(!page.text().contains(['\u{202e}', '\u{7}']));
    let document = app.get("/openapi.json").await;
    assert!(document.text().contains("mark\u{202e}ed"), "JSON stays as it is");
}
