//! `/metrics`: who gets it where, and that its numbers are those of the log.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

use postrider::config::MetricsListen;
use postrider_domain::database_url::DatabaseUrl;

use crate::support::app::{App, NOON, Setup};
use crate::support::caller::Caller;
use crate::support::clock::ManualClock;
use crate::support::cluster::{Cluster, Shutdown};
use crate::support::postgres::{TestDatabase, skip};
use crate::support::process::{Serving, command, path_text, postrider};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::scrape::Scrape;
use crate::support::wait::{bounded, eventually};

const EVENTS: &[&str] = &["note.created", "post.created", "post.updated"];
const TOKEN: &str = "a token of more than sixteen bytes";

async fn measured() -> Setup {
    App::set_up().await.allow("127.0.0.0/8").measured()
}

#[tokio::test]
async fn the_numbers_are_those_of_the_log_on_sqlite() {
    reconcile(measured().await).await;
}

#[tokio::test]
async fn the_numbers_are_those_of_the_log_on_postgres() {
    let Some(database) = TestDatabase::new().await else { return };
    let database = Arc::new(database);
    reconcile(measured().await.on(&database)).await;
}

/// Delivered, failed for now, skipped and repeated: everything that was created has ended or is queued.
async fn reconcile(setup: Setup) {
    let app = setup.start().await;
    let (good, bad) = (Receiver::start().await, Receiver::start().await);
    bad.otherwise(Behaviour::status(500));
    app.endpoint_to(&good, EVENTS).await;
    app.endpoint_to(&bad, &EVENTS[..1]).await;
    let off = app.endpoint_to(&good, &EVENTS[2..]).await;
    let path = format!("/v1/webhook-endpoints/{}", off.id);
    assert_eq!(app.caller().patch(&path, json!({"isActive": false})).await.status, 200);
    for kind in EVENTS {
        app.publish(kind, json!({})).await;
    }
    let once = json!({"type": "post.created", "data": {}, "externalId": "one"});
    assert_eq!(app.post("/v1/events", once.clone()).await.status, 202);
    assert_eq!(app.post("/v1/events", once).await.status, 200);
    let keyed = app.caller().keyed("a-key-of-a-request");
    for _ in 0..2 {
        assert_eq!(keyed.post("/v1/events", json!({"type": "post.created", "data": {}})).await.status, 202);
    }
    assert_eq!(app.post("/v1/events", json!({"type": "post.created"})).await.status, 400);
    let scrape = eventually("five deliveries and a failed attempt", || async {
        let scrape = app.scrape().await;
        let attempts = |outcome| scrape.value(&format!("postrider_attempts_total{{outcome=\"{outcome}\"}}"));
        (attempts("delivered") >= 5.0 && attempts("http_error") >= 1.0).then_some(scrape)
    })
    .await;
    let deliveries = app.deliveries("limit=100").await;
    let with = |status: &str| deliveries.iter().filter(|delivery| delivery["status"] == status).count() as f64;
    let ended = |end: &str| scrape.value(&format!("postrider_deliveries_ended_total{{{end}}}"));
    assert_eq!(scrape.value("postrider_events_accepted_total{mode=\"live\"}"), 5.0);
    assert_eq!(scrape.sum("postrider_deliveries_created_total"), deliveries.len() as f64);
    assert_eq!(scrape.value("postrider_deliveries_created_total{cause=\"event\"}"), 7.0);
    assert_eq!(ended("status=\"delivered\",reason=\"none\""), with("delivered"));
    assert_eq!(ended("status=\"skipped\",reason=\"inactive\""), with("skipped"));
    let queued = scrape.sum("postrider_deliveries_created_total") - scrape.sum("postrider_deliveries_ended_total");
    assert_eq!(queued, with("pending"));
    let counted = eventually("a count of the queue after the attempts", || async {
        let counted = app.scrape().await;
        (counted.sum("postrider_queue_deliveries") == queued).then_some(counted)
    })
    .await;
    assert_eq!(counted.sum("postrider_endpoints"), 3.0);
    assert_eq!(counted.value("postrider_endpoints{state=\"off\"}"), 1.0);
    assert_eq!(counted.value("postrider_queue_oldest_due_age_seconds"), 0.0);
    assert!(counted.value("postrider_store_file_bytes") > 100_000.0);
    assert_eq!(scrape.value("postrider_events_deduplicated_total{by=\"external_id\"}"), 1.0);
    assert_eq!(scrape.value("postrider_events_deduplicated_total{by=\"idempotency_key\"}"), 1.0);
    assert_eq!(scrape.value("postrider_events_refused_total{reason=\"invalid_request\"}"), 1.0);
    assert_eq!(scrape.sum("postrider_events_refused_total"), 1.0);
    assert_eq!(scrape.value("postrider_publish_seconds_count{kind=\"single\"}"), 6.0);
    let attempts = scrape.sum("postrider_attempts_total");
    assert_eq!(scrape.sum("postrider_attempt_responses_total"), attempts);
    assert_eq!(scrape.sum("postrider_connections_used_total"), attempts);
    assert_eq!(scrape.value("postrider_attempt_phase_seconds_count{phase=\"total\"}"), attempts);
    assert_eq!(scrape.value("postrider_first_attempt_delay_seconds_count"), 6.0);
    assert!(scrape.value("postrider_attempt_bytes_total{direction=\"sent\"}") > 100.0 * attempts);
    assert!(scrape.value("postrider_http_responses_total{class=\"2xx\"}") >= 10.0);
    assert!(scrape.sum("postrider_store_commits_total") > 0.0);
    assert_eq!(scrape.value("postrider_store_up"), 1.0);
}

