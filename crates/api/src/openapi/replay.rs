//! The operations and schemas of `/webhook-endpoints/{endpointId}/replay`, `/webhook-deliveries/replay` and of replay
//! jobs.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryCause, DeliveryFilter, DeliveryStatus};
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::list_filter::ListFilter;
use postrider_domain::replay::{REPLAYABLE, REPLAYED_BY_DEFAULT, ReplayStatus};

use super::delivery;
use super::info::REPLAYS;
use super::operation::Operation;
use super::schema::{
    Schemas, array, closed_object, count, described, growing, instant, known_event, list, list_example, nullable,
    object, one_of, reference, single, single_example, timed_example, timestamp,
};

pub fn create(_: &Catalogue) -> Operation {
    let body =
        json!({ "since": "2026-05-15T06:00:00Z", "until": "2026-05-15T08:00:00Z", "statuses": ["failed", "skipped"] });
    let count = single_example(json!({ "dryRun": true, "total": 1204, "unavailable": 0 }));
    Operation::new(REPLAYS, "replayWebhookEndpoint", "Start a replay")
        .describe(
            "Starts a job that sends again, oldest first, what the endpoint missed between `since` and `until`. It \
             runs with less priority than live traffic, continues after a restart, and never stops early without \
             saying so. With `dryRun` nothing is started and only the counts are returned.",
        )
        .idempotent()
        .body("StartReplay", body)
        .answers(200, "What a replay would send.", single(reference("ReplayCount")), count)
        .answers(202, "The replay has started.", single(reference("Replay")), single_example(example("running")))
        .fails(&[ErrorCode::Unprocessable])
}

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(REPLAYS, "listReplays", "List replays of an endpoint").paged().answers(
        200,
        "A page of replays, newest first.",
        list(reference("Replay")),
        list_example(&[example("completed")]),
    )
}

pub fn show(_: &Catalogue) -> Operation {
    Operation::new(REPLAYS, "getReplay", "Get replay").answers(
        200,
        "The replay and its progress.",
        single(reference("Replay")),
        single_example(example("running")),
    )
}

pub fn stop(_: &Catalogue) -> Operation {
    Operation::new(REPLAYS, "stopReplay", "Stop a replay")
        .describe("Deliveries that it has queued are still sent.")
        .idempotent()
        .optional_body("Nothing", json!({}))
        .answers(200, "The stopped replay.", single(reference("Replay")), single_example(example("stopped")))
}

pub fn create_filtered(_: &Catalogue) -> Operation {
    let filter = json!({ "eventType": ["post.created"], "responseStatus": ["5xx"], "since": "2026-05-15T06:00:00Z" });
    let count = json!({
        "dryRun": true, "filter": example_filter(), "total": 1204, "unavailable": 0, "countedTo": null,
    });
    Operation::new(REPLAYS, "replayWebhookDeliveries", "Replay all deliveries of a filter")
        .describe(
            "Starts a job that sends again, oldest first, every delivery that passes the filter, to whichever \
             endpoint. It repeats deliveries that have ended by now, with any of the statuses `failed`, `skipped`, \
             `cancelled` and `delivered` that the filter passes. Of several deliveries of an event to an endpoint it \
             repeats the last one, and none if a later one is pending or has arrived. It repeats no tests. Deliveries \
             to an endpoint that is off wait until it is active. It runs with less priority than live traffic, \
             continues after a restart, and never stops early without saying so. With `dryRun` nothing is started and \
             only the counts are returned.",
        )
        .idempotent()
        .body("StartFilterReplay", json!({ "filter": filter }))
        .answers(200, "What a replay would send.", single(reference("FilterReplayCount")), single_example(count))
        .answers(202, "The replay has started.", single(reference("ReplayJob")), single_example(example_job("running")))
        .fails(&[ErrorCode::Unprocessable])
}

pub fn index_all(_: &Catalogue) -> Operation {
    Operation::new(REPLAYS, "listReplayJobs", "List all replays").paged().answers(
        200,
        "A page of replays of endpoints and by filter, newest first.",
        list(reference("ReplayJob")),
        list_example(&[example_job("completed")]),
    )
}

