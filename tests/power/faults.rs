//! Calls that fail: a full disk, a failed flush, short writes, no free descriptor. What the documentation says of each
//! is stated here once (`docs/operating.md`, "When the disk fails"); `world.rs` lets calls fail at random.

use std::path::PathBuf;

use bytes::Bytes;
use http::Method;
use serde_json::json;
use tempfile::TempDir;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::ledger::{Ledger, data_of};
use crate::server::{self, EIO, EMFILE, ENOSPC, Fault, Power, Running, SHORT};
use crate::support::app::text;
use crate::support::caller::{Caller, Reply};
use crate::support::process::{command, create_key, path_text, postrider};
use crate::support::receiver::Receiver;
use crate::support::wait::{bounded, eventually};

const SCOPES: &[&str] = &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"];
const ALWAYS: usize = 1_000_000;

/// A data directory with a key and an endpoint, whose disk fails while a file exists.
struct Desk {
    disk: Disk,
    flag: PathBuf,
    ledger: Ledger,
    receiver: Receiver,
    _directory: TempDir,
}

impl Desk {
    fn empty(receiver: Receiver) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let disk = Disk::new(directory.path().to_owned());
        let flag = disk.root().join("fails");
        Self { disk, flag, ledger: Ledger::default(), receiver, _directory: directory }
    }

    async fn new() -> Self {
        let mut desk = Self::empty(Receiver::start().await);
        desk.ledger.key = Some(text(&create_key(&desk.disk.data_dir(), SCOPES).await, "key"));
        let (running, caller) = desk.start(None).await;
        let body = json!({"name": "A", "url": desk.receiver.url("/"), "events": ["post.created"]});
        caller.post("/v1/webhook-endpoints", body).await.data(200);
        running.signal("-TERM");
        assert!(running.ended().await.status.success());
        desk
    }

    fn fault(call: &'static str, suffix: &'static str, errno: i32) -> Fault {
        Fault { call, suffix, errno, from: 1, count: ALWAYS }
    }

    fn power(&self, fault: Option<Fault>) -> Power {
        Power { fault, fault_while: Some(self.flag.clone()), ..Power::default() }
    }

    async fn start(&self, fault: Option<Fault>) -> (Running, Caller) {
        let mut command = server::serve(&self.disk, None);
        self.power(fault).apply(&mut command, &self.disk);
        let running = server::start(command).await.unwrap_or_else(|ended| panic!("no start: {ended:?}"));
        let caller = running.caller.key(self.ledger.key.as_deref().unwrap());
        (running, caller)
    }

    fn disk_fails(&self) {
        std::fs::write(&self.flag, "").unwrap();
    }

    fn disk_works(&self) {
        std::fs::remove_file(&self.flag).unwrap();
    }

    async fn publish(caller: &Caller, order: &str) -> Reply {
        let body = json!({"type": "post.created", "data": data_of(order, false), "externalId": order});
        caller.send(Method::POST, "/v1/events", Bytes::from(body.to_string())).await
    }

    async fn accept(&mut self, caller: &Caller, order: &str) {
        // What had no answer may hold nevertheless. It is recognised then.
        let reply = Self::publish(caller, order).await;
        let event = text(&reply.data(if reply.status == 200 { 200 } else { 202 }), "id");
        self.ledger.acknowledge(order, event).unwrap();
    }

    /// Fails the power, and checks that everything acknowledged is there.
    fn fail_power(&self, seed: u64) {
        self.disk.cut_power(&mut Chance::of(seed));
        self.ledger.check_database(&self.disk.data_dir(), &self.receiver.received()).unwrap();
    }
}

async fn health(caller: &Caller) -> u16 {
    caller.get("/v1/health").await.status
}

async fn is_healthy(caller: &Caller) {
    eventually("a healthy server", || async { (health(caller).await == 200).then_some(()) }).await;
}

async fn is_degraded(caller: &Caller) {
    eventually("a degraded server", || async { (health(caller).await == 503).then_some(()) }).await;
}

