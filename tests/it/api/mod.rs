//! The API over HTTP, against the whole server.

mod access;
mod api_key;
mod audit;
mod bulk_retry;
mod delivery;
mod endpoint;
mod endpoint_change;
mod endpoint_options;
mod erasure;
mod error;
mod event;
mod event_batch;
mod event_list;
mod event_type;
mod filter_replay;
mod foreign_text;
mod health;
mod idempotency;
mod isolation;
mod openapi;
mod other_endpoints;
mod portal_session;
mod rate_limit;
mod refused_key;
mod replay;
mod retry;
mod rotate;
mod skip;
mod stats;
mod stored_bytes;
mod target_rule;
mod test_event;
mod version;
mod workspace;

use http::Method;
use serde_json::{Value, json};

use crate::support::app::PUBLIC_HOST;
use crate::support::caller::{Caller, Reply};

const ENDPOINTS: &str = "/v1/webhook-endpoints";
const EVENTS: &str = "/v1/events";
const DELIVERIES: &str = "/v1/webhook-deliveries";
const WORKSPACES: &str = "/v1/workspaces";
const API_KEYS: &str = "/v1/api-keys";
const AUDIT: &str = "/v1/audit-log";

/// The body of a request that creates an endpoint. Nothing is ever sent to it.
fn an_endpoint() -> Value {
    json!({"name": "Production CRM", "url": format!("https://{PUBLIC_HOST}/scripe"), "events": ["post.created"]})
}

/// The body of [`an_endpoint`] with one member changed.
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

/// The body of an event with exactly this many bytes, padded with a string.
fn event_of_bytes(bytes: usize) -> String {
    let frame = "{\"type\":\"post.created\",\"data\":{\"ballast\":\"\"}}";
    frame.replace("\"\"", &format!("\"{}\"", "x".repeat(bytes - frame.len())))
}

/// The fault of each parameter in an error.
fn faults(error: &Value) -> &Value {
    &error["details"]["parameters"]
}

async fn patch(caller: &Caller, id: &str, body: Value) -> Reply {
    caller.send(Method::PATCH, &format!("{ENDPOINTS}/{id}"), body.to_string()).await
}

/// Sends a write twice with one idempotency key. Checks that it is done once and that both answers are equal byte for
/// byte. Returns the first answer.
async fn assert_done_once(caller: &Caller, method: Method, path: &str, body: Value, status: u16) -> Reply {
    let keyed = caller.keyed("done-once");
    let first = keyed.send(method.clone(), path, body.to_string()).await;
    let again = keyed.send(method.clone(), path, body.to_string()).await;
    for (reply, replayed) in [(&first, "false"), (&again, "true")] {
        let seen = (reply.status, reply.header("idempotent-replayed"));
        assert_eq!(seen, (status, Some(replayed)), "{method} {path}: {:?}", reply.body);
    }
    assert_eq!(first.body, again.body);
    first
}
