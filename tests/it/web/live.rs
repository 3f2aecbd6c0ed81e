//! The streams of pages: what they say, whom they answer, how many there may be, and when they end.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::{Mode, Scope};
use postrider_domain::limits;
use serde_json::json;

use crate::support::app::App;
use crate::support::caller::Opened;
use crate::support::postgres::TestDatabase;
use crate::support::visitor::{EVERYTHING, READS, Visitor};
use crate::support::wait::{bounded, eventually};

const HELLO: &str = "retry: 5000\n:\n\n";
const CHANGED: &str = "event: changed\n";
const ENDED: &str = "event: ended\n";

async fn follow(visitor: &Visitor, page: &str) -> Opened {
    let mut stream = visitor.stream(&format!("/dashboard/live?page={page}")).await;
    stream.until(HELLO).await;
    stream
}

#[tokio::test]
async fn a_stream_says_when_its_page_has_changed() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let mut keys = follow(&visitor, "/dashboard/keys").await;
    let mut events = follow(&visitor, "/dashboard/events%3Ftype%3Dpost.created").await;
    for (name, value) in
        [("content-type", "text/event-stream"), ("x-accel-buffering", "no"), ("cache-control", "no-store")]
    {
        assert_eq!(events.head.headers[name], value);
    }
    for _ in 0..2 {
        app.publish("post.created", json!({})).await;
        events.until(CHANGED).await;
    }
    app.create_key("Acme", Mode::Live, READS, None).await;
    assert_eq!(keys.chunk().await.as_deref(), Some("event: changed\ndata: 1\n\n"), "nothing was said before");
}

#[tokio::test]
async fn a_stream_ends_with_its_session() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let mut stream = follow(&visitor, "/dashboard").await;
    visitor.send("/dashboard/logout", &[]).await;
    stream.until(ENDED).await;
    assert_eq!(stream.chunk().await, None);
    assert_eq!(visitor.get("/dashboard/live?page=/dashboard").await.status, 303);

    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let path = format!("{base}/live?page={base}/endpoints");
    let mut stream = customer.stream(&path).await;
    stream.until(HELLO).await;
    let session = base.split('/').next_back().unwrap();
    let caller = app.caller_of("Acme", &[Scope::PortalCreate]).await;
    caller.delete(&format!("/v1/portal-sessions/{session}")).await;
    stream.until(ENDED).await;
    assert_eq!(stream.chunk().await, None);
    assert_eq!(customer.get(&path).await.status, 401);
}

#[tokio::test]
async fn a_key_revoked_on_another_node_ends_the_stream() {
    let Some(database) = TestDatabase::new().await.map(Arc::new) else { return };
    let here = App::set_up().await.on(&database).start().await;
    let there = App::set_up().await.on(&database).start().await;
    let key = here.create_key("Acme", Mode::Live, READS, None).await;
    let mut stream = follow(&Visitor::with_key(&here, key.secret.reveal()).await, "/dashboard/deliveries").await;
    there.server().operator().revoke_api_key(key.key.id).await.unwrap();
    stream.until(ENDED).await;
    assert_eq!(stream.chunk().await, None);
}

#[tokio::test]
async fn only_the_pages_of_the_own_session_are_followed() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, READS).await;
    let (_, foreign) = Visitor::on_portal(&app, json!({"projectId": "p"})).await;
    let (customer, base) = Visitor::on_portal(&app, json!({"projectId": "q"})).await;
    for page in
        ["", "/v1/stats", "//elsewhere.test/dashboard", "https://elsewhere.test/dashboard", "/dashboards", &foreign]
    {
        for (visitor, base) in [(&visitor, "/dashboard"), (&customer, base.as_str())] {
            let refused = visitor.get(&format!("{base}/live?page={page}")).await;
            assert_eq!(refused.status, 400, "{base} {page}: {}", refused.text());
        }
    }
    let refused = customer.get(&format!("{base}/live?page=/dashboard")).await;
    assert_eq!(refused.status, 400, "{}", refused.text());
}

#[tokio::test]
async fn a_session_has_a_bounded_number_of_streams() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, READS).await;
    let mut streams = Vec::new();
    for _ in 0..limits::LIVE_STREAMS_PER_SESSION {
        streams.push(follow(&visitor, "/dashboard/event-types").await);
    }
    let path = "/dashboard/live?page=/dashboard/event-types";
    let refused = visitor.get(path).await;
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert!(refused.text().contains("8 streams"), "{}", refused.text());
    drop(follow(&Visitor::of(&app, READS).await, "/dashboard/event-types").await);
    drop(streams.pop());
    let free = async || {
        let opened = visitor.try_stream(path).await;
        (opened.head.status == 200).then_some(())
    };
    eventually("a place of a stream that was closed", free).await;
}

#[tokio::test]
async fn a_stop_of_the_server_ends_streams_at_once() {
    // Without an end of its own, the stream would keep the server until then.
    let mut app = App::set_up().await.change(|settings| settings.stop_grace = Duration::from_secs(3600)).start().await;
    let mut stream = follow(&Visitor::of(&app, READS).await, "/dashboard").await;
    app.stop().await;
    let rest = async { while stream.chunk().await.is_some_and(|line| !line.contains(ENDED)) {} };
    bounded("the end of the stream", rest).await;
    assert_eq!(stream.chunk().await, None, "the session goes on, so the page only asks elsewhere");
}

#[tokio::test]
async fn a_stream_works_below_a_prefix_that_a_proxy_strips_or_not() {
    let app = App::set_up().await.change(|settings| settings.public_url = Some("https://example.com/hooks".to_owned()));
    let app = app.start().await;
    let visitor = Visitor::of(&app, READS).await;
    for start in ["/hooks/dashboard", "/dashboard"] {
        let mut stream = visitor.stream(&format!("{start}/live?page=/hooks/dashboard/events")).await;
        stream.until(HELLO).await;
        app.publish("post.created", json!({})).await;
        stream.until(CHANGED).await;
    }
    let page = visitor.page("/dashboard/events").await;
    assert!(page.contains("data-stream=\"/hooks/dashboard/live\""), "{page}");
}
