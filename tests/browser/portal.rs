//! The portal: in frames of other sites, whose cookies the browser keeps away, and the rules that each page keeps.

use std::sync::Arc;

use postrider_domain::access::Principal;
use postrider_domain::endpoint::{EndpointFilter, EndpointName, EndpointUrl, ProjectId};
use postrider_domain::endpoint_options::OptionsChange;
use postrider_domain::limits;
use postrider_domain::page::PageRequest;
use postrider_domain::permission::{Capabilities, Capability};
use postrider_domain::portal::{FrameAncestor, Locale, PortalTerms, Theme};
use postrider_domain::private_options::PrivateOptions;
use postrider_service::{CreateEndpoint, CreatePortalSession, Idempotent, Origin, Service};
use serde_json::json;

use crate::support::desk::{Desk, HOSTILE, PROJECT};
use crate::support::page::{assert_faultless, check, keyboard_faults};
use crate::support::server::app::text;
use crate::support::server::receiver::{Answer, Receiver};
use crate::support::server::tls::TestCa;
use crate::support::server::wait::eventually;
use crate::support::session::Session;
use crate::support::tab::View;

/// A page of an integrator.
fn page(content: &str) -> Answer {
    let head = "<!DOCTYPE html><title>Shop</title><link rel=icon href=data:,>";
    Answer::status(200).header("content-type", "text/html").body(format!("{head}{content}"))
}

fn frame(url: &str) -> String {
    format!("<iframe width=900 height=900 src={url:?}></iframe>")
}

/// A server over https that lets this origin show its portal.
async fn desk_for(ancestor: &str) -> Option<(Desk, tempfile::TempDir)> {
    let directory = tempfile::tempdir().expect("a directory");
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    let (chain_pem, key_pem) = TestCa::new().leaf_pem(&["127.0.0.1"]);
    std::fs::write(&chain, chain_pem).expect("a file");
    std::fs::write(&key, key_pem).expect("a file");
    let ancestor = FrameAncestor::parse(ancestor).expect("an origin");
    let opened = Desk::open_with(|settings| {
        settings.tls_cert_file = Some(chain);
        settings.tls_key_file = Some(key);
        settings.portal.frame_ancestors = vec![ancestor];
    });
    Some((opened.await?, directory))
}

/// What the API's callers of the tests cannot ask, because they speak no TLS.
async fn operator(desk: &Desk) -> (Arc<Service>, Principal) {
    let service = Arc::clone(desk.app.server().service());
    let origin = Origin { request_id: None, address: None, route: "test" };
    let principal = service.authenticate(Some(&desk.key), origin).await.expect("a key");
    (service, principal)
}

/// The link of a new session, and the start of its pages.
async fn session(desk: &Desk, scheme: &str, project: &str, locale: Locale) -> (String, String) {
    let (service, principal) = operator(desk).await;
    let capabilities = Capabilities::of(&Capability::ALL);
    let terms = PortalTerms {
        capabilities,
        event_types: None,
        locale: Some(locale),
        theme: Theme::Auto,
        next: None,
        return_url: None,
        frame_ancestors: Vec::new(),
        is_preview: false,
    };
    let create = CreatePortalSession {
        project_id: ProjectId::parse(project).expect("an id"),
        lasts: limits::PORTAL_SESSION_DEFAULT,
        terms,
        frame_ancestors: None,
        portal_url: format!("{scheme}://{}/portal", desk.app.server().address()),
    };
    let created = service.create_portal_session(&principal, create, &Idempotent::default()).await.expect("a session");
    let base = created.url.split("/open").next().expect("a path").to_owned();
    (created.url, base)
}

async fn endpoint(desk: &Desk, project: &str, name: &str) {
    let (service, principal) = operator(desk).await;
    let create = CreateEndpoint {
        name: EndpointName::parse(name).expect("a name"),
        url: EndpointUrl::parse("https://hooks.example.com/").expect("a URL"),
        events: service.catalogue().names().take(1).cloned().collect(),
        project_id: Some(ProjectId::parse(project).expect("an id")),
        options: OptionsChange::default(),
        private: PrivateOptions::default(),
    };
    service.create_endpoint(&principal, create, &Idempotent::default()).await.expect("an endpoint");
}

