//! The operations and schemas of `/portal-sessions`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::permission::Capability;
use postrider_domain::portal::Theme;

use super::info::PORTAL;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, described, list, list_example, nullable, object, one_of, reference, single,
    single_example, timestamp,
};

const ID_EXAMPLE: &str = "pts_a1b2c3d4e5f6g7h8";
const PROJECT_EXAMPLE: &str = "proj_a1b2c3d4e5f6g7h8";

pub fn create(_: &Catalogue) -> Operation {
    let url = format!("https://hooks.example.com/portal/{ID_EXAMPLE}/open?code=6kq1x0v9");
    Operation::new(PORTAL, "createPortalSession", "Create portal session")
        .describe(
            "Makes a link by which a customer manages the endpoints of one project. Show it in a frame, or lead the \
             customer to it. It can be opened for 5 minutes, up to 5 times. The session ends with the key that made it. \
             The pages behind the link are not part of this version yet: it answers 404.",
        )
        .idempotent()
        .body("CreatePortalSession", json!({ "projectId": PROJECT_EXAMPLE, "expiresIn": 3600 }))
        .answers(
            200,
            "Session created. Response carries its link.",
            single(reference("PortalSessionLink")),
            single_example(json!({ "id": ID_EXAMPLE, "url": url, "expiresAt": INSTANT_EXAMPLE })),
        )
        .fails(&[ErrorCode::Unprocessable, ErrorCode::Conflict])
}

pub fn index(_: &Catalogue) -> Operation {
    Operation::new(PORTAL, "listPortalSessions", "List portal sessions")
        .query("projectId", reference("ProjectId"), "Only sessions of this project.")
        .paged()
        .answers(
            200,
            "A page of sessions, newest first. Ended ones stay for a day.",
            list(reference("PortalSession")),
            list_example(&[example()]),
        )
}

pub fn end(_: &Catalogue) -> Operation {
    Operation::new(PORTAL, "endPortalSession", "End portal session")
        .describe("The next request of the customer shows that the session has ended.")
        .idempotent()
        .answers_without_body(204, "The session has ended.")
}

pub fn end_all(_: &Catalogue) -> Operation {
    Operation::new(PORTAL, "endPortalSessions", "End all portal sessions of a project")
        .query("projectId", reference("ProjectId"), "Required: the project whose sessions end.")
        .idempotent()
        .answers_without_body(204, "The project has no live session.")
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let (min, max) = (limits::PORTAL_SESSION_MIN.as_secs(), limits::PORTAL_SESSION_MAX.as_secs());
    let create = json!({
        "projectId": reference("ProjectId"),
        "expiresIn": {
            "type": "integer", "minimum": min, "maximum": max, "default": limits::PORTAL_SESSION_DEFAULT.as_secs(),
            "description": "Seconds until the session ends. It never outlives the key.",
        },
        "readOnly": {
            "type": "boolean",
            "description": "true: endpoints:read, deliveries:read and payloads:read. Not together with capabilities.",
        },
        "capabilities": nullable(described(
            array(capability()),
            "What the customer may do. Writing implies reading. Default: everything.",
        )),
        "eventTypes": nullable(described(
            array(reference("KnownEventName")),
            "The only event types that exist for the customer. Default: all.",
        )),
        "locale": nullable(json!({ "type": "string", "description": "en or de, also with a region. Default: as the browser." })),
        "theme": nullable(described(one_of(&Theme::ALL.map(Theme::as_str)), "Default: auto.")),
        "next": nullable(json!({
            "type": "string", "maxLength": limits::PORTAL_PATH_CHARS,
            "description": "The page that the link leads to, as a path inside the portal: /endpoints/new.",
        })),
        "returnUrl": nullable(json!({
            "type": "string", "format": "uri", "maxLength": limits::ENDPOINT_URL_CHARS,
            "description": "Where the customer goes when the session has ended. https.",
        })),
        "frameAncestors": nullable(described(
            array(json!({ "type": "string" })),
            "The origins that may show the session in a frame, a subset of the operator's. Default: all of them. Empty: none.",
        )),
    });
    let optional = [
        "expiresIn",
        "readOnly",
        "capabilities",
        "eventTypes",
        "locale",
        "theme",
        "next",
        "returnUrl",
        "frameAncestors",
    ];
    let link = json!({
        "id": reference("PortalSessionId"),
        "url": { "type": "string", "format": "uri", "description": "The link. It is shown only in this answer." },
        "expiresAt": timestamp("When the session ends."),
    });
    vec![
        ("CreatePortalSession", object(create, &optional)),
        ("PortalSessionLink", described(object(link, &[]), "A portal session with its link.")),
        ("PortalSession", described(object(view(), &[]), "A portal session without its link.")),
    ]
}

fn capability() -> Value {
    one_of(&Capability::ALL.map(Capability::as_str))
}

fn view() -> Value {
    json!({
        "id": reference("PortalSessionId"),
        "projectId": reference("ProjectId"),
        "mode": reference("Mode"),
        "capabilities": array(capability()),
        "eventTypes": nullable(array(reference("KnownEventName"))),
        "locale": { "type": ["string", "null"] },
        "theme": one_of(&Theme::ALL.map(Theme::as_str)),
        "next": { "type": ["string", "null"] },
        "returnUrl": { "type": ["string", "null"] },
        "frameAncestors": array(json!({ "type": "string" })),
        "createdBy": {
            "oneOf": [
                object(json!({ "type": { "const": "api_key" }, "id": reference("ApiKeyId") }), &[]),
                object(json!({ "type": { "const": "session" }, "id": reference("SessionId") }), &[]),
            ],
            "description": "The key that made it, or the sign-in session of the dashboard.",
        },
        "createdAt": reference("Timestamp"),
        "expiresAt": timestamp("When the session ends, unless it is ended before."),
        "endedAt": nullable(timestamp("When somebody ended it before it expired.")),
    })
}

fn example() -> Value {
    json!({
        "id": ID_EXAMPLE,
        "projectId": PROJECT_EXAMPLE,
        "mode": "live",
        "capabilities": Capability::ALL.map(Capability::as_str),
        "eventTypes": null,
        "locale": null,
        "theme": "auto",
        "next": null,
        "returnUrl": "https://app.example.com/settings",
        "frameAncestors": ["https://app.example.com"],
        "createdBy": { "type": "api_key", "id": "key_h8g7f6e5d4c3b2a1" },
        "createdAt": INSTANT_EXAMPLE,
        "expiresAt": INSTANT_EXAMPLE,
        "endedAt": null,
    })
}
