//! What can be learned of a database before a node works there: for `postrider doctor database`. Changes nothing, and gives
//! facts; what they mean is said where they are printed.

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

/// A database as it was found.
#[derive(Clone, Debug)]
pub struct Examination {
    /// As the server tells it: `15.20 (Debian 15.20-0+deb12u1)`.
    pub server_version: String,
    pub database: String,
    pub user: String,
    /// The schema in which tables are looked for and made; none if the user may use none.
    pub schema: Option<String>,
    pub may_create: bool,
    pub is_encrypted: bool,
    /// A standby, which takes no writes.
    pub is_standby: bool,
    pub fsync: bool,
    pub full_page_writes: bool,
    /// `off`, `local`, `on`, …: the default of sessions.
    pub synchronous_commit: String,
    /// Empty without synchronous replication.
    pub synchronous_standby_names: String,
    pub max_connections: u32,
    /// Of these, kept for superusers.
    pub reserved_connections: u32,
    pub used_connections: u32,
    /// How far the database's clock is ahead of ours, in milliseconds; exact to half a round trip.
    pub clock_ahead_ms: i64,
    pub round_trip: Duration,
    pub pooler: Pooler,
    /// The number of the newest migration that was run; none in a database that is new.
    pub schema_version: Option<usize>,
    /// The number of the newest that this program knows.
    pub newest_schema_version: usize,
}

/// Whether something stands between that shares connections out, as far as it can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooler {
    NotSeen,
    /// Two connections at a time had one session: it gives one for a transaction.
    ByTransaction,
    /// The server listens at another port than was connected to: a pooler, or the port is forwarded.
    OtherPort {
        connected: u16,
        listening: u16,
    },
}

impl Examination {
    /// Whether a node would refuse to send by such a clock.
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
    current_setting('fsync') = 'on' AS fsync,
    current_setting('full_page_writes') = 'on' AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit,
    current_setting('synchronous_standby_names') AS synchronous_standby_names,
    current_setting('max_connections')::integer AS max_connections,
    current_setting('superuser_reserved_connections')::integer AS reserved_connections,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS used_connections,
    coalesce(inet_server_port(), 0) AS listening";

/// # Errors
/// When the database cannot be reached or asked.
pub async fn examine(settings: &PostgresSettings, clock: &dyn Clock) -> Result<Examination, OpenError> {
    let target = ConnectionConfig::of(&settings.url, settings).map_err(|error| OpenError::Database(error.into()))?;
    ask(&target, &settings.url, clock).await.map_err(|error| OpenError::Database(error.into()))
}

async fn ask(target: &ConnectionConfig, url: &str, clock: &dyn Clock) -> Result<Examination, PgError> {
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

/// Of some questions the one that was answered soonest tells most.
async fn compare_clocks(session: &Session, clock: &dyn Clock) -> Result<(i64, Duration), PgError> {
    const QUESTIONS: usize = 3;
    const NOW: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now";
    let mut best = (0, Duration::MAX);
    for _ in 0..QUESTIONS {
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
        // Over a socket there is no port.
        Some(connected) if listening != 0 && connected != listening => Pooler::OtherPort { connected, listening },
        _ => Pooler::NotSeen,
    })
}

/// The port that a URL leads to, if it names one host; its parameters left aside.
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