#[tokio::test]
async fn no_number_of_series_depends_on_what_tenants_have() {
    let app = measured().await.start().await;
    // The first request of a caller and the first count of the queue are behind us.
    let before = app.scrape().await;
    let receiver = Receiver::start().await;
    for number in 0..40 {
        app.endpoint_at(&receiver.url(&format!("/hook/{number}")), EVENTS).await;
    }
    for workspace in ["Initech", "Hooli"] {
        app.caller_of(workspace, &[postrider_domain::access::Scope::EventsWrite]).await;
    }
    for kind in EVENTS {
        app.publish(kind, json!({})).await;
    }
    let after = eventually("120 attempts", || async {
        let scrape = app.scrape().await;
        (scrape.sum("postrider_attempts_total") >= 120.0).then_some(scrape)
    })
    .await;
    let of_events = |scrape: &Scrape| {
        // These are absent until they have been counted in the background.
        let counted = ["postrider_queue_", "postrider_lanes", "postrider_endpoints"];
        let names = scrape.names().into_iter().filter(|name| !counted.iter().any(|start| name.starts_with(start)));
        names.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(of_events(&before), of_events(&after));
    for secret in ["/hook/", "127.0.0.1", "note.created", "Acme", "Hooli", "org_", "evt_"] {
        assert!(!after.text.contains(secret), "{secret} is in\n{}", after.text);
    }
}

#[tokio::test]
async fn one_node_at_a_time_has_the_gauges_of_the_whole_store() {
    let Some(database) = TestDatabase::new().await else { return };
    let database = Arc::new(database);
    let mut first = measured().await.on(&database).start().await;
    let second = measured().await.on(&database).start().await;
    let has_gauges = async |app: &App| app.scrape().await.find("postrider_queue_oldest_due_age_seconds").is_some();
    eventually("gauges of the first node", || async { has_gauges(&first).await.then_some(()) }).await;
    assert!(!has_gauges(&second).await);
    first.stop().await;
    eventually("gauges of the second node", || async { has_gauges(&second).await.then_some(()) }).await;
}

#[tokio::test]
async fn a_scrape_needs_no_store_and_shows_no_old_gauge() {
    let Some(cluster) = Cluster::start(&["fsync = off"]).await else { return };
    let setup = measured().await.change(|settings| {
        settings.database.url = Some(DatabaseUrl::parse(&cluster.url()).unwrap());
        settings.master_key_file = Some(settings.data_dir.with_file_name("shared.key"));
    });
    let app = setup.key(&"0f".repeat(32)).real_time().start().await;
    let gauge = "postrider_queue_deliveries{state=\"due\"}";
    eventually("a count of the queue", || async { app.scrape().await.find(gauge) }).await;
    cluster.stop(Shutdown::Immediate).await;
    eventually("the loss of the store in the metrics", || async {
        let scrape = app.scrape().await;
        (scrape.value("postrider_store_up") == 0.0 && scrape.find(gauge).is_none()).then_some(())
    })
    .await;
    cluster.resume().await;
    eventually("the store in the metrics", || async { app.scrape().await.find(gauge) }).await;
}

#[tokio::test]
async fn promtool_finds_no_fault() {
    let app = measured().await.start().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, EVENTS).await;
    let event = app.publish("note.created", json!({})).await;
    app.delivery_ended(&event, "delivered").await;
    let mut promtool = Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut checking = match promtool.kill_on_drop(true).spawn() {
        Ok(checking) => checking,
        Err(_) => return skip("the format of metrics: promtool is not installed (Debian package prometheus)"),
    };
    let mut input = checking.stdin.take().expect("a pipe");
    input.write_all(app.scrape().await.text.as_bytes()).await.expect("a process that reads");
    drop(input);
    let ended = bounded("promtool", checking.wait_with_output()).await.expect("an end");
    let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(ended.status.success(), "{said:?}");
}

