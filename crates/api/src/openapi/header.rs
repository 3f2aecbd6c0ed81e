//! `components.headers`: the headers of answers.

use serde_json::{Map, Value, json};

use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Brand;

use super::schema::{one_of, reference};

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
            "schema": one_of(&["true", "false"]),
        },
        "RetryAfter": whole("Seconds to wait before the same request is worth sending again.", 1),
        "RateLimitLimit": whole("Requests that the workspace may make in 60 seconds. Absent where there is no limit.", 0),
        "RateLimitRemaining": whole("How many of them are left.", 0),
        "RateLimitReset": whole("Seconds until all of them are there again, or, once none is left, until one is.", 0),
        "Allow": { "description": "The methods that the route takes.", "schema": { "type": "string" } },
    })
}
