//! The forms of the dashboard, each with script and without: what they do, and what they say when something is wrong.

use std::time::Duration;

use serde_json::json;

use crate::support::desk::{Desk, World};
use crate::support::server::app::text;
use crate::support::server::receiver::Receiver;
use crate::support::server::wait::eventually;
use crate::support::tab::{Loaded, Tab, View};

const VIEWS: [View; 2] = [View::WIDE, View::WIDE.without_script()];
const SHOWN_ONCE: &str = "document.querySelector('.secret .copy-text').textContent";

/// An expression that finds the button or link with this text.
fn named(words: &str) -> String {
    format!("[...document.querySelectorAll('main a, main button')].find((it) => it.innerText.trim() === {words:?})")
}

/// Follows a link or presses a button of the page, and waits for the next page.
async fn press(tab: &Tab, words: &str) -> Loaded {
    tab.go_by(tab.clicks_on(&named(words), 1)).await
}

async fn says(tab: &Tab, words: &str) {
    let page = tab.text("document.querySelector('main').innerText").await;
    assert!(page.contains(words), "no {words:?} in {page}");
}

/// Checks the summary of a refused form: a link to each field at fault, which takes the focus.
async fn assert_faults(tab: &Tab, view: View, refused: &Loaded, fields: &[&str]) {
    assert_eq!(refused.status, 400, "{}", tab.text("document.body.innerText").await);
    let links = tab.eval("[...document.querySelectorAll('.error-summary a')].map((link) => link.hash)").await;
    assert_eq!(links, json!(fields));
    if view.script {
        assert_eq!(tab.eval("document.activeElement.matches('.error-summary')").await, true);
    }
    for field in fields {
        tab.click(&format!(".error-summary a[href='{field}']")).await;
        tab.when(&format!("location.hash === {field:?} && document.activeElement.matches({field:?})")).await;
        let words = tab.text(&format!("document.querySelector({field:?}).closest('.field-faulty').innerText")).await;
        assert!(!words.is_empty());
    }
}

/// The browser itself reports answers that refuse something. Nothing else may be on the console.
fn assert_quiet(tab: &Tab) {
    let console = tab.console();
    let of_answers = console.iter().filter(|line| line.contains("Failed to load resource: the server responded with"));
    assert_eq!(of_answers.count(), console.len(), "{console:?}");
}

