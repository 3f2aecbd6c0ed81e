//! `postrider doctor` without a URL: each check in a good and in a bad state, and the exit code.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rusqlite::Connection;
use serde_json::Value;

use super::new_data_dir;
use crate::support::dns::{Answer, DnsServer};
use crate::support::postgres::TestDatabase;
use crate::support::process::{Serving, create_key, path_text, postrider};
use crate::support::proxy::{Habit, Proxy};
use crate::support::receiver::ReservedPort;

/// The checks by name, and the exit code.
struct Examined {
    checks: BTreeMap<String, Value>,
    code: i32,
}

impl Examined {
    async fn of(data_dir: &Path, dns: &DnsServer, arguments: &[&str]) -> Self {
        let server = dns.address().to_string();
        let own = ["doctor", "--json", "--data-dir", path_text(data_dir), "--dns-server", &server];
        let ended = postrider(&[&own, arguments].concat()).await;
        let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|_| panic!("{}", ended.stderr));
        let list = report["checks"].as_array().unwrap();
        let checks: BTreeMap<String, Value> =
            list.iter().map(|check| (check["name"].as_str().unwrap().to_owned(), check.clone())).collect();
        assert_eq!(checks.len(), list.len(), "each name stands once");
        for check in list {
            assert_eq!(check["advice"].is_null(), check["state"] == "ok", "{check}");
        }
        Self { checks, code: ended.status.code().unwrap() }
    }

    fn state(&self, name: &str) -> &str {
        self.checks.get(name).unwrap_or_else(|| panic!("no {name}"))["state"].as_str().unwrap()
    }

    fn detail(&self, name: &str) -> &str {
        self.checks[name]["detail"].as_str().unwrap()
    }

    fn not_ok(&self) -> Vec<&str> {
        let names = self.checks.iter().filter(|(_, check)| check["state"] != "ok");
        // It depends on the machine that runs the tests.
        let of_machine = ["disk_flush", "file_system", "free_space", "open_files"];
        names.map(|(name, _)| name.as_str()).filter(|name| !of_machine.contains(name)).collect()
    }
}

/// A name server that says of every name that it does not exist.
async fn name_server() -> DnsServer {
    DnsServer::start().await
}

