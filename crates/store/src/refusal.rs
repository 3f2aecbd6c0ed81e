//! Why a write was refused: one enum per operation. Each also carries the store's own failure.
//!
//! Both back ends return these types directly.

use super::{SealedKind, StoreError};

#[derive(Debug, thiserror::Error)]
pub enum WriteWorkspaceError {
    #[error("there is no such workspace")]
    NotFound,
    #[error("another workspace has this name")]
    NameTaken,
    #[error("the workspace belongs to the server")]
    Operations,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum CreateApiKeyError {
    #[error("the workspace has its {0} API keys")]
    WorkspaceFull(u32),
    #[error("there is no such workspace")]
    NoWorkspace,
    /// A session makes the key, and it has ended.
    #[error("the session has ended")]
    SessionEnded,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum CreatePortalSessionError {
    #[error("the workspace has its {0} live portal sessions")]
    WorkspaceFull(u32),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum EndPortalSessionError {
    #[error("there is no such portal session")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum RevokeApiKeyError {
    #[error("there is no such API key")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum CreateEndpointError {
    #[error("the project has its {0} endpoints")]
    ProjectFull(u32),
    #[error("the workspace has its {0} endpoints")]
    WorkspaceFull(u32),
    /// A new endpoint has no stored values to keep.
    #[error("nothing is stored of the header {0}")]
    NothingToKeep(String),
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum UpdateEndpointError {
    #[error("there is no such endpoint")]
    NotFound,
    #[error("the project has its {0} endpoints")]
    ProjectFull(u32),
    /// The header was to keep its stored value, but has none.
    #[error("nothing is stored of the header {0}")]
    NothingToKeep(String),
    /// The signing key was made for another version of the secret.
    #[error("another rotation of the secret came first")]
    SecretVersionChanged,
    /// The new URL has another origin, and these options were sealed for the one before.
    #[error("sealed options would be kept for another origin")]
    SealedForOtherOrigin(SealedKind),
    /// The endpoint is not as the caller has seen it.
    #[error("another change came first")]
    ChangedMeanwhile,
    /// The tenant is narrowed to a project, and the change would move the endpoint out of it.
    #[error("the endpoint would leave its project")]
    OtherProject,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum DeleteEndpointError {
    #[error("there is no such endpoint")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum RotateSecretError {
    #[error("there is no such endpoint")]
    NotFound,
    /// Another rotation came first. The secret must be made for the version after that.
    #[error("another rotation of the secret came first")]
    SecretVersionChanged,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an erasure was not created.
#[derive(Debug, thiserror::Error)]
pub enum EraseError {
    #[error("there is no such event or endpoint")]
    NotFound,
    #[error("{max} erasures of the workspace have not ended")]
    TooMany { max: usize },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a retry, test or replay was not queued.
#[derive(Debug, thiserror::Error)]
pub enum RequeueError {
    #[error("there is no such resource")]
    NotFound,
    #[error("the endpoint is deleted")]
    EndpointDeleted,
    #[error("the endpoint is not active")]
    EndpointOff,
    #[error("the payload of the event is gone")]
    PayloadGone,
    #[error("the workspace stores its {max} bytes")]
    WorkspaceFull { max: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum SkipDeliveryError {
    #[error("there is no such delivery")]
    NotFound,
    #[error("the delivery does not hold up its endpoint")]
    NotBlocking,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum StopReplayError {
    #[error("there is no such replay")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    #[error("event {index} has an externalId that was published before with other content")]
    ExternalIdReused { index: usize },
    #[error("the request would create {count} deliveries, more than {max}")]
    TooManyDeliveries { count: usize, max: usize },
    #[error("the workspace stores its {max} bytes")]
    WorkspaceFull { max: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}
