//! How cost grows: short runs of the scenario `single` in which only one parameter grows.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::figures::{Figures, MEGABYTE, bytes, quantiles};
use super::neighbours::Neighbours;
use super::options::BenchOptions;
use super::trial::Trial;

/// The parameter that grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    /// Endpoints of one workspace. Each event matches one of them.
    Endpoints,
    /// Workspaces with one endpoint each.
    Workspaces,
    /// Waiting deliveries of another workspace.
    Backlog,
    PayloadBytes,
    /// Endpoints that each event matches.
    FanOut,
}

/// The measurements of one parameter.
pub struct Growth {
    pub axis: Axis,
    pub points: Vec<(usize, Figures)>,
}

impl Axis {
    /// In the order of their preparation time.
    pub const ALL: [Self; 5] = [Self::PayloadBytes, Self::FanOut, Self::Backlog, Self::Workspaces, Self::Endpoints];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Endpoints => "endpoints",
            Self::Workspaces => "workspaces",
            Self::Backlog => "backlog",
            Self::PayloadBytes => "payload bytes",
            Self::FanOut => "fan-out",
        }
    }

    /// From the smallest to the largest.
    pub fn points(self, options: &BenchOptions) -> Vec<usize> {
        match self {
            // Creating an endpoint takes longer the more its workspace has. 10,000 would take minutes.
            Self::Endpoints => vec![1, 100, 1_000, 5_000],
            Self::Workspaces => vec![1, 10, 100, 1_000],
            Self::Backlog => vec![0, options.backlog / 100, options.backlog / 10, options.backlog],
            Self::PayloadBytes => vec![1_024, 4 * 1_024, 16 * 1_024, 64 * 1_024],
            Self::FanOut => vec![1, 10, 100],
        }
    }

    pub fn trial(self, options: &BenchOptions, point: usize) -> Trial {
        let mut trial = Trial::single(options);
        match self {
            Self::Endpoints => trial.load.projects = point,
            Self::Workspaces => trial.load.workspaces = point,
            Self::Backlog => trial.neighbours = (point > 0).then_some(Neighbours::Waiting { backlog: point }),
            Self::PayloadBytes => trial.load.payload_bytes = point,
            Self::FanOut => trial.load.fan_out = point,
        }
        trial
    }
}

impl Growth {
    pub fn is_sound(&self) -> bool {
        self.points.iter().all(|(_, figures)| figures.is_sound())
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "{:<22} {:>11} {:>9} {:>27} {:>8} {:>8} {:>8}\n",
            self.axis.as_str(),
            "delivered/s",
            "CPU/1000",
            "arrival p50/p95/p99/max ms",
            "peak MB",
            "written",
            "lost",
        );
        for (point, figures) in &self.points {
            let _ = writeln!(
                text,
                "{point:<22} {:>11.0} {:>9.3} {:>27} {:>8.0} {:>8.0} {:>8}",
                figures.delivered_per_second,
                figures.server_cpu_per_1000,
                quantiles(&figures.arrival),
                bytes(figures.peak_memory_bytes) / MEGABYTE,
                figures.written_per_delivery,
                figures.missing,
            );
        }
        for (point, figures) in &self.points {
            if let Some(faults) = figures.faults() {
                let _ = writeln!(text, "{} {point}: {faults}", self.axis.as_str());
            }
        }
        text
    }

    pub fn json(&self) -> Value {
        let point = |(point, figures): &(usize, Figures)| {
            let mut value = figures.json();
            value["value"] = (*point).into();
            value
        };
        json!({ "axis": self.axis.as_str(), "points": self.points.iter().map(point).collect::<Vec<_>>() })
    }
}
