//! The lists of deliveries and events, the page of an event, and the id box.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::app::{App, text};
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{EVERYTHING, READS, Visitor};

/// Two endpoints: one takes everything, the other refuses. One event of each type has been sent to its end.
struct Sent {
    app: App,
    taken: Value,
    refused: Value,
    _receivers: [Receiver; 2],
}

impl Sent {
    async fn start() -> Self {
        let app = App::to_loopback().await;
        let receivers = [Receiver::start().await, Receiver::start().await];
        receivers[1].otherwise(Answer::status(503));
        app.endpoint(json!({"name": "Takes <all>", "url": receivers[0].url("/"), "events": ["post.created"]})).await;
        let refusing =
            json!({"name": "Refuses", "url": receivers[1].url("/"), "events": ["note.created"], "retrySchedule": [1]});
        app.endpoint(refusing).await;
        let event = app.post("/v1/events", json!({"type": "post.created", "data": {}, "externalId": "order-7"})).await;
        let taken = app.delivery_ended(&text(&event.data(202), "id"), "delivered").await;
        let event = app.publish("note.created", json!({})).await;
        app.attempted(&event, 1).await;
        app.clock().advance(Duration::from_secs(60));
        let refused = app.delivery_ended(&event, "failed").await;
        Self { app, taken, refused, _receivers: receivers }
    }
}

#[tokio::test]
async fn the_filter_is_the_url() {
    let sent = Sent::start().await;
    let visitor = Visitor::of(&sent.app, READS).await;
    let (taken, refused) = (text(&sent.taken, "id"), text(&sent.refused, "id"));
    for (query, shows) in [
        ("", [true, true]),
        ("?status=failed", [false, true]),
        ("?status=failed&status=delivered", [true, true]),
        ("?status=failed,delivered", [true, true]),
        ("?responseStatus=5xx", [false, true]),
        ("?responseStatus=200", [true, false]),
        ("?outcome=http_error", [false, true]),
        ("?eventType=post.created&period=24h", [true, false]),
        ("?status=&eventType=&period=&since=&until=", [true, true]),
        ("?until=2026-05-15T12:00", [false, false]),
        ("?since=2026-05-15T12:00:00", [true, true]),
    ] {
        let page = visitor.page(&format!("/dashboard/deliveries{query}")).await;
        assert_eq!([page.contains(&taken), page.contains(&refused)], shows, "{query}: {page}");
    }
    let page = visitor.page("/dashboard/deliveries?status=failed&period=7d").await;
    for chosen in [r#"<option value="failed" selected>"#, r#"<option value="7d" selected>"#] {
        assert!(page.contains(chosen), "the form shows the filter: {chosen} in {page}");
    }
    assert!(page.contains("GET /v1/webhook-deliveries?status=failed&amp;since=20"), "{page}");
}

#[tokio::test]
async fn pages_keep_the_filter_and_lose_nothing() {
    let sent = Sent::start().await;
    for _ in 0..3 {
        sent.app.publish("post.created", json!({})).await;
    }
    let visitor = Visitor::of(&sent.app, READS).await;
    let mut path = "/dashboard/deliveries?eventType=post.created&period=24h&limit=2".to_owned();
    let mut rows = Vec::new();
    for _ in 0..3 {
        let page = visitor.page(&path).await;
        rows.extend(page.split("<tr id=\"").skip(1).map(|row| row[..24].to_owned()));
        let Some(next) = page.split("<a href=\"").skip(1).find(|link| link.contains("rel=\"next\"")) else { break };
        path = next.split('"').next().unwrap_or_default().replace("&amp;", "&");
        assert!(path.contains("period=24h") && path.contains("eventType=post.created"), "{path}");
    }
    let listed: Vec<String> =
        sent.app.deliveries("eventType=post.created").await.iter().map(|it| text(it, "id")).collect();
    assert_eq!((rows.len(), &rows), (4, &listed));
}

#[tokio::test]
async fn each_empty_list_says_why_it_is_empty() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, READS).await;
    for (path, words) in [
        ("/dashboard/deliveries", "No deliveries yet"),
        ("/dashboard/events", "No events yet"),
        ("/dashboard/deliveries?eventType=post.created", "Nothing matches"),
        ("/dashboard/events?deliveries=none", "Nothing matches"),
        ("/dashboard/deliveries?until=2026-01-01T00:00", "No longer kept"),
        ("/dashboard/events?until=2026-01-01T00:00", "No longer kept"),
    ] {
        let page = visitor.page(path).await;
        assert!(page.contains(words), "{path}: {page}");
    }
}

#[tokio::test]
async fn a_filter_with_a_fault_comes_back_with_what_was_typed() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, READS).await;
    for (query, fault) in [
        ("responseStatus=%3Cscript%3E", "must be a status from 100 to 999"),
        ("status=broken", "must be one of pending"),
        ("eventType=no.such", "eventType"),
        ("since=yesterday", "since"),
        ("period=2w", "must be 1h, 24h, 7d or 30d"),
        ("cursor=x", "cursor"),
    ] {
        let reply = visitor.get(&format!("/dashboard/deliveries?{query}")).await;
        assert_eq!(reply.status, 400, "{query}");
        assert!(reply.text().contains(fault) && !reply.text().contains("<script>"), "{query}: {}", reply.text());
    }
    let page = visitor.get("/dashboard/deliveries?responseStatus=%3Cscript%3E").await;
    assert!(page.text().contains("value=\"&lt;script&gt;\""), "{}", page.text());
}

