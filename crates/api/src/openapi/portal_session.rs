//! The operations and schemas of `/portal-sessions`.

use serde_json::{Value, json};

use crate::error_code::ErrorCode;
use postrider_domain::event_type::Catalogue;
use postrider_domain::limits;
use postrider_domain::permission::Capability;
use postrider_domain::portal::{Locale, PortalPath, Theme};

use super::info::PORTAL;
use super::operation::Operation;
use super::schema::{
    INSTANT_EXAMPLE, Schemas, array, closed_object, described, growing, known_event, list, list_example, nullable,
    object, one_of, reference, single, single_example, timestamp,
};

const ID_EXAMPLE: &str = "pts_a1b2c3d4e5f6g7h8";
const PROJECT_EXAMPLE: &str = "proj_a1b2c3d4e5f6g7h8";

pub fn create(_: &Catalogue) -> Operation {
    let url = format!("https://hooks.example.com/portal/{ID_EXAMPLE}/open?code=6kq1x0v9");
    Operation::new(PORTAL, "createPortalSession", "Create portal session")
        .describe(
            "Makes a link by which a customer manages the endpoints of one project. Show it in a frame, or lead the \
             customer to it. It can be opened for 5 minutes, up to 5 times. The session ends with the key that made it.",
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
        .query_required("projectId", reference("ProjectId"), "The project whose sessions end.")
        .idempotent()
        .answers_without_body(204, "The project has no live session.")
}

pub fn schemas(catalogue: &Catalogue) -> Schemas {
    let (min, max) = (limits::PORTAL_SESSION_MIN.as_secs(), limits::PORTAL_SESSION_MAX.as_secs());
    let mut origins = array(json!({ "type": "string", "format": "origin" }));
    origins["maxItems"] = limits::PORTAL_FRAME_ANCESTORS.into();
    let default = limits::PORTAL_SESSION_DEFAULT.as_secs();
    let create = json!({
        "projectId": reference("ProjectId"),
        "expiresIn": {
            "type": "integer", "minimum": min, "maximum": max,
            "description": format!("Seconds until the session ends. It never outlives the key. Default: {default}."),
        },
        "readOnly": {
            "type": "boolean",
            "description": "true: endpoints:read, deliveries:read and payloads:read. Not together with capabilities.",
        },
        "capabilities": nullable(described(
            at_least_one(one_of(&Capability::ALL.map(Capability::as_str))),
            "What the customer may do. Writing implies reading. Default: everything.",
        )),
        "eventTypes": nullable(described(
            at_least_one(known_event(catalogue)),
            "The only event types that exist for the customer. Default: all.",
        )),
        "locale": nullable(json!({
            "type": "string", "pattern": Locale::PATTERN,
            "description": "en or de, also with a region. Default: as the browser.",
        })),
        "theme": nullable(described(reference("PortalTheme"), "Default: auto.")),
        "next": nullable(json!({
            "type": "string", "maxLength": limits::PORTAL_PATH_CHARS, "pattern": PortalPath::PATTERN,
            "description": "The page that the link leads to, as a path inside the portal: /endpoints/new.",
        })),
        "returnUrl": nullable(json!({
            "type": "string", "format": "uri", "maxLength": limits::ENDPOINT_URL_CHARS,
            "description": "Where the customer goes when the session has ended. https.",
        })),
        "frameAncestors": nullable(described(
            origins,
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
        ("CreatePortalSession", closed_object(create, &optional)),
        ("PortalTheme", one_of(&Theme::ALL.map(Theme::as_str))),
        ("PortalSessionLink", described(object(link, &[]), "A portal session with its link.")),
        ("PortalSession", described(object(view(), &[]), "A portal session without its link.")),
    ]
}

fn at_least_one(items: Value) -> Value {
    let mut list = array(items);
    list["minItems"] = 1.into();
    list
}

fn view() -> Value {
    json!({
        "id": reference("PortalSessionId"),
        "projectId": reference("ProjectId"),
        "mode": reference("Mode"),
        "capabilities": array(growing(&Capability::ALL.map(Capability::as_str))),
        "eventTypes": nullable(array(reference("ShownEventName"))),
        "locale": { "type": ["string", "null"] },
        "theme": growing(&Theme::ALL.map(Theme::as_str)),
        "next": { "type": ["string", "null"] },
        "returnUrl": { "type": ["string", "null"] },
        "frameAncestors": array(json!({ "type": "string" })),
        "createdBy": described(
            reference("Actor"),
            "The key that made it, or the sign-in session of the dashboard.",
        ),
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
