//! The options of a run.

use std::path::PathBuf;
use std::time::Duration;

use super::database::DatabaseOptions;
use super::scenario::Scenario;

/// What to measure, and on which server.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub scenarios: Vec<Scenario>,
    /// Whether to measure how cost grows.
    pub is_growth_measured: bool,
    /// Whether to measure the pages over a log of [`Self::backlog`] deliveries.
    pub are_pages_measured: bool,
    /// Time of publishing in each scenario.
    pub duration: Duration,
    /// Concurrent publishers.
    pub publishers: usize,
    /// Bytes of `data`.
    pub payload_bytes: usize,
    /// Queued deliveries in scenarios with a backlog.
    pub backlog: usize,
    /// How long the log is kept in the scenario soak; `None` for the server's default.
    pub retention: Option<Duration>,
    /// The PostgreSQL database of the servers; `None` for SQLite.
    pub database: Option<DatabaseOptions>,
    /// Number of servers on that database.
    pub nodes: usize,
    /// The executable of the server.
    pub program: PathBuf,
}
