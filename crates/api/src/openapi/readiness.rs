//! The operations and schemas of `/health`.

use serde_json::{Value, json};

use postrider_domain::access::Scope;
use postrider_domain::event_type::Catalogue;

use super::info::HEALTH;
use super::operation::Operation;
use super::schema::{Schemas, always, array, described, growing, object, one_of, reference};

const DISK: &str = "The state of the disk, absent while it has room. `tight`: the oldest content goes before its time. \
                    `full`: publishes are refused. `stopped`: no delivery is claimed either.";

pub fn show(_: &Catalogue) -> Operation {
    let example = |status: &str| json!({ "status": status, "version": env!("CARGO_PKG_VERSION") });
    let broken = "The server is not ready. Its log says why.";
    Operation::new(HEALTH, "getHealth", "Health of the server")
        .describe("For load balancers. Needs no key.")
        .answers(200, "The server works.", reference("Health"), example("ok"))
        .answers(503, broken, reference("Health"), example("degraded"))
}

pub fn show_caller(_: &Catalogue) -> Operation {
    let example = json!({
        "status": "ok",
        "version": env!("CARGO_PKG_VERSION"),
        "workspace": { "id": "org_a1b2c3d4e5f6g7h8" },
        "principal": { "id": "key_a1b2c3d4e5f6g7h8", "scopes": [Scope::WebhooksManage] },
    });
    Operation::new(HEALTH, "getHealthAuth", "Health of a key")
        .describe("Whether a key works, and what it may do. Any key may call it.")
        .answers(200, "The key works.", reference("CallerHealth"), example)
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let version = json!({ "type": "string", "description": "The version of the server." });
    let principal = object(json!({ "id": reference("ApiKeyId"), "scopes": array(reference("ShownScope")) }), &[]);
    let restored_copy = "True on a restored copy of a store, absent otherwise. The server answers reads and sends nothing. What \
                         would be sent is refused with `service_unavailable` and `details.reason` `restored_copy`.";
    let health = json!({
        "status": one_of(&["ok", "degraded"]),
        "version": version,
        "disk": described(growing(&["tight", "full", "stopped"]), DISK),
        "restoredCopy": { "type": "boolean", "description": restored_copy },
    });
    let caller: Value = json!({
        "status": always("ok"),
        "version": version,
        "workspace": reference("CallerWorkspace"),
        "principal": reference("CallerKey"),
    });
    vec![
        ("Health", object(health, &["disk", "restoredCopy"])),
        ("CallerWorkspace", object(json!({ "id": reference("WorkspaceId") }), &[])),
        ("CallerKey", principal),
        ("CallerHealth", object(caller, &[])),
    ]
}
