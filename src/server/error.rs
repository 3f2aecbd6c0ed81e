//! Why a server did not start.

use std::net::SocketAddr;

use postrider_domain::portal_look::InvalidLogo;
use postrider_egress::{EgressSetupError, InvalidTargetRule};
use postrider_http::CertificateError;
use postrider_service::{AdoptError, ServiceError};
use postrider_store::sealing::keyring::MasterKeyError;
use postrider_store::{OpenError, StoreError};

use super::key_command::KeyCommandError;
use super::key_file::KeyFileError;
use super::operator_webhook::OperatorWebhookError;

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot open the store")]
    Store(#[from] OpenError),
    #[error("cannot note in the store that it records when troubles end")]
    NoteTroubles(#[source] StoreError),
    #[error(
        "--database-url needs --master-key-file or --master-key-command: create a key with `openssl rand -hex 32` and give \
        the same key to each node"
    )]
    MasterKeyNotNamed,
    #[error(
        "payloads cannot be kept longer than the log: --retention-payloads is {payloads}, --retention is {log}. Shorten \
        the first or lengthen the second"
    )]
    PayloadsOutliveLog { payloads: String, log: String },
    #[error("--master-key-file and --master-key-command exclude each other: remove one of them")]
    TwoMasterKeys,
    #[error("cannot use the master key")]
    KeyFile(#[from] KeyFileError),
    #[error("cannot get the master key from its command (--master-key-command)")]
    KeyCommand(#[from] KeyCommandError),
    #[error("the store and the master key do not belong together")]
    MasterKey(#[from] MasterKeyError),
    #[error("cannot read whether the store is a restored copy")]
    RestoredCopy(#[source] StoreError),
    #[error("cannot read the event catalogue {path}")]
    EventsFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[cfg(feature = "otel")]
    #[error("cannot read the CA file of the collector, {path} (--otlp-ca-file)")]
    OtlpCaFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[cfg(feature = "otel")]
    #[error("cannot export spans")]
    Traces(#[source] postrider_traces::ExportError),
    #[cfg(not(feature = "otel"))]
    #[error(
        "this binary exports no spans: it was built without the feature `otel`. Leave out --otlp-endpoint and \
        OTEL_EXPORTER_OTLP_ENDPOINT, or use another build"
    )]
    NoTraces,
    #[error("cannot use the event catalogue (--events)")]
    Catalogue(#[from] AdoptError),
    #[error("--allow-target {target}")]
    AllowTarget {
        target: String,
        #[source]
        source: InvalidTargetRule,
    },
    #[error("--deny-target {target}")]
    DenyTarget {
        target: String,
        #[source]
        source: InvalidTargetRule,
    },
    #[error("cannot read the CA file {path} (--ca-file)")]
    CaFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot set up the client for receivers")]
    Egress(#[from] EgressSetupError),
    #[error(
        "--database-url with --operator-webhook-url needs --operator-webhook-secret-file: give the same file to each node"
    )]
    OperatorSecretNotNamed,
    #[error("cannot use the operator webhook")]
    OperatorWebhook(#[from] OperatorWebhookError),
    #[error("cannot store the endpoint of the operator webhook")]
    OperatorEndpoint(#[source] ServiceError),
    #[error("cannot listen on {address} (--listen)")]
    Listen {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot listen on {address} for metrics (--metrics-listen)")]
    ListenForMetrics {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot read the token for metrics from {path} (--metrics-token-file)")]
    MetricsToken {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the token for metrics in {path} is shorter than 16 bytes: create one with `openssl rand -hex 32` \
         (--metrics-token-file)"
    )]
    ShortMetricsToken { path: String },
    #[error("--tls-cert-file and --tls-key-file belong together: set both, or neither for plain HTTP")]
    HalfACertificate,
    #[error("cannot use the certificate of the API (--tls-cert-file, --tls-key-file)")]
    Certificate(#[from] CertificateError),
    #[error("cannot read the logo {path} (--portal-logo)")]
    ReadLogo {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot use the logo {path} (--portal-logo)")]
    Logo {
        path: String,
        #[source]
        source: InvalidLogo,
    },
    #[error("cannot open the admin socket at {path}")]
    AdminSocket {
        path: String,
        #[source]
        source: std::io::Error,
    },
}
