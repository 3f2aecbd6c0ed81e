//! `postrider health`: whether the server of a data directory is ready, as an exit code for containers.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;

use crate::server::admin::{self, AdminError, AdminRequest, AdminResponse};
use postrider_domain::limits;
use postrider_local::client::{ApiFailure, Client, StatusCode};

use super::admin::unexpected;
use super::options::DataOptions;
use super::output;

#[derive(Debug, Args)]
pub struct HealthOptions {
    /// Ask the server at this address, such as http://127.0.0.1:8080, instead of the one that runs with the data
    /// directory.
    #[arg(long)]
    url: Option<String>,
    #[command(flatten)]
    data: DataOptions,
}

/// Fails when the server cannot read and write its store, or does not answer.
pub async fn run(options: HealthOptions) -> anyhow::Result<()> {
    let HealthOptions { url, data } = options;
    let deadline: Duration = limits::HEALTH_DEADLINE;
    let asked = async {
        match &url {
            Some(url) => ask_api(url).await,
            None => ask_socket(&data).await,
        }
    };
    let State { ready, restored_copy } = tokio::time::timeout(deadline, asked)
        .await
        .with_context(|| format!("the server did not answer within {} s", deadline.as_secs()))??;
    if !ready {
        bail!("degraded: the server cannot read or write its store; its log has the cause");
    }
    Ok(output::line(if restored_copy { "ok, but a restored copy: it sends nothing" } else { "ok" })?)
}

struct State {
    ready: bool,
    restored_copy: bool,
}

async fn ask_api(url: &str) -> anyhow::Result<State> {
    match Client::without_key(url)?.get("/v1/health").await {
        Ok(health) => Ok(State { ready: true, restored_copy: health["restoredCopy"] == true }),
        Err(
            ApiFailure::Unreadable { status: StatusCode::SERVICE_UNAVAILABLE, .. }
            | ApiFailure::Refused { status: StatusCode::SERVICE_UNAVAILABLE, .. },
        ) => Ok(State { ready: false, restored_copy: false }),
        Err(error) => Err(error).with_context(|| format!("cannot ask {url}")),
    }
}

async fn ask_socket(data: &DataOptions) -> anyhow::Result<State> {
    let socket = data.settings()?.admin_socket_path();
    match admin::ask(&socket, &AdminRequest::Health).await {
        Ok(AdminResponse::Health { ready, restored_copy }) => Ok(State { ready, restored_copy }),
        Ok(other) => unexpected(other),
        Err(AdminError::NoServer) => bail!("no server runs with this data directory ({})", socket.display()),
        Err(error) => Err(error).context("cannot ask the running server"),
    }
}
