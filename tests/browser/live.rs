//! Pages over HTTP/2, which a stream tells when they have changed.

use serde_json::json;

use crate::support::desk::{Desk, PROJECT};
use crate::support::front::{Front, Place};
use crate::support::server::app::text;
use crate::support::server::receiver::Receiver;
use crate::support::server::wait::eventually;
use crate::support::tab::{Tab, View};

/// A server behind a proxy that speaks HTTP/2.
struct Fronted {
    desk: Desk,
    front: Front,
    origin: String,
}

impl Fronted {
    async fn open() -> Option<Self> {
        let place = Place::take().await;
        let origin = place.origin();
        let url = origin.clone();
        let desk = Desk::open_with(|settings| settings.public_url = Some(url)).await?;
        let front = place.serve(desk.app.server().address());
        Some(Self { desk, front, origin })
    }

    async fn sign_in(&self) -> Tab {
        let tab = self.desk.browser.tab(View::WIDE).await;
        tab.go(&format!("{}/dashboard/login", self.origin)).await;
        self.desk.sign_in(&tab, &self.desk.key).await;
        let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
        assert_eq!(tab.text(protocol).await, "h2");
        tab
    }

    /// Waits until a stream is open and the page has looked for changes since.
    async fn is_followed(&self, tab: &Tab) {
        tab.when("stream?.readyState === EventSource.OPEN && !hasChanged && lastTag !== null").await;
        assert!(self.front.streams().1 > 0);
    }

    async fn publish(&self) -> String {
        self.desk.app.publish("post.created", json!({})).await
    }
}

#[tokio::test]
async fn a_page_over_http2_is_told_of_changes_and_asks_no_more() {
    let Some(fronted) = Fronted::open().await else { return };
    fronted.publish().await;
    let tab = fronted.sign_in().await;
    tab.go(&format!("{}/dashboard/events", fronted.origin)).await;
    fronted.is_followed(&tab).await;
    // The polls of the page would come without a stream: the page asks once for each change that it is told.
    let asked = fronted.front.asked();
    for count in 1..=3 {
        fronted.publish().await;
        tab.when(&format!("document.querySelector('[data-new-of] [data-count]').textContent === '{count}'")).await;
    }
    assert!(tab.eval("performance.now() - lastAsked < EVERY_WITH_STREAM").await == true);
    let asked = fronted.front.asked() - asked;
    assert!((3..=5).contains(&asked), "{asked} requests for three changes");
    assert_eq!(tab.console(), [""; 0]);
}

#[tokio::test]
async fn a_told_change_waits_while_the_reader_types() {
    let Some(fronted) = Fronted::open().await else { return };
    let tab = fronted.sign_in().await;
    tab.go(&format!("{}/dashboard", fronted.origin)).await;
    fronted.is_followed(&tab).await;
    tab.fill("#search", "evt_").await;
    let asked = fronted.front.asked();
    let event = fronted.publish().await;
    tab.when("hasChanged").await;
    assert_eq!(fronted.front.asked(), asked, "nothing is asked for while the reader types");
    assert!(!tab.text("document.querySelector('main').innerText").await.contains("Done"), "{event}");
    assert_eq!(tab.text("document.querySelector('#search').value").await, "evt_");
    tab.eval("document.activeElement.blur()").await;
    tab.when("document.querySelector('#steps').innerText.includes('Done')").await;
    assert_eq!(tab.text("document.querySelector('#search').value").await, "evt_");
}

#[tokio::test]
async fn a_hidden_page_has_no_stream_and_a_shown_one_has_again() {
    let Some(fronted) = Fronted::open().await else { return };
    let tab = fronted.sign_in().await;
    fronted.is_followed(&tab).await;
    tab.hide().await;
    tab.when("document.hidden").await;
    eventually("the end of the stream", || async { (fronted.front.streams().1 == 0).then_some(()) }).await;
    let opened = fronted.front.streams().0;
    tab.show_window().await;
    tab.when("!document.hidden").await;
    eventually("another stream", || async { (fronted.front.streams() == (opened + 1, 1)).then_some(()) }).await;
}

#[tokio::test]
async fn the_end_of_the_session_is_told_by_the_stream() {
    let Some(fronted) = Fronted::open().await else { return };
    let tab = fronted.sign_in().await;
    fronted.is_followed(&tab).await;
    let keys = fronted.desk.caller.get("/v1/api-keys").await.data(200);
    let key = text(&keys[0], "id").parse().expect("an id");
    fronted.desk.app.server().operator().revoke_api_key(key).await.expect("a key to revoke");
    tab.when("document.querySelector('.stale')?.innerText.includes('You are signed out')").await;
    assert_eq!(tab.eval("document.querySelectorAll('.stale').length").await, 1, "it is said once");
    eventually("the end of the stream", || async { (fronted.front.streams().1 == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_page_without_a_stream_asks_by_itself() {
    let Some(fronted) = Fronted::open().await else { return };
    fronted.publish().await;
    fronted.front.refuse_streams();
    let tab = fronted.sign_in().await;
    tab.go(&format!("{}/dashboard/events", fronted.origin)).await;
    tab.when("wasRefused").await;
    let opened = fronted.front.streams().0;
    for count in 1..=2 {
        fronted.publish().await;
        tab.when(&format!("document.querySelector('[data-new-of] [data-count]').textContent === '{count}'")).await;
    }
    assert_eq!(fronted.front.streams().0, opened, "a stream that was refused is not asked for again");
}

#[tokio::test]
async fn a_portal_is_told_of_changes_and_of_its_end() {
    let Some(fronted) = Fronted::open().await else { return };
    let desk = &fronted.desk;
    let receiver = Receiver::start().await;
    let body = json!({"name": "Till", "url": receiver.url("/"), "events": ["post.created"], "projectId": PROJECT});
    let endpoint = desk.app.endpoint(body).await;
    let session = desk.caller.post("/v1/portal-sessions", json!({"projectId": PROJECT})).await.data(200);
    let tab = desk.browser.tab(View::WIDE).await;
    tab.go(&text(&session, "url")).await;
    fronted.is_followed(&tab).await;
    let path = format!("/v1/webhook-endpoints/{}", endpoint.id);
    desk.app.caller().patch(&path, json!({"isActive": false})).await.data(200);
    tab.when("document.querySelector('tbody').innerText.includes('off')").await;
    assert_eq!(tab.console(), [""; 0]);
    desk.caller.delete(&format!("/v1/portal-sessions/{}", text(&session, "id"))).await;
    tab.when("document.querySelector('.stale') !== null").await;
}
