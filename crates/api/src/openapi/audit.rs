//! The operations and schemas of `/audit-log`.

use serde_json::{Value, json};

use postrider_domain::audit::{AuditAction, KeyRefusal};
use postrider_domain::event_type::Catalogue;

use super::info::AUDIT;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, described, growing, instant, list, nullable, object, one_of, page_example,
    reference, sought_text, timed_example,
};

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(AUDIT, "listAuditLog", "List audit log")
        .describe(
            "Every write in the workspace except publishes, which have their own log, and the requests that were \
             refused for a key of the workspace. Refused requests that are alike share an entry for up to a minute. \
             A test key gets the entries of test keys only.",
        )
        .query("action", reference("AuditAction"), "Only entries of this kind.")
        .query("resourceId", sought_text(), "Only entries of the resource with this id.")
        .query("requestId", reference("RequestId"), "Only entries of this request.")
        .query("since", instant(), "Only entries made at this instant or later.")
        .query("until", instant(), "Only entries made before this instant.")
        .paged()
        .answers(200, "A page of entries, newest first.", list(reference("AuditEntry")), page_example(&[example()]))
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let actor = json!({
        "type": described(
            growing(&["api_key", "session", "portal_session", "source", "command_line", "unknown"]),
            "`session`: a sign-in session of the dashboard. `portal_session`: a customer on the portal. `source`: a \
             source of events. `command_line`: \
             an operator at the machine. `unknown`: a refused caller.",
        ),
        "id": { "type": "string", "description": "The id of the key or session. Absent for the other kinds." },
    });
    let any = |description: &str| json!({ "description": description });
    let change = json!({
        "field": { "type": "string", "description": "The name of the field; `headers.X-Name` for a header." },
        "old": any("The value before the write; null if the field had none."),
        "new": any("The value after the write; null if the field has none."),
    });
    let reasons = growing(&KeyRefusal::ALL.map(KeyRefusal::as_str));
    let refusal = json!({
        "reason": described(reasons, "The error code of the answers."),
        "route": nullable(json!({ "type": "string", "description": "Method and path pattern of the requests; null for several." })),
        "count": { "type": "integer", "minimum": 1, "description": "How many requests share this entry." },
    });
    let entry = json!({
        "id": reference("AuditId"),
        "action": described(growing(&AuditAction::ALL.map(AuditAction::as_str)), "The kind of write, or of refusal."),
        "resourceId": { "type": "string", "description": "The id of the resource that was written, or of the key or session that was refused." },
        "actor": reference("Actor"),
        "mode": reference("Mode"),
        "requestId": nullable(described(reference("RequestId"), "The request; null for the command line.")),
        "address": nullable(json!({
            "type": "string",
            "description": "The IP address of the caller; null for the command line, and in entries of older servers.",
        })),
        "changes": array(reference("AuditChange")),
        "refusal": nullable(reference("AuditRefusal")),
        "createdAt": reference("Timestamp"),
    });
    vec![
        ("Actor", described(object(actor, &["id"]), "Who did something. Later versions may add kinds.")),
        (
            "AuditAction",
            described(one_of(&AuditAction::ALL.map(AuditAction::as_str)), "The kind of write, or of refusal."),
        ),
        (
            "AuditChange",
            described(
                object(change, &[]),
                "A field that a write changed. A secret, the value of a header \
            and a certificate are `[redacted]`. A value of more than 4 KB is a note of its length.",
            ),
        ),
        (
            "AuditRefusal",
            described(
                object(refusal, &[]),
                "The refused requests that an entry stands for; null for a \
            write.",
            ),
        ),
        (
            "AuditEntry",
            described(
                object(entry, &[]),
                "One write: who, what, when, from where and in which request. Or refused requests.",
            ),
        ),
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
        "address": "203.0.113.7",
        "changes": [{ "field": "name", "old": null, "new": "Orders" }],
        "refusal": null,
        "createdAt": INSTANT_EXAMPLE,
    })
}
