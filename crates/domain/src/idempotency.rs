//! Idempotency keys: a repeated request has one effect and one answer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::access::Mode;
use super::endpoint::OpaqueId;
use super::id::RowKey;

/// What a key is unique within: the workspace, the mode, and the route with its method and concrete path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyScope {
    pub workspace_key: RowKey,
    pub mode: Mode,
    pub route: String,
}

/// SHA-256 of the canonical form of a body. It is stored instead of the body.
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
}

/// A stored answer, for repeated requests. Its body is sealed if it contains a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordedAnswer {
    pub status: u16,
    pub body: Bytes,
    pub sealed: bool,
}

/// Renders the result of a write as the answer to store, in the transaction of the write.
pub type AnswerRenderer<T> = Arc<dyn Fn(&T) -> RecordedAnswer + Send + Sync>;

/// A request with an idempotency key, and the renderer of its answer.
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
