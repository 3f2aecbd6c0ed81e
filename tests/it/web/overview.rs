//! The first page: the first steps of a new workspace, and what needs somebody.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::Scope;
use serde_json::json;

use crate::support::app::{App, text};
use crate::support::postgres::TestDatabase;
use crate::support::receiver::{Answer, Receiver};
use crate::support::visitor::{EVERYTHING, READS, Visitor};

#[tokio::test]
async fn a_new_workspace_is_led_to_its_first_delivery() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    let visitor = Visitor::of(&app, EVERYTHING).await;
    let done = |page: &str| page.matches("</svg>Done</span>").count();
    let page = visitor.page("/dashboard").await;
    assert_eq!(done(&page), 0, "{page}");
    assert!(page.contains("Bearer $KEY"), "{page}");
    app.endpoint_to(&receiver, &["post.created"]).await;
    assert_eq!(done(&visitor.page("/dashboard").await), 1);
    app.publish("job.failed", json!({})).await;
    assert_eq!(done(&visitor.page("/dashboard").await), 2);
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    let page = visitor.page("/dashboard").await;
    assert!(page.contains("Nothing. No order has stopped"), "{page}");
    assert!(page.contains("Attempts: 1, of which 1 delivered, 0 failed"), "{page}");
    for period in ["1h", "24h", "7d", "30d", "nonsense"] {
        visitor.page(&format!("/dashboard?period={period}")).await;
    }
}

#[tokio::test]
async fn what_needs_somebody_stands_first_with_its_cause() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.decide(|request| Answer::status(if request.path == "/gone" { 410 } else { 404 }).into());
    let endpoint = |name: &str, path: &str, event: &str| json!({"name": name, "url": receiver.url(path), "events": [event], "ordering": "strict", "retrySchedule": [1]});
    app.endpoint(endpoint("<b>Left</b>", "/gone", "job.failed")).await;
    app.endpoint(endpoint("Ledger", "/", "post.created")).await;
    let left = app.publish("job.failed", json!({})).await;
    app.attempted(&left, 1).await;
    let stopped = app.publish("post.created", json!({})).await;
    app.attempted(&stopped, 1).await;
    app.clock().advance(Duration::from_secs(60));
    let failed = app.delivery_ended(&stopped, "failed").await;
    let page = Visitor::of(&app, EVERYTHING).await.page("/dashboard").await;
    let needs = page.split("id=\"numbers\"").next().unwrap_or_default();
    assert!(needs.contains(&format!("/dashboard/deliveries/{}\">Retry or skip it", text(&failed, "id"))), "{needs}");
    assert!(needs.contains("&lt;b&gt;Left&lt;/b&gt;</a> answered 410 Gone"), "{needs}");
    assert!(!needs.contains("<b>"), "{needs}");
}

#[tokio::test]
async fn a_restored_copy_says_what_to_do_first() {
    let mut app = App::start().await;
    const WORDS: &str = "This server runs on a restored copy.";
    assert!(!Visitor::of(&app, EVERYTHING).await.page("/dashboard").await.contains(WORDS));
    app.stop().await;
    let database = rusqlite::Connection::open(app.data_dir().join("postrider.db")).unwrap();
    database.execute_batch("INSERT INTO meta (name, value) VALUES ('restored_copy', x'')").unwrap();
    drop(database);
    app.start_again().await;
    let page = Visitor::of(&app, EVERYTHING).await.page("/dashboard").await;
    assert!(page.contains(WORDS) && page.contains("<code>--i-am-the-only-one</code>"), "{page}");
}

#[tokio::test]
async fn the_nodes_stand_on_the_overview_with_their_versions() {
    let app = App::start().await;
    let page = Visitor::of(&app, READS).await.page("/dashboard").await;
    let nodes = page.split("The processes of this server").nth(1).unwrap_or_default();
    let version = env!("CARGO_PKG_VERSION");
    for part in [&format!("Postrider {version}"), "</svg>running</span>", ">just now<", "<code>GET /v1/nodes</code>"] {
        assert!(nodes.contains(part), "{part:?} is not in {nodes}");
    }
    assert!(!page.contains("Not all nodes run the same version"), "{page}");

    let listed = app.caller_of("Acme", READS).await.get("/v1/nodes").await.data(200);
    let [node] = &listed.as_array().unwrap()[..] else { panic!("{listed}") };
    assert_eq!((&node["version"], &node["isRunning"]), (&json!(version), &json!(true)));
    assert!(node["startedAt"].is_string() && node["lastSeenAt"].is_string(), "{node}");
    let refused = app.caller_of("Acme", &[Scope::WebhooksRead]).await.get("/v1/nodes").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
}

#[tokio::test]
async fn different_versions_are_pointed_out() {
    let Some(database) = TestDatabase::new().await.map(Arc::new) else { return };
    let app = App::set_up().await.on(&database).start().await;
    let visitor = Visitor::of(&app, READS).await;
    let words = "Not all nodes run the same version";
    assert!(!visitor.page("/dashboard").await.contains(words));
    // Seen an hour from now, so that it stays a running node however slow the test is.
    let sql = "INSERT INTO nodes (number, holder, seen_at, sends)
               VALUES (7, 1, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + 3600000, TRUE)";
    database.client().await.batch_execute(sql).await.unwrap();
    let page = visitor.page("/dashboard").await;
    assert!(page.contains(words) && page.contains("of before it was reported"), "{page}");
}

/// The sentence under the heading of what needs somebody.
fn nothing_wrong(page: &str) -> String {
    let found = page.split("<p class=\"nothing-wrong\">").nth(1).and_then(|rest| rest.split("</p>").next());
    found.unwrap_or("something is wrong").to_owned()
}

#[tokio::test]
async fn nothing_wrong_says_since_when() {
    let app = App::to_loopback().await;
    let receiver = Receiver::start().await;
    receiver.decide(|request| Answer::status(if request.path == "/gone" { 410 } else { 200 }).into());
    app.endpoint_to(&receiver, &["post.created"]).await;
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    let visitor = Visitor::of(&app, READS).await;
    let page = nothing_wrong(&visitor.page("/dashboard").await);
    assert!(page.contains("Nothing wrong since this workspace was made, "), "{page}");
    let gone = json!({"name": "Left", "url": receiver.url("/gone"), "events": ["job.failed"]});
    let gone = app.endpoint(gone).await;
    let left = app.publish("job.failed", json!({})).await;
    app.attempted(&left, 1).await;
    assert_eq!(nothing_wrong(&visitor.page("/dashboard").await), "something is wrong");
    app.clock().advance(Duration::from_secs(3600));
    let path = format!("/v1/webhook-endpoints/{}", gone.id);
    let off = app.caller().patch(&path, json!({"isActive": false})).await.data(200);
    let page = nothing_wrong(&visitor.page("/dashboard").await);
    assert!(
        page.contains(&format!("Nothing wrong since <time datetime=\"{}\"", text(&off, "updatedAt"))),
        "{page} {off}"
    );
    app.clock().advance(Duration::from_secs(3600));
    app.caller().delete(&path).await;
    assert_eq!(nothing_wrong(&visitor.page("/dashboard").await), page, "an endpoint that was off was no trouble");
}
