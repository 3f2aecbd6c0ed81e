//! `postrider serve`: the server alone, until it is told to stop.

use std::sync::Arc;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;
use crate::server::Server;
use crate::telemetry;

use super::options::ServerOptions;

#[derive(Debug, Args)]
pub struct ServeOptions {
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(options: ServeOptions) -> anyhow::Result<()> {
    let settings = options.server.settings()?;
    telemetry::start_logging(&settings.log);
    let server = Server::start(&settings, Arc::new(SystemClock)).await?;
    told_to_stop().await?;
    server.stop().await;
    Ok(())
}

/// Completes at SIGTERM or SIGINT.
pub async fn told_to_stop() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
