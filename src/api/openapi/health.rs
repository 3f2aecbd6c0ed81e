//! What the document says of `/health`.

use serde_json::json;

use crate::domain::event_type::Catalogue;

use super::info::HEALTH;
use super::operation::Operation;
use super::schema::{Schemas, object, one_of, reference};

pub fn show(_: &Catalogue) -> Operation {
    let example = |status: &str| json!({ "status": status, "version": env!("CARGO_PKG_VERSION") });
    Operation::new(HEALTH, "getHealth", "Health of the server")
        .describe("For load balancers. Needs no key.")
        .public()
        .answers(200, "The server works.", reference("Health"), example("ok"))
        .answers(
            503,
            "The server does not work as it should; its log says why.",
            reference("Health"),
            example("degraded"),
        )
}

pub fn schemas(_: &Catalogue) -> Schemas {
    let version = json!({ "type": "string", "description": "The version of the server." });
    vec![("Health", object(json!({ "status": one_of(&["ok", "degraded"]), "version": version }), &[]))]
}
