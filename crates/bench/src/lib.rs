//! The load generator and its report: what a machine can carry, measured against what it could carry at best.
//!
//! The server runs as a process of its own; the producer and the sink share this one, so that the time from publish to
//! arrival is taken by one clock. Every figure of a run stands beside the ceiling of the same run: machines are noisy,
//! ratios are less so.

use std::path::PathBuf;
use std::time::Duration;

mod arrivals;
mod ceiling;
mod database;
mod growth;
mod histogram;
mod load;
mod neighbours;
mod plot;
mod process;
mod producer;
mod progress;
pub mod report;
mod run;
mod scenario;
mod series;
mod sink;
mod stage;
mod tls;
mod wire;

pub use database::DatabaseOptions;
pub use run::run;
pub use scenario::Scenario;

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
