//! The page of a delivery: what it shows of texts that others chose, and its actions with and without script.

use serde_json::Value;

use crate::support::desk::{Desk, HOSTILE, World};
use crate::support::server::wait::eventually;
use crate::support::tab::{Tab, View};

const VIEWS: [View; 2] = [View::WIDE, View::WIDE.without_script()];
const RETRY: &str = "form[action$='/retry'] button";
const SKIP: &str = "form[action$='/skip'] button";

/// Waits for nothing: the page says that the retry is queued.
async fn says(tab: &Tab, words: &str) {
    let notice = tab.text("document.querySelector('[role=status]')?.innerText ?? 'no notice'").await;
    assert!(notice.contains(words), "{notice}");
}

async fn deliveries_to(desk: &Desk, world: &World) -> Vec<Value> {
    desk.app.deliveries(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await
}

#[tokio::test]
async fn a_double_click_on_retry_is_one_retry() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let first = desk.delivery(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await;
    for (view, count) in VIEWS.into_iter().zip(2..) {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url(&format!("/dashboard/deliveries/{first}"))).await;
        let retried = tab.go_by(tab.clicks(RETRY, 2)).await;
        assert_eq!(retried.status, 200);
        assert!(retried.url.ends_with("?done=retried"), "{}", retried.url);
        says(&tab, "Queued again").await;
        assert_eq!(deliveries_to(&desk, &world).await.len(), count, "{view:?}");
    }
}

#[tokio::test]
async fn going_back_and_reloading_after_a_retry_repeat_nothing() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let first = desk.delivery(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await;
    let tab = desk.visitor(View::WIDE).await;
    tab.go(&desk.url(&format!("/dashboard/deliveries/{first}"))).await;
    tab.go_by(tab.click(RETRY)).await;
    let again = tab.go_by(async { drop(tab.call("Page.reload", serde_json::json!({})).await) }).await;
    assert_eq!(again.status, 200);
    tab.go_back().await;
    assert_eq!(tab.eval(&format!("location.pathname.endsWith({first:?}) && location.search === ''")).await, true);
    tab.when("document.querySelector('form[data-sent]') === null").await;
    assert_eq!(deliveries_to(&desk, &world).await.len(), 2);
    assert_eq!(tab.console(), [""; 0]);
}

#[tokio::test]
async fn skipping_the_head_of_an_order_lets_it_go_on() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let head = desk.delivery(&format!("endpointId={}&status=failed", world.stopped.id)).await;
    let tab = desk.visitor(View::WIDE.without_script()).await;
    tab.go(&desk.url(&format!("/dashboard/deliveries/{head}"))).await;
    tab.go_by(tab.clicks(SKIP, 2)).await;
    says(&tab, "Skipped").await;
    assert_eq!(tab.eval(&format!("document.querySelector({SKIP:?})")).await, Value::Null);
    assert_eq!(desk.app.delivery(&head).await["isBlocking"], false);
}

#[tokio::test]
async fn texts_of_strangers_stay_texts_and_are_whole() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let id = desk.delivery(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await;
    for view in VIEWS {
        let tab = desk.visitor(view).await;
        tab.go(&desk.url(&format!("/dashboard/deliveries/{id}"))).await;
        let page = tab.text("document.body.textContent").await;
        assert!(page.contains(&world.long_url), "the URL is whole");
        assert!(page.contains(HOSTILE), "the name of the endpoint is whole");
        assert!(page.contains("9007199254740993"), "a number keeps its digits");
        assert!(page.contains("&quot;") || !page.contains("&lt;"), "nothing is escaped twice");
        assert!(!page.contains('\u{202e}') && !page.contains('\u{1b}'), "nothing turns the page");
        assert!(!tab.text("document.title").await.contains("broken"));
        assert_eq!(tab.eval("document.querySelectorAll('script').length").await, 1);
        assert_eq!(tab.eval("document.querySelectorAll('[onx]').length").await, 0);
        assert_eq!(tab.eval("document.querySelectorAll('a[href*=\"aaaa\"]').length").await, 0, "no link to a receiver");
        assert_eq!(tab.console(), [""; 0]);
    }
}

#[tokio::test]
async fn a_page_on_screen_shows_the_next_attempt() {
    let Some(desk) = Desk::open().await else { return };
    let world = desk.fill().await;
    let id = desk.delivery(&format!("endpointId={}&eventId={}", world.failing.id, world.event)).await;
    let tab = desk.visitor(View::WIDE).await;
    tab.go(&desk.url(&format!("/dashboard/deliveries/{id}"))).await;
    assert_eq!(tab.eval("document.querySelector('#attempt-2')").await, Value::Null);
    tab.eval("document.querySelector('#attempt-1 summary').focus()").await;
    let probe = || async {
        desk.app.clock().advance(std::time::Duration::from_secs(30));
        (desk.app.delivery(&id).await["attemptCount"] == 2).then_some(())
    };
    eventually("a second attempt", probe).await;
    tab.when("document.querySelector('#attempt-2') !== null").await;
    assert_eq!(tab.text("document.activeElement.closest('details').id").await, "attempt-1", "the focus stays");
    let open = "[...document.querySelectorAll('details.attempt')].map(attempt => attempt.open)";
    assert_eq!(tab.eval(open).await, serde_json::json!([true, true]), "the new one opens, the old one stays open");
    assert_eq!(tab.console(), [""; 0]);
}
