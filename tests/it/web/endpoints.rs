//! The pages of endpoints: forms, faults, conflicts, tests, replays.

use postrider_domain::access::Scope;
use serde_json::json;

use crate::support::app::{App, PUBLIC_HOST, text};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::visitor::{EVERYTHING, Visitor, hidden};
use crate::support::wait::eventually;

const HOSTILE: &str = "<script>alert(1)</script>\"onx='";
const MANAGE: &[Scope] = &[Scope::Dashboard, Scope::WebhooksManage, Scope::EventsRead, Scope::AuditRead];

fn url() -> String {
    format!("https://{PUBLIC_HOST}/hook")
}

#[tokio::test]
async fn a_form_makes_an_endpoint_once_and_shows_its_secret() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, MANAGE).await;
    assert!(visitor.page("/dashboard/endpoints").await.contains("No endpoint yet"));
    let form = visitor.page("/dashboard/endpoints/new").await;
    let url = url();
    let fields = [
        ("once", hidden(&form, "once")),
        ("name", "Orders"),
        ("url", &url),
        ("events", "post.created"),
        ("events", "note.created"),
        ("newHeaderName", "X-Token"),
        ("newHeaderValue", "hush-hush"),
        ("retrySchedule", "5s, 10m"),
        ("timeoutSeconds", "9"),
        ("rateLimit", "7"),
        ("signatureV1a", "on"),
    ];
    // A double click sends both before the first is answered.
    let (first, second) = tokio::join!(
        visitor.post("/dashboard/endpoints/new", &fields),
        visitor.post("/dashboard/endpoints/new", &fields)
    );
    assert_eq!((first.status, second.status), (200, 200), "{} {}", first.text(), second.text());
    let secret = secret_in(first.text());
    assert_eq!(secret_in(second.text()), secret);
    let listed = app.get("/v1/webhook-endpoints").await.data(200);
    assert_eq!(listed.as_array().unwrap().len(), 1, "{listed}");
    let made = &listed[0];
    assert_eq!((&made["name"], &made["timeoutSeconds"], &made["rateLimit"]), (&json!("Orders"), &json!(9), &json!(7)));
    assert_eq!(made["retrySchedule"], json!([5, 600]));
    assert_eq!((&made["headers"], &made["events"].as_array().unwrap().len()), (&json!({"X-Token": "[redacted]"}), &2));
    let page = visitor.page(&format!("/dashboard/endpoints/{}", made["id"].as_str().unwrap())).await;
    assert!(page.contains("X-Token") && !page.contains("hush-hush") && !page.contains(&secret), "{page}");
    let changed = [&fields[..], &[("events", "job.failed")]].concat();
    assert_eq!(
        visitor.post("/dashboard/endpoints/new", &changed).await.status,
        409,
        "the token was used with other values"
    );
}

pub fn secret_in(page: &str) -> String {
    let start = page.find("whsec_").unwrap_or_else(|| panic!("no secret in {page}"));
    page[start..].chars().take("whsec_".len() + 64).collect()
}

#[tokio::test]
async fn a_faulty_form_keeps_what_was_typed_and_names_each_fault() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, MANAGE).await;
    let form = visitor.page("/dashboard/endpoints/new").await;
    let fields = [
        ("once", hidden(&form, "once")),
        ("name", HOSTILE),
        ("url", "https://10.1.2.3/hook"),
        ("events", "post.created"),
        ("retrySchedule", "soon"),
        ("newHeaderName", "Bad Name"),
        ("newHeaderValue", "hush-hush"),
        ("privateKey", "-----BEGIN PRIVATE KEY-----"),
    ];
    let reply = visitor.post("/dashboard/endpoints/new", &fields).await;
    let page = reply.text();
    assert_eq!(reply.status, 400);
    for fault in ["#field-retrySchedule", "#field-headers", "#field-clientCertificate"] {
        assert!(
            page.contains(&format!("href=\"{fault}\"")) && page.contains(&format!("id=\"{}\"", &fault[1..])),
            "{fault}"
        );
    }
    assert!(page.contains("value=\"soon\"") && page.contains("value=\"Bad Name\""));
    assert!(page.contains("&lt;script&gt;") && !page.contains("<script>alert"), "{page}");
    assert!(!page.contains("hush-hush") && !page.contains("BEGIN PRIVATE"), "a secret came back: {page}");

    let reply = visitor.post("/dashboard/endpoints/new", &fields[..4]).await;
    assert_eq!(reply.status, 400, "{}", reply.text());
    assert!(reply.text().contains("is in a private network") && reply.text().contains("(private)"), "{}", reply.text());
    let none = visitor.post("/dashboard/endpoints/new", &[("name", "A"), ("url", &url())]).await;
    assert!(none.text().contains("Choose at least one event type"));
}

