//! The database file: its path, the settings of a connection, and the migrations.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use refinery::error::Kind;
use refinery::{Migration, Runner};
use rusqlite::Connection;

use postrider_store::OpenError;
use postrider_store::directory::create_private;

use super::writer::WriteTx;

/// Each migration as `(name, SQL)`. Forward only, and never edited once released.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__first", include_str!("../../../../migrations/sqlite/0001_first.sql")),
    ("V2__attempt_phases", include_str!("../../../../migrations/sqlite/0002_attempt_phases.sql")),
    ("V3__endpoint_options", include_str!("../../../../migrations/sqlite/0003_endpoint_options.sql")),
    ("V4__ordering", include_str!("../../../../migrations/sqlite/0004_ordering.sql")),
    ("V5__endpoint_health", include_str!("../../../../migrations/sqlite/0005_endpoint_health.sql")),
    ("V6__growth", include_str!("../../../../migrations/sqlite/0006_growth.sql")),
    ("V7__keys", include_str!("../../../../migrations/sqlite/0007_keys.sql")),
    ("V8__audit_changes", include_str!("../../../../migrations/sqlite/0008_audit_changes.sql")),
    ("V9__endpoint_mode", include_str!("../../../../migrations/sqlite/0009_endpoint_mode.sql")),
    ("V10__rate_counts", include_str!("../../../../migrations/sqlite/0010_rate_counts.sql")),
    ("V11__key_epoch", include_str!("../../../../migrations/sqlite/0011_key_epoch.sql")),
    ("V12__projects", include_str!("../../../../migrations/sqlite/0012_projects.sql")),
    ("V13__attempt_request", include_str!("../../../../migrations/sqlite/0013_attempt_request.sql")),
    ("V14__sessions", include_str!("../../../../migrations/sqlite/0014_sessions.sql")),
    ("V15__rollups", include_str!("../../../../migrations/sqlite/0015_rollups.sql")),
    ("V16__portal_sessions", include_str!("../../../../migrations/sqlite/0016_portal_sessions.sql")),
    ("V17__list_filters", include_str!("../../../../migrations/sqlite/0017_list_filters.sql")),
    ("V18__filter_replays", include_str!("../../../../migrations/sqlite/0018_filter_replays.sql")),
    ("V19__payload_state", include_str!("../../../../migrations/sqlite/0019_payload_state.sql")),
    ("V20__erasures", include_str!("../../../../migrations/sqlite/0020_erasures.sql")),
    ("V21__node_version", include_str!("../../../../migrations/sqlite/0021_node_version.sql")),
    ("V22__traces", include_str!("../../../../migrations/sqlite/0022_traces.sql")),
    ("V23__parked_messages", include_str!("../../../../migrations/sqlite/0023_parked_messages.sql")),
    ("V24__listeners", include_str!("../../../../migrations/sqlite/0024_listeners.sql")),
];

/// How long a statement waits for the lock of another connection.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

pub fn database_path(directory: &Path) -> PathBuf {
    directory.join("postrider.db")
}

/// Opens a connection with the settings that every connection needs.
///
/// `secure_delete = FAST` overwrites what is deleted, as far as that needs no further page to be written. A copy of a
/// row may stay in a page that was split while the row was written, and only this mode overwrites it there.
/// [`overwriting_freed_pages`] covers pages that are no longer in use.
pub fn connect(database: &Path) -> Result<Connection, rusqlite::Error> {
    create_private(database).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    let connection = Connection::open(database)?;
    connection.set_prepared_statement_cache_capacity(256);
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Only before the first page is written, and only once: on a database that has the mode the statement writes.
    if database.metadata().is_ok_and(|file| file.len() == 0) {
        connection.execute_batch("PRAGMA auto_vacuum = INCREMENTAL")?;
    }
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA secure_delete = FAST;
         PRAGMA foreign_keys = ON;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -16384;",
    )?;
    Ok(connection)
}

/// Runs `effect`, and overwrites with zeros the pages that its statements free. For every deletion of content.
pub fn overwriting_freed_pages<T>(
    tx: &mut WriteTx<'_>,
    effect: impl FnOnce(&mut WriteTx<'_>) -> Result<T, rusqlite::Error>,
) -> Result<T, rusqlite::Error> {
    tx.connection.execute_batch("PRAGMA secure_delete = ON")?;
    let outcome = effect(tx);
    tx.connection.execute_batch("PRAGMA secure_delete = FAST")?;
    outcome
}

/// Lets the writer's connection commit without a flush, and opens the write-ahead log, which `sync.rs` flushes instead.
pub fn open_log_for_flushing(writer: &Connection, database: &Path) -> Result<File, OpenError> {
    // The log exists from the first write until the last connection closes.
    writer
        .execute_batch("PRAGMA synchronous = NORMAL; BEGIN IMMEDIATE; COMMIT;")
        .map_err(|error| OpenError::Database(error.into()))?;
    let path = database.with_extension("db-wal");
    let fault = |source| OpenError::Directory { path: path.display().to_string(), source };
    OpenOptions::new().read(true).write(true).open(&path).map_err(fault)
}

/// Only what is said of the migrations themselves shows another version. Any other fault is the database's, such as a
/// read-only one.
fn migration_fault(error: refinery::Error) -> OpenError {
    match error.kind() {
        Kind::MissingVersion(_) | Kind::DivergentVersion(..) => OpenError::Migration(error.into()),
        _ => OpenError::Database(error.into()),
    }
}

/// Brings the schema up to date. Refuses a database that a newer version made.
///
/// One transaction has all migrations and the rows that note them: after a crash the schema is the earlier one or this
/// one. A migration in a transaction of its own is noted in the next one, and would run twice after a crash in between.
pub fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(migration_fault)?;
    Runner::new(&migrations)
        .set_abort_missing(true)
        .set_abort_divergent(true)
        .set_grouped(true)
        .run(connection)
        .map_err(migration_fault)?;
    Ok(())
}

