//! `postrider bench`: measures the throughput of this machine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use postrider_bench::{BenchOptions, DatabaseOptions, Scenario};

use super::{instant, output};

#[derive(Debug, Args)]
pub struct BenchCommand {
    /// Names of the scenarios to measure [default: all, or none with `--growth` or `--pages`]
    #[arg(value_name = "SCENARIO", value_parser = scenario)]
    scenarios: Vec<Scenario>,
    /// Measure how cost grows with endpoints, workspaces, backlog, payload size and fan-out, in runs of at most 3
    /// seconds.
    #[arg(long)]
    growth: bool,
    /// Measure how long pages of the dashboard and lists of the API take over a log of `--backlog` deliveries.
    #[arg(long)]
    pages: bool,
    /// Seconds of publishing in each scenario.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Number of concurrent publishers, each on its own connection.
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    /// Bytes of `data` of an event. Raised to the minimum of its type if smaller.
    #[arg(long, default_value_t = 1024)]
    payload_bytes: usize,
    /// Number of queued deliveries in the scenarios backlog and dead-neighbour, and of logged ones in the scenario
    /// retention and for `--pages`.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// Keep the log of the scenario soak only so long, at least a minute, and fail if files or memory go on growing.
    /// Needs `--seconds` of at least eight times as long.
    #[arg(long, value_name = "TIME", value_parser = instant::duration)]
    retention: Option<Duration>,
    /// PostgreSQL database to measure instead of SQLite. It must be empty and have no other use.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// File with the password of the database.
    #[arg(long, value_name = "FILE", requires = "database_url")]
    database_password_file: Option<PathBuf>,
    /// Number of nodes on that database. The publishers are spread over them.
    #[arg(long, default_value_t = 1, value_name = "NODES", value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Write an SVG plot of deliveries per second and latencies over time.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub async fn run(command: BenchCommand) -> anyhow::Result<()> {
    let is_everything = command.scenarios.is_empty() && !command.growth && !command.pages;
    let scenarios = if is_everything { Scenario::ALL.to_vec() } else { command.scenarios };
    if command.nodes > 1 && command.database_url.is_none() {
        bail!("--nodes needs --database-url: two servers cannot share a data directory");
    }
    if command.retention.is_some_and(|retention| retention * 8 > Duration::from_secs(command.seconds)) {
        bail!("--retention needs --seconds of at least eight times as long: a shorter run shows no growth");
    }
    let options = BenchOptions {
        nodes: usize::from(command.nodes),
        scenarios,
        is_growth_measured: command.growth,
        are_pages_measured: command.pages,
        duration: Duration::from_secs(command.seconds),
        publishers: command.publishers,
        payload_bytes: command.payload_bytes,
        backlog: command.backlog,
        retention: command.retention,
        database: command
            .database_url
            .map(|url| DatabaseOptions { url, password_file: command.database_password_file }),
        program: std::env::current_exe().context("cannot find the path of this program")?,
    };
    let report = postrider_bench::run(&options).await?;
    if let Some(file) = &command.plot {
        std::fs::write(file, report.plot()).with_context(|| format!("cannot write {} (--plot)", file.display()))?;
    }
    if command.json {
        output::json(serde_json::to_string_pretty(&report.json())?)?;
    } else {
        for line in report.table().lines() {
            output::line(line)?;
        }
    }
    if report.is_sound() {
        Ok(())
    } else {
        bail!("events were refused, lost, misrouted or badly signed, or the server grew: see the report")
    }
}

fn scenario(text: &str) -> Result<Scenario, String> {
    Scenario::parse(text).ok_or_else(|| format!("is not one of {}", Scenario::ALL.map(Scenario::as_str).join(", ")))
}
