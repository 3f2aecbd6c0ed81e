//! The operations and schemas of `/audit-log`.

use serde_json::{Value, json};

use postrider_domain::audit::AuditAction;
use postrider_domain::event_type::Catalogue;

use super::info::AUDIT;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, described, list, nullable, object, one_of, page_example, reference, timed_example,
};

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(AUDIT, "listAuditLog", "List audit log")
        .describe("Every write in the workspace except publishes, which have their own log.")
        .query("action", reference("AuditAction"), "Only writes of this kind.")
        .query("resourceId", json!({ "type": "string" }), "Only writes to the resource with this id.")
        .paged()
        .answers(200, "A page of writes, newest first.", list(reference("AuditEntry")), page_example(&[example()]))
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let key = object(json!({ "type": { "const": "api_key" }, "id": reference("ApiKeyId") }), &[]);
    let command_line = object(json!({ "type": { "const": "command_line" } }), &[]);
    let entry = json!({
        "id": reference("AuditId"),
        "action": reference("AuditAction"),
        "resourceId": { "type": "string", "description": "The id of the resource that was written." },
        "actor": {
            "oneOf": [key, command_line],
            "description": "Who wrote: an API key, or an operator at the command line.",
        },
        "mode": reference("Mode"),
        "requestId": nullable(described(reference("RequestId"), "The request; null for the command line.")),
        "createdAt": reference("Timestamp"),
    });
    vec![
        ("AuditAction", described(one_of(&AuditAction::ALL.map(AuditAction::as_str)), "The kind of write.")),
        ("AuditEntry", described(object(entry, &[]), "One write: who, what, when, and in which request.")),
    ]
}

fn example() -> Value {
    json!({
        "id": timed_example("aud_"),
        "action": AuditAction::EndpointCreated.as_str(),
        "resourceId": "whe_a1b2c3d4e5f6g7h8",
        "actor": { "type": "api_key", "id": "key_a1b2c3d4e5f6g7h8" },
        "mode": "live",
        "requestId": "req_a1b2c3d4e5f6g7h8",
        "createdAt": INSTANT_EXAMPLE,
    })
}
