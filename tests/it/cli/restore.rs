//! `postrider restore` with the real binary: a restored copy sends nothing until it is the only one.

use std::path::Path;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::new_data_dir;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::postgres::TestDatabase;
use crate::support::process::{Serving, create_key, path_text, postrider};
use crate::support::receiver::{Behaviour, Receiver};
use crate::support::wait::eventually;

const SCOPES: &[&str] = &[
    "--workspace",
    "Acme",
    "--scope",
    "webhooks:manage",
    "--scope",
    "webhooks:read",
    "--scope",
    "events:write",
    "--scope",
    "events:read",
];
const LOOPBACK: &[&str] = &["--allow-target", "127.0.0.1"];

/// Runs a command that must succeed. Returns its output.
async fn good(arguments: &[&str]) -> String {
    let ended = postrider(arguments).await;
    assert!(ended.status.success(), "{arguments:?}: {}", ended.stderr);
    ended.stdout
}

/// An endpoint with one delivered event, and one whose delivery waits for its retry. Returns the endpoint's id.
async fn fill(caller: &Caller, receiver: &Receiver) -> String {
    let endpoint = json!({"name": "A receiver", "url": receiver.url("/hook"), "events": ["post.created"]});
    let endpoint = text(&caller.post("/v1/webhook-endpoints", endpoint).await.data(200), "id");
    receiver.then(Behaviour::status(200)).then(Behaviour::status(500));
    for _ in 0..2 {
        caller.post("/v1/events", event()).await.data(202);
        receiver.wait_for(1).await;
    }
    let has_both = || async {
        let listed = caller.get("/v1/webhook-deliveries").await.data(200);
        let is = |status: &str, outcome: &str| {
            let matches = |row: &Value| row["status"] == status && row["lastOutcome"] == outcome;
            listed.as_array().unwrap().iter().any(matches)
        };
        (is("delivered", "delivered") && is("pending", "http_error")).then_some(())
    };
    eventually("one is delivered and one has failed once", has_both).await;
    endpoint
}

fn event() -> Value {
    json!({"type": "post.created", "data": {}})
}

fn execute(directory: &Path, sql: &str) {
    Connection::open(directory.join("postrider.db")).unwrap().execute_batch(sql).unwrap();
}

/// What every restored copy promises: it answers reads, refuses what would be sent, and sends nothing that is due.
async fn check_quiet(server: &Serving, key: &str, endpoint: &str, receiver: &Receiver) {
    let before = receiver.counts().requests;
    let caller = server.caller().key(key);
    let health = server.caller().get("/v1/health").await;
    assert_eq!((health.status, &health.json()["restoredCopy"]), (200, &Value::Bool(true)));
    let deliveries = caller.get("/v1/webhook-deliveries").await.data(200);
    let delivery = text(&deliveries[0], "id");
    for (path, body) in [
        ("/v1/events".to_owned(), event()),
        ("/v1/events/batch".to_owned(), json!({"events": [event()]})),
        (format!("/v1/webhook-deliveries/{delivery}/retry"), json!({})),
        ("/v1/webhook-deliveries/retry".to_owned(), json!({"ids": [delivery]})),
        (format!("/v1/webhook-endpoints/{endpoint}/test"), json!({})),
        (format!("/v1/webhook-endpoints/{endpoint}/replay"), json!({"since": "2026-01-01T00:00:00.000Z"})),
    ] {
        let error = caller.post(&path, body).await.error(503, "service_unavailable");
        assert_eq!(error["details"]["reason"], "restored_copy", "{path}: {error}");
    }
    let renamed = caller.patch(&format!("/v1/webhook-endpoints/{endpoint}"), json!({"name": "Another name"})).await;
    assert_eq!(renamed.data(200)["name"], "Another name", "what sends nothing is possible");
    assert!(server.log().iter().any(|line| line.contains("the store is a restored copy")));
    assert_eq!(receiver.counts().requests, before);
}

#[tokio::test]
async fn a_restored_copy_sends_nothing_until_it_is_the_only_one() {
    let (parent, data_dir) = new_data_dir();
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    let server = Serving::start(&data_dir, LOOPBACK).await;
    let endpoint = fill(&server.caller().key(&key), &receiver).await;
    let (to, restored) = (parent.path().join("backup.db"), parent.path().join("restored"));
    good(&["backup", "--to", path_text(&to), "--data-dir", path_text(&data_dir)]).await;
    server.kill().await;

    let said = good(&["restore", "--from", path_text(&to), "--data-dir", path_text(&restored)]).await;
    assert!(said.contains("Start it once with --i-am-the-only-one"), "{said}");
    std::fs::copy(data_dir.join("master.key"), restored.join("master.key")).unwrap();
    // The waiting retry is due at once, so an engine would claim it at its start.
    execute(&restored, "UPDATE due SET due_at = 0; UPDATE lanes SET next_at = 0");
    for _ in 0..2 {
        let server = Serving::start(&restored, LOOPBACK).await;
        check_quiet(&server, &key, &endpoint, &receiver).await;
        let data_dir = path_text(&restored);
        assert_eq!(good(&["health", "--data-dir", data_dir]).await, "ok, but a restored copy: it sends nothing\n");
        server.tell_to_stop().await;
        assert!(server.ended().await.0.success());
    }
    assert_eq!(receiver.counts().requests, 2);
    let server = Serving::start(&restored, &[LOOPBACK, &["--i-am-the-only-one"]].concat()).await;
    receiver.wait_for(3).await;
    server.tell_to_stop().await;
    server.ended().await;

    let server = Serving::start(&restored, LOOPBACK).await;
    let caller = server.caller().key(&key);
    assert_eq!(caller.get("/v1/health").await.json().get("restoredCopy"), None);
    caller.post("/v1/events", event()).await.data(202);
    receiver.wait_for(4).await;
}

