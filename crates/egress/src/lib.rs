//! The only code that opens sockets to strangers: resolve, vet, pin, connect, send, and read a bounded answer.
//!
//! - `policy` decides which addresses, ports and schemes may be called: by the table in `address` and the operator's
//!   rules in `rule`.
//! - `resolver`, `name_server` and `pin` find a host's addresses and keep the vetted ones.
//! - `connector` opens a connection to a vetted address; `dial`, `proxy`, `tls` and `stream` are its parts.
//! - `client` and `pool` send HTTP requests over it.
//! - `diagnosis` reports to an operator why a target is, or is not, reachable.
//!
//! [`Egress`] puts them together. [`Transport`] is the seam at which a simulation replaces all of it. Nothing here
//! knows what a delivery is or judges an answer.

pub mod address;
mod body;
pub mod client;
pub mod connector;
pub mod diagnosis;
mod dial;
pub mod exchange;
pub mod identity;
mod name_server;
pub mod pin;
pub mod policy;
mod pool;
mod proxy;
pub mod resolver;
mod rule;
mod stream;
pub mod target;
pub mod tls;

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use url::Url;

use postrider_domain::endpoint_options::CertificateFacts;
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::private_options::ClientCertificate;
use postrider_domain::proxy::ProxyUrl;
use postrider_domain::target::{RefusalReason, Requester, TargetGuard, TargetRefusal, VettingError};
use postrider_domain::time::Clock;
use postrider_metrics::EgressMetrics;

pub use connector::Probe;
pub use exchange::{Answer, Cause, Exchange, OutboundRequest, Phase, Phases, ProxyFault, SendError, TlsFault};
pub use identity::{ClientIdentity, IdentityId, InvalidIdentity};
pub use resolver::ResolveError;
pub use rule::{AllowTarget, DenyTarget, InvalidTargetRule};
pub use stream::Protocol;
pub use target::{InvalidTargetUrl, TargetUrl};

use client::HttpClient;
use connector::Connector;
use diagnosis::{Diagnosis, diagnose};
use name_server::ResolverSetupError;
use pin::{PinError, Pins};
use policy::TargetPolicy;
use pool::PoolLimits;
use proxy::ProxyConnector;
use resolver::Resolver;
use stream::OpenStreams;
use target::Host;
use tls::{TlsSetupError, tls_settings};

/// A name that exists nowhere (RFC 2606). The resolver itself answers for names below `.invalid`.
const NOBODYS_NAME: &str = "postrider-doctor.test";

/// Sends one request and returns the exchange. The engine's simulation puts a fake here.
pub trait Transport: Send + Sync + 'static {
    fn send(&self, request: OutboundRequest) -> SendFuture<'_>;
}

/// The future that [`Transport::send`] returns.
pub type SendFuture<'a> = Pin<Box<dyn Future<Output = Exchange> + Send + 'a>>;

/// The settings of [`Egress`].
#[derive(Clone, Debug)]
pub struct EgressSettings {
    /// The operator's exceptions to the target policy. Default: none.
    pub allow_targets: Vec<AllowTarget>,
    /// What the operator forbids, whatever is allowed. Default: none.
    pub deny_targets: Vec<DenyTarget>,
    /// Name servers. When empty, the system's.
    pub dns_servers: Vec<SocketAddr>,
    /// Certificate authorities in addition to the public ones, as PEM.
    pub extra_ca_pem: Option<Vec<u8>>,
    /// The operator's forward proxy. Default: none. The proxy variables of the environment are never read.
    pub proxy: Option<ProxyUrl>,
    /// For one address. Several are tried side by side.
    pub connect_timeout: Duration,
    /// Offer HTTP/2 over TLS.
    pub http2: bool,
    /// Idle connections to one origin. By default as many as may be in use at once: many endpoints often share one
    /// origin, and a connection closed at this limit is opened again a moment later.
    pub max_idle_per_origin: usize,
    /// Idle connections in total.
    pub max_idle: usize,
    /// How long a connection may be idle before it is closed.
    pub idle_timeout: Duration,
    /// What is measured.
    pub metrics: EgressMetrics,
}

impl Default for EgressSettings {
    fn default() -> Self {
        Self {
            allow_targets: Vec::new(),
            deny_targets: Vec::new(),
            dns_servers: Vec::new(),
            extra_ca_pem: None,
            proxy: None,
            connect_timeout: limits::CONNECT_TIMEOUT,
            http2: true,
            max_idle_per_origin: limits::SLOTS,
            max_idle: limits::IDLE_CONNECTIONS,
            idle_timeout: limits::IDLE_CONNECTION_TIMEOUT,
            metrics: EgressMetrics::default(),
        }
    }
}

