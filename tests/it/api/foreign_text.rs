//! Text that one store cannot hold, or that steers a display: both stores answer alike, whatever the field.
//!
//! The fields, filters and path parts are read from the OpenAPI document, so a new one is covered by itself.

use std::sync::Arc;

use http::Method;
use postrider_domain::access::Scope;
use postrider_domain::rate_limit::RateLimits;
use serde_json::{Value, json};

use super::{API_KEYS, ENDPOINTS, EVENTS, WORKSPACES, an_endpoint};
use crate::support::app::{App, text};
use crate::support::caller::{Caller, Reply};
use crate::support::postgres::TestDatabase;

/// Stands for the text under test in a body. The text is put in as JSON source, because no `Value` holds a surrogate.
const PLACE: &str = "@text@";

/// Texts as JSON source.
fn texts() -> [String; 5] {
    [r"\u0000", r"a\ud800", r"\u202e", r"\u2028", &"x".repeat(1024 * 1024)].map(str::to_owned)
}

/// Parts of a URL.
const IN_URL: [&str; 4] = ["%00", "a%E2%80%AE", "%C2%85", "%ED%A0%80"];

async fn open(database: Option<&Arc<TestDatabase>>) -> (App, Caller) {
    let set_up = App::set_up().await.change(|settings| {
        settings.rate_limits = RateLimits { management: None, publishing: None };
    });
    let app = match database {
        Some(database) => set_up.on(database).start().await,
        None => set_up.start().await,
    };
    let caller = app.caller_of("Operator", &Scope::ALL).await;
    (app, caller)
}

/// The status and the code of an answer.
fn seen(reply: &Reply) -> (u16, String) {
    let code = if reply.status >= 400 { text(&reply.json()["error"], "code") } else { String::new() };
    (reply.status, code)
}

fn resolve<'d>(document: &'d Value, schema: &'d Value) -> &'d Value {
    schema["$ref"].as_str().map_or(schema, |reference| document.pointer(&reference[1..]).expect("a target"))
}

fn admits(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|it| it == kind))
}

/// Every body that has [`PLACE`] in one place where the schema takes a text, beside the path to that place. `wrap` puts
/// a value of this schema into the whole body.
fn bodies(
    document: &Value,
    schema: &Value,
    path: &str,
    wrap: &dyn Fn(Value) -> Value,
    found: &mut Vec<(String, Value)>,
) {
    let schema = resolve(document, schema);
    for choice in ["anyOf", "oneOf", "allOf"].iter().filter_map(|word| schema[word].as_array()).flatten() {
        bodies(document, choice, path, wrap, found);
    }
    if admits(schema, "string") || schema["enum"].is_array() {
        found.push((path.to_owned(), wrap(PLACE.into())));
    }
    if admits(schema, "array") {
        bodies(document, &schema["items"], &format!("{path}[]"), &|value| wrap(json!([value])), found);
    }
    if !admits(schema, "object") {
        return;
    }
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let inside = |value: Value| {
            let mut whole = json!({});
            whole[name] = value;
            wrap(whole)
        };
        bodies(document, member, &format!("{path}.{name}"), &inside, found);
    }
    if schema["additionalProperties"] != false {
        found.push((format!("{path}.*"), wrap(json!({ "a": PLACE }))));
        found.push((format!("{path}.{{name}}"), wrap(json!({ PLACE: "a" }))));
    }
}

/// `base` with the members of `change`, at any depth.
fn merged(mut base: Value, change: Value) -> Value {
    match (&mut base, change) {
        (Value::Object(members), Value::Object(changes)) => {
            for (name, value) in changes {
                let old = members.remove(&name).unwrap_or_default();
                members.insert(name, merged(old, value));
            }
            base
        }
        (Value::Array(items), Value::Array(changes)) if !items.is_empty() && changes.len() == 1 => {
            let change = changes.into_iter().next().unwrap_or_default();
            items[0] = merged(items[0].take(), change);
            base
        }
        (_, change) => change,
    }
}

/// A body that the operation takes.
fn example(content: &Value) -> Value {
    match &content["example"] {
        Value::Null => {
            content["examples"].as_object().and_then(|all| all.values().next()).expect("an example")["value"].clone()
        }
        example => example.clone(),
    }
}

/// The example without `externalId`, with which a second request would publish nothing.
fn without_external_id(mut body: Value) -> Value {
    match &mut body {
        Value::Object(members) => {
            members.remove("externalId");
            members.values_mut().for_each(|member| *member = without_external_id(member.take()));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| *item = without_external_id(item.take())),
        _ => {}
    }
    body
}

/// One request of the walk: what it puts where, and the request itself, with the ids of the path still open.
struct Probe {
    what: String,
    method: Method,
    path: String,
    body: String,
    /// Whether the text is part of `data`, which takes any text that JSON can write.
    is_data: bool,
}