pub fn show_any(_: &Catalogue) -> Operation {
    Operation::new(REPLAYS, "getReplayJob", "Get any replay").answers(
        200,
        "The replay and its progress.",
        single(reference("ReplayJob")),
        single_example(example_job("running")),
    )
}

pub fn stop_any(_: &Catalogue) -> Operation {
    Operation::new(REPLAYS, "stopReplayJob", "Stop any replay")
        .describe("Deliveries that it has queued are still sent.")
        .idempotent()
        .optional_body("Nothing", json!({}))
        .answers(200, "The stopped replay.", single(reference("ReplayJob")), single_example(example_job("stopped")))
}

pub fn schemas(catalogue: &Catalogue) -> Schemas {
    endpoint_schemas().into_iter().chain(job_schemas(catalogue)).collect()
}

fn job_schemas(catalogue: &Catalogue) -> Schemas {
    let start = json!({ "filter": reference("FilterToReplay"), "dryRun": dry_run() });
    let count = json!({
        "dryRun": { "type": "boolean", "const": true },
        "filter": reference("DeliveryFilter"),
        "total": count(),
        "unavailable": unavailable(),
        "countedTo": counted_to(),
    });
    vec![
        ("StartFilterReplay", closed_object(start, &["dryRun"])),
        ("FilterToReplay", filter_to_replay(catalogue)),
        ("DeliveryFilter", shown_filter()),
        ("FilterReplayCount", described(object(count, &[]), "What a replay would send.")),
        ("ReplayJob", described(object(job_view(), &[]), "A job that sends deliveries again.")),
    ]
}

/// A single value need not stand in an array.
fn filter_to_replay(catalogue: &Catalogue) -> Value {
    let any_of = |item: Value| {
        let array = json!({ "type": "array", "items": item, "minItems": 1, "maxItems": limits::FILTER_VALUES });
        json!({ "anyOf": [array, item] })
    };
    let parameters = json!({
        "endpointId": any_of(reference("EndpointId")),
        "eventId": any_of(reference("EventId")),
        "eventType": any_of(known_event(catalogue)),
        "projectId": any_of(reference("ProjectId")),
        "status": any_of(reference("DeliveryStatus")),
        "cause": any_of(one_of(&DeliveryCause::ALL.map(DeliveryCause::as_str))),
        "outcome": any_of(one_of(&AttemptOutcome::ALL.map(AttemptOutcome::as_str))),
        "responseStatus": any_of(delivery::response_statuses()),
        "since": described(instant(), "Deliveries created at this instant or later."),
        "until": described(instant(), "Deliveries created before this instant, at the latest now."),
    });
    let mut schema = closed_object(parameters, DeliveryFilter::NAMES);
    schema["minProperties"] = 1.into();
    described(schema, "Which deliveries: the filters of the list of deliveries, at least one of them.")
}

fn shown_filter() -> Value {
    let parameters = json!({
        "endpointId": array(reference("EndpointId")),
        "eventId": array(reference("EventId")),
        "eventType": array(reference("ShownEventName")),
        "projectId": array(reference("ProjectId")),
        "status": array(growing(&DeliveryStatus::ALL.map(DeliveryStatus::as_str))),
        "cause": array(growing(&DeliveryCause::ALL.map(DeliveryCause::as_str))),
        "outcome": array(growing(&AttemptOutcome::ALL.map(AttemptOutcome::as_str))),
        "responseStatus": array(json!({ "type": "string" })),
        "since": timestamp("Deliveries created at this instant or later."),
        "until": timestamp("Deliveries created before this instant."),
    });
    described(object(parameters, DeliveryFilter::NAMES), "A filter of deliveries: the parameters that are set.")
}

fn dry_run() -> Value {
    json!({ "type": ["boolean", "null"], "description": "Whether to only count. null (default): false." })
}

fn unavailable() -> Value {
    described(count(), "How many of them have no payload any more, because of retention, or no endpoint.")
}

fn counted_to() -> Value {
    nullable(timestamp("Set when there were too many to count: `total` has those created before this instant."))
}

