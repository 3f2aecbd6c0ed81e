//! `postrider listen` on a quiet day.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use crate::desk::{Listen, listen_command, server};
use crate::support::app::text;
use crate::support::receiver::{Answer, Receiver};
use crate::support::verify::verify_as_integrator;
use crate::support::wait::{bounded, eventually};

#[tokio::test]
async fn events_arrive_as_at_a_receiver_and_the_answer_is_an_attempt() {
    let (app, local) = (server().await, Receiver::start().await);
    local.then(Answer::status(500).body("boom")).otherwise(Answer::status(200));
    let forward = local.url("/hooks?a=b");
    let arguments = ["--forward", &forward, "--event", "post.created", "--print-secret", "--header", "X-Dev: yes"];
    let mut listen = Listen::start(&app, &arguments).await;
    let event = app.publish("post.created", json!({"n": 1})).await;
    let line = listen.next_of("event").await;
    assert_eq!((&line["eventId"], &line["status"]), (&json!(event), &json!(500)));
    let line = listen.next_of("event").await;
    assert_eq!((&line["attempt"], &line["status"]), (&json!(2), &json!(200)), "it is retried by the schedule");
    let received = local.wait_for(2).await.remove(0);
    assert_eq!((received.path.as_str(), received.header("x-dev")), ("/hooks?a=b", Some("yes")));
    assert_eq!(received.header("host"), Some(local.address().to_string().as_str()));
    assert_eq!(received.header("scripe-delivery-attempt"), Some("1"));
    let delivery = app.delivery_when(&event, "is delivered", |delivery| delivery["status"] == "delivered").await;
    assert_eq!(delivery["attempts"][0]["responseStatus"], 500);
    let id = listen.listener_id.clone();
    listen.signal("-INT").await;
    let (status, _) = listen.ended().await;
    assert_eq!(status.code(), Some(130));
    assert_eq!(app.get(&format!("/v1/listeners/{id}")).await.status, 404, "it is removed at the end");
}

#[tokio::test]
async fn the_printed_secret_verifies_and_enough_is_enough() {
    let (app, local) = (server().await, Receiver::start().await);
    let port = local.address().port().to_string();
    let mut command = listen_command(
        &format!("http://{}", app.server().address()),
        app.caller().secret().unwrap(),
        &["--forward", &port, "--print-secret", "--exit-after", "2", "--output", "json"],
    );
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&bounded("ready", lines.next_line()).await.unwrap().unwrap()).unwrap();
    assert_eq!(ready["events"].as_array().unwrap().len(), 9, "all events of the catalogue");
    for _ in 0..3 {
        app.publish("note.created", json!({})).await;
    }
    let status = bounded("the end", child.wait()).await.unwrap();
    assert_eq!(status.code(), Some(0));
    let received = local.received();
    assert_eq!(received.len(), 2, "no more than asked for");
    verify_as_integrator(&text(&ready, "secret"), &received[0]).unwrap();
}

#[tokio::test]
async fn a_kept_listener_queues_while_nobody_listens() {
    let (app, local) = (server().await, Receiver::start().await);
    let forward = local.url("/");
    let arguments = ["--forward", &forward, "--event", "post.created", "--name", "mine", "--keep"];
    let listen = Listen::start(&app, &arguments).await;
    let id = listen.listener_id.clone();
    listen.signal("-TERM").await;
    assert_eq!(listen.ended().await.0.code(), Some(143));
    let event = app.publish("post.created", json!({})).await;
    let mut again = Listen::start(&app, &["--forward", &forward, "--name", "mine"]).await;
    assert_eq!(again.listener_id, id);
    assert_eq!(again.next_of("event").await["eventId"], json!(event));
    again.signal("-INT").await;
    again.ended().await;
    assert_eq!(app.get(&format!("/v1/listeners/{id}")).await.status, 200, "it stays");
}

#[tokio::test]
async fn two_listeners_of_one_filter_both_get_an_event() {
    let (app, local) = (server().await, Receiver::start().await);
    let forward = local.url("/");
    let arguments = ["--forward", &forward, "--event", "post.created"];
    let mut first = Listen::start(&app, &arguments).await;
    let mut second = Listen::start(&app, &arguments).await;
    let event = app.publish("post.created", json!({})).await;
    for listen in [&mut first, &mut second] {
        assert_eq!(listen.next_of("event").await["eventId"], json!(event));
    }
    second.signal("-INT").await;
    let named = first.listener_id.clone();
    let (_, said) = second.ended().await;
    assert!(said.contains(&named), "{said}");
    first.signal("-INT").await;
    first.ended().await;
}

#[tokio::test]
async fn a_pipe_gets_the_ready_line_at_once_and_no_escapes() {
    let (app, local) = (server().await, Receiver::start().await);
    let url = format!("http://{}", app.server().address());
    let forward = local.url("/hooks");
    let mut command = listen_command(&url, app.caller().secret().unwrap(), &["--forward", &forward, "--show", "body"]);
    command.env("TERM", "dumb");
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let ready = bounded("the ready line", lines.next_line()).await.unwrap().unwrap();
    assert!(ready.starts_with("ready  lst_"), "{ready}");
    local.otherwise(Answer::status(302).header("location", "/elsewhere"));
    app.publish("post.created", json!({"shown": true})).await;
    let mut all = String::new();
    while !all.contains("← 302 POST /hooks") {
        let line = bounded("the lines of a delivery", lines.next_line()).await.unwrap().unwrap();
        all += &format!("{line}\n");
    }
    assert!(all.contains("→ post.created evt_") && all.contains("\"shown\":true"), "{all}");
    assert!(!all.contains('\u{1b}') && !ready.contains('\u{1b}'));
    // Nobody reads any more: the next line ends it quietly.
    drop(lines);
    app.publish("post.created", json!({})).await;
    let mut said = String::new();
    let status = bounded("a quiet end", child.wait()).await.unwrap();
    child.stderr.take().unwrap().read_to_string(&mut said).await.unwrap();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("redirects are not followed") && !said.contains("panic"), "{said}");
    eventually("the listener is removed", async || {
        app.get("/v1/listeners").await.data(200).as_array().unwrap().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn wrong_use_is_named_and_makes_no_listener() {
    let app = server().await;
    let url = format!("http://{}", app.server().address());
    for (arguments, fault) in [
        (vec!["--forward", "nowhere:x"], "neither a port nor a URL"),
        (vec!["--forward", "http://example.com"], "--allow-external"),
        (vec!["--forward", "3000", "--since", "1h"], "--since"),
        (vec!["--forward", "3000", "--timeout", "0s"], "1s to 10m"),
        (vec!["--forward", "3000", "--header", "webhook-id: x"], "webhook-"),
    ] {
        let mut command = listen_command(&url, app.caller().secret().unwrap(), &arguments);
        let output = bounded("a command that ends", command.output()).await.unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(fault), "{arguments:?}: {said}");
    }
    assert_eq!(app.get("/v1/listeners").await.data(200), json!([]));
}
