//! Every setting, its default and the reason for it. `cli/settings.rs` has a row for each: how it is called and read.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::limits;
use postrider_domain::proxy::ProxyUrl;
use postrider_domain::rate_limit::RateLimits;
use postrider_domain::retry_schedule::RetrySchedule;

#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API listens. The loopback address: nothing is offered to a network unasked.
    pub listen: SocketAddr,
    /// Where callers reach the API, as it stands in `docs_url`; made from `listen` when absent.
    pub public_url: Option<String>,
    /// The database (unless it is a server's), the lock, the admin socket and, unless named elsewhere, the master key.
    pub data_dir: PathBuf,
    /// 64 hexadecimal digits in a file that only its owner can read; made on the first start in `data_dir`. On a database
    /// server it must be named: each node needs the same.
    pub master_key_file: Option<PathBuf>,
    pub database: DatabaseSettings,
    /// Hosts and CIDRs that may be called although they are not public, plain `http` included. None by default.
    pub allow_targets: Vec<String>,
    /// Name servers; the system's when empty.
    pub dns_servers: Vec<SocketAddr>,
    /// Certificate authorities beside the public ones, as a PEM file.
    pub ca_file: Option<PathBuf>,
    /// A forward proxy that every receiver is called through, the guard still on. None by default; proxy variables of the
    /// environment are never read, since who sets them need not be who answers for the guard.
    pub egress_proxy: Option<ProxyUrl>,
    /// The event catalogue; the one built in when absent.
    pub events_file: Option<PathBuf>,
    /// Where the operator is told what becomes of endpoints and deliveries; nowhere when absent.
    pub operator_webhook_url: Option<String>,
    /// What that is signed with, as `whsec_…`; made on the first start in `data_dir`.
    pub operator_webhook_secret_file: Option<PathBuf>,
    /// Endpoints of one project, those without a project counting as one.
    pub endpoints_per_project: u32,
    pub endpoints_per_workspace: u32,
    pub retry_schedule: RetrySchedule,
    /// Requests of one workspace in 60 s. Publishing is not limited by default: how many events a disk can take only its
    /// operator knows, and a product that publishes as fast as it can must not be stopped by a number made up here.
    pub rate_limits: RateLimits,
    /// For one whole exchange with a receiver.
    pub attempt_deadline: Duration,
    /// How long the log keeps an event and its deliveries; what is still pending is kept as long as it is.
    pub retention: Duration,
    /// How long a stop waits for attempts under way: longer than an attempt may last.
    pub stop_grace: Duration,
    pub log: LogSettings,
}

/// The PostgreSQL database that several nodes share; without a URL the store is SQLite in the data directory.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    pub url: Option<DatabaseUrl>,
    /// Past any pooler, for what needs a session of its own: listening, without which a node polls, and migrations.
    pub direct_url: Option<DatabaseUrl>,
    /// A password that stands neither in a process list nor in an environment.
    pub password_file: Option<PathBuf>,
    /// Certificate authorities that the database's certificate may come from, beside the public ones, as a PEM file.
    pub ca_file: Option<PathBuf>,
    /// Connections of this node at most.
    pub pool_size: usize,
    /// How long a statement may take before the database ends it.
    pub statement_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// In the syntax of `tracing_subscriber::EnvFilter`: `info`, `postrider=debug`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
pub const DEFAULT_DATA_DIR: &str = "./postrider-data";
pub const DEFAULT_LOG_FILTER: &str = "info";

impl LogFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: None,
            direct_url: None,
            password_file: None,
            ca_file: None,
            pool_size: limits::DATABASE_CONNECTIONS,
            statement_timeout: limits::STATEMENT_TIMEOUT,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(DEFAULT_DATA_DIR.into(), DEFAULT_LISTEN)
    }
}

impl Settings {
    /// The defaults, for a data directory and an address.
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            listen,
            public_url: None,
            data_dir,
            master_key_file: None,
            database: DatabaseSettings::default(),
            allow_targets: Vec::new(),
            dns_servers: Vec::new(),
            ca_file: None,
            egress_proxy: None,
            events_file: None,
            operator_webhook_url: None,
            operator_webhook_secret_file: None,
            endpoints_per_project: limits::ENDPOINTS_PER_PROJECT,
            endpoints_per_workspace: limits::ENDPOINTS_PER_WORKSPACE,
            retry_schedule: RetrySchedule::default(),
            rate_limits: RateLimits::default(),
            attempt_deadline: limits::ATTEMPT_DEADLINE,
            retention: limits::RETENTION,
            stop_grace: limits::STOP_GRACE,
            log: LogSettings { format: LogFormat::Text, filter: DEFAULT_LOG_FILTER.to_owned() },
        }
    }

    pub fn master_key_path(&self) -> PathBuf {
        self.master_key_file.clone().unwrap_or_else(|| self.data_dir.join("master.key"))
    }

    pub fn operator_webhook_secret_path(&self) -> PathBuf {
        self.operator_webhook_secret_file.clone().unwrap_or_else(|| self.data_dir.join("operator-webhook.secret"))
    }

    pub fn admin_socket_path(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
}
