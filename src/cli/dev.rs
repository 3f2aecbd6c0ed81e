//! `postrider dev`: a server and a receiver in one process, to try everything.

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::clock::SystemClock;
use crate::config::{DEFAULT_LOG_FILTER, MetricsListen};
use crate::lossy_writer::LossyWriter;
use crate::server::admin::{self, AdminRequest, AdminResponse, CreateKey, CreateLogin};
use crate::server::{Server, read_events_file};
use crate::telemetry;
use postrider_domain::error_chain::Chain;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_local::client::BearerKey;
use postrider_local::curl::quoted;
use postrider_local::dev::{SignIn, Tour, TourError, start_receiver};
use postrider_local::screen::Screen;
use postrider_local::state::DevState;

use super::dashboard;
use super::options::ServerOptions;
use super::stop_signal::wait_for_stop_signal;

/// Keeps the log off the screen of deliveries. Any `--log` other than the default shows it again.
const QUIET_FILTER: &str = "error";

/// The workspace of everything that this command creates.
const WORKSPACE: &str = "dev";

#[derive(Debug, Args)]
pub struct DevOptions {
    #[command(flatten)]
    server: ServerOptions,
}

pub async fn run(options: DevOptions) -> anyhow::Result<()> {
    let mut settings = options.server.settings()?;
    if settings.tls_cert_file.is_some() || settings.tls_key_file.is_some() {
        bail!("postrider dev speaks plain HTTP: run it without --tls-cert-file and --tls-key-file");
    }
    // The receiver is on this machine, so loopback addresses are allowed. Only this command does that.
    settings.allow_targets.push("127.0.0.0/8".to_owned());
    // A server on this machine may have the default address. Who wants metrics of a trial asks for an address.
    if settings.metrics.listen == MetricsListen::Default {
        settings.metrics.listen = MetricsListen::Off;
    }
    if settings.log.filter == DEFAULT_LOG_FILTER {
        settings.log.filter = QUIET_FILTER.to_owned();
    }
    let _log = telemetry::start_logging(&settings.log)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let catalogue = Catalogue::parse(&read_events_file(&settings)?)?;
    let state = DevState::load(&settings.data_dir)?;
    let mut receiver = start_receiver(state.as_ref(), &catalogue, Arc::clone(&clock)).await?;
    let server = Server::start(&settings, Arc::clone(&clock)).await?;
    let base_url = format!("http://{}", server.address());
    let stop = CancellationToken::new();
    tokio::spawn(cancel_on_stop_signal(stop.clone()));
    let mut state = match state {
        Some(state) => state,
        None => {
            let state = DevState::new(new_key(&server).await?);
            state.save(&settings.data_dir)?;
            state
        }
    };
    let public_url = settings.public_url.as_deref().unwrap_or(&base_url);
    let sign_in = sign_in(&server, public_url, &settings.data_dir).await;
    let mut tour =
        Tour { base_url: &base_url, sign_in, data_dir: &settings.data_dir, catalogue: &catalogue, clock, stop };
    // The server goes on when nobody reads the screen.
    let out = LossyWriter::on(io::stdout(), |lines| format!("({lines} lines of this screen were dropped)"))?;
    let mut screen = Screen::new(out.clone(), io::stdout().is_terminal());
    let mut outcome = tour.run(&mut state, &mut receiver, &mut screen).await;
    if let Err(TourError::KeyRefused(_)) = outcome {
        state.api_key = new_key(&server).await?;
        state.save(&settings.data_dir)?;
        // The new key may have created the workspace.
        tour.sign_in = self::sign_in(&server, public_url, &settings.data_dir).await;
        outcome = tour.run(&mut state, &mut receiver, &mut screen).await;
    }
    server.stop().await;
    receiver.stop().await;
    out.flush_within(limits::LINE_FLUSH_WAIT);
    outcome?;
    Ok(())
}

async fn cancel_on_stop_signal(stop: CancellationToken) {
    if let Err(error) = wait_for_stop_signal().await {
        tracing::error!(error = %Chain(&error), "cannot listen for stop signals; stopping");
    }
    stop.cancel();
}

/// A link to the dashboard. `None` when there is no workspace yet, which the first key creates.
async fn sign_in(server: &Server, public_url: &str, data_dir: &Path) -> Option<SignIn> {
    let create = CreateLogin { workspace: Some(WORKSPACE.to_owned()), ..CreateLogin::default() };
    match admin::execute(server.operator(), AdminRequest::CreateLogin(create)).await {
        AdminResponse::LoginCreated(created) => Some(SignIn {
            link: dashboard::link(public_url, &created.code),
            note: format!(
                "Works once, within {}. Get another link with: {} dashboard login --workspace {WORKSPACE} --data-dir {}",
                dashboard::validity(created.valid_seconds),
                shell_word(&own_command()),
                shell_word(&data_dir.to_string_lossy())
            ),
        }),
        other => {
            tracing::warn!(answer = ?other, "cannot create a link to the dashboard");
            None
        }
    }
}

/// This program as it was called, which may be a path that no search path has: `target/debug/postrider`.
fn own_command() -> String {
    let called = std::env::args_os().next().filter(|called| !called.is_empty());
    called.map_or_else(|| "postrider".to_owned(), |called| called.to_string_lossy().into_owned())
}

/// A word that a shell reads as this text.
fn shell_word(text: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-".contains(letter);
    if text.chars().all(is_plain) { text.to_owned() } else { quoted(text) }
}

async fn new_key(server: &Server) -> anyhow::Result<BearerKey> {
    // Enough for the printed commands, and for the request that the page /dashboard/portal-embed writes.
    let scopes = ["webhooks:manage", "webhooks:read", "events:write", "events:read", "portal:create"];
    let scopes = scopes.map(str::to_owned).to_vec();
    let create = CreateKey { workspace: Some(WORKSPACE.to_owned()), scopes, ..CreateKey::default() };
    match admin::execute(server.operator(), AdminRequest::CreateKey(create)).await {
        AdminResponse::KeyCreated(created) => Ok(BearerKey::parse(&created.key)?),
        AdminResponse::Refused { message } => bail!("cannot create an API key: {message}"),
        other => bail!("cannot create an API key: unexpected answer {other:?}"),
    }
}
