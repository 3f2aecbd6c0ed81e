//! The course of a write: body, then an answer that is kept already, then the effect, then the answer.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};

use postrider_domain::access::Principal;
use postrider_domain::endpoint::OpaqueId;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest};
use postrider_service::{Begun, Outcome, Remember, Service, ServiceError};

use super::body::{BodyRule, JsonBody};
use super::call::Call;
use super::error::{self, Failure};

/// What a write handler is made of: reading the body, doing it, and showing what came of it.
pub struct Write<P, F, T> {
    pub body: BodyRule,
    pub parse: P,
    pub effect: F,
    /// The status and the body of success.
    pub render: fn(&T) -> (u16, Bytes),
}

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

impl<P, F, T> Write<P, F, T> {
    /// Runs a write, once if the caller asked for that.
    pub async fn run<C, E>(self, call: Call, body: Body) -> Result<Response, Failure>
    where
        P: FnOnce(&Call, &JsonBody) -> Result<C, ServiceError>,
        F: FnOnce(Arc<Service>, Principal, C, Option<Remember<T>>) -> E,
        E: Future<Output = Result<Outcome<T>, ServiceError>>,
    {
        let body = JsonBody::read(&call.headers, body, self.body).await?;
        self.run_read(call, body).await
    }

    /// The same for a body that has been read.
    pub async fn run_read<C, E>(self, call: Call, body: JsonBody) -> Result<Response, Failure>
    where
        P: FnOnce(&Call, &JsonBody) -> Result<C, ServiceError>,
        F: FnOnce(Arc<Service>, Principal, C, Option<Remember<T>>) -> E,
        E: Future<Output = Result<Outcome<T>, ServiceError>>,
    {
        let (service, principal) = (Arc::clone(call.service()), call.principal.clone());
        let Some(request) = idempotent_request(&call, &body) else {
            let command = (self.parse)(&call, &body)?;
            let (status, body) = match (self.effect)(service, principal, command, None).await? {
                Outcome::Done(effect) => (self.render)(&effect),
                Outcome::Replayed { status, body } => (status, body),
            };
            return Ok(answer(status, body));
        };
        let _guard = match call.service().begin(&request).await? {
            Begun::Replayed { status, body } => return Ok(with_replayed(answer(status, body), true)),
            Begun::First(guard) => guard,
        };
        let remember = Remember { request: request.clone(), render: self.render };
        let outcome = match (self.parse)(&call, &body) {
            Ok(command) => (self.effect)(service, principal, command, Some(remember)).await,
            Err(error) => Err(error),
        };
        match outcome {
            Ok(Outcome::Done(effect)) => {
                let (status, body) = (self.render)(&effect);
                Ok(with_replayed(answer(status, body), false))
            }
            Ok(Outcome::Replayed { status, body }) => Ok(with_replayed(answer(status, body), true)),
            Err(error) if error.is_remembered() => remembered_error(&call, &request, &error).await,
            Err(error) => Err(error.into()),
        }
    }
}

async fn remembered_error(call: &Call, request: &IdempotentRequest, error: &ServiceError) -> Result<Response, Failure> {
    let status = error::status_of(error).as_u16();
    let body = error::render_body(error, call.request_id, &call.app.errors_page);
    Ok(match call.service().remember_answer(request, status, body.clone()).await? {
        Outcome::Done(()) => with_replayed(answer(status, body), false),
        Outcome::Replayed { status, body } => with_replayed(answer(status, body), true),
    })
}

/// A key that does not match its pattern is ignored as if absent.
pub fn idempotency_key(call: &Call) -> Option<OpaqueId> {
    OpaqueId::parse(call.headers.get(IDEMPOTENCY_KEY)?.to_str().ok()?).ok()
}

fn idempotent_request(call: &Call, body: &JsonBody) -> Option<IdempotentRequest> {
    let key = idempotency_key(call)?;
    Some(IdempotentRequest {
        scope: IdempotencyScope {
            workspace_key: call.principal.workspace_key,
            mode: call.principal.mode,
            route: format!("{} {}", call.method, call.uri.path()),
        },
        key,
        body_hash: body.hash(),
    })
}

pub fn answer(status: u16, body: Bytes) -> Response {
    let has_body = !body.is_empty();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if has_body {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

/// Tells whether the answer was given before.
pub fn with_replayed(mut response: Response, replayed: bool) -> Response {
    let value = HeaderValue::from_static(if replayed { "true" } else { "false" });
    response.headers_mut().insert(REPLAYED, value);
    response
}
