//! Databases of earlier schemas, as an upgrade finds them: the migrations up to one of them, with rows of the first.

use std::path::Path;

use postrider::clock::SystemClock;
use postrider_domain::time::Clock;
use rusqlite::Connection;

use crate::chance::Chance;

const ROWS: usize = 300;

/// Creates the directory with a database of an earlier schema. Returns the number of its events.
pub fn create_earlier(data_dir: &Path, chance: &mut Chance) -> usize {
    let history = current_history();
    let migrations = migrations();
    let last = 1 + chance.below(migrations.len() - 1);
    std::fs::create_dir_all(data_dir).expect("a data directory");
    let database = Connection::open(data_dir.join("postrider.db")).expect("a database");
    let run = |sql: &str| database.execute_batch(sql).expect("a statement that runs");
    run("PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON;
         CREATE TABLE refinery_schema_history (version INT4 PRIMARY KEY, name VARCHAR(255), applied_on VARCHAR(255),
                                               checksum VARCHAR(255));");
    for (version, sql) in (1..=last).zip(&migrations) {
        run("BEGIN");
        run(sql);
        let (name, applied_on, checksum) = &history[version - 1];
        let insert = "INSERT INTO refinery_schema_history VALUES (?1, ?2, ?3, ?4)";
        database.execute(insert, rusqlite::params![version, name, applied_on, checksum]).expect("a row");
        run("COMMIT");
        if version == 1 {
            run(&rows_of_the_first());
        }
    }
    ROWS
}

/// A workspace with an inactive endpoint, and events that were delivered to it.
fn rows_of_the_first() -> String {
    let mut sql = "BEGIN;
        INSERT INTO workspaces (key, id, name) VALUES (1, 'org_0000000000000000', 'Old');
        INSERT INTO endpoints (key, id, workspace_key, name, url, events, is_active, secret_version, secret_last4,
                               updated_at)
            VALUES (2, 'whe_0000000000000000', 1, 'n', 'https://example.com/', 'post.created', 0, 1, '0000', 0);"
        .to_owned();
    // Their keys are of this year, so that no retention removes them.
    let first = SystemClock.now().millis() << 21;
    for row in 0..ROWS {
        let key = first + i64::try_from(row).expect("few rows");
        sql.push_str(&format!(
            "INSERT INTO events (key, workspace_key, mode, type, external_id, deliveries, envelope)
                 VALUES ({key}, 1, 0, 'post.created', 'old-{row}', 1, CAST('{{\"filler\":\"{}\"}}' AS BLOB));
             INSERT INTO deliveries (key, workspace_key, endpoint_key, event_key, mode, status, cause, attempts,
                                     completed_at)
                 VALUES ({key}, 1, 2, {key}, 0, 1, 0, 1, 0);
             INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome) VALUES ({key}, 1, 0, 0, 0);",
            "x".repeat(row * 7),
        ));
    }
    sql + "COMMIT;"
}

/// The SQL of each migration, in order.
fn migrations() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations/sqlite");
    let entries = std::fs::read_dir(folder).expect("the migrations").map(|entry| entry.expect("an entry").path());
    let mut paths: Vec<_> = entries.collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("a migration")).collect()
}

/// What the program notes of each migration: name, instant, checksum.
fn current_history() -> Vec<(String, String, String)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let made = std::process::Command::new(env!("CARGO_BIN_EXE_postrider"))
        .env_clear()
        .args(["keys", "create", "--workspace", "w", "--data-dir"])
        .arg(directory.path())
        .output()
        .expect("a binary");
    assert!(made.status.success(), "{made:?}");
    let database = Connection::open(directory.path().join("postrider.db")).expect("a database");
    let sql = "SELECT name, applied_on, checksum FROM refinery_schema_history ORDER BY version";
    let mut statement = database.prepare(sql).expect("the history");
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?))).expect("the history");
    rows.map(|row| row.expect("a row")).collect()
}
