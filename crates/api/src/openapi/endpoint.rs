//! The operations and schemas of `/webhook-endpoints`. Texts of the published page are kept to the letter.

use serde_json::{Map, Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::endpoint::{DisabledReason, EndpointState};
use postrider_domain::endpoint_health::HealthState;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;

use super::endpoint_options;
use super::info::ENDPOINTS;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, boolean, closed_object, described, example_event, example_events, growing,
    known_event, list, list_example, name, nullable, object, one_of, reference, single, single_example, timestamp,
};

pub const SECRET_EXAMPLE: &str = "whsec_4f9d3b6a1e2c8f0d7b5a4e9c2d1f8a3b6c5e0d9f2a1b4c7e8d3f6a5b2c1e0d4f";
const DISPLAY_SAFE: &str = "Display-safe shape of a webhook endpoint. The plaintext signing secret is never present \
                            here — only secretLast4. Use WebhookEndpointWithSecret (returned by create + rotate) when \
                            the plaintext matters.";
const WITH_SECRET: &str = "A webhook endpoint with its plaintext signing secret, which is shown only once.";

pub fn create(catalogue: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "createWebhookEndpoint", "Create webhook endpoint")
        .describe(
            "Events published from now on are delivered to the URL. Its host must resolve only to public addresses. \
             They are pinned: connections go only to them.",
        )
        .idempotent()
        .body("CreateWebhookEndpoint", create_example(catalogue))
        .answers(
            200,
            "Endpoint created. Response carries the plaintext secret.",
            single(reference("WebhookEndpointWithSecret")),
            single_example(with_secret_example(catalogue)),
        )
        .fails(&[ErrorCode::SsrfBlocked, ErrorCode::Unprocessable])
}

pub fn index(catalogue: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "listWebhookEndpoints", "List webhook endpoints")
        .query_any("projectId", reference("ProjectId"), "Only endpoints of this project.")
        .query("isActive", boolean(), "Only endpoints that are active (`true`) or not active (`false`).")
        .query_any("event", known_event(catalogue), "Only endpoints that subscribe to this event.")
        .query_any(
            "state",
            one_of(&EndpointState::ALL.map(EndpointState::as_str)),
            "Only endpoints in this state: active and `ok`, `failing` or `paused` (as `health.state`), `disabled` by the \
             server (`disabledReason`), or switched `off`.",
        )
        .query(
            "q",
            name(limits::SOUGHT_TEXT_CHARS),
            "Only endpoints with this text in their name or host. The case of ASCII letters does not matter.",
        )
        .paged()
        .answers(
            200,
            "A page of endpoints, newest first.",
            list(reference("WebhookEndpoint")),
            list_example(&[example(catalogue)]),
        )
}

pub fn show(catalogue: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "getWebhookEndpoint", "Get webhook endpoint").answers(
        200,
        "The endpoint.",
        single(reference("WebhookEndpoint")),
        single_example(example(catalogue)),
    )
}

pub fn update(catalogue: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "updateWebhookEndpoint", "Update webhook endpoint")
        .describe(
            "Changes the given fields and keeps the rest. While `isActive` is false, queued deliveries wait and \
             matching events are recorded as `skipped`. Setting it to true clears `disabledReason` and the failure \
             history, resolves the host again, and resumes the queued deliveries.",
        )
        .idempotent()
        .body("UpdateWebhookEndpoint", json!({ "events": example_events(catalogue), "isActive": true }))
        .answers(200, "The changed endpoint.", single(reference("WebhookEndpoint")), single_example(example(catalogue)))
        .fails(&[ErrorCode::SsrfBlocked, ErrorCode::Unprocessable])
}

pub fn remove(_: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "deleteWebhookEndpoint", "Delete webhook endpoint")
        .describe(
            "Deletes the endpoint and its secrets and cancels its undelivered deliveries. No attempt starts after the \
             answer. Its log stays until retention removes it.",
        )
        .idempotent()
        .answers_without_body(204, "The endpoint is deleted.")
}