fn job_view() -> Value {
    json!({
        "id": reference("ReplayId"),
        "endpointId": nullable(described(reference("EndpointId"), "The endpoint whose replay it is; null for a replay \
            by filter.")),
        "filter": described(reference("DeliveryFilter"), "Which deliveries it sends again."),
        "status": growing(&ReplayStatus::ALL.map(ReplayStatus::as_str)),
        "total": described(count(), "How many deliveries it found at its start."),
        "countedTo": counted_to(),
        "replayed": described(count(), "How many deliveries it has queued again."),
        "unavailable": unavailable(),
        "createdAt": reference("Timestamp"),
        "completedAt": nullable(timestamp("When it completed or was stopped.")),
        "mode": described(reference("Mode"), "The mode of the deliveries that it sends again."),
    })
}

fn example_filter() -> Value {
    json!({
        "eventType": ["post.created"], "status": ["failed", "cancelled"], "responseStatus": ["5xx"],
        "since": "2026-05-15T06:00:00.000Z", "until": "2026-05-15T08:21:00.000Z",
    })
}

fn example_job(status: &str) -> Value {
    let example = example(status);
    json!({
        "id": example["id"],
        "endpointId": null,
        "filter": example_filter(),
        "status": status,
        "total": example["total"],
        "countedTo": null,
        "replayed": example["replayed"],
        "unavailable": 0,
        "createdAt": example["createdAt"],
        "completedAt": example["completedAt"],
        "mode": "live",
    })
}

fn endpoint_schemas() -> Schemas {
    let statuses = one_of(&REPLAYABLE.map(DeliveryStatus::as_str));
    let by_default = REPLAYED_BY_DEFAULT.map(DeliveryStatus::as_str);
    let start = json!({
        "since": described(instant(), "Deliveries created at this instant or later; it must be earlier than `until`."),
        "until": nullable(described(instant(), "Deliveries created before this instant, at the latest now. null \
            (default): now.")),
        "statuses": {
            "type": ["array", "null"],
            "minItems": 1,
            "items": statuses,
            "description": format!("The statuses of the deliveries to send again. null (default): {}.", by_default.join(" and ")),
        },
        "dryRun": dry_run(),
    });
    vec![
        ("StartReplay", closed_object(start, &["until", "statuses", "dryRun"])),
        ("Replay", described(object(view(), &[]), "A job that sends deliveries again.")),
        (
            "ReplayCount",
            described(
                object(
                    json!({ "dryRun": { "type": "boolean", "const": true }, "total": count(), "unavailable": count() }),
                    &[],
                ),
                "What a replay would send.",
            ),
        ),
    ]
}

fn view() -> Value {
    json!({
        "id": reference("ReplayId"),
        "endpointId": reference("EndpointId"),
        "status": growing(&ReplayStatus::ALL.map(ReplayStatus::as_str)),
        "since": reference("Timestamp"),
        "until": reference("Timestamp"),
        "statuses": array(growing(&REPLAYABLE.map(DeliveryStatus::as_str))),
        "total": described(count(), "How many deliveries it found at its start."),
        "replayed": described(count(), "How many deliveries it has queued again."),
        "unavailable": described(count(), "How many deliveries have no payload any more, because of retention."),
        "createdAt": reference("Timestamp"),
        "completedAt": nullable(timestamp("When it completed or was stopped.")),
        "mode": described(reference("Mode"), "The mode of its endpoint and of the deliveries that it sends again."),
    })
}

fn example(status: &str) -> Value {
    let running = status == "running";
    json!({
        "id": timed_example("rpl_"),
        "endpointId": "whe_a1b2c3d4e5f6g7h8",
        "status": status,
        "since": "2026-05-15T06:00:00.000Z",
        "until": "2026-05-15T08:00:00.000Z",
        "statuses": ["failed", "skipped"],
        "total": 1204,
        "replayed": if running { 300 } else { 1204 },
        "unavailable": 0,
        "createdAt": "2026-05-15T08:21:00.000Z",
        "completedAt": (!running).then_some("2026-05-15T08:24:10.512Z"),
        "mode": "live",
    })
}
