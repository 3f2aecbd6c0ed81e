//! Kills the real server with SIGKILL. Every acknowledged event still arrives, and the log has every attempt.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::process::{Serving, create_key};
use crate::support::receiver::{Behaviour, Gate, Received, Receiver};
use crate::support::rollups::{LogDatabase, assert_rollups_are_true};
use crate::support::verify::verify_as_integrator;
use crate::support::wait::{bounded_or, eventually};

const ROUNDS: usize = 6;
const PUBLISHERS: usize = 4;
const SCOPES: &[&str] = &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"];
/// Many short retries, so that a receiver that fails now and then never exhausts the schedule.
const SETTINGS: &[&str] =
    &["--allow-target", "127.0.0.1", "--retry-schedule", "20ms,20ms,50ms,100ms,200ms,500ms,1s,1s"];

/// Publishes one event after another. Repeats an event until it has an answer.
struct Publisher {
    number: usize,
    sent: usize,
    /// The event id of each acknowledged `externalId`.
    acknowledged: BTreeMap<String, String>,
}

impl Publisher {
    /// Publishes until the server is gone.
    async fn publish_until_killed(mut self, caller: Caller, acknowledged: Arc<watch::Sender<usize>>) -> Self {
        while self.publish_next(&caller).await {
            acknowledged.send_modify(|count| *count += 1);
        }
        self
    }

    /// Returns whether there was an answer.
    async fn publish_next(&mut self, caller: &Caller) -> bool {
        let external_id = format!("{}-{}", self.number, self.sent);
        let body = json!({"type": "post.created", "data": {"order": external_id}, "externalId": external_id});
        let answer = caller.try_send(Method::POST, "/v1/events", Bytes::from(body.to_string())).await;
        let Ok(reply) = answer else { return false };
        assert!(matches!(reply.status, 200 | 202), "{} {}", reply.status, reply.text());
        let event = text(&reply.json()["data"], "id");
        self.acknowledged.insert(external_id, event);
        self.sent += 1;
        true
    }
}

/// Starts a server with the shared settings.
async fn start(data_dir: &Path, key: &str) -> (Serving, Caller) {
    let server = Serving::start(data_dir, SETTINGS).await;
    let caller = server.caller().key(key);
    (server, caller)
}

#[tokio::test]
async fn acknowledged_events_survive_kills_signed_and_without_log_gap() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    // About every fifth first attempt fails, so that retries are always pending too.
    receiver.decide(|request| {
        let first = request.header("scripe-delivery-attempt") == Some("1");
        let unlucky = request.body.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 5 == 0;
        Behaviour::status(if first && unlucky { 500 } else { 200 })
    });
    let secret = create_endpoint(&data_dir, &key, &receiver).await;

    let acknowledged = Arc::new(watch::Sender::new(0));
    let mut publishers: Vec<Publisher> =
        (0..PUBLISHERS).map(|number| Publisher { number, sent: 0, acknowledged: BTreeMap::new() }).collect();
    for round in 0..ROUNDS {
        let (server, caller) = start(&data_dir, &key).await;
        let goal = *acknowledged.borrow() + 20 + 31 * round;
        let mut publishing = JoinSet::new();
        for publisher in publishers.drain(..) {
            publishing.spawn(publisher.publish_until_killed(caller.clone(), Arc::clone(&acknowledged)));
        }
        let mut counted = acknowledged.subscribe();
        let explain = || format!("{goal} acknowledged events; there are {}", *acknowledged.borrow());
        bounded_or(counted.wait_for(|count| *count >= goal), explain).await.expect("it is counted on");
        server.kill().await;
        publishers = bounded_or(publishing.join_all(), || "the publishers to notice".to_owned()).await;
    }

    let (_server, caller) = start(&data_dir, &key).await;
    for publisher in &mut publishers {
        assert!(publisher.publish_next(&caller).await, "the server lives");
    }
    let pending = "/v1/webhook-deliveries?status=pending&limit=1";
    let done = || async { caller.get(pending).await.data(200).as_array().unwrap().is_empty().then_some(()) };
    eventually("the last delivery", done).await;

    let published: BTreeMap<String, String> =
        publishers.into_iter().flat_map(|publisher| publisher.acknowledged).collect();
    assert!(published.len() > ROUNDS * 20, "only {} events", published.len());
    check_received(&published, &receiver.received(), &secret);
    check_log(&caller, published.len()).await;
    let database = rusqlite::Connection::open(data_dir.join("postrider.db")).unwrap();
    assert!(assert_rollups_are_true(&LogDatabase::Sqlite(&database)).await > 5);
}