fn probes(document: &Value) -> Vec<Probe> {
    let mut probes = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("an item") {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).expect("a method");
            let mut add = |what: String, path: String, body: String, is_data| {
                probes.push(Probe { what: format!("{method} {what}"), method: method.clone(), path, body, is_data });
            };
            let content = &operation["requestBody"]["content"]["application/json"];
            let mut places = Vec::new();
            bodies(document, &content["schema"], "", &|value| value, &mut places);
            for (place, change) in places {
                let body = merged(without_external_id(example(content)), change).to_string();
                let is_data = place == ".data.*" || place.ends_with(".data.{name}") || place.ends_with("].data.*");
                for text in texts() {
                    let what = format!("{path} {place} {}", &text[..text.len().min(8)]);
                    add(what, path.clone(), body.replace(PLACE, &text), is_data);
                }
            }
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let parameter = resolve(document, parameter);
                let name = parameter["name"].as_str().expect("a name");
                for part in IN_URL {
                    let asked = match parameter["in"].as_str() {
                        Some("query") => format!("{path}?{name}={part}"),
                        Some("path") => path.replace(&format!("{{{name}}}"), part),
                        _ => continue,
                    };
                    add(asked.clone(), asked, String::new(), false);
                }
            }
        }
    }
    probes
}

/// Makes one resource of each kind, and returns what the parts of a path are called with.
async fn resources(caller: &Caller) -> Vec<(&'static str, String)> {
    let endpoint = text(&caller.post(ENDPOINTS, an_endpoint()).await.data(200), "id");
    let listener = json!({"name": "A consumer", "events": ["job.failed"]});
    let listener = text(&caller.post("/v1/listeners", listener).await.data(200), "id");
    let workspace = text(&caller.post(WORKSPACES, json!({"name": "Other"})).await.data(200), "id");
    let api_key = text(&caller.post(API_KEYS, json!({})).await.data(200), "id");
    let event = text(&caller.post(EVENTS, json!({"type": "job.failed", "data": {}})).await.data(202), "id");
    vec![
        ("{endpointId}", endpoint),
        ("{listenerId}", listener),
        ("{workspaceId}", workspace),
        ("{apiKeyId}", api_key),
        ("{eventId}", event),
    ]
}

async fn ask(caller: &Caller, ids: &[(&str, String)], probe: &Probe) -> (u16, String) {
    let path = ids.iter().fold(format!("/v1{}", probe.path), |path, (part, id)| path.replace(part, id));
    let path =
        path.replace("{deliveryId}", "dlv_0zzzzzzzzzzzzzzzzzzz").replace("{replayId}", "rpl_0zzzzzzzzzzzzzzzzzzz");
    let path = path.replace("{erasureId}", "era_0zzzzzzzzzzzzzzzzzzz");
    seen(&caller.send(probe.method.clone(), &path, probe.body.clone()).await)
}

#[tokio::test]
async fn no_text_is_a_fault_of_the_server_on_either_store() {
    let document = postrider::server::openapi_of_built_in().expect("a catalogue");
    let probes = probes(&document);
    assert!(probes.len() > 200, "{}", probes.len());
    for what in ["POST /webhook-endpoints .name", "POST /events .data.*", "POST /events .data.{name}"] {
        assert!(probes.iter().any(|probe| probe.what.starts_with(what)), "{what} is not in the walk");
    }
    let database = TestDatabase::new().await.map(Arc::new);
    let mut nodes = vec![open(None).await];
    if let Some(database) = &database {
        nodes.push(open(Some(database)).await);
    }
    let mut answers: Vec<Vec<(u16, String)>> = Vec::new();
    for (_app, caller) in &nodes {
        let ids = resources(caller).await;
        let mut seen = Vec::new();
        for probe in &probes {
            seen.push(ask(caller, &ids, probe).await);
        }
        answers.push(seen);
    }
    for (at, probe) in probes.iter().enumerate() {
        let (status, code) = &answers[0][at];
        let is_too_large = probe.body.len() > 1024 * 1024;
        let expected: &[u16] = match probe.is_data {
            _ if is_too_large => &[400, 413],
            true => &[200, 202],
            // Not UTF-8, so U+FFFD takes its place, which both stores can look for.
            false if probe.path.contains("%ED") => &[200, 400, 404],
            false => &[400],
        };
        assert!(expected.contains(status), "{}: {status} {code}", probe.what);
        for other in &answers {
            assert_eq!(&other[at], &answers[0][at], "{}", probe.what);
        }
    }
}

/// `data` comes out as the bytes that came in: from the API, and to the receiver.
#[tokio::test]
async fn data_holds_any_text_that_json_can_write() {
    use crate::support::receiver::Receiver;
    let data = r#"{"a":"\u0000\ud800 x","\udc00":["\udfff\ud83d\ude00","@"], "b" : 1.0}"#.replace('@', "\u{202e}");
    let database = TestDatabase::new().await.map(Arc::new);
    for database in [None, database.as_ref()].into_iter().take(1 + usize::from(database.is_some())) {
        let set_up = App::set_up().await.allow("127.0.0.0/8");
        let app = match database {
            Some(database) => set_up.on(database).start().await,
            None => set_up.start().await,
        };
        let receiver = Receiver::start().await;
        app.endpoint_to(&receiver, &["job.failed"]).await;
        let body = format!(r#"{{"type":"job.failed","data":{data},"externalId":"once"}}"#);
        let event = text(&app.caller().post_text(EVENTS, &body).await.data(202), "id");
        app.caller().post_text(EVENTS, &body).await.data(200);
        let received = receiver.wait_for(1).await;
        let sent = String::from_utf8(received[0].body.to_vec()).unwrap();
        assert!(sent.ends_with(&format!(r#""data":{data}}}"#)), "{sent}");
        let shown = app.get(&format!("{EVENTS}/{event}")).await;
        assert!(shown.text().contains(&format!(r#""data":{data}"#)), "{}", shown.text());
        assert_eq!(app.get(EVENTS).await.status, 200);
    }
}
