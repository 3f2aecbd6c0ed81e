//! The operations and schemas of `/event-types`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::event_type::Catalogue;

use super::info::EVENTS;
use super::operation::Operation;
use super::schema::{Schemas, any_object, boolean, described, example_event, list, list_example, object, reference};

pub fn index(catalogue: &Catalogue) -> Operation {
    let name = example_event(catalogue);
    let example = catalogue.find(&name).map(|event| {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (schema, example) = (parsed(event.schema.get()), parsed(event.example.get()));
        let description = &event.description;
        json!({ "name": name, "description": description, "retired": false, "schema": schema, "example": example })
    });
    Operation::new(EVENTS, "listEventTypes", "List event types")
        .describe("The whole catalogue on one page, in its own order. Any key may read it.")
        .answers(200, "The catalogue.", list(reference("EventType")), list_example(&Vec::from_iter(example)))
        .fails(&[ErrorCode::InvalidRequest])
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let properties = json!({
        "name": reference("ShownEventName"),
        "description": { "type": "string" },
        "retired": described(boolean(), "A retired name accepts no subscriptions and no publishes. Published events \
                                         stay."),
        "schema": any_object("JSON Schema of the event's `data`."),
        "example": any_object("An example of `data`."),
    });
    vec![("EventType", described(object(properties, &[]), "One name of the catalogue."))]
}
