//! The operations and schemas of `/workspaces`.

use serde_json::{Value, json};

use postrider_domain::access::Scope;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;

use super::info::WORKSPACES;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, closed_object, described, growing, list, list_example, name, object, reference,
    single, single_example,
};

pub fn own(_: &Catalogue) -> Operation {
    let example = json!({
        "workspace": example(),
        "principal": { "type": "api_key", "id": "key_a1b2c3d4e5f6g7h8", "scopes": [Scope::WebhooksManage] },
    });
    Operation::new(WORKSPACES, "getOwnWorkspace", "Who am I")
        .describe("The workspace of the key, and the key itself. Any key may call it. Not wrapped in `data`.")
        .answers(200, "The workspace and the key.", reference("OwnWorkspace"), example)
}

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(WORKSPACES, "listWorkspaces", "List workspaces").paged().answers(
        200,
        "A page of all workspaces, newest first.",
        list(reference("Workspace")),
        list_example(&[example()]),
    )
}

pub fn create(_: &Catalogue) -> Operation {
    Operation::new(WORKSPACES, "createWorkspace", "Create workspace")
        .idempotent()
        .body("CreateWorkspace", json!({ "name": "Acme" }))
        .answers(200, "The new workspace.", single(reference("Workspace")), single_example(example()))
}

pub fn show(_: &Catalogue) -> Operation {
    Operation::new(WORKSPACES, "getWorkspace", "Get workspace").answers(
        200,
        "The workspace.",
        single(reference("Workspace")),
        single_example(example()),
    )
}

pub fn rename(_: &Catalogue) -> Operation {
    Operation::new(WORKSPACES, "updateWorkspace", "Update workspace")
        .describe("Changes the given fields and keeps the rest.")
        .idempotent()
        .body("UpdateWorkspace", json!({ "name": "Acme" }))
        .answers(200, "The changed workspace.", single(reference("Workspace")), single_example(example()))
}

pub fn delete(_: &Catalogue) -> Operation {
    Operation::new(WORKSPACES, "deleteWorkspace", "Delete workspace")
        .describe("Its keys stop working and its endpoints get no more events. A key cannot delete its own workspace.")
        .idempotent()
        .answers_without_body(204, "The workspace is deleted.")
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let name = || described(name(limits::WORKSPACE_NAME_CHARS), "Unique among the workspaces of the server.");
    let view =
        json!({ "id": reference("WorkspaceId"), "name": { "type": "string" }, "createdAt": reference("Timestamp") });
    let principal = json!({
        "type": growing(&["api_key"]), "id": reference("ApiKeyId"), "scopes": array(reference("ShownScope")),
    });
    let own = json!({ "workspace": reference("Workspace"), "principal": reference("Principal") });
    vec![
        ("CreateWorkspace", closed_object(json!({ "name": name() }), &[])),
        ("UpdateWorkspace", closed_object(json!({ "name": name() }), &["name"])),
        ("Workspace", described(object(view, &[]), "One product, or one customer with its own keys and limits.")),
        ("Principal", described(object(principal, &[]), "The key that calls.")),
        ("OwnWorkspace", object(own, &[])),
    ]
}

fn example() -> Value {
    json!({ "id": "org_a1b2c3d4e5f6g7h8", "name": "Acme", "createdAt": INSTANT_EXAMPLE })
}
