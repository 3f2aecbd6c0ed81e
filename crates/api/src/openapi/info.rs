//! What the document says of the API as a whole: the parts that no single operation can tell.

use serde_json::{Value, json};

use crate::route::Route;
use postrider_domain::access::Mode;
use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Brand;

pub const ENDPOINTS: &str = "Webhook endpoints";
pub const EVENTS: &str = "Events";
pub const DELIVERIES: &str = "Deliveries";
pub const REPLAYS: &str = "Replays";
pub const WORKSPACES: &str = "Workspaces";
pub const API_KEYS: &str = "API keys";
pub const AUDIT: &str = "Audit log";
pub const HEALTH: &str = "Health";

/// In the order in which they are shown.
const TAGS: &[(&str, &str)] = &[
    (ENDPOINTS, "Where a customer wants which events."),
    (EVENTS, "What happened, told once and delivered to every endpoint that asked for it."),
    (DELIVERIES, "The log: each event on its way to each endpoint, with every attempt."),
    (REPLAYS, "Jobs that send again what an endpoint did not get in a stretch of time."),
    (
        WORKSPACES,
        "The walls between products. All but one operation are for operators, whose keys are made at the command line.",
    ),
    (API_KEYS, "Who may call, and what they may do."),
    (AUDIT, "Who wrote what, when, by which request."),
    (HEALTH, "Whether the server works, and whether a key does."),
];

/// Those that a route has.
pub fn tags(routes: &[Route]) -> Value {
    let used = |name: &str| routes.iter().any(|route| route.operation.tag == name);
    TAGS.iter()
        .filter(|(name, _)| used(name))
        .map(|(name, description)| json!({ "name": name, "description": description }))
        .collect()
}

pub fn info(brand: &Brand) -> Value {
    json!({
        "title": format!("{} API", brand.title()),
        "version": env!("CARGO_PKG_VERSION"),
        "summary": "Register webhook endpoints, publish events, follow every delivery.",
        "description": description(brand),
        "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
    })
}

pub fn security_schemes(brand: &Brand) -> Value {
    let (live, test, title) = (brand.key_prefix(Mode::Live), brand.key_prefix(Mode::Test), brand.title());
    json!({
        "apiKey": {
            "type": "http",
            "scheme": "bearer",
            "description": format!(
                "Pass Authorization: Bearer {live}<...> (or {test}<...> for test keys) on every request. Keys are scoped to a \
                 single workspace and can be revoked from the {title} dashboard."
            ),
        },
    })
}

fn description(brand: &Brand) -> String {
    let (live, test) = (brand.key_prefix(Mode::Live), brand.key_prefix(Mode::Test));
    let (version, deprecation) = (brand.header("Api-Version"), brand.header("Deprecation"));
    format!(
        "\
## Requests and answers

JSON in, JSON out, over HTTPS. A single resource is answered as `{{\"data\": {{…}}}}`. Names of fields are camelCase; those inside \
`error` and `pagination` are snake_case. Instants are ISO 8601 in UTC with milliseconds. Parameters that are not known are refused, \
so that a misspelt one is never silently ignored.

## Authentication

Send `Authorization: Bearer {live}…` on every request. A key belongs to one workspace and carries scopes; each operation says \
which it needs. A test key (`{test}…`) reaches the same routes; what would be sent is rendered, signed and recorded, \
and not sent.

## Errors

Every error has the same form: `{{\"error\": {{\"code\", \"message\", \"request_id\", \"docs_url\", \"details\"}}}}`. Programs rely on \
`code`; `docs_url` leads to its explanation.

## Idempotency

Writes take an `Idempotency-Key`. For 24 hours from the first request, the same key with the same body is answered with the \
first answer again, byte for byte, and with `Idempotent-Replayed: true`; with another body it is refused as `409 \
idempotency_key_conflict`. Bodies are the same when they differ only in white space and in the order of keys. A value that is not \
1 to 64 characters of `[A-Za-z0-9_-]` is ignored as if it were absent. Publishing has a second, longer memory: `externalId`.

## Pages

Lists are newest first: `{{\"data\": […], \"pagination\": {{\"next_cursor\", \"has_more\"}}}}`. Send `next_cursor` as `cursor` to get \
the next page.

## Versions

`{version}: {API_VERSION}` pins the version, and every answer says in which version it was made. A version on its way out is \
answered with `{deprecation}: <version>; sunset=<date>; replacement=<version>`.

## Rate limits

Requests are counted per workspace over the last 60 seconds. `429 rate_limited` says in `Retry-After` how many seconds to wait.

## Verifying webhooks

Every delivery is signed as the [Standard Webhooks](https://www.standardwebhooks.com/) specification has it, so any of its \
libraries verifies it with the endpoint's secret as it is. The header `webhook-signature` holds one or more signatures, separated by \
spaces; each is `v1,` and the base64 of HMAC-SHA-256 over `{{webhook-id}}.{{webhook-timestamp}}.{{body}}`, and the key is the base64 \
decoding of what follows `whsec_` in the secret. Verify the bytes of the body as they arrived, refuse a timestamp that is far from \
now, and drop repeats by `webhook-id`: delivery is at least once, and order is not promised."
    )
}
