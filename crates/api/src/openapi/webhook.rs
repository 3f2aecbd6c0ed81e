//! `webhooks`: what a receiver gets for each event of the catalogue, and what its answer means.

use serde_json::{Map, Value, json};

use postrider_domain::event::API_VERSION;
use postrider_domain::event_type::{Brand, Catalogue, EventType};
use postrider_domain::limits;

use super::schema::{INSTANT_EXAMPLE, always, described, nullable, object, reference, timed_example, timestamp};

pub fn webhooks(catalogue: &Catalogue) -> Value {
    let live = catalogue.types().iter().filter(|event| !event.retired);
    Value::Object(live.map(|event| (event.name.to_string(), webhook(event))).collect())
}

fn webhook(event: &EventType) -> Value {
    let headers: Vec<Value> = HEADERS
        .iter()
        .map(|header| json!({ "$ref": format!("#/components/parameters/{}", header.component) }))
        .collect();
    json!({
        "post": {
            "operationId": format!("on{}", component(event)),
            "tags": [],
            "summary": event.name,
            "description": event.description,
            "security": [],
            "parameters": headers,
            "requestBody": {
                "required": true,
                "content": {
                    "application/json": {
                        "schema": reference(&component(event)),
                        "examples": { "default": { "value": envelope_example(event) } },
                    },
                },
            },
            "responses": responses(),
        },
    })
}

fn responses() -> Value {
    let seconds = limits::ATTEMPT_DEADLINE.as_secs();
    let received = format!("The event is received. Answer within {seconds} s and process it afterwards.");
    json!({
        "2XX": { "description": received },
        "3XX": { "description": "A failure: redirects are never followed. The delivery is retried on its schedule." },
        "410": { "description": "The receiver wants no more events: the endpoint is disabled with the reason `gone`." },
        "429": throttled("Too many requests: the delivery is retried later, and all deliveries to the endpoint slow \
                          down."),
        "503": throttled("Unavailable: the delivery is retried later, and all deliveries to the endpoint slow down. \
                          502 and 504 mean the same."),
        "default": { "description": "A failure: the delivery is retried on its schedule. So it is when no answer \
                                     arrives in time." },
    })
}

fn throttled(description: &str) -> Value {
    json!({
        "description": description,
        "headers": {
            "Retry-After": {
                "description": "Seconds or a date before which it is not retried, at most 24 h ahead.",
                "schema": { "type": "string" },
            },
        },
    })
}

struct Header {
    component: &'static str,
    name: &'static str,
    /// Whether the name starts with the brand.
    branded: bool,
    required: bool,
    description: &'static str,
    schema: fn() -> Value,
    example: &'static str,
}

