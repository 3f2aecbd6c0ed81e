//! The documentation pages.

use crate::support::browser::Browser;
use crate::support::page::{assert_faultless, check, keyboard_faults};
use crate::support::server::app::App;
use crate::support::tab::View;

#[tokio::test]
async fn the_documentation_pages_keep_the_rules_of_every_page() {
    let Some(browser) = Browser::open().await else { return };
    let app = App::start().await;
    let tab = browser.tab(View::WIDE).await;
    let mut faults = Vec::new();
    for (path, name) in [("/docs", "docs"), ("/docs/events", "docs-events"), ("/docs/errors", "docs-errors")] {
        let url = format!("http://{}{path}", app.server().address());
        faults.extend(check(&tab, &url, name).await);
    }
    faults.extend(tab.console());
    assert_faultless(&faults);
}

#[tokio::test]
async fn the_keyboard_walks_the_documentation_in_order() {
    let Some(browser) = Browser::open().await else { return };
    let app = App::start().await;
    for view in [View::WIDE, View::NARROW] {
        let tab = browser.tab(view).await;
        tab.go(&format!("http://{}/docs", app.server().address())).await;
        assert_faultless(&keyboard_faults(&tab, 100).await);
    }
}

#[tokio::test]
async fn the_skip_link_leads_past_the_contents() {
    let Some(browser) = Browser::open().await else { return };
    let app = App::start().await;
    let tab = browser.tab(View::WIDE.without_script()).await;
    let address = app.server().address();
    let loaded = tab.go(&format!("http://{address}/docs/errors")).await;
    assert_eq!(loaded.status, 200);
    tab.press("Tab").await;
    tab.press("Enter").await;
    tab.when("location.hash === '#content'").await;
    tab.press("Tab").await;
    assert_eq!(tab.eval("document.activeElement.closest('main') !== null").await, true, "the focus is in the content");
    let loaded = tab.go_by(tab.click("header nav a[href='/docs/events']")).await;
    assert_eq!(loaded.url, format!("http://{address}/docs/events"));
    assert_eq!(tab.text("document.querySelector('header [aria-current]').innerText").await, "Events");
}
