//! The errors: their one schema, and a response for each set of codes with the same status.
//!
//! The API itself renders the examples, from an error of that code.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::error::{REFUSED_KEYS, render_body};
use crate::error_code::ErrorCode;
use postrider_domain::access::ScopeMissing;
use postrider_domain::event_type::Brand;
use postrider_domain::id::RequestId;
use postrider_domain::limits;
use postrider_domain::page::InvalidPage;
use postrider_domain::permission::Permission;
use postrider_domain::rate_limit::RateBucket;
use postrider_domain::target::{RefusalReason, TargetRefusal};
use postrider_service::ServiceError;

use super::header;
use super::schema::{array, described, growing, object, pascal, reference};

/// The name of the response for these codes, which have the same status.
pub fn response_name(codes: &[ErrorCode]) -> String {
    codes.iter().map(|code| pascal(code.as_str())).collect::<Vec<_>>().join("Or")
}

/// `components.schemas` of the errors. They share one form, so that a client which is generated from this document
/// takes a code that it does not know.
pub fn schemas() -> Vec<(String, Value)> {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
    let body = json!({
        "code": described(growing(&codes), "Programs rely on it. Treat an unknown one by the status of the answer."),
        "message": { "type": "string", "description": "For people. It may change." },
        "request_id": reference("RequestId"),
        "docs_url": { "type": "string", "format": "uri", "description": "The explanation of this code." },
        "details": reference("ErrorDetails"),
    });
    let owned = |(name, schema): (&str, Value)| (name.to_owned(), schema);
    [
        (
            "ErrorAnswer",
            described(object(json!({ "error": reference("ErrorBody") }), &[]), "Every refusal has this form."),
        ),
        ("ErrorBody", object(body, &["details"])),
        ("ErrorDetails", details()),
    ]
    .map(owned)
    .into()
}

fn details() -> Value {
    let [management, publishing] = [RateBucket::Management, RateBucket::Publishing].map(RateBucket::as_str);
    let properties = json!({
        "parameters": {
            "type": "object",
            "additionalProperties": { "type": "string" },
            "description": "`invalid_request`, `unprocessable`: the fault of each faulty parameter, by its name; `body` for \
                            the body as a whole.",
        },
        "accepted": described(array(json!({ "type": "string" })), "`version_unsupported`: the versions that are."),
        "required": described(array(reference("ShownScope")), "`scope_missing`: one of these scopes is needed."),
        "bucket": described(
            growing(&[management, publishing, REFUSED_KEYS]),
            "`rate_limited`: which requests are counted together.",
        ),
        "host": { "type": "string", "description": "`ssrf_blocked`: the host of the URL." },
        "reason": {
            "type": "string",
            "description": "`ssrf_blocked`: the class of its address.",
            "x-extensible-enum": RefusalReason::ALL.map(RefusalReason::as_str),
        },
    });
    let optional: Vec<String> =
        properties.as_object().into_iter().flat_map(|members| members.keys().cloned()).collect();
    let optional: Vec<&str> = optional.iter().map(String::as_str).collect();
    described(object(properties, &optional), "Which members it has depends on the code. Later versions may add some.")
}

/// `components.responses` for these sets of codes.
pub fn responses<'c>(sets: impl Iterator<Item = &'c [ErrorCode]>, brand: &Brand, errors_page: &str) -> Value {
    let mut responses = Map::new();
    for codes in sets {
        responses.entry(response_name(codes)).or_insert_with(|| response(codes, brand, errors_page));
    }
    responses.sort_keys();
    Value::Object(responses)
}