const HEADERS: &[Header] = &[
    Header {
        component: "WebhookId",
        name: "webhook-id",
        branded: false,
        required: true,
        description: "The event's id, the same on every attempt, retry and replay. Use it to drop repeats.",
        schema: || reference("EventId"),
        example: "",
    },
    Header {
        component: "WebhookTimestamp",
        name: "webhook-timestamp",
        branded: false,
        required: true,
        description: "When this attempt was signed, in Unix seconds. Refuse a time that is far from now.",
        schema: || json!({ "type": "string", "pattern": "^[0-9]+$" }),
        example: "1778833260",
    },
    Header {
        component: "WebhookSignature",
        name: "webhook-signature",
        branded: false,
        required: true,
        description: "One or more signatures, separated by spaces, each `v1,` and base64; two while a rotated secret \
                      overlaps. One valid signature is enough.",
        schema: || json!({ "type": "string", "pattern": "^v1,[A-Za-z0-9+/]{43}=( v1,[A-Za-z0-9+/]{43}=)*$" }),
        example: "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    },
    Header {
        component: "WebhookUserAgent",
        name: "User-Agent",
        branded: false,
        required: true,
        description: "The sender. Do not rely on it.",
        schema: || json!({ "type": "string" }),
        example: concat!("Postrider/", env!("CARGO_PKG_VERSION")),
    },
    Header {
        component: "WebhookDeliveryId",
        name: "Delivery-Id",
        branded: true,
        required: true,
        description: "The id of the delivery in the log.",
        schema: || reference("DeliveryId"),
        example: "",
    },
    Header {
        component: "WebhookDeliveryAttempt",
        name: "Delivery-Attempt",
        branded: true,
        required: true,
        description: "The number of this attempt, from 1.",
        schema: || json!({ "type": "integer", "minimum": 1 }),
        example: "1",
    },
    Header {
        component: "WebhookReplay",
        name: "Replay",
        branded: true,
        required: false,
        description: "`true` on a manual retry or replay: the event may have arrived before. Absent otherwise.",
        schema: || json!({ "type": "string", "const": "true" }),
        example: "true",
    },
    Header {
        component: "WebhookTest",
        name: "Test",
        branded: true,
        required: false,
        description: "`true` on a manual test: `data` is the catalogue's example and nothing happened. Absent \
                      otherwise.",
        schema: || json!({ "type": "string", "const": "true" }),
        example: "true",
    },
];

pub fn parameters(brand: &Brand) -> Map<String, Value> {
    let parameter = |header: &Header| {
        let name = if header.branded { brand.header(header.name) } else { header.name.to_owned() };
        let mut parameter = json!({
            "name": name,
            "in": "header",
            "required": header.required,
            "description": header.description,
            "schema": (header.schema)(),
        });
        if !header.example.is_empty() {
            // A number if the schema says so.
            parameter["example"] = match parameter["schema"]["type"].as_str() {
                Some("integer") => serde_json::from_str(header.example).unwrap_or_default(),
                _ => header.example.into(),
            };
        }
        (header.component.to_owned(), parameter)
    };
    HEADERS.iter().map(parameter).collect()
}

/// The schemas of the envelope and the data of each event.
pub fn schemas(catalogue: &Catalogue) -> impl Iterator<Item = (String, Value)> {
    catalogue.types().iter().filter(|event| !event.retired).flat_map(|event| {
        let data = format!("{}Data", component(event));
        [(component(event), envelope(event, &data)), (data.clone(), data_schema(event, &data))]
    })
}

/// `PostCreatedEvent` for `post.created`. Names that differ only in their dots get different components.
fn component(event: &EventType) -> String {
    let words = event.name.as_str().split('.').map(|word| {
        let (first, rest) = word.split_at(word.len().min(1));
        let dotted_digit = if first.starts_with(|c: char| c.is_ascii_digit()) { "." } else { "" };
        format!("{dotted_digit}{}{rest}", first.to_ascii_uppercase())
    });
    words.collect::<String>() + "Event"
}

fn envelope(event: &EventType, data: &str) -> Value {
    let properties = json!({
        "id": described(reference("EventId"), "The event's id, as in `webhook-id`."),
        "type": always(event.name.as_str()),
        "timestamp": timestamp("When it happened: `occurredAt` of the publish, or else when it was accepted."),
        "apiVersion": { "type": "string", "examples": [API_VERSION] },
        "workspaceId": reference("WorkspaceId"),
        "projectId": nullable(reference("ProjectId")),
        "data": reference(data),
    });
    described(object(properties, &[]), &event.description)
}

/// The schema as a part of the document. Its `$schema` is removed, and its references to its own parts start at the
/// root of the document.
fn data_schema(event: &EventType, component: &str) -> Value {
    let mut schema: Value = serde_json::from_str(event.schema.get()).unwrap_or_default();
    if schema.get("$id").is_none() {
        if let Some(members) = schema.as_object_mut() {
            members.shift_remove("$schema");
        }
        move_references(&mut schema, &format!("#/components/schemas/{component}"));
    }
    schema
}

fn move_references(value: &mut Value, root: &str) {
    match value {
        Value::Object(members) => {
            if let Some(Value::String(reference)) = members.get_mut("$ref")
                && let Some(pointer) = reference.strip_prefix('#')
                && (pointer.is_empty() || pointer.starts_with('/'))
            {
                *reference = format!("{root}{pointer}");
            }
            members.values_mut().for_each(|value| move_references(value, root));
        }
        Value::Array(items) => items.iter_mut().for_each(|value| move_references(value, root)),
        _ => {}
    }
}

fn envelope_example(event: &EventType) -> Value {
    let data: Value = serde_json::from_str(event.example.get()).unwrap_or_default();
    let project_id = data.get("projectId").cloned().unwrap_or(Value::Null);
    json!({
        "id": timed_example("evt_"),
        "type": event.name,
        "timestamp": INSTANT_EXAMPLE,
        "apiVersion": API_VERSION,
        "workspaceId": "org_a1b2c3d4e5f6g7h8",
        "projectId": project_id,
        "data": data,
    })
}
