//! The closed list of error codes: each with its status, what it means and what to do about it.
//!
//! The envelope, the OpenAPI document and the page behind `docs_url` are all made from this table.

use http::StatusCode;

/// The `code` of an error. Programs may rely on it; messages are for people and may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ErrorCode {
    InvalidRequest,
    VersionUnsupported,
    BadPagination,
    BadCursor,
    InvalidToken,
    KeyRevoked,
    KeyExpired,
    ScopeMissing,
    NotFound,
    MethodNotAllowed,
    IdempotencyKeyConflict,
    Conflict,
    RequestTimeout,
    PayloadTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    Unprocessable,
    SsrfBlocked,
    RateLimited,
    HeaderTooLarge,
    InternalError,
    ServiceUnavailable,
}

impl ErrorCode {
    pub const ALL: [Self; 22] = [
        Self::InvalidRequest,
        Self::VersionUnsupported,
        Self::BadPagination,
        Self::BadCursor,
        Self::InvalidToken,
        Self::KeyRevoked,
        Self::KeyExpired,
        Self::ScopeMissing,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::IdempotencyKeyConflict,
        Self::Conflict,
        Self::RequestTimeout,
        Self::PayloadTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::SsrfBlocked,
        Self::RateLimited,
        Self::HeaderTooLarge,
        Self::InternalError,
        Self::ServiceUnavailable,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::VersionUnsupported => "version_unsupported",
            Self::BadPagination => "bad_pagination",
            Self::BadCursor => "bad_cursor",
            Self::InvalidToken => "invalid_token",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::ScopeMissing => "scope_missing",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::IdempotencyKeyConflict => "idempotency_key_conflict",
            Self::Conflict => "conflict",
            Self::RequestTimeout => "request_timeout",
            Self::PayloadTooLarge => "payload_too_large",
            Self::UriTooLong => "uri_too_long",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::SsrfBlocked => "ssrf_blocked",
            Self::RateLimited => "rate_limited",
            Self::HeaderTooLarge => "header_too_large",
            Self::InternalError => "internal_error",
            Self::ServiceUnavailable => "service_unavailable",
        }
    }

    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest | Self::VersionUnsupported | Self::BadPagination | Self::BadCursor => {
                StatusCode::BAD_REQUEST
            }
            Self::InvalidToken | Self::KeyRevoked | Self::KeyExpired => StatusCode::UNAUTHORIZED,
            Self::ScopeMissing => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::IdempotencyKeyConflict | Self::Conflict => StatusCode::CONFLICT,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable | Self::SsrfBlocked => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::HeaderTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What happened.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::InvalidRequest => {
                "A parameter is missing, unknown, of the wrong type or out of its bounds, or names an event that is \
                 not in the catalogue. Or the body is not one JSON object: it is malformed, not UTF-8, nested too \
                 deeply, or repeats a key."
            }
            Self::VersionUnsupported => "The version header names an API version that this server does not support.",
            Self::BadPagination => "`limit` is not a whole number from 1 to 200.",
            Self::BadCursor => "`cursor` is not a cursor that this API returned.",
            Self::InvalidToken => {
                "The `Authorization` header is missing or not of the form `Bearer <key>`, or its key is unknown."
            }
            Self::KeyRevoked => "The API key existed and has been revoked.",
            Self::KeyExpired => "The API key has expired: it stopped working at 00:00 UTC of its `expiresAt` day.",
            Self::ScopeMissing => "The API key is valid, but has none of the scopes that allow this request.",
            Self::NotFound => {
                "There is no such route, or no such resource in this workspace. A resource of another workspace gets \
                 the same answer, so that nobody can find out whether it exists."
            }
            Self::MethodNotAllowed => "The route exists but does not accept this method.",
            Self::IdempotencyKeyConflict => {
                "The `Idempotency-Key`, or the `externalId` of an event, was used before with another body."
            }
            Self::Conflict => {
                "The state of the resource does not allow the request, a limit of the workspace is reached, or a \
                 request with the same `Idempotency-Key` is in progress."
            }
            Self::RequestTimeout => "The head or the body of the request arrived too slowly. The connection is closed.",
            Self::PayloadTooLarge => "The body, or an event in it, is larger than the limit.",
            Self::UriTooLong => "The path and query of the request are longer than 16 KB.",
            Self::UnsupportedMediaType => "The body is not declared as JSON in UTF-8.",
            Self::Unprocessable => "The request is well formed, but its content breaks a rule.",
            Self::SsrfBlocked => {
                "The host of the URL is not a public target: it has no address, or at least one of its addresses is \
                 loopback, private, link-local, shared or reserved."
            }
            Self::RateLimited => {
                "The workspace made more requests in the last 60 seconds than its limit. All of its keys count \
                 together. Or the address made too many requests whose key was refused; a valid key still works there."
            }
            Self::HeaderTooLarge => {
                "The head of the request, which is the request line and the headers, is larger than 32 KB, or it has \
                 more than 100 headers. The connection is closed."
            }
            Self::InternalError => "Something went wrong on our side. A write may or may not have taken effect.",
            Self::ServiceUnavailable => "The server cannot accept this request at the moment.",
        }
    }

    /// What the caller can do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::InvalidRequest => {
                "Read `details.parameters`: it names each faulty parameter and its fault. The same request will fail \
                 again."
            }
            Self::VersionUnsupported => {
                "Send one of the versions in `details.accepted`, or omit the header to get the current version."
            }
            Self::BadPagination => "Ask for 1 to 200 items, or omit `limit` to get 50.",
            Self::BadCursor => {
                "Send `pagination.next_cursor` of the previous page unchanged, or omit `cursor` to start with the \
                 newest."
            }
            Self::InvalidToken => {
                "Send `Authorization: Bearer <key>` with a key of this server. A key is shown only once, when it is \
                 created. If you lost it, create another."
            }
            Self::KeyRevoked => "Use another key. A revoked key never works again.",
            Self::KeyExpired => "Create a new key and use that.",
            Self::ScopeMissing => {
                "Use a key with one of the scopes in `details.required`. A new key has only the scopes that it is \
                 created with."
            }
            Self::NotFound => "Check the path and the id, and that the key belongs to the workspace of the resource.",
            Self::MethodNotAllowed => "Use one of the methods in the `Allow` header.",
            Self::IdempotencyKeyConflict => {
                "Use a new key for a different request. To repeat a request, send the same body: white space and the \
                 order of keys do not matter, but numbers and strings must be written in the same way."
            }
            Self::Conflict => {
                "If the answer has `Retry-After`, wait that many seconds and send the same request again. Otherwise \
                 read the message: it names the state or the limit."
            }
            Self::RequestTimeout => {
                "Send the request again on a new connection. A head must arrive within 10 seconds, and a body of up to \
                 256 KB within 30 seconds. A larger body may be slow for 10 seconds and must then keep 32 KB a second."
            }
            Self::PayloadTooLarge => {
                "Send a smaller body. The message names the limit: 256 KB for one event, and for any request with an \
                 `Idempotency-Key`."
            }
            Self::UriTooLong => "Send fewer or shorter query parameters.",
            Self::UnsupportedMediaType => "Send `Content-Type: application/json`.",
            Self::Unprocessable => "Read the message and, if present, `details.parameters`.",
            Self::SsrfBlocked => {
                "Register a URL whose host resolves only to public addresses. `details.reason` gives the class of the \
                 address that was found. The operator of the server can allow named hosts and networks."
            }
            Self::RateLimited => {
                "Wait the number of seconds in `Retry-After`. `X-RateLimit-Remaining` on every answer gives the number \
                 of requests left."
            }
            Self::HeaderTooLarge => "Send fewer or smaller headers.",
            Self::InternalError => {
                "Send the request again with the same `Idempotency-Key`. If the error persists, give the `request_id` \
                 to the operator of the server: the log has the cause under that id."
            }
            Self::ServiceUnavailable => {
                "Wait the number of seconds in `Retry-After` and send the same request again. Send a write with its \
                 `Idempotency-Key`."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_listed_once_and_explained() {
        let mut names: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            assert!(code.meaning().ends_with('.') && code.remedy().ends_with('.'), "{code:?}");
        }
    }
}
