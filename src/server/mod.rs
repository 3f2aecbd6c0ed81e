//! The composition root: builds store, egress, service, engine and listeners from the settings, and stops them in the
//! reverse order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use postrider_api as api;
use postrider_domain::duration::format_duration;
use postrider_domain::error_chain::Chain;
use postrider_domain::event_type::{Catalogue, CatalogueError};
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_engine::Engine;
use postrider_http::Certificate;
use postrider_service::{Operator, Service};
use postrider_source::Sources;

pub mod admin;
mod admin_listed;
mod back_end;
pub mod backup;
mod components;
pub mod erase_request;
mod error;
mod front_door;
mod key_command;
mod key_file;
mod master_key;
pub mod metrics;
mod operator_webhook;
mod restored_copy;
mod traces;

pub use back_end::{OpenedFor, postgres_settings};
pub use components::{Components, egress_settings, read_events_file};
pub use error::StartError;
use front_door::DoorParts;
pub use key_command::KeyCommandError;
pub use key_file::KeyFileError;
pub use master_key::named as named_master_key;
pub use operator_webhook::OperatorWebhookError;

/// A running server.
pub struct Server {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    components: Components,
    /// `None` on a restored copy, which sends nothing.
    engine: Option<Engine>,
    /// Sources of events. None on a restored copy.
    sources: Option<Sources>,
    stop_listening: CancellationToken,
    /// Closes the connections of requests that are still running.
    cut_requests: CancellationToken,
    certificate: Option<Arc<Certificate>>,
    listeners: Vec<JoinHandle<()>>,
    /// Writes the uses of keys, and follows the master key.
    own_work: [JoinHandle<()>; 2],
    /// Writes refused requests to the audit log, and exchanges request counts. Runs until it is aborted.
    background: JoinHandle<((), ())>,
    stop_grace: Duration,
    /// Cancelled when the store's master key is one that this process was never told.
    outdated: CancellationToken,
}

/// What the server reaches and stores into, and the exceptions in force, belong into every log. They are the first
/// thing to look at after an incident.
fn log_surroundings(settings: &Settings) {
    for target in &settings.allow_targets {
        tracing::warn!(
            allow_target = target,
            "this target is allowed although it may not be public, also over plain http unless the rule says https \
             (--allow-target)"
        );
    }
    for target in &settings.deny_targets {
        tracing::info!(deny_target = target, "this target is never called (--deny-target)");
    }
    if let Some(proxy) = &settings.egress_proxy {
        tracing::info!(%proxy, "receivers are called through a forward proxy (--egress-proxy)");
    }
    if let Some(database) = &settings.database.url {
        tracing::info!(%database, "the store is a PostgreSQL database");
    }
}

/// # Errors
/// When payloads would be kept longer than the rows that they belong to.
pub fn check_retention(settings: &Settings) -> Result<(), StartError> {
    let (payloads, log) = (settings.kept_payloads(), settings.retention);
    if payloads <= log {
        return Ok(());
    }
    Err(StartError::PayloadsOutliveLog { payloads: format_duration(payloads), log: format_duration(log) })
}

fn warn_of_short_retention(settings: &Settings) {
    let kept = [
        ("--retention", settings.retention),
        ("--retention-payloads", settings.kept_payloads()),
        ("--retention-audit", settings.audit_retention),
        ("--retention-parked", settings.parked_retention),
    ];
    for (setting, kept) in kept.into_iter().filter(|(_, kept)| *kept < limits::RETENTION_SHORT) {
        let kept = format_duration(kept);
        tracing::warn!(setting, kept, "a retention below one day is for trials: what it removes cannot be examined");
    }
}

