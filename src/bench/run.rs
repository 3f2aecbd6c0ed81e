//! One scenario after the other, each on a server and a data directory of its own.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::arrivals::Arrivals;
use super::neighbours::Neighbours;
use super::process::Cost;
use super::producer::{Plan, Published, publish};
use super::report::{Figures, Report, Row};
use super::stage::Stage;
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

/// Measures the ceiling and every scenario. `told` hears what is being done.
///
/// # Errors
/// When the server does not start, or a connection to it fails.
pub async fn run(options: &BenchOptions, mut told: impl FnMut(&str)) -> Result<Report, BenchError> {
    told("the ceiling: a bare client that signs and posts");
    let arrivals = Arrivals::new(&Scenario::Single.load(options));
    let address = sink::start(Arc::clone(&arrivals)).await?;
    let body = Bytes::from(vec![b'x'; options.payload_bytes + 200]);
    let ceiling =
        ceiling::measure(address, options.publishers, body, options.duration.min(Duration::from_secs(5))).await?;
    let mut rows = Vec::new();
    for scenario in &options.scenarios {
        told(scenario.as_str());
        rows.extend(measure(options, *scenario).await?);
    }
    Ok(Report { ceiling, rows })
}

/// A scenario with neighbours is measured alone first, and then beside them.
async fn measure(options: &BenchOptions, scenario: Scenario) -> Result<Vec<Row>, BenchError> {
    let sides: &[Side] =
        if scenario.neighbours(options).is_some() { &[Side::Alone, Side::Beside] } else { &[Side::Only] };
    let mut rows = Vec::new();
    for side in sides {
        let neighbours = scenario.neighbours(options).filter(|_| *side == Side::Beside);
        rows.push(Row { scenario, side: *side, figures: perform(options, scenario, neighbours).await? });
    }
    Ok(rows)
}

/// One run: sets the stage, publishes, waits for what must arrive, and counts.
async fn perform(
    options: &BenchOptions,
    scenario: Scenario,
    neighbours: Option<Neighbours>,
) -> Result<Figures, BenchError> {
    let load = scenario.load(options);
    let mut stage = Stage::start(options, scenario.server_flags()).await?;
    let arrivals = Arrivals::new(&load);
    let sink = format!("http://{}", sink::start(Arc::clone(&arrivals)).await?);
    let api_keys = stage.set(&load, &[sink], &arrivals).await?;
    if let Some(neighbours) = neighbours {
        neighbours.move_in(&mut stage).await?;
    }
    let plan = Plan { server: stage.server.address, api_keys, arrivals: Arc::clone(&arrivals), load };
    let (server_before, own_before) = (stage.server.cost(), Cost::of_this_process());
    let published = publish(Arc::new(plan)).await?;
    let expected = (published.events * scenario.load(options).fan_out) as u64;
    arrivals.wait_for(expected, PATIENCE).await;
    let (server_after, own_after) = (stage.server.cost(), Cost::of_this_process());
    let (stop_took, kept_bytes) = stage.strike().await?;
    let costs = [server_before, server_after, own_before, own_after];
    Ok(figures(&arrivals, &Measured { published, kept_bytes, stop_took, costs }))
}

/// What was measured around the arrivals.
struct Measured {
    published: Published,
    kept_bytes: u64,
    stop_took: Duration,
    /// Of the server before and after, of this process before and after.
    costs: [Cost; 4],
}

fn figures(arrivals: &Arrivals, measured: &Measured) -> Figures {
    let Measured { published, kept_bytes, stop_took, costs } = measured;
    let [server_before, server_after, own_before, own_after] = costs;
    let delivered = arrivals.total();
    let (missing, repeated) = arrivals.missing_and_repeated(published.events);
    let per_1000 = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / count(delivered);
    let written_bytes = server_after.written_bytes.saturating_sub(server_before.written_bytes);
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
        arrival: arrivals.series().whole(),
        server_cpu_per_1000: per_1000(server_after.cpu.saturating_sub(server_before.cpu)),
        own_cpu_per_1000: per_1000(own_after.cpu.saturating_sub(own_before.cpu)),
        peak_memory_bytes: server_after.peak_memory_bytes,
        written_per_delivery: count(written_bytes) / count(delivered),
        kept_per_delivery: count(*kept_bytes) / count(delivered),
        stop_took: *stop_took,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a run are far below what a double holds exactly")]
fn count(number: u64) -> f64 {
    number.max(1) as f64
}
