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
        ServiceError::RateLimited { retry_after, .. }
        | ServiceError::TooManyRefusedKeys { retry_after, .. }
        | ServiceError::TooManyPageRequests { retry_after, .. } => Some(whole_seconds(*retry_after)),
        ServiceError::Unavailable { .. } => Some(1),
        _ => None,
    };
    if let Some(seconds) = retry_after_seconds {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// The body of the error, at most [`limits::ERROR_BYTES`] large: texts of the caller must not make it larger.
pub fn render_body(error: &ServiceError, id: RequestId, errors_page: &str) -> Bytes {
    let whole = render_envelope(error, message_of(error), details_of(error), id, errors_page);
    if whole.len() <= limits::ERROR_BYTES {
        return whole;
    }
    let (ServiceError::InvalidRequest { parameters } | ServiceError::Unprocessable { parameters, .. }) = error else {
        return render_envelope(error, shorten(&message_of(error)), None, id, errors_page);
    };
    let mut faults: Vec<_> = parameters.iter().map(|(name, fault)| (shorten(name), shorten(fault))).collect();
    let message = match faults.first() {
        Some(first) if matches!(error, ServiceError::InvalidRequest { .. }) => {
            message_of_faults(first, faults.len() - 1)
        }
        _ => shorten(&message_of(error)),
    };
    loop {
        let body = render_envelope(error, message.clone(), Some(parameters_of(&faults)), id, errors_page);
        if body.len() <= limits::ERROR_BYTES || faults.len() <= 1 {
            return body;
        }
        faults.truncate(faults.len() / 2);
    }
}

fn render_envelope(
    error: &ServiceError,
    message: String,
    details: Option<Value>,
    request_id: RequestId,
    errors_page: &str,
) -> Bytes {
    let code = code_of(error).as_str();
    let docs_url = &format!("{errors_page}#{code}");
    let envelope = Envelope { error: EnvelopeError { code, message, request_id, docs_url, details } };
    serde_json::to_vec(&envelope).map(Bytes::from).unwrap_or_default()
}

/// A text of an error that is too large. A character takes at most six bytes in JSON, so four of these texts fit.
fn shorten(text: &str) -> String {
    const CHARS: usize = 120;
    text.chars().take(CHARS).collect()
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
        ServiceError::InvalidToken
        | ServiceError::SessionEnded
        | ServiceError::LoginCodeRefused
        | ServiceError::PortalCodeRefused => ErrorCode::InvalidToken,
        ServiceError::KeyRevoked => ErrorCode::KeyRevoked,
        ServiceError::KeyExpired => ErrorCode::KeyExpired,
        ServiceError::ScopeMissing(_) | ServiceError::CannotGrant(_) => ErrorCode::ScopeMissing,
        ServiceError::NotFound => ErrorCode::NotFound,
        ServiceError::MethodNotAllowed => ErrorCode::MethodNotAllowed,
        ServiceError::IdempotencyKeyConflict(_) => ErrorCode::IdempotencyKeyConflict,
        ServiceError::Conflict(_) | ServiceError::WorkspaceFull { .. } | ServiceError::InFlight { .. } => {
            ErrorCode::Conflict
        }
        ServiceError::PayloadTooLarge(_) => ErrorCode::PayloadTooLarge,
        ServiceError::HeaderTooLarge => ErrorCode::HeaderTooLarge,
        ServiceError::UriTooLong => ErrorCode::UriTooLong,
        ServiceError::RequestTimeout(_) => ErrorCode::RequestTimeout,
        ServiceError::UnsupportedMediaType => ErrorCode::UnsupportedMediaType,
        ServiceError::Unprocessable { .. } => ErrorCode::Unprocessable,
        ServiceError::SsrfBlocked(_) => ErrorCode::SsrfBlocked,
        ServiceError::RateLimited { .. }
        | ServiceError::TooManyRefusedKeys { .. }
        | ServiceError::TooManyPageRequests { .. }
        | ServiceError::TooManyStreams { .. } => ErrorCode::RateLimited,
        ServiceError::Unavailable { .. } | ServiceError::RestoredCopy => ErrorCode::ServiceUnavailable,
        ServiceError::Internal { .. } => ErrorCode::InternalError,
    }
}

