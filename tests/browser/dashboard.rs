//! The operator's dashboard: signing in, and the rules that each of its pages keeps.

use std::collections::{BTreeMap, VecDeque};

use crate::support::desk::{Desk, World};
use crate::support::page::{assert_faultless, check, keyboard_faults};
use crate::support::server::receiver::ReservedPort;
use crate::support::server::tls::TestCa;
use crate::support::tab::{Tab, View};

/// The pages that a visitor reaches by links from the overview, one of each shape.
async fn pages(desk: &Desk, tab: &Tab, start: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = VecDeque::from_iter(start.iter().cloned());
    while let Some(path) = open.pop_front() {
        if found.insert(shape(&path), path.clone()).is_some() {
            continue;
        }
        let loaded = tab.go(&desk.url(&path)).await;
        assert_eq!(loaded.status, 200, "{path}");
        let links = tab.eval("[...document.querySelectorAll('a[href]')].map(link => link.getAttribute('href'))").await;
        let links = links.as_array().expect("a list").iter().filter_map(|link| link.as_str());
        // A body is a file to keep, not a page.
        let links = links.filter(|link| link.starts_with("/dashboard") && !link.ends_with("/body"));
        for link in links.filter(|link| !found.contains_key(&shape(link))) {
            open.push_back(link.split('#').next().unwrap_or_default().to_owned());
        }
    }
    found
}

/// The overview, and a delivery in each state.
async fn states(desk: &Desk, world: &World) -> Vec<(&'static str, String)> {
    let (healthy, failing, stopped) = (&world.healthy.id, &world.failing.id, &world.stopped.id);
    let event = &world.event;
    let deliveries = [
        ("delivered", format!("endpointId={healthy}&eventId={event}")),
        ("pending", format!("endpointId={failing}&eventId={event}")),
        ("waiting", format!("endpointId={stopped}&eventId={event}")),
        ("blocking", format!("endpointId={stopped}&status=failed")),
        ("skipped", format!("endpointId={}&eventId={event}", world.disabled.id)),
    ];
    let mut states = vec![("overview", "/dashboard".to_owned())];
    for (name, filter) in deliveries {
        states.push((name, format!("/dashboard/deliveries/{}", desk.delivery(&filter).await)));
    }
    states
}

/// `/dashboard/deliveries/{id}?status` of a link: pages of one shape differ in what they show, not in how.
fn shape(link: &str) -> String {
    let link = link.split('#').next().unwrap_or_default();
    let (path, query) = link.split_once('?').unwrap_or((link, ""));
    let is_id = |part: &str| part.contains(['_', '.']);
    let parts = path.split('/').map(|part| if is_id(part) { "{id}" } else { part });
    let names: Vec<&str> =
        query.split('&').filter_map(|pair| pair.split('=').next()).filter(|it| !it.is_empty()).collect();
    format!("{}?{}", parts.collect::<Vec<_>>().join("/"), names.join("&")).trim_end_matches('?').to_owned()
}

/// A name for the pictures of a shape.
fn picture(start: &str, shape: &str) -> String {
    let shape = shape.trim_start_matches("/dashboard").replace("{id}", "one").replace(['/', '?', '&'], "-");
    format!("{start}{shape}")
}

#[tokio::test]
async fn every_page_of_an_empty_workspace_keeps_the_rules() {
    let Some(desk) = Desk::open().await else { return };
    let tab = desk.visitor(View::WIDE).await;
    let mut faults = Vec::new();
    let guide = desk.visitor(View::WIDE).await;
    for (shape, path) in pages(&desk, &guide, &["/dashboard".to_owned()]).await {
        faults.extend(check(&tab, &desk.url(&path), &picture("empty", &shape)).await);
    }
    faults.extend(tab.console());
    assert_faultless(&faults);
}

#[tokio::test]
async fn every_page_of_a_full_workspace_keeps_the_rules() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let tab = desk.visitor(View::WIDE).await;
    let mut faults = Vec::new();
    let guide = desk.visitor(View::WIDE).await;
    let states = states(&desk, &world).await;
    let start: Vec<String> = states.iter().map(|(_, path)| path.clone()).collect();
    let states = states.into_iter().map(|(name, path)| (format!("state-{name}"), path));
    let linked = pages(&desk, &guide, &start).await.into_iter().filter(|(_, path)| !start.contains(path));
    let linked: Vec<_> = linked.map(|(shape, path)| (picture("full", &shape), path)).collect();
    for (name, path) in states.chain(linked) {
        faults.extend(check(&tab, &desk.url(&path), &name).await);
        faults.extend(keyboard_faults(&tab, 60).await.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    faults.extend(tab.console());
    assert_faultless(&faults);
}

#[tokio::test]
async fn no_visit_of_a_page_changes_anything() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let guide = desk.visitor(View::WIDE).await;
    let start: Vec<String> = states(&desk, &world).await.into_iter().map(|(_, path)| path).collect();
    let before = desk.caller.get("/v1/audit-log").await.json();
    let visited = pages(&desk, &guide, &start).await;
    assert_eq!(desk.caller.get("/v1/audit-log").await.json(), before, "after {visited:?}");
}

