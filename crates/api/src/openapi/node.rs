//! The operation and schemas of `/nodes`.

use serde_json::json;

use postrider_domain::event_type::Catalogue;

use super::info::NODES;
use super::operation::Operation;
use super::schema::{Schemas, boolean, count, described, list, list_example, nullable, object, reference, timestamp};

pub fn index(_: &Catalogue) -> Operation {
    let example = json!({
        "number": 3,
        "version": env!("CARGO_PKG_VERSION"),
        "startedAt": "2026-05-15T08:00:00.000Z",
        "lastSeenAt": "2026-05-15T08:21:00.000Z",
        "isRunning": true,
    });
    Operation::new(NODES, "listNodes", "List nodes")
        .describe(
            "The processes of the server, by their numbers, on one page: those that run, and those that went silent in \
             the last hour without being stopped. On SQLite there is one.",
        )
        .answers(200, "The nodes.", list(reference("Node")), list_example(&[example]))
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let properties = json!({
        "number": described(count(), "Each process that runs has its own. A number is given again after a long time."),
        "version": nullable(described(
            json!({ "type": "string" }),
            "The version that it runs; null for versions that do not report it.",
        )),
        "startedAt": nullable(timestamp("When it started; null for versions that do not report it.")),
        "lastSeenAt": timestamp("When it last reported to the store. It does so every two seconds."),
        "isRunning": described(boolean(), "False when it has not reported for 10 seconds."),
    });
    vec![("Node", described(object(properties, &[]), "A process of the server."))]
}
