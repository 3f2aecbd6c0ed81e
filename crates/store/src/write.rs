//! What every write has in common: who writes, and whether its answer is kept for a repeated request.

use postrider_domain::audit::Author;
use postrider_domain::idempotency::{RecordedAnswer, Recording};
use postrider_domain::tenant::Tenant;

/// A write by or for one tenant. Its audit entry and its recorded answer commit in the write's own transaction.
#[derive(Clone, Debug)]
pub struct Write<T> {
    pub tenant: Tenant,
    pub author: Author,
    /// `None` for a request without an `Idempotency-Key`.
    pub recording: Option<Recording<T>>,
}

/// The result of a write that may carry an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub enum Written<T> {
    Done(T),
    /// The same request came before. Nothing was done now.
    Replayed(RecordedAnswer),
    /// The key came before with another body. Nothing was done now.
    KeyReused,
    /// The same request came before from another API key, and its answer holds a secret. Nothing was done now.
    SealedForOther,
}
