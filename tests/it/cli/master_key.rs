//! `postrider keys rotate-master` and `--master-key-command` with the real binary: while a server runs, without one,
//! and after a kill at every step.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::process::{Ended, Serving, create_key, path_text, postrider};
use crate::support::receiver::Receiver;
use crate::support::verify::{verify_as_integrator, verify_public};
use crate::support::wait::bounded;

const SCOPES: &[&str] =
    &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "webhooks:read", "--scope", "events:write"];

/// A data directory with an endpoint that uses everything that is sealed, and two key files: the old and the new one.
struct Desk {
    _parent: TempDir,
    data_dir: PathBuf,
    old: PathBuf,
    new: PathBuf,
    key: String,
    receiver: Receiver,
    arrived: usize,
    endpoint: Value,
}

/// The request that creates the endpoint. Its answer holds a secret, so it is kept sealed.
fn creation(receiver: &Receiver) -> Value {
    json!({
        "name": "A",
        "url": receiver.url("/"),
        "events": ["job.failed"],
        "headers": {"X-Token": "hush-hush"},
        "signatureSchemes": ["v1", "v1a"],
    })
}

impl Desk {
    async fn new() -> Self {
        let (parent, data_dir) = new_data_dir();
        let (old, new) = (parent.path().join("old.key"), parent.path().join("new.key"));
        std::fs::write(&old, "0f".repeat(32)).unwrap();
        std::fs::write(&new, "a7".repeat(32)).unwrap();
        let arguments = [SCOPES, &["--master-key-file", path_text(&old)]].concat();
        let key = text(&create_key(&data_dir, &arguments).await, "key");
        let receiver = Receiver::start().await;
        let mut desk = Self { _parent: parent, data_dir, old, new, key, receiver, arrived: 0, endpoint: Value::Null };
        let (server, caller) = desk.start(&desk.old).await;
        let created = caller.keyed("create").post("/v1/webhook-endpoints", creation(&desk.receiver)).await;
        desk.endpoint = created.data(200);
        server.kill().await;
        desk
    }

    async fn start(&self, key_file: &Path) -> (Serving, Caller) {
        let settings = ["--allow-target", "127.0.0.1", "--rate-limit-management", "0"];
        let arguments = [&settings[..], &["--master-key-file", path_text(key_file)]].concat();
        let server = Serving::start(&self.data_dir, &arguments).await;
        let caller = server.caller().key(&self.key);
        (server, caller)
    }

    /// Delivers an event, and checks its signatures, its secret header and the remembered answer.
    async fn check(&mut self, caller: &Caller) {
        caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
        self.arrived += 1;
        let arrived = self.receiver.wait_for(self.arrived).await;
        let last = &arrived[self.arrived - 1];
        verify_as_integrator(&text(&self.endpoint, "secret"), last).unwrap();
        verify_public(&text(&self.endpoint, "publicKey"), last).unwrap();
        assert_eq!(last.header("x-token"), Some("hush-hush"));
        let again = caller.keyed("create").post("/v1/webhook-endpoints", creation(&self.receiver)).await;
        assert_eq!(again.data(200)["secret"], self.endpoint["secret"], "the answer was remembered");
    }

    async fn rotate(&self, current: &Path, new: &Path) -> Ended {
        let command = ["keys", "rotate-master", "--data-dir", path_text(&self.data_dir)];
        let files = ["--master-key-file", path_text(current), "--new-key-file", path_text(new)];
        postrider(&[&command[..], &files].concat()).await
    }

    /// One request to the running server, as the command sends it.
    async fn step(&self) -> Value {
        let digits = std::fs::read_to_string(&self.new).unwrap();
        let mut stream = UnixStream::connect(self.data_dir.join("admin.sock")).await.unwrap();
        stream.write_all(format!("{}\n", json!({"do": "rotate_master", "key": digits})).as_bytes()).await.unwrap();
        let mut answer = String::new();
        bounded("an answer", BufReader::new(stream).read_line(&mut answer)).await.unwrap();
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["done"], "master_rotated", "{answer}");
        answer["progress"]["stage"].clone()
    }

    /// Why a server does not start with this key.
    async fn refusal(&self, key_file: &Path) -> String {
        let command = ["serve", "--listen", "127.0.0.1:0", "--data-dir", path_text(&self.data_dir)];
        let ended = postrider(&[&command[..], &["--master-key-file", path_text(key_file)]].concat()).await;
        ended.failure().1.lines().last().unwrap().to_owned()
    }
}

