//! Runs the scenarios one after the other, each on a new server with a new data directory.

use std::sync::Arc;
use std::time::Duration;

use super::arrivals::Arrivals;
use super::ceiling;
use super::error::BenchError;
use super::figures::{Fact, Figures, MEGABYTE};
use super::footprint::{FootprintWatch, Trend};
use super::growth::{Axis, Growth};
use super::options::BenchOptions;
use super::pages;
use super::process::{Cost, ServerProcess, open_files_max};
use super::producer::{PublishPlan, PublishResult, publish};
use super::progress::Progress;
use super::report::{Report, ReportRow};
use super::scenario::{RunVariant, Scenario};
use super::sink::Sink;
use super::test_bed::{StoreLocation, TestBed};
use super::trial::Trial;

/// Time without an arrival after which the rest counts as missing.
const PATIENCE: Duration = Duration::from_secs(15);
/// Maximum time of publishing for one point of a growth table, because there are many points.
const GROWTH_DURATION: Duration = Duration::from_secs(3);

/// Measures the ceiling and every scenario. Shows its progress on standard error.
///
/// # Errors
/// When the server does not start, or a connection to it fails.
pub async fn run(options: &BenchOptions) -> Result<Report, BenchError> {
    let progress = Progress::on_stderr();
    progress.begin("the ceilings", options.duration);
    let ceiling = ceiling::measure(options).await?;
    let store = StoreLocation::prepare(options.database.clone())?;
    let bench = Bench { options, store, progress };
    let mut rows = Vec::new();
    for scenario in with_reference_scenarios(&options.scenarios) {
        rows.extend(bench.measure(scenario).await?);
    }
    let mut growth = Vec::new();
    for axis in Axis::ALL.into_iter().filter(|_| options.is_growth_measured) {
        growth.push(bench.grow(axis).await?);
    }
    let pages = match options.are_pages_measured {
        true => Some(pages::measure(options, &bench.store, &bench.progress).await?),
        false => None,
    };
    Ok(Report { ceiling, rows, growth, pages })
}

/// Adds the scenario `single` for `tls`, which is reported in relation to it.
fn with_reference_scenarios(scenarios: &[Scenario]) -> Vec<Scenario> {
    let is_single_missing = scenarios.contains(&Scenario::Tls) && !scenarios.contains(&Scenario::Single);
    is_single_missing.then_some(Scenario::Single).into_iter().chain(scenarios.iter().copied()).collect()
}

/// The state that all runs share.
struct Bench<'o> {
    options: &'o BenchOptions,
    store: StoreLocation,
    progress: Progress,
}

impl Bench<'_> {
    /// Measures a scenario. One with neighbours is measured alone first.
    async fn measure(&self, scenario: Scenario) -> Result<Vec<ReportRow>, BenchError> {
        let trial = Trial::of(scenario, self.options);
        let variants: &[RunVariant] = if trial.neighbours.is_some() {
            &[RunVariant::Alone, RunVariant::WithNeighbours]
        } else {
            &[RunVariant::Only]
        };
        let mut rows = Vec::new();
        for variant in variants {
            let mut trial = trial.clone();
            trial.neighbours = trial.neighbours.filter(|_| *variant == RunVariant::WithNeighbours);
            let (mut figures, observed) = self.run_trial(&variant.name(scenario), &trial).await?;
            figures.facts.extend(facts(scenario, &trial, &figures, &observed));
            rows.push(ReportRow { scenario, variant: *variant, figures });
        }
        Ok(rows)
    }

    async fn grow(&self, axis: Axis) -> Result<Growth, BenchError> {
        let mut points = Vec::new();
        for point in axis.points(self.options) {
            let mut trial = axis.trial(self.options, point);
            trial.load.duration = trial.load.duration.min(GROWTH_DURATION);
            let (figures, _) = self.run_trial(&format!("{point} {}", axis.as_str()), &trial).await?;
            points.push((point, figures));
        }
        Ok(Growth { axis, points })
    }

    /// One run: sets up servers and receivers, publishes, waits for the arrivals, and measures.
    async fn run_trial(&self, name: &str, trial: &Trial) -> Result<(Figures, Observed), BenchError> {
        let Trial { load, receiver, .. } = trial;
        self.progress.begin(name, load.duration);
        check_open_files(name, receiver.addresses)?;
        let arrivals = Arrivals::new(load);
        let sink = Sink::start(*receiver, &arrivals).await?;
        let mut flags = sink.server_flags();
        flags.extend_from_slice(&trial.server_flags);
        let mut test_bed = TestBed::start(&self.options.program, &self.store, self.options.nodes, &flags).await?;
        let api_keys = test_bed.prepare(load, &sink.base_urls, &arrivals).await?;
        if let Some(neighbours) = trial.neighbours {
            neighbours.start(&mut test_bed).await?;
        }
        let servers = test_bed.servers().map(|server| server.address).collect();
        let plan = PublishPlan { servers, api_keys, arrivals: Arc::clone(&arrivals), load: load.clone() };
        let before = self.costs(&test_bed);
        let _watch = self.progress.watch(&arrivals);
        let pids = test_bed.servers().map(ServerProcess::pid).collect();
        let footprints = trial.must_stay_flat.then(|| FootprintWatch::start(pids, test_bed.directories()));
        let published = publish(Arc::new(plan)).await?;
        let trend = footprints.map(|watch| Trend::of(&watch.end()));
        arrivals.wait_for((published.events * load.fan_out) as u64, PATIENCE).await;
        let costs = [before, self.costs(&test_bed)];
        let observed = Observed {
            failures: arrivals.failures(),
            open_connections: arrivals.open_connections(),
            memory_bytes: costs.each_ref().map(|costs| costs.server.memory_bytes),
            removed_deliveries: test_bed.removed_deliveries().await?,
            trend,
        };
        let (stop_took, kept_bytes) = test_bed.stop().await?;
        let mut figures = figures(&arrivals, &Measured { published, kept_bytes, stop_took, costs });
        figures.is_flat = trend.is_none_or(Trend::is_flat);
        Ok((figures, observed))
    }

    fn costs(&self, test_bed: &TestBed) -> Costs {
        let server = test_bed.servers().map(ServerProcess::cost).fold(Cost::default(), Cost::plus);
        Costs { server, own: Cost::of_this_process(), database_cpu: self.store.database_cpu() }
    }
}

