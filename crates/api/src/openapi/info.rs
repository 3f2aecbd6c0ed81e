//! The parts of the document about the API as a whole: guide, tags, authentication.

use serde_json::{Value, json};

use crate::route::Route;
use postrider_domain::access::Mode;
use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Brand;

pub const ENDPOINTS: &str = "Webhook endpoints";
pub const LISTENERS: &str = "Listeners";
pub const EVENTS: &str = "Events";
pub const DELIVERIES: &str = "Deliveries";
pub const REPLAYS: &str = "Replays";
pub const ERASURES: &str = "Erasures";
pub const SOURCES: &str = "Sources";
pub const STATS: &str = "Statistics";
pub const WORKSPACES: &str = "Workspaces";
pub const NODES: &str = "Nodes";
pub const API_KEYS: &str = "API keys";
pub const PORTAL: &str = "Portal sessions";
pub const AUDIT: &str = "Audit log";
pub const HEALTH: &str = "Health";

/// In the order of the document.
const TAGS: &[(&str, &str)] = &[
    (ENDPOINTS, "Which events a customer receives, and at which URL."),
    (LISTENERS, "Endpoints without a URL: a consumer leases their deliveries, handles them and reports the results."),
    (EVENTS, "What happened: published once, delivered to every endpoint that subscribes to it."),
    (DELIVERIES, "The log: each event for each endpoint, with every attempt."),
    (REPLAYS, "Jobs that send again what an endpoint missed in a time range, or every delivery that passes a filter."),
    (ERASURES, "Jobs that take the content of a customer's events out of the store."),
    (SOURCES, "Brokers and outbox tables from which events come, and messages of them that cannot become events."),
    (STATS, "How many events, deliveries and attempts there were, and how they ended."),
    (
        WORKSPACES,
        "They separate products from each other. All operations but one are for operators, whose keys are created at \
         the command line.",
    ),
    (NODES, "The processes of the server: which versions run during an upgrade."),
    (API_KEYS, "Who may call, and what they may do."),
    (PORTAL, "Links by which a customer manages the endpoints of one project."),
    (AUDIT, "Who wrote what, when, from where and in which request, and whose key was refused."),
    (HEALTH, "Whether the server is ready, and whether a key works."),
];

/// The tags that routes have.
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
                "Pass Authorization: Bearer {live}<...> (or {test}<...> for test keys) on every request. Keys are \
                 scoped to a single workspace and can be revoked from the {title} dashboard."
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

Requests and answers are JSON over HTTPS. A single resource is answered as `{{\"data\": {{…}}}}`. Field names are \
camelCase, except inside `error` and `pagination`, where they are snake_case. Times are ISO 8601 in UTC with \
milliseconds. Unknown parameters are refused, so that a misspelt one is never silently ignored.

## Authentication

Send `Authorization: Bearer {live}…` on every request. A key belongs to one workspace and has scopes. Each operation \
says which scope it needs.

A test key (`{test}…`) may call the same routes. It has endpoints, events and deliveries of its own, and what live keys \
made does not exist for it, nor the reverse. Its deliveries are rendered, signed and recorded, but not sent.

## Errors

Every error has the same form: `{{\"error\": {{\"code\", \"message\", \"request_id\", \"docs_url\", \"details\"}}}}`. \
Programs should rely on `code`. `docs_url` links to its explanation.

## Idempotency

Writes accept an `Idempotency-Key`. For 24 hours after the first request, the same key with the same body returns the \
first answer again, byte for byte, with `Idempotent-Replayed: true`. The same key with another body is refused as `409 \
idempotency_key_conflict`. Two bodies are the same if they differ only in white space and in the order of keys. A \
value that is not 1 to 64 characters of `[A-Za-z0-9_-]` is ignored. For publishes, `externalId` prevents repeats for \
longer.

## Pages

Lists are newest first: `{{\"data\": […], \"pagination\": {{\"next_cursor\", \"has_more\"}}}}`. Send `next_cursor` as \
`cursor` to get the next page.

## Versions

`{version}: {API_VERSION}` pins the version. Every answer names its version. A deprecated version is answered with \
`{deprecation}: <version>; sunset=<date>; replacement=<version>`.

## Rate limits

Requests are counted per workspace over the last 60 seconds. `429 rate_limited` has the seconds to wait in \
`Retry-After`.

## Verifying webhooks

Every delivery is signed according to the [Standard Webhooks](https://www.standardwebhooks.com/) specification, so any \
of its libraries verifies it with the endpoint's secret. The header `webhook-signature` holds one or more signatures, \
separated by spaces. Each is `v1,` and the base64 of an HMAC-SHA-256 over \
`{{webhook-id}}.{{webhook-timestamp}}.{{body}}`. The key is the base64-decoded part of the secret after `whsec_`. \
Verify the bytes of the body as they arrived, refuse a timestamp that is far from now, and drop repeats by \
`webhook-id`: delivery is at least once, and the order is not guaranteed."
    )
}
