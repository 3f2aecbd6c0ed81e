//! What is measured: each scenario as a load, receivers, neighbours, and flags of the server.

use std::time::Duration;

use super::BenchOptions;
use super::load::Load;
use super::neighbours::Neighbours;
use super::sink::{Answer, Receiver};

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
    /// One answer in five is 500.
    Failing,
    /// The endpoint speaks TLS.
    Tls,
    /// 5,000 events a second to 1,000 endpoints at 1,000 addresses that speak TLS and answer in 50 to 150 ms.
    Wan,
    /// 10,000 endpoints in 1,000 workspaces.
    Many,
    /// As `Rate`, for as long as one likes: what does memory do?
    Soak,
    /// As `Single`, alone and beside a long queue of deliveries that wait for later.
    Backlog,
    /// A healthy endpoint beside one that answers after 14 s.
    SlowNeighbour,
    /// The same, and a dead endpoint with a long queue.
    DeadNeighbour,
    /// A healthy endpoint beside a workspace of 500 endpoints that answer after 14.9 s.
    Isolation,
}

/// One run: everything that has to be known before it.
#[derive(Clone, Debug)]
pub struct Trial {
    pub load: Load,
    pub receiver: Receiver,
    /// Who else is on the server, in a workspace of their own.
    pub neighbours: Option<Neighbours>,
    pub server_flags: &'static [&'static str],
}

/// A server that leaves the machine idle, so that what neighbours cost can be seen.
const LIGHT_RATE: u32 = 200;
/// Near what the slots of one server can have under way at 100 ms each.
const WAN_RATE: u32 = 5_000;
const WAN_ADDRESSES: usize = 1_000;
/// Publishers at a rate that many of them must share.
const WAN_PUBLISHERS: usize = 256;
/// Enough steps that one answer in five may fail without a delivery ever failing for good, as 12 in a row are one in 200 million.
const SHORT_SCHEDULE: &[&str] = &["--retry-schedule", "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"];
/// Nobody waits for the answers of the slow.
const NO_GRACE: &[&str] = &["--stop-grace", "1s"];

impl Scenario {
    pub const ALL: [Self; 13] = [
        Self::Single,
        Self::FanOut,
        Self::Batch,
        Self::Rate,
        Self::Failing,
        Self::Tls,
        Self::Wan,
        Self::Many,
        Self::Soak,
        Self::Backlog,
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
            Self::Failing => "failing",
            Self::Tls => "tls",
            Self::Wan => "wan",
            Self::Many => "many",
            Self::Soak => "soak",
            Self::Backlog => "backlog",
            Self::SlowNeighbour => "slow-neighbour",
            Self::DeadNeighbour => "dead-neighbour",
            Self::Isolation => "isolation",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == text)
    }

    pub(super) fn trial(self, options: &BenchOptions) -> Trial {
        let mut trial = Trial::single(options);
        let Trial { load, receiver, .. } = &mut trial;
        match self {
            Self::Single | Self::Backlog => {}
            Self::FanOut => load.fan_out = 10,
            Self::Batch => load.events_per_request = 100,
            Self::Rate | Self::Soak | Self::SlowNeighbour | Self::DeadNeighbour | Self::Isolation => {
                load.events_per_second = Some(LIGHT_RATE);
            }
            Self::Failing => receiver.answer = Answer::FailsOneIn(5),
            Self::Tls => receiver.is_tls = true,
            Self::Wan => {
                (load.workspaces, load.projects) = (100, 10);
                load.events_per_second = Some(WAN_RATE);
                load.publishers = load.publishers.max(WAN_PUBLISHERS);
                let answer = Answer::After { least: Duration::from_millis(50), spread: Duration::from_millis(100) };
                *receiver = Receiver { is_tls: true, addresses: WAN_ADDRESSES, answer };
            }
            Self::Many => (load.workspaces, load.projects) = (1_000, 10),
        }
        trial.neighbours = self.neighbours(options.backlog);
        trial.server_flags = match self {
            Self::Failing => SHORT_SCHEDULE,
            Self::SlowNeighbour | Self::DeadNeighbour | Self::Isolation => NO_GRACE,
            _ => &[],
        };
        trial
    }

    const fn neighbours(self, backlog: usize) -> Option<Neighbours> {
        match self {
            Self::Backlog => Some(Neighbours::Waiting { backlog }),
            Self::SlowNeighbour => Some(Neighbours::Slow),
            Self::DeadNeighbour => Some(Neighbours::Dead { backlog }),
            Self::Isolation => Some(Neighbours::AllSlow),
            _ => None,
        }
    }
}

impl Trial {
    /// What all others are a variation of.
    pub fn single(options: &BenchOptions) -> Self {
        Self {
            load: Load {
                workspaces: 1,
                projects: 1,
                fan_out: 1,
                events_per_request: 1,
                events_per_second: None,
                publishers: options.publishers,
                payload_bytes: options.payload_bytes,
                duration: options.duration,
            },
            receiver: Receiver { is_tls: false, addresses: 1, answer: Answer::AtOnce },
            neighbours: None,
            server_flags: &[],
        }
    }
}
