//! Every setting, with its default and the reason. `cli/settings.rs` has a row for each: its names and its parser.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use postrider_domain::database_url::DatabaseUrl;
use postrider_domain::limits;
use postrider_domain::portal::FrameAncestor;
use postrider_domain::portal_look::PortalLook;
use postrider_domain::proxy::ProxyUrl;
use postrider_domain::rate_limit::RateLimits;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::span::Sampler;
use postrider_source::SourceSettings;
use postrider_web::ShownSetting;

#[derive(Clone, Debug)]
pub struct Settings {
    /// The address of the API. The default is loopback, so that no network can reach a new server by accident.
    pub listen: SocketAddr,
    /// The base URL under which callers reach the API, used in `docs_url`. Derived from `listen` by default.
    pub public_url: Option<String>,
    /// The certificate and the key of the API. `None`: it speaks plain HTTP, for a proxy with TLS in front of it.
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// The networks of proxies whose `X-Forwarded-For` and `Forwarded` count. None by default: anyone can send these.
    pub trusted_proxies: Vec<IpNet>,
    /// The directory of the lock, the admin socket, the SQLite database if that is the store, and the master key unless
    /// it is named elsewhere.
    pub data_dir: PathBuf,
    /// A file with 64 hexadecimal digits, readable only by its owner. The first start creates it in `data_dir`. With
    /// PostgreSQL it must be named, because all nodes need the same key.
    pub master_key_file: Option<PathBuf>,
    /// A command for `/bin/sh` that prints the master key, in the form of the file. It runs at each start.
    pub master_key_command: Option<String>,
    pub database: DatabaseSettings,
    /// Rules for hosts that may be called although they are not public, also over plain `http`: each with a scheme, a
    /// port and a workspace where given. None by default.
    pub allow_targets: Vec<String>,
    /// Hosts and CIDRs that may never be called, whatever is allowed. None by default.
    pub deny_targets: Vec<String>,
    /// Name servers. Empty: those of the system.
    pub dns_servers: Vec<SocketAddr>,
    /// A PEM file of certificate authorities to trust in addition to the public ones.
    pub ca_file: Option<PathBuf>,
    /// A forward proxy for all calls to receivers. The guard stays active. None by default. The proxy variables of the
    /// environment are never read: the person who sets them may not be responsible for the guard.
    pub egress_proxy: Option<ProxyUrl>,
    /// The file of the event catalogue. `None`: the built-in catalogue.
    pub events_file: Option<PathBuf>,
    /// The URL that receives operational events. `None`: they are not sent.
    pub operator_webhook_url: Option<String>,
    /// A file with the secret, `whsec_…`, that signs operational events. The first start creates it in `data_dir`.
    pub operator_webhook_secret_file: Option<PathBuf>,
    /// Endpoints of one project. Endpoints without a project count as one project.
    pub endpoints_per_project: u32,
    pub endpoints_per_workspace: u32,
    /// Bytes that the store may take on the disk. `None`: as many as the file system has.
    pub max_disk: Option<u64>,
    /// Bytes that one workspace may store. `None`: nothing is counted or refused.
    pub workspace_max_bytes: Option<u64>,
    pub portal: PortalSettings,
    pub metrics: MetricsSettings,
    pub traces: TraceSettings,
    pub retry_schedule: RetrySchedule,
    /// Requests of one workspace in 60 s. The default for publishes is higher than one server takes: only the operator
    /// knows how many events the disk can take.
    pub rate_limits: RateLimits,
    /// The deadline of one whole exchange with a receiver.
    pub attempt_deadline: Duration,
    /// How long the log keeps an event and its deliveries. Pending deliveries are kept until they end.
    pub retention: Duration,
    /// How long payloads are kept: the data of events, the headers and bodies of attempts. `None`: as long as the log.
    pub payload_retention: Option<Duration>,
    /// How long the audit log keeps an entry, and a revoked or expired API key its row.
    pub audit_retention: Duration,
    /// How long a message of a source is kept that could not become an event.
    pub parked_retention: Duration,
    /// Sources of events besides the API. Tables of the settings file.
    pub sources: Vec<SourceSettings>,
    /// How long a stop waits for running attempts: longer than the deadline of an attempt.
    pub stop_grace: Duration,
    pub log: LogSettings,
    /// The store has no other copy in use, so a restored copy may send from now on. An option of `serve` alone: in a
    /// file it would speak for the next copy, too.
    pub is_the_only_one: bool,
    /// All settings as the dashboard shows them. Empty where no command line was read.
    pub shown: Vec<ShownSetting>,
}

/// The portal of customers: who may show it in a frame, and how it looks.
#[derive(Clone, Debug, Default)]
pub struct PortalSettings {
    /// None by default: a page that anybody may frame invites clicks that its reader does not see.
    pub frame_ancestors: Vec<FrameAncestor>,
    /// The look without the logo, which is read from its file at the start.
    pub look: PortalLook,
    /// A PNG or an SVG.
    pub logo_file: Option<PathBuf>,
}

/// Where metrics are served.
#[derive(Clone, Debug, Default)]
pub struct MetricsSettings {
    pub listen: MetricsListen,
    /// A file with a bearer token, with which `/metrics` can also be read on the listener of the API. None by default.
    pub token_file: Option<PathBuf>,
}

impl MetricsSettings {
    /// Whether anybody can look at them.
    pub fn are_served(&self) -> bool {
        self.listen != MetricsListen::Off || self.token_file.is_some()
    }
}