#[tokio::test]
async fn ticked_deliveries_are_retried_once_each() {
    let sent = Sent::start().await;
    let visitor = Visitor::of(&sent.app, EVERYTHING).await;
    let page = visitor.page("/dashboard/deliveries").await;
    let (taken, refused) = (text(&sent.taken, "id"), text(&sent.refused, "id"));
    let ticked = [("id", taken.as_str()), ("id", refused.as_str())];
    for _ in 0..2 {
        let reply = visitor.submit(&page, "/dashboard/deliveries/retry", &ticked).await;
        assert_eq!(reply.status, 303, "{}", reply.text());
    }
    let retried = sent.app.deliveries("cause=retry").await;
    assert_eq!(retried.len(), 2, "{retried:?}");
    assert_eq!(visitor.submit(&page, "/dashboard/deliveries/retry", &[]).await.status, 409, "nothing is ticked");
    let reader = Visitor::of(&sent.app, READS).await;
    assert!(!reader.page("/dashboard/deliveries").await.contains("type=\"checkbox\""));
    assert_eq!(reader.post("/dashboard/deliveries/retry", &ticked).await.status, 403);
}

#[tokio::test]
async fn the_page_of_an_event_shows_where_it_went_and_where_not() {
    let sent = Sent::start().await;
    let visitor = Visitor::of(&sent.app, EVERYTHING).await;
    let page = visitor.page(&format!("/dashboard/events/{}", text(&sent.taken, "eventId"))).await;
    assert!(page.contains("<strong>1 delivered</strong>") && page.contains("Takes &lt;all&gt;"), "{page}");
    let refuses = page.split(">Refuses</a>").nth(1).expect("the other endpoint");
    assert!(refuses.starts_with(": it does not subscribe to this type"), "{page}");
    assert!(page.contains("order-7") && page.contains("Bearer $KEY"), "{page}");

    let path = format!("/dashboard/events/{}", text(&sent.refused, "eventId"));
    let page = visitor.page(&path).await;
    assert!(page.contains("<strong>1 failed</strong>"), "{page}");
    for _ in 0..2 {
        assert_eq!(visitor.submit(&page, &format!("{path}/retry"), &[]).await.status, 303);
    }
    assert_eq!(sent.app.deliveries(&format!("eventId={}", text(&sent.refused, "eventId"))).await.len(), 2);

    let none = sent.app.publish("job.failed", json!({})).await;
    let page = visitor.page(&format!("/dashboard/events/{none}")).await;
    assert!(page.contains("<strong>Matched nothing</strong>"), "{page}");
    let listed = visitor.page("/dashboard/events?deliveries=none").await;
    assert!(listed.contains(&none) && !listed.contains(&text(&sent.taken, "eventId")), "{listed}");
}

#[tokio::test]
async fn the_id_box_leads_to_the_page_of_what_it_is_given() {
    let sent = Sent::start().await;
    let visitor = Visitor::of(&sent.app, READS).await;
    let event = text(&sent.taken, "eventId");
    for (asked, kind, id) in [
        (text(&sent.taken, "id"), "deliveries", text(&sent.taken, "id")),
        (format!("%20{event}%20"), "events", event.clone()),
        ("order-7".to_owned(), "events", event.clone()),
        (text(&sent.taken, "endpointId"), "endpoints", text(&sent.taken, "endpointId")),
    ] {
        let reply = visitor.get(&format!("/dashboard/search?q={asked}")).await;
        assert_eq!(
            (reply.status, reply.header("location")),
            (303, Some(&*format!("/dashboard/{kind}/{id}"))),
            "{asked}"
        );
    }
    for nothing in ["%3Cscript%3E", "evt_00000000000000000000", "order-8"] {
        let page = visitor.page(&format!("/dashboard/search?q={nothing}")).await;
        assert!(page.contains("Nothing has this id") && !page.contains("<script>"), "{nothing}: {page}");
    }
    let many = visitor.page("/dashboard/search?q=127.0.0.1").await;
    assert!(many.contains("2 things have it"), "two endpoints have this host: {many}");
}

#[tokio::test]
async fn rows_of_deliveries_show_external_id_and_attempts() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.decide(|_| Answer::status(503).into());
    let body = |name: &str, event: &str| json!({"name": name, "url": receiver.url("/"), "events": [event]});
    let mut own = body("Own", "note.created");
    own["retrySchedule"] = json!([3600, 3600]);
    app.endpoint(own).await;
    app.endpoint(body("Usual", "post.created")).await;
    let external_id = |event: &str| format!("order-{}", event.replace('.', "-"));
    let publish = async |event: &str| {
        let body = json!({"type": event, "data": {}, "externalId": external_id(event)});
        let id = text(&app.post("/v1/events", body).await.data(202), "id");
        app.attempted(&id, 1).await
    };
    let (note, post) = (publish("note.created").await, publish("post.created").await);
    let visitor = Visitor::of(&app, READS).await;
    for path in ["/dashboard/deliveries", "/dashboard/endpoints/"] {
        for (delivery, attempts) in [(&note, "1 of 3"), (&post, "1 of 10")] {
            let of_endpoint = format!("{path}{}", text(delivery, "endpointId"));
            let page = visitor.page(if path.ends_with('/') { &of_endpoint } else { path }).await;
            let row = page.split(&format!("<tr id=\"{}\"", text(delivery, "id"))).nth(1).unwrap();
            let row = row.split("</tr>").next().unwrap();
            assert!(row.contains(&format!(">{attempts}</td>")), "{row}");
            assert!(row.contains(&format!("{}</code>", external_id(&text(delivery, "eventType")))), "{row}");
        }
    }
    let test = app.post(&format!("/v1/webhook-endpoints/{}/test", text(&note, "endpointId")), json!({})).await;
    let page =
        visitor.page(&format!("/dashboard/deliveries?cause=test&endpointId={}", text(&note, "endpointId"))).await;
    assert!(page.contains(" of 1</td>"), "a test is tried once: {} {page}", test.text());
}
