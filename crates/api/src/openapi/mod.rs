//! The OpenAPI 3.1 document, built from the same routes as the router, so that the two cannot differ.
//!
//! The builder works on `serde_json` values instead of derived schemas (`utoipa` was considered), for three reasons:
//!
//! - Event names, their schemas and the brand in headers come from a catalogue that is read at start.
//! - Request bodies are parsed by hand for better error messages, so there is no type to derive a schema from.
//! - The API itself renders the examples of errors.
//!
//! The file of a noun states what its routes accept and answer. `path` adds what follows from that. `header`,
//! `parameter`, `schema` and `error` hold shared parts. `webhook` describes what receivers get. The tests in
//! `tests/it/api/openapi.rs` compare the document with the running server; `.ci/contract` compares the server with the
//! document.

use serde_json::{Map, Value, json};

use postrider_domain::event_type::Catalogue;

use crate::app::errors_page;
use crate::route::{BASE, Route};

pub mod api_key;
pub mod audit;
pub mod delivery;
pub mod endpoint;
mod endpoint_options;
pub mod erasure;
mod error;
pub mod event;
pub mod event_type;
mod header;
mod info;
pub mod listener;
pub mod node;
pub mod operation;
mod parameter;
pub mod parked_message;
mod path;
pub mod portal_session;
pub mod readiness;
pub mod replay;
mod schema;
pub mod source;
pub mod stats;
mod webhook;
pub mod workspace;

use schema::Schemas;

/// The server in examples, where its own address is not known.
const SOMEWHERE: &str = "https://api.example.com";

/// The document of a catalogue. Without a public URL, its server URL is relative to the document.
pub fn document(catalogue: &Catalogue, routes: &[Route], public_url: Option<&str>) -> Value {
    let errors_page = errors_page(public_url.unwrap_or(SOMEWHERE));
    json!({
        "openapi": "3.1.0",
        "info": info::info(&catalogue.brand),
        "servers": [{ "url": format!("{}{BASE}", public_url.unwrap_or_default()) }],
        "security": [{ "apiKey": [] }],
        "tags": info::tags(routes),
        "paths": paths(catalogue, routes),
        "webhooks": webhook::webhooks(catalogue),
        "components": {
            "securitySchemes": info::security_schemes(&catalogue.brand),
            "parameters": parameters(catalogue, routes),
            "headers": header::headers(),
            "responses": error_responses(catalogue, routes, &errors_page),
            "schemas": schemas(catalogue, routes),
        },
        "x-error-codes": error::table(&errors_page),
    })
}

fn paths(catalogue: &Catalogue, routes: &[Route]) -> Value {
    let mut paths = Map::new();
    for route in routes {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        item[route.method.as_str().to_ascii_lowercase()] = path::operation(route, &catalogue.brand);
    }
    Value::Object(paths)
}

fn parameters(catalogue: &Catalogue, routes: &[Route]) -> Value {
    let mut parameters = parameter::parameters(&catalogue.brand, routes);
    parameters.extend(webhook::parameters(&catalogue.brand));
    Value::Object(parameters)
}

fn error_responses(catalogue: &Catalogue, routes: &[Route], errors_page: &str) -> Value {
    let codes: Vec<_> = routes.iter().map(path::codes).collect();
    let sets = codes.iter().flat_map(|codes| codes.chunk_by(|a, b| a.status() == b.status()));
    error::responses(sets, &catalogue.brand, errors_page)
}

fn schemas(catalogue: &Catalogue, routes: &[Route]) -> Value {
    let nouns: [fn(&Catalogue) -> Schemas; 17] = [
        endpoint::schemas,
        listener::schemas,
        event::schemas,
        event_type::schemas,
        delivery::schemas,
        replay::schemas,
        erasure::schemas,
        source::schemas,
        parked_message::schemas,
        stats::schemas,
        workspace::schemas,
        node::schemas,
        api_key::schemas,
        portal_session::schemas,
        audit::schemas,
        readiness::schemas,
        schema::schemas,
    ];
    let own = nouns.iter().flat_map(|schemas| schemas(catalogue)).map(|(name, schema)| (name.to_owned(), schema));
    let bodies = routes.iter().flat_map(|route| &route.operation.answers).filter_map(|answer| answer.body.as_ref());
    let envelopes = schema::envelopes(bodies.map(|(schema, _)| schema));
    Value::Object(own.chain(envelopes).chain(webhook::schemas(catalogue)).chain(error::schemas()).collect())
}