/// Follows a link or presses a button in a frame. The page that this leads to must meet the condition.
async fn press(frame: &Session, selector: &str, condition: &str) {
    frame.leave_by(&format!("document.querySelector({selector:?}).click()")).await;
    let page = frame.text("location.href + document.body.innerText").await;
    assert_eq!(frame.eval(condition).await, true, "{condition} on {page}");
}

async fn fill(frame: &Session, selector: &str, value: &str) {
    frame.eval(&format!("document.querySelector({selector:?}).value = {value:?}")).await;
}

#[tokio::test]
async fn a_frame_of_another_site_has_the_whole_portal() {
    let ca = TestCa::new();
    let shop = Receiver::start_tls(&ca.leaf(&["shop.test"])).await;
    let origin = shop.url_at("shop.test", "").trim_end_matches('/').to_owned();
    let Some((desk, _files)) = desk_for(&origin).await else { return };
    let (link, base) = session(&desk, "https", "p", Locale::En).await;
    shop.otherwise(page(&frame(&link)));
    let hook = Receiver::start().await;

    let tab = desk.browser.tab(View::WIDE).await;
    tab.go(&shop.url_at("shop.test", "/")).await;
    let inside = tab.frame(&base).await;
    let here = "location.pathname + location.search + location.hash";
    let path = base.splitn(4, '/').nth(3).expect("a path");
    assert_eq!(inside.text(here).await, format!("/{path}/"));
    fill(&inside, "#field-name", "Shop hooks").await;
    fill(&inside, "#field-url", &hook.url("/hook")).await;
    inside.eval("document.querySelector('[value=\"post.created\"]').checked = true").await;
    press(&inside, "button[value=yes]", "location.pathname.endsWith('/secret')").await;
    let secret = "document.querySelector('.secret .copy-text').textContent";
    let first = inside.text(secret).await;
    assert!(first.starts_with("whsec_"), "{first}");
    press(&inside, ".actions .primary", "location.search.startsWith('?test=')").await;
    inside.when("document.querySelector('#test-result').innerText.includes('answered 200')").await;
    let shown = inside.text("location.href").await;
    inside.reload().await;
    assert_eq!(inside.text("location.href").await, shown);
    assert_eq!(inside.text("document.querySelector('h1').innerText").await, "Shop hooks");
    press(&inside, "a[href$='/rotate']", "location.pathname.endsWith('/rotate')").await;
    press(&inside, "form button.primary", "document.querySelector('.secret') !== null").await;
    assert_ne!(inside.text(secret).await, first);

    // Mounted again, the same link leads to the same session.
    tab.go(&shop.url_at("shop.test", "/again")).await;
    let again = tab.frame(&base).await;
    again.when("document.body.innerText.includes('Shop hooks')").await;
    for console in [tab.console(), again.console()] {
        assert_eq!(console, [""; 0]);
    }
    // A page that is not listed shows nothing of it.
    tab.go(&shop.url_at("other.test", "/")).await;
    tab.when("document.querySelector('iframe') !== null").await;
    let refused = || async { tab.console().iter().any(|line| line.contains("frame-ancestors")).then_some(()) };
    eventually("a refusal of the frame", refused).await;
}

#[tokio::test]
async fn two_projects_stand_side_by_side_in_two_frames() {
    let ca = TestCa::new();
    let shop = Receiver::start_tls(&ca.leaf(&["shop.test"])).await;
    let origin = shop.url_at("shop.test", "").trim_end_matches('/').to_owned();
    let Some((desk, _files)) = desk_for(&origin).await else { return };
    let mut sessions = Vec::new();
    for project in ["one", "two"] {
        endpoint(&desk, project, &format!("Of {project}")).await;
        sessions.push(session(&desk, "https", project, Locale::En).await);
    }
    shop.otherwise(page(&sessions.iter().map(|(link, _)| frame(link)).collect::<String>()));
    let tab = desk.browser.tab(View::WIDE).await;
    tab.go(&shop.url_at("shop.test", "/")).await;
    let (one, two) = (tab.frame(&sessions[0].1).await, tab.frame(&sessions[1].1).await);
    for (frame, own, other) in [(&one, "Of one", "Of two"), (&two, "Of two", "Of one"), (&one, "Of one", "Of two")] {
        frame.reload().await;
        assert_eq!(frame.eval(&format!("document.body.innerText.includes({own:?})")).await, true);
        assert_eq!(frame.eval(&format!("document.body.innerText.includes({other:?})")).await, false);
    }
    for frame in [&one, &two] {
        press(frame, "tbody a", "document.querySelector('form[action$=\"/off\"]') !== null").await;
        press(frame, "form[action$='/off'] button", "location.search === '?done=disabled'").await;
    }
    let (service, principal) = operator(&desk).await;
    let off = EndpointFilter { is_active: Some(false), ..EndpointFilter::default() };
    let listed = service.list_endpoints(&principal, off, PageRequest::FIRST).await.expect("a list");
    assert_eq!(listed.items.len(), 2);
}

