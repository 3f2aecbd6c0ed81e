//! The API from outside: over HTTP, against the whole server.

mod access;
mod api_key;
mod audit;
mod delivery;
mod endpoint;
mod error;
mod event;
mod event_batch;
mod event_list;
mod event_type;
mod health;
mod idempotency;
mod rate_limit;
mod version;
mod workspace;

use serde_json::{Value, json};

use crate::support::app::PUBLIC_HOST;

const ENDPOINTS: &str = "/v1/webhook-endpoints";
const EVENTS: &str = "/v1/events";
const DELIVERIES: &str = "/v1/webhook-deliveries";
const WORKSPACES: &str = "/v1/workspaces";
const API_KEYS: &str = "/v1/api-keys";
const AUDIT: &str = "/v1/audit-log";

/// The body of a request that makes an endpoint which nothing is sent to.
fn an_endpoint() -> Value {
    json!({"name": "Production CRM", "url": format!("https://{PUBLIC_HOST}/scripe"), "events": ["post.created"]})
}

/// The same with one member changed.
fn an_endpoint_with(member: &str, value: Value) -> Value {
    let mut body = an_endpoint();
    body[member] = value;
    body
}

fn without(mut body: Value, member: &str) -> Value {
    body.as_object_mut().expect("an object").remove(member);
    body
}

fn an_event() -> Value {
    json!({"type": "post.created", "data": {"id": "post_1"}})
}

/// A body of exactly this many bytes, with a string for ballast.
fn event_of_bytes(bytes: usize) -> String {
    let frame = "{\"type\":\"post.created\",\"data\":{\"ballast\":\"\"}}";
    frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
}

/// What the error says of each parameter at fault.
fn faults(error: &Value) -> &Value {
    &error["details"]["parameters"]
}