/// The settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum EgressSetupError {
    #[error("cannot set up name resolution")]
    Resolver(#[from] ResolverSetupError),
    #[error("cannot set up TLS")]
    Tls(#[from] TlsSetupError),
}

/// The outbound HTTP client with all its guards.
pub struct Egress {
    policy: Arc<TargetPolicy>,
    resolver: Resolver,
    pins: Arc<Pins>,
    client: HttpClient,
}

impl Egress {
    /// # Errors
    /// When the system's resolver configuration or the extra certificate authorities cannot be read.
    pub fn new(settings: EgressSettings, clock: Arc<dyn Clock>) -> Result<Self, EgressSetupError> {
        let policy = Arc::new(TargetPolicy::new(settings.allow_targets, settings.deny_targets));
        let metrics = settings.metrics;
        let resolver = Resolver::new(&settings.dns_servers, metrics.look_ups.clone())?;
        let proxy = settings.proxy.map(|url| ProxyConnector::new(url, resolver.clone()));
        let pins = Arc::new(Pins::new(Arc::clone(&policy), resolver.clone(), clock));
        let tls = tls_settings(settings.extra_ca_pem.as_deref(), settings.http2)?;
        let connector = Connector::new(
            Arc::clone(&policy),
            Arc::clone(&pins),
            proxy,
            tls,
            settings.connect_timeout,
            OpenStreams::counting_into(metrics.bytes.clone()),
        );
        let limits = PoolLimits {
            max_idle_per_origin: settings.max_idle_per_origin,
            max_idle: settings.max_idle,
            idle_timeout: settings.idle_timeout,
        };
        Ok(Self { policy, resolver, pins, client: HttpClient::new(connector, limits, metrics) })
    }

    /// Sends one `POST` and reads the answer, within the request's deadline.
    pub async fn send(&self, request: OutboundRequest) -> Exchange {
        self.client.send(request).await
    }

    /// Reports why a target is, or is not, reachable. Resolves the name again and pins nothing.
    pub async fn diagnose(&self, target: &TargetUrl, requester: Requester) -> Diagnosis {
        diagnose(target, requester, &self.policy, &self.resolver, self.client.connector()).await
    }

    /// Whether a name server answers. It is asked for a name that nobody has, so "no such name" is the answer.
    ///
    /// # Errors
    /// When none answers.
    pub async fn examine_name_servers(&self) -> Result<(), ResolveError> {
        match self.resolver.resolve(NOBODYS_NAME).await {
            Ok(_) | Err(ResolveError::NoAddress) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether the operator's proxy accepts connections. `None` when there is none.
    pub async fn examine_proxy(&self) -> Option<Result<(), SendError>> {
        self.client.connector().examine_proxy().await
    }

    /// Closes the pooled connections to a host. A refused request does so by itself.
    pub fn forget(&self, host: &Host) {
        self.client.forget(host);
    }

    /// Idle connections in the pool.
    pub fn idle_connections(&self) -> usize {
        self.client.idle_connections()
    }
}

impl Transport for Egress {
    fn send(&self, request: OutboundRequest) -> SendFuture<'_> {
        Box::pin(self.client.send(request))
    }
}

#[async_trait]
impl TargetGuard for Egress {
    /// For a host name `true` means "perhaps" while any network is allowed: [`TargetGuard::vet`] then refuses with
    /// `PlainHttp` unless all addresses of the host are inside allowed networks.
    fn allows_plain_http(&self, url: &Url, requester: Requester) -> bool {
        TargetUrl::from_url(url.clone()).is_ok_and(|target| self.policy.may_allow_plain_http(&target, requester))
    }

    fn allow_operator_webhook(&self, url: &Url, endpoint: EndpointId) {
        if let Ok(target) = TargetUrl::from_url(url.clone()) {
            self.policy.allow_operator_webhook(&target, endpoint);
        }
    }

    async fn vet(&self, url: &Url, requester: Requester) -> Result<(), VettingError> {
        let unresolvable = |is_passing| TargetRefusal {
            host: url.host_str().unwrap_or_default().to_owned(),
            reason: RefusalReason::Unresolvable,
            is_passing,
        };
        let target = TargetUrl::from_url(url.clone()).map_err(|_| unresolvable(false))?;
        match self.pins.vet_now(&target, requester).await {
            Ok(()) => Ok(()),
            Err(PinError::Resolve(ResolveError::Unavailable)) => Err(VettingError::NoNameServer),
            Err(PinError::Resolve(error)) => Err(unresolvable(error.is_passing()).into()),
            Err(PinError::Refused(refusal)) => Err(refusal.into()),
        }
    }

    fn vet_client_certificate(&self, certificate: &ClientCertificate) -> Result<CertificateFacts, String> {
        match ClientIdentity::from_pem(certificate.chain.as_bytes(), certificate.key.as_bytes()) {
            Ok(identity) => Ok(CertificateFacts { sha256: identity.leaf_sha256() }),
            Err(fault) => Err(format!("cannot be used: {fault}")),
        }
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Egress").field("policy", &self.policy).finish_non_exhaustive()
    }
}
