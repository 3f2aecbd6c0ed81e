//! The operations and schemas of `/sources`.

use serde_json::{Value, json};

use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::source::{SourceKind, SourceState};

use super::info::SOURCES;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, count, described, growing, list, nullable, object, page_example, reference, single,
    single_example, timestamp,
};

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(SOURCES, "listSources", "List sources")
        .describe(
            "The sources that the operator's settings name for this workspace and mode. State and counts are those of \
             the node that answers.",
        )
        .paged()
        .answers(
            200,
            "A page of sources, in the order of the settings.",
            list(reference("Source")),
            page_example(&[example()]),
        )
}

pub fn show(_: &Catalogue) -> Operation {
    Operation::new(SOURCES, "getSource", "Get source").answers(
        200,
        "The source.",
        single(reference("Source")),
        single_example(example()),
    )
}

pub fn pause(_: &Catalogue) -> Operation {
    Operation::new(SOURCES, "pauseSource", "Pause source")
        .describe("No node takes messages from it any more; the others follow within seconds. It lasts over restarts.")
        .idempotent()
        .answers(200, "The source is paused.", single(reference("Source")), single_example(example()))
}

pub fn resume(_: &Catalogue) -> Operation {
    Operation::new(SOURCES, "resumeSource", "Resume source").idempotent().answers(
        200,
        "The source is not paused any more.",
        single(reference("Source")),
        single_example(example()),
    )
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let name = json!({
        "type": "string", "pattern": format!("^[a-z0-9-]{{1,{}}}$", limits::SOURCE_NAME_CHARS),
        "description": "The name of a source in the settings.",
    });
    let view = json!({
        "name": reference("SourceName"),
        "kind": growing(&SourceKind::ALL.map(SourceKind::as_str)),
        "mode": reference("Mode"),
        "state": described(
            growing(&SourceState::ALL.map(SourceState::as_str)),
            "`retrying`: it failed and tries again. `parked_full`: it waits until there is room for another parked message.",
        ),
        "error": described(nullable(json!({ "type": "string" })), "Why it does not run."),
        "since": timestamp("When it came into this state."),
        "lastMessageAt": nullable(timestamp("When this node last took a message.")),
        "accepted": described(count(), "Messages that became events on this node, since it started."),
        "repeated": described(count(), "Messages whose events were accepted before."),
        "parked": described(count(), "Messages that were parked."),
        "parkedMessages": described(count(), "Messages that are parked now, of all nodes."),
        "parkedMax": described(count(), "The most messages that may be parked."),
    });
    vec![
        ("SourceName", name),
        ("Source", described(object(view, &[]), "A broker or an outbox table from which events are taken.")),
    ]
}

fn example() -> Value {
    json!({
        "name": "orders",
        "kind": "outbox",
        "mode": "live",
        "state": "running",
        "error": null,
        "since": INSTANT_EXAMPLE,
        "lastMessageAt": INSTANT_EXAMPLE,
        "accepted": 1200,
        "repeated": 3,
        "parked": 1,
        "parkedMessages": 1,
        "parkedMax": limits::PARKED_MAX,
    })
}
