//! Standard output and standard error whose reader is gone or stalls: the work goes on.

use std::fs::OpenOptions;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use super::new_data_dir;
use crate::support::app::text;
use crate::support::caller::Caller;
use crate::support::process::{Serving, command, create_key, path_text, serve};
use crate::support::receiver::{Answer, Behaviour, Receiver};
use crate::support::wait::{bounded, eventually};

const SCOPES: &[&str] = &["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"];
/// Two failures, so that a delivery has attempts that are logged.
const RETRIES: [&str; 4] = ["--allow-target", "127.0.0.0/8", "--retry-schedule", "1ms,1ms"];

/// Registers an endpoint whose receiver fails twice, and publishes an event to it.
async fn delivers(caller: &Caller, receiver: &Receiver) {
    let body = json!({"name": "A", "url": receiver.url("/"), "events": ["job.failed"]});
    let endpoint = caller.post("/v1/webhook-endpoints", body).await.data(200);
    assert!(text(&endpoint, "secret").starts_with("whsec_"));
    let before = receiver.received().len();
    receiver.then(Behaviour::status(500)).then(Behaviour::status(500)).otherwise(Answer::status(204));
    let event = caller.post("/v1/events", json!({"type": "job.failed", "data": {}})).await.data(202);
    receiver.wait_for(before + 3).await;
    let path = format!("/v1/webhook-deliveries?eventId={}&limit=1", text(&event, "id"));
    let delivered = eventually("a delivery that ended", || async {
        let list = caller.get(&path).await.json();
        (list["data"][0]["status"] == "delivered").then(|| text(&list["data"][0], "id"))
    });
    let delivery = caller.get(&format!("/v1/webhook-deliveries/{}", delivered.await)).await.data(200);
    assert_eq!(delivery["attempts"].as_array().map(Vec::len), Some(3), "{delivery}");
}

/// A standard output whose reader is gone: each write to it fails. A pipe whose reading end is dropped is not one at
/// once, because a process that another test starts at that moment has a copy of that end until it runs its program.
fn without_a_reader() -> Stdio {
    let (reader, writer) = UnixStream::pair().unwrap();
    reader.shutdown(Shutdown::Both).unwrap();
    OwnedFd::from(writer).into()
}

/// Runs a command to its end. `Command::output` would replace its standard output.
async fn ended(arguments: &[&str], stdout: Stdio) -> Output {
    let child = command(arguments).stdout(stdout).stderr(Stdio::piped()).spawn().unwrap();
    bounded("the end of a command", child.wait_with_output()).await.unwrap()
}

#[tokio::test]
async fn a_server_whose_log_has_no_reader_goes_on() {
    let (_parent, data_dir) = new_data_dir();
    let key = create_key(&data_dir, SCOPES).await;
    let (server, log) = Serving::unread(serve(&data_dir, &RETRIES)).await;
    drop(log);
    let receiver = Receiver::start().await;
    delivers(&server.caller().key(&text(&key, "key")), &receiver).await;
    server.tell_to_stop().await;
    assert!(server.ended().await.0.success());
}

#[tokio::test]
async fn a_stalled_log_holds_up_nothing_and_says_what_it_lost() {
    // As limits::LINE_QUEUE_BYTES: as much waits, as much is being written, and a pipe holds 64 KiB.
    const QUEUED_BYTES: usize = 2 * 2 * 1024 * 1024 + 64 * 1024;
    const PATH_BYTES: usize = 15_000;
    let (_parent, data_dir) = new_data_dir();
    let key = create_key(&data_dir, SCOPES).await;
    let (mut server, log) = Serving::unread(serve(&data_dir, &[&RETRIES[..], &["--log", "debug"]].concat())).await;
    let caller = server.caller().key(&text(&key, "key"));
    let long = format!("/v1/{}", "x".repeat(PATH_BYTES));
    for _ in 0..QUEUED_BYTES / PATH_BYTES + 20 {
        caller.get(&long).await.error(404, "not_found");
    }
    let receiver = Receiver::start().await;
    delivers(&caller, &receiver).await;

    server.go_on_reading(log);
    let lost = eventually("the line that counts what was dropped", || async {
        // A line that comes after the room is there again, so that a count is due.
        caller.get("/v1/health").await.json();
        let entries = server.log().into_iter().map(|line| serde_json::from_str::<Value>(&line).expect("whole lines"));
        entries.into_iter().find_map(|entry| entry["dropped_lines"].as_u64())
    });
    assert!(lost.await > 10);
    server.tell_to_stop().await;
    let (status, log) = server.ended().await;
    assert!(status.success() && log.last().unwrap().contains("stopped"), "{:?}", log.last());
}