#[tokio::test]
async fn the_master_key_changes_while_the_server_runs() {
    let mut desk = Desk::new().await;
    let (server, caller) = desk.start(&desk.old).await;
    desk.check(&caller).await;
    let ended = desk.rotate(&desk.old, &desk.new).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    for line in ["every node learns", "sealed with the new key", "4 values sealed anew; the change is complete"] {
        assert!(ended.stderr.contains(line), "{}", ended.stderr);
    }
    desk.check(&caller).await;
    let again = desk.rotate(&desk.new, &desk.new).await;
    assert!(again.status.success() && again.stderr.contains("nothing to do"), "{}", again.stderr);
    // A second endpoint is sealed by the new key.
    caller.post("/v1/webhook-endpoints", creation(&desk.receiver)).await.data(200);
    server.tell_to_stop().await;
    let (_, log) = server.ended().await;
    for line in log.iter().chain([&ended.stdout, &ended.stderr]) {
        assert!(!line.contains(&"a7".repeat(32)) && !line.contains(&"0f".repeat(32)), "a key is shown: {line}");
    }

    let refusal = desk.refusal(&desk.old).await;
    assert!(refusal.contains("was replaced by") && refusal.contains("start with the new key"), "{refusal}");
    let (_server, caller) = desk.start(&desk.new).await;
    caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    let arrived = desk.receiver.wait_for(desk.arrived + 2).await;
    let secret = text(&desk.endpoint, "secret");
    assert_eq!(arrived.iter().skip(desk.arrived).filter(|one| verify_as_integrator(&secret, one).is_ok()).count(), 1);
}

#[tokio::test]
async fn a_change_survives_a_kill_at_every_step_with_either_key() {
    let mut desk = Desk::new().await;
    let (server, caller) = desk.start(&desk.old).await;
    // More than one request seals anew, so that a kill also comes in the middle of the walk.
    let mut creating = JoinSet::new();
    for number in 0..1_050 {
        let (caller, url) = (caller.clone(), desk.receiver.url("/"));
        creating.spawn(async move {
            let project = format!("p{}", number % 5);
            let body = json!({"name": "B", "url": url, "events": ["post.created"], "projectId": project});
            caller.post("/v1/webhook-endpoints", body).await.data(200)
        });
        if creating.len() >= 16 {
            creating.join_next().await.unwrap().unwrap();
        }
    }
    let last = creating.join_all().await.pop().unwrap();
    server.kill().await;

    let mut stages: Vec<String> = Vec::new();
    while stages.last().is_none_or(|stage| stage != "done") {
        assert!(stages.len() < 20, "{stages:?}");
        if !stages.is_empty() {
            let (server, caller) = desk.start(&desk.new).await;
            desk.check(&caller).await;
            server.kill().await;
        }
        let (server, caller) = desk.start(&desk.old).await;
        desk.check(&caller).await;
        stages.push(text(&desk.step().await, "stage"));
        server.kill().await;
    }
    assert_eq!(stages, ["begun", "begun", "begun", "resealing", "done"]);
    assert!(desk.refusal(&desk.old).await.contains("was replaced by"));
    let (_server, caller) = desk.start(&desk.new).await;
    desk.check(&caller).await;
    caller.post(&format!("/v1/webhook-endpoints/{}/test", text(&last, "id")), json!({})).await;
    // An attempt whose outcome was not yet written at a kill is made again, so a former event may come before the test.
    let secret = text(&last, "secret");
    let mut arrived = desk.arrived + 1;
    while verify_as_integrator(&secret, &desk.receiver.wait_for(arrived).await[arrived - 1]).is_err() {
        arrived += 1;
    }
}

