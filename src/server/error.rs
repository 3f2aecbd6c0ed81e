//! Why a server did not start.

use std::net::SocketAddr;

use postrider_egress::{EgressSetupError, InvalidAllowTarget};
use postrider_service::{AdoptError, MasterKeyError, ServiceError};
use postrider_store::OpenError;

use super::key_file::KeyFileError;
use super::operator_webhook::OperatorWebhookError;

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