/// Measurements that only some scenarios report.
struct Observed {
    /// Intended error answers.
    failures: u64,
    /// Open connections after the last arrival.
    open_connections: u64,
    /// Memory of all servers, before and after.
    memory_bytes: [u64; 2],
    /// What retention has removed, where the scenario is about that.
    removed_deliveries: Option<u64>,
    /// How files and memory developed, where they must stay flat.
    trend: Option<Trend>,
}

fn facts(scenario: Scenario, trial: &Trial, figures: &Figures, observed: &Observed) -> Vec<Fact> {
    let fact = |name, value, text| Fact { name, value, text };
    match scenario {
        Scenario::Failing => {
            let share = count(observed.failures) / count(observed.failures + figures.delivered);
            let text = format!("{:.1}% of the answers were 500, and their deliveries were retried", share * 100.0);
            vec![fact("failedShare", share, text)]
        }
        Scenario::Wan => {
            let offered = f64::from(trial.load.events_per_second.unwrap_or(0)) * trial.load.duration.as_secs_f64();
            let in_time: u64 =
                figures.series.seconds().iter().take(trial.load.whole_seconds()).map(|second| second.delivered).sum();
            let share = count(in_time) / offered;
            let text =
                format!("{:.1}% of {offered:.0} offered events arrived during the time of publishing", share * 100.0);
            let open = count(observed.open_connections);
            let open_text = format!("{open:.0} connections to receivers were open at the end");
            vec![fact("deliveredToOffered", share, text), fact("openConnections", open, open_text)]
        }
        Scenario::Soak => {
            let [start, end] = observed.memory_bytes.map(count);
            let text =
                format!("memory was {:.1} MB at the start and {:.1} MB at the end", start / MEGABYTE, end / MEGABYTE);
            let mut facts = vec![fact("memoryAtStartBytes", start, text), fact("memoryAtEndBytes", end, String::new())];
            if let Some(trend) = observed.trend {
                let text = if trend.is_flat() { trend.text() } else { format!("NOT FLAT: {}", trend.text()) };
                facts.push(fact("filesLastToSecondQuarter", trend.files(), text));
                facts.push(fact("memoryLastToSecondQuarter", trend.memory(), String::new()));
            }
            facts
        }
        Scenario::Retention => match observed.removed_deliveries {
            None => Vec::new(),
            Some(removed) => {
                let text = format!("retention removed {removed} deliveries during the run");
                vec![fact("removedDeliveries", count(removed), text)]
            }
        },
        _ => Vec::new(),
    }
}

/// Each receiver needs a file, and so does each connection to it, here and in the server.
fn check_open_files(name: &str, addresses: usize) -> Result<(), BenchError> {
    let (needed, allowed) = (addresses as u64 * 4, open_files_max());
    let text = || format!("{name} needs {needed} open files, but the limit is {allowed}: raise it with `ulimit -n`");
    if needed > allowed { Err(BenchError::Setup(text())) } else { Ok(()) }
}

/// The resources used so far, by process.
struct Costs {
    server: Cost,
    own: Cost,
    /// `None` without a database, or if it is on another machine.
    database_cpu: Option<Duration>,
}

/// Measurements beside the arrivals.
struct Measured {
    published: PublishResult,
    kept_bytes: u64,
    stop_took: Duration,
    /// Before and after the run.
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
        is_flat: true,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below what a double holds exactly")]
fn count(number: u64) -> f64 {
    number.max(1) as f64
}