#[tokio::test]
async fn strict_order_holds_across_kills() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    // Some first attempts fail, so that a kill can also come while the head of the order waits for its retry.
    receiver.decide(|request| {
        let first = request.header("scripe-delivery-attempt") == Some("1");
        Behaviour::status(if first && order_of(request).is_multiple_of(5) { 500 } else { 200 })
    });
    let (server, caller) = start(&data_dir, &key).await;
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"], "ordering": "strict"});
    caller.post("/v1/webhook-endpoints", body).await.data(200);
    let mut server = Some((server, caller));
    for round in 0..4_usize {
        let (running, caller) = match server.take() {
            Some(running) => running,
            None => start(&data_dir, &key).await,
        };
        let events: Vec<_> = (0..30).map(|n| json!({"type": "post.created", "data": {"n": round * 30 + n}})).collect();
        caller.post("/v1/events/batch", json!({ "events": events })).await.data(202);
        receiver.wait_for(round * 25 + 10).await;
        running.kill().await;
    }

    let (_server, caller) = start(&data_dir, &key).await;
    let pending = "/v1/webhook-deliveries?status=pending&limit=1";
    let done = || async { caller.get(pending).await.data(200).as_array().unwrap().is_empty().then_some(()) };
    eventually("the last delivery", done).await;
    let arrived: Vec<u64> = receiver.received().iter().map(order_of).collect();
    let steps: Vec<_> = arrived.windows(2).filter(|pair| pair[1] != pair[0] && pair[1] != pair[0] + 1).collect();
    assert!(steps.is_empty(), "each is the one before again, or the next: {steps:?} in {arrived:?}");
    assert_eq!((arrived.first(), arrived.last()), (Some(&0), Some(&119)));
}

fn order_of(request: &Received) -> u64 {
    request.json()["data"]["n"].as_u64().unwrap()
}

async fn create_endpoint(data_dir: &Path, key: &str, receiver: &Receiver) -> String {
    let (server, caller) = start(data_dir, key).await;
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"]});
    let secret = text(&caller.post("/v1/webhook-endpoints", body).await.data(200), "secret");
    server.kill().await;
    secret
}

/// Checks that each acknowledged event arrived with one id per `externalId`, and that no attempt number was used twice.
fn check_received(published: &BTreeMap<String, String>, received: &[Received], secret: &str) {
    let mut arrived: BTreeMap<String, String> = BTreeMap::new();
    let mut attempts = HashSet::new();
    for request in received {
        verify_as_integrator(secret, request).unwrap();
        let envelope = request.json();
        let (order, event) = (text(&envelope["data"], "order"), text(&envelope, "id"));
        let before = arrived.insert(order.clone(), event.clone());
        assert!(before.as_ref().is_none_or(|before| *before == event), "{order} is {before:?} and {event}");
        let attempt =
            ["scripe-delivery-id", "scripe-delivery-attempt"].map(|name| request.header(name).map(str::to_owned));
        assert!(attempts.insert(attempt.clone()), "{attempt:?} was made twice");
    }
    assert_eq!(arrived, *published);
}

