//! `postrider erase`, with and without a running server, and over a kill.

use std::path::Path;

use serde_json::{Value, json};

use super::new_data_dir;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::files::count_in_files;
use crate::support::process::{Serving, create_key, path_text, postrider};
use crate::support::wait::eventually;

const MARKER: &str = "wx5-somebody-3k";
const SCOPES: &[&str] = &["--workspace", "Acme", "--scope", "events:write", "--scope", "events:read"];

async fn publish(caller: &Caller, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for start in (0..count).step_by(100) {
        let event = |number: usize| {
            let data = json!({ "text": MARKER.repeat(1 + number % 90) });
            json!({"type": "post.created", "projectId": "proj_1", "data": data})
        };
        let events: Vec<Value> = (start..count.min(start + 100)).map(event).collect();
        let receipts = caller.post("/v1/events/batch", json!({ "events": events })).await.data(202);
        ids.extend(receipts.as_array().unwrap().iter().map(|receipt| text(receipt, "id")));
    }
    ids
}

/// Runs `postrider erase` with `--yes`. Returns the erasures.
async fn erase(data_dir: &Path, arguments: &[&str]) -> Value {
    let mut all = vec!["erase"];
    all.extend_from_slice(arguments);
    all.extend_from_slice(&["--yes", "--json", "--data-dir", path_text(data_dir)]);
    let ended = postrider(&all).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("JSON")
}

#[tokio::test]
async fn the_command_erases_while_the_server_runs_and_without_it() {
    let (_parent, data_dir) = new_data_dir();
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let server = Serving::start(&data_dir, &[]).await;
    let caller = server.caller().key(&key);
    let ids = publish(&caller, 3).await;
    let erased = erase(&data_dir, &["event", &ids[0], "--wait"]).await;
    let shown = ["target", "status", "mode", "needsCompact"].map(|member| erased[0][member].clone());
    assert_eq!(shown, [json!(ids[0]), json!("erased"), json!("live"), json!(false)]);
    assert_eq!(caller.get(&format!("/v1/events/{}", ids[0])).await.data(200)["payload"], "erased");
    let audit = postrider(&["audit", "list", "--data-dir", path_text(&data_dir)]).await;
    assert!(audit.stdout.contains("erasure.started"), "{}", audit.stdout);
    server.kill().await;
    assert!(count_in_files(&data_dir, MARKER) > 0);
    let erased = erase(&data_dir, &["project", "proj_1", "--workspace", "Acme", "--wait"]).await;
    let modes: Vec<(&Value, &Value)> =
        erased.as_array().unwrap().iter().map(|erasure| (&erasure["mode"], &erasure["events"])).collect();
    assert_eq!(modes, [(&json!("live"), &json!(2)), (&json!("test"), &json!(0))]);
    assert_eq!(count_in_files(&data_dir, MARKER), 0);
}

#[tokio::test]
async fn the_command_refuses_what_it_cannot_ask_or_find() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, SCOPES).await;
    let run = async |arguments: &[&str]| {
        let mut all = vec!["erase"];
        all.extend_from_slice(arguments);
        all.extend_from_slice(&["--data-dir", path_text(&data_dir)]);
        let ended = postrider(&all).await;
        ended.failure().1.to_owned()
    };
    let event = "evt_0zzzzzzzzzzzzzzzzzzz";
    assert!(run(&["event", event]).await.contains("add --yes"));
    assert!(run(&["event", event, "--yes"]).await.contains("there is no event"));
    assert!(run(&["event", "order-1", "--yes"]).await.contains("is not the id of an event"));
    assert!(run(&["project", "p", "--workspace", "Nobody", "--yes"]).await.contains("there is no workspace"));
    assert!(run(&["project", "a b", "--workspace", "Acme", "--yes"]).await.contains("the project's id"));
    assert!(run(&["event", event, "--pending", "stop"]).await.contains("must be cancel or finish"));
}

#[tokio::test]
async fn an_erasure_goes_on_after_a_kill() {
    let (_parent, data_dir) = new_data_dir();
    let key = text(&create_key(&data_dir, SCOPES).await, "key");
    let server = Serving::start(&data_dir, &[]).await;
    let caller = server.caller().key(&key);
    publish(&caller, 3_000).await;
    let started = caller.post("/v1/erasures", json!({"projectId": "proj_1"})).await.data(202);
    let path = format!("/v1/erasures/{}", text(&started, "id"));
    let begun = || async {
        let shown = caller.get(&path).await.data(200);
        shown["events"].as_u64().filter(|events| *events > 0)
    };
    let before = eventually("the first events", begun).await;
    server.kill().await;
    let server = Serving::start(&data_dir, &[]).await;
    let caller = server.caller().key(&key);
    let ended = || async { Some(caller.get(&path).await.data(200)).filter(|shown| shown["status"] == "erased") };
    let ended = eventually("the end of the erasure", ended).await;
    assert!(before <= 3_000);
    assert_eq!(ended["events"], 3_000, "each event is counted once");
    assert_eq!(count_in_files(&data_dir, MARKER), 0, "while the server runs");
}
