//! The parameters of each scenario: load, receivers, neighbours and flags of the server.

use std::time::Duration;

use super::load::Load;
use super::neighbours::Neighbours;
use super::options::BenchOptions;
use super::scenario::Scenario;
use super::sink::{Answer, ReceiverOptions};

/// The parameters of one run.
#[derive(Clone, Debug)]
pub struct Trial {
    pub load: Load,
    pub receiver: ReceiverOptions,
    /// Other endpoints on the server, in their own workspace.
    pub neighbours: Option<Neighbours>,
    pub server_flags: Vec<String>,
    /// Whether files and memory must stay flat.
    pub must_stay_flat: bool,
}

/// A rate that leaves the machine mostly idle, so that the cost of neighbours is visible.
const LIGHT_RATE: u32 = 200;
/// A tenth of what a server can carry.
const STEADY_RATE: u32 = 1_000;
/// Near the limit of one server's concurrent attempts at 100 ms each.
const WAN_RATE: u32 = 5_000;
const WAN_ADDRESSES: usize = 1_000;
/// The fixed rate of this scenario needs many publishers.
const WAN_PUBLISHERS: usize = 256;
/// Enough steps that no delivery fails permanently if one answer in five fails: 12 consecutive failures have a
/// probability of one in 200 million.
const SHORT_SCHEDULE: &[&str] = &["--retry-schedule", "1s,1s,1s,1s,1s,1s,1s,1s,1s,1s,1s"];
/// A stop must not wait for the slow answers.
const NO_GRACE: &[&str] = &["--stop-grace", "1s"];

impl Trial {
    /// The trial of the scenario `single`, of which all others are variations.
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
            receiver: ReceiverOptions { is_tls: false, addresses: 1, answer: Answer::AtOnce },
            neighbours: None,
            server_flags: Vec::new(),
            must_stay_flat: false,
        }
    }

    /// The trial of a scenario.
    pub fn of(scenario: Scenario, options: &BenchOptions) -> Self {
        let mut trial = Self::single(options);
        let Self { load, receiver, .. } = &mut trial;
        match scenario {
            Scenario::Single | Scenario::Backlog => {}
            Scenario::FanOut => load.fan_out = 10,
            Scenario::Batch => load.events_per_request = 100,
            Scenario::Rate | Scenario::SlowNeighbour | Scenario::DeadNeighbour | Scenario::Isolation => {
                load.events_per_second = Some(LIGHT_RATE);
            }
            Scenario::Soak => {
                load.events_per_second = Some(STEADY_RATE);
                receiver.answer = Answer::FailsOneIn(20);
            }
            Scenario::Retention => load.events_per_second = Some(STEADY_RATE),
            Scenario::Failing => receiver.answer = Answer::FailsOneIn(5),
            Scenario::Tls => receiver.is_tls = true,
            Scenario::Wan => {
                (load.workspaces, load.projects) = (100, 10);
                load.events_per_second = Some(WAN_RATE);
                load.publishers = load.publishers.max(WAN_PUBLISHERS);
                let answer = Answer::After { least: Duration::from_millis(50), spread: Duration::from_millis(100) };
                *receiver = ReceiverOptions { is_tls: true, addresses: WAN_ADDRESSES, answer };
            }
            Scenario::Many => (load.workspaces, load.projects) = (1_000, 10),
        }
        trial.neighbours = neighbours_of(scenario, options.backlog);
        let flags = match scenario {
            Scenario::Failing | Scenario::Soak => SHORT_SCHEDULE,
            Scenario::SlowNeighbour | Scenario::DeadNeighbour | Scenario::Isolation => NO_GRACE,
            _ => &[],
        };
        trial.server_flags = flags.iter().map(ToString::to_string).collect();
        if let (Scenario::Soak, Some(retention)) = (scenario, options.retention) {
            trial.server_flags.extend(retention_flags(retention));
            trial.must_stay_flat = true;
        }
        trial
    }
}

pub fn retention_flags(retention: Duration) -> [String; 2] {
    ["--retention".to_owned(), format!("{}s", retention.as_secs())]
}

const fn neighbours_of(scenario: Scenario, backlog: usize) -> Option<Neighbours> {
    match scenario {
        Scenario::Backlog => Some(Neighbours::Waiting { backlog }),
        Scenario::SlowNeighbour => Some(Neighbours::Slow),
        Scenario::DeadNeighbour => Some(Neighbours::Dead { backlog }),
        Scenario::Isolation => Some(Neighbours::AllSlow),
        Scenario::Retention => Some(Neighbours::Aged { deliveries: backlog }),
        _ => None,
    }
}
