//! The operations and schemas of `DELETE /events/{eventId}` and `/erasures`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::erasure::{ErasureStatus, PendingDeliveries};
use postrider_domain::event_type::Catalogue;

use super::info::{ERASURES, EVENTS};
use super::operation::Operation;
use super::schema::{
    Schemas, boolean, closed_object, count, described, growing, list, list_example, nullable, object, one_of,
    reference, single, single_example, timed_example, timestamp,
};

pub fn erase_event() -> Operation {
    Operation::new(EVENTS, "eraseEvent", "Erase the content of an event")
        .describe(
            "Starts a job that takes the content of the event out of the store: its data, its `externalId`, the \
             requests and answers of its attempts, and remembered answers that name it. The event and its deliveries \
             stay in the log, with `payload: \"erased\"`. Nothing can be sent again. The content is gone when the \
             erasure says `erased`. An event that has an erasure gets the same one again.",
        )
        .idempotent()
        .query("pending", pending(), PENDING)
        .optional_body("Nothing", json!({}))
        .answers(200, "The erasure.", single(reference("Erasure")), single_example(example(true, "pending")))
}

pub fn create() -> Operation {
    Operation::new(ERASURES, "startErasure", "Erase the content of a project or an endpoint")
        .describe(
            "Starts a job that takes content out of the store: that of all events which carry the project, or what was \
             sent to an endpoint and what it answered. It concerns events that were accepted before the request. Give \
             either `projectId` or `endpointId`.",
        )
        .idempotent()
        .body("StartErasure", json!({ "projectId": "proj_a1b2c3d4e5f6g7h8", "pending": "cancel" }))
        .answers(
            202,
            "The erasure has started.",
            single(reference("Erasure")),
            single_example(example(false, "pending")),
        )
        .fails(&[ErrorCode::NotFound, ErrorCode::Unprocessable])
}

pub fn index() -> Operation {
    Operation::new(ERASURES, "listErasures", "List erasures").paged().answers(
        200,
        "A page of erasures, newest first.",
        list(reference("Erasure")),
        list_example(&[example(false, "erased")]),
    )
}

pub fn show() -> Operation {
    Operation::new(ERASURES, "getErasure", "Get erasure").answers(
        200,
        "The erasure and its progress.",
        single(reference("Erasure")),
        single_example(example(false, "running")),
    )
}

const PENDING: &str = "What happens to deliveries that have not ended: `cancel` (default) ends them as `cancelled`, and \
                       the outcome of an attempt under way is not recorded; `finish` waits for their ends first.";

fn pending() -> Value {
    one_of(&PendingDeliveries::ALL.map(PendingDeliveries::as_str))
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let start = json!({
        "projectId": nullable(described(reference("ProjectId"), "Whose events. Not with `endpointId`.")),
        "endpointId": nullable(described(
            reference("EndpointId"),
            "Whose requests and answers. It may be deleted. Not with `projectId`.",
        )),
        "pending": nullable(described(pending(), PENDING)),
    });
    vec![
        ("StartErasure", closed_object(start, &["projectId", "endpointId", "pending"])),
        ("Erasure", described(object(view(), &[]), "A job that takes content out of the store.")),
    ]
}

fn view() -> Value {
    json!({
        "id": reference("ErasureId"),
        "eventId": nullable(described(reference("EventId"), "Set for the erasure of an event.")),
        "projectId": nullable(described(reference("ProjectId"), "Set for the erasure of a project.")),
        "endpointId": nullable(described(reference("EndpointId"), "Set for the erasure of an endpoint.")),
        "pending": described(growing(&PendingDeliveries::ALL.map(PendingDeliveries::as_str)), PENDING),
        "status": described(
            growing(&ErasureStatus::ALL.map(ErasureStatus::as_str)),
            "`erased`: the content is gone from the rows and from the server's files.",
        ),
        "events": described(count(), "Events whose content is gone. Zero for an endpoint."),
        "attempts": described(count(), "Attempts whose requests and answers are gone."),
        "cancelled": described(count(), "Deliveries that it has cancelled."),
        "answers": described(count(), "Remembered answers that it has removed."),
        "waiting": described(count(), "Events or deliveries that wait for deliveries to end, as last seen."),
        "needsCompact": described(
            boolean(),
            "An older version wrote the server's file, and may have left copies of content in it. They go when the \
             operator rewrites the file once, with `postrider store compact`.",
        ),
        "createdAt": reference("Timestamp"),
        "completedAt": nullable(timestamp("When the content was gone.")),
        "mode": described(reference("Mode"), "The mode of the events."),
    })
}

fn example(of_event: bool, status: &str) -> Value {
    let (begun, erased) = (status != "pending", status == "erased");
    json!({
        "id": timed_example("era_"),
        "eventId": of_event.then(|| timed_example("evt_")),
        "projectId": (!of_event).then_some("proj_a1b2c3d4e5f6g7h8"),
        "endpointId": null,
        "pending": "cancel",
        "status": status,
        "events": if begun { 1204 } else { 0 },
        "attempts": if begun { 1310 } else { 0 },
        "cancelled": if begun { 3 } else { 0 },
        "answers": if erased { 17 } else { 0 },
        "waiting": 0,
        "needsCompact": false,
        "createdAt": "2026-05-15T08:21:00.000Z",
        "completedAt": erased.then_some("2026-05-15T08:21:04.512Z"),
        "mode": "live",
    })
}