fn response(codes: &[ErrorCode], brand: &Brand, errors_page: &str) -> Value {
    let examples: Map<String, Value> =
        codes.iter().map(|code| (code.as_str().to_owned(), json!({ "value": example(*code, errors_page) }))).collect();
    let mut headers = header::of_every_answer(brand);
    for code in codes {
        match code {
            ErrorCode::Conflict | ErrorCode::RateLimited | ErrorCode::ServiceUnavailable => {
                headers.extend([header::reference_to("Retry-After", "RetryAfter")]);
            }
            _ => {}
        }
    }
    if codes.contains(&ErrorCode::RateLimited) {
        headers.extend(header::of_a_rate());
    }
    let names: Vec<String> = codes.iter().map(|code| format!("`{}`", code.as_str())).collect();
    json!({
        "description": format!("{}: {}", codes[0].status().canonical_reason().unwrap_or("Error"), names.join(", ")),
        "headers": headers,
        "content": { "application/json": { "schema": reference("ErrorAnswer"), "examples": examples } },
    })
}

/// `x-error-codes`: the table behind the page of errors.
pub fn table(errors_page: &str) -> Value {
    let row = |code: &ErrorCode| {
        let row = json!({
            "status": code.status().as_u16(),
            "meaning": code.meaning(),
            "remedy": code.remedy(),
            "example": example(*code, errors_page),
        });
        (code.as_str().to_owned(), row)
    };
    Value::Object(ErrorCode::ALL.iter().map(row).collect())
}

fn example(code: ErrorCode, errors_page: &str) -> Value {
    let id = RequestId::from_letters(*b"a1b2c3d4e5f6g7h8");
    serde_json::from_slice(&render_body(&sample(code), id, errors_page)).unwrap_or_default()
}

/// An error with this code.
fn sample(code: ErrorCode) -> ServiceError {
    let text = str::to_owned;
    match code {
        ErrorCode::InvalidRequest => ServiceError::invalid("name", "must be 1 to 128 characters"),
        ErrorCode::VersionUnsupported => ServiceError::VersionUnsupported,
        ErrorCode::BadPagination => ServiceError::BadPagination(InvalidPage::Limit),
        ErrorCode::BadCursor => ServiceError::BadCursor,
        ErrorCode::InvalidToken => ServiceError::InvalidToken,
        ErrorCode::KeyRevoked => ServiceError::KeyRevoked,
        ErrorCode::KeyExpired => ServiceError::KeyExpired,
        ErrorCode::ScopeMissing => {
            ServiceError::ScopeMissing(ScopeMissing { needed: Permission::EndpointsWrite.scopes() })
        }
        ErrorCode::NotFound => ServiceError::NotFound,
        ErrorCode::MethodNotAllowed => ServiceError::MethodNotAllowed,
        ErrorCode::IdempotencyKeyConflict => {
            ServiceError::IdempotencyKeyConflict("The Idempotency-Key was used before with another body.".into())
        }
        ErrorCode::Conflict => ServiceError::Conflict(text("The project has 500 endpoints, the most it may have.")),
        ErrorCode::PayloadTooLarge => ServiceError::PayloadTooLarge(text("The body is larger than 256 KB.")),
        ErrorCode::RequestTimeout => ServiceError::RequestTimeout("body"),
        ErrorCode::UriTooLong => ServiceError::UriTooLong,
        ErrorCode::HeaderTooLarge => ServiceError::HeaderTooLarge,
        ErrorCode::UnsupportedMediaType => ServiceError::UnsupportedMediaType,
        ErrorCode::Unprocessable => {
            ServiceError::unprocessable("event", "must be one that the endpoint is subscribed to")
        }
        ErrorCode::SsrfBlocked => ServiceError::SsrfBlocked(TargetRefusal {
            host: text("localhost"),
            reason: RefusalReason::Loopback,
            is_passing: false,
        }),
        ErrorCode::RateLimited => ServiceError::RateLimited {
            bucket: RateBucket::Management,
            limit: limits::MANAGEMENT_REQUESTS_PER_MINUTE,
            retry_after: Duration::from_secs(12),
        },
        ErrorCode::ServiceUnavailable => ServiceError::Unavailable { source: None },
        ErrorCode::InternalError => ServiceError::Internal { source: text("").into() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_a_code_is_an_error_of_that_code() {
        for code in ErrorCode::ALL {
            assert_eq!(example(code, "https://api.example.com/docs/errors")["error"]["code"], code.as_str());
        }
    }
}
