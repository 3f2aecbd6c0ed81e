//! `/v1/stats`.

use std::time::Duration;

use serde_json::{Value, json};

use super::faults;
use crate::support::app::App;
use crate::support::receiver::{Behaviour, Receiver};

const STATS: &str = "/v1/stats";

/// An app with one endpoint that got an event at its second attempt, and an event that nobody gets.
async fn with_counts() -> (App, Receiver, crate::support::app::Endpoint) {
    let setup = App::set_up().await.allow("127.0.0.0/8").real_time();
    let app = setup.change(|settings| settings.retry_schedule = "10ms".parse().unwrap()).start().await;
    let receiver = Receiver::start().await;
    let endpoint = app.endpoint_to(&receiver, &["post.created"]).await;
    receiver.then(Behaviour::status(500));
    let event = app.publish("post.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    app.publish("note.created", json!({})).await;
    (app, receiver, endpoint)
}

#[tokio::test]
async fn stats_count_what_happened() {
    let (app, _receiver, endpoint) = with_counts().await;
    let stats = app.get(STATS).await.data(200);
    assert_eq!(stats["bucket"], "hour");
    let buckets = stats["buckets"].as_array().unwrap();
    assert_eq!(buckets.len(), 24);
    assert_eq!((&buckets[0]["start"], &buckets[0]["events"]), (&stats["since"], &json!(0)));
    let totals = &stats["totals"];
    assert_eq!(totals["events"], 2);
    let outcomes = json!([{"outcome": "delivered", "count": 1}, {"outcome": "http_error", "count": 1}]);
    assert_eq!(totals["attempts"], json!({"total": 2, "byOutcome": outcomes}));
    let ended = json!([{"status": "delivered", "reason": null, "count": 1}]);
    assert_eq!(totals["deliveries"], json!({"created": 1, "ended": ended}));
    assert_eq!(totals["firstAttempts"]["count"], 1);
    assert!(totals["firstAttempts"]["p99Ms"].is_u64(), "{totals:#}");
    assert_eq!(stats["queue"], json!({"pending": 0, "isExact": true, "oldestDueAt": null}));
    assert_eq!(stats["completeSince"], "1970-01-01T00:00:00.000Z", "the store has counted from its first row");

    let of_endpoint = app.get(&format!("{STATS}?endpointId={}&bucket=minute", endpoint.id)).await.data(200);
    assert_eq!(
        (&of_endpoint["totals"]["events"], &of_endpoint["totals"]["attempts"]["total"]),
        (&Value::Null, &json!(2))
    );
    let of_project = app.get(&format!("{STATS}?projectId=p&bucket=day")).await.data(200);
    assert_eq!(
        (&of_project["totals"]["events"], &of_project["totals"]["deliveries"]["created"]),
        (&json!(0), &json!(0))
    );
}

#[tokio::test]
async fn a_period_covers_whole_buckets_and_has_a_limit() {
    let app = App::start().await;
    let period = "since=2026-05-15T08:20:30Z&until=2026-05-15T10:00:00.001Z";
    let stats = app.get(&format!("{STATS}?{period}")).await.data(200);
    assert_eq!(
        (&stats["since"], &stats["until"]),
        (&json!("2026-05-15T08:00:00.000Z"), &json!("2026-05-15T11:00:00.000Z"))
    );
    assert_eq!(stats["buckets"].as_array().unwrap().len(), 3);
    for (query, parameter) in [
        ("since=2026-05-15T08:00:00Z&until=2026-05-15T08:00:00Z", "until"),
        ("since=2026-05-15T08:00:00Z&until=2026-05-14T08:00:00Z", "until"),
        ("since=1970-01-01T00:00:00Z&until=9999-12-31T23:59:59.999Z&bucket=minute", "since"),
        ("since=2026-05-01T00:00:00Z&until=2026-05-03T00:00:00Z&bucket=minute", "since"),
    ] {
        let error = app.get(&format!("{STATS}?{query}")).await.error(422, "unprocessable");
        assert!(faults(&error)[parameter].is_string(), "{query}: {error:#}");
    }
    for (query, parameter) in [
        ("since=yesterday", "since"),
        ("bucket=week", "bucket"),
        ("endpointId=evt_1", "endpointId"),
        ("projectId=a%20b", "projectId"),
        ("limit=5", "limit"),
        ("status=failed", "status"),
    ] {
        let error = app.get(&format!("{STATS}?{query}")).await.error(400, "invalid_request");
        assert!(faults(&error)[parameter].is_string(), "{query}: {error:#}");
    }
}

#[tokio::test]
async fn the_end_of_time_is_a_period_like_any_other() {
    let app = App::start().await;
    app.clock().advance(Duration::from_secs(1));
    for query in [
        "since=1970-01-01T00:00:00Z&until=1970-01-01T00:00:00.001Z",
        "since=9999-12-31T23:00:00Z&until=9999-12-31T23:59:59.999Z",
    ] {
        let stats = app.get(&format!("{STATS}?{query}&bucket=minute")).await.data(200);
        assert_eq!(stats["totals"]["events"], 0, "{query}");
    }
}