/// The bucket of requests with a refused key. They count by address.
pub const REFUSED_KEYS: &str = "refused_keys";

/// The message names the first fault, so that it is useful without the details.
pub fn message_of(error: &ServiceError) -> String {
    match error {
        ServiceError::InvalidRequest { parameters } => match parameters.as_slice() {
            [first, rest @ ..] => message_of_faults(first, rest.len()),
            [] => error.to_string(),
        },
        _ => error.to_string(),
    }
}

fn message_of_faults((name, fault): &ParameterFault, more: usize) -> String {
    match more {
        0 => format!("{name}: {fault}."),
        more => format!("{name}: {fault} (and {more} more)."),
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
        ServiceError::TooManyRefusedKeys { .. } => Some(json!({ "bucket": REFUSED_KEYS })),
        ServiceError::WorkspaceFull { .. } => Some(json!({ "reason": "workspace_full" })),
        ServiceError::Unavailable { .. } if error.is_disk_full() => Some(json!({ "reason": "disk_full" })),
        ServiceError::RestoredCopy => Some(json!({ "reason": "restored_copy" })),
        ServiceError::SsrfBlocked(refusal) => Some(json!({ "host": refusal.host, "reason": refusal.reason.as_str() })),
        _ => None,
    }
}

fn parameters_of(faults: &[ParameterFault]) -> Value {
    let faults: Map<String, Value> =
        faults.iter().map(|(name, fault)| (name.clone(), Value::from(fault.as_str()))).collect();
    json!({ "parameters": faults })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "https://hooks.example.com/docs/errors";

    fn rendered(error: &ServiceError) -> (usize, Value) {
        let body = render_body(error, RequestId::from_letters(*b"a1b2c3d4e5f6g7h8"), PAGE);
        (body.len(), serde_json::from_slice(&body).unwrap())
    }

    #[test]
    fn an_error_has_at_most_4_kb_whatever_it_repeats() {
        for text in ["x", "\u{1}", "é", "\"", "\u{1f600}"] {
            let long = || text.repeat(10_000);
            let faults = |count: usize| (0..count).map(|index| (format!("{index}{}", long()), long())).collect();
            for error in [
                ServiceError::InvalidRequest { parameters: faults(1) },
                ServiceError::InvalidRequest { parameters: faults(200) },
                ServiceError::Unprocessable { message: long(), parameters: faults(20) },
                ServiceError::Conflict(long()),
                ServiceError::PayloadTooLarge(long()),
            ] {
                let (bytes, envelope) = rendered(&error);
                assert!(bytes <= limits::ERROR_BYTES, "{bytes} bytes: {envelope}");
                assert_eq!(envelope["error"]["code"], code_of(&error).as_str());
            }
        }
    }

    #[test]
    fn as_many_faults_are_named_as_fit_and_all_are_counted() {
        let fault = |index: usize| (format!("events[{index}].data"), "x".repeat(250));
        let parameters: Vec<ParameterFault> = (0..20).map(fault).collect();
        let (bytes, envelope) = rendered(&ServiceError::InvalidRequest { parameters });
        let named = envelope["error"]["details"]["parameters"].as_object().unwrap().len();
        assert!(bytes <= limits::ERROR_BYTES && named == 20, "{named} in {bytes}");
        let parameters: Vec<ParameterFault> = (0..100).map(fault).collect();
        let (bytes, envelope) = rendered(&ServiceError::InvalidRequest { parameters });
        let named = envelope["error"]["details"]["parameters"].as_object().unwrap().len();
        assert!(bytes <= limits::ERROR_BYTES && named == 25, "{named} in {bytes}");
        assert!(envelope["error"]["message"].as_str().unwrap().ends_with("x (and 99 more)."));
        let small = ServiceError::InvalidRequest { parameters: vec![fault(0), fault(1)] };
        assert!(rendered(&small).1["error"]["message"].as_str().unwrap().ends_with("x (and 1 more)."));
    }
}
