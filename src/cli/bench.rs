//! `postrider bench`: what this machine can carry.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use postrider_bench::{BenchOptions, DatabaseOptions, Scenario};

#[derive(Debug, Args)]
pub struct BenchCommand {
    /// What to measure, by name; everything unless named, and nothing with `--growth`.
    #[arg(value_name = "SCENARIO", value_parser = scenario)]
    scenarios: Vec<Scenario>,
    /// Measure how cost grows with endpoints, workspaces, backlog, payload size and fan-out, in runs of up to 3 seconds.
    #[arg(long)]
    growth: bool,
    /// How long events are published in each.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Publishers back to back, each on a connection of its own.
    #[arg(long, default_value_t = 64)]
    publishers: usize,
    /// Bytes of an event's data, at least what its type wants.
    #[arg(long, default_value_t = 1024)]
    payload_bytes: usize,
    /// Deliveries that wait in backlog, and are queued for the dead endpoint in dead-neighbour.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: usize,
    /// PostgreSQL database to measure on instead of SQLite: empty, and for this alone.
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// File with the password for it.
    #[arg(long, value_name = "FILE", requires = "database_url")]
    database_password_file: Option<PathBuf>,
    /// Nodes on that database; publishers are spread over them.
    #[arg(long, default_value_t = 1, value_name = "NODES", value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// Draw deliveries a second and times to arrival over time, as an SVG file.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

pub async fn run(command: BenchCommand) -> anyhow::Result<()> {
    let is_everything = command.scenarios.is_empty() && !command.growth;
    let scenarios = if is_everything { Scenario::ALL.to_vec() } else { command.scenarios };
    if command.nodes > 1 && command.database_url.is_none() {
        bail!("--nodes needs --database-url: a data directory is one server's alone");
    }
    let options = BenchOptions {
        nodes: usize::from(command.nodes),
        scenarios,
        is_growth_measured: command.growth,
        duration: Duration::from_secs(command.seconds),
        publishers: command.publishers,
        payload_bytes: command.payload_bytes,
        backlog: command.backlog,
        database: command
            .database_url
            .map(|url| DatabaseOptions { url, password_file: command.database_password_file }),
        program: std::env::current_exe().context("finding this program")?,
    };
    let report = postrider_bench::run(&options).await?;
    if let Some(file) = &command.plot {
        std::fs::write(file, report.plot()).with_context(|| format!("writing {}", file.display()))?;
    }
    if command.json {
        println!("{}", serde_json::to_string_pretty(&report.json())?);
    } else {
        print!("{}", report.table());
    }
    if report.is_sound() { Ok(()) } else { bail!("not everything that was published arrived as it should") }
}

fn scenario(text: &str) -> Result<Scenario, String> {
    Scenario::parse(text).ok_or_else(|| format!("is none of {}", Scenario::ALL.map(Scenario::as_str).join(", ")))
}