pub fn rotate_secret(catalogue: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "rotateWebhookEndpointSecret", "Rotate signing secret")
        .describe(
            "Creates a new secret and shows it once. Queued deliveries are still signed with the old secret unless \
             `revokeQueued` is true. Later deliveries are signed with the new one. Not idempotent: each call creates \
             another secret.",
        )
        .optional_body("RotateSecret", json!({ "overlapSeconds": 3600 }))
        .answers(
            200,
            "The secret is rotated. Response carries the plaintext secret.",
            single(reference("WebhookEndpointWithSecret")),
            single_example(with_secret_example(catalogue)),
        )
        .fails(&[ErrorCode::Conflict])
}

pub fn test(catalogue: &Catalogue) -> Operation {
    Operation::new(ENDPOINTS, "sendTestEvent", "Send a test event")
        .describe(
            "Sends the catalogue's example of one subscribed event, marked as a test. The endpoint may be disabled. \
             Without `event`, sends the first event that the endpoint subscribes to.",
        )
        .idempotent()
        .optional_body("SendTestEvent", json!({ "event": example_event(catalogue) }))
        .answers(
            202,
            "The delivery is on disk. Get it to see its result.",
            single(reference("Delivery")),
            single_example(super::delivery::example(catalogue, "test")),
        )
        .fails(&[ErrorCode::Unprocessable])
}

pub fn schemas(catalogue: &Catalogue) -> Schemas {
    let create_order = ["name", "url", "events", "projectId"];
    let fields = fields(catalogue);
    let mut create: Map<String, Value> =
        create_order.iter().map(|name| ((*name).to_owned(), fields[name].clone())).collect();
    let mut update = create.clone();
    update.insert("isActive".to_owned(), described(boolean(), "Whether events are delivered to the endpoint."));
    create.extend(endpoint_options::written());
    update.extend(endpoint_options::written());
    let optional: Vec<&str> = ["projectId"].into_iter().chain(endpoint_options::WRITTEN).collect();
    let any: Vec<String> = update.keys().cloned().collect();
    let any: Vec<&str> = any.iter().map(String::as_str).collect();
    let (create, mut any_change) = (closed_object(create.into(), &optional), closed_object(update.into(), &any));
    any_change["description"] = "Absent fields keep their value.".into();
    let own = vec![
        ("CreateWebhookEndpoint", create),
        ("UpdateWebhookEndpoint", any_change),
        ("WebhookEndpoint", described(object(view(None), &[]), DISPLAY_SAFE)),
        ("WebhookEndpointWithSecret", described(object(view(Some(())), &[]), WITH_SECRET)),
        ("EndpointHealth", health_schema()),
        ("RotateSecret", rotate_schema()),
        (
            "SendTestEvent",
            closed_object(
                json!({ "event": nullable(described(reference("EventName"), "A subscribed event.")) }),
                &["event"],
            ),
        ),
    ];
    own.into_iter().chain(endpoint_options::schemas()).collect()
}

/// The fields that a caller writes. Their texts are those of the published page.
fn fields(catalogue: &Catalogue) -> Value {
    json!({
        "name": {
            "type": "string",
            "minLength": 1,
            "maxLength": limits::ENDPOINT_NAME_CHARS,
            "examples": ["Production CRM"],
        },
        "url": {
            "type": "string",
            "format": "uri",
            "maxLength": limits::ENDPOINT_URL_CHARS,
            "examples": [url_example(catalogue)],
        },
        "events": {
            "type": "array",
            "minItems": 1,
            "items": reference("EventName"),
            "description": "Closed list of subscribable events. Adding a new event name is a contract change — bump \
                            the docs + this enum in lockstep with the producer.",
            "examples": [example_events(catalogue)],
        },
        "projectId": {
            "type": ["string", "null"],
            "pattern": super::schema::opaque_pattern(),
            "description": "Optional project scope. When set, the endpoint only receives events for that project. null \
                            (default) delivers events for every project in the workspace.",
            "examples": ["proj_a1b2c3d4e5f6g7h8"],
        },
    })
}

