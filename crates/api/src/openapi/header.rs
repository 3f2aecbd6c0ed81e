//! `components.headers`: the headers of answers.

use serde_json::{Map, Value, json};

use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Brand;

use super::schema::{one_of, reference};

/// The name of a header, with a reference to its description.
pub fn reference_to(name: &str, component: &str) -> (String, Value) {
    (name.to_owned(), json!({ "$ref": format!("#/components/headers/{component}") }))
}

pub fn of_every_answer(brand: &Brand) -> Map<String, Value> {
    [reference_to("X-Request-Id", "RequestId"), reference_to(&brand.header("Api-Version"), "ApiVersion")]
        .into_iter()
        .collect()
}

pub fn of_a_rate() -> [(String, Value); 3] {
    [
        reference_to("X-RateLimit-Limit", "RateLimitLimit"),
        reference_to("X-RateLimit-Remaining", "RateLimitRemaining"),
        reference_to("X-RateLimit-Reset", "RateLimitReset"),
    ]
}

/// `components.headers`.
pub fn headers() -> Value {
    let whole = |description: &str, minimum: u32| {
        let schema = json!({ "type": "integer", "minimum": minimum });
        json!({ "description": description, "schema": schema })
    };
    json!({
        "RequestId": {
            "description": "The id of this request. Give it to the operator of the server when something went wrong.",
            "required": true,
            "schema": reference("RequestId"),
        },
        "ApiVersion": {
            "description": "The API version of the answer.",
            "required": true,
            "schema": { "type": "string", "examples": [API_VERSION] },
        },
        "IdempotentReplayed": {
            "description": "`true` when this is the first answer again, `false` when the request was carried out now. \
                            Absent when the request had no `Idempotency-Key`.",
            "schema": one_of(&["true", "false"]),
        },
        "RetryAfter": whole("Seconds to wait before sending the same request again.", 1),
        "RateLimitLimit": whole("Requests that the workspace may make in 60 seconds. Absent without a limit.", 0),
        "RateLimitRemaining": whole("How many requests are left.", 0),
        "RateLimitReset": whole("Seconds until all requests are available again, or until one is if none is left.", 0),
        "Allow": { "description": "The methods that the route accepts.", "schema": { "type": "string" } },
    })
}
