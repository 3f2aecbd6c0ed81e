//! How the database is reached, and how much of it one node takes.

use std::path::PathBuf;
use std::time::Duration;

use postrider_domain::limits;

/// What a node needs to know of its database.
#[derive(Clone, Debug)]
pub struct PostgresSettings {
    /// `postgres://user@host:port/database`, with the driver's parameters. Never printed: it may hold a password.
    pub url: String,
    /// Where a connection has a session of its own, for LISTEN and migrations, when `url` leads to a pooler. Without it the
    /// node polls instead of listening.
    pub direct_url: Option<String>,
    /// Holds the password, instead of the URL. Read when the store is opened.
    pub password_file: Option<PathBuf>,
    /// Certificate authorities that are trusted for the database beside the public ones, PEM.
    pub ca_file: Option<PathBuf>,
    /// Connections of this node.
    pub pool_size: usize,
    /// The longest a statement may take.
    pub statement_timeout: Duration,
    pub time: TimeSource,
    /// Whether this node will send: then it counts when a cap is shared out.
    pub sends: bool,
}

/// Whose clock due times and leases go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeSource {
    /// The database's, whatever the nodes' say.
    Database,
    /// The clock that the store was opened with: for tests, whose time moves when told.
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
        }
    }
}