impl Server {
    /// Starts everything on the current runtime. The server answers requests when this returns.
    ///
    /// # Errors
    /// When the address is taken, another process holds the data directory, or a setting cannot be applied.
    pub async fn start(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        check_retention(settings)?;
        warn_of_short_retention(settings);
        admin::check_path(&settings.admin_socket_path())?;
        let certificate = front_door::read_certificate(settings)?;
        let metrics_listener = metrics::bind(settings).await?;
        let look = front_door::read_look(settings)?;
        let components = Components::open(settings, Arc::clone(&clock), OpenedFor::Serving).await?;
        let metrics_route = metrics::guarded_route(settings, &components.metrics)?;
        let problem = &components.metrics.families.server.file_problem;
        let certificate = certificate.map(|certificate| Arc::new(certificate.reporting_to(problem.clone())));
        let webhook = operator_webhook::read(settings, &components.random)?;
        components.operator.keep_webhook(webhook).await.map_err(StartError::OperatorEndpoint)?;
        let listen_fault = |source| StartError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen_fault)?;
        let address = listener.local_addr().map_err(listen_fault)?;
        let public_url = settings.public_url.clone().unwrap_or_else(|| {
            let scheme = if certificate.is_some() { "https" } else { "http" };
            format!("{scheme}://{address}")
        });
        let public_url = public_url.trim_end_matches('/');
        let stop_listening = CancellationToken::new();
        let admin = admin::listen(
            &settings.admin_socket_path(),
            components.operator.clone(),
            public_url,
            stop_listening.clone(),
        )?;
        let engine = (!components.operator.is_restored_copy()).then(|| components.start_engine(settings));
        let sources = components.start_sources(settings);
        show_last_backup(settings, &components.operator).await;
        let background = tokio::spawn({
            let service = Arc::clone(&components.service);
            async move { tokio::join!(service.keep_writing_refusals(), service.keep_exchanging_rates()) }
        });
        let cut_requests = CancellationToken::new();
        let tokens = (&stop_listening, &cut_requests);
        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let serving_metrics = metrics_listener.map(|listener| {
            let random = components.random.clone();
            metrics::serve(listener, Arc::clone(&components.metrics), random, Arc::clone(&clock), tokens)
        });
        let parts = DoorParts { listener, public_url, certificate, look: &look, metrics: metrics_route, clock };
        let door = front_door::open(settings, &components, parts, tokens);
        log_surroundings(settings);
        tracing::info!(%address, data_dir = %settings.data_dir.display(), "listening");
        let key_uses = tokio::spawn(record_key_uses(Arc::clone(&components.service), stop_listening.clone()));
        let follower = master_key::follow(components.operator.clone(), stop_listening.clone());
        let (outdated, follower) = follower;
        let listeners = [door.serving, admin].into_iter().chain(serving_metrics).collect();
        Ok(Self {
            address,
            metrics_address,
            components,
            engine,
            sources,
            stop_listening,
            cut_requests,
            certificate: door.certificate,
            listeners,
            own_work: [key_uses, follower],
            background,
            stop_grace: settings.stop_grace,
            outdated,
        })
    }

    /// Completes when this server must stop by itself: the master key was changed while it stood still, so that it can
    /// open nothing more.
    pub async fn must_stop(&self) {
        self.outdated.cancelled().await;
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where metrics are served. `None` when they are not.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Reads the certificate of the API again. Does nothing when there is none.
    pub fn reload_certificate(&self) {
        if let Some(certificate) = &self.certificate {
            certificate.reload();
        }
    }

    pub fn service(&self) -> &Arc<Service> {
        &self.components.service
    }

    pub fn operator(&self) -> &Operator {
        &self.components.operator
    }

    /// Refuses new requests, waits for running requests and attempts, and returns when everything is on disk. Cuts off
    /// whatever still runs at the end of the grace.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.stop_listening.cancel();
        self.components.service.end_waits();
        let requests = async {
            let mut over = std::pin::pin!(join_all(self.listeners));
            if tokio::time::timeout(self.stop_grace, &mut over).await.is_err() {
                tracing::warn!(
                    "requests are still running at the end of the stop grace; closing their connections (--stop-grace)"
                );
                self.cut_requests.cancel();
                // A handler ends with its connection. One that does not ends with the process.
                let _ = tokio::time::timeout(limits::CUT_WAIT, over).await;
            }
        };
        let engine = async {
            // What they have pulled is accepted before the engine ends.
            if let Some(sources) = self.sources {
                sources.stop().await;
            }
            if let Some(engine) = self.engine {
                engine.stop(self.stop_grace).await;
            }
        };
        tokio::join!(requests, engine);
        // It ends by itself, with a last write. No grace cuts it off, because it would go on to hold the store.
        join_all(self.own_work).await;
        self.background.abort();
        // It holds the store until it has ended.
        let _ = self.background.await;
        self.components.service.write_last_refusals().await;
        self.components.close().await;
        tracing::info!("stopped");
    }
}

/// The OpenAPI document of the built-in catalogue, without the address of a server.
///
/// # Errors
/// Never for a released binary: a test reads the catalogue.
pub fn openapi_of_built_in() -> Result<serde_json::Value, CatalogueError> {
    Ok(api::document(&Catalogue::built_in()?, None))
}

/// Only for SQLite: a database that was copied from there still has the fact, and `postrider backup` cannot renew it.
async fn show_last_backup(settings: &Settings, operator: &Operator) {
    if settings.database.url.is_none()
        && let Err(error) = operator.measure_last_backup().await
    {
        tracing::warn!(error = %Chain(&error), "cannot read when the last backup was taken");
    }
}

/// Writes now and then which API keys were used, and once more at the stop.
async fn record_key_uses(service: Arc<Service>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = tokio::time::sleep(limits::KEY_USES_WRITTEN_EVERY) => {}
            () = stop.cancelled() => {}
        }
        if let Err(error) = service.record_key_uses().await {
            tracing::warn!(error = %Chain(&error), "cannot write when API keys were used; the next time tries again");
        }
    }
}