fn execute(data_dir: &Path, sql: &str) {
    Connection::open(data_dir.join("postrider.db")).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn a_good_store_passes_while_its_server_runs_and_after() {
    let (parent, data_dir) = new_data_dir();
    let dns = name_server().await;
    let new = Examined::of(&data_dir, &dns, &[]).await;
    assert_eq!((new.code, new.not_ok()), (0, vec!["data_directory"]));
    assert!(!data_dir.exists(), "it creates nothing");
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    let stopped = Examined::of(&data_dir, &dns, &[]).await;
    assert_eq!((stopped.code, stopped.not_ok()), (0, vec!["last_backup"]));
    assert_eq!(stopped.detail("server"), "none runs with this data directory");
    let server = Serving::start(&data_dir, &[]).await;
    let to = parent.path().join("backup.db");
    let ended = postrider(&["backup", "--to", path_text(&to), "--data-dir", path_text(&data_dir)]).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    let running = Examined::of(&data_dir, &dns, &[]).await;
    assert_eq!((running.code, running.not_ok()), (0, vec![""; 0]));
    assert_eq!(running.detail("server"), "running and ready");
    assert!(running.detail("master_key").ends_with("the key of the store"));
    server.tell_to_stop().await;
    assert!(server.ended().await.0.success(), "the doctor left nothing that disturbs a stop");

    let table =
        postrider(&["doctor", "--data-dir", path_text(&data_dir), "--dns-server", &dns.address().to_string()]).await;
    assert!(table.status.success() && table.stdout.starts_with("state  check"), "{}{}", table.stdout, table.stderr);
}

#[tokio::test]
async fn a_store_in_a_bad_state_is_explained_check_by_check() {
    let (_parent, data_dir) = new_data_dir();
    let dns = name_server().await;
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    execute(
        &data_dir,
        "INSERT INTO meta (name, value) VALUES ('restored_copy', x''), ('last_backup', x'00000000000000010000000000000000')
             ON CONFLICT (name) DO UPDATE SET value = excluded.value;
         INSERT INTO meta (name, value) VALUES ('last_time', x'0000100000000000')
             ON CONFLICT (name) DO UPDATE SET value = excluded.value;
         DELETE FROM refinery_schema_history WHERE version = (SELECT MAX(version) FROM refinery_schema_history)",
    );
    let key = data_dir.join("master.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let warned = Examined::of(&data_dir, &dns, &[]).await;
    assert_eq!(warned.code, 0, "warnings alone are no failure");
    assert_eq!(warned.not_ok(), ["clock", "last_backup", "master_key_file", "restored_copy", "schema"]);
    assert!(warned.detail("master_key_file").contains("the mode 644"), "{}", warned.detail("master_key_file"));
    assert!(warned.detail("last_backup").starts_with("1970-01-01T00:00:00.001Z"), "{}", warned.detail("last_backup"));

    std::fs::write(&key, "0f".repeat(32)).unwrap();
    execute(&data_dir, "UPDATE refinery_schema_history SET version = 900 WHERE version = 1");
    // A sparse file: it has the length of a log at its limit, and takes no room.
    std::fs::File::create(data_dir.join("postrider.db-wal")).unwrap().set_len(1_100_000_000).unwrap();
    let failed = Examined::of(&data_dir, &dns, &[]).await;
    assert_eq!(failed.code, 1);
    for name in ["schema", "master_key", "write_ahead_log"] {
        assert_eq!(failed.state(name), "fail", "{name}");
    }
    std::fs::remove_file(&key).unwrap();
    assert_eq!(Examined::of(&data_dir, &dns, &[]).await.state("master_key"), "fail", "without a key");
    std::fs::write(data_dir.join("postrider.db"), "not a database").unwrap();
    assert_eq!(Examined::of(&data_dir, &dns, &[]).await.state("store"), "fail");
}

#[tokio::test]
async fn the_budget_of_the_disk_is_judged_as_the_server_does() {
    let (_parent, data_dir) = new_data_dir();
    let dns = name_server().await;
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    let without = Examined::of(&data_dir, &dns, &[]).await;
    assert!(!without.checks.contains_key("disk_budget"));
    // The log has this length and takes no room. The reserve is a tenth.
    for (log_bytes, state, code, detail) in
        [(0, "ok", 0, "ok, "), (75_000_000, "warn", 0, "tight, "), (84_000_000, "fail", 1, "full, ")]
    {
        std::fs::File::create(data_dir.join("postrider.db-wal")).unwrap().set_len(log_bytes).unwrap();
        let found = Examined::of(&data_dir, &dns, &["--max-disk", "100MB"]).await;
        assert_eq!((found.state("disk_budget"), found.code), (state, code), "{}", found.detail("disk_budget"));
        assert!(found.detail("disk_budget").starts_with(detail), "{}", found.detail("disk_budget"));
    }
    std::fs::remove_file(data_dir.join("postrider.db-wal")).unwrap();
    let found = Examined::of(&data_dir, &dns, &["--max-disk", "9000TB"]).await;
    assert_eq!(found.state("disk_budget"), "warn");
    assert!(found.detail("disk_budget").contains("more than the file system has"), "{}", found.detail("disk_budget"));
}

#[tokio::test]
async fn a_start_tells_of_a_store_that_gives_no_space_back() {
    let (_parent, data_dir) = new_data_dir();
    create_key(&data_dir, &["--workspace", "Acme", "--scope", "events:write"]).await;
    for (change, is_told) in [("", false), ("PRAGMA auto_vacuum = NONE; VACUUM", true)] {
        execute(&data_dir, change);
        let server = Serving::start(&data_dir, &[]).await;
        let log = server.log().join("\n");
        assert_eq!(log.contains("postrider store compact"), is_told, "{log}");
        server.tell_to_stop().await;
        server.ended().await;
    }
}

#[tokio::test]
async fn what_calls_to_receivers_need_is_checked() {
    let (parent, data_dir) = new_data_dir();
    let dns = name_server().await;
    let proxy = Proxy::start(Habit::Tunnel).await;
    let flag = format!("http://alice:hunter2@{}", proxy.address());
    let good = Examined::of(&data_dir, &dns, &["--egress-proxy", &flag]).await;
    assert_eq!((good.state("proxy"), good.state("name_servers"), good.state("outbound_tls")), ("ok", "ok", "ok"));
    assert!(!good.detail("proxy").contains("hunter2"));
    assert_eq!(proxy.asked().len(), 0, "it is asked for nothing");

    let closed = ReservedPort::reserve();
    let (silent, refusing) = (format!("http://{}", closed.address()), name_server().await);
    refusing.set("postrider-doctor.test", Answer::ServFail);
    let bad = Examined::of(&data_dir, &refusing, &["--egress-proxy", &silent]).await;
    assert_eq!((bad.code, bad.state("proxy"), bad.state("name_servers")), (1, "fail", "fail"));

    let ca = parent.path().join("ca.pem");
    std::fs::write(&ca, "no certificate").unwrap();
    let bad = Examined::of(&data_dir, &dns, &["--ca-file", path_text(&ca)]).await;
    assert_eq!((bad.code, bad.state("outbound_tls")), (1, "fail"));
}

#[tokio::test]
async fn a_directory_that_cannot_be_written_fails() {
    let dns = name_server().await;
    let bad = Examined::of(Path::new("/proc/self"), &dns, &[]).await;
    assert_eq!((bad.code, bad.state("data_directory")), (1, "fail"));
}

#[tokio::test]
async fn a_database_is_checked_in_place_of_the_disk() {
    let Some(database) = TestDatabase::new().await else { return };
    let (parent, data_dir) = new_data_dir();
    std::fs::create_dir(&data_dir).unwrap();
    let (dns, key, url) = (name_server().await, parent.path().join("master.key"), database.url());
    std::fs::write(&key, "0f".repeat(32)).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let arguments = ["--database-url", url.as_str(), "--master-key-file", path_text(&key)];
    let good = Examined::of(&data_dir, &dns, &arguments).await;
    assert_eq!(good.code, 0, "{:?}", good.not_ok());
    assert_eq!(
        (good.state("database_writes"), good.state("database_encoding"), good.state("clock")),
        ("ok", "ok", "ok")
    );
    assert!(!good.checks.contains_key("file_system") && !good.checks.contains_key("last_backup"));
    let gone = ["--database-url", "postgres://nobody@127.0.0.1:1/none", "--master-key-file", path_text(&key)];
    let bad = Examined::of(&data_dir, &dns, &gone).await;
    assert_eq!((bad.code, bad.state("database")), (1, "fail"));
}
