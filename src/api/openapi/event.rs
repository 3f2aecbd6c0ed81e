//! What the document says of `/events`.

use serde_json::{Value, json};

use crate::api::error_code::ErrorCode;
use crate::domain::access::needs;
use crate::domain::event_type::Catalogue;

use super::info::EVENTS;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, count, described, example_event, instant, nullable, object, opaque_pattern, reference,
    single, single_example, timed_example,
};

pub fn publish(catalogue: &Catalogue) -> Operation {
    Operation::new(EVENTS, "publishEvent", "Publish event")
        .describe(
            "Answered only when the event and its deliveries are on disk. An event with a `projectId` reaches the endpoints of that \
             project and those without one; an event without it reaches only endpoints without one.",
        )
        .needs(needs::PUBLISH)
        .idempotent()
        .body("PublishEvent", publish_example(catalogue))
        .answers(
            200,
            "The `externalId` was published before with the same content: the first answer again.",
            single(reference("EventReceipt")),
            single_example(receipt_example(catalogue)),
        )
        .answers(
            202,
            "The event is accepted.",
            single(reference("EventReceipt")),
            single_example(receipt_example(catalogue)),
        )
        .fails(&[ErrorCode::Unprocessable])
}

pub fn schemas(_: &Catalogue) -> Schemas {
    vec![
        ("ExternalId", external_id()),
        ("PublishEvent", object(published(), &["projectId", "externalId", "occurredAt"])),
        ("EventReceipt", described(object(receipt(), &[]), "What a publisher is told.")),
    ]
}

fn external_id() -> Value {
    json!({
        "type": "string",
        "pattern": opaque_pattern(),
        "description": "The publisher's own id of the event. Publishing it again with the same content, for as long as the event is \
                        kept, is answered with the first answer; with other content it is refused.",
        "examples": ["post-7k2m9q4x-created"],
    })
}

fn published() -> Value {
    json!({
        "type": reference("EventName"),
        "data": {
            "type": "object",
            "description": "What happened, of the form that the catalogue gives for the event's name. Receivers get these bytes as \
                            they were sent here.",
        },
        "projectId": nullable(described(reference("ProjectId"), "Whose event it is.")),
        "externalId": nullable(reference("ExternalId")),
        "occurredAt": nullable(described(instant(), "When it happened; receivers get it as `timestamp`. null (default) is now.")),
    })
}

fn receipt() -> Value {
    json!({
        "id": reference("EventId"),
        "externalId": nullable(reference("ExternalId")),
        "type": reference("KnownEventName"),
        "projectId": nullable(reference("ProjectId")),
        "createdAt": reference("Timestamp"),
        "deliveries": described(count(), "How many deliveries the event has set off."),
    })
}

fn publish_example(catalogue: &Catalogue) -> Value {
    let name = example_event(catalogue);
    let data =
        catalogue.find(&name).and_then(|event| serde_json::from_str(event.example.get()).ok()).unwrap_or(json!({}));
    json!({ "type": name, "data": data, "projectId": "proj_a1b2c3d4e5f6g7h8", "externalId": "post-7k2m9q4x-created" })
}

fn receipt_example(catalogue: &Catalogue) -> Value {
    json!({
        "id": timed_example("evt_"),
        "externalId": "post-7k2m9q4x-created",
        "type": example_event(catalogue),
        "projectId": "proj_a1b2c3d4e5f6g7h8",
        "createdAt": INSTANT_EXAMPLE,
        "deliveries": 2,
    })
}
