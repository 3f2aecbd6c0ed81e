//! The listener of the API and the pages, built from the settings.

use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use crate::open_files;
use postrider_api as api;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_http::{Certificate, Door, DoorLimits};
use postrider_web::{Site, docs};

use super::components::Components;
use super::error::StartError;

/// The parts of the listener that the server keeps.
pub struct FrontDoor {
    pub certificate: Option<Arc<Certificate>>,
    pub serving: JoinHandle<()>,
}

/// What the listener is made of, beside the components.
pub struct DoorParts<'p> {
    pub listener: TcpListener,
    pub public_url: &'p str,
    pub certificate: Option<Arc<Certificate>>,
    /// The route of the metrics, if there is one here.
    pub metrics: Router,
    pub clock: Arc<dyn Clock>,
}

/// Reads the certificate of the settings.
///
/// # Errors
/// When only one of the two files is named, or they cannot be used.
pub fn read_certificate(settings: &Settings) -> Result<Option<Certificate>, StartError> {
    match (&settings.tls_cert_file, &settings.tls_key_file) {
        (None, None) => Ok(None),
        (Some(chain), Some(key)) => Ok(Some(Certificate::read(chain, key, limits::CERTIFICATE_CHECK_INTERVAL)?)),
        _ => Err(StartError::HalfACertificate),
    }
}

/// Starts to answer requests. `stop` ends it gracefully, `cut` at once.
pub fn open(
    settings: &Settings,
    components: &Components,
    parts: DoorParts<'_>,
    (stop, cut): (&CancellationToken, &CancellationToken),
) -> FrontDoor {
    let DoorParts { listener, public_url, certificate, metrics, clock } = parts;
    let document = api::document(&components.catalogue, Some(public_url));
    let (api, render_refusal) = api::router(Arc::clone(&components.service), public_url, &document);
    let site =
        Site::new(Arc::clone(&components.service), public_url, settings.public_url.is_some(), settings.shown.clone());
    let router = docs::router(&document).merge(postrider_web::pages(&site)).merge(metrics).merge(api);
    let mut door = Door::new(DoorLimits::new(connections()), render_refusal, components.random.clone(), clock);
    door.responses = components.metrics.families.server.http_responses.clone();
    door.trusted_proxies = settings.trusted_proxies.clone();
    door.certificate.clone_from(&certificate);
    if let Some(certificate) = certificate.clone() {
        tokio::spawn(stop.clone().run_until_cancelled_owned(async move { certificate.reload_when_changed().await }));
    }
    let serving = postrider_http::serve(listener, router, Arc::new(door), stop.clone(), cut.clone());
    FrontDoor { certificate, serving: tokio::spawn(serving) }
}

/// Half of the files that the process may have open (contract). The other half is for the store and for deliveries.
fn connections() -> usize {
    let files = open_files::limit().unwrap_or(u64::MAX);
    usize::try_from(files / 2).unwrap_or(usize::MAX)
}