#[tokio::test]
async fn an_endpoint_is_made_and_changed_by_its_forms() {
    let Some(desk) = Desk::open().await else { return };
    let receiver = Receiver::start().await;
    for (view, name) in VIEWS.into_iter().zip(["With script", "Without script"]) {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url("/dashboard/endpoints")).await;
        // The first endpoint is made on the list itself.
        if !view.script {
            press(&tab, "New endpoint").await;
        }
        tab.fill("#field-name", name).await;
        tab.fill("#field-url", "ftp://hooks.example.com/").await;
        let refused = press(&tab, "Create").await;
        assert_faults(&tab, view, &refused, &["#field-url", "#field-events"]).await;
        tab.click("[id='event-post.created']").await;
        tab.fill("#field-url", "https://169.254.169.254/latest").await;
        let refused = press(&tab, "Create").await;
        assert_faults(&tab, view, &refused, &["#field-url"]).await;
        assert!(tab.text("document.querySelector('.fault').innerText").await.contains("169.254.169.254"));
        assert_eq!(tab.text("document.querySelector('#field-name').value").await, name, "what was typed is kept");
        tab.fill("#field-url", &receiver.url("/hook")).await;
        assert_eq!(press(&tab, "Create").await.status, 200);
        assert!(tab.text(SHOWN_ONCE).await.starts_with("whsec_"));
        says(&tab, "the only time that the secret is shown").await;

        let made = desk.app.get("/v1/webhook-endpoints").await.data(200)[0].take();
        assert_eq!(made["name"], name);
        press(&tab, "I have copied it").await;
        press(&tab, "Edit").await;
        tab.fill("#field-name", "").await;
        tab.fill("#field-name", " ").await;
        let refused = press(&tab, "Save").await;
        assert_faults(&tab, view, &refused, &["#field-name"]).await;
        tab.fill("#field-name", &format!("{name}, changed")).await;
        tab.click("[id='event-note.created']").await;
        let saved = press(&tab, "Save").await;
        assert!(saved.url.ends_with("?done=saved"), "{}", saved.url);
        says(&tab, "Saved.").await;
        let path = format!("/v1/webhook-endpoints/{}", text(&made, "id"));
        let stored = desk.app.get(&path).await.data(200);
        assert_eq!(stored["name"], format!("{name}, changed"));
        assert_eq!(stored["events"].as_array().map(Vec::len), Some(2), "{stored}");
        let sent = press(&tab, "Send a test").await;
        assert!(sent.url.contains("?test=dlv_"), "{}", sent.url);
        receiver.wait_for(1).await;
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn a_change_over_a_change_shows_both_versions() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    for view in VIEWS {
        let tab = desk.visitor(view).await;
        let page = desk.url(&format!("/dashboard/endpoints/{}/edit", world.healthy.id));
        tab.go(&page).await;
        desk.app.clock().advance(Duration::from_secs(1));
        let path = format!("/v1/webhook-endpoints/{}", world.healthy.id);
        desk.app.caller().patch(&path, json!({"name": "Of a colleague"})).await.data(200);
        tab.fill("#field-name", "Mine").await;
        let refused = press(&tab, "Save").await;
        assert_eq!(refused.status, 409);
        for words in ["Of a colleague", "Mine"] {
            says(&tab, words).await;
        }
        desk.app.clock().advance(Duration::from_secs(1));
        assert!(press(&tab, "Save").await.url.ends_with("?done=saved"));
        assert_eq!(desk.app.get(&path).await.data(200)["name"], "Mine");
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn a_rotated_secret_is_shown_once() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let page = desk.url(&format!("/dashboard/endpoints/{}", world.healthy.id));
    let mut seen = vec![world.healthy.secret.clone()];
    for view in VIEWS {
        let tab = desk.visitor(view).await;
        tab.go(&page).await;
        press(&tab, "Rotate the secret").await;
        assert_eq!(press(&tab, "Rotate").await.status, 200);
        let secret = tab.text(SHOWN_ONCE).await;
        assert!(secret.starts_with("whsec_") && !seen.contains(&secret), "{secret}");
        if view.script {
            tab.when("location.pathname.endsWith('/secret')").await;
            let again = tab.go_by(async { drop(tab.call("Page.reload", json!({})).await) }).await;
            assert_eq!(again.status, 410, "a reload makes no second secret");
        }
        let again = tab.go(&format!("{page}/secret")).await;
        assert_eq!(again.status, 410);
        says(&tab, "The secret was shown once").await;
        assert!(!tab.text("document.documentElement.outerHTML").await.contains(&secret));
        press(&tab, "Rotate the secret").await;
        says(&tab, &secret[secret.len() - 4..]).await;
        seen.push(secret);
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn a_key_is_made_shown_once_and_revoked() {
    let Some(desk) = Desk::open().await else { return };
    for view in VIEWS {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url("/dashboard/keys")).await;
        press(&tab, "New key").await;
        tab.fill("#field-name", &"x".repeat(200)).await;
        let refused = press(&tab, "Create").await;
        assert_faults(&tab, view, &refused, &["#field-name"]).await;
        tab.fill("#field-name", &format!("For the till, {}", view.script)).await;
        tab.click("[value='events:read']").await;
        assert_eq!(press(&tab, "Create").await.status, 200);
        let key = tab.text(SHOWN_ONCE).await;
        let caller = desk.app.caller().key(&key);
        assert_eq!(caller.get("/v1/events").await.status, 200);
        press(&tab, "I have copied it").await;
        let list = tab.text("document.documentElement.outerHTML").await;
        assert!(list.contains(&key[key.len() - 4..]) && !list.contains(&key));
        let row = format!(
            "[...document.querySelectorAll('tbody tr')].find((it) => it.innerText.includes('For the till, {}'))",
            view.script
        );
        assert!(tab.text(&format!("{row}.innerText")).await.contains("valid"));
        tab.go_by(tab.clicks_on(&format!("{row}.querySelector('a[href$=revoke]')"), 1)).await;
        says(&tab, "This cannot be undone").await;
        let revoked = press(&tab, "Revoke the key").await;
        assert!(revoked.url.ends_with("/keys?done=revoked"), "{}", revoked.url);
        assert!(tab.text(&format!("{row}.innerText")).await.contains("revoked"));
        let refused = || async { (caller.get("/v1/events").await.status == 401).then_some(()) };
        eventually("a key that works no more", refused).await;
        assert_quiet(&tab);
    }
}

/// A filled workspace whose endpoint that was off is on, so that what it skipped can be replayed. Its receiver fails.
async fn with_skipped() -> Option<(Desk, World)> {
    let desk = Desk::open().await?;
    let world = desk.fill().await;
    Some((desk, world))
}

#[tokio::test]
async fn an_endpoint_is_replayed_and_its_job_watched() {
    for view in VIEWS {
        let Some((desk, world)) = with_skipped().await else { return };
        let tab = desk.visitor(view).await;
        tab.go(&desk.url(&format!("/dashboard/endpoints/{}", world.disabled.id))).await;
        press(&tab, "Switch on").await;
        press(&tab, "Replay").await;
        tab.click("#status-skipped").await;
        tab.click("#status-failed").await;
        let refused = press(&tab, "Count").await;
        assert_faults(&tab, view, &refused, &["#field-statuses"]).await;
        tab.click("#status-skipped").await;
        press(&tab, "Count").await;
        says(&tab, "3 deliveries would be sent again").await;
        let started = press(&tab, "Start").await;
        assert!(started.url.contains("/replays/rpl_") && started.url.ends_with("?done=started"), "{}", started.url);
        says(&tab, "It is running.").await;
        assert_eq!(tab.eval("document.querySelector('progress').max").await, 3);
        let complete = || async {
            desk.app.clock().advance(Duration::from_secs(1));
            let done = desk.app.deliveries(&format!("cause=replay&endpointId={}", world.disabled.id)).await;
            (done.len() == 3).then_some(())
        };
        eventually("three repeated deliveries", complete).await;
        if view.script {
            tab.when("document.querySelector('#replay').innerText.includes('It is complete.')").await;
        } else {
            let page = started.url.split('?').next().expect("a path");
            let shown = || async {
                tab.go(page).await;
                tab.text("document.querySelector('#replay').innerText").await.contains("It is complete.").then_some(())
            };
            eventually("the end of the job", shown).await;
        }
        says(&tab, "3 of 3 are through").await;
        press(&tab, "Again").await;
        press(&tab, "Count").await;
        says(&tab, "There is nothing to replay in this range.").await;
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn all_of_a_filtered_list_are_replayed_and_stopped() {
    for view in VIEWS {
        let Some((desk, _world)) = with_skipped().await else { return };
        let tab = desk.visitor(view).await;
        tab.go(&desk.url("/dashboard/deliveries?status=skipped")).await;
        press(&tab, "Replay all these").await;
        says(&tab, "3 deliveries would be sent again.").await;
        let started = tab.go_by(tab.clicks_on(&named("Start"), 2)).await;
        assert!(started.url.contains("/dashboard/replays/rpl_"), "{}", started.url);
        says(&tab, "It is running.").await;
        let stopped = press(&tab, "Stop").await;
        assert!(stopped.url.ends_with("?done=stopped"), "{}", stopped.url);
        says(&tab, "It was stopped.").await;
        press(&tab, "Again").await;
        says(&tab, "3 deliveries would be sent again.").await;
        press(&tab, "Back to the list").await;
        assert_eq!(tab.text("new URLSearchParams(location.search).get('status')").await, "skipped");
        let jobs = desk.app.get("/v1/replays").await.data(200);
        assert_eq!(jobs.as_array().map(Vec::len), Some(1), "a double click starts one: {jobs}");
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn ticked_deliveries_are_retried_once_each() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let filter = format!("endpointId={}", world.failing.id);
    let all: Vec<String> = desk.app.deliveries(&filter).await.iter().map(|it| text(it, "id")).collect();
    let chosen = [&all[..2], &all[2..3]];
    for (view, ids) in VIEWS.into_iter().zip(chosen) {
        let tab = desk.visitor(view).await;
        let list = desk.url(&format!("/dashboard/deliveries?{filter}"));
        tab.go(&list).await;
        assert_eq!(press(&tab, "Retry the ticked ones").await.status, 409);
        says(&tab, "No delivery is ticked").await;
        tab.go(&list).await;
        for id in ids {
            tab.click(&format!("input[value={id}]")).await;
        }
        let retried = tab.go_by(tab.clicks_on(&named("Retry the ticked ones"), 2)).await;
        assert!(retried.url.contains("cause=retry") && retried.url.ends_with("done=retried"), "{}", retried.url);
        says(&tab, "Queued again").await;
        for id in ids {
            let retries = desk.app.deliveries("cause=retry").await;
            let of_this = retries.iter().filter(|retry| retry["retryOf"] == id.as_str());
            assert_eq!(of_this.count(), 1, "{retries:?}");
        }
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn the_portal_is_previewed_and_its_lines_written() {
    let Some(desk) = Desk::open().await else { return };
    for view in VIEWS {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url("/dashboard/portal-embed")).await;
        says(&tab, "No page may show the portal in a frame yet.").await;
        // The browser asks for something in the field, and takes a space.
        tab.fill("#field-projectId", " ").await;
        let refused = press(&tab, "Make a session and show it").await;
        assert_faults(&tab, view, &refused, &["#field-projectId"]).await;
        tab.fill("#field-projectId", "proj_demo").await;
        tab.eval("document.querySelector('#field-theme').value = 'dark'; document.querySelector('#field-locale').value = 'de'")
            .await;
        let shown = press(&tab, "Make a session and show it").await;
        assert_eq!(shown.status, 200);
        tab.when("document.querySelector('iframe.preview').contentDocument?.readyState === 'complete'").await;
        let inside = "document.querySelector('iframe.preview').contentDocument";
        tab.when(&format!("{inside}.body.innerText.includes('Noch kein Endpunkt')")).await;
        assert_eq!(tab.text(&format!("{inside}.documentElement.dataset.theme")).await, "dark");
        let lines = tab.text("document.querySelector('main').innerText").await;
        for part in ["proj_demo", "\"theme\":\"dark\"", "\"locale\":\"de\"", "/v1/portal-sessions", "<iframe"] {
            assert!(lines.contains(part), "no {part} in {lines}");
        }
        let alone = tab.text("document.querySelector('main a[target=_blank]').href").await;
        let opened = desk.browser.tab(view).await;
        let loaded = opened.go(&alone).await;
        assert_eq!(loaded.status, 200, "{}", loaded.url);
        says(&opened, "Noch kein Endpunkt").await;
        let sessions = desk.caller.get("/v1/portal-sessions?projectId=proj_demo").await.data(200);
        assert!(sessions.as_array().is_some_and(|all| !all.is_empty()), "{sessions}");
        assert_quiet(&tab);
    }
}

#[tokio::test]
async fn an_endpoint_is_deleted_by_its_name() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    for (view, endpoint) in VIEWS.into_iter().zip([&world.healthy, &world.stopped]) {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url(&format!("/dashboard/endpoints/{}", endpoint.id))).await;
        press(&tab, "Delete").await;
        tab.fill("#field-name", "another").await;
        let refused = press(&tab, "Delete the endpoint").await;
        assert_faults(&tab, view, &refused, &["#field-name"]).await;
        let name = tab.text("document.querySelector('main strong').innerText").await;
        tab.fill("#field-name", &name).await;
        let deleted = press(&tab, "Delete the endpoint").await;
        assert!(deleted.url.ends_with("/endpoints?done=deleted"), "{}", deleted.url);
        let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
        assert_eq!(desk.app.get(&path).await.status, 404);
        assert_quiet(&tab);
    }
}
