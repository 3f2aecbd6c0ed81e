//! The commands on PostgreSQL. No output may contain the database password.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::new_data_dir;
use crate::support::app::text;
use crate::support::postgres::TestDatabase;
use crate::support::process::{Ended, Serving, command, create_key, path_text, postrider};
use crate::support::wait::bounded;

/// The test server needs no password. The URL has one anyway, so that a test can look for it in the output.
fn url_with_password(database: &TestDatabase) -> String {
    let url = database.url();
    if url.contains(":hunter2@") { url } else { url.replacen('@', ":hunter2@", 1) }
}

/// Writes a master key file.
fn key_file(parent: &Path) -> PathBuf {
    let path = parent.join("shared.key");
    std::fs::write(&path, "0f".repeat(32)).unwrap();
    path
}

async fn run_with(variable: (&str, &str), arguments: &[&str]) -> Ended {
    let mut command = command(arguments);
    command.env(variable.0, variable.1);
    let output = bounded("a command that ends", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[tokio::test]
async fn config_check_shows_the_url_without_its_password() {
    let url = "postgres://alice:hunter2@db.internal/hooks?sslmode=require";
    let shown = "postgres://alice:***@db.internal/hooks?sslmode=require";
    for (name, variable) in
        [("database_url", "POSTRIDER_DATABASE_URL"), ("database_direct_url", "POSTRIDER_DATABASE_DIRECT_URL")]
    {
        let ended = run_with((variable, url), &["config", "check"]).await;
        let row = ended.stdout.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        assert!(row.contains(shown) && row.ends_with(&format!("environment {variable}")), "{row}");
        let help = run_with((variable, url), &["serve", "--help"]).await;
        let wrong = run_with((variable, "alice:hunter2@db.internal/hooks"), &["config", "check"]).await;
        assert!(wrong.failure().1.contains("is not a URL like postgres://"), "{}", wrong.stderr);
        for said in [ended.stdout, ended.stderr, help.stdout, help.stderr, wrong.stdout, wrong.stderr] {
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
}

#[tokio::test]
async fn an_unreachable_database_is_reported_without_its_password() {
    let (parent, data_dir) = new_data_dir();
    let key_file = key_file(parent.path());
    // Nothing listens on port 1.
    let url = "postgres://alice:hunter2@127.0.0.1:1/hooks";
    let more = ["--data-dir", path_text(&data_dir), "--master-key-file", path_text(&key_file)];
    for arguments in [
        &[&["serve", "--listen", "127.0.0.1:0", "--log", "trace"][..], &more].concat(),
        &[&["keys", "list"][..], &more].concat(),
        &vec!["doctor", "database"],
    ] {
        let ended = run_with(("POSTRIDER_DATABASE_URL", url), arguments).await;
        let (code, stderr) = ended.failure();
        assert_eq!(code, 1);
        assert!(stderr.to_lowercase().contains("connection refused"), "{stderr}");
        assert!(!stderr.contains("hunter2") && !ended.stdout.contains("hunter2"), "{stderr}{}", ended.stdout);
    }
}

#[tokio::test]
async fn commands_reach_the_database_with_and_without_a_server() {
    let Some(database) = TestDatabase::new().await else { return };
    let (parent, data_dir) = new_data_dir();
    let (key_file, url) = (key_file(parent.path()), url_with_password(&database));
    let more = ["--database-url", &url, "--master-key-file", path_text(&key_file)];
    let scope = ["--workspace", "Acme", "--scope", "webhooks:read"];
    let before = create_key(&data_dir, &[&scope[..], &more].concat()).await;
    assert!(!data_dir.exists(), "a command needs no directory");
    let server = Serving::start(&data_dir, &[&["--log", "trace"][..], &more].concat()).await;
    // Goes through the admin socket, so it needs no database URL.
    let during = create_key(&data_dir, &scope).await;
    // As from another machine: another data directory, while the server runs.
    let elsewhere = parent.path().join("elsewhere");
    let beside = create_key(&elsewhere, &[&scope[..], &more].concat()).await;
    for created in [&before, &during, &beside] {
        let caller = server.caller().key(&text(created, "key"));
        assert_eq!(caller.get("/v1/webhook-deliveries").await.status, 200);
        assert_eq!(text(created, "workspaceId"), text(&before, "workspaceId"));
    }
    let held: Vec<_> = std::fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(held.len(), 2, "the socket and the lock: {held:?}");
    server.tell_to_stop().await;
    let (status, log) = server.ended().await;
    assert!(status.success(), "{log:?}");
    assert!(log.iter().any(|line| line.contains(":***@") && line.contains("the store is a PostgreSQL database")));
    assert!(!log.iter().any(|line| line.contains("hunter2")));
}

#[tokio::test]
async fn an_unused_sqlite_store_gets_a_warning_and_stays_unchanged() {
    let Some(database) = TestDatabase::new().await else { return };
    let (parent, data_dir) = new_data_dir();
    let unused = create_key(&data_dir, &["--workspace", "Acme", "--scope", "webhooks:read"]).await;
    let (key_file, url) = (key_file(parent.path()), database.url());
    let more = ["--database-url", &url, "--master-key-file", path_text(&key_file)];
    let server = Serving::start(&data_dir, &more).await;
    let warned = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["level"] == "WARN"
            && line["message"].as_str().unwrap().contains("the SQLite store in the data directory is not used")
    };
    assert!(server.log().iter().any(warned), "{:?}", server.log());
    server.caller().key(&text(&unused, "key")).get("/v1/webhook-deliveries").await.error(401, "invalid_token");
    server.tell_to_stop().await;
    server.ended().await;
    let ended = postrider(&["keys", "list", "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.stdout.contains(&text(&unused, "id")), "{}", ended.stdout);
}

#[tokio::test]
async fn the_doctor_reports_whether_a_database_is_usable() {
    let Some(database) = TestDatabase::without_tables().await else { return };
    let (parent, data_dir) = new_data_dir();
    let url = url_with_password(&database);
    let doctor = async || postrider(&["doctor", "database", "--database-url", &url]).await;
    let ended = doctor().await;
    assert!(ended.status.success() && ended.stdout.contains(":***@"), "{}{}", ended.stdout, ended.stderr);
    for line in ["server       PostgreSQL ", "writes       yes", "clock        ", "verdict      a node can work here"] {
        assert!(ended.stdout.lines().any(|found| found.starts_with(line)), "{line:?} is missing in\n{}", ended.stdout);
    }
    assert!(ended.stdout.contains(", new: the first node creates the tables"), "{}", ended.stdout);
    let key_file = key_file(parent.path());
    create_key(&data_dir, &["--workspace", "Acme", "--database-url", &url, "--master-key-file", path_text(&key_file)])
        .await;
    let ended = doctor().await;
    assert!(ended.status.success() && ended.stdout.contains(", version "), "{}", ended.stdout);
    let future = "UPDATE refinery_schema_history SET version = 9999 WHERE version = 1";
    database.client().await.batch_execute(future).await.unwrap();
    let ended = doctor().await;
    assert_eq!(ended.failure().0, 1);
    assert!(ended.stdout.contains("unfit: ") && ended.stdout.contains("version 9999"), "{}", ended.stdout);
    let ended = postrider(&["doctor", "database"]).await;
    assert!(ended.failure().1.contains("no database is set"), "{}", ended.stderr);
}

#[tokio::test]
async fn the_doctor_finds_a_database_in_which_no_node_can_work() {
    let Some(database) = TestDatabase::new().await else { return };
    let name = format!("postrider_latin1_{}", std::process::id());
    let client = database.client().await;
    let make = format!("CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    client.batch_execute(&make).await.unwrap();
    let url = database.url().split('?').next().unwrap().rsplit_once('/').unwrap().0.to_owned() + "/" + &name;
    let latin1 = postrider(&["doctor", "database", "--database-url", &url]).await;
    client.batch_execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await.unwrap();
    let read_only = postrider(&["doctor", "database", "--database-url", &url]).await;
    let (parent, _) = new_data_dir();
    let key_file = key_file(parent.path());
    let listed = postrider(&["keys", "list", "--database-url", &url, "--master-key-file", path_text(&key_file)]).await;
    client.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await.unwrap();
    for (ended, line) in [
        (&latin1, "encoding     unfit: LATIN1"),
        (&latin1, "writes       yes"),
        (&read_only, "writes       unfit: no: transactions are read-only"),
    ] {
        assert_eq!(ended.failure().0, 1);
        assert!(ended.stdout.lines().any(|found| found.starts_with(line)), "{line:?} is missing in\n{}", ended.stdout);
    }
    let (_, fault) = listed.failure();
    assert!(fault.contains("read-only") && !fault.contains("newer version"), "{fault}");
}
