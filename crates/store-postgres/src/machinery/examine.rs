//! Facts about a database before a node uses it, for `postrider doctor database`. Changes nothing. The command that
//! prints the facts judges them.

use std::time::{Duration, Instant};

use tokio_postgres::Config;

use postrider_domain::time::Clock;
use postrider_store::OpenError;

use super::column::{get, int, number, opt_number};
use super::connect::{ConnectionConfig, connection};
use super::fault::PgError;
use super::schema;
use super::session::Session;
use super::settings::PostgresSettings;
use super::time::CLOCK_OFF_MAX;

/// The facts about a database.
#[derive(Clone, Debug)]
pub struct Examination {
    /// As the server reports it: `15.20 (Debian 15.20-0+deb12u1)`.
    pub server_version: String,
    pub database: String,
    pub user: String,
    /// The schema in which tables are found and created. `None` if the user may use none.
    pub schema: Option<String>,
    pub may_create: bool,
    pub is_encrypted: bool,
    /// A standby refuses writes.
    pub is_standby: bool,
    /// The server, the database or the user makes transactions read-only by default.
    pub is_read_only: bool,
    /// Whether the user may write the tables, if there are any.
    pub may_write: bool,
    /// Texts are in UTF-8, which another encoding cannot hold.
    pub encoding: String,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// The default of sessions: `off`, `local`, `on`, …
    pub synchronous_commit: String,
    /// Empty without synchronous replication.
    pub synchronous_standby_names: String,
    pub max_connections: u32,
    /// The part of `max_connections` that is reserved for superusers.
    pub reserved_connections: u32,
    pub used_connections: u32,
    /// How far the database's clock is ahead of ours, in milliseconds. Exact to half a round trip.
    pub clock_ahead_ms: i64,
    pub round_trip: Duration,
    pub pooler: Pooler,
    /// The number of the newest applied migration. `None` in a new database.
    pub schema_version: Option<usize>,
    /// The number of the newest migration of this program.
    pub newest_schema_version: usize,
}

/// Whether a pooler is between this process and the server, as far as that can be detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    NotSeen,
    /// Two open connections shared one session: the pooler assigns sessions per transaction.
    ByTransaction,
    /// The server listens on another port than the one connected to: a pooler, or port forwarding.
    OtherPort {
        connected: u16,
        listening: u16,
    },
}

impl Examination {
    /// Whether a node with this clock would refuse to send.
    pub fn is_clock_off(&self) -> bool {
        self.clock_ahead_ms.unsigned_abs() > u64::try_from(CLOCK_OFF_MAX.as_millis()).unwrap_or(u64::MAX)
    }
}

const FACTS: &str = "SELECT
    current_setting('server_version') AS server_version,
    current_database()::text AS database,
    current_user::text AS user,
    current_schema()::text AS schema,
    coalesce(has_schema_privilege(current_schema(), 'CREATE'), false) AS may_create,
    coalesce((SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()), false) AS is_encrypted,
    pg_is_in_recovery() AS is_standby,
    current_setting('transaction_read_only') = 'on' AS is_read_only,
    coalesce(has_table_privilege(to_regclass('meta'), 'INSERT')
             AND has_table_privilege(to_regclass('events'), 'INSERT')
             AND has_table_privilege(to_regclass('due'), 'UPDATE'), true) AS may_write,
    current_setting('server_encoding') AS encoding,
    current_setting('fsync') = 'on' AS fsync,
    current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS synchronous_standby_names,
    current_setting('max_connections')::integer AS max_connections,
    current_setting('superuser_reserved_connections')::integer AS reserved_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
    coalesce(inet_server_port(), 0) AS listening";

/// Reads the facts.
///
/// # Errors
/// When the database cannot be reached, or refuses a query.
pub async fn examine(settings: &PostgresSettings, clock: &dyn Clock) -> Result<Examination, OpenError> {
    let target = ConnectionConfig::of(&settings.url, settings).map_err(|error| OpenError::Database(error.into()))?;
    read_facts(&target, &settings.url, clock).await.map_err(|error| OpenError::Database(error.into()))
}

async fn read_facts(target: &ConnectionConfig, url: &str, clock: &dyn Clock) -> Result<Examination, PgError> {
    let pool = target.pool(2).map_err(|error| PgError::Connection(error.into()))?;
    let first = Session::new(connection(&pool).await?);
    let second = Session::new(connection(&pool).await?);
    let row = first.query_one(FACTS, &[]).await?;
    let (clock_ahead_ms, round_trip) = compare_clocks(&first, clock).await?;
    let pooler = pooler(&first, &second, url, int(&row, "listening")?).await?;
    Ok(Examination {
        server_version: get(&row, "server_version")?,
        database: get(&row, "database")?,
        user: get(&row, "user")?,
        schema: get(&row, "schema")?,
        may_create: get(&row, "may_create")?,
        is_encrypted: get(&row, "is_encrypted")?,
        is_standby: get(&row, "is_standby")?,
        is_read_only: get(&row, "is_read_only")?,
        may_write: get(&row, "may_write")?,
        encoding: get(&row, "encoding")?,
        fsync: get(&row, "fsync")?,
        full_page_writes: get(&row, "full_page_writes")?,
        synchronous_commit: get(&row, "synchronous_commit")?,
        synchronous_standby_names: get(&row, "synchronous_standby_names")?,
        max_connections: number(&row, "max_connections")?,
        reserved_connections: number(&row, "reserved_connections")?,
        used_connections: number(&row, "used_connections")?,
        clock_ahead_ms,
        round_trip,
        pooler,
        schema_version: schema_version(&first).await?,
        newest_schema_version: schema::NEWEST,
    })
}

/// How far the database's clock is ahead, and the round trip. Uses the fastest of three queries, which is the most
/// exact.
async fn compare_clocks(session: &Session, clock: &dyn Clock) -> Result<(i64, Duration), PgError> {
    const QUERIES: usize = 3;
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now";
    let mut best = (0, Duration::MAX);
    for _ in 0..QUERIES {
        let asked = Instant::now();
        let database = int(&session.query_one(NOW, &[]).await?, "now")?;
        let took = asked.elapsed();
        if took < best.1 {
            best = (database - clock.now().minus(took / 2).millis(), took);
        }
    }
    Ok(best)
}

async fn pooler(first: &Session, second: &Session, url: &str, listening: i64) -> Result<Pooler, PgError> {
    const SESSION: &str = "SELECT pg_backend_pid() AS session";
    let one = int(&first.query_one(SESSION, &[]).await?, "session")?;
    let other = int(&second.query_one(SESSION, &[]).await?, "session")?;
    if one == other {
        return Ok(Pooler::ByTransaction);
    }
    let listening = u16::try_from(listening).unwrap_or_default();
    Ok(match port(url) {
        // A Unix socket has no port.
        Some(connected) if listening != 0 && connected != listening => Pooler::OtherPort { connected, listening },
        _ => Pooler::NotSeen,
    })
}

/// The port of a URL that names one host. Ignores its parameters.
fn port(url: &str) -> Option<u16> {
    let config: Config = url.split('?').next()?.parse().ok()?;
    match config.get_ports() {
        [only] => Some(*only),
        _ => None,
    }
}

async fn schema_version(session: &Session) -> Result<Option<usize>, PgError> {
    let known = session.query_one("SELECT to_regclass('refinery_schema_history') IS NOT NULL AS known", &[]).await?;
    if !get::<bool>(&known, "known")? {
        return Ok(None);
    }
    opt_number(&session.query_one("SELECT max(version) AS version FROM refinery_schema_history", &[]).await?, "version")
}
