//! `postrider tail`: prints deliveries as they end, until it is stopped.

use clap::Args;
use serde_json::Value;
use tokio::time::Instant;

use postrider_domain::time::Timestamp;
use postrider_local::client::ApiFailure;
use postrider_local::reconnect::{Backoff, is_passing};
use postrider_local::tail::{Ended, Tail};

use super::super::instant::instant;
use super::super::output;
use super::super::paint::{Look, tone_of};
use super::endpoint_id;
use super::list::{joined, with_kind};
use super::session::{ApiOptions, explained};
use super::show::{answer, text};

#[derive(Debug, Args)]
pub struct TailOptions {
    /// Only deliveries that end so: delivered, failed, skipped, cancelled, simulated. Repeatable.
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',', value_parser = END_STATUSES)]
    statuses: Vec<String>,
    /// Only deliveries to this endpoint. Several: by commas, or repeat the flag.
    #[arg(long = "endpoint", alias = "endpoint-id", value_name = "ENDPOINT", value_delimiter = ',', value_parser = endpoint_id)]
    endpoints: Vec<String>,
    /// Only deliveries of events with this name. Several: by commas, or repeat the flag.
    #[arg(long = "event", alias = "event-type", value_name = "EVENT", value_delimiter = ',')]
    events: Vec<String>,
    /// Only deliveries of events of this project. Several: by commas, or repeat the flag.
    #[arg(long = "project", alias = "project-id", value_name = "PROJECT", value_delimiter = ',')]
    projects: Vec<String>,
    /// Begin with deliveries that have ended and were created since: 10m (ago), or 2026-05-15T08:21:00Z.
    #[arg(long, value_name = "TIME", value_parser = instant)]
    since: Option<Timestamp>,
    #[command(flatten)]
    api: ApiOptions,
}

const END_STATUSES: [&str; 5] = ["delivered", "failed", "skipped", "cancelled", "simulated"];

pub async fn run(options: TailOptions) -> anyhow::Result<()> {
    let mut session = options.api.session()?;
    let filters = [
        ("endpointId", joined(&options.endpoints)),
        ("eventType", joined(&options.events)),
        ("projectId", joined(&options.projects)),
    ];
    let mut tail = Tail::new(&filters, options.since);
    let (mut backoff, mut lost_since, mut has_looked) = (Backoff::default(), None::<Instant>, false);
    let server = session.client.authority().to_owned();
    loop {
        let looked = tail.look(&mut session.client).await;
        for ended in tail.take_ended() {
            if !print(session.look, &ended, &options.statuses)? {
                return Ok(());
            }
        }
        let wait = match looked {
            Ok(()) => {
                if let Some(since) = lost_since.take() {
                    session.look.note(format_args!("back after {} s", since.elapsed().as_secs()));
                } else if !has_looked {
                    session.look.note(format_args!("waiting for deliveries of {server}; Ctrl-C ends it"));
                }
                (backoff, has_looked) = (Backoff::default(), true);
                tail.wait()
            }
            // A server that is not there at the start is a wrong URL more often than not.
            Err(failure) if is_passing(&failure) && (has_looked || matches!(failure, ApiFailure::Refused { .. })) => {
                if lost_since.is_none() {
                    lost_since = Some(Instant::now());
                    session.look.note(format_args!("{}: trying again, and going on from there", reason(&failure)));
                }
                backoff.wait_after(&failure, &session.random)
            }
            Err(failure) => return Err(explained(failure)),
        };
        tokio::time::sleep(wait).await;
    }
}

fn reason(failure: &ApiFailure) -> String {
    match failure {
        ApiFailure::Refused { status, code, .. } => format!("the server answers {} {code}", status.as_u16()),
        other => other.to_string(),
    }
}

/// Prints one delivery, if its status is wanted. Returns whether somebody may still read.
fn print(look: Look, ended: &Ended, statuses: &[String]) -> anyhow::Result<bool> {
    let delivery: Value = serde_json::from_str(ended.delivery.get())?;
    let status = text(&delivery, "status");
    if !statuses.is_empty() && !statuses.contains(&status) {
        return Ok(true);
    }
    if look.is_json {
        return Ok(output::streamed_json_line(&with_kind("delivery", &ended.delivery))?);
    }
    let completed = ended.completed_at.to_string();
    let attempts = delivery["attemptCount"].as_u64().unwrap_or_default();
    let more = if attempts > 1 { format!("  attempt {attempts}") } else { String::new() };
    let line = format!(
        "{}  {}  {:<15}  {}  {}  {}{}",
        completed.get(11..19).unwrap_or(&completed),
        look.painted(tone_of(&status), format_args!("{status:<9}")),
        look.painted(Default::default(), answer(&delivery)),
        look.painted(Default::default(), &ended.id),
        look.painted(Default::default(), text(&delivery, "eventType")),
        look.painted(Default::default(), text(&delivery, "endpointId")),
        look.painted(Default::default(), more),
    );
    Ok(output::streamed_painted_line(line)?)
}
