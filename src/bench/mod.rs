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
mod histogram;
mod load;
mod neighbours;
mod plot;
mod process;
mod producer;
mod progress;
pub mod report;
mod run;
mod series;
mod sink;
mod stage;
mod wire;

pub use database::DatabaseOptions;
use load::Load;
use neighbours::Neighbours;
pub use run::run;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// One endpoint, one event a request, publishers back to back.
    Single,
    /// Each event goes to ten endpoints.
    FanOut,
    /// A hundred events a request.
    Batch,
    /// 200 events a second whatever the answers; latency counts from the intended time.
    Rate,
    /// A healthy endpoint beside one that answers after 14 s.
    SlowNeighbour,
    /// The same, and a dead endpoint with a long queue.
    DeadNeighbour,
    /// A healthy endpoint beside a workspace of 500 endpoints that answer after 14.9 s.
    Isolation,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::Single,
        Self::FanOut,
        Self::Batch,
        Self::Rate,
        Self::SlowNeighbour,
        Self::DeadNeighbour,
        Self::Isolation,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::FanOut => "fan-out",
            Self::Batch => "batch",
            Self::Rate => "rate",
            Self::SlowNeighbour => "slow-neighbour",
            Self::DeadNeighbour => "dead-neighbour",
            Self::Isolation => "isolation",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text)
    }

    fn load(self, options: &BenchOptions) -> Load {
        Load {
            workspaces: 1,
            projects: 1,
            fan_out: if self == Self::FanOut { 10 } else { 1 },
            events_per_request: if self == Self::Batch { 100 } else { 1 },
            events_per_second: self.events_per_second(),
            publishers: options.publishers,
            payload_bytes: options.payload_bytes,
            duration: options.duration,
        }
    }

    /// With neighbours the load leaves the machine idle, so that what they cost can be seen.
    const fn events_per_second(self) -> Option<u32> {
        match self {
            Self::Single | Self::FanOut | Self::Batch => None,
            Self::Rate | Self::SlowNeighbour | Self::DeadNeighbour | Self::Isolation => Some(200),
        }
    }

    /// Who else is on the server, in a workspace of their own.
    const fn neighbours(self, options: &BenchOptions) -> Option<Neighbours> {
        match self {
            Self::Single | Self::FanOut | Self::Batch | Self::Rate => None,
            Self::SlowNeighbour => Some(Neighbours::Slow),
            Self::DeadNeighbour => Some(Neighbours::Dead { backlog: options.backlog }),
            Self::Isolation => Some(Neighbours::AllSlow),
        }
    }

    /// What the server is started with.
    const fn server_flags(self) -> &'static [&'static str] {
        match self {
            // Nobody waits for the neighbours' answers.
            Self::SlowNeighbour | Self::DeadNeighbour | Self::Isolation => &["--stop-grace", "1s"],
            _ => &[],
        }
    }
}

/// How a run is made.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    pub scenarios: Vec<Scenario>,
    /// How long publishers publish.
    pub duration: Duration,
    /// Publishers back to back.
    pub publishers: usize,
    /// Bytes of `data`.
    pub payload_bytes: usize,
    /// Deliveries queued for the dead neighbour.
    pub backlog: usize,
    /// Where the server keeps its store instead of in its directory.
    pub database: Option<DatabaseOptions>,
    /// The program to run as the server.
    pub program: PathBuf,
}
