//! The load generator and its report: measures the throughput of a machine and compares it with a ceiling.
//!
//! The server runs in its own process. Publishers and receivers share this process, so that one clock measures the time
//! from publish to arrival. Each run also measures the ceiling, because machines are noisy and ratios are less so.

mod arrivals;
mod ceiling;
mod database;
mod directory;
mod error;
mod figures;
mod footprint;
mod growth;
mod histogram;
mod load;
mod neighbours;
mod options;
mod pages;
mod plot;
mod process;
mod producer;
mod progress;
mod receiver;
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
