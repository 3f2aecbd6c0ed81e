//! `postrider store copy` with the real binary: it copies a store, is killed halfway, and resumes.

use std::path::Path;
use std::process::Stdio;

use rusqlite::Connection;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::postgres::TestDatabase;
use crate::support::process::{Ended, command, create_key, path_text, postrider};
use crate::support::wait::{bounded, eventually};

/// Enough for many batches.
const EVENTS: u32 = 30_000;

/// Fills a store as if [`EVENTS`] events had been accepted for one endpoint.
fn fill(data_dir: &Path) {
    let database = Connection::open(data_dir.join("postrider.db")).unwrap();
    let first = 3_700_000_000_000_000_000_i64;
    let keys = format!("WITH RECURSIVE n (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM n WHERE n < {} - 1)", EVENTS);
    database
        .execute_batch(&format!(
            "BEGIN;
             INSERT INTO endpoints (key, id, workspace_key, name, url, events, is_active, secret_version, secret_last4, updated_at)
                 SELECT 2, 'whe_0000000000000000', key, 'n', 'https://example.com/', 'post.created', 1, 1, '0000', 0 FROM workspaces;
             {keys} INSERT INTO events (key, workspace_key, mode, type, deliveries, envelope)
                 SELECT {first} + n, (SELECT key FROM workspaces), 0, 'post.created', 1, randomblob(300) FROM n;
             {keys} INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, cause)
                 SELECT {first} + n, (SELECT key FROM workspaces), 2, {first} + n, 0, 0, 0 FROM n;
             {keys} INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version)
                 SELECT {first} + n, 2, {first} + n, n, 0, 0, 1 FROM n;
             INSERT INTO lanes (lane_key, workspace_key, next_at) SELECT 2, key, 0 FROM workspaces;
             COMMIT"
        ))
        .unwrap();
}

/// Runs the copy. Repeats it while a killed copy still holds its locks.
async fn copy(from: &str, to: &str) -> Ended {
    let run = || async {
        let ended = postrider(&["store", "copy", "--from", from, "--to", to]).await;
        let is_busy = ended.stderr.contains("is running") || ended.stderr.contains("in use by another");
        (!is_busy).then_some(ended)
    };
    eventually("the end of another copy", run).await
}

/// The counts printed for a table.
fn counts<'a>(ended: &'a Ended, table: &str) -> Vec<&'a str> {
    let row = ended.stdout.lines().find(|line| line.starts_with(&format!("{table} ")));
    row.expect("a row for each table").split_whitespace().skip(1).collect()
}

#[tokio::test]
async fn a_killed_copy_resumes_without_missing_or_duplicate_rows() {
    let Some(database) = TestDatabase::new().await else { return };
    let (parent, data_dir) = new_data_dir();
    let created = create_key(&data_dir, &["--workspace", "Acme", "--scope", "webhooks:read"]).await;
    fill(&data_dir);
    let (from, url, key_file) = (path_text(&data_dir), database.url(), data_dir.join("master.key"));
    let mut killed = command(&["store", "copy", "--from", from, "--to", &url]).stderr(Stdio::null()).spawn().unwrap();
    let client = database.client().await;
    let begun = || async {
        let found = client.query_opt("SELECT 1 FROM meta WHERE name = 'copy:events'", &[]).await;
        found.ok().flatten()
    };
    eventually("the first batch of events", begun).await;
    bounded("the end of a killed process", killed.kill()).await.unwrap();
    let keys_list = async |key_file: &Path| {
        postrider(&["keys", "list", "--database-url", &url, "--master-key-file", path_text(key_file)]).await
    };
    let refused = keys_list(&key_file).await;
    assert!(refused.failure().1.contains("an unfinished copy"), "{}", refused.stderr);
    let ended = copy(from, &url).await;
    assert!(ended.status.success(), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("rows were copied before"), "{}", ended.stderr);
    for table in ["events", "deliveries", "due"] {
        assert_eq!(counts(&ended, table), ["30000", "30000", "equal"]);
        let row = client.query_one(&format!("SELECT COUNT(*) FROM {table}"), &[]).await.unwrap();
        assert_eq!(row.get::<_, i64>(0), i64::from(EVENTS));
    }
    let listed = keys_list(&key_file).await;
    assert!(listed.stdout.contains(&text(&created, "id")), "{}{}", listed.stdout, listed.stderr);
    let other_key = parent.path().join("other.key");
    std::fs::write(&other_key, "0f".repeat(32)).unwrap();
    assert!(keys_list(&other_key).await.failure().1.contains("master key"));
    let again = copy(from, &url).await;
    assert!(again.failure().1.contains("is not empty"), "{}", again.stderr);
    let back = parent.path().join("back");
    let ended = copy(&url, path_text(&back)).await;
    assert!(ended.status.success() && counts(&ended, "events") == ["30000", "30000", "equal"], "{}", ended.stderr);
    std::fs::copy(key_file, back.join("master.key")).unwrap();
    let listed = postrider(&["keys", "list", "--data-dir", path_text(&back)]).await;
    assert!(listed.stdout.contains(&text(&created, "id")), "{}{}", listed.stdout, listed.stderr);
}