#[tokio::test]
async fn a_change_over_another_change_is_refused_with_both_versions() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, MANAGE).await;
    let endpoint = app.endpoint_at(&url(), &["post.created"]).await;
    let edit = format!("/dashboard/endpoints/{}/edit", endpoint.id);
    let form = visitor.page(&edit).await;
    app.clock().advance(std::time::Duration::from_secs(5));
    let api = format!("/v1/webhook-endpoints/{}", endpoint.id);
    app.caller().patch(&api, json!({"name": "Theirs"})).await.data(200);
    let url = url();
    let seen = hidden(&form, "seen").to_owned();
    let fields = |seen| [("seen", seen), ("name", "Mine"), ("url", url.as_str()), ("events", "post.created")];
    let reply = visitor.post(&edit, &fields(&seen)).await;
    assert_eq!(reply.status, 409, "{}", reply.text());
    assert!(reply.text().contains("Theirs") && reply.text().contains("value=\"Mine\""), "{}", reply.text());
    assert_eq!(app.get(&api).await.data(200)["name"], "Theirs");
    let seen = hidden(reply.text(), "seen").to_owned();
    assert_eq!(visitor.send(&edit, &fields(&seen)).await, format!("/dashboard/endpoints/{}?done=saved", endpoint.id));
    assert_eq!(app.get(&api).await.data(200)["name"], "Mine");
}

#[tokio::test]
async fn headers_and_certificate_are_kept_unless_they_are_changed() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, MANAGE).await;
    let body = json!({"name": "A", "url": url(), "events": ["post.created"], "headers": {"X-One": "1", "X-Two": "2"}});
    let endpoint = app.endpoint(body).await;
    let api = format!("/v1/webhook-endpoints/{}", endpoint.id);
    let edit = format!("/dashboard/endpoints/{}/edit", endpoint.id);
    let url = url();
    let plain = [("name", "B"), ("url", url.as_str()), ("events", "post.created")];
    visitor.send(&edit, &plain).await;
    assert_eq!(app.get(&api).await.data(200)["headers"], json!({"X-One": "[redacted]", "X-Two": "[redacted]"}));
    let changed =
        [&plain[..], &[("header-X-One", "remove"), ("header-X-Two", "replace"), ("value-X-Two", "3")]].concat();
    visitor.send(&edit, &changed).await;
    assert_eq!(app.get(&api).await.data(200)["headers"], json!({"X-Two": "[redacted]"}));
    let moved = [("name", "B"), ("url", "https://hooks.example.com:444/"), ("events", "post.created")];
    let reply = visitor.post(&edit, &moved).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("must be given anew"), "{}", reply.text());
}

#[tokio::test]
async fn a_test_shows_its_result_on_the_page_of_the_endpoint() {
    let app = App::set_up().await.allow("127.0.0.0/8").real_time().start().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    let visitor = Visitor::of(&app, MANAGE).await;
    let led = visitor.send(&format!("/dashboard/endpoints/{}/test", endpoint.id), &[("event", "post.created")]).await;
    assert!(led.contains("?test=dlv_"), "{led}");
    let shown = eventually("the result of the test", || async {
        Some(visitor.page(&led).await).filter(|page| page.contains("answered 200"))
    });
    assert!(shown.await.contains("The test of post.created: The receiver answered 200 OK, after"));
}

