//! Writes that may carry an `Idempotency-Key`: the same request twice has one effect and one answer.
//!
//! A write and its answer commit in one transaction of the store. This file covers what surrounds that transaction:
//!
//! - [`Service::begin`] returns an answer that is already recorded, and refuses a second request with the same key
//!   while this process works on the first.
//! - [`Idempotent`] is what a front door hands to a write. It tells the store how to record the answer, and reads what
//!   the store reports back.
//!
//! How an answer reads (status, body) is up to the front door. Nothing here renders.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer, Recording, answer_record};
use postrider_store::Written;

use crate::error::ServiceError;
use crate::lock::lock;
use crate::service::Service;

/// The status and the body of the answer to an effect.
pub type RenderAnswer<T> = fn(&T) -> (u16, Bytes);

/// A write that may carry an `Idempotency-Key`. `T` is the effect as the caller is shown it.
///
/// While a value with a key exists, [`Service::begin`] refuses a second request with that key.
/// `Idempotent::default()` has no key: the write has an effect each time, and no answer is recorded.
pub struct Idempotent<T>(Option<Keyed<T>>);

struct Keyed<T> {
    service: Arc<Service>,
    request: IdempotentRequest,
    render: RenderAnswer<T>,
}

/// Why a write has no effect to show.
#[derive(Debug)]
pub enum WriteError {
    Refused(ServiceError),
    /// The same request was answered before, and this is that answer. Nothing was done now.
    AnsweredBefore {
        status: u16,
        body: Bytes,
    },
}

impl<E: Into<ServiceError>> From<E> for WriteError {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

const IN_FLIGHT_RETRY_AFTER: Duration = Duration::from_secs(1);
const SEALED_FOR_OTHER: &str = "Another API key made this request with this Idempotency-Key, and its answer holds a \
                                secret. Use another Idempotency-Key.";
const KEY_REUSED: &str = "The Idempotency-Key was used for a request with another body.";

impl Service {
    /// Begins a write. Call it before any other work on the request; `None` is a request without a key.
    ///
    /// # Errors
    /// When the request was answered before, when its key was used with another body, or when a request with the same
    /// key is in flight.
    pub async fn begin<T>(
        self: &Arc<Self>,
        request: Option<IdempotentRequest>,
        render: RenderAnswer<T>,
    ) -> Result<Idempotent<T>, WriteError> {
        let Some(request) = request else { return Ok(Idempotent(None)) };
        if !lock(&self.in_flight).insert((request.scope.clone(), request.key.clone())) {
            return Err(ServiceError::InFlight { retry_after: IN_FLIGHT_RETRY_AFTER }.into());
        }
        // From here on the drop of `keyed` takes the key out of `in_flight` again.
        let keyed = Keyed { service: Arc::clone(self), request, render };
        if let Some(written) = self.store.find_answer(&keyed.request).await? {
            keyed.finish(written)?;
        }
        Ok(Idempotent(Some(keyed)))
    }
}

impl<T> Idempotent<T> {
    pub const fn has_key(&self) -> bool {
        self.0.is_some()
    }

    /// Records the answer of a request that had no effect, such as a refusal.
    ///
    /// # Errors
    /// When the store fails, or when another node recorded an answer to the same request first.
    pub async fn record_answer(&self, status: u16, body: Bytes) -> Result<(), WriteError> {
        let Some(keyed) = &self.0 else { return Ok(()) };
        let answer = RecordedAnswer { status, body, sealed: false };
        let written = keyed.service.store.record_answer(keyed.request.clone(), answer).await?;
        keyed.finish(written)
    }
}

impl<T: 'static> Idempotent<T> {
    /// How the store records the answer. `shown` turns the store's effect into what the caller is shown.
    pub(crate) fn recording<E>(&self, shown: impl Fn(&E) -> T + Send + Sync + 'static) -> Option<Recording<E>> {
        let keyed = self.0.as_ref()?;
        let render = keyed.render;
        let render = move |effect: &E| {
            let (status, body) = render(&shown(effect));
            RecordedAnswer { status, body, sealed: false }
        };
        Some(Recording { request: keyed.request.clone(), render: Arc::new(render) })
    }

    /// The same for an answer that holds a secret: its body is sealed before the store sees it.
    pub(crate) fn sealed_recording<E>(&self, shown: impl Fn(&E) -> T + Send + Sync + 'static) -> Option<Recording<E>> {
        let keyed = self.0.as_ref()?;
        // The closure must not hold the service: a store job with the last handle to the store would drop the store on
        // the store's own thread.
        let (render, record) = (keyed.render, record_of(&keyed.request));
        let keyring = Arc::clone(&keyed.service.keyring);
        let render = move |effect: &E| {
            let (status, body) = render(&shown(effect));
            RecordedAnswer { status, body: keyring.seal(&record, &body).into(), sealed: true }
        };
        Some(Recording { request: keyed.request.clone(), render: Arc::new(render) })
    }

    /// Records the answer to an effect that has already been committed, and that holds a secret.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn record_sealed_answer(&self, effect: &T) -> Result<(), WriteError> {
        let Some(keyed) = &self.0 else { return Ok(()) };
        let (status, body) = (keyed.render)(effect);
        let body = keyed.service.keyring.seal(&record_of(&keyed.request), &body).into();
        let answer = RecordedAnswer { status, body, sealed: true };
        let written = keyed.service.store.record_answer(keyed.request.clone(), answer).await?;
        keyed.finish(written)
    }

    /// The effect of a write, from what the store reports.
    ///
    /// # Errors
    /// When the request was answered before, or its key was used with another body.
    pub(crate) fn finish<E>(&self, written: Written<E>) -> Result<E, WriteError> {
        match (&self.0, written) {
            (_, Written::Done(effect)) => Ok(effect),
            (Some(keyed), written) => keyed.finish(written),
            (None, Written::Replayed(_) | Written::KeyReused | Written::SealedForOther) => {
                Err(ServiceError::Internal { source: "the store replayed an answer to a write without a key".into() }
                    .into())
            }
        }
    }
}

impl<T> Default for Idempotent<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> Keyed<T> {
    fn finish<E>(&self, written: Written<E>) -> Result<E, WriteError> {
        match written {
            Written::Done(effect) => Ok(effect),
            Written::KeyReused => Err(ServiceError::IdempotencyKeyConflict(KEY_REUSED.into()).into()),
            Written::SealedForOther => Err(ServiceError::Conflict(SEALED_FOR_OTHER.to_owned()).into()),
            Written::Replayed(RecordedAnswer { status, body, sealed: false }) => {
                Err(WriteError::AnsweredBefore { status, body })
            }
            Written::Replayed(RecordedAnswer { status, body, sealed: true }) => {
                let opened = self.service.keyring.open(&record_of(&self.request), &body);
                let opened = opened.map_err(|error| ServiceError::Internal { source: Box::new(error) })?;
                Err(WriteError::AnsweredBefore { status, body: Bytes::copy_from_slice(&opened) })
            }
        }
    }
}

impl<T> Drop for Keyed<T> {
    fn drop(&mut self) {
        lock(&self.service.in_flight).remove(&(self.request.scope.clone(), self.request.key.clone()));
    }
}

/// The record id that a sealed answer is bound to.
fn record_of(request: &IdempotentRequest) -> String {
    answer_record(&request.scope, request.key.as_str())
}
