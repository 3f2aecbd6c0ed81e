//! The settings of the database and of one node's use of it.

use std::path::PathBuf;
use std::time::Duration;

use postrider_domain::limits;
use postrider_metrics::StoreMetrics;

/// How a node connects and what it may use.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user@host:port/database`, with the driver's parameters. Never printed: it may hold a password.
    pub url: String,
    /// A URL that bypasses the pooler, for LISTEN and migrations, which need a session of their own. Without it the
    /// node polls instead of listening.
    pub direct_url: Option<String>,
    /// A file with the password, instead of the URL. Read when the store is opened.
    pub password_file: Option<PathBuf>,
    /// Certificate authorities trusted for the database beside the public ones, as PEM.
    pub ca_file: Option<PathBuf>,
    /// Connections of this node.
    pub pool_size: usize,
    /// The longest time that a statement may take.
    pub statement_timeout: Duration,
    pub time: TimeSource,
    /// Whether this node sends. If so, it gets a share of each endpoint's limit.
    pub sends: bool,
    /// What the store measures.
    pub metrics: StoreMetrics,
}

/// The clock for due times and leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// The database's clock, whatever the clocks of the nodes say.
    Database,
    /// The clock that the store was opened with. For tests, which control the time.
    Given,
}

impl PostgresSettings {
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            direct_url: None,
            password_file: None,
            ca_file: None,
            pool_size: limits::DATABASE_CONNECTIONS,
            statement_timeout: limits::STATEMENT_TIMEOUT,
            time: TimeSource::Database,
            sends: true,
            metrics: StoreMetrics::default(),
        }
    }
}
