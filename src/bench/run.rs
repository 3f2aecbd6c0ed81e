//! One scenario after the other, each on a server and a data directory of its own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use crate::domain::secret::WebhookSecret;
use crate::local::client::{BearerKey, Client};

use super::process::{Cost, ServerProcess, directory_bytes};
use super::producer::{Plan, Published, publish};
use super::report::{Report, Row};
use super::sink::{self, Arrivals};
use super::{BenchOptions, Scenario, ceiling, neighbours};

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("the run failed")]
    Io(#[from] io::Error),
    #[error("the server refused to be set up: {0}")]
    Setup(String),
}

/// More events than any run publishes; sizes what counts arrivals.
const EVENTS_MAX: usize = 4_000_000;
/// How long arrivals may fail to come before the rest counts as missing.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);

/// Measures the ceiling and every scenario. `told` hears what is being done.
///
/// # Errors
/// When the server does not start, or a connection to it fails.
pub async fn run(options: &BenchOptions, mut told: impl FnMut(&str)) -> Result<Report, BenchError> {
    told("the ceiling: a bare client that signs and posts");
    let arrivals = Arrivals::new(1);
    let address = sink::start(Arc::clone(&arrivals)).await?;
    let body = Bytes::from(vec![b'x'; options.payload_bytes + 200]);
    let ceiling =
        ceiling::measure(address, options.publishers, body, options.duration.min(Duration::from_secs(5))).await?;
    let mut rows = Vec::new();
    for scenario in &options.scenarios {
        told(scenario.as_str());
        if scenario.has_neighbours() {
            rows.extend(neighbours::measure(options, *scenario).await?);
        } else {
            rows.push(measure(options, *scenario).await?);
        }
    }
    Ok(Report { ceiling, rows })
}

async fn measure(options: &BenchOptions, scenario: Scenario) -> Result<Row, BenchError> {
    let directory = Directory::make()?;
    let api_key = make_key(&options.program, &directory.0, "bench").await?;
    let server = ServerProcess::start(&options.program, &directory.0, &[]).await?;
    let arrivals = Arrivals::new(EVENTS_MAX);
    let sink = sink::start(Arc::clone(&arrivals)).await?;
    register(&server, &api_key, sink, scenario.endpoints(), &arrivals).await?;
    let plan = Arc::new(Plan {
        server: server.address,
        api_key: api_key.clone(),
        arrivals: Arc::clone(&arrivals),
        events_per_request: scenario.events_per_request(),
        payload_bytes: options.payload_bytes,
        publishers: options.publishers,
        duration: options.duration,
        events_per_second: scenario.events_per_second(),
        events_max: EVENTS_MAX,
    });
    let (server_before, own_before) = (server.cost(), Cost::of_this_process());
    let published = publish(plan).await?;
    let times_each = scenario.endpoints();
    let expected = (published.events * times_each) as u64;
    arrivals.wait_for(expected, PATIENCE).await;
    let (server_after, own_after) = (server.cost(), Cost::of_this_process());
    let stop_took = server.stop().await?;
    let measured = Measured {
        published,
        times_each,
        kept_bytes: directory_bytes(&directory.0),
        stop_took,
        costs: [server_before, server_after, own_before, own_after],
    };
    Ok(row(scenario, Side::Only, &arrivals, &measured))
}

/// Which part of a scenario a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Only,
    Alone,
    Beside,
}

/// What was measured around the arrivals.
pub(super) struct Measured {
    pub published: Published,
    pub times_each: usize,
    pub kept_bytes: u64,
    pub stop_took: Duration,
    /// Of the server before and after, of this process before and after.
    pub costs: [Cost; 4],
}

pub(super) fn row(scenario: Scenario, side: Side, arrivals: &Arrivals, measured: &Measured) -> Row {
    let Measured { published, times_each, kept_bytes, stop_took, costs } = measured;
    let [server_before, server_after, own_before, own_after] = costs;
    let delivered = arrivals.total();
    let (missing, repeated) = arrivals.missing_and_repeated(published.events, u32::try_from(*times_each).unwrap_or(0));
    let per_1000 = |cpu: Duration| cpu.as_secs_f64() * 1000.0 / count(delivered);
    let written_bytes = server_after.written_bytes.saturating_sub(server_before.written_bytes);
    Row {
        scenario,
        side,
        events: published.events as u64,
        delivered,
        refused: published.refused,
        missing,
        repeated,
        bad_signatures: arrivals.bad_signatures(),
        accepted_per_second: count(published.events as u64) / published.took.as_secs_f64(),
        delivered_per_second: count(delivered) / arrivals.span(published.events).as_secs_f64(),
        publish: published.latencies.clone(),
        arrival: arrivals.latencies(),
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

pub(super) async fn make_key(program: &Path, data_dir: &Path, workspace: &str) -> Result<String, BenchError> {
    let output = tokio::process::Command::new(program)
        .args(["keys", "create", "--json", "--workspace", workspace, "--scope", "webhooks:manage"])
        .args(["--scope", "events:write", "--data-dir"])
        .arg(data_dir)
        .output()
        .await?;
    let created: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let failed = || BenchError::Setup(String::from_utf8_lossy(&output.stderr).into_owned());
    created["key"].as_str().map(str::to_owned).ok_or_else(failed)
}

pub(super) async fn register(
    server: &ServerProcess,
    api_key: &str,
    sink: std::net::SocketAddr,
    endpoints: usize,
    arrivals: &Arrivals,
) -> Result<(), BenchError> {
    let setup = |error: &dyn std::fmt::Display| BenchError::Setup(error.to_string());
    let key = BearerKey::parse(api_key).map_err(|error| setup(&error))?;
    let mut client = Client::new(&format!("http://{}", server.address), &key).map_err(|error| setup(&error))?;
    for number in 0..endpoints {
        let endpoint = json!({
            "name": format!("sink {number}"), "url": format!("http://{sink}/{number}"), "events": ["post.created"],
        });
        let made = client.post("/v1/webhook-endpoints", &endpoint).await.map_err(|error| setup(&error))?;
        let secret = made["data"]["secret"].as_str().unwrap_or_default();
        let secret = WebhookSecret::parse(secret).map_err(|error| setup(&error))?;
        arrivals.expect_signed_with(secret.mac_key());
    }
    Ok(())
}

/// A data directory that goes when the run is over.
pub(super) struct Directory(pub(super) std::path::PathBuf);

impl Directory {
    pub(super) fn make() -> io::Result<Self> {
        let name =
            format!("postrider-bench-{}", crate::domain::secret::hex(&crate::crypto::Random::default().bytes::<8>()));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