#[tokio::test]
async fn a_full_disk_refuses_events_until_there_is_room() {
    for (seed, errno) in [(1, ENOSPC), (2, EIO)] {
        let mut desk = Desk::new().await;
        let (running, caller) = desk.start(Some(Desk::fault("write", "-wal", errno))).await;
        desk.accept(&caller, "order-1").await;
        desk.disk_fails();
        let refused = Desk::publish(&caller, "order-2").await;
        refused.error(503, "service_unavailable");
        assert!(refused.header("retry-after").is_some());
        is_degraded(&caller).await;
        desk.disk_works();
        is_healthy(&caller).await;
        desk.accept(&caller, "order-2").await;
        desk.receiver.wait_for(2).await;
        running.signal("-KILL");
        running.ended().await;
        desk.fail_power(seed);
    }
}

#[tokio::test]
async fn a_failed_flush_refuses_writes_until_a_restart() {
    for seed in 0..4 {
        let mut desk = Desk::new().await;
        let (running, caller) = desk.start(Some(Fault { count: 1, ..Desk::fault("sync", "-wal", EIO) })).await;
        desk.accept(&caller, "order-1").await;
        desk.disk_fails();
        Desk::publish(&caller, "order-2").await.error(503, "service_unavailable");
        desk.disk_works();
        Desk::publish(&caller, "order-3").await.error(503, "service_unavailable");
        is_degraded(&caller).await;
        running.signal("-TERM");
        let ended = running.ended().await;
        let why = "cannot flush the write-ahead log: nothing more is written until a restart";
        assert!(ended.log.iter().any(|line| line.contains(why)), "{ended:?}");
        desk.fail_power(seed);

        let (_running, caller) = desk.start(None).await;
        desk.accept(&caller, "order-2").await;
        is_healthy(&caller).await;
    }
}

#[tokio::test]
async fn a_failed_flush_of_the_database_keeps_the_log() {
    for (seed, call) in [(0, "sync"), (1, "sync"), (2, "sync"), (3, "write")] {
        let mut desk = Desk::new().await;
        let (running, caller) = desk.start(Some(Desk::fault(call, ".db", EIO))).await;
        for order in 1..=20 {
            desk.accept(&caller, &format!("order-{order}")).await;
        }
        // The stop copies the log into the database.
        desk.disk_fails();
        running.signal("-TERM");
        running.ended().await;
        assert!(desk.disk.data_dir().join("postrider.db-wal").exists());
        desk.fail_power(seed);
    }
}

#[tokio::test]
async fn short_writes_are_continued() {
    for suffix in ["-wal", ".db"] {
        let mut desk = Desk::new().await;
        let (running, caller) = desk.start(Some(Desk::fault("write", suffix, SHORT))).await;
        desk.disk_fails();
        for order in 1..=5 {
            desk.accept(&caller, &format!("order-{order}")).await;
        }
        running.signal("-TERM");
        assert!(running.ended().await.status.success());
        desk.fail_power(7);
    }
}

#[tokio::test]
async fn a_first_start_on_a_failing_disk_names_it_and_can_be_repeated() {
    for (call, suffix, errno, cause) in [
        ("write", "postrider.db", ENOSPC, "full"),
        ("write", "-wal", ENOSPC, "full"),
        ("write", "master.key.new", ENOSPC, "No space left on device"),
        ("sync", "master.key.new", EIO, "Input/output error"),
        ("sync", "/disk/", EIO, "Input/output error"),
        ("open", "master.key.new", EMFILE, "Too many open files"),
        ("open", "/lock", EMFILE, "Too many open files"),
        ("open", "postrider.db", EMFILE, "Too many open files"),
    ] {
        let desk = Desk::empty(Receiver::start().await);
        desk.disk_fails();
        let data_dir = desk.disk.data_dir();
        let create = ["keys", "create", "--workspace", "Acme", "--data-dir", path_text(&data_dir)];
        let mut first = command(&create);
        desk.power(Some(Desk::fault(call, suffix, errno))).apply(&mut first, &desk.disk);
        let output = bounded("a command that ends", first.output()).await.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{call} {suffix}: {error}");
        assert!(error.contains(cause) && !error.contains("panicked"), "{call} {suffix}: {error}");
        desk.disk.cut_power(&mut Chance::of(1));
        let again = postrider(&create).await;
        assert!(again.status.success(), "{call} {suffix}: {}", again.stderr);
    }
}
