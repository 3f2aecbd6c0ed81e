//! The operations and schemas of `/api-keys`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::access::{Mode, Scope};
use postrider_domain::event_type::{Brand, Catalogue};
use postrider_domain::limits;

use super::info::API_KEYS;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, closed_object, described, list, list_example, name, nullable, object, reference,
    single, single_example, timestamp,
};

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(API_KEYS, "listApiKeys", "List API keys").paged().answers(
        200,
        "A page of the workspace's keys, newest first, including revoked and expired ones.",
        list(reference("ApiKey")),
        list_example(&[example()]),
    )
}

pub fn create(catalogue: &Catalogue) -> Operation {
    created(
        catalogue,
        Operation::new(API_KEYS, "createApiKey", "Create API key").describe(
            "A key can grant only the scopes that it has itself, and a test key can create only test keys. Without \
                 `scopes` the new key has none.",
        ),
    )
}

pub fn create_in_workspace(catalogue: &Catalogue) -> Operation {
    created(
        catalogue,
        Operation::new(API_KEYS, "createWorkspaceApiKey", "Create API key of a workspace").describe(
            "For operators: creates the first key of a workspace. The same rules apply as for any other key.",
        ),
    )
}

fn created(catalogue: &Catalogue, operation: Operation) -> Operation {
    let body = json!({ "name": "Backend", "scopes": [Scope::EventsWrite], "mode": "live", "expiresAt": "2027-01-01" });
    operation
        .idempotent()
        .body("CreateApiKey", body)
        .answers(
            200,
            "Key created. Response carries the plaintext key.",
            single(reference("ApiKeyWithKey")),
            single_example(with_key_example(&catalogue.brand)),
        )
        .fails(&[ErrorCode::Unprocessable])
}

pub fn show(_: &Catalogue) -> Operation {
    Operation::new(API_KEYS, "getApiKey", "Get API key").answers(
        200,
        "The key, without its plaintext.",
        single(reference("ApiKey")),
        single_example(example()),
    )
}

pub fn revoke(_: &Catalogue) -> Operation {
    Operation::new(API_KEYS, "revokeApiKey", "Revoke API key")
        .describe("The key stops working within 5 seconds, for good. It stays in the list.")
        .idempotent()
        .answers_without_body(204, "The key is revoked.")
}

pub fn schemas(catalogue: &Catalogue) -> Schemas {
    let [live, test] = [Mode::Live, Mode::Test].map(|mode| catalogue.brand.key_prefix(mode));
    let mut with_key = view();
    with_key["key"] = json!({
        "type": "string",
        "pattern": format!("^({live}|{test})"),
        "description": "The key itself. It is shown only in this answer.",
    });
    let create = json!({
        "name": nullable(described(name(limits::API_KEY_NAME_CHARS), "What the key is for.")),
        "scopes": described(array(reference("Scope")), "What the key may do. Default: nothing."),
        "mode": described(reference("Mode"), "Default: the mode of the key that creates it."),
        "expiresAt": {
            "type": ["string", "null"],
            "format": "date",
            "description": "The key stops working at 00:00 UTC of this day, which must be after today and not later \
                            than the expiry of the key that creates it. null (default): as that key.",
        },
    });
    vec![
        ("CreateApiKey", closed_object(create, &["name", "scopes", "mode", "expiresAt"])),
        ("ApiKey", described(object(view(), &[]), "An API key without its plaintext.")),
        ("ApiKeyWithKey", described(object(with_key, &[]), "An API key with its plaintext, which is shown only once.")),
    ]
}

fn view() -> Value {
    json!({
        "id": reference("ApiKeyId"),
        "name": { "type": ["string", "null"] },
        "mode": reference("Mode"),
        "scopes": array(reference("ShownScope")),
        "last4": { "type": "string", "minLength": 4, "maxLength": 4 },
        "createdAt": reference("Timestamp"),
        "expiresAt": {
            "type": ["string", "null"],
            "format": "date",
            "description": "The key stops working at 00:00 UTC of this day.",
        },
        "revokedAt": nullable(timestamp("When it was revoked.")),
        "createdBy": nullable(described(
            reference("Actor"),
            "The key, the session of the dashboard or the command that made it. null for a key of an earlier version \
             whose maker is not known.",
        )),
        "lastUsedAt": nullable(timestamp("When it was last used, at most a minute late.")),
    })
}

fn example() -> Value {
    json!({
        "id": "key_a1b2c3d4e5f6g7h8",
        "name": "Backend",
        "mode": "live",
        "scopes": [Scope::EventsWrite],
        "last4": "7w2q",
        "createdAt": INSTANT_EXAMPLE,
        "expiresAt": "2027-01-01",
        "revokedAt": null,
        "createdBy": { "type": "api_key", "id": "key_h8g7f6e5d4c3b2a1" },
        "lastUsedAt": INSTANT_EXAMPLE,
    })
}

fn with_key_example(brand: &Brand) -> Value {
    let mut example = example();
    example["key"] = format!("{}…7w2q", brand.key_prefix(Mode::Live)).into();
    example
}
