//! The master key changes under several nodes: every delivery is signed with its endpoint's secret at the first
//! attempt, and a node that stood still for the whole change ends by itself.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::postgres::TestDatabase;
use crate::support::process::{Ended, Serving, command, create_key, path_text, postrider};
use crate::support::receiver::Receiver;
use crate::support::verify::verify_as_integrator;
use crate::support::wait::{eventually, within};

/// A node that stands still counts as gone after ten seconds, and each phase takes some seconds.
const LONGEST: Duration = Duration::from_secs(90);

struct Desk {
    parent: TempDir,
    database: TestDatabase,
    old: PathBuf,
    new: PathBuf,
    key: String,
}

impl Desk {
    async fn new() -> Option<Self> {
        let database = TestDatabase::new().await?;
        let parent = tempfile::tempdir().unwrap();
        let (old, new) = (parent.path().join("old.key"), parent.path().join("new.key"));
        std::fs::write(&old, "0f".repeat(32)).unwrap();
        std::fs::write(&new, "a7".repeat(32)).unwrap();
        let mut desk = Self { parent, database, old, new, key: String::new() };
        let url = desk.database.url();
        let settings = desk.settings(&url, &desk.old);
        let scopes = ["webhooks:manage", "webhooks:read", "events:write"].map(|scope| ["--scope", scope]).concat();
        let arguments = [&settings[..], &["--workspace", "Acme"], &scopes].concat();
        desk.key = text(&create_key(&desk.parent.path().join("command"), &arguments).await, "key");
        Some(desk)
    }

    fn settings<'a>(&self, url: &'a str, key_file: &'a Path) -> [&'a str; 6] {
        ["--database-url", url, "--database-pool-size", "6", "--master-key-file", path_text(key_file)]
    }

    async fn node(&self, name: &str, key_file: &Path) -> (Serving, Caller) {
        let url = self.database.url();
        let arguments = [&self.settings(&url, key_file)[..], &["--allow-target", "127.0.0.1"]].concat();
        let server = Serving::start(&self.parent.path().join(name), &arguments).await;
        let caller = server.caller().key(&self.key);
        (server, caller)
    }

    /// Runs the command at the node with this name, or beside the nodes.
    async fn rotate(&self, at: &str) -> Ended {
        let url = self.database.url();
        let directory = self.parent.path().join(at);
        let files = ["--new-key-file", path_text(&self.new), "--data-dir", path_text(&directory)];
        let arguments = [&["keys", "rotate-master"], &self.settings(&url, &self.old)[..], &files].concat();
        let running = command(&arguments).output();
        let output: Output = within(LONGEST, running, || "the end of the change".to_owned()).await.unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
    }
}

async fn create_endpoint(caller: &Caller, receiver: &Receiver, event: &str) -> String {
    let body = json!({"name": "A", "url": receiver.url("/"), "events": [event], "headers": {"X-Token": "t"}});
    text(&caller.post("/v1/webhook-endpoints", body).await.data(200), "secret")
}

/// Publishes at both nodes in turn, and now and then creates an endpoint, until `over`. Returns the number of events.
async fn work(callers: [Caller; 2], receiver: &Receiver, over: &CancellationToken) -> usize {
    let mut published = 0;
    while !over.is_cancelled() {
        let caller = &callers[published % 2];
        caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
        published += 1;
        if published % 20 == 0 {
            create_endpoint(caller, receiver, "job.failed").await;
        }
    }
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delivery_fails_while_the_master_key_changes() {
    let Some(desk) = Desk::new().await else { return };
    let receiver = Receiver::start().await;
    let (first, caller) = desk.node("first", &desk.old).await;
    let (second, other) = desk.node("second", &desk.old).await;
    let secret = create_endpoint(&caller, &receiver, "post.created").await;
    let over = CancellationToken::new();
    let changing = async {
        let ended = desk.rotate("first").await;
        over.cancel();
        ended
    };
    let (published, ended) = tokio::join!(work([caller.clone(), other.clone()], &receiver, &over), changing);
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(published > 10, "{published}");
    let arrived = receiver.wait_for(published).await;
    for request in &arrived {
        verify_as_integrator(&secret, request).unwrap();
        assert_eq!(request.header("scripe-delivery-attempt"), Some("1"));
    }
    // The endpoints that were created meanwhile work too, at either node.
    let (_third, third_caller) = desk.node("third", &desk.new).await;
    let jobs = third_caller.get("/v1/webhook-endpoints?limit=200").await.data(200);
    let jobs = jobs.as_array().unwrap().iter().filter(|one| one["events"] == json!(["job.failed"])).count();
    third_caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    receiver.wait_for(published + jobs).await;
    for server in [&first, &second] {
        let log = server.log();
        assert!(!log.iter().any(|line| line.contains("cannot sign") || line.contains("\"ERROR\"")), "{log:?}");
    }
    let url = desk.database.url();
    let listed = postrider(&[&["keys", "list"], &desk.settings(&url, &desk.old)[..]].concat()).await;
    assert!(listed.failure().1.contains("was replaced by"), "{}", listed.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_slept_through_the_change_does_no_harm_and_ends() {
    let Some(desk) = Desk::new().await else { return };
    let receiver = Receiver::start().await;
    let (_first, caller) = desk.node("first", &desk.old).await;
    let secret = create_endpoint(&caller, &receiver, "post.created").await;
    let (sleeper, _) = desk.node("sleeper", &desk.old).await;
    sleeper.pause().await;
    let ended = desk.rotate("beside").await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stderr.contains("waiting for the running nodes"), "{}", ended.stderr);
    sleeper.go_on().await;
    let (status, log) = sleeper.ended().await;
    assert!(!status.success());
    assert!(log.iter().any(|line| line.contains("cannot use its master key any more")), "{log:?}");
    caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202);
    let arrived = receiver.wait_for(1).await;
    verify_as_integrator(&secret, &arrived[0]).unwrap();
    let settled = || async {
        let delivery = caller.get("/v1/webhook-deliveries").await.data(200)[0].take();
        (delivery["status"] == "delivered").then_some(())
    };
    eventually("the delivery", settled).await;
}
