//! Reading the body of a request: bounded, and only JSON in UTF-8.

use std::error::Error;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};

use postrider_domain::limits;
use postrider_http::BodyFault;
use postrider_service::{JsonBody, ServiceError, run_blocking};

/// The body that a route accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    Required,
    /// An absent body means `{}`.
    Optional,
    /// Many events. Each may be as large and as deep as a single one.
    Batch,
    /// A batch with an `Idempotency-Key`. It has the size limit of any other body.
    KeyedBatch,
}

impl BodyRule {
    const fn bytes(self) -> usize {
        match self {
            Self::Required | Self::Optional | Self::KeyedBatch => limits::BODY_BYTES,
            Self::Batch => limits::BATCH_BYTES,
        }
    }

    const fn depth(self) -> usize {
        match self {
            Self::Required | Self::Optional => limits::JSON_DEPTH,
            Self::Batch | Self::KeyedBatch => limits::JSON_DEPTH + 2,
        }
    }

    /// The end of "The body is larger than 256 KB", where another kind of request may have more.
    const fn hint(self) -> &'static str {
        match self {
            Self::Required | Self::Optional | Self::Batch => "",
            Self::KeyedBatch => {
                ", the most that a request with an Idempotency-Key may have; without one a batch may have 8 MB"
            }
        }
    }
}

/// Reads the body, at most as many bytes as the rule allows.
///
/// # Errors
/// When the body is too large, is not declared as JSON in UTF-8, or is not one JSON value.
pub async fn read_body(headers: &HeaderMap, body: Body, rule: BodyRule) -> Result<JsonBody, ServiceError> {
    let (limit, depth, hint) = (rule.bytes(), rule.depth(), rule.hint());
    let too_large = || ServiceError::PayloadTooLarge(format!("The body is larger than {}{hint}.", size(limit)));
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    let bytes = to_bytes(body, limit).await.map_err(|error| fault_of(&error).unwrap_or_else(too_large))?;
    if bytes.is_empty() && rule == BodyRule::Optional {
        return JsonBody::parse(Bytes::from_static(b"{}"), depth);
    }
    if !is_json(headers) {
        return Err(ServiceError::UnsupportedMediaType);
    }
    if bytes.len() > limits::BODY_BYTES {
        return run_blocking(move || JsonBody::parse(bytes, depth)).await;
    }
    JsonBody::parse(bytes, depth)
}

/// Why the body could not be read. `None` when it is too large.
fn fault_of(error: &axum::Error) -> Option<ServiceError> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return None;
        }
        match error.downcast_ref() {
            Some(BodyFault::TooSlow) => return Some(ServiceError::RequestTimeout("body")),
            Some(BodyFault::OutOfMemory) => return Some(ServiceError::Unavailable { source: None }),
            Some(BodyFault::Broken(_)) | None => cause = error.source(),
        }
    }
    Some(ServiceError::invalid("body", "could not be read to its end"))
}

/// Parses a body that must have no members.
pub fn parse_nothing(body: &JsonBody) -> Result<(), ServiceError> {
    body.fields()?.finish()
}

/// A limit as messages show it.
fn size(bytes: usize) -> String {
    const MEGABYTE: usize = 1024 * 1024;
    if bytes.is_multiple_of(MEGABYTE) { format!("{} MB", bytes / MEGABYTE) } else { format!("{} KB", bytes / 1024) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media_type(value: &'static str) -> bool {
        is_json(&HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(value))]))
    }

    #[test]
    fn only_json_in_utf8_is_accepted() {
        assert!(media_type("application/json"));
        assert!(media_type("Application/JSON; charset=UTF-8"));
        assert!(!media_type("application/json; charset=latin1"));
        assert!(!media_type("application/x-www-form-urlencoded"));
        assert!(!media_type("text/json"));
        assert!(!is_json(&HeaderMap::new()));
    }
}
