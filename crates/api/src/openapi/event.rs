//! The operations and schemas of `/events`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::delivery::EndReason;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::not_reached::{ConfiguredAs, NotReached};
use postrider_domain::payload::PayloadState;
use postrider_domain::trace_context::TRACEPARENT;

use super::info::EVENTS;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, any_object, array, closed_object, count, described, example_event, growing, instant,
    known_event, list, nullable, object, one_of, opaque_pattern, page_example, reference, single, single_example,
    timed_example, timestamp,
};

const TRACE: &str = "The trace of the publisher (W3C Trace Context). It is kept with the event, and receivers get it with the span of \
                     their attempt. An invalid one is ignored. `tracestate` and `baggage` are neither kept nor sent.";

pub fn publish(catalogue: &Catalogue) -> Operation {
    Operation::new(EVENTS, "publishEvent", "Publish event")
        .describe(
            "The answer comes only after the event and its deliveries are on disk. An event with a `projectId` reaches \
             the endpoints of that project and those without a project. An event without one reaches only endpoints \
             without a project.",
        )
        .idempotent()
        .header(TRACEPARENT, json!({ "type": "string" }), TRACE)
        .body("PublishEvent", publish_example(catalogue))
        .answers(
            200,
            "The `externalId` was published before with the same content. This is the first answer again.",
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

pub fn publish_batch(catalogue: &Catalogue) -> Operation {
    let receipts = single(array(reference("EventReceipt")));
    let receipts_example = single_example(json!([receipt_example(catalogue)]));
    Operation::new(EVENTS, "publishEvents", "Publish a batch of events")
        .describe(format!(
            "All or nothing: if one event is refused, none is accepted. The receipts are in the order of the events. \
             An event whose `externalId` was published before gets its first receipt again, and the others are \
             accepted. An event may have {} KB and a batch {} MB, or {0} KB with an `Idempotency-Key`.",
            limits::BODY_BYTES / 1024,
            limits::BATCH_BYTES / (1024 * 1024),
        ))
        .idempotent()
        .header(TRACEPARENT, json!({ "type": "string" }), TRACE)
        .body("PublishEvents", json!({ "events": [publish_example(catalogue)] }))
        .answers(
            200,
            "Every `externalId` was published before with the same content.",
            receipts.clone(),
            receipts_example.clone(),
        )
        .answers(202, "The events are accepted.", receipts, receipts_example)
        .fails(&[ErrorCode::Unprocessable])
}

pub fn index(catalogue: &Catalogue) -> Operation {
    Operation::new(EVENTS, "listEvents", "List events")
        .query_any("type", known_event(catalogue), "Only events with this name.")
        .query_any("projectId", reference("ProjectId"), "Only events of this project.")
        .query_any("externalId", reference("ExternalId"), "Only the event that was published under this id.")
        .query("deliveries", one_of(&["none"]), "`none`: only events that matched no endpoint (`reason: no_match`).")
        .query("since", instant(), "Only events accepted at this instant or later.")
        .query("until", instant(), "Only events accepted before this instant.")
        .paged()
        .answers(
            200,
            "A page of events, newest first, without their data.",
            list(reference("Event")),
            page_example(&[example(catalogue)]),
        )
}

pub fn show(catalogue: &Catalogue) -> Operation {
    let mut detail = example(catalogue);
    detail["skipped"] = json!([{
        "endpointId": "whe_a1b2c3d4e5f6g7h8",
        "deliveryId": timed_example("dlv_"),
        "reason": EndReason::Inactive.as_str(),
    }]);
    detail["data"] = data_example(catalogue);
    Operation::new(EVENTS, "getEvent", "Get event").answers(
        200,
        "The event with its data, and the matching endpoints that do not get it.",
        single(reference("EventWithData")),
        single_example(detail),
    )
}

pub fn other_endpoints() -> Operation {
    let other = json!({ "endpointId": "whe_a1b2c3d4e5f6g7h8", "reason": "other_types", "configuredAs": "at_accept" });
    Operation::new(EVENTS, "listOtherEndpoints", "List endpoints that did not get an event")
        .describe(
            "Endpoints of the key's mode that have no delivery of the event, not even a skipped one. Deleted endpoints \
             are not listed.",
        )
        .paged()
        .answers(
            200,
            "A page of endpoints, newest first, each with the reason.",
            list(reference("OtherEndpoint")),
            page_example(&[other]),
        )
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let mut batch = array(reference("PublishEvent"));
    batch["minItems"] = 1.into();
    batch["maxItems"] = limits::BATCH_EVENTS.into();
    let mut with_data = view();
    with_data["skipped"] = array(reference("SkippedEndpoint"));
    with_data["data"] = nullable(any_object("The published data, byte for byte; null unless `payload` is `kept`."));
    vec![
        ("ExternalId", external_id()),
        ("PublishEvent", closed_object(published(), &["projectId", "externalId", "occurredAt"])),
        ("PublishEvents", closed_object(json!({ "events": batch }), &[])),
        ("EventReceipt", described(object(receipt(), &[]), "What a publisher gets for an event.")),
        ("Event", described(object(view(), &[]), "An event in a list.")),
        ("EventWithData", described(object(with_data, &[]), "An event with its data.")),
        ("SkippedEndpoint", described(object(skipped(), &[]), "A matching endpoint that does not get the event.")),
        ("OtherEndpoint", described(object(other(), &[]), "An endpoint that did not get the event, and why.")),
    ]
}

fn external_id() -> Value {
    json!({
        "type": "string",
        "pattern": opaque_pattern(),
        "description": "The publisher's own id of the event. While the event is kept, publishing it again with the \
                        same content returns the first answer, and with other content is refused.",
        "examples": ["post-7k2m9q4x-created"],
    })
}

fn published() -> Value {
    json!({
        "type": reference("EventName"),
        "data": any_object(
            "What happened. The catalogue gives the schema for the event's name. Receivers get these bytes unchanged.",
        ),
        "projectId": nullable(described(reference("ProjectId"), "The project of the event.")),
        "externalId": nullable(reference("ExternalId")),
        "occurredAt": nullable(described(
            instant(),
            "When it happened. Receivers get it as `timestamp`. null (default): now.",
        )),
    })
}

fn receipt() -> Value {
    json!({
        "id": reference("EventId"),
        "externalId": nullable(reference("ExternalId")),
        "type": reference("ShownEventName"),
        "projectId": nullable(reference("ProjectId")),
        "createdAt": reference("Timestamp"),
        "deliveries": described(count(), "How many deliveries the event created."),
    })
}

fn view() -> Value {
    json!({
        "id": reference("EventId"),
        "type": reference("ShownEventName"),
        "projectId": nullable(reference("ProjectId")),
        "externalId": nullable(reference("ExternalId")),
        "mode": reference("Mode"),
        "occurredAt": nullable(timestamp("When it happened, if the publisher gave a time.")),
        "createdAt": reference("Timestamp"),
        "deliveries": described(count(), "How many deliveries the event created."),
        "reason": nullable(described(growing(&["no_match"]), "`no_match` when no endpoint subscribes to it.")),
        "payload": described(
            growing(&PayloadState::ALL.map(PayloadState::as_str)),
            "Whether the data is still stored: `expired` when it is older than the server keeps payloads, `erased` when \
             somebody had it erased. The event cannot be sent again then.",
        ),
    })
}

fn skipped() -> Value {
    json!({
        "endpointId": reference("EndpointId"),
        "deliveryId": described(reference("DeliveryId"), "The delivery that the log shows as `skipped`."),
        "reason": growing(&EndReason::ALL.map(EndReason::as_str)),
    })
}

fn other() -> Value {
    json!({
        "endpointId": reference("EndpointId"),
        "reason": described(
            growing(&NotReached::ALL.map(NotReached::as_str)),
            "`other_types` or `other_project`: the endpoint does not subscribe to it. `created_later`: it was created \
             after the event. `test_of_other`: the event was a test of another endpoint. `changed_since`: it matches \
             now, but did not when the event was accepted.",
        ),
        "configuredAs": described(
            growing(&ConfiguredAs::ALL.map(ConfiguredAs::as_str)),
            "Which configuration the reason is about: `at_accept` when the endpoint has not changed since then, else \
             `now`.",
        ),
    })
}

fn data_example(catalogue: &Catalogue) -> Value {
    let event = catalogue.find(&example_event(catalogue));
    event.and_then(|event| serde_json::from_str(event.example.get()).ok()).unwrap_or(json!({}))
}

fn publish_example(catalogue: &Catalogue) -> Value {
    json!({
        "type": example_event(catalogue),
        "data": data_example(catalogue),
        "projectId": "proj_a1b2c3d4e5f6g7h8",
        "externalId": "post-7k2m9q4x-created",
    })
}

fn example(catalogue: &Catalogue) -> Value {
    json!({
        "id": timed_example("evt_"),
        "type": example_event(catalogue),
        "projectId": "proj_a1b2c3d4e5f6g7h8",
        "externalId": "post-7k2m9q4x-created",
        "mode": "live",
        "occurredAt": null,
        "createdAt": INSTANT_EXAMPLE,
        "deliveries": 2,
        "reason": null,
        "payload": "kept",
    })
}

pub fn receipt_example(catalogue: &Catalogue) -> Value {
    json!({
        "id": timed_example("evt_"),
        "externalId": "post-7k2m9q4x-created",
        "type": example_event(catalogue),
        "projectId": "proj_a1b2c3d4e5f6g7h8",
        "createdAt": INSTANT_EXAMPLE,
        "deliveries": 2,
    })
}