/// In the order of the published page.
fn view(secret: Option<()>) -> Value {
    let reason = growing(&DisabledReason::ALL.map(DisabledReason::as_str));
    let mut view = json!({
        "id": reference("EndpointId"),
        "url": { "type": "string", "format": "uri" },
        "name": { "type": "string" },
        "events": array(reference("ShownEventName")),
        "isActive": boolean(),
        "disabledReason": nullable(described(reason, "Why the service disabled it: `gone` (the receiver answered 410), \
            `failing` (no attempt succeeded for days) or `ssrf_blocked` (its host is no longer public). null while it \
            is active, and when its owner deactivated it.")),
        "projectId": nullable(reference("ProjectId")),
        "secretLast4": { "type": "string", "minLength": 4, "maxLength": 4 },
        "createdAt": reference("Timestamp"),
    });
    if secret.is_some() {
        view["secret"] = json!({
            "type": "string",
            "pattern": "^whsec_[0-9a-f]{64}$",
            "description": "The plaintext signing secret. It is shown only in this answer.",
            "examples": [SECRET_EXAMPLE],
        });
    }
    view["updatedAt"] = timestamp("When it was last changed.");
    view["health"] = described(reference("EndpointHealth"), "How recent attempts went.");
    for (name, schema) in endpoint_options::view() {
        view[name] = schema;
    }
    view["mode"] = described(reference("Mode"), "The mode of the key that made it. It gets events of this mode.");
    view
}

fn health_schema() -> Value {
    let state = growing(&HealthState::ALL.map(HealthState::as_str));
    let instant = |description| nullable(timestamp(description));
    let properties = json!({
        "state": described(state, "`ok`; `failing`: several attempts in a row failed; `paused`: its queue is kept, and \
                                   only a probe is sent from time to time, until one succeeds."),
        "since": instant("When it became failing or paused."),
        "failures": { "type": "integer", "minimum": 0, "description": "Attempts that failed since the last success." },
        "nextProbeAt": instant("While it is paused: the earliest time of the next probe, which also needs a due \
                                delivery."),
        "disablesAt": instant("A failure after this time disables the endpoint as `failing`, unless an attempt \
                               succeeds first."),
    });
    described(object(properties, &[]), "How the recent attempts to an endpoint went.")
}

fn rotate_schema() -> Value {
    let properties = json!({
        "overlapSeconds": {
            "type": "integer",
            "minimum": 0,
            "maximum": limits::SECRET_OVERLAP_MAX.as_secs(),
            "description": "For this time, new deliveries carry the signatures of both secrets, the new one first. Default: 0.",
        },
        "revokeQueued": {
            "type": "boolean",
            "description": "Whether queued deliveries are signed with the new secret too. Default: false.",
        },
    });
    closed_object(properties, &["overlapSeconds", "revokeQueued"])
}

fn url_example(catalogue: &Catalogue) -> String {
    format!("https://hooks.example.com/{}", catalogue.brand.name())
}

fn create_example(catalogue: &Catalogue) -> Value {
    json!({
        "name": "Production CRM",
        "url": url_example(catalogue),
        "events": example_events(catalogue),
        "projectId": "proj_a1b2c3d4e5f6g7h8",
    })
}

fn example(catalogue: &Catalogue) -> Value {
    let mut example = with_secret_example(catalogue);
    if let Some(members) = example.as_object_mut() {
        members.shift_remove("secret");
    }
    example
}

fn with_secret_example(catalogue: &Catalogue) -> Value {
    let mut example = json!({
        "id": "whe_a1b2c3d4e5f6g7h8",
        "url": url_example(catalogue),
        "name": "Production CRM",
        "events": example_events(catalogue),
        "isActive": true,
        "disabledReason": null,
        "projectId": "proj_a1b2c3d4e5f6g7h8",
        "secretLast4": &SECRET_EXAMPLE[SECRET_EXAMPLE.len() - 4..],
        "createdAt": INSTANT_EXAMPLE,
        "secret": SECRET_EXAMPLE,
        "updatedAt": INSTANT_EXAMPLE,
        "health": { "state": "ok", "since": null, "failures": 0, "nextProbeAt": null, "disablesAt": null },
    });
    for (name, value) in endpoint_options::example() {
        example[name] = value;
    }
    example["mode"] = "live".into();
    example
}
