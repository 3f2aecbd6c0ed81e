//! The steps of a write: read the body, look for an earlier answer, parse, call the service, answer.
//!
//! A handler of a write reads:
//!
//! ```text
//! let write = Write::begin(call, body, BodyRule::Required, render_with_secret).await?;
//! let create = write.check(parse_create(write.catalogue(), &write.body)).await?;
//! write.answer(write.service().create_endpoint(write.principal(), create, &write.idempotent).await).await
//! ```
//!
//! [`Write`] is the only place that reads `Idempotency-Key` and sets `Idempotent-Replayed`. It also records refusals,
//! from `check` and from `answer`, so that the same request gets the same refusal again.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{HeaderName, HeaderValue};

use postrider_domain::access::Principal;
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::event_type::Catalogue;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest};
use postrider_domain::limits;
use postrider_service::{Idempotent, JsonBody, RenderAnswer, Service, ServiceError, WriteError};

use super::answer::answer;
use super::body::{BodyRule, read_body};
use super::call::Call;
use super::error::{self, Failure};

/// One write in progress. `T` is the effect that `render` turns into the answer.
pub struct Write<T> {
    pub call: Call,
    pub body: JsonBody,
    pub idempotent: Idempotent<T>,
    render: RenderAnswer<T>,
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

impl<T> Write<T> {
    /// Reads the body and begins the write.
    ///
    /// # Errors
    /// When the body breaks the rule; otherwise as [`Self::begin_with`].
    pub async fn begin(call: Call, body: Body, rule: BodyRule, render: RenderAnswer<T>) -> Result<Self, Failure> {
        let body = read_body(&call.headers, body, rule).await?;
        Self::begin_with(call, body, render).await
    }

    /// Begins the write with a body that has been read.
    ///
    /// # Errors
    /// When the request was answered before, when its key was used with another body, or when a request with the same
    /// key is in flight.
    pub async fn begin_with(call: Call, body: JsonBody, render: RenderAnswer<T>) -> Result<Self, Failure> {
        let request = idempotency_key(&call).map(|key| IdempotentRequest {
            scope: IdempotencyScope {
                tenant: call.principal.tenant,
                route: format!("{} {}", call.method, call.uri.path()),
            },
            key,
            body_hash: body.hash(),
            caller: call.principal.actor.id_text(),
        });
        let idempotent = call.service().begin(request, render).await.map_err(failure)?;
        Ok(Self { call, body, idempotent, render })
    }

    pub fn service(&self) -> &Arc<Service> {
        self.call.service()
    }

    pub fn principal(&self) -> &Principal {
        &self.call.principal
    }

    pub fn catalogue(&self) -> &Catalogue {
        self.service().catalogue()
    }

    /// What was parsed from the body.
    ///
    /// # Errors
    /// The fault of the body, as an answer that is recorded if the write has a key.
    pub async fn check<C>(&self, parsed: Result<C, ServiceError>) -> Result<C, Failure> {
        match parsed {
            Ok(parsed) => Ok(parsed),
            Err(error) => Err(self.refuse(error).await),
        }
    }

    /// Answers with the effect, with the first answer to the same request, or with the refusal.
    ///
    /// # Errors
    /// A refusal that is not recorded.
    pub async fn answer(&self, written: Result<T, WriteError>) -> Result<Response, Failure> {
        match written {
            Ok(effect) => {
                let (status, body) = (self.render)(&effect);
                let response = answer(status, body);
                Ok(if self.idempotent.has_key() { with_replayed(response, false) } else { response })
            }
            Err(WriteError::Refused(error)) => Err(self.refuse(error).await),
            Err(before @ WriteError::AnsweredBefore { .. }) => Err(failure(before)),
        }
    }

    /// The refusal as an answer. It is recorded if the write has a key and [`ServiceError::is_remembered`] says so.
    async fn refuse(&self, error: ServiceError) -> Failure {
        if !self.idempotent.has_key() || !error.is_remembered() {
            return error.into();
        }
        let status = error::status_of(&error).as_u16();
        let body = error::render_body(&error, self.call.request_id, &self.call.app.errors_page);
        if body.len() > limits::ERROR_BYTES {
            // Only a very long public URL makes an error so long.
            return error.into();
        }
        match self.idempotent.record_answer(status, body.clone()).await {
            Ok(()) => {
                let mut refusal = with_replayed(answer(status, body), false);
                refusal.extensions_mut().insert(error::code_of(&error));
                Failure::Answered(Box::new(refusal))
            }
            Err(error) => failure(error),
        }
    }
}

/// Marks the answer to a request that repeats an earlier one with its `Idempotency-Key`.
#[derive(Clone, Copy, Debug)]
pub struct AnsweredBefore;

/// A key that does not match its pattern is ignored as if absent.
pub fn idempotency_key(call: &Call) -> Option<OpaqueId> {
    OpaqueId::parse(call.headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?).ok()
}

/// Says in a header whether the answer was given before.
pub fn with_replayed(mut response: Response, replayed: bool) -> Response {
    let value = HeaderValue::from_static(if replayed { "true" } else { "false" });
    response.headers_mut().insert(REPLAYED, value);
    response
}

fn failure(error: WriteError) -> Failure {
    match error {
        WriteError::Refused(error) => error.into(),
        WriteError::AnsweredBefore { status, body } => {
            let mut replayed = with_replayed(answer(status, body), true);
            replayed.extensions_mut().insert(AnsweredBefore);
            Failure::Answered(Box::new(replayed))
        }
    }
}