/// The version of the schema. Zero for a database without one.
pub fn version(connection: &Connection) -> Result<u32, rusqlite::Error> {
    let has_history = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'refinery_schema_history')";
    if !connection.query_row(has_history, [], |row| row.get::<_, bool>(0))? {
        return Ok(0);
    }
    connection.query_row("SELECT COALESCE(MAX(version), 0) FROM refinery_schema_history", [], |row| row.get(0))
}

/// The version that [`migrate`] brings a database to.
pub fn newest_version() -> u32 {
    u32::try_from(MIGRATIONS.len()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_newer_than_the_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = connect(&database_path(directory.path())).unwrap();
        migrate(&mut connection).unwrap();
        migrate(&mut connection).unwrap();
        connection
            .execute(
                "INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
                 SELECT version + 1000, 'later', applied_on, '1' FROM refinery_schema_history",
                [],
            )
            .unwrap();
        assert!(matches!(migrate(&mut connection), Err(OpenError::Migration(_))));
    }

    /// A database of the first schema.
    fn of_first_schema() -> (tempfile::TempDir, Connection) {
        let directory = tempfile::tempdir().unwrap();
        let mut connection = connect(&database_path(directory.path())).unwrap();
        let first: Vec<Migration> =
            MIGRATIONS[..1].iter().map(|(name, sql)| Migration::unapplied(name, sql).unwrap()).collect();
        Runner::new(&first).run(&mut connection).unwrap();
        (directory, connection)
    }

    #[test]
    fn an_upgrade_that_is_cut_off_can_be_repeated() {
        let (_directory, mut connection) = of_first_schema();
        // As if the process had ended after a migration and before its row.
        connection
            .execute_batch(
                "CREATE TRIGGER cut_off BEFORE INSERT ON refinery_schema_history WHEN new.version = 4
                 BEGIN SELECT RAISE(ABORT, 'cut off'); END",
            )
            .unwrap();
        assert!(matches!(migrate(&mut connection), Err(OpenError::Database(_))));
        connection.execute_batch("DROP TRIGGER cut_off").unwrap();
        migrate(&mut connection).unwrap();
        let versions: usize =
            connection.query_row("SELECT COUNT(*) FROM refinery_schema_history", [], |row| row.get(0)).unwrap();
        assert_eq!(versions, MIGRATIONS.len());
    }

    #[test]
    fn rows_of_the_first_schema_survive_the_later_migrations() {
        let (_directory, mut connection) = of_first_schema();
        connection
            .execute_batch(
                "INSERT INTO workspaces (key, id, name) VALUES (1, 'org_0000000000000000', 'w');
                 INSERT INTO endpoints (key, id, workspace_key, name, url, events, is_active, secret_version,
                                        secret_last4, updated_at)
                     VALUES (2, 'whe_0000000000000000', 1, 'n', 'https://example.com/', 'post.created', 1, 1,
                             '0000', 0);
                 INSERT INTO api_keys (key, id, workspace_key, mode, hash, last4, scopes)
                     VALUES (5, 'key_0000000000000000', 1, 0, x'00', '0000', 'events:read workspaces:manage'),
                            (6, 'key_0000000000000001', 1, 1, x'01', '0000', 'events:read workspaces:manage'),
                            (7, 'key_0000000000000002', 1, 1, x'02', '0000', 'workspaces:manage');
                 INSERT INTO due (delivery_key, lane_key, event_key, due_at, mode, cause, secret_version)
                     VALUES (4, 2, 3, 7, 0, 0, 1);
                 INSERT INTO lanes (lane_key, workspace_key, next_at) VALUES (2, 1, 7);
                 INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome) VALUES (4, 1, 0, 0, 1);",
            )
            .unwrap();
        migrate(&mut connection).unwrap();
        let kept: (i64, i64, Option<i64>, Option<i64>, Option<i64>) = connection
            .query_row(
                "SELECT endpoints.mode, ordering, sequence, not_before, paused_since FROM endpoints
                 JOIN lanes ON lanes.lane_key = endpoints.key JOIN due ON due.lane_key = endpoints.key
                 JOIN attempts ON attempts.delivery_key = due.delivery_key",
                [],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)),
            )
            .unwrap();
        assert_eq!(kept, (0, 0, None, None, None), "live, without order, and neither delayed nor paused");
        let mut scopes = connection.prepare("SELECT scopes FROM api_keys ORDER BY key").unwrap();
        let scopes: Vec<String> = scopes.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
        assert_eq!(scopes, ["events:read workspaces:manage", "events:read", ""], "only live keys manage workspaces");
    }
}
