//! `postrider serve`: runs the server until a stop signal.

use std::sync::Arc;

use clap::Args;

use crate::clock::SystemClock;
use crate::server::Server;
use crate::telemetry;

use super::options::ServerOptions;
use super::stop_signal::wait_for_stop_signal;

#[derive(Debug, Args)]
pub struct ServeOptions {
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(options: ServeOptions) -> anyhow::Result<()> {
    let settings = options.server.settings()?;
    let _log = telemetry::start_logging(&settings.log)?;
    let server = Server::start(&settings, Arc::new(SystemClock)).await?;
    wait_for_stop_signal().await?;
    server.stop().await;
    Ok(())
}
