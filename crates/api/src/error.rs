//! The error envelope.
//!
//! A [`ServiceError`] becomes an answer in three steps. A handler or a gate returns it as a [`Failure`]. The failure
//! travels in the extensions of an empty response to the outermost gate. That gate logs it and renders the envelope, in
//! which [`code_of`] gives the code.

use std::sync::Arc;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Method, StatusCode};
use serde::Serialize;
use serde_json::{Map, Value, json};

use postrider_domain::error_chain::Chain;
use postrider_domain::event::API_VERSION;
use postrider_domain::id::RequestId;
use postrider_domain::limits;
use postrider_service::{ParameterFault, ServiceError};

use super::error_code::ErrorCode;
use super::whole_seconds::whole_seconds;

/// Why a handler gives no answer of its own.
#[derive(Debug)]
pub enum Failure {
    /// The outermost layer, which knows the request id, renders the error.
    Refused(ServiceError),
    /// A complete answer that ends the request early.
    Answered(Box<Response>),
}

impl<E: Into<ServiceError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Refused(error) => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status_of(&error);
                response.extensions_mut().insert(Arc::new(error));
                response
            }
            Self::Answered(response) => *response,
        }
    }
}

/// Logs our own faults with their causes for the operator. Refusals concern the caller alone, so they are logged at
/// debug level.
pub fn log(error: &ServiceError, id: RequestId, method: &Method, path: &str) {
    let status = status_of(error);
    if status.is_server_error() {
        let cause = std::error::Error::source(error).map(|cause| Chain(cause).to_string());
        tracing::error!(request_id = %id, %method, path, status = status.as_u16(), cause, "request failed");
    } else {
        tracing::debug!(request_id = %id, %method, path, code = code_of(error).as_str(), "request refused");
    }
}

#[derive(Serialize)]
struct Envelope<'e> {
    error: EnvelopeError<'e>,
}

#[derive(Serialize)]
struct EnvelopeError<'e> {
    code: &'static str,
    message: String,
    request_id: RequestId,
    docs_url: &'e str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Value>,
}

