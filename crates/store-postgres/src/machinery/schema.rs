//! The migrations. One node at a time runs them.

use deadpool_postgres::Pool;
use refinery::error::Kind;
use refinery::{Migration, Runner};

use postrider_store::OpenError;

use super::connect::connection;
use super::fault::PgError;
use super::session::Session;

/// Each migration as `(name, SQL)`. Forward only, never edited once released, numbered as for SQLite.
const MIGRATIONS: &[(&str, &str)] = &[
    ("V1__first", include_str!("../../../../migrations/postgres/0001_first.sql")),
    ("V2__attempt_phases", include_str!("../../../../migrations/postgres/0002_attempt_phases.sql")),
    ("V3__endpoint_options", include_str!("../../../../migrations/postgres/0003_endpoint_options.sql")),
    ("V4__ordering", include_str!("../../../../migrations/postgres/0004_ordering.sql")),
    ("V5__endpoint_health", include_str!("../../../../migrations/postgres/0005_endpoint_health.sql")),
    ("V6__growth", include_str!("../../../../migrations/postgres/0006_growth.sql")),
    ("V7__keys", include_str!("../../../../migrations/postgres/0007_keys.sql")),
    ("V8__audit_changes", include_str!("../../../../migrations/postgres/0008_audit_changes.sql")),
    ("V9__endpoint_mode", include_str!("../../../../migrations/postgres/0009_endpoint_mode.sql")),
    ("V10__rate_counts", include_str!("../../../../migrations/postgres/0010_rate_counts.sql")),
    ("V11__key_epoch", include_str!("../../../../migrations/postgres/0011_key_epoch.sql")),
    ("V12__projects", include_str!("../../../../migrations/postgres/0012_projects.sql")),
    ("V13__attempt_request", include_str!("../../../../migrations/postgres/0013_attempt_request.sql")),
    ("V14__sessions", include_str!("../../../../migrations/postgres/0014_sessions.sql")),
    ("V15__rollups", include_str!("../../../../migrations/postgres/0015_rollups.sql")),
    ("V16__portal_sessions", include_str!("../../../../migrations/postgres/0016_portal_sessions.sql")),
    ("V17__list_filters", include_str!("../../../../migrations/postgres/0017_list_filters.sql")),
    ("V18__filter_replays", include_str!("../../../../migrations/postgres/0018_filter_replays.sql")),
    ("V19__payload_state", include_str!("../../../../migrations/postgres/0019_payload_state.sql")),
    ("V20__erasures", include_str!("../../../../migrations/postgres/0020_erasures.sql")),
    ("V21__node_version", include_str!("../../../../migrations/postgres/0021_node_version.sql")),
    ("V22__traces", include_str!("../../../../migrations/postgres/0022_traces.sql")),
    ("V23__parked_messages", include_str!("../../../../migrations/postgres/0023_parked_messages.sql")),
    ("V24__listeners", include_str!("../../../../migrations/postgres/0024_listeners.sql")),
];

/// The number of the newest migration.
pub const NEWEST: usize = MIGRATIONS.len();

/// Only what is said of the migrations themselves shows another version. Any other fault is the database's, such as a
/// read-only one.
fn migration_fault(error: refinery::Error) -> OpenError {
    match error.kind() {
        Kind::MissingVersion(_) | Kind::DivergentVersion(..) => OpenError::Migration(error.into()),
        _ => OpenError::Database(error.into()),
    }
}

/// Migrates the schema. Refuses a database of a newer version.
///
/// When several nodes start at once, one migrates and the others wait. The lock is held by a transaction on a
/// connection of its own, so that a pooler cannot assign that session to another client.
pub async fn migrate(pool: &Pool) -> Result<(), OpenError> {
    let unreached = |error: PgError| OpenError::Database(error.into());
    let migrations = MIGRATIONS
        .iter()
        .map(|(name, sql)| Migration::unapplied(name, sql))
        .collect::<Result<Vec<_>, _>>()
        .map_err(migration_fault)?;
    let lock = Session::new(connection(pool).await.map_err(unreached)?);
    lock.batch("BEGIN").await.map_err(unreached)?;
    let sql = "SELECT pg_advisory_xact_lock(hashtext('postrider migrations'), hashtext(current_schema()))";
    let locked = lock.query(sql, &[]).await.map_err(unreached);
    let migrated = match locked {
        Ok(_) => {
            let mut migrating = connection(pool).await.map_err(unreached)?;
            // One transaction has all migrations and the rows that note them. A crash between a migration and its row
            // would make the migration run twice.
            let runner = Runner::new(&migrations).set_abort_missing(true).set_abort_divergent(true).set_grouped(true);
            runner.run_async(&mut **migrating).await.map(|_| ()).map_err(migration_fault)
        }
        Err(error) => Err(error),
    };
    lock.discard();
    migrated
}