#[tokio::test]
async fn a_try_out_goes_on_when_nobody_reads_its_screen() {
    let (_parent, data_dir) = new_data_dir();
    let arguments = ["dev", "--listen", "127.0.0.1:0", "--data-dir", path_text(&data_dir)];
    let mut child = command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = bounded("the first line", lines.next_line()).await.unwrap().unwrap();
    drop(lines);
    let address = first.rsplit_once("http://").unwrap().1.parse().unwrap();
    let state: Value = eventually("the end of the tour", || async {
        let state: Value = serde_json::from_slice(&std::fs::read(data_dir.join("dev.json")).ok()?).ok()?;
        let caller = Caller::stranger(address).key(state["apiKey"].as_str()?);
        let list = caller.get("/v1/webhook-deliveries?status=delivered").await.json();
        (list["data"].as_array()?.len() >= 9).then_some(state)
    })
    .await;
    // The key has the scope for the request that the page /dashboard/portal-embed writes.
    let caller = Caller::stranger(address).key(&text(&state, "apiKey"));
    caller.post("/v1/portal-sessions", json!({"projectId": "proj_demo"})).await.data(200);
    assert_eq!(Caller::stranger(address).get("/v1/health").await.status, 200);
    let id = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert!(bounded("the end of the process", child.wait()).await.unwrap().success());
}

#[tokio::test]
async fn a_command_ends_well_when_its_reader_has_gone() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, SCOPES).await;
    for what in ["keys", "workspaces", "audit"] {
        let output = ended(&[what, "list", "--data-dir", path_text(&data_dir)], without_a_reader()).await;
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_shown_is_named_in_the_error() {
    let (_parent, data_dir) = new_data_dir();
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    for (stdout, cause) in [(Stdio::from(full), "No space left"), (without_a_reader(), "Broken pipe")] {
        let arguments = ["keys", "create", "--workspace", "Acme", "--data-dir", path_text(&data_dir)];
        let output = ended(&arguments, stdout).await;
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.contains(cause), "{stderr}");
        assert!(stderr.contains("postrider: the key key_") && stderr.contains("revoke it"), "{stderr}");
    }
}

#[tokio::test]
async fn a_name_or_a_url_cannot_steer_the_terminal() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--name", "key"]).await;
    let database = rusqlite::Connection::open(data_dir.join("postrider.db")).unwrap();
    // As an older version accepted it, or another program wrote it.
    let evil = "a\u{1b}]0;title\u{7}\u{202e}b\nc";
    database.execute("UPDATE api_keys SET name = ?1", [evil]).unwrap();
    database.execute("UPDATE workspaces SET name = ?1", [evil]).unwrap();
    drop(database);
    let shown = r"a\u{1b}]0;title\u{7}\u{202e}b\nc";
    let data_dir = path_text(&data_dir);
    for what in ["keys", "workspaces"] {
        let listed = ended(&[what, "list", "--data-dir", data_dir], Stdio::piped()).await;
        let stdout = String::from_utf8(listed.stdout).unwrap();
        assert!(stdout.contains(shown) && !stdout.contains(['\u{1b}', '\u{202e}']), "{stdout:?}");
        let json = ended(&[what, "list", "--json", "--data-dir", data_dir], Stdio::piped()).await;
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(json[0]["name"], evil);
    }
    let refused = ended(&["doctor", "https://a\u{1b}[31m\u{202e}.example"], Stdio::piped()).await;
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && stderr.contains(r"a\u{1b}[31m\u{202e}"), "{stderr:?}");
    assert!(!stderr.contains(['\u{1b}', '\u{202e}']), "{stderr:?}");
}
