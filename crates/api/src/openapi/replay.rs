//! The operations and schemas of `/webhook-endpoints/{endpointId}/replay` and of replay jobs.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::event_type::Catalogue;
use postrider_domain::replay::{REPLAYABLE, REPLAYED_BY_DEFAULT, ReplayStatus};

use super::info::REPLAYS;
use super::operation::Operation;
use super::schema::{
    Schemas, array, closed_object, count, described, growing, instant, list, list_example, nullable, object, one_of,
    reference, single, single_example, timed_example, timestamp,
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

pub fn schemas(_: &Catalogue) -> Schemas {
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
        "dryRun": { "type": ["boolean", "null"], "description": "Whether to only count. null (default): false." },
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
