//! The composition root: settings become a store, a way out, a service, an engine and listeners, and stop in the
//! opposite order.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::Settings;
use postrider_api as api;
use postrider_crypto::{MasterKey, Random};
use postrider_domain::event_type::{Catalogue, CatalogueError};
use postrider_domain::id::StoreTag;
use postrider_domain::time::Clock;
use postrider_egress::{AllowTarget, Egress, EgressSettings, EgressSetupError, InvalidAllowTarget};
use postrider_engine::{Engine, EngineParts, EngineSettings};
use postrider_service::{
    AdoptError, MasterKeyError, Operator, Service, ServiceError, ServiceParts, adopt_catalogue, check_master_key,
    stored_catalogue,
};
use postrider_store::directory::DirectoryLock;
use postrider_store::{EndpointLimits, OpenError, Store, StoreSeed};
use postrider_web::docs;

pub mod admin;
mod back_end;
mod connection;
mod key_file;
mod operator_webhook;

pub use back_end::postgres_settings;
pub use key_file::KeyFileError;
pub use operator_webhook::OperatorWebhookError;

use back_end::BackEnd;
use connection::CuttableListener;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("the store cannot be opened")]
    Store(#[from] OpenError),
    #[error(
        "with --database-url the master key must be named by --master-key-file: make one by `openssl rand -hex 32`, and \
         give each node the same"
    )]
    MasterKeyNotNamed,
    #[error("the master key cannot be used")]
    KeyFile(#[from] KeyFileError),
    #[error("the store and the master key do not belong together")]
    MasterKey(#[from] MasterKeyError),
    #[error("cannot read the event catalogue {path}")]
    EventsFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the event catalogue cannot be used")]
    Catalogue(#[from] AdoptError),
    #[error("--allow-target {target}")]
    AllowTarget {
        target: String,
        #[source]
        source: InvalidAllowTarget,
    },
    #[error("the certificate authorities in {path} cannot be read")]
    CaFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the way out cannot be set up")]
    Egress(#[from] EgressSetupError),
    #[error(
        "with --database-url the operator webhook's secret must be named by --operator-webhook-secret-file, the same for \
         each node"
    )]
    OperatorSecretNotNamed,
    #[error("the operator webhook cannot be used")]
    OperatorWebhook(#[from] OperatorWebhookError),
    #[error("the operator webhook cannot be kept")]
    OperatorEndpoint(#[source] ServiceError),
    #[error("cannot listen on {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot open the admin socket at {path}")]
    AdminSocket {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

/// Everything below the listeners. The command line uses it alone when no server runs.
pub struct Office {
    pub service: Arc<Service>,
    pub operator: Operator,
    store: Arc<dyn Store>,
    egress: Arc<Egress>,
    master_key: Arc<MasterKey>,
    catalogue: Arc<Catalogue>,
    clock: Arc<dyn Clock>,
    random: Random,
    /// Held until the store is closed.
    _directory: Option<DirectoryLock>,
}

/// What a store is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenedFor {
    /// A server, which sends. The event catalogue of the settings counts, and the store adopts it.
    Serving,
    /// A command, which need not be told what the server was told: the store's own catalogue counts, if it has one.
    Command,
}

impl Office {
    /// # Errors
    /// When another process holds the data directory, the database cannot be used, or a setting cannot be put to use.
    pub async fn open(settings: &Settings, clock: Arc<dyn Clock>, opened_for: OpenedFor) -> Result<Self, StartError> {
        let random = Random::default();
        let egress = Arc::new(Egress::new(egress_settings(settings)?, Arc::clone(&clock))?);
        let seed = StoreSeed {
            tag: StoreTag::from_u32(u32::from_le_bytes(random.bytes())),
            node: u16::from_le_bytes(random.bytes()),
        };
        let BackEnd { store, directory } = back_end::open(settings, Arc::clone(&clock), seed, opened_for).await?;
        let master_key = Arc::new(key_file::load_or_make(settings, store.as_ref(), &random).await?);
        check_master_key(store.as_ref(), &master_key, &random).await?;
        let catalogue = Arc::new(open_catalogue(settings, store.as_ref(), opened_for).await?);
        let (service, operator) = ServiceParts {
            store: Arc::clone(&store),
            guard: egress.clone(),
            master_key: Arc::clone(&master_key),
            catalogue: Arc::clone(&catalogue),
            clock: Arc::clone(&clock),
            random: random.clone(),
            endpoint_limits: EndpointLimits {
                per_project: settings.endpoints_per_project,
                per_workspace: settings.endpoints_per_workspace,
            },
            rate_limits: settings.rate_limits,
        }
        .build();
        Ok(Self { service, operator, store, egress, master_key, catalogue, clock, random, _directory: directory })
    }

    fn start_engine(&self, settings: &Settings) -> Engine {
        Engine::start(EngineParts {
            store: Arc::clone(&self.store),
            transport: self.egress.clone(),
            clock: Arc::clone(&self.clock),
            master_key: Arc::clone(&self.master_key),
            random: self.random.clone(),
            settings: EngineSettings {
                brand: self.catalogue.brand.clone(),
                schedule: settings.retry_schedule.clone(),
                attempt_deadline: settings.attempt_deadline,
                retention: settings.retention,
                ..EngineSettings::default()
            },
        })
    }

    /// Returns once everything that was written is on disk and the directory is free.
    pub async fn close(self) {
        let closed = tokio::task::spawn_blocking(move || drop(self)).await;
        if closed.is_err() {
            tracing::error!("closing the store panicked");
        }
    }
}

/// How long connections that were cut off may take to go.
const CUT_WAIT: Duration = Duration::from_secs(1);

/// A server at work.
pub struct Server {
    address: SocketAddr,
    office: Office,
    engine: Engine,
    stop_listening: CancellationToken,
    /// Ends the connections on which requests are still under way.
    cut_requests: CancellationToken,
    listeners: Vec<JoinHandle<()>>,
    stop_grace: Duration,
}

impl Server {
    /// Starts everything on the current runtime. When this returns, requests are answered.
    ///
    /// # Errors
    /// When the address is taken, another process holds the data directory, or a setting cannot be put to use.
    pub async fn start(settings: &Settings, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        admin::check_path(&settings.admin_socket_path())?;
        let office = Office::open(settings, clock, OpenedFor::Serving).await?;
        let webhook = operator_webhook::read(settings, &office.random)?;
        office.operator.keep_webhook(webhook).await.map_err(StartError::OperatorEndpoint)?;
        let listen_fault = |source| StartError::Listen { address: settings.listen, source };
        let listener = TcpListener::bind(settings.listen).await.map_err(listen_fault)?;
        let address = listener.local_addr().map_err(listen_fault)?;
        let public_url = settings.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let public_url = public_url.trim_end_matches('/');
        let document = api::document(&office.catalogue, Some(public_url));
        let api = api::router(Arc::clone(&office.service), public_url, &document);
        let router = docs::router(&document).merge(api);
        let stop_listening = CancellationToken::new();
        let admin = admin::listen(&settings.admin_socket_path(), office.operator.clone(), stop_listening.clone())?;
        let engine = office.start_engine(settings);
        let cut_requests = CancellationToken::new();
        let listener = CuttableListener { listener, cut: cut_requests.clone() };
        let http = tokio::spawn(serve_http(listener, router, stop_listening.clone()));
        for target in &settings.allow_targets {
            tracing::warn!(
                allow_target = target,
                "this target may be called although it need not be public, over plain http too"
            );
        }
        if let Some(proxy) = &settings.egress_proxy {
            tracing::info!(%proxy, "receivers are called through a forward proxy");
        }
        if let Some(database) = &settings.database.url {
            tracing::info!(%database, "the store is a PostgreSQL database");
        }
        tracing::info!(%address, data_dir = %settings.data_dir.display(), "listening");
        let listeners = vec![http, admin];
        Ok(Self { address, office, engine, stop_listening, cut_requests, listeners, stop_grace: settings.stop_grace })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn service(&self) -> &Arc<Service> {
        &self.office.service
    }

    pub fn operator(&self) -> &Operator {
        &self.office.operator
    }

    /// Refuses new requests, ends those under way and the attempts under way, and returns when all is on disk. What is
    /// not over within the grace is cut off.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.stop_listening.cancel();
        let requests = async {
            let mut over = std::pin::pin!(join_all(self.listeners));
            if tokio::time::timeout(self.stop_grace, &mut over).await.is_err() {
                tracing::warn!("requests were still under way when the time to stop was up");
                self.cut_requests.cancel();
                // Their handlers end with their connections; one that does not is ended with the process.
                let _ = tokio::time::timeout(CUT_WAIT, over).await;
            }
        };
        tokio::join!(requests, self.engine.stop(self.stop_grace));
        self.office.close().await;
        tracing::info!("stopped");
    }
}

/// The OpenAPI document of the built-in catalogue, for a server whose address is not known.
///
/// # Errors
/// Never for a released binary: a test reads the catalogue.
pub fn openapi_of_built_in() -> Result<serde_json::Value, CatalogueError> {
    Ok(api::document(&Catalogue::built_in()?, None))
}

async fn serve_http(listener: CuttableListener, router: axum::Router, stop: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await }).await;
    if let Err(error) = served {
        tracing::error!(%error, "the listener failed");
    }
}

/// The text of the catalogue that the settings name: a file's, or the one built in.
///
/// # Errors
/// When the file cannot be read.
pub fn read_events_file(settings: &Settings) -> Result<String, StartError> {
    let Some(path) = &settings.events_file else { return Ok(Catalogue::BUILT_IN.to_owned()) };
    let fault = |source| StartError::EventsFile { path: path.display().to_string(), source };
    std::fs::read_to_string(path).map_err(fault)
}

async fn open_catalogue(
    settings: &Settings,
    store: &dyn Store,
    opened_for: OpenedFor,
) -> Result<Catalogue, StartError> {
    if opened_for == OpenedFor::Command
        && let Some(stored) = stored_catalogue(store).await?
    {
        return Ok(stored);
    }
    Ok(adopt_catalogue(store, &read_events_file(settings)?).await?)
}

/// How the settings have strangers called.
///
/// # Errors
/// When an exception cannot be read, or the file of certificate authorities.
pub fn egress_settings(settings: &Settings) -> Result<EgressSettings, StartError> {
    let allow_targets = settings
        .allow_targets
        .iter()
        .map(|target| {
            target.parse::<AllowTarget>().map_err(|source| StartError::AllowTarget { target: target.clone(), source })
        })
        .collect::<Result<_, _>>()?;
    let extra_ca_pem = match &settings.ca_file {
        None => None,
        Some(path) => Some(
            std::fs::read(path).map_err(|source| StartError::CaFile { path: path.display().to_string(), source })?,
        ),
    };
    let dns_servers = settings.dns_servers.clone();
    let proxy = settings.egress_proxy.clone();
    Ok(EgressSettings { allow_targets, dns_servers, extra_ca_pem, proxy, ..EgressSettings::default() })
}
