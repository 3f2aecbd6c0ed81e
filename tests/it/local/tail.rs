//! The tail of deliveries: each is reported once when it has ended, over page boundaries and lost connections.

use std::collections::BTreeSet;

use postrider_domain::time::Timestamp;
use postrider_local::client::{BearerKey, Client};
use postrider_local::tail::Tail;
use serde_json::{Value, json};

use crate::support::app::{App, text};
use crate::support::receiver::{Answer, Behaviour, Gate, Receiver};
use crate::support::wait::eventually;

const EVENTS: [&str; 2] = ["job.failed", "note.created"];

async fn app() -> App {
    App::set_up().await.allow("127.0.0.0/8").real_time().start().await
}

fn client(app: &App) -> Client {
    let key = BearerKey::parse(app.caller().secret().unwrap()).unwrap();
    Client::new(&format!("http://{}", app.server().address()), &key).unwrap()
}

/// Looks until so many deliveries were reported. Returns their ids in the order of the reports.
async fn reported(tail: &mut Tail, client: &mut Client, count: usize) -> Vec<String> {
    let (tail, client) = (tokio::sync::Mutex::new((tail, Vec::new())), tokio::sync::Mutex::new(client));
    eventually("reports of every delivery", || async {
        let (mut tail, mut client) = (tail.lock().await, client.lock().await);
        let (tail, ids) = &mut *tail;
        tail.look(&mut client).await.unwrap();
        ids.extend(tail.take_ended().into_iter().map(|ended| ended.id));
        (ids.len() >= count).then(|| ids.clone())
    })
    .await
}

async fn publish_many(app: &App, count: usize) {
    let events: Vec<Value> = (0..count).map(|_| json!({"type": "job.failed", "data": {}})).collect();
    app.post("/v1/events/batch", json!({ "events": events })).await.data(202);
}

#[tokio::test]
async fn deliveries_of_several_pages_are_each_reported_once() {
    let app = app().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &EVENTS).await;
    let (mut tail, mut client) = (Tail::new(&[], None), client(&app));
    tail.look(&mut client).await.unwrap();
    assert!(tail.take_ended().is_empty());
    let mut all = Vec::new();
    for _ in 0..2 {
        publish_many(&app, 225).await;
        all.extend(reported(&mut tail, &mut client, 225).await);
    }
    assert_eq!((all.len(), all.iter().collect::<BTreeSet<_>>().len()), (450, 450), "nothing twice");
    for _ in 0..3 {
        tail.look(&mut client).await.unwrap();
        assert!(tail.take_ended().is_empty(), "nothing again");
    }
}

#[tokio::test]
async fn what_was_pending_is_reported_when_it_ends() {
    let app = app().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &EVENTS).await;
    let before = app.publish("job.failed", json!({})).await;
    app.delivery_ended(&before, "delivered").await;
    let gate = Gate::closed();
    receiver.then(Behaviour::Hold(gate.clone(), Answer::status(200)));
    let waiting = app.publish("job.failed", json!({})).await;
    receiver.wait_for(2).await;
    let (mut tail, mut client) = (Tail::new(&[("eventType", "job.failed".to_owned())], None), client(&app));
    for _ in 0..2 {
        tail.look(&mut client).await.unwrap();
        assert!(tail.take_ended().is_empty(), "one ended before, the other is pending");
    }
    app.publish("note.created", json!({})).await;
    gate.open();
    app.delivery_ended(&waiting, "delivered").await;
    tail.look(&mut client).await.unwrap();
    let ended = tail.take_ended();
    let shown: Value = serde_json::from_str(ended[0].delivery.get()).unwrap();
    assert_eq!((ended.len(), &shown["eventId"]), (1, &json!(waiting)), "the filter leaves out the other");
    let listed = app.deliveries(&format!("eventId={waiting}")).await.remove(0);
    assert_eq!(shown, listed, "as lists show it");
}

#[tokio::test]
async fn with_a_time_what_ended_since_is_reported_too() {
    let app = app().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &EVENTS).await;
    let first = app.publish("job.failed", json!({})).await;
    app.delivery_ended(&first, "delivered").await;
    let mut client = client(&app);
    let mut tail = Tail::new(&[], Some(Timestamp::default()));
    let all = reported(&mut tail, &mut client, 1).await;
    assert_eq!(all, [text(&app.deliveries("").await[0], "id")]);
    let mut later = Tail::new(&[], Some(Timestamp::parse("2999-01-01T00:00:00Z").unwrap()));
    later.look(&mut client).await.unwrap();
    assert!(later.take_ended().is_empty());
}

#[tokio::test]
async fn a_look_that_fails_loses_nothing() {
    let mut app = app().await;
    let receiver = Receiver::start().await;
    app.endpoint_to(&receiver, &EVENTS).await;
    let mut tail = Tail::new(&[], None);
    tail.look(&mut client(&app)).await.unwrap();
    publish_many(&app, 5).await;
    let mut before = client(&app);
    app.stop().await;
    for _ in 0..3 {
        assert!(tail.look(&mut before).await.is_err());
    }
    app.start_again().await;
    publish_many(&app, 5).await;
    let mut ids = reported(&mut tail, &mut client(&app), 10).await;
    ids.sort();
    let mut expected: Vec<String> = app.deliveries("limit=50").await.iter().map(|one| text(one, "id")).collect();
    expected.sort();
    assert_eq!(ids, expected);
}