/// The listener of metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsListen {
    /// [`Self::DEFAULT`], if nobody has it. A second server on the machine starts without.
    #[default]
    Default,
    /// An address that was asked for: the server does not start without.
    At(SocketAddr),
    Off,
}

impl MetricsListen {
    /// Loopback, so that no network can reach it by accident: it asks for no token.
    pub const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464);
}

impl fmt::Display for MetricsListen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => Self::DEFAULT.fmt(f),
            Self::At(address) => address.fmt(f),
            Self::Off => f.write_str("off"),
        }
    }
}

/// Which spans are exported, and whether receivers get the trace of an event.
#[derive(Clone, Debug)]
pub struct TraceSettings {
    /// The base URL of a collector. `None`: no spans.
    pub endpoint: Option<String>,
    /// A PEM file of certificate authorities to trust for the collector in addition to the public ones.
    pub ca_file: Option<PathBuf>,
    /// By default the sampled flag of the publisher decides, and a publish without `traceparent` is not traced.
    pub sampler: Sampler,
    /// Failed attempts are exported whatever the sampler said.
    pub exports_failures: bool,
    /// On by default: what a receiver gets is an id of the publisher's own making, and only if the publisher sent one.
    pub are_forwarded: bool,
}

impl Default for TraceSettings {
    fn default() -> Self {
        Self {
            endpoint: None,
            ca_file: None,
            sampler: Sampler::default(),
            exports_failures: false,
            are_forwarded: true,
        }
    }
}

/// The PostgreSQL database that several nodes share. Without a URL the store is SQLite in the data directory.
#[derive(Clone, Debug)]
pub struct DatabaseSettings {
    pub url: Option<DatabaseUrl>,
    /// A URL that bypasses poolers, for work that needs its own session: migrations and LISTEN. Without LISTEN a node
    /// polls.
    pub direct_url: Option<DatabaseUrl>,
    /// A file with the password, so that it appears in neither the process list nor the environment.
    pub password_file: Option<PathBuf>,
    /// A PEM file of certificate authorities to trust for the database in addition to the public ones.
    pub ca_file: Option<PathBuf>,
    /// Maximum number of connections of this node.
    pub pool_size: usize,
    /// Time after which the database cancels a statement.
    pub statement_timeout: Duration,
}

#[derive(Clone, Debug)]
pub struct LogSettings {
    pub format: LogFormat,
    /// Levels and targets in the syntax of `tracing_subscriber::filter::Targets`: `info`, `warn,postrider=debug`.
    pub filter: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

pub const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);
pub const DEFAULT_DATA_DIR: &str = "./postrider-data";
pub const DEFAULT_LOG_FILTER: &str = "info";

impl LogFormat {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
        }
    }
}

impl Default for DatabaseSettings {
    fn default() -> Self {
        Self {
            url: None,
            direct_url: None,
            password_file: None,
            ca_file: None,
            pool_size: limits::DATABASE_CONNECTIONS,
            statement_timeout: limits::STATEMENT_TIMEOUT,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self::new(DEFAULT_DATA_DIR.into(), DEFAULT_LISTEN)
    }
}

impl Settings {
    /// The default settings with this data directory and address.
    pub fn new(data_dir: PathBuf, listen: SocketAddr) -> Self {
        Self {
            listen,
            public_url: None,
            tls_cert_file: None,
            tls_key_file: None,
            trusted_proxies: Vec::new(),
            data_dir,
            master_key_file: None,
            master_key_command: None,
            database: DatabaseSettings::default(),
            allow_targets: Vec::new(),
            deny_targets: Vec::new(),
            dns_servers: Vec::new(),
            ca_file: None,
            egress_proxy: None,
            events_file: None,
            operator_webhook_url: None,
            operator_webhook_secret_file: None,
            endpoints_per_project: limits::ENDPOINTS_PER_PROJECT,
            endpoints_per_workspace: limits::ENDPOINTS_PER_WORKSPACE,
            max_disk: None,
            workspace_max_bytes: None,
            portal: PortalSettings::default(),
            metrics: MetricsSettings::default(),
            traces: TraceSettings::default(),
            retry_schedule: RetrySchedule::default(),
            rate_limits: RateLimits::default(),
            attempt_deadline: limits::ATTEMPT_DEADLINE,
            retention: limits::RETENTION,
            payload_retention: None,
            audit_retention: limits::AUDIT_RETENTION,
            parked_retention: limits::PARKED_RETENTION,
            sources: Vec::new(),
            stop_grace: limits::STOP_GRACE,
            log: LogSettings { format: LogFormat::Text, filter: DEFAULT_LOG_FILTER.to_owned() },
            is_the_only_one: false,
            shown: Vec::new(),
        }
    }

    /// How long payloads are kept.
    pub fn kept_payloads(&self) -> Duration {
        self.payload_retention.unwrap_or(self.retention)
    }

    pub fn master_key_path(&self) -> PathBuf {
        self.master_key_file.clone().unwrap_or_else(|| self.data_dir.join("master.key"))
    }

    pub fn operator_webhook_secret_path(&self) -> PathBuf {
        self.operator_webhook_secret_file.clone().unwrap_or_else(|| self.data_dir.join("operator-webhook.secret"))
    }

    pub fn admin_socket_path(&self) -> PathBuf {
        self.data_dir.join("admin.sock")
    }
}
