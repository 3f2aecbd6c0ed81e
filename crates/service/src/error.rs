//! Why a request is refused or fails: a closed list, which the API maps to the codes of the contract.

use std::borrow::Cow;
use std::time::Duration;

use postrider_domain::access::{ScopeMissing, Scopes};
use postrider_domain::limits;
use postrider_domain::page::InvalidPage;
use postrider_domain::rate_limit::RateBucket;
use postrider_domain::target::TargetRefusal;
use postrider_store::{DISK_FULL, StoreError};

/// The name of a parameter and its fault.
pub type ParameterFault = (String, String);

#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("The request has invalid parameters.")]
    InvalidRequest { parameters: Vec<ParameterFault> },
    #[error("The API version is not one that this server speaks.")]
    VersionUnsupported,
    #[error("The page is out of range: {0}.")]
    BadPagination(InvalidPage),
    #[error("The cursor cannot be read: it must be the next_cursor of an earlier page of this list.")]
    BadCursor,
    #[error("The API key is missing or unknown.")]
    InvalidToken,
    #[error("The API key has been revoked.")]
    KeyRevoked,
    #[error("The API key has expired.")]
    KeyExpired,
    /// The session of a page is unknown, or it has ended.
    #[error("The session has ended. Sign in again.")]
    SessionEnded,
    #[error("The sign-in link has been used, or it is too old. Create another with `postrider dashboard login`.")]
    LoginCodeRefused,
    #[error("The link to the portal has been used too often, or it is older than 5 minutes.")]
    PortalCodeRefused,
    #[error(transparent)]
    ScopeMissing(#[from] ScopeMissing),
    /// The new key would have a scope that the caller lacks.
    #[error("Token lacks the required scope. A key cannot grant a scope that it lacks: {0}.")]
    CannotGrant(Scopes),
    #[error("There is no such resource.")]
    NotFound,
    #[error("The method is not allowed here.")]
    MethodNotAllowed,
    #[error("{0}")]
    IdempotencyKeyConflict(Cow<'static, str>),
    #[error("{0}")]
    Conflict(String),
    #[error(
        "The workspace has reached its limit of {max} stored bytes. Wait until old events are removed, or ask the operator for more."
    )]
    WorkspaceFull { max: u64 },
    /// A request with the same idempotency key is in flight.
    #[error("A request with this Idempotency-Key is in progress.")]
    InFlight { retry_after: Duration },
    /// The workspace has reached the limit of a rate bucket.
    #[error("Too many requests of this workspace in 60 seconds: {limit} in the bucket \"{}\".", .bucket.as_str())]
    RateLimited { bucket: RateBucket, limit: u32, retry_after: Duration },
    /// The address has sent too many keys that were refused.
    #[error("Too many requests with a refused API key from this address in 60 seconds: {limit}.")]
    TooManyRefusedKeys { limit: u32, retry_after: Duration },
    /// The session has asked for too many pages.
    #[error("Too many requests of this session in 60 seconds: {limit}.")]
    TooManyPageRequests { limit: u32, retry_after: Duration },
    /// The session, or all of the node, has as many streams open as it may.
    #[error("As many streams of pages are open as may be: {limit}.")]
    TooManyStreams { limit: usize },
    #[error("{0}")]
    PayloadTooLarge(String),
    #[error("The head of the request is larger than {} KB or has more than {} fields.", limits::HEAD_BYTES / 1024, limits::HEAD_FIELDS)]
    HeaderTooLarge,
    #[error("The path and query of the request are longer than {} KB.", limits::TARGET_BYTES / 1024)]
    UriTooLong,
    /// The text says which part of the request was late.
    #[error("The {0} of the request arrived too slowly.")]
    RequestTimeout(&'static str),
    #[error("The body must be application/json.")]
    UnsupportedMediaType,
    #[error("{message}")]
    Unprocessable { message: String, parameters: Vec<ParameterFault> },
    #[error("The URL's host is not one that may be called: {}.", .0.reason)]
    SsrfBlocked(TargetRefusal),
    #[error("The service cannot take this request now.")]
    Unavailable {
        #[source]
        source: Option<StoreError>,
    },
    /// The store is a copy of another one, and nobody has said yet that it is the only one.
    #[error(
        "This server runs on a restored copy and sends nothing, so it accepts nothing that would be sent. Its operator ends \
         that."
    )]
    RestoredCopy,
    #[error("Something went wrong on our side.")]
    Internal {
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl ServiceError {
    pub fn invalid(parameter: impl Into<String>, fault: impl Into<String>) -> Self {
        Self::InvalidRequest { parameters: vec![(parameter.into(), fault.into())] }
    }

    pub fn unprocessable(parameter: &str, fault: &str) -> Self {
        Self::Unprocessable {
            message: format!("{parameter}: {fault}."),
            parameters: vec![(parameter.to_owned(), fault.to_owned())],
        }
    }

    /// The store has no room for the write.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Unavailable { source: Some(StoreError::Unavailable { why: DISK_FULL, .. }) })
    }

    /// Whether the answer to an idempotent request is recorded. Passing faults are not, and neither are refusals that
    /// concern the API key or the idempotency key.
    pub fn is_remembered(&self) -> bool {
        match self {
            Self::InFlight { .. }
            | Self::Unavailable { .. }
            | Self::RestoredCopy
            | Self::Internal { .. }
            | Self::InvalidToken
            | Self::KeyRevoked
            | Self::KeyExpired
            | Self::SessionEnded
            | Self::LoginCodeRefused
            | Self::PortalCodeRefused
            | Self::IdempotencyKeyConflict(_)
            | Self::ScopeMissing(_)
            | Self::CannotGrant(_)
            | Self::WorkspaceFull { .. }
            | Self::HeaderTooLarge
            | Self::UriTooLong
            | Self::RequestTimeout(_)
            | Self::RateLimited { .. }
            | Self::TooManyRefusedKeys { .. }
            | Self::TooManyPageRequests { .. }
            | Self::TooManyStreams { .. } => false,
            Self::InvalidRequest { .. }
            | Self::VersionUnsupported
            | Self::BadPagination(_)
            | Self::BadCursor
            | Self::NotFound
            | Self::MethodNotAllowed
            | Self::Conflict(_)
            | Self::PayloadTooLarge(_)
            | Self::UnsupportedMediaType
            | Self::Unprocessable { .. } => true,
            Self::SsrfBlocked(refusal) => !refusal.is_passing,
        }
    }
}

impl From<StoreError> for ServiceError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable { .. } => Self::Unavailable { source: Some(error) },
            StoreError::Broken(_) => Self::Internal { source: Box::new(error) },
        }
    }
}

impl From<InvalidPage> for ServiceError {
    fn from(error: InvalidPage) -> Self {
        match error {
            InvalidPage::Limit => Self::BadPagination(error),
            InvalidPage::Cursor => Self::BadCursor,
        }
    }
}
