//! `postrider tail` as a process: its lines arrive at once, and it ends as a part of a pipe should.

use std::process::Stdio;

use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use crate::support::app::App;
use crate::support::process::command;
use crate::support::receiver::{Receiver, ReservedPort};
use crate::support::wait::bounded;

struct Tailing {
    child: Child,
    out: Lines<BufReader<ChildStdout>>,
    notes: Lines<BufReader<ChildStderr>>,
}

impl Tailing {
    /// Returns once it has looked at the log.
    async fn start(app: &App, key: &str, arguments: &[&str]) -> Self {
        let tail = command(&[&["tail"], arguments].concat());
        // A script that runs the tests in the background has interrupts ignored, and so would its children.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT").arg(tail.as_std().get_program()).args(tail.as_std().get_args());
        command.env_clear().env("PATH", "/usr/bin:/bin").stdin(Stdio::null()).kill_on_drop(true);
        command.env("POSTRIDER_URL", format!("http://{}", app.server().address())).env("POSTRIDER_API_KEY", key);
        command.env("TERM", "dumb");
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap()).lines();
        let notes = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut tailing = Self { child, out, notes };
        assert!(tailing.note().await.starts_with("waiting for deliveries"));
        tailing
    }

    async fn line(&mut self) -> String {
        bounded("a line", self.out.next_line()).await.unwrap().expect("a line before the end")
    }

    async fn note(&mut self) -> String {
        bounded("a note", self.notes.next_line()).await.unwrap().expect("a note before the end")
    }

    async fn ended(&mut self) -> Option<i32> {
        bounded("the end of tail", self.child.wait()).await.unwrap().code()
    }
}

/// A server on a port that is its own, so that it comes back where it was.
async fn app_with(receiver: &Receiver) -> (App, ReservedPort) {
    let port = ReservedPort::reserve();
    let address = port.address();
    let setup = App::set_up().await.allow("127.0.0.0/8").real_time().change(|settings| settings.listen = address);
    let app = setup.start().await;
    app.endpoint_to(receiver, &["job.failed", "note.created"]).await;
    (app, port)
}

#[tokio::test]
async fn lines_reach_a_pipe_at_once_and_a_closed_one_ends_it() {
    let receiver = Receiver::start().await;
    let (app, _port) = app_with(&receiver).await;
    let key = app.caller().secret().unwrap().to_owned();
    let mut tailing = Tailing::start(&app, &key, &["--event", "job.failed"]).await;
    app.publish("note.created", json!({})).await;
    let event = app.publish("job.failed", json!({})).await;
    let delivery = app.delivery_ended(&event, "delivered").await;
    let line = tailing.line().await;
    let id = delivery["id"].as_str().unwrap();
    assert!(line.contains(&format!("  delivered  200              {id}  job.failed  whe_")), "{line}");
    assert!(!line.contains('\u{1b}'), "no colours into a pipe");
    drop(tailing.out);
    app.publish("job.failed", json!({})).await;
    let ended = bounded("the end of tail", tailing.child.wait()).await.unwrap();
    assert!(ended.success());
    assert_eq!(bounded("no note", tailing.notes.next_line()).await.unwrap(), None, "it ends quietly");
}

#[tokio::test]
async fn json_has_a_kind_and_only_the_wanted_status() {
    let receiver = Receiver::start().await;
    let (app, _port) = app_with(&receiver).await;
    let key = app.caller().secret().unwrap().to_owned();
    let mut tailing = Tailing::start(&app, &key, &["--output", "json", "--status", "skipped,failed"]).await;
    let good = app.publish("job.failed", json!({})).await;
    app.delivery_ended(&good, "delivered").await;
    let off = app.endpoint_to(&receiver, &["post.created"]).await;
    app.caller().patch(&format!("/v1/webhook-endpoints/{}", off.id), json!({"isActive": false})).await.data(200);
    let skipped = app.publish("post.created", json!({})).await;
    let line: Value = serde_json::from_str(&tailing.line().await).unwrap();
    assert_eq!((&line["kind"], &line["status"]), (&json!("delivery"), &json!("skipped")));
    assert_eq!(line["eventId"], skipped.as_str());
}

#[tokio::test]
async fn it_goes_on_after_the_server_was_away() {
    let receiver = Receiver::start().await;
    let (mut app, _port) = app_with(&receiver).await;
    let key = app.caller().secret().unwrap().to_owned();
    let mut tailing = Tailing::start(&app, &key, &["--output", "json"]).await;
    app.stop().await;
    let lost = tailing.note().await;
    assert!(lost.contains("trying again, and going on from there"), "{lost}");
    app.start_again().await;
    let event = app.publish("job.failed", json!({})).await;
    let back = tailing.note().await;
    assert!(back.starts_with("back after"), "{back}");
    let line: Value = serde_json::from_str(&tailing.line().await).unwrap();
    assert_eq!(line["eventId"], event.as_str());
}

#[tokio::test]
async fn a_revoked_key_ends_it_with_3() {
    let receiver = Receiver::start().await;
    let (app, _port) = app_with(&receiver).await;
    let created = app.create_key("Acme", Mode::Live, &[Scope::WebhooksRead], None).await;
    let mut tailing = Tailing::start(&app, created.secret.reveal(), &[]).await;
    app.server().operator().revoke_api_key(created.key.id).await.unwrap();
    assert_eq!(tailing.ended().await, Some(3));
    let said = tailing.note().await;
    assert!(said.contains("key_revoked") && !said.contains(created.secret.reveal()), "{said}");
}

#[tokio::test]
async fn an_interrupt_ends_it_as_a_shell_expects() {
    use std::os::unix::process::ExitStatusExt as _;
    let receiver = Receiver::start().await;
    let (app, _port) = app_with(&receiver).await;
    let key = app.caller().secret().unwrap().to_owned();
    for (signal, number) in [("-INT", 2), ("-TERM", 15)] {
        let mut tailing = Tailing::start(&app, &key, &[]).await;
        let id = tailing.child.id().unwrap().to_string();
        assert!(std::process::Command::new("kill").args([signal, &id]).status().unwrap().success());
        let status = bounded("the end of tail", tailing.child.wait()).await.unwrap();
        assert_eq!(status.signal(), Some(number), "130 and 143 in a shell");
    }
}
