//! The listener of the API and the pages, built from the settings.

use std::fs::File;
use std::io::Read as _;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{PortalSettings, Settings};
use crate::open_files;
use postrider_api as api;
use postrider_domain::limits;
use postrider_domain::portal_look::{PortalLogo, PortalLook};
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
    pub look: &'p PortalLook,
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

/// The look of the settings, with the logo from its file.
///
/// # Errors
/// When the file cannot be read, or is no logo.
pub fn read_look(settings: &Settings) -> Result<PortalLook, StartError> {
    let PortalSettings { look, logo_file, .. } = &settings.portal;
    let Some(file) = logo_file else { return Ok(look.clone()) };
    let path = || file.display().to_string();
    // A byte more than allowed is enough to see that it is too large.
    let most = limits::PORTAL_LOGO_BYTES as u64 + 1;
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes));
    read.map_err(|source| StartError::ReadLogo { path: path(), source })?;
    let logo = PortalLogo::parse(bytes).map_err(|source| StartError::Logo { path: path(), source })?;
    Ok(PortalLook { logo: Some(logo), ..look.clone() })
}

/// Starts to answer requests. `stop` ends it gracefully, `cut` at once.
pub fn open(
    settings: &Settings,
    components: &Components,
    parts: DoorParts<'_>,
    (stop, cut): (&CancellationToken, &CancellationToken),
) -> FrontDoor {
    let DoorParts { listener, public_url, certificate, look, metrics, clock } = parts;
    let document = api::document(&components.catalogue, Some(public_url));
    let (api, render_refusal) = api::router(Arc::clone(&components.service), public_url, &document);
    let service = Arc::clone(&components.service);
    let (has_url, shown) = (settings.public_url.is_some(), settings.shown.clone());
    let site = Site::new(service, public_url, has_url, shown, look, stop.clone());
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
