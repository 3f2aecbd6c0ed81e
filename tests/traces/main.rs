//! Traces from the publisher to the receiver and to a collector, which decodes what it gets by the messages of OTLP.

mod collector;
mod export;
mod forwarding;

#[expect(dead_code, reason = "these tests use a part of what the integration tests need")]
#[path = "../it/support/mod.rs"]
mod support;

use std::sync::Arc;

use serde_json::{Value, json};

use support::app::{App, Setup, text};
use support::postgres::{TestDatabase, skip};
use support::receiver::Received;

/// What a publisher sends: a trace id, a span id, and that the trace is sampled.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";
const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const NOT_SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// A server that may call the receivers of the tests, on each store.
async fn on_each_store() -> Vec<Setup> {
    let mut setups = vec![App::set_up().await.allow("127.0.0.0/8")];
    match TestDatabase::new().await {
        Some(database) => setups.push(App::set_up().await.allow("127.0.0.0/8").on(&Arc::new(database))),
        None => skip("traces on PostgreSQL"),
    }
    setups
}

/// Publishes an event with these headers. Returns its id.
async fn publish(app: &App, headers: &[(&str, &str)]) -> String {
    let caller = headers.iter().fold(app.caller().clone(), |caller, (name, value)| caller.with(name, value));
    text(&caller.post("/v1/events", json!({"type": "post.created", "data": {}})).await.data(202), "id")
}

/// The trace id, the span id and the flags of the `traceparent` that a receiver got.
fn parts(request: &Received) -> (String, String, String) {
    let header = request.header("traceparent").unwrap_or_else(|| panic!("no traceparent in {:?}", request.headers));
    let parts: Vec<&str> = header.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { panic!("{header}") };
    assert_eq!(version, "00", "{header}");
    (trace.to_owned(), span.to_owned(), flags.to_owned())
}

/// The header of this name among those that the log shows of an attempt.
fn logged(attempt: &Value, name: &str) -> Option<String> {
    let headers = attempt["requestHeaders"].as_array().expect("a list of headers");
    headers.iter().find(|header| header["name"] == name).map(|header| text(header, "value"))
}