#[tokio::test]
async fn an_endpoint_is_switched_and_deleted_only_by_its_name() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, MANAGE).await;
    let endpoint = app.endpoint_at(&url(), &["post.created"]).await;
    let here = format!("/dashboard/endpoints/{}", endpoint.id);
    assert_eq!(visitor.send(&format!("{here}/off"), &[]).await, format!("{here}?done=disabled"));
    assert!(visitor.page(&here).await.contains("It is switched off."));
    visitor.send(&format!("{here}/on"), &[]).await;
    assert!(visitor.page(&here).await.contains("It is active."));
    let refused = visitor.post(&format!("{here}/delete"), &[("name", "Another")]).await;
    assert_eq!((refused.status, refused.text().contains("is not the name")), (400, true));
    assert_eq!(
        visitor.send(&format!("{here}/delete"), &[("name", "A receiver")]).await,
        "/dashboard/endpoints?done=deleted"
    );
    assert_eq!(visitor.get(&here).await.status, 404);
}

#[tokio::test]
async fn a_replay_is_counted_started_once_and_stopped() {
    let app = App::start().await;
    let visitor = Visitor::of(&app, MANAGE).await;
    let endpoint = app.endpoint_at(&url(), &["post.created"]).await;
    let api = format!("/v1/webhook-endpoints/{}", endpoint.id);
    app.caller().patch(&api, json!({"isActive": false})).await.data(200);
    for _ in 0..3 {
        app.publish("post.created", json!({})).await;
    }
    app.caller().patch(&api, json!({"isActive": true})).await.data(200);
    let path = format!("/dashboard/endpoints/{}/replay", endpoint.id);
    let form = visitor.page(&path).await;
    let range = [("since", "2026-05-15T00:00"), ("until", "2026-05-16T00:00"), ("statuses", "skipped")];
    let counted = visitor.post(&path, &range).await;
    assert!(counted.text().contains("3 deliveries would be sent again"), "{}", counted.text());
    let start = [&range[..], &[("once", hidden(&form, "once")), ("start", "yes")]].concat();
    let led = visitor.send(&path, &start).await;
    assert_eq!(visitor.send(&path, &start).await, led, "the second click leads to the same job");
    let job = led.split('?').next().unwrap();
    assert!(visitor.page(job).await.contains(" of 3 are through"));
    let replays = app.get(&format!("{api}/replays")).await.data(200);
    assert_eq!(replays.as_array().unwrap().len(), 1);
    visitor.send(&format!("{job}/stop"), &[]).await;
    let wrong = visitor.post(&path, &[("since", "yesterday"), ("statuses", "pending")]).await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.text().contains("value=\"yesterday\"") && wrong.text().contains("pending cannot be replayed"));
}

#[tokio::test]
async fn an_endpoint_says_that_its_last_attempts_failed() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.otherwise(Behaviour::status(500));
    let body = json!({"name": "Till", "url": receiver.url("/"), "events": ["post.created"], "projectId": "p"});
    let endpoint = app.endpoint(body).await;
    let event = json!({"type": "post.created", "data": {}, "projectId": "p"});
    let event = text(&app.post("/v1/events", event).await.data(202), "id");
    app.attempted(&event, 1).await;
    let path = format!("/endpoints/{}", endpoint.id);
    let page = Visitor::of(&app, EVERYTHING).await.page(&format!("/dashboard{path}")).await;
    assert!(page.contains("It is active. Its last attempt failed."), "{page}");
    // The attempts of hidden types are not counted for a customer, and the health of an endpoint knows no types.
    let narrowed = json!({"projectId": "p", "eventTypes": ["note.created"]});
    let (customer, base) = Visitor::on_portal(&app, narrowed).await;
    let page = customer.page(&format!("{base}{path}")).await;
    assert!(page.contains("It is active.") && !page.contains("attempt failed"), "{page}");
}
