//! `postrider backup` with the real binary: beside a server, without one, killed, cancelled, and refused.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Child;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::process::{Serving, command, create_key, path_text, postrider};
use crate::support::receiver::Receiver;
use crate::support::scrape::Scrape;
use crate::support::wait::{bounded, eventually};

/// Makes the store of a stopped server larger, so that a slow backup takes seconds.
pub fn enlarge(data_dir: &Path) {
    let database = Connection::open(data_dir.join("postrider.db")).unwrap();
    database.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
    database.execute("INSERT INTO filler VALUES (randomblob(8000000))", []).unwrap();
}

/// A large store in a directory of its own, and where to put its backup.
async fn large_store() -> (TempDir, PathBuf, PathBuf) {
    let (parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    enlarge(&data_dir);
    let to = parent.path().join("backup.db");
    (parent, data_dir, to)
}

/// Waits for a line of the server's log, which a thread of its own writes.
async fn logged(server: &Serving, text: &str) {
    let is_logged = || async { server.log().iter().any(|line| line.contains(text)).then_some(()) };
    eventually(text, is_logged).await;
}

/// Starts a backup that takes about eight seconds, and waits until it has copied something.
async fn slow_backup(data_dir: &Path, to: &Path) -> Child {
    let mut slow = command(&["backup", "--rate", "1", "--to", path_text(to), "--data-dir", path_text(data_dir)]);
    let child = slow.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let partial = partial_of(to);
    let has_begun = || async { std::fs::metadata(&partial).is_ok_and(|file| file.len() > 500_000).then_some(()) };
    eventually("the backup copies", has_begun).await;
    child
}

fn partial_of(to: &Path) -> PathBuf {
    to.with_file_name("backup.db.partial")
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_busy_server_is_backed_up_and_shows_it_in_its_metrics() {
    let (parent, data_dir) = new_data_dir();
    let scopes = ["--workspace", "Acme", "--scope", "webhooks:manage", "--scope", "events:write"];
    let key = text(&create_key(&data_dir, &scopes).await, "key");
    enlarge(&data_dir);
    let receiver = Receiver::start().await;
    let arguments = ["--allow-target", "127.0.0.1", "--metrics-listen", "127.0.0.1:0"];
    let server = Serving::start(&data_dir, &arguments).await;
    let metrics = server.log().iter().find_map(|line| {
        let entry: Value = serde_json::from_str(line).ok()?;
        (entry["message"] == "serving metrics").then(|| entry["address"].as_str().unwrap().parse().unwrap())
    });
    let metrics = metrics.expect("a line that says where the metrics are");
    assert_eq!(Scrape::of(metrics).await.find("postrider_last_backup_timestamp_seconds"), None);
    let caller = server.caller().key(&key);
    let endpoint = json!({"name": "A receiver", "url": receiver.url("/hook"), "events": ["post.created"]});
    caller.post("/v1/webhook-endpoints", endpoint).await.data(200);

    let to = parent.path().join("backup.db");
    let mut taking = slow_backup(&data_dir, &to).await;
    // Events are accepted and delivered while it copies.
    for number in 0..10 {
        caller.post("/v1/events", json!({"type": "post.created", "data": {"number": number}})).await.data(202);
    }
    receiver.wait_for(10).await;
    assert!(partial_of(&to).exists(), "the backup still copies");
    assert!(bounded("the backup", taking.wait()).await.unwrap().success());

    assert_eq!(names(parent.path()), ["backup.db", "backup.db.manifest", "data"]);
    for name in ["backup.db", "backup.db.manifest"] {
        let mode = std::fs::metadata(parent.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let copied: u32 =
        Connection::open(&to).unwrap().query_row("SELECT COUNT(*) FROM events", [], |row| row.get(0)).unwrap();
    assert_eq!(copied, 0, "its snapshot is from before the events");
    let taken_at = Scrape::of(metrics).await.find("postrider_last_backup_timestamp_seconds").expect("a backup");
    assert!(taken_at > 1_700_000_000.0, "{taken_at}");
    logged(&server, "took a backup of the store").await;
}

#[tokio::test]
async fn a_stopped_store_is_backed_up_by_the_command_itself() {
    let (parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    let to = parent.path().join("backup.db");
    let arguments = ["backup", "--json", "--to", path_text(&to), "--data-dir", path_text(&data_dir)];
    let ended = postrider(&arguments).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(ended.stderr, "", "progress is for terminals");
    let manifest: Value = serde_json::from_str(&ended.stdout).unwrap();
    let written: Value =
        serde_json::from_slice(&std::fs::read(parent.path().join("backup.db.manifest")).unwrap()).unwrap();
    assert_eq!(manifest, written);
    assert_eq!(manifest["bytes"], std::fs::metadata(&to).unwrap().len());

    let refused = postrider(&arguments).await;
    let (code, message) = refused.failure();
    assert_eq!(code, 1);
    assert!(message.ends_with("backup.db exists: choose another name, or replace it with --force"), "{message}");
    let forced = postrider(&[&arguments[..], &["--force"]].concat()).await;
    assert!(forced.status.success(), "{}", forced.stderr);
    let wrong = postrider(&["backup", "--to", "/x", "--data-dir", path_text(&parent.path().join("none"))]).await;
    assert!(wrong.failure().1.contains("there is no SQLite store in"), "{}", wrong.stderr);
    assert!(!parent.path().join("none").exists());
    let url = ["backup", "--to", "/x", "--database-url", "postgres://nobody@127.0.0.1:1/none"];
    assert!(postrider(&url).await.failure().1.contains("use pg_dump"));
}

#[tokio::test]
async fn a_server_that_is_killed_leaves_a_rest_that_the_next_removes() {
    let (parent, data_dir, to) = large_store().await;
    let server = Serving::start(&data_dir, &[]).await;
    let mut taking = slow_backup(&data_dir, &to).await;
    server.kill().await;
    assert!(!bounded("the command", taking.wait()).await.unwrap().success());
    assert!(partial_of(&to).exists() && !to.exists());

    let server = Serving::start(&data_dir, &[]).await;
    let arguments = ["backup", "--rate", "0", "--to", path_text(&to), "--data-dir", path_text(&data_dir)];
    let ended = postrider(&arguments).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert_eq!(names(parent.path()), ["backup.db", "backup.db.manifest", "data"]);
    server.kill().await;
    let checked = postrider(&["restore", "--check", path_text(&to)]).await;
    assert!(checked.status.success(), "{}", checked.stderr);
}

#[tokio::test]
async fn a_backup_ends_with_its_command_or_with_the_server() {
    let (parent, data_dir, to) = large_store().await;
    let server = Serving::start(&data_dir, &[]).await;
    let mut taking = slow_backup(&data_dir, &to).await;
    bounded("the kill", taking.kill()).await.unwrap();
    let is_gone = || async { (names(parent.path()) == ["data"]).then_some(()) };
    eventually("the cancelled backup is removed", is_gone).await;
    logged(&server, "the backup was cancelled").await;

    let mut taking = slow_backup(&data_dir, &to).await;
    server.tell_to_stop().await;
    let (status, _) = server.ended().await;
    assert!(status.success());
    assert!(!bounded("the command", taking.wait()).await.unwrap().success());
    assert_eq!(names(parent.path()), ["data"]);
}

#[tokio::test]
async fn a_disk_that_takes_no_more_fails_the_backup_alone() {
    let (parent, data_dir, to) = large_store().await;
    // A file of this process may have two megabytes: the write fails as it does on a full disk.
    let script = "trap '' XFSZ; ulimit -f 2000; exec \"$0\" backup --to \"$1\" --data-dir \"$2\"";
    let binary = env!("CARGO_BIN_EXE_postrider");
    let mut limited = tokio::process::Command::new("/bin/bash");
    limited.args(["-c", script, binary, path_text(&to), path_text(&data_dir)]).env_clear();
    let output = bounded("the backup", limited.output()).await.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && stderr.contains("cannot write"), "{stderr}");
    assert_eq!(names(parent.path()), ["data"]);
    let ended = postrider(&["backup", "--to", path_text(&to), "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
}

#[tokio::test]
async fn a_folder_that_the_server_may_not_write_is_explained() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    let server = Serving::start(&data_dir, &[]).await;
    let to = ["backup", "--to", "/proc/backup.db", "--data-dir", path_text(&data_dir)];
    let ended = postrider(&to).await;
    assert!(ended.failure().1.contains("/proc/backup.db is not the path of a file in a folder that exists"));
    let inside = data_dir.join("backup.db");
    let ended = postrider(&["backup", "--to", path_text(&inside), "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.failure().1.contains("is in the data directory: choose a file elsewhere"), "{}", ended.stderr);
    server.kill().await;
}
