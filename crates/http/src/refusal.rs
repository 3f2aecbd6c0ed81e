//! Requests that are refused before a handler sees them.

use std::sync::Arc;

use axum::response::Response;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE};
use http::{HeaderValue, response};

use postrider_domain::id::RequestId;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

/// Why the listener refuses a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The head is larger than 32 KB or has more than 100 fields.
    HeaderTooLarge,
    /// The target is longer than 16 KB.
    UriTooLong,
    /// The head is not valid HTTP/1.1.
    MalformedHead,
    /// The client speaks HTTP/2 without having been offered it.
    Http2,
    /// The head did not arrive in time.
    HeadTooSlow,
}

/// Renders a refusal in the error shape of the listener's owner.
pub type RenderRefusal = Arc<dyn Fn(Refusal, RequestId) -> Response + Send + Sync>;

/// The refusal of a head that hyper could not read. `head` are the bytes that arrived.
pub(crate) fn of_parse_error(error: &hyper::Error, head: &[u8]) -> Option<Refusal> {
    if error.is_parse_version_h2() {
        Some(Refusal::Http2)
    } else if error.is_parse_too_large() {
        Some(if target_is_too_long(head) { Refusal::UriTooLong } else { Refusal::HeaderTooLarge })
    } else if error.is_parse() {
        Some(Refusal::MalformedHead)
    } else {
        None
    }
}

/// Whether the target in the request line is too long, as far as the line has arrived.
fn target_is_too_long(head: &[u8]) -> bool {
    let line = head.split(|byte| matches!(byte, b'\r' | b'\n')).find(|line| !line.is_empty()).unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    target.len() > limits::TARGET_BYTES
}

/// The whole answer as bytes, for a connection on which hyper no longer writes. The answer ends the connection.
pub(crate) fn to_bytes(mut head: response::Parts, body: &[u8], now: Timestamp) -> Vec<u8> {
    let since_epoch = std::time::Duration::from_millis(u64::try_from(now.millis()).unwrap_or_default());
    let date = httpdate::fmt_http_date(std::time::UNIX_EPOCH + since_epoch);
    head.headers.insert(CONNECTION, HeaderValue::from_static("close"));
    head.headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    if let Ok(date) = HeaderValue::from_str(&date) {
        head.headers.insert(DATE, date);
    }
    let reason = head.status.canonical_reason().unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {} {reason}\r\n", head.status.as_u16()).into_bytes();
    for (name, value) in &head.headers {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_target_is_measured_in_a_line_that_may_not_have_ended() {
        let line = |bytes: usize, rest: &str| format!("\r\nGET /{}{rest}", "a".repeat(bytes - 1)).into_bytes();
        assert!(!target_is_too_long(&line(limits::TARGET_BYTES, " HTTP/1.1\r\nx: y")));
        assert!(target_is_too_long(&line(limits::TARGET_BYTES + 1, " HTTP/1.1\r\nx: y")));
        assert!(target_is_too_long(&line(limits::TARGET_BYTES + 1, "")));
        assert!(!target_is_too_long(b"GET / HTTP/1.1\r\nx: a b"));
        assert!(!target_is_too_long(b""));
    }
}
