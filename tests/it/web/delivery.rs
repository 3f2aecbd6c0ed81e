//! The page of a delivery: what it says in each state, who may do what, and texts of others.

use std::time::Duration;

use postrider_domain::access::Scope;
use serde_json::{Value, json};

use crate::support::app::{App, text};
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{EVERYTHING, READS, Visitor};

/// A text that would become markup, turn the direction of a line, or end an attribute.
const HOSTILE: &str = "<script>x</script>\"onx='</textarea>\u{202e}\u{1b}]52;";

async fn with_receiver(answer: Answer) -> (App, Receiver) {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(answer);
    (app, receiver)
}

fn page_of(delivery: &Value) -> String {
    format!("/dashboard/deliveries/{}", text(delivery, "id"))
}

fn assert_is_harmless(page: &str) {
    for forbidden in ["<script>", "\"onx=", "</textarea>", "\u{202e}", "\u{1b}", " style=", "javascript:"] {
        assert!(!page.contains(forbidden), "the page holds {forbidden:?}: {page}");
    }
}

#[tokio::test]
async fn the_page_answers_where_the_event_is() {
    let (app, receiver) = with_receiver(Answer::status(200)).await;
    let endpoint = app
        .endpoint(json!({
            "name": "CRM", "url": receiver.url("/hook"), "events": ["post.created"], "retrySchedule": [5],
        }))
        .await;
    let visitor = Visitor::of(&app, EVERYTHING).await;

    let event = app.publish("post.created", json!({})).await;
    let delivered = app.delivery_ended(&event, "delivered").await;
    let page = visitor.page(&page_of(&delivered)).await;
    assert!(page.contains("<strong>Delivered</strong> by attempt 1"), "{page}");
    assert!(page.contains("The receiver answered 200 OK."), "{page}");

    receiver.otherwise(Answer::status(503));
    let event = app.publish("post.created", json!({})).await;
    let waiting = app.attempted(&event, 1).await;
    let page = visitor.page(&page_of(&waiting)).await;
    assert!(page.contains("<strong>Waiting</strong>. The last attempt failed."), "{page}");
    assert!(page.contains("by wait 1 of 1 of the retry schedule"), "{page}");
    assert!(page.contains("If every attempt fails, it is given up about"), "{page}");
    assert!(page.contains("The receiver answered 503 Service Unavailable."), "{page}");
    assert!(page.contains("The receiver’s side"), "{page}");

    app.clock().advance(Duration::from_secs(60));
    let failed = app.delivery_ended(&event, "failed").await;
    let page = visitor.page(&page_of(&failed)).await;
    assert!(page.contains("<strong>Failed</strong> after 2 attempts"), "{page}");

    app.post(&format!("/v1/webhook-endpoints/{}/test", endpoint.id), json!({})).await;
    let off = json!({"isActive": false});
    app.caller().patch(&format!("/v1/webhook-endpoints/{}", endpoint.id), off).await.data(200);
    let event = app.publish("post.created", json!({})).await;
    let skipped = &app.deliveries(&format!("eventId={event}")).await[0];
    let page = visitor.page(&page_of(skipped)).await;
    assert!(page.contains("<strong>Not sent</strong>"), "{page}");
}

#[tokio::test]
async fn texts_of_others_are_shown_and_never_run() {
    let hostile = Answer::status(500).header("x-hostile", "\"><script>x</script>").body(HOSTILE);
    let (app, receiver) = with_receiver(hostile).await;
    app.endpoint(
        json!({"name": "<script>x</script>\"onx='", "url": receiver.url("/?q=%22onx%3D"), "events": ["post.created"]}),
    )
    .await;
    let body =
        format!("{{\"type\":\"post.created\",\"data\":{{\"b\":9007199254740993,\"a\":1.0,\"t\":{}}}}}", json!(HOSTILE));
    let event = text(&app.caller().post_text("/v1/events", &body).await.data(202), "id");
    let delivery = app.attempted(&event, 1).await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let page = visitor.page(&page_of(&delivery)).await;
    assert_is_harmless(&page);
    assert!(page.contains("&lt;script&gt;x&lt;/script&gt;"), "{page}");
    assert!(page.contains(r"\u{202e}"), "what steers the display is shown as an escape");
    assert!(
        page.contains("&quot;b&quot;: 9007199254740993,\n    &quot;a&quot;: 1.0,"),
        "numbers and order stay: {page}"
    );
    let command = page.split("curl --globoff").nth(1).expect("a command");
    assert!(command.contains("--data-raw $&#39;") || command.contains("--data-raw $'"), "{command}");
}

#[tokio::test]
async fn bytes_of_others_are_a_file_and_never_a_page() {
    let (app, receiver) = with_receiver(Answer::status(500).header("content-type", "text/html").body(HOSTILE)).await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({"html": "<script>x</script>"})).await;
    let delivery = app.attempted(&event, 1).await;
    let visitor = Visitor::of(&app, READS).await;
    let page = page_of(&delivery);
    for (path, expected) in [
        (format!("{page}/body"), receiver.received()[0].body.clone()),
        (format!("{page}/attempts/1/body"), HOSTILE.as_bytes().to_vec()),
    ] {
        let reply = visitor.get(&path).await;
        assert_eq!((reply.status, reply.body.to_vec()), (200, expected), "{path}");
        assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert!(reply.header("content-disposition").is_some_and(|it| it.starts_with("attachment; filename=\"")));
        assert!(reply.header("content-security-policy").is_some_and(|it| it.contains("sandbox")));
    }
    assert_eq!(visitor.get(&format!("{page}/attempts/9/body")).await.status, 404);
}

