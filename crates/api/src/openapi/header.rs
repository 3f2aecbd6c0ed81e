//! The headers and the parameters that many operations share.

use serde_json::{Map, Value, json};

use crate::route::Route;
use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Brand;
use postrider_domain::limits;

use super::schema::{self, CURSOR_EXAMPLE, opaque_pattern, reference};

/// A header's name and where its description stands.
pub fn shared(name: &str, component: &str) -> (String, Value) {
    (name.to_owned(), json!({ "$ref": format!("#/components/headers/{component}") }))
}

pub fn of_every_answer(brand: &Brand) -> Map<String, Value> {
    [shared("X-Request-Id", "RequestId"), shared(&brand.header("Api-Version"), "ApiVersion")].into_iter().collect()
}

pub fn of_a_rate() -> [(String, Value); 3] {
    [
        shared("X-RateLimit-Limit", "RateLimitLimit"),
        shared("X-RateLimit-Remaining", "RateLimitRemaining"),
        shared("X-RateLimit-Reset", "RateLimitReset"),
    ]
}

/// `components.headers`.
pub fn headers() -> Value {
    let whole = |description: &str, minimum: u32| json!({ "description": description, "schema": { "type": "integer", "minimum": minimum } });
    json!({
        "RequestId": {
            "description": "The id of this request. Tell it to whoever runs the server when something went wrong.",
            "required": true,
            "schema": reference("RequestId"),
        },
        "ApiVersion": {
            "description": "The API version in which the request was answered.",
            "required": true,
            "schema": { "type": "string", "examples": [API_VERSION] },
        },
        "IdempotentReplayed": {
            "description": "`true` when this is the first answer again, `false` when the request has been done now. Absent \
                            when the request had no `Idempotency-Key`.",
            "schema": schema::one_of(&["true", "false"]),
        },
        "RetryAfter": whole("Seconds to wait before the same request is worth sending again.", 1),
        "RateLimitLimit": whole("Requests that the workspace may make in 60 seconds. Absent where there is no limit.", 0),
        "RateLimitRemaining": whole("How many of them are left.", 0),
        "RateLimitReset": whole("Seconds until all of them are there again, or, once none is left, until one is.", 0),
        "Allow": { "description": "The methods that the route takes.", "schema": { "type": "string" } },
    })
}

/// `components.parameters`.
pub fn parameters(brand: &Brand, routes: &[Route]) -> Value {
    let mut parameters = Map::new();
    parameters.insert("ApiVersion".to_owned(), json!({
        "name": brand.header("Api-Version"),
        "in": "header",
        "description": "Pin the API version. Format YYYY-MM-DD. Omit to receive the currently rolling default. Unknown versions \
                        return 400 version_unsupported.",
        "schema": { "type": "string" },
        "example": API_VERSION,
    }));
    parameters.insert("IdempotencyKey".to_owned(), json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Opaque string (1–64 chars, [A-Za-z0-9_-]) used to dedup retried writes. Within 24h of the first request, \
                        the same key\n\n- same body returns the original response (Idempotent-Replayed: true). Same key + \
                        different body returns 409 idempotency_key_conflict.\n\nStrongly recommended for every write — see \
                        /docs/api/v1/idempotency.",
        "schema": { "type": "string", "pattern": opaque_pattern() },
        "example": "crm-endpoint-2026-05-15",
    }));
    parameters.extend(schema::path_parameters(routes));
    parameters.insert(
        "Limit".to_owned(),
        json!({
            "name": "limit",
            "in": "query",
            "description": "How many items the page holds at most. Out of range: 400 bad_pagination.",
            "schema": { "type": "integer", "minimum": 1, "maximum": limits::PAGE_MAX, "default": limits::PAGE_DEFAULT },
        }),
    );
    parameters.insert("Cursor".to_owned(), json!({
        "name": "cursor",
        "in": "query",
        "description": "`pagination.next_cursor` of the page before. Opaque: send it as it came. Any other text: 400 bad_cursor.",
        "schema": { "type": "string", "format": "cursor" },
        "example": CURSOR_EXAMPLE,
    }));
    Value::Object(parameters)
}
