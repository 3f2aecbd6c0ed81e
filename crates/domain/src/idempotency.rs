//! Idempotency keys: a repeated request has one effect and one answer.

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

/// The associated data of a sealed answer. It opens for no other request.
pub fn answer_record(scope: &IdempotencyScope, key: &str) -> String {
    let IdempotencyScope { tenant, route } = scope;
    format!("answer/{}/{}/{route}/{key}", tenant.workspace.as_i64(), tenant.mode.as_str())
}

/// The hash that represents a body: SHA-256 of its canonical form. The body itself is not kept.
pub fn body_hash(canonical: &[u8]) -> [u8; 32] {
    postrider_crypto::sha256(canonical)
}

/// A request with an idempotency key.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    pub scope: IdempotencyScope,
    pub key: OpaqueId,
    /// See [`body_hash`].
    pub body_hash: [u8; 32],
    /// The id of the API key or session that makes the request (`Actor::id_text`).
    pub caller: Option<String>,
}

impl IdempotentRequest {
    /// The caller that may see this answer again. `None` unless it is sealed: everybody who may make the request may
    /// see the others.
    pub fn sealed_for(&self, answer: &RecordedAnswer) -> Option<String> {
        self.caller.clone().filter(|_| answer.sealed)
    }
}

/// An answer stored for repeats of its request. The body is sealed when it holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAnswer {
    pub status: u16,
    pub body: Bytes,
    pub sealed: bool,
}

/// Renders the effect of a write into the stored answer, in the transaction of the effect.
pub type AnswerRenderer<T> = Arc<dyn Fn(&T) -> RecordedAnswer + Send + Sync>;

/// A request with an idempotency key, and how its answer is rendered.
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
