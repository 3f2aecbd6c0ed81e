//! What a run found, for people and for machines.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Scenario;
use super::ceiling::Ceiling;
use super::histogram::Histogram;
use super::run::Side;

/// A whole run.
pub struct Report {
    pub(super) ceiling: Ceiling,
    pub(super) rows: Vec<Row>,
}

/// One scenario.
pub(super) struct Row {
    pub scenario: Scenario,
    pub side: Side,
    pub events: u64,
    pub delivered: u64,
    pub refused: u64,
    pub missing: u64,
    pub repeated: u64,
    pub bad_signatures: u64,
    pub accepted_per_second: f64,
    pub delivered_per_second: f64,
    pub publish: Histogram,
    pub arrival: Histogram,
    pub server_cpu_per_1000: f64,
    pub own_cpu_per_1000: f64,
    pub peak_memory_bytes: u64,
    pub written_per_delivery: f64,
    pub kept_per_delivery: f64,
    pub stop_took: Duration,
}

const MEGABYTE: f64 = 1_000_000.0;

impl Report {
    /// Whether everything that was accepted arrived, signed.
    pub fn is_sound(&self) -> bool {
        self.rows.iter().all(|row| row.refused + row.missing + row.bad_signatures == 0)
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "ceiling: a bare client signs and posts {:.0} a second, {:.3} CPU-seconds per 1,000 with its sink\n\n\
             {:<22} {:>10} {:>11} {:>8} {:>9} {:>9} {:>27} {:>27} {:>8} {:>8} {:>8} {:>8}\n",
            self.ceiling.per_second,
            self.ceiling.cpu_seconds_per_1000,
            "scenario",
            "accepted/s",
            "delivered/s",
            "ratio",
            "CPU/1000",
            "own CPU",
            "publish p50/p95/p99/max ms",
            "arrival p50/p95/p99/max ms",
            "peak MB",
            "written",
            "kept",
            "lost",
        );
        for row in &self.rows {
            let _ = writeln!(
                text,
                "{:<22} {:>10.0} {:>11.0} {:>8.3} {:>9.3} {:>9.3} {:>27} {:>27} {:>8.0} {:>8.0} {:>8.0} {:>8}",
                row.name(),
                row.accepted_per_second,
                row.delivered_per_second,
                row.delivered_per_second / self.ceiling.per_second,
                row.server_cpu_per_1000,
                row.own_cpu_per_1000,
                quantiles(&row.publish),
                quantiles(&row.arrival),
                bytes(row.peak_memory_bytes) / MEGABYTE,
                row.written_per_delivery,
                row.kept_per_delivery,
                row.missing,
            );
        }
        for row in &self.rows {
            if row.refused + row.missing + row.repeated + row.bad_signatures > 0 {
                let _ = writeln!(
                    text,
                    "{}: {} events, {} deliveries: {} refused, {} missing, {} repeated, {} badly signed",
                    row.name(),
                    row.events,
                    row.delivered,
                    row.refused,
                    row.missing,
                    row.repeated,
                    row.bad_signatures
                );
            }
        }
        for (alone, beside) in self.neighbours() {
            let _ = writeln!(
                text,
                "{}: from publish to arrival at the healthy endpoint p50 {:.2}, p99 {:.2} times of alone; {:.2} times the CPU",
                beside.scenario.as_str(),
                ratio(&beside.arrival, &alone.arrival, 0.5),
                ratio(&beside.arrival, &alone.arrival, 0.99),
                beside.server_cpu_per_1000 / alone.server_cpu_per_1000,
            );
        }
        text.push_str("CPU in seconds per 1,000 deliveries; written and kept in bytes per delivery.\n");
        text
    }

    /// What was measured alone, and beside others.
    fn neighbours(&self) -> impl Iterator<Item = (&Row, &Row)> {
        let beside = self.rows.iter().filter(|row| row.side == Side::Beside);
        beside.filter_map(|beside| {
            let is_alone = |row: &&Row| row.scenario == beside.scenario && row.side == Side::Alone;
            Some((self.rows.iter().find(is_alone)?, beside))
        })
    }

    pub fn json(&self) -> Value {
        let millis = |value: Duration| value.as_secs_f64() * 1000.0;
        let latency = |histogram: &Histogram| {
            json!({
                "p50": millis(histogram.quantile(0.5)), "p95": millis(histogram.quantile(0.95)),
                "p99": millis(histogram.quantile(0.99)), "max": millis(histogram.max()),
            })
        };
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "scenario": row.name(), "events": row.events, "delivered": row.delivered,
                    "refused": row.refused, "missing": row.missing, "repeated": row.repeated,
                    "badSignatures": row.bad_signatures, "acceptedPerSecond": row.accepted_per_second,
                    "deliveredPerSecond": row.delivered_per_second,
                    "ratioToCeiling": row.delivered_per_second / self.ceiling.per_second,
                    "publishMillis": latency(&row.publish), "arrivalMillis": latency(&row.arrival),
                    "serverCpuSecondsPer1000": row.server_cpu_per_1000, "ownCpuSecondsPer1000": row.own_cpu_per_1000,
                    "peakMemoryBytes": row.peak_memory_bytes, "writtenBytesPerDelivery": row.written_per_delivery,
                    "keptBytesPerDelivery": row.kept_per_delivery, "stopMillis": millis(row.stop_took),
                })
            })
            .collect();
        json!({
            "ceiling": {
                "postsPerSecond": self.ceiling.per_second, "cpuSecondsPer1000": self.ceiling.cpu_seconds_per_1000,
            },
            "scenarios": rows,
            "neighbours": self.neighbours().map(|(alone, beside)| json!({
                "scenario": beside.scenario.as_str(),
                "p50ToAlone": ratio(&beside.arrival, &alone.arrival, 0.5),
                "p99ToAlone": ratio(&beside.arrival, &alone.arrival, 0.99),
            })).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn name(&self) -> String {
        let name = self.scenario.as_str();
        match self.side {
            Side::Only | Side::Beside => name.to_owned(),
            Side::Alone => format!("{name} (alone)"),
        }
    }
}

fn ratio(beside: &Histogram, alone: &Histogram, fraction: f64) -> f64 {
    beside.quantile(fraction).as_secs_f64() / alone.quantile(fraction).as_secs_f64().max(f64::EPSILON)
}

fn quantiles(histogram: &Histogram) -> String {
    let millis = |value: Duration| value.as_secs_f64() * 1000.0;
    format!(
        "{:.1}/{:.1}/{:.1}/{:.1}",
        millis(histogram.quantile(0.5)),
        millis(histogram.quantile(0.95)),
        millis(histogram.quantile(0.99)),
        millis(histogram.max())
    )
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a run are far below what a double holds exactly")]
fn bytes(number: u64) -> f64 {
    number as f64
}
