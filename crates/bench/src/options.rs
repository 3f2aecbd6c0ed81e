//! What a run measures, and on which server.

use std::path::PathBuf;
use std::time::Duration;

use super::database::DatabaseOptions;
use super::scenario::Scenario;

/// How a run is made.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub scenarios: Vec<Scenario>,
    /// Whether the tables of how cost grows are wanted too.
    pub is_growth_measured: bool,
    /// How long publishers publish.
    pub duration: Duration,
    /// Publishers back to back.
    pub publishers: usize,
    /// Bytes of `data`.
    pub payload_bytes: usize,
    /// Deliveries queued where a scenario has a long queue.
    pub backlog: usize,
    /// Where the server keeps its store instead of in its directory.
    pub database: Option<DatabaseOptions>,
    /// Servers on that database.
    pub nodes: usize,
    /// The program to run as the server.
    pub program: PathBuf,
}