#[tokio::test]
async fn a_plain_copy_of_a_backup_sends_nothing_either() {
    let (parent, data_dir) = new_data_dir();
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    let server = Serving::start(&data_dir, LOOPBACK).await;
    let endpoint = fill(&server.caller().key(&key), &receiver).await;
    let (to, copied) = (parent.path().join("backup.db"), parent.path().join("copied"));
    good(&["backup", "--to", path_text(&to), "--data-dir", path_text(&data_dir)]).await;
    server.kill().await;
    std::fs::create_dir(&copied).unwrap();
    std::fs::copy(&to, copied.join("postrider.db")).unwrap();
    std::fs::copy(data_dir.join("master.key"), copied.join("master.key")).unwrap();
    let server = Serving::start(&copied, LOOPBACK).await;
    check_quiet(&server, &key, &endpoint, &receiver).await;
}

#[tokio::test]
async fn a_store_that_others_restored_is_marked_by_command() {
    let (_parent, data_dir) = new_data_dir();
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let receiver = Receiver::start().await;
    let server = Serving::start(&data_dir, LOOPBACK).await;
    let endpoint = fill(&server.caller().key(&key), &receiver).await;
    let mark = ["restore", "--mark", "--data-dir", path_text(&data_dir)];
    assert!(postrider(&mark).await.failure().1.contains("stop its server first"));
    server.tell_to_stop().await;
    server.ended().await;
    good(&mark).await;
    let server = Serving::start(&data_dir, LOOPBACK).await;
    check_quiet(&server, &key, &endpoint, &receiver).await;
}

#[tokio::test]
async fn a_restored_postgresql_database_is_marked_by_command() {
    let Some(database) = TestDatabase::new().await else { return };
    let (parent, data_dir) = new_data_dir();
    let (key_file, url) = (parent.path().join("master.key"), database.url());
    std::fs::write(&key_file, "0f".repeat(32)).unwrap();
    let of_database = ["--database-url", url.as_str(), "--master-key-file", path_text(&key_file)];
    let key = text(&create_key(&data_dir, &[SCOPES, &of_database].concat()).await, "key");
    let receiver = Receiver::start().await;
    let arguments = [LOOPBACK, &of_database].concat();
    let server = Serving::start(&data_dir, &arguments).await;
    let endpoint = fill(&server.caller().key(&key), &receiver).await;
    server.tell_to_stop().await;
    server.ended().await;
    let said = good(&[&["restore", "--mark", "--data-dir", path_text(&data_dir)], &of_database[..]].concat()).await;
    assert!(said.starts_with("The store is marked as a restored copy."), "{said}");
    let server = Serving::start(&data_dir, &arguments).await;
    check_quiet(&server, &key, &endpoint, &receiver).await;
    server.tell_to_stop().await;
    server.ended().await;
    let server = Serving::start(&data_dir, &[&arguments[..], &["--i-am-the-only-one"]].concat()).await;
    server.caller().key(&key).post("/v1/events", event()).await.data(202);
    receiver.wait_for(3).await;
}

#[tokio::test]
async fn a_check_proves_the_key_and_finds_a_flipped_byte() {
    let (parent, data_dir) = new_data_dir();
    create_key(&data_dir, SCOPES).await;
    let (to, other) = (parent.path().join("backup.db"), parent.path().join("other.key"));
    good(&["backup", "--to", path_text(&to), "--data-dir", path_text(&data_dir)]).await;
    let key = data_dir.join("master.key");
    let check = ["restore", "--check", path_text(&to)];
    assert!(good(&check).await.contains("key       not checked"));
    let said = good(&[&check[..], &["--master-key-file", path_text(&key)]].concat()).await;
    assert!(said.contains("key       fits") && said.ends_with("good\n"), "{said}");
    std::fs::write(&other, "0f".repeat(32)).unwrap();
    let ended = postrider(&[&check[..], &["--master-key-file", path_text(&other)]].concat()).await;
    let (code, message) = ended.failure();
    assert_eq!(code, 1);
    assert!(message.contains("do not belong together: the store was made with the master key"), "{message}");
    let mut bytes = std::fs::read(&to).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x80;
    std::fs::write(&to, bytes).unwrap();
    let ended = postrider(&check).await;
    assert!(ended.failure().1.contains("the file was changed or damaged"), "{}", ended.stderr);
    let into = parent.path().join("restored");
    let ended = postrider(&["restore", "--from", path_text(&to), "--data-dir", path_text(&into)]).await;
    assert!(ended.failure().1.contains("the file was changed or damaged"), "{}", ended.stderr);
    let ended = postrider(&["restore", "--from", path_text(&to), "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.failure().1.contains("is not empty: restore into a new directory"), "{}", ended.stderr);
}
