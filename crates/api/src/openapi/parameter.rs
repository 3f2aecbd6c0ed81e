//! `components.parameters`: the parameters that operations share, in headers, in the path and in the query.

use serde_json::{Map, Value, json};

use crate::route::Route;
use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::Brand;
use postrider_domain::limits;

use super::schema::{CURSOR_EXAMPLE, opaque_pattern, pascal, reference};

/// The parameters that a path may have: name, schema, description.
const PATH_PARAMETERS: &[(&str, &str, &str)] = &[
    ("endpointId", "EndpointId", "The endpoint's id."),
    ("listenerId", "ListenerId", "The listener's id."),
    ("deliveryId", "DeliveryId", "The delivery's id."),
    ("replayId", "ReplayId", "The replay's id."),
    ("erasureId", "ErasureId", "The erasure's id."),
    ("eventId", "EventId", "The event's id."),
    ("workspaceId", "WorkspaceId", "The workspace's id."),
    ("apiKeyId", "ApiKeyId", "The API key's id."),
    ("sourceName", "SourceName", "The source's name in the settings."),
    ("parkedMessageId", "ParkedMessageId", "The parked message's id."),
    ("portalSessionId", "PortalSessionId", "The portal session's id."),
];

/// `components.parameters`.
pub fn parameters(brand: &Brand, routes: &[Route]) -> Map<String, Value> {
    let mut parameters = Map::new();
    parameters.insert("ApiVersion".to_owned(), json!({
        "name": brand.header("Api-Version"),
        "in": "header",
        "description": "Pin the API version. Format YYYY-MM-DD. Omit to receive the currently rolling default. Unknown \
                        versions return 400 version_unsupported.",
        "schema": { "type": "string" },
        "example": API_VERSION,
    }));
    parameters.insert("IdempotencyKey".to_owned(), json!({
        "name": "Idempotency-Key",
        "in": "header",
        "description": "Opaque string (1–64 chars, [A-Za-z0-9_-]) used to dedup retried writes. Within 24h of the \
                        first request, the same key\n\n- same body returns the original response (Idempotent-Replayed: \
                        true). Same key + different body returns 409 idempotency_key_conflict.\n\nStrongly recommended \
                        for every write — see /docs/api/v1/idempotency.",
        "schema": { "type": "string", "pattern": opaque_pattern() },
        "example": "crm-endpoint-2026-05-15",
    }));
    parameters.extend(path_parameters(routes));
    parameters.insert(
        "Limit".to_owned(),
        json!({
            "name": "limit",
            "in": "query",
            "description": "The most items on the page. Out of range: 400 bad_pagination.",
            "schema": { "type": "integer", "minimum": 1, "maximum": limits::PAGE_MAX, "default": limits::PAGE_DEFAULT },
        }),
    );
    parameters.insert("Cursor".to_owned(), json!({
        "name": "cursor",
        "in": "query",
        "description": "`pagination.next_cursor` of the previous page. Opaque: send it unchanged. Any other text: 400 \
                        bad_cursor.",
        "schema": { "type": "string", "format": "cursor" },
        "example": CURSOR_EXAMPLE,
    }));
    parameters
}

/// The path parameters that these routes have.
fn path_parameters(routes: &[Route]) -> Map<String, Value> {
    let parameter = |name: &str, schema: &str, description: &str| {
        let schema = reference(schema);
        json!({ "name": name, "in": "path", "required": true, "description": description, "schema": schema })
    };
    let used = |name: &str| routes.iter().any(|route| names_in_path(route.path).any(|used| used == name));
    PATH_PARAMETERS
        .iter()
        .filter(|(name, _, _)| used(name))
        .map(|(name, schema, text)| (pascal(name), parameter(name, schema, text)))
        .collect()
}

/// The names in braces.
pub fn names_in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
}
