//! Why a write was refused: what the caller can be told, and the store's own failure beside it.

use super::StoreError;

#[derive(Debug, thiserror::Error)]
pub enum WriteWorkspaceError {
    #[error("there is no such workspace")]
    NotFound,
    #[error("another workspace has this name")]
    NameTaken,
    #[error(transparent)]
    Store(#[from] StoreError),
}

#[derive(Debug, thiserror::Error)]
pub enum CreateApiKeyError {
    #[error("the workspace has its {0} API keys")]
    WorkspaceFull(u32),
    #[error("there is no such workspace")]
    NoWorkspace,
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
    /// A new endpoint has no values that could be kept.
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
    /// The value of a header was to be kept that there is not.
    #[error("nothing is stored of the header {0}")]
    NothingToKeep(String),
    /// A signing key is needed for another version of the secret than the one it came for.
    #[error("the secret has been rotated meanwhile")]
    Outrun,
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
    /// Another rotation came first: make the secret for the version after that.
    #[error("the secret has been rotated meanwhile")]
    Outrun,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was queued by hand.
#[derive(Debug, thiserror::Error)]
pub enum RequeueError {
    #[error("there is no such resource")]
    NotFound,
    #[error("the endpoint is deleted")]
    EndpointDeleted,
    #[error("the endpoint is not active")]
    EndpointOff,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was skipped.
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
    #[error(transparent)]
    Store(#[from] StoreError),
}