#[tokio::test]
async fn the_sign_in_keeps_the_rules_and_leads_back() {
    let Some(desk) = Desk::open().await else { return };
    let tab = desk.browser.tab(View::WIDE).await;
    let url = desk.url("/dashboard/login");
    let mut faults = check(&tab, &url, "login").await;
    faults.extend(check(&tab, &desk.url("/dashboard/login?code=abc"), "login-code").await);
    assert_faultless(&faults);
    for view in [View::WIDE, View::WIDE.without_script()] {
        tab.show(view).await;
        let asked = tab.go(&desk.url("/dashboard?period=24h")).await;
        assert!(asked.url.starts_with(&format!("{url}?next=")), "{}", asked.url);
        tab.fill("input[name=key]", "scripe_sk_live_wrong").await;
        let refused = tab.go_by(tab.press("Enter")).await;
        assert_eq!(refused.status, 401);
        assert_eq!(tab.eval("document.querySelector('.error-summary a').hash").await, "#field-key");
        assert_eq!(tab.eval("document.querySelector('[aria-invalid=true]').name").await, "key");
        assert_eq!(tab.text("document.querySelector('input[name=key]').value").await, "", "a key is not repeated");
        tab.fill("input[name=key]", &desk.key).await;
        let inside = tab.go_by(tab.press("Enter")).await;
        assert_eq!((inside.status, inside.url.as_str()), (200, desk.url("/dashboard?period=24h").as_str()));
        let outside = tab.go_by(tab.click(".sign-out button")).await;
        assert_eq!(outside.url, url);
        let back = tab.go(&desk.url("/dashboard")).await;
        assert!(back.url.starts_with(&url), "signed out: {}", back.url);
    }
    let console = tab.console();
    let refusals = console.iter().filter(|line| line.contains("401"));
    assert_eq!(refusals.count(), console.len(), "{console:?}");
}

#[tokio::test]
async fn going_back_after_signing_out_shows_no_page() {
    let Some(desk) = Desk::open().await else { return };
    let tab = desk.visitor(View::WIDE).await;
    tab.go(&desk.url("/dashboard?period=24h")).await;
    tab.go_by(tab.click(".sign-out button")).await;
    tab.go_back().await;
    assert_eq!(tab.eval("location.pathname === '/dashboard/login' && location.search.includes('next=')").await, true);
    assert_eq!(tab.eval("document.querySelector('.sign-out')").await, serde_json::Value::Null);
}

#[tokio::test]
async fn the_pages_work_below_a_prefix() {
    let Some(desk) = Desk::open_with(|settings| settings.public_url = Some("http://127.0.0.1/hooks".to_owned())).await
    else {
        return;
    };
    let tab = desk.browser.tab(View::WIDE).await;
    let asked = tab.go(&desk.url("/hooks/dashboard")).await;
    assert!(asked.url.starts_with(&desk.url("/hooks/dashboard/login?next=")), "{}", asked.url);
    desk.sign_in(&tab, &desk.key).await;
    assert_eq!(tab.text("location.pathname").await, "/hooks/dashboard");
    let outside = "[...document.querySelectorAll('[href], [action], [src]')].map(element => element.href || element.action || element.src)
        .filter(url => !url.startsWith(location.origin + '/hooks/') && !url.startsWith('data:'))";
    assert_eq!(tab.eval(outside).await, serde_json::json!([]));
    assert_eq!(tab.console(), [""; 0]);
}

#[tokio::test]
async fn the_sign_in_works_on_plain_http_by_name_and_warns() {
    let reserved = ReservedPort::reserve();
    let port = reserved.number();
    let opened = Desk::open_with(|settings| {
        settings.listen.set_port(port);
        settings.public_url = Some(format!("http://postrider.test:{port}"));
    });
    let Some(desk) = opened.await else { return };
    let tab = desk.browser.tab(View::WIDE).await;
    let loaded = tab.go(&format!("http://postrider.test:{port}/dashboard/login")).await;
    assert_eq!(loaded.headers["cross-origin-opener-policy"], serde_json::Value::Null);
    assert!(tab.text("document.querySelector('.warning').innerText").await.contains("plain http"));
    desk.sign_in(&tab, &desk.key).await;
    assert_eq!(tab.text("location.host + location.pathname").await, format!("postrider.test:{port}/dashboard"));
    assert_eq!(tab.console(), [""; 0]);
}

#[tokio::test]
async fn the_cookie_over_https_is_bound_to_the_host() {
    let directory = tempfile::tempdir().unwrap();
    let (chain, key) = (directory.path().join("chain.pem"), directory.path().join("key.pem"));
    let (chain_pem, key_pem) = TestCa::new().leaf_pem(&["postrider.test"]);
    std::fs::write(&chain, chain_pem).unwrap();
    std::fs::write(&key, key_pem).unwrap();
    let opened = Desk::open_with(|settings| {
        settings.tls_cert_file = Some(chain);
        settings.tls_key_file = Some(key);
    });
    let Some(desk) = opened.await else { return };
    let tab = desk.browser.tab(View::WIDE).await;
    let port = desk.app.server().address().port();
    tab.go(&format!("https://postrider.test:{port}/dashboard/login")).await;
    desk.sign_in(&tab, &desk.key).await;
    let cookies = tab.call("Network.getCookies", serde_json::json!({})).await["cookies"].clone();
    assert_eq!(cookies.as_array().map(Vec::len), Some(1), "{cookies}");
    assert!(cookies[0]["name"].as_str().unwrap().starts_with("__Host-"), "{cookies}");
    assert_eq!((&cookies[0]["secure"], &cookies[0]["httpOnly"]), (&true.into(), &true.into()), "{cookies}");
    assert_eq!(tab.eval("document.cookie").await, "");
}