pub fn render(error: &ServiceError, id: RequestId, errors_page: &str) -> Response {
    let mut response = Response::new(Body::from(render_body(error, id, errors_page)));
    *response.status_mut() = status_of(error);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let retry_after_seconds = match error {
        ServiceError::InFlight { retry_after } => Some(retry_after.as_secs()),
        ServiceError::RateLimited { retry_after, .. } => Some(whole_seconds(*retry_after)),
        ServiceError::Unavailable { .. } => Some(1),
        _ => None,
    };
    if let Some(seconds) = retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub fn render_body(error: &ServiceError, id: RequestId, errors_page: &str) -> Bytes {
    let code = code_of(error).as_str();
    let envelope = Envelope {
        error: EnvelopeError {
            code,
            message: cut(message_of(error), limits::ERROR_MESSAGE_BYTES),
            request_id: id,
            docs_url: &format!("{errors_page}#{code}"),
            details: details_of(error),
        },
    };
    serde_json::to_vec(&envelope).map(Bytes::from).unwrap_or_default()
}

pub const fn status_of(error: &ServiceError) -> StatusCode {
    code_of(error).status()
}

pub const fn code_of(error: &ServiceError) -> ErrorCode {
    match error {
        ServiceError::InvalidRequest { .. } => ErrorCode::InvalidRequest,
        ServiceError::VersionUnsupported => ErrorCode::VersionUnsupported,
        ServiceError::BadPagination(_) => ErrorCode::BadPagination,
        ServiceError::BadCursor => ErrorCode::BadCursor,
        ServiceError::InvalidToken => ErrorCode::InvalidToken,
        ServiceError::KeyRevoked => ErrorCode::KeyRevoked,
        ServiceError::KeyExpired => ErrorCode::KeyExpired,
        ServiceError::ScopeMissing(_) | ServiceError::CannotGrant(_) => ErrorCode::ScopeMissing,
        ServiceError::NotFound => ErrorCode::NotFound,
        ServiceError::MethodNotAllowed => ErrorCode::MethodNotAllowed,
        ServiceError::IdempotencyKeyConflict(_) => ErrorCode::IdempotencyKeyConflict,
        ServiceError::Conflict(_) | ServiceError::InFlight { .. } => ErrorCode::Conflict,
        ServiceError::PayloadTooLarge(_) => ErrorCode::PayloadTooLarge,
        ServiceError::HeaderTooLarge => ErrorCode::HeaderTooLarge,
        ServiceError::UriTooLong => ErrorCode::UriTooLong,
        ServiceError::RequestTimeout(_) => ErrorCode::RequestTimeout,
        ServiceError::UnsupportedMediaType => ErrorCode::UnsupportedMediaType,
        ServiceError::Unprocessable { .. } => ErrorCode::Unprocessable,
        ServiceError::SsrfBlocked(_) => ErrorCode::SsrfBlocked,
        ServiceError::RateLimited { .. } => ErrorCode::RateLimited,
        ServiceError::Unavailable { .. } => ErrorCode::ServiceUnavailable,
        ServiceError::Internal { .. } => ErrorCode::InternalError,
    }
}

/// The message names the first fault, so that it is useful without the details.
fn message_of(error: &ServiceError) -> String {
    match error {
        ServiceError::InvalidRequest { parameters } => match parameters.as_slice() {
            [(name, fault)] => format!("{name}: {fault}."),
            [(name, fault), rest @ ..] => format!("{name}: {fault} (and {} more).", rest.len()),
            [] => error.to_string(),
        },
        _ => error.to_string(),
    }
}

fn details_of(error: &ServiceError) -> Option<Value> {
    match error {
        ServiceError::InvalidRequest { parameters } => Some(parameters_of(parameters)),
        ServiceError::Unprocessable { parameters, .. } if !parameters.is_empty() => Some(parameters_of(parameters)),
        ServiceError::VersionUnsupported => Some(json!({ "accepted": [API_VERSION] })),
        ServiceError::ScopeMissing(missing) => Some(json!({ "required": missing.needed })),
        ServiceError::CannotGrant(lacking) => Some(json!({ "required": lacking.iter().collect::<Vec<_>>() })),
        ServiceError::RateLimited { bucket, .. } => Some(json!({ "bucket": bucket.as_str() })),
        ServiceError::SsrfBlocked(refusal) => Some(json!({ "host": refusal.host, "reason": refusal.reason.as_str() })),
        _ => None,
    }
}

/// The faults that fit, so that an error can be remembered. The first is always shown, cut if it is long.
fn parameters_of(faults: &[ParameterFault]) -> Value {
    let mut left = limits::ERROR_PARAMETER_BYTES;
    let mut shown = Map::new();
    for (name, fault) in faults {
        let name = cut(name.clone(), limits::ERROR_PARAMETER_BYTES / 4);
        let fault = cut(fault.clone(), limits::ERROR_PARAMETER_BYTES / 4);
        let Some(rest) = left.checked_sub(json_bytes(&name) + json_bytes(&fault)) else { break };
        left = rest;
        shown.insert(name, fault.into());
    }
    json!({ "parameters": shown })
}

/// The text, cut so that it takes at most this many bytes as a JSON string.
fn cut(text: String, bytes: usize) -> String {
    if json_bytes(&text) <= bytes {
        return text;
    }
    let mut left = bytes - json_bytes("…");
    let fits = |c: &char| match left.checked_sub(json_bytes(c.encode_utf8(&mut [0; 4])) - 2) {
        Some(rest) => {
            left = rest;
            true
        }
        None => false,
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// The bytes of a text as a JSON string, with its quotes.
fn json_bytes(text: &str) -> usize {
    serde_json::to_string(text).map_or(usize::MAX, |json| json.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body_of(parameters: Vec<ParameterFault>) -> Bytes {
        let id = RequestId::from_letters([b'a'; 16]);
        render_body(&ServiceError::InvalidRequest { parameters }, id, "https://postrider.example.com/docs/errors")
    }

    #[test]
    fn an_error_fits_what_is_remembered_whatever_the_request_holds() {
        for long in ["\u{1}".repeat(70_000), "ü".repeat(70_000), "\"".repeat(70_000), "a".repeat(70_000)] {
            for count in [1, 1000] {
                let faults = (0..count).map(|number| (format!("{number}{long}"), long.clone())).collect();
                let body = body_of(faults);
                assert!(body.len() <= limits::REMEMBERED_ERROR_BYTES, "{} bytes", body.len());
                let error: Value = serde_json::from_slice(&body).unwrap();
                assert!(!error["error"]["details"]["parameters"].as_object().unwrap().is_empty());
            }
        }
    }

    #[test]
    fn a_text_is_cut_at_its_bytes_as_json() {
        assert_eq!(cut("abcdef".to_owned(), 8), "abcdef");
        assert_eq!(cut("abcdefg".to_owned(), 8), "abc…");
        assert_eq!(cut("\n\n\n\n".to_owned(), 10), "\n\n\n\n");
        assert_eq!(cut("\n\n\n\n\n".to_owned(), 10), "\n\n…");
    }
}
