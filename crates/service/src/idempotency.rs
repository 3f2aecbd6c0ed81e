//! The same request twice: one effect, one answer.
//!
//! An effect and its answer commit in one transaction. What is here comes before it: finding an answer that is kept
//! already, and refusing a twin of a request that this process is working on.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer, Recording};
use postrider_store::Written;

use super::{Service, ServiceError, lock};

/// A request that asked to be remembered, and how the answer to its effect reads.
pub struct Remember<T> {
    pub request: IdempotentRequest,
    /// The status and the body.
    pub render: fn(&T) -> (u16, Bytes),
}

/// A write's outcome: the effect, or the first answer to the same request.
#[derive(Debug)]
pub enum Outcome<T> {
    Done(T),
    Replayed { status: u16, body: Bytes },
}

/// Whether a request that asked to be remembered goes on.
pub enum Begun<'s> {
    /// It is the first; drop the guard when its answer is recorded.
    First(InFlightGuard<'s>),
    Replayed {
        status: u16,
        body: Bytes,
    },
}

/// Whether what is kept of an answer must be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seal {
    HoldsSecret,
    Plain,
}

/// Keeps a twin of the request from starting.
pub struct InFlightGuard<'s> {
    service: &'s Service,
    request: IdempotentRequest,
}

impl Drop for InFlightGuard<'_> {
    fn drop(&mut self) {
        let name = (self.request.scope.clone(), self.request.key.clone());
        lock(&self.service.in_flight).remove(&name);
    }
}

const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);
const KEY_REUSED: &str = "The Idempotency-Key was used for a request with another body.";

impl Service {
    /// To be called before any work on a request that asked to be remembered.
    ///
    /// # Errors
    /// When the key was used with another body, or the same request is under way.
    pub async fn begin(&self, request: &IdempotentRequest) -> Result<Begun<'_>, ServiceError> {
        let name = (request.scope.clone(), request.key.clone());
        if !lock(&self.in_flight).insert(name) {
            return Err(ServiceError::InFlight { retry_after: IN_FLIGHT_RETRY_AFTER });
        }
        let guard = InFlightGuard { service: self, request: request.clone() };
        match self.store.find_answer(request).await? {
            None | Some(Written::Done(())) => Ok(Begun::First(guard)),
            Some(Written::KeyReused) => Err(ServiceError::IdempotencyKeyConflict(KEY_REUSED.into())),
            Some(Written::Replayed(answer)) => {
                let (status, body) = self.opened(request, answer)?;
                Ok(Begun::Replayed { status, body })
            }
        }
    }

    /// Remembers the answer of a request that had no effect. Returns the answer to give, which is another's when a
    /// twin was quicker on another node.
    ///
    /// # Errors
    /// When the store fails, or a twin had another body.
    pub async fn remember_answer(
        &self,
        request: &IdempotentRequest,
        status: u16,
        body: Bytes,
    ) -> Result<Outcome<()>, ServiceError> {
        let answer = RecordedAnswer { status, body, sealed: false };
        let written = self.store.record_answer(request.clone(), answer).await?;
        self.outcome(Some(request), written)
    }

    /// How the store is to record the answer: what the caller is shown of the effect, sealed when that holds a secret.
    pub(super) fn recording<E, T: 'static>(
        self: &Arc<Self>,
        remember: Option<&Remember<T>>,
        seal: Seal,
        shown: impl Fn(&E) -> T + Send + Sync + 'static,
    ) -> Option<Recording<E>> {
        let Remember { request, render } = remember?;
        // Not the service itself: a job of the store that held the store's last handle would drop it on its own thread.
        let (render, sealed_for) = (*render, record_of(request));
        let (master_key, random) = (Arc::clone(&self.master_key), self.random.clone());
        let render = move |effect: &E| {
            let (status, body) = render(&shown(effect));
            if seal == Seal::HoldsSecret {
                let body = master_key.seal(&random, &sealed_for, &body).into();
                RecordedAnswer { status, body, sealed: true }
            } else {
                RecordedAnswer { status, body, sealed: false }
            }
        };
        Some(Recording { request: request.clone(), render: Arc::new(render) })
    }

    /// What a write came to, for the caller.
    pub(super) fn outcome<T>(
        &self,
        request: Option<&IdempotentRequest>,
        written: Written<T>,
    ) -> Result<Outcome<T>, ServiceError> {
        match (written, request) {
            (Written::Done(effect), _) => Ok(Outcome::Done(effect)),
            (Written::Replayed(answer), Some(request)) => {
                let (status, body) = self.opened(request, answer)?;
                Ok(Outcome::Replayed { status, body })
            }
            (Written::KeyReused | Written::Replayed(_), _) => {
                Err(ServiceError::IdempotencyKeyConflict(KEY_REUSED.into()))
            }
        }
    }

    fn opened(&self, request: &IdempotentRequest, answer: RecordedAnswer) -> Result<(u16, Bytes), ServiceError> {
        if !answer.sealed {
            return Ok((answer.status, answer.body));
        }
        let opened = self
            .master_key
            .open(&record_of(request), &answer.body)
            .map_err(|error| ServiceError::Internal { source: Box::new(error) })?;
        Ok((answer.status, Bytes::copy_from_slice(&opened)))
    }
}

/// What a sealed answer belongs to.
fn record_of(request: &IdempotentRequest) -> String {
    let scope = &request.scope;
    format!("answer/{}/{}/{}/{}", scope.workspace_key.as_i64(), scope.mode.as_str(), scope.route, request.key.as_str())
}
