//! `postrider serve`: runs the server until a stop signal. SIGHUP reads its certificate again.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::SystemClock;
use crate::server::Server;
use crate::telemetry;

use super::options::ServerOptions;
use super::stop_signal::wait_for_stop_signal;

#[derive(Debug, Args)]
pub struct ServeOptions {
    /// Send deliveries from a restored copy of a store from now on. Give it once, when the original is out of use for
    /// ever: two stores with the same queue would both send it.
    #[arg(long)]
    i_am_the_only_one: bool,
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(options: ServeOptions) -> anyhow::Result<()> {
    let mut settings = options.server.settings()?;
    settings.is_the_only_one = options.i_am_the_only_one;
    let _log = telemetry::start_logging(&settings.log)?;
    // Before the start, because the default action of SIGHUP ends the process.
    let mut hang_up = signal(SignalKind::hangup())?;
    let server = Server::start(&settings, Arc::new(SystemClock)).await?;
    let reload_on_hang_up = async {
        while hang_up.recv().await.is_some() {
            server.reload_certificate();
        }
        std::future::pending().await
    };
    let stopped_by_itself = tokio::select! {
        signalled = wait_for_stop_signal() => {
            signalled?;
            false
        }
        () = server.must_stop() => true,
        () = reload_on_hang_up => false,
    };
    server.stop().await;
    if stopped_by_itself {
        bail!("the master key was changed while this server stood still: start it with the new key");
    }
    Ok(())
}
