//! The load generator and its report: what a machine can carry, measured against what it could carry at best.
//!
//! The server runs as a process of its own; the producer and the sink share this one, so that the time from publish to
//! arrival is taken by one clock. Every figure of a run stands beside the ceiling of the same run: machines are noisy,
//! ratios are less so.

mod arrivals;
mod ceiling;
mod database;
mod directory;
mod error;
mod figures;
mod growth;
mod histogram;
mod load;
mod neighbours;
mod options;
mod plot;
mod process;
mod producer;
mod progress;
mod report;
mod run;
mod scenario;
mod series;
mod sink;
mod test_bed;
mod tls;
mod trial;
mod wire;

pub use database::DatabaseOptions;
pub use error::BenchError;
pub use options::BenchOptions;
pub use report::Report;
pub use run::run;
pub use scenario::Scenario;