#[tokio::test]
async fn a_frame_without_a_cookie_leads_into_a_tab() {
    let shop = Receiver::start().await;
    let origin = shop.url_at("localhost", "").trim_end_matches('/').to_owned();
    let ancestor = FrameAncestor::parse(&origin).expect("an origin");
    let opened = Desk::open_with(|settings| settings.portal.frame_ancestors = vec![ancestor]);
    let Some(desk) = opened.await else { return };
    let (link, base) = session(&desk, "http", "p", Locale::En).await;
    shop.otherwise(page(&frame(&link)));
    let tab = desk.browser.tab(View::WIDE).await;
    tab.go(&shop.url_at("localhost", "/")).await;
    let inside = tab.frame(&format!("{base}/no-cookie")).await;
    inside.when("!document.querySelector('[data-open]').hidden").await;
    assert_eq!(inside.eval("document.querySelector('[data-open]').target").await, "_blank");
    let open = inside.text("document.querySelector('[data-open]').href").await;
    let loaded = tab.go(&open).await;
    assert_eq!(loaded.status, 200, "{}", loaded.url);
    assert_eq!(tab.text("document.querySelector('.empty h2').textContent").await, "No endpoint yet");
    assert_eq!(
        tab.text("location.href").await,
        format!("{base}/"),
        "neither the code nor its use stays in the address"
    );
}

#[tokio::test]
async fn every_page_of_the_portal_keeps_the_rules_in_both_languages() {
    let Some(desk) = Desk::open().await else { return };
    let receiver = Receiver::start().await;
    let body = json!({"name": HOSTILE, "url": receiver.url("/hook"), "events": ["post.created"], "projectId": PROJECT});
    let id = desk.app.endpoint(body).await.id;
    let mut deliveries = Vec::new();
    for status in [200, 503] {
        receiver.otherwise(Answer::status(status).body(HOSTILE));
        let event = json!({"type": "post.created", "data": {"title": HOSTILE}, "projectId": PROJECT});
        let event = text(&desk.app.post("/v1/events", event).await.data(202), "id");
        deliveries.push(text(&desk.app.attempted(&event, 1).await, "id"));
    }
    let endpoint = format!("/endpoints/{id}");
    let tab = desk.browser.tab(View::WIDE).await;
    let mut faults = Vec::new();
    for locale in Locale::ALL {
        let (link, base) = session(&desk, "http", PROJECT, locale).await;
        let locale = locale.as_str();
        tab.show(View::WIDE).await;
        tab.go(&link).await;
        let paths = [
            String::new(),
            "/endpoints/new".to_owned(),
            format!("{endpoint}/edit"),
            format!("{endpoint}/rotate"),
            format!("{endpoint}/replay"),
            format!("{endpoint}/delete"),
            endpoint.clone(),
            "/deliveries".to_owned(),
            format!("/deliveries/{}", deliveries[0]),
            format!("/deliveries/{}", deliveries[1]),
            "/events".to_owned(),
            "/events/post.created".to_owned(),
            "/no-cookie".to_owned(),
            "/ended".to_owned(),
        ];
        for path in paths {
            let name = path
                .replace(&id, "one")
                .replace(&deliveries[0], "one")
                .replace(&deliveries[1], "two")
                .replace('/', "-");
            faults.extend(check(&tab, &format!("{base}{path}"), &format!("portal-{locale}{name}")).await);
            if !["/no-cookie", "/ended"].contains(&path.as_str()) {
                let found = keyboard_faults(&tab, 60).await;
                faults.extend(found.into_iter().map(|fault| format!("{locale} {path}: {fault}")));
            }
        }
    }
    faults.extend(tab.console());
    assert_faultless(&faults);
}
