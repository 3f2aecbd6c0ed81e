//! Idempotency keys: the same request twice has one effect and one answer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::endpoint::OpaqueId;
use super::tenant::Tenant;

/// The scope of an idempotency key: the tenant, and the route with its method and concrete path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyScope {
    pub tenant: Tenant,
    pub route: String,
}

/// What stands for a body that is not kept: SHA-256 of its canonical form.
pub fn body_hash(canonical: &[u8]) -> [u8; 32] {
    postrider_crypto::sha256(canonical)
}

/// A request that asked to be remembered.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    pub scope: IdempotencyScope,
    pub key: OpaqueId,
    /// SHA-256 of the canonical form of the body. The body itself is not kept.
    pub body_hash: [u8; 32],
}

/// An answer as it is kept for replay. The body is sealed when it holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAnswer {
    pub status: u16,
    pub body: Bytes,
    pub sealed: bool,
}

/// Turns the effect of a write into the answer that is kept, in the transaction of the effect.
pub type AnswerRenderer<T> = Arc<dyn Fn(&T) -> RecordedAnswer + Send + Sync>;

/// A request that asked to be remembered, and how its answer is made.
pub struct Recording<T> {
    pub request: IdempotentRequest,
    pub render: AnswerRenderer<T>,
}

impl<T> Clone for Recording<T> {
    fn clone(&self) -> Self {
        Self { request: self.request.clone(), render: Arc::clone(&self.render) }
    }
}

impl<T> fmt::Debug for Recording<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recording").field("request", &self.request).finish_non_exhaustive()
    }
}