#[tokio::test]
async fn a_failed_copy_is_reported_without_the_password() {
    let (parent, data_dir) = new_data_dir();
    let elsewhere = parent.path().join("elsewhere");
    let (from, to) = (path_text(&data_dir), path_text(&elsewhere));
    let ended = postrider(&["store", "copy", "--from", from, "--to", to]).await;
    assert!(ended.failure().1.contains("does not exist"), "{}", ended.stderr);
    assert!(!data_dir.exists() && !elsewhere.exists(), "nothing is made by a copy of nothing");
    create_key(&data_dir, &["--workspace", "Acme"]).await;
    for url in ["postgres://alice:hunter2@127.0.0.1:1/hooks", "mysql://alice:hunter2@db/hooks"] {
        let ended = postrider(&["store", "copy", "--from", from, "--to", url]).await;
        assert_eq!(ended.failure().0, 1);
        assert!(!ended.stderr.contains("hunter2") && !ended.stdout.contains("hunter2"), "{}", ended.stderr);
    }
}

#[tokio::test]
async fn a_text_that_the_target_cannot_hold_is_named_or_replaced() {
    let Some(database) = TestDatabase::new().await else { return };
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--name", "Key"]).await;
    let source = Connection::open(data_dir.join("postrider.db")).unwrap();
    // As an older version accepted it.
    source.execute("UPDATE api_keys SET name = 'a' || char(0) || 'b'", []).unwrap();
    let key: i64 = source.query_row("SELECT key FROM api_keys", [], |row| row.get(0)).unwrap();
    drop(source);
    let (from, url) = (path_text(&data_dir), database.url());
    let refused = copy(from, &url).await;
    let named = format!("cannot hold the column name of the row key = {key} in the table api_keys");
    assert!(refused.failure().1.contains(&named) && refused.stderr.contains("--replace-nul"), "{}", refused.stderr);
    let run = || async {
        let ended = postrider(&["store", "copy", "--replace-nul", "--from", from, "--to", &url]).await;
        (!ended.stderr.contains("is running")).then_some(ended)
    };
    let ended = eventually("the end of the refused copy", run).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let noted = format!("api_keys: U+0000 was replaced in the column name of the row key = {key}");
    assert!(ended.stderr.contains(&noted), "{}", ended.stderr);
    let row = database.client().await.query_one("SELECT name FROM api_keys", &[]).await.unwrap();
    assert_eq!(row.get::<_, &str>(0), "a\u{fffd}b");
}

#[tokio::test]
async fn a_compaction_that_is_killed_leaves_a_working_store() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    fill(&data_dir);
    let count = || {
        let database = Connection::open(data_dir.join("postrider.db")).unwrap();
        let checked: String = database.query_row("PRAGMA quick_check", [], |row| row.get(0)).unwrap();
        assert_eq!(checked, "ok");
        database.query_row("SELECT COUNT(*) FROM events", [], |row| row.get::<_, u32>(0)).unwrap()
    };
    let (rest, arguments) =
        (data_dir.join("postrider.db.compact"), ["store", "compact", "--data-dir", path_text(&data_dir)]);
    // From its first byte to its last: each round kills it a megabyte later.
    for megabytes in 0..6 {
        let mut child = command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let has_come_so_far = || {
            let has_written = std::fs::metadata(&rest).is_ok_and(|file| file.len() >= megabytes * 1_000_000);
            let outcome = (has_written || matches!(child.try_wait(), Ok(Some(_)))).then_some(());
            async move { outcome }
        };
        eventually("the compaction comes so far", has_come_so_far).await;
        bounded("the kill", child.kill()).await.unwrap();
        assert_eq!(count(), EVENTS);
    }
    let ended = eventually("the lock of a killed process", || async {
        let ended = postrider(&arguments).await;
        (!ended.stderr.contains("in use by another")).then_some(ended)
    })
    .await;
    assert!(ended.status.success(), "{}", ended.stderr);
    assert!(ended.stdout.starts_with("compacted from "), "{}", ended.stdout);
    assert_eq!(count(), EVENTS);
    assert!(!rest.exists());
}