#[tokio::test]
async fn a_server_killed_under_the_command_loses_nothing() {
    let mut desk = Desk::new().await;
    for round in 0..3 {
        let (server, _) = desk.start(&desk.old).await;
        let killing = async {
            if round > 0 {
                tokio::task::yield_now().await;
            }
            server.kill().await;
        };
        let (ended, ()) = tokio::join!(desk.rotate(&desk.old, &desk.new), killing);
        if ended.status.success() {
            break;
        }
    }
    let ended = desk.rotate(&desk.old, &desk.new).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(desk.refusal(&desk.old).await.contains("was replaced by"));
    let (_server, caller) = desk.start(&desk.new).await;
    desk.check(&caller).await;
}

#[tokio::test]
async fn only_one_change_runs_at_a_time_and_it_ends_without_a_server() {
    let mut desk = Desk::new().await;
    let (server, _) = desk.start(&desk.old).await;
    assert_eq!(desk.step().await["stage"], "begun");
    let third = desk.data_dir.join("third.key");
    std::fs::write(&third, "33".repeat(32)).unwrap();
    let refused = desk.rotate(&desk.old, &third).await;
    assert!(refused.failure().1.contains("the master key is being changed to"), "{}", refused.stderr);
    server.kill().await;
    let refused = desk.rotate(&desk.old, &third).await;
    assert!(refused.failure().1.contains("finish that change first"), "{}", refused.stderr);
    let refusal = desk.refusal(&third).await;
    assert!(refusal.contains("is neither: start with one of them"), "{refusal}");
    let elsewhere = desk.data_dir.with_file_name("elsewhere");
    let copied =
        postrider(&["store", "copy", "--from", path_text(&desk.data_dir), "--to", path_text(&elsewhere)]).await;
    assert!(copied.failure().1.contains("finish that with `postrider keys rotate-master` first"), "{}", copied.stderr);

    let ended = desk.rotate(&desk.old, &desk.new).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let again = desk.rotate(&desk.old, &desk.new).await;
    assert!(again.status.success() && again.stderr.contains("nothing to do"), "{}", again.stderr);
    // And on to a third key, then back to the first.
    assert!(desk.rotate(&desk.new, &third).await.status.success());
    assert!(desk.rotate(&third, &desk.old).await.status.success());
    let (_server, caller) = desk.start(&desk.old).await;
    desk.check(&caller).await;
}

#[tokio::test]
async fn an_unusable_new_key_file_changes_nothing() {
    let desk = Desk::new().await;
    let missing = desk.data_dir.join("missing.key");
    let refused = desk.rotate(&desk.old, &missing).await;
    assert!(refused.failure().1.contains("cannot read the master key file"), "{}", refused.stderr);
    std::fs::write(&missing, "0f0f").unwrap();
    let refused = desk.rotate(&desk.old, &missing).await;
    assert!(refused.failure().1.contains("64 hexadecimal digits"), "{}", refused.stderr);
    desk.start(&desk.old).await;
}

#[tokio::test]
async fn the_master_key_can_come_from_a_command() {
    let desk = Desk::new().await;
    let directory = path_text(&desk.data_dir);
    let command = format!("cat {}", path_text(&desk.old));
    let server = Serving::start(&desk.data_dir, &["--master-key-command", &command]).await;
    assert_eq!(server.caller().key(&desk.key).get("/v1/webhook-deliveries").await.status, 200);
    assert!(!server.log().iter().any(|line| line.contains(&command)), "{:?}", server.log());
    server.kill().await;
    let list = async |command: &str| {
        postrider(&["keys", "list", "--data-dir", directory, "--master-key-command", command]).await
    };
    assert!(list(&command).await.status.success());
    let refused = list("echo not logged in >&2; echo more >&2; exit 3").await;
    let expected = "postrider: cannot get the master key from its command (--master-key-command): \
                    the command failed (exit status: 3): not logged in";
    assert_eq!(refused.failure(), (1, expected));
    let refused = list("echo hunter2").await;
    assert!(refused.failure().1.contains("did not print 64 hexadecimal digits"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter2"), "{}", refused.stderr);
}
