//! The report of a benchmark: as a table, as JSON and as a plot.

use std::fmt::Write as _;

use serde_json::{Value, json};

use postrider_store_sqlite::ceiling::{GROUP_ROWS, ROW_BYTES};

use super::ceiling::Ceiling;
use super::figures::{Figures, MEGABYTE, bytes, quantiles};
use super::growth::Growth;
use super::pages::Pages;
use super::plot;
use super::scenario::{RunVariant, Scenario};

/// All results of a benchmark.
pub struct Report {
    pub(super) ceiling: Ceiling,
    pub(super) rows: Vec<ReportRow>,
    pub(super) growth: Vec<Growth>,
    pub(super) pages: Option<Pages>,
}

/// One scenario in one variant.
pub(super) struct ReportRow {
    pub scenario: Scenario,
    pub variant: RunVariant,
    pub figures: Figures,
}

impl Report {
    /// Whether every accepted event arrived where it should, with a valid signature.
    pub fn is_sound(&self) -> bool {
        self.rows.iter().all(|row| row.figures.is_sound())
            && self.growth.iter().all(Growth::is_sound)
            && self.pages.as_ref().is_none_or(Pages::is_sound)
    }

    pub fn table(&self) -> String {
        let mut text = format!(
            "ceiling: a bare client signs and posts {:.0} per second, {:.3} CPU-seconds per 1,000, its sink included\n\
             ceiling: SQLite commits {:.0} rows of {ROW_BYTES} bytes per second, in groups of {GROUP_ROWS}\n\n",
            self.ceiling.posts_per_second, self.ceiling.cpu_seconds_per_1000, self.ceiling.rows_per_second,
        );
        if !self.rows.is_empty() {
            self.write_rows(&mut text);
        }
        for growth in &self.growth {
            let _ = writeln!(text, "{}", growth.table());
        }
        if let Some(pages) = &self.pages {
            let _ = writeln!(text, "{}", pages.table());
        }
        text.push_str("CPU in seconds per 1,000 deliveries; written and kept in bytes per delivery.\n");
        text
    }

    fn write_rows(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "{:<22} {:>10} {:>11} {:>8} {:>8} {:>9} {:>9} {:>27} {:>27} {:>8} {:>8} {:>8} {:>8}",
            "scenario",
            "accepted/s",
            "delivered/s",
            "to posts",
            "to rows",
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
            let figures = &row.figures;
            let _ = writeln!(
                text,
                "{:<22} {:>10.0} {:>11.0} {:>8.3} {:>8.3} {:>9.3} {:>9.3} {:>27} {:>27} {:>8.0} {:>8.0} {:>8.0} {:>8}",
                row.name(),
                figures.accepted_per_second,
                figures.delivered_per_second,
                figures.delivered_per_second / self.ceiling.posts_per_second,
                figures.delivered_per_second / self.ceiling.rows_per_second,
                figures.server_cpu_per_1000,
                figures.own_cpu_per_1000,
                quantiles(&figures.publish),
                quantiles(&figures.arrival),
                bytes(figures.peak_memory_bytes) / MEGABYTE,
                figures.written_per_delivery,
                figures.kept_per_delivery,
                figures.missing,
            );
        }
        for row in &self.rows {
            for fact in row.figures.facts.iter().filter(|fact| !fact.text.is_empty()) {
                let _ = writeln!(text, "{}: {}", row.name(), fact.text);
            }
            if let Some(faults) = row.figures.faults() {
                let _ = writeln!(text, "{}: {faults}", row.name());
            }
        }
        for (alone, beside) in self.neighbours() {
            let _ = writeln!(
                text,
                "{}: compared with alone, the healthy endpoint has {:.2} times the p50 and {:.2} times the p99 from publish to arrival, {:.2} times the deliveries per second, {:.2} times the CPU",
                beside.scenario.as_str(),
                ratio(beside, alone, 0.5),
                ratio(beside, alone, 0.99),
                throughput_ratio(beside, alone),
                cpu_ratio(beside, alone),
            );
        }
        if let Some((single, tls)) = self.tls() {
            let _ = writeln!(
                text,
                "tls: compared with single, {:.2} times the deliveries per second, {:.2} times the CPU",
                throughput_ratio(tls, single),
                cpu_ratio(tls, single),
            );
        }
        text.push('\n');
    }

    /// Pairs of the same scenario: alone, and with neighbours.
    fn neighbours(&self) -> impl Iterator<Item = (&ReportRow, &ReportRow)> {
        let beside = self.rows.iter().filter(|row| row.variant == RunVariant::WithNeighbours);
        beside.filter_map(|beside| {
            let is_alone = |row: &&ReportRow| row.scenario == beside.scenario && row.variant == RunVariant::Alone;
            Some((self.rows.iter().find(is_alone)?, beside))
        })
    }

    fn tls(&self) -> Option<(&ReportRow, &ReportRow)> {
        let find = |scenario| self.rows.iter().find(|row| row.scenario == scenario);
        Some((find(Scenario::Single)?, find(Scenario::Tls)?))
    }

    /// An SVG plot of each run over time.
    pub fn plot(&self) -> String {
        let run = |row: &ReportRow| plot::PlottedRun { name: row.name(), seconds: row.figures.series.seconds() };
        plot::draw(&self.rows.iter().map(run).collect::<Vec<_>>())
    }

    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                let mut value = row.figures.json();
                value["scenario"] = row.name().into();
                let per_second = row.figures.delivered_per_second;
                value["ratioToCeiling"] = (per_second / self.ceiling.posts_per_second).into();
                value["ratioToRows"] = (per_second / self.ceiling.rows_per_second).into();
                value
            })
            .collect();
        json!({
            "ceiling": {
                "postsPerSecond": self.ceiling.posts_per_second,
                "cpuSecondsPer1000": self.ceiling.cpu_seconds_per_1000,
                "rowsPerSecond": self.ceiling.rows_per_second,
            },
            "scenarios": rows,
            "growth": self.growth.iter().map(Growth::json).collect::<Vec<_>>(),
            "pages": self.pages.as_ref().map(Pages::json),
            "neighbours": self.neighbours().map(|(alone, beside)| json!({
                "scenario": beside.scenario.as_str(),
                "p50ToAlone": ratio(beside, alone, 0.5),
                "p99ToAlone": ratio(beside, alone, 0.99),
                "deliveredToAlone": throughput_ratio(beside, alone),
                "cpuToAlone": cpu_ratio(beside, alone),
            })).collect::<Vec<_>>(),
            "tlsToSingle": self.tls().map(|(single, tls)| json!({
                "delivered": throughput_ratio(tls, single), "cpu": cpu_ratio(tls, single),
            })),
        })
    }
}

impl ReportRow {
    fn name(&self) -> String {
        self.variant.name(self.scenario)
    }
}

fn ratio(beside: &ReportRow, alone: &ReportRow, fraction: f64) -> f64 {
    let seconds = |row: &ReportRow| row.figures.arrival.quantile(fraction).as_secs_f64();
    seconds(beside) / seconds(alone).max(f64::EPSILON)
}

fn throughput_ratio(row: &ReportRow, to: &ReportRow) -> f64 {
    row.figures.delivered_per_second / to.figures.delivered_per_second
}

fn cpu_ratio(row: &ReportRow, to: &ReportRow) -> f64 {
    row.figures.server_cpu_per_1000 / to.figures.server_cpu_per_1000
}