/// Checks that each event has one delivery, that it was delivered, and that its attempts count from 1 without a gap.
async fn check_log(caller: &Caller, events: usize) {
    let mut seen = HashSet::new();
    let mut cursor = String::new();
    loop {
        let page = caller.get(&format!("/v1/webhook-deliveries?limit=200{cursor}")).await;
        for listed in page.data(200).as_array().unwrap() {
            let delivery = caller.get(&format!("/v1/webhook-deliveries/{}", text(listed, "id"))).await.data(200);
            check_attempts(&delivery);
            assert!(seen.insert(text(&delivery, "eventId")), "two deliveries of one event");
        }
        match page.json()["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), events);
}

fn check_attempts(delivery: &Value) {
    assert_eq!(delivery["status"], "delivered", "{delivery:#}");
    let attempts = delivery["attempts"].as_array().unwrap();
    let numbers: Vec<u64> = attempts.iter().map(|attempt| attempt["number"].as_u64().unwrap()).collect();
    let gapless: Vec<u64> = (1..=delivery["attemptCount"].as_u64().unwrap()).collect();
    assert_eq!(numbers, gapless, "{delivery:#}");
    let (last, earlier) = attempts.split_last().unwrap();
    assert_eq!(last["outcome"], "delivered");
    for attempt in earlier {
        assert!(matches!(attempt["outcome"].as_str(), Some("abandoned" | "http_error")), "{delivery:#}");
    }
}

#[tokio::test]
async fn an_attempt_cut_by_a_kill_is_abandoned_and_the_count_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    let secret = create_endpoint(&data_dir, &key, &receiver).await;
    receiver.then(Behaviour::hold(&Gate::closed()));
    let (server, caller) = start(&data_dir, &key).await;
    caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
    receiver.wait_for(1).await;
    server.kill().await;

    let (_server, caller) = start(&data_dir, &key).await;
    let received = receiver.wait_for(2).await;
    let numbers = received.iter().map(|request| request.header("scripe-delivery-attempt").unwrap());
    assert_eq!(numbers.collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(received[0].body, received[1].body);
    verify_as_integrator(&secret, &received[1]).unwrap();
    let ended = || async {
        let delivery = caller.get("/v1/webhook-deliveries").await.data(200)[0].take();
        (delivery["status"] == "delivered").then(|| text(&delivery, "id"))
    };
    let id = eventually("the delivery", ended).await;
    let delivery = caller.get(&format!("/v1/webhook-deliveries/{id}")).await.data(200);
    let [abandoned, delivered] = &delivery["attempts"].as_array().unwrap()[..] else { panic!("{delivery:#}") };
    assert_eq!((&abandoned["number"], &abandoned["outcome"]), (&json!(1), &json!("abandoned")));
    assert_eq!(abandoned["responseStatus"], Value::Null);
    assert_eq!((&delivered["number"], &delivered["outcome"]), (&json!(2), &json!("delivered")));
}

/// A replay by filter is a walk over the log. Each step moves its position and queues deliveries in one transaction.
#[tokio::test]
async fn a_replay_by_filter_sends_each_once_across_kills() {
    const EVENTS: usize = 300;
    let directory = tempfile::tempdir().unwrap();
    let data_dir = directory.path().join("data");
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    // A replay waits while many deliveries of its endpoint are due, so it cannot end while nothing is answered.
    receiver.otherwise(Behaviour::hold(&gate));
    let (server, caller) = start(&data_dir, &key).await;
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["post.created"]});
    let endpoint = text(&caller.post("/v1/webhook-endpoints", body).await.data(200), "id");
    let endpoint = format!("/v1/webhook-endpoints/{endpoint}");
    caller.patch(&endpoint, json!({"isActive": false})).await.data(200);
    for part in 0..EVENTS / 100 {
        let events: Vec<_> = (0..100).map(|n| json!({"type": "post.created", "data": {"n": part * 100 + n}})).collect();
        caller.post("/v1/events/batch", json!({ "events": events })).await.data(202);
    }
    caller.patch(&endpoint, json!({"isActive": true})).await.data(200);
    let job = caller.post("/v1/webhook-deliveries/replay", json!({"filter": {"status": "skipped"}})).await.data(202);
    assert_eq!(job["total"], EVENTS);
    let job = format!("/v1/replays/{}", text(&job, "id"));

    // Killed while the first steps are done, again while what they queued is sent, and then no more.
    let mut running = Some((server, caller));
    for held in [true, false] {
        let (server, caller) = match running.take() {
            Some(running) => running,
            None => start(&data_dir, &key).await,
        };
        if !held {
            gate.open();
            receiver.otherwise(Behaviour::status(200));
        }
        let begun = || async {
            let shown = caller.get(&job).await.data(200);
            let done = shown["replayed"].as_u64().unwrap();
            assert!(!held || shown["status"] == "running", "{shown}");
            (if held { done > 0 } else { receiver.counts().requests > EVENTS / 3 }).then_some(())
        };
        eventually("a replay that has begun", begun).await;
        server.kill().await;
    }

    let (_server, caller) = start(&data_dir, &key).await;
    let complete = || async { Some(caller.get(&job).await.data(200)).filter(|job| job["status"] == "completed") };
    let shown = eventually("the end of the replay", complete).await;
    assert_eq!((&shown["replayed"], &shown["unavailable"]), (&json!(EVENTS), &json!(0)), "{shown}");
    let pending = "/v1/webhook-deliveries?status=pending&limit=1";
    let done = || async { caller.get(pending).await.data(200).as_array().unwrap().is_empty().then_some(()) };
    eventually("the last delivery", done).await;
    check_repeated(&caller, EVENTS).await;
    let arrived: HashSet<u64> = receiver.received().iter().map(order_of).collect();
    assert_eq!(arrived.len(), EVENTS);
}

/// Checks that the log has one repetition of each skipped delivery, and that it arrived.
async fn check_repeated(caller: &Caller, count: usize) {
    let mut repeated = HashSet::new();
    let mut cursor = String::new();
    loop {
        let page = caller.get(&format!("/v1/webhook-deliveries?limit=200&cause=replay{cursor}")).await;
        for delivery in page.data(200).as_array().unwrap() {
            assert_eq!(delivery["status"], "delivered", "{delivery:#}");
            assert!(repeated.insert(text(delivery, "retryOf")), "repeated twice: {delivery:#}");
        }
        match page.json()["pagination"]["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(repeated.len(), count);
}
