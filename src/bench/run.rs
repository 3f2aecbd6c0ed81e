//! One scenario after the other, each on a server and a data directory of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::arrivals::Arrivals;
use super::neighbours::Neighbours;
use super::process::{Cost, ServerProcess};
use super::producer::{Plan, Published, publish};
use super::progress::Progress;
use super::report::{Fact, Figures, Report, Row};
use super::stage::{Stage, Store};
use super::{BenchOptions, Scenario, ceiling, sink};

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("the run failed")]
    Io(#[from] io::Error),
    #[error("the server refused to be set up: {0}")]
    Setup(String),
}

/// How long arrivals may fail to come before the rest counts as missing.
const PATIENCE: Duration = Duration::from_secs(15);

/// Which part of a scenario a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Only,
    Alone,
    Beside,
}

impl Side {
    /// What this side of a scenario is called.
    pub fn name(self, scenario: Scenario) -> String {
        match self {
            Self::Only | Self::Beside => scenario.as_str().to_owned(),
            Self::Alone => format!("{} (alone)", scenario.as_str()),
        }
    }
}

/// Measures the ceilings and every scenario; tells on standard error what it is doing.
///
/// # Errors
/// When the server does not start, or a connection to it fails.
pub async fn run(options: &BenchOptions) -> Result<Report, BenchError> {
    let progress = Progress::on_stderr();
    progress.begin("the ceilings", options.duration);
    let arrivals = Arrivals::new(&Scenario::Single.load(options));
    let address = sink::start(Arc::clone(&arrivals)).await?;
    let ceiling = ceiling::measure(address, options).await?;
    let store = Store::prepare(options.database.clone())?;
    let bench = Bench { options, store, progress };
    let mut rows = Vec::new();
    for scenario in &options.scenarios {
        rows.extend(bench.measure(*scenario).await?);
    }
    Ok(Report { ceiling, rows })
}

/// What all runs share.
struct Bench<'o> {
    options: &'o BenchOptions,
    store: Store,
    progress: Progress,
}

impl Bench<'_> {
    /// A scenario with neighbours is measured alone first, and then beside them.
    async fn measure(&self, scenario: Scenario) -> Result<Vec<Row>, BenchError> {
        let neighbours = scenario.neighbours(self.options);
        let sides: &[Side] = if neighbours.is_some() { &[Side::Alone, Side::Beside] } else { &[Side::Only] };
        let mut rows = Vec::new();
        for side in sides {
            let neighbours = neighbours.filter(|_| *side == Side::Beside);
            let name = side.name(scenario);
            rows.push(Row { scenario, side: *side, figures: self.perform(&name, scenario, neighbours).await? });
        }
        Ok(rows)
    }

    /// One run: sets the stage, publishes, waits for what must arrive, and counts.
    async fn perform(
        &self,
        name: &str,
        scenario: Scenario,
        neighbours: Option<Neighbours>,
    ) -> Result<Figures, BenchError> {
        self.progress.begin(name, self.options.duration);
        let load = scenario.load(self.options);
        let mut stage = Stage::start(&self.options.program, &self.store, scenario.server_flags()).await?;
        let arrivals = Arrivals::new(&load);
        let sink = format!("http://{}", sink::start(Arc::clone(&arrivals)).await?);
        let api_keys = stage.set(&load, &[sink], &arrivals).await?;
        if let Some(neighbours) = neighbours {
            neighbours.move_in(&mut stage).await?;
        }
        let times_each = load.fan_out;
        let plan = Plan { server: stage.server.address, api_keys, arrivals: Arc::clone(&arrivals), load };
        let before = self.costs(&stage.server);
        let _watch = self.progress.watch(&arrivals);
        let published = publish(Arc::new(plan)).await?;
        arrivals.wait_for((published.events * times_each) as u64, PATIENCE).await;
        let costs = [before, self.costs(&stage.server)];
        let (stop_took, kept_bytes) = stage.strike().await?;
        Ok(figures(&arrivals, &Measured { published, kept_bytes, stop_took, costs }))
    }

    fn costs(&self, server: &ServerProcess) -> Costs {
        Costs { server: server.cost(), own: Cost::of_this_process(), database_cpu: self.store.database_cpu() }
    }
}

/// What has been used so far, and by whom.
struct Costs {
    server: Cost,
    own: Cost,
    /// Unknown without one, or when it is on another machine.
    database_cpu: Option<Duration>,
}

/// What was measured around the arrivals.
struct Measured {
    published: Published,
    kept_bytes: u64,
    stop_took: Duration,
    /// Before and after.
    costs: [Costs; 2],
}

fn figures(arrivals: &Arrivals, measured: &Measured) -> Figures {
    let Measured { published, kept_bytes, stop_took, costs } = measured;
    let [before, after] = costs;
    let delivered = arrivals.total();
    let (missing, repeated) = arrivals.missing_and_repeated(published.events);
    let per_1000 = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / count(delivered);
    let written_bytes = after.server.written_bytes.saturating_sub(before.server.written_bytes);
    let series = arrivals.series();
    let mut facts = Vec::new();
    if let (Some(before), Some(after)) = (before.database_cpu, after.database_cpu) {
        let value = per_1000(after.saturating_sub(before));
        let text = format!("the database took {value:.3} CPU-seconds per 1,000 deliveries");
        facts.push(Fact { name: "databaseCpuSecondsPer1000", value, text });
    }
    Figures {
        events: published.events as u64,
        delivered,
        refused: published.refused,
        missing,
        repeated,
        misrouted: arrivals.misrouted(),
        bad_signatures: arrivals.bad_signatures(),
        accepted_per_second: count(published.events as u64) / published.took.as_secs_f64(),
        delivered_per_second: count(delivered) / arrivals.span(published.events).as_secs_f64(),
        publish: published.latencies.clone(),
        arrival: series.whole(),
        series,
        server_cpu_per_1000: per_1000(after.server.cpu.saturating_sub(before.server.cpu)),
        own_cpu_per_1000: per_1000(after.own.cpu.saturating_sub(before.own.cpu)),
        peak_memory_bytes: after.server.peak_memory_bytes,
        written_per_delivery: count(written_bytes) / count(delivered),
        kept_per_delivery: count(*kept_bytes) / count(delivered),
        stop_took: *stop_took,
        facts,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below what a double holds exactly")]
fn count(number: u64) -> f64 {
    number.max(1) as f64
}
