//! The closed list of error codes: each with its status, what it means and what to do about it.
//!
//! The table of the contract, once: the envelope, the OpenAPI document and the page that `docs_url` leads to are all
//! made from it.

use http::StatusCode;

/// The `code` of an error, which programs may rely on; messages are for people and may change.
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
    PayloadTooLarge,
    UnsupportedMediaType,
    Unprocessable,
    SsrfBlocked,
    RateLimited,
    InternalError,
    ServiceUnavailable,
}

impl ErrorCode {
    pub const ALL: [Self; 19] = [
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
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::Unprocessable,
        Self::SsrfBlocked,
        Self::RateLimited,
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
            Self::PayloadTooLarge => "payload_too_large",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Unprocessable => "unprocessable",
            Self::SsrfBlocked => "ssrf_blocked",
            Self::RateLimited => "rate_limited",
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
            Self::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Unprocessable | Self::SsrfBlocked => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::InternalError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ServiceUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What has happened.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::InvalidRequest => {
                "A parameter is missing, unknown, of the wrong type or out of its bounds, names an event that is not in \
                 the catalogue, or the body is not one JSON object: malformed, not UTF-8, nested too deeply, or with a \
                 key that stands twice."
            }
            Self::VersionUnsupported => "The version header names an API version that this server does not speak.",
            Self::BadPagination => "`limit` is not a whole number from 1 to 200.",
            Self::BadCursor => "`cursor` is not one that this API has given.",
            Self::InvalidToken => {
                "The `Authorization` header is missing, is not of the form `Bearer <key>`, or its key is unknown."
            }
            Self::KeyRevoked => "The API key existed and has been revoked.",
            Self::KeyExpired => "The API key is past its last day: it stopped at 00:00 UTC of its `expiresAt` day.",
            Self::ScopeMissing => "The API key is valid and lacks every scope that would allow this request.",
            Self::NotFound => {
                "There is no such route, or no such resource in this workspace. The resource of another workspace is \
                 answered in the same way: whether it exists is never told."
            }
            Self::MethodNotAllowed => "The route exists, and does not take this method.",
            Self::IdempotencyKeyConflict => {
                "The `Idempotency-Key`, or the `externalId` of an event, was used before with another body."
            }
            Self::Conflict => {
                "The state of the resource forbids it, or a limit of the workspace is reached, or a request with the \
                 same `Idempotency-Key` is under way at this moment."
            }
            Self::PayloadTooLarge => "The body, or an event in it, has more bytes than are taken.",
            Self::UnsupportedMediaType => "The body is not declared as JSON in UTF-8.",
            Self::Unprocessable => "The form of the request is right; what it says breaks a rule.",
            Self::SsrfBlocked => {
                "The host of the URL is no public target: it has no address, or at least one of its addresses is \
                 loopback, private, link-local, shared or reserved."
            }
            Self::RateLimited => {
                "The workspace has made more requests in the last 60 seconds than it may. All of its keys count \
                 together."
            }
            Self::InternalError => "Something went wrong on our side. A write may have taken effect or not.",
            Self::ServiceUnavailable => "The server cannot take this request at the moment.",
        }
    }

    /// What to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::InvalidRequest => {
                "Read `details.parameters`: it names each parameter at fault and says what is wrong with it. The same \
                 request will fail again."
            }
            Self::VersionUnsupported => {
                "Send one of the versions in `details.accepted`, or leave the header out to get the current one."
            }
            Self::BadPagination => "Ask for 1 to 200 items, or leave `limit` out to get 50.",
            Self::BadCursor => {
                "Send `pagination.next_cursor` of the page before as it came, or leave `cursor` out to begin with the \
                 newest."
            }
            Self::InvalidToken => {
                "Send `Authorization: Bearer <key>` with a key of this server. A key is shown only once, when it is \
                 made: if it is lost, make another."
            }
            Self::KeyRevoked => "Use another key. A revoked key never works again.",
            Self::KeyExpired => "Make a new key and use that.",
            Self::ScopeMissing => {
                "Use a key with one of the scopes in `details.required`. A new key has no scope until it is given one."
            }
            Self::NotFound => "Check the path and the id, and that the key belongs to the workspace of the resource.",
            Self::MethodNotAllowed => "Use one of the methods in the `Allow` header.",
            Self::IdempotencyKeyConflict => {
                "Send another key for another request. To repeat a request, send the same body: the order of keys and \
                 white space do not matter, numbers and strings must be written as they were."
            }
            Self::Conflict => {
                "If the answer has `Retry-After`, wait that many seconds and send the same request again. Otherwise \
                 read the message: it says which state or limit stands in the way."
            }
            Self::PayloadTooLarge => {
                "Send less. The message says which limit was met: one event may have 256 KB, and so may any request \
                 with an `Idempotency-Key`."
            }
            Self::UnsupportedMediaType => "Send `Content-Type: application/json`.",
            Self::Unprocessable => "Read the message and, if there are any, `details.parameters`.",
            Self::SsrfBlocked => {
                "Register a URL whose host resolves to public addresses alone. `details.reason` tells the class of what \
                 was found. Whoever runs the server can allow named hosts and networks."
            }
            Self::RateLimited => {
                "Wait as many seconds as `Retry-After` says. `X-RateLimit-Remaining` on every answer tells how much is \
                 left."
            }
            Self::InternalError => {
                "Try again with the same `Idempotency-Key`. If it persists, tell whoever runs the server the \
                 `request_id`: the cause is in the log under it."
            }
            Self::ServiceUnavailable => {
                "Wait as many seconds as `Retry-After` says and send the same request again, writes with their \
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