#[tokio::test]
async fn the_page_lists_every_family() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let listed = page.split("<!-- families -->\n").nth(1).and_then(|rest| rest.split("<!-- end -->").next());
    let table = postrider_metrics::table(postrider::server::metrics::new(&ManualClock::new(NOON), &[]).described());
    assert_eq!(listed.unwrap_or_default().trim(), table.trim(), "docs/metrics.md must have this table:\n{table}");
}

#[tokio::test]
async fn a_client_that_accepts_open_metrics_gets_it() {
    let app = measured().await.start().await;
    let address = app.server().metrics_address().unwrap();
    let plain = Caller::stranger(address).get("/metrics").await;
    assert_eq!(plain.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open = Caller::stranger(address).with("accept", accept).get("/metrics").await;
    assert_eq!(open.headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.body.ends_with(b"# EOF\n"));
    assert_eq!(Caller::stranger(address).get("/").await.status, 404);
}

#[tokio::test]
async fn on_the_listener_of_the_api_only_the_token_opens_metrics() {
    let app = App::set_up().await;
    let file = app.settings.data_dir.with_file_name("metrics.token");
    std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
    let app = app.change(|settings| settings.metrics.token_file = Some(file)).start().await;
    assert_eq!(app.server().metrics_address(), None);
    let stranger = Caller::stranger(app.server().address());
    for refused in [stranger.clone(), stranger.key(&TOKEN[1..]), app.caller().clone()] {
        let reply = refused.get("/metrics").await;
        assert_eq!((reply.status, &reply.headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
        assert!(!reply.body.windows(10).any(|part| part == b"postrider_"));
    }
    let reply = stranger.key(TOKEN).get("/metrics").await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.starts_with(b"# HELP postrider_"));
}

#[tokio::test]
async fn without_a_token_the_listener_of_the_api_has_no_metrics() {
    let app = App::start().await;
    assert_eq!(app.get("/metrics").await.status, 404);
}

#[tokio::test]
async fn an_address_for_metrics_that_was_asked_for_must_be_free() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path_text(directory.path())];
    let ended = postrider(&[&arguments[..], &["--metrics-listen", &address]].concat()).await;
    let (code, said) = ended.failure();
    assert_eq!(code, 1);
    assert!(said.contains(&format!("cannot listen on {address} for metrics (--metrics-listen)")), "{said}");
}

#[tokio::test]
async fn a_server_starts_without_metrics_if_the_default_is_taken() {
    // If this fails, another program has the default address, which is as good.
    let _taken = TcpListener::bind(MetricsListen::DEFAULT).await;
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--log-format", "json", "--data-dir"];
    let serving = Serving::of(command(&[&arguments[..], &[path_text(directory.path())]].concat())).await;
    let warning = "cannot serve metrics on the default address";
    assert!(serving.log().iter().any(|line| line.contains(warning)), "{:?}", serving.log());
}

#[tokio::test]
async fn a_token_that_can_be_guessed_or_read_nowhere_stops_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("metrics.token");
    let start = async |file: &Path| {
        let data = directory.path().join("data");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--metrics-listen", "off", "--data-dir", path_text(&data)];
        let ended = postrider(&[&arguments[..], &["--metrics-token-file", path_text(file)]].concat()).await;
        ended.failure().1.to_owned()
    };
    assert!(start(&file).await.contains("cannot read the token for metrics from"));
    std::fs::write(&file, "short\n").unwrap();
    assert!(start(&file).await.contains("shorter than 16 bytes"));
}