/// Bodies of answers that are no text, or text that breaks what shows it.
#[tokio::test]
async fn odd_bytes_of_an_answer_break_no_page() {
    let deep = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
    let zipped =
        [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0x86, 0xa6, 0x10, 0x36, 5, 0, 0, 0];
    let bodies: [(&[u8], &[u8], Option<&str>); 6] = [
        (b"\xff\xfe\x00\xc3(", b"\xff\xfe\x00\xc3(", None),
        ("a\u{0}b \u{1f600} \u{202e}".as_bytes(), "a\u{0}b \u{1f600} \u{202e}".as_bytes(), None),
        (&b"x".repeat(4_096), &b"x".repeat(4_096), None),
        (deep.as_bytes(), deep.as_bytes(), None),
        (b"javascript:alert(1) data:text/html,<p>", b"javascript:alert(1) data:text/html,<p>", None),
        (&zipped, b"hello", Some("gzip")),
    ];
    for (sent, kept, encoding) in bodies {
        let answer = Answer::status(500).body(sent);
        let answer = encoding.map_or(answer.clone(), |name| answer.header("content-encoding", name));
        let (app, receiver) = with_receiver(answer).await;
        app.endpoint_to(&receiver, &["post.created"]).await;
        let event = app.publish("post.created", json!({})).await;
        let delivery = app.attempted(&event, 1).await;
        let visitor = Visitor::of(&app, READS).await;
        let page = visitor.page(&page_of(&delivery)).await;
        assert!(page.ends_with("</html>") && !page.contains(['\u{0}', '\u{202e}']), "{page}");
        for start in ["href=\"javascript:", "href=\"data:text", "src=\"data:text"] {
            assert!(!page.contains(start), "{page}");
        }
        let whole = visitor.get(&format!("{}/attempts/1/body", page_of(&delivery))).await;
        assert_eq!(whole.body.to_vec(), kept, "the file has the bytes");
    }
}

#[tokio::test]
async fn a_retry_that_is_sent_twice_is_one_retry() {
    let (app, receiver) = with_receiver(Answer::status(200)).await;
    app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({})).await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let (path, page) = (format!("{}/retry", page_of(&delivery)), visitor.page(&page_of(&delivery)).await);
    let first = visitor.submit(&page, &path, &[]).await;
    let second = visitor.submit(&page, &path, &[]).await;
    assert_eq!((first.status, second.status), (303, 303), "{}", second.text());
    assert_eq!(first.header("location"), second.header("location"));
    let retried = app.deliveries_when(&format!("eventId={event}"), "are two", |found| found.len() == 2).await;
    assert_eq!(retried[0]["retryOf"], delivery["id"]);
    assert_eq!(first.header("location"), Some(&*format!("{}?done=retried", page_of(&retried[0]))));

    // The page as it is now has another form: that is a second retry.
    let page = visitor.page(&page_of(&delivery)).await;
    assert_eq!(visitor.submit(&page, &path, &[]).await.status, 303);
    assert_eq!(app.deliveries(&format!("eventId={event}")).await.len(), 3);
    assert_eq!(visitor.post(&path, &[]).await.status, 400, "a form without a token is not ours");
}

#[tokio::test]
async fn a_button_is_there_only_for_those_who_may_press_it() {
    let (app, receiver) = with_receiver(Answer::status(404)).await;
    app.endpoint(json!({
        "name": "Ledger", "url": receiver.url("/"), "events": ["post.created"], "ordering": "strict", "retrySchedule": [1],
    })).await;
    let event = app.publish("post.created", json!({"secret": "payload-text"})).await;
    app.attempted(&event, 1).await;
    app.clock().advance(Duration::from_secs(60));
    let delivery = app.delivery_ended(&event, "failed").await;
    let path = page_of(&delivery);
    for (scopes, buttons, payload) in
        [(EVERYTHING, true, true), (READS, false, true), (&[Scope::Dashboard, Scope::WebhooksRead][..], false, false)]
    {
        let visitor = Visitor::of(&app, scopes).await;
        let page = visitor.page(&path).await;
        for verb in ["retry", "skip"] {
            assert_eq!(page.contains(&format!("action=\"{path}/{verb}\"")), buttons, "{verb} {scopes:?}");
        }
        assert_eq!(page.contains("payload-text"), payload, "{scopes:?}");
        assert_eq!(visitor.get(&format!("{path}/body")).await.status, if payload { 200 } else { 403 });
        if !buttons {
            for verb in ["retry", "skip"] {
                assert_eq!(visitor.post(&format!("{path}/{verb}"), &[("once", "x")]).await.status, 403, "{verb}");
            }
        }
    }
    assert_eq!(app.deliveries(&format!("eventId={event}")).await.len(), 1, "no page changed anything");
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let page = visitor.page(&path).await;
    assert!(page.contains("The strict order of its endpoint has stopped here"), "{page}");
    assert_eq!(visitor.submit(&page, &format!("{path}/skip"), &[]).await.status, 303);
    assert_eq!(app.delivery(&text(&delivery, "id")).await["isBlocking"], false);
}

#[tokio::test]
async fn what_is_not_there_or_not_ones_own_is_not_found() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    for path in ["/dashboard/deliveries/x", "/dashboard/deliveries/dlv_00000000000000000000"] {
        let reply = visitor.get(path).await;
        assert_eq!(reply.status, 404);
        assert!(!reply.text().contains("dlv_0000"), "the id is not repeated");
    }
}
