//! `postrider listen` when something breaks: nothing is lost.

use std::collections::HashSet;
use std::time::Duration;

use postrider_domain::access::Mode;
use postrider_domain::limits;
use serde_json::json;

use crate::desk::{Listen, server};
use crate::link::Link;
use crate::support::app::{ALL_SCOPES, text};
use crate::support::process::{Serving, create_key};
use crate::support::receiver::{Behaviour, Gate, Receiver, ReservedPort};
use crate::support::wait::{BOUND, eventually, eventually_within};

/// The events that have arrived at the local server.
fn arrived(local: &Receiver) -> HashSet<String> {
    local.received().iter().filter_map(|received| received.header("webhook-id").map(str::to_owned)).collect()
}

async fn all_arrive(local: &Receiver, events: &[String]) {
    let expected: HashSet<String> = events.iter().cloned().collect();
    eventually("every event arrives", async || (arrived(local) == expected).then_some(())).await;
}

#[tokio::test]
async fn a_laptop_that_slept_longer_than_a_lease_gets_everything() {
    let (app, local) = (server().await, Receiver::start().await);
    let gate = Gate::closed();
    local.then(Behaviour::hold(&gate));
    let mut listen = Listen::start(&app, &["--forward", &local.url("/"), "--event", "post.created"]).await;
    let mut events = vec![app.publish("post.created", json!({})).await];
    local.wait_for(1).await;
    listen.signal("-STOP").await;
    // A lease lasts 60 s by the clock of the server.
    app.setup().real_clock.set_ahead_ms(61_000);
    gate.open();
    for _ in 0..3 {
        events.push(app.publish("post.created", json!({})).await);
    }
    listen.signal("-CONT").await;
    all_arrive(&local, &events).await;
    for event in &events {
        app.delivery_when(event, "is delivered", |delivery| delivery["status"] == "delivered").await;
    }
    listen.next_of("event").await;
    listen.signal("-INT").await;
    listen.ended().await;
}

#[tokio::test]
async fn a_server_that_is_killed_and_comes_back_loses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let local = Receiver::start().await;
    let mut serving = Serving::start(&data, &[]).await;
    let key = text(
        &create_key(&data, &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"]).await,
        "key",
    );
    let link = Link::to(serving.caller().address()).await;
    let mut listen = Listen::at(&link.url(), &key, &["--forward", &local.url("/"), "--event", "post.created"]).await;
    let mut events = Vec::new();
    for _ in 0..3 {
        for _ in 0..5 {
            let caller = serving.caller().key(&key);
            let published = caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await;
            events.push(text(&published.data(202), "id"));
        }
        serving.kill().await;
        link.cut();
        serving = Serving::start(&data, &[]).await;
        link.lead_to(serving.caller().address());
    }
    // A lease whose answer was lost with the server goes out again when it has ended.
    let expected: HashSet<String> = events.iter().cloned().collect();
    let probe = async || (arrived(&local) == expected).then_some(());
    eventually_within(limits::LEASE + BOUND, probe, || format!("{} of 15 events", arrived(&local).len())).await;
    listen.next_of("reconnected").await;
    listen.signal("-INT").await;
    assert_eq!(listen.ended().await.0.code(), Some(130));
}

#[tokio::test]
async fn a_network_that_is_cut_delays_and_loses_nothing() {
    let (app, local) = (server().await, Receiver::start().await);
    let link = Link::to(app.server().address()).await;
    let key = app.caller().secret().unwrap();
    let mut listen = Listen::at(&link.url(), key, &["--forward", &local.url("/"), "--event", "post.created"]).await;
    let gate = Gate::closed();
    local.then(Behaviour::hold(&gate));
    let mut events = vec![app.publish("post.created", json!({})).await];
    local.wait_for(1).await;
    // The answer of the local server comes while the server cannot be told.
    link.cut();
    gate.open();
    listen.next_of("reconnecting").await;
    events.push(app.publish("post.created", json!({})).await);
    link.lead_to(app.server().address());
    let back = listen.next_of("reconnected").await;
    assert!(back["waited"].is_u64(), "{back}");
    all_arrive(&local, &events).await;
    for event in &events {
        let delivery = app.delivery_when(event, "is delivered", |delivery| delivery["status"] == "delivered").await;
        assert_eq!(delivery["attemptCount"], 1, "the lease held: nothing arrives twice");
    }
    listen.signal("-INT").await;
    listen.ended().await;
}

#[tokio::test]
async fn a_local_server_that_is_down_uses_no_attempt() {
    let app = server().await;
    let port = ReservedPort::reserve();
    let address = port.address();
    let forward = format!("http://{address}/");
    let mut listen = Listen::start(&app, &["--forward", &forward, "--event", "post.created"]).await;
    let mut events = Vec::new();
    for _ in 0..3 {
        events.push(app.publish("post.created", json!({})).await);
    }
    listen.next_of("local_down").await;
    drop(port);
    let local = Receiver::start_on(address).await;
    listen.next_of("local_up").await;
    all_arrive(&local, &events).await;
    for event in &events {
        let delivery = app.delivery_when(event, "is delivered", |delivery| delivery["status"] == "delivered").await;
        assert_eq!((&delivery["attemptCount"], &delivery["attempts"][0]["number"]), (&json!(1), &json!(1)));
    }
    listen.signal("-INT").await;
    listen.ended().await;
}

#[tokio::test]
async fn a_revoked_key_ends_it_with_3() {
    let (app, local) = (server().await, Receiver::start().await);
    let created = app.create_key("Acme", Mode::Live, ALL_SCOPES, None).await;
    let (key, id) = (created.secret.reveal().to_owned(), created.key.id);
    let url = format!("http://{}", app.server().address());
    let listen = Listen::at(&url, &key, &["--forward", &local.url("/"), "--event", "post.created"]).await;
    app.server().operator().revoke_api_key(id).await.unwrap();
    app.publish("post.created", json!({})).await;
    let (status, said) = listen.ended().await;
    assert_eq!(status.code(), Some(3), "{said}");
    assert!(said.contains("revoked"), "{said}");
}

#[tokio::test]
async fn what_is_under_way_at_the_end_is_given_back() {
    let (app, local) = (server().await, Receiver::start().await);
    let gate = Gate::closed();
    local.then(Behaviour::hold(&gate));
    let arguments = ["--forward", &local.url("/"), "--event", "post.created", "--name", "kept", "--keep"];
    let listen = Listen::start(&app, &arguments).await;
    let event = app.publish("post.created", json!({})).await;
    local.wait_for(1).await;
    listen.signal("-INT").await;
    listen.ended().await;
    let mut again = Listen::start(&app, &arguments[..6]).await;
    let line = again.next_of("event").await;
    assert_eq!((&line["eventId"], &line["attempt"]), (&json!(event), &json!(1)), "at once, not when the lease ends");
    again.signal("-INT").await;
    again.ended().await;
    gate.open();
}

#[tokio::test]
async fn a_server_that_stays_away_is_given_up_where_that_is_asked_for() {
    let (app, local) = (server().await, Receiver::start().await);
    let link = Link::to(app.server().address()).await;
    let arguments = ["--forward", &local.url("/"), "--max-offline", "1s"];
    let mut listen = Listen::at(&link.url(), app.caller().secret().unwrap(), &arguments).await;
    link.cut();
    listen.next_of("reconnecting").await;
    let began = std::time::Instant::now();
    let (status, said) = listen.ended().await;
    assert_eq!(status.code(), Some(5), "{said}");
    assert!(began.elapsed() >= Duration::from_millis(500));
}
