//! Checks the OpenAPI document against the server that it describes.

use std::fs;
use std::path::Path;

use http::Method;
use postrider_domain::access::{Mode, Scope};
use serde_json::{Value, json};

use super::{DELIVERIES, ENDPOINTS, EVENTS, an_endpoint, an_endpoint_with, an_event, event_of_bytes};
use crate::support::app::{App, PUBLIC_HOST, text};
use crate::support::caller::Reply;
use crate::support::tls::TestCa;

/// One operation, with the document that contains its references.
struct Operation<'d> {
    document: &'d Value,
    method: Method,
    path: &'d str,
    operation: &'d Value,
}

fn built_in() -> Value {
    postrider::server::openapi_of_built_in().expect("a catalogue")
}

fn operations(document: &Value) -> impl Iterator<Item = Operation<'_>> {
    document["paths"].as_object().expect("paths").iter().flat_map(move |(path, item)| {
        item.as_object().expect("an item").iter().map(move |(method, operation)| {
            let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).expect("a method");
            Operation { document, method, path, operation }
        })
    })
}

/// The value itself, or the target of its `$ref`.
fn resolve<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or_else(|| panic!("{reference} leads nowhere")),
        None => value,
    }
}

/// The faults of a value by a schema of the document.
fn faults(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    // The schema refers to the components of the document, so both go into one.
    let mut whole = json!({ "components": document["components"], "allOf": [schema] });
    whole["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    let validator = jsonschema::options().should_validate_formats(true).build(&whole).expect("a schema");
    validator.iter_errors(value).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[track_caller]
fn assert_fits(document: &Value, schema: &Value, value: &Value, what: &str) {
    let faults = faults(document, schema, value);
    assert!(faults.is_empty(), "{what}: {faults:#?}\n{value:#}");
}

impl Operation<'_> {
    /// A path of this route with ids of resources that do not exist.
    fn concrete(&self) -> String {
        let ids = [("Endpoint", "whe_"), ("Workspace", "org_"), ("ApiKey", "key_")];
        let segment = |segment: &str| match segment.strip_prefix('{') {
            None => segment.to_owned(),
            Some(name) => match ids.iter().find(|(noun, _)| name.starts_with(&noun.to_ascii_lowercase()[..3])) {
                Some((_, prefix)) => format!("{prefix}zzzzzzzzzzzzzzzz"),
                None => format!(
                    "{}_0zzzzzzzzzzzzzzzzzzz",
                    match &name[..3] {
                        "eve" => "evt",
                        "del" => "dlv",
                        _ => "rpl",
                    }
                ),
            },
        };
        format!("/v1{}", self.path.split('/').map(segment).collect::<Vec<_>>().join("/"))
    }

    fn is_public(&self) -> bool {
        self.operation["security"] == json!([])
    }

    /// Checks that an answer fits the response in the document.
    #[track_caller]
    fn assert_describes(&self, reply: &Reply) {
        let what = format!("{} {} answered {}", self.method, self.path, reply.status);
        let response = &self.operation["responses"][reply.status.to_string()];
        assert!(response.is_object(), "{what}, which is not in the document: {}", reply.text());
        let response = resolve(self.document, response);
        for (name, header) in response["headers"].as_object().expect("headers") {
            let header = resolve(self.document, header);
            let required = header["required"] == true;
            assert!(!required || reply.header(name).is_some(), "{what} without {name}");
        }
        match &response["content"]["application/json"]["schema"] {
            Value::Null => assert!(reply.body.is_empty(), "{what} with a body: {}", reply.text()),
            schema => assert_fits(self.document, schema, &reply.json(), &what),
        }
    }
}

/// The operation of a method and a path template.
fn operation<'d>(document: &'d Value, method: &Method, path: &str) -> Operation<'d> {
    let found = operations(document).find(|operation| operation.method == method && operation.path == path);
    found.unwrap_or_else(|| panic!("{method} {path} is not in the document"))
}

#[test]
fn the_checked_in_document_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let checked_in = fs::read_to_string(path).expect("openapi.json");
    let made = format!("{:#}\n", built_in());
    let differs = checked_in.lines().zip(made.lines()).position(|(old, new)| old != new);
    assert!(
        checked_in == made,
        "openapi.json is out of date, first in line {}. Make it anew: cargo run -- openapi > openapi.json",
        differs.map_or(checked_in.lines().count().min(made.lines().count()) + 1, |line| line + 1)
    );
}

#[test]
fn routes_are_made_only_in_lib_rs() {
    let api = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/api/src");
    for entry in fs::read_dir(api).expect("crates/api/src").map(|entry| entry.expect("an entry").path()) {
        let file = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if entry.is_dir() || file == "lib.rs" {
            continue;
        }
        let code = fs::read_to_string(&entry).expect("a source file");
        assert!(!code.contains(".route("), "{file} makes a route that the document does not know");
    }
}

#[tokio::test]
async fn the_operations_of_the_document_are_exactly_the_routes() {
    let app = App::start().await;
    let document = app.get("/openapi.json").await.json();
    let stranger = app.caller().without("authorization");
    for operation in operations(&document) {
        let reply = stranger.send(operation.method.clone(), &operation.concrete(), "").await;
        if operation.is_public() {
            assert_eq!(reply.status, 200, "{} {}", operation.method, operation.path);
        } else {
            reply.error(401, "invalid_token");
        }
        operation.assert_describes(&reply);
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
            let is_known = operations(&document).any(|other| other.path == operation.path && other.method == method);
            if !is_known {
                stranger.send(method, &operation.concrete(), "").await.error(405, "method_not_allowed");
            }
        }
    }
}

#[tokio::test]
async fn each_operation_names_the_scopes_that_it_requires() {
    let app = App::start().await;
    let document = built_in();
    let nobody = app.caller_with(app.create_key("Acme", Mode::Live, &[], None).await);
    for operation in operations(&document).filter(|operation| !operation.is_public()) {
        let reply = nobody.send(operation.method.clone(), &operation.concrete(), "{}").await;
        let alternatives = operation.operation["security"].as_array().cloned().unwrap_or_default();
        let named: Vec<&Value> = alternatives.iter().map(|alternative| &alternative["apiKey"][0]).collect();
        let what = format!("{} {}: {}", operation.method, operation.path, reply.text());
        if named.is_empty() {
            assert_ne!(reply.status, 403, "{what}");
        } else {
            assert_eq!(reply.status, 403, "{what}");
            assert_eq!(reply.json()["error"]["details"]["required"], json!(named), "{what}");
        }
        operation.assert_describes(&reply);
    }
}

#[test]
fn every_example_fits_its_schema() {
    let document = built_in();
    let mut seen = 0;
    let mut check = |media: &Value, what: &str| {
        for (name, example) in media["examples"].as_object().into_iter().flatten() {
            assert_fits(&document, &media["schema"], &example["value"], &format!("{what} {name}"));
            seen += 1;
        }
    };
    let webhooks = document["webhooks"].as_object().expect("webhooks").values().map(|item| &item["post"]);
    for operation in operations(&document).map(|operation| operation.operation).chain(webhooks) {
        let id = text(operation, "operationId");
        check(&operation["requestBody"]["content"]["application/json"], &id);
        for (status, response) in operation["responses"].as_object().expect("responses") {
            check(&resolve(&document, response)["content"]["application/json"], &format!("{id} {status}"));
        }
    }
    assert!(seen > 250, "only {seen} examples");
    for (name, parameter) in document["components"]["parameters"].as_object().expect("parameters") {
        if !parameter["example"].is_null() {
            assert_fits(&document, &parameter["schema"], &parameter["example"], name);
        }
    }
}

#[test]
fn every_example_inside_a_schema_fits_it() {
    fn walk(document: &Value, value: &Value) {
        if let Some(examples) = value["examples"].as_array() {
            for example in examples {
                assert_fits(document, value, example, "a schema's example");
            }
        }
        match value {
            Value::Object(members) => members.values().for_each(|value| walk(document, value)),
            Value::Array(items) => items.iter().for_each(|value| walk(document, value)),
            _ => {}
        }
    }
    let document = built_in();
    walk(&document, &document["components"]["schemas"]);
}

#[test]
fn every_reference_resolves_and_every_component_is_used() {
    let document = built_in();
    let whole = document.to_string();
    for reference in whole.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap_or_default()) {
        assert!(document.pointer(reference).is_some(), "{reference} leads nowhere");
    }
    for kind in ["parameters", "headers", "responses", "schemas"] {
        for name in document["components"][kind].as_object().expect("components").keys() {
            let reference = format!("\"#/components/{kind}/{name}\"");
            // No operation answers with this header, only a wrong method does.
            let is_outside = name == "Allow";
            assert!(is_outside || whole.contains(&reference), "{reference} is used by nobody");
        }
    }
}

/// Calls `check` with each schema below this one, references followed. A component is visited once.
fn each_schema<'d>(document: &'d Value, value: &'d Value, seen: &mut Vec<&'d str>, check: &mut impl FnMut(&'d Value)) {
    if let Some(reference) = value["$ref"].as_str() {
        if !seen.contains(&reference) {
            seen.push(reference);
            each_schema(document, resolve(document, value), seen, check);
        }
        return;
    }
    check(value);
    let members = ["properties"].iter().filter_map(|name| value[name].as_object()).flat_map(|members| members.values());
    let lists = ["anyOf", "oneOf", "allOf"].iter().filter_map(|name| value[name].as_array()).flatten();
    let one = ["items", "additionalProperties"].iter().map(|name| &value[name]).filter(|schema| schema.is_object());
    members.chain(lists).chain(one).for_each(|schema| each_schema(document, schema, seen, check));
}

#[test]
fn a_generated_client_takes_the_answers_of_a_later_version() {
    // Values that never become more: see docs/versioning.md.
    const CLOSED: [&[&str]; 4] = [
        &["live", "test"],
        &["ok", "degraded"],
        &["minute", "hour", "day"],
        &["pending", "delivered", "failed", "skipped", "cancelled", "simulated"],
    ];
    let document = built_in();
    let mut seen = Vec::new();
    let mut faults = Vec::new();
    for operation in operations(&document) {
        for response in operation.operation["responses"].as_object().expect("responses").values() {
            let schema = &resolve(&document, response)["content"]["application/json"]["schema"];
            each_schema(&document, schema, &mut seen, &mut |schema| {
                let is_closed = schema["properties"].is_object() && schema["additionalProperties"] != true;
                let is_fixed =
                    schema["enum"].is_array() && !CLOSED.iter().any(|values| schema["enum"] == json!(values));
                let is_either = !schema["oneOf"].is_null();
                if is_closed || is_fixed || is_either {
                    faults.push(format!("{} {}: {schema}", operation.method, operation.path));
                }
            });
        }
    }
    assert!(faults.is_empty(), "use object and growing for answers: {faults:#?}");
    let actor = &document["components"]["schemas"]["Actor"];
    assert_fits(&document, actor, &json!({ "type": "robot", "serial": 7 }), "an actor of a later version");
}

#[test]
fn a_generated_client_sends_only_what_the_server_takes() {
    let document = built_in();
    let mut faults = Vec::new();
    for operation in operations(&document) {
        let schema = &operation.operation["requestBody"]["content"]["application/json"]["schema"];
        each_schema(&document, schema, &mut Vec::new(), &mut |schema| {
            let is_open = schema["properties"].is_object() && schema["additionalProperties"] != false;
            let has_default = !schema["default"].is_null();
            let is_growing = !schema["x-extensible-enum"].is_null();
            if is_open || has_default || is_growing {
                faults.push(format!("{} {}: {schema}", operation.method, operation.path));
            }
        });
    }
    assert!(faults.is_empty(), "use closed_object and one_of without a default for requests: {faults:#?}");
    let names = document["components"]["schemas"].as_object().expect("schemas").keys();
    let collected: Vec<&String> = names.filter(|name| name.starts_with("Test")).collect();
    assert!(collected.is_empty(), "pytest takes a class of this name for tests: {collected:?}");
}

#[test]
fn the_published_page_of_creating_an_endpoint_is_kept_verbatim() {
    let document = built_in();
    let create = operation(&document, &Method::POST, "/webhook-endpoints").operation;
    assert_eq!(create["summary"], "Create webhook endpoint");
    assert_eq!(create["responses"]["200"]["description"], "Endpoint created. Response carries the plaintext secret.");
    let schemas = &document["components"]["schemas"];
    let body = &schemas["CreateWebhookEndpoint"];
    assert_eq!(body["required"], json!(["name", "url", "events"]));
    let fields = &body["properties"];
    assert_eq!((&fields["name"]["minLength"], &fields["name"]["maxLength"]), (&json!(1), &json!(128)));
    assert_eq!((&fields["url"]["format"], &fields["url"]["maxLength"]), (&json!("uri"), &json!(1024)));
    assert_eq!(fields["name"]["examples"], json!(["Production CRM"]));
    assert_eq!(fields["url"]["examples"], json!(["https://hooks.example.com/scripe"]));
    assert_eq!(fields["events"]["examples"], json!([["post.created", "job.completed"]]));
    assert_eq!(fields["projectId"]["examples"], json!(["proj_a1b2c3d4e5f6g7h8"]));
    assert_eq!(fields["projectId"]["type"], json!(["string", "null"]));
    assert_eq!(
        fields["events"]["description"],
        "Closed list of subscribable events. Adding a new event name is a contract change — bump the docs + this enum in \
         lockstep with the producer."
    );
    assert_eq!(
        fields["projectId"]["description"],
        "Optional project scope. When set, the endpoint only receives events for that project. null (default) delivers \
         events for every project in the workspace."
    );
    assert_eq!(
        schemas["WebhookEndpoint"]["description"],
        "Display-safe shape of a webhook endpoint. The plaintext signing secret is never present here — only secretLast4. \
         Use WebhookEndpointWithSecret (returned by create + rotate) when the plaintext matters."
    );
    let order: Vec<&String> = schemas["WebhookEndpointWithSecret"]["properties"].as_object().unwrap().keys().collect();
    assert_eq!(
        order[..11],
        [
            "id",
            "url",
            "name",
            "events",
            "isActive",
            "disabledReason",
            "projectId",
            "secretLast4",
            "createdAt",
            "secret",
            "updatedAt"
        ]
    );
    let headers = &document["components"]["parameters"];
    assert_eq!(headers["ApiVersion"]["name"], "Scripe-Api-Version");
    assert_eq!(headers["ApiVersion"]["example"], "2026-08-01");
    assert_eq!(headers["IdempotencyKey"]["schema"]["pattern"], "^[A-Za-z0-9_-]{1,64}$");
    assert_eq!(
        document["components"]["securitySchemes"]["apiKey"]["description"],
        "Pass Authorization: Bearer scripe_sk_live_<...> (or scripe_sk_test_<...> for test keys) on every request. Keys are \
         scoped to a single workspace and can be revoked from the Scripe dashboard."
    );
}

#[tokio::test]
async fn real_answers_about_replays_by_filter_match_the_document() {
    let app = App::start().await;
    let document = app.get("/openapi.json").await.json();
    let describes = |method: Method, path: &str, status: u16, reply: &Reply| {
        assert_eq!(reply.status, status, "{}", reply.text());
        operation(&document, &method, path).assert_describes(reply);
    };
    const FILTER_REPLAY: &str = "/webhook-deliveries/replay";
    let filtered = async |body| app.post(&format!("/v1{FILTER_REPLAY}"), body).await;
    describes(Method::POST, FILTER_REPLAY, 422, &filtered(json!({ "filter": {} })).await);
    let some = json!({ "status": ["failed"], "since": "2026-05-15T08:00:00Z" });
    describes(Method::POST, FILTER_REPLAY, 200, &filtered(json!({ "filter": some, "dryRun": true })).await);
    describes(Method::POST, FILTER_REPLAY, 202, &filtered(json!({ "filter": some })).await);
    describes(Method::GET, "/replays", 200, &app.get("/v1/replays").await);
}

#[tokio::test]
async fn real_answers_match_the_document() {
    let app = App::start().await;
    let document = app.get("/openapi.json").await.json();
    let describes = |method: Method, path: &str, status: u16, reply: &Reply| {
        assert_eq!(reply.status, status, "{}", reply.text());
        operation(&document, &method, path).assert_describes(reply);
    };
    const ALL: &str = "/webhook-endpoints";
    const ONE: &str = "/webhook-endpoints/{endpointId}";
    let made = app.caller().keyed("first").post(ENDPOINTS, an_endpoint()).await;
    describes(Method::POST, ALL, 200, &made);
    let id = text(&made.json()["data"], "id");
    let pem = TestCa::new().client("acme");
    let mut full = an_endpoint_with("headers", json!({ "X-Token": "t" }));
    full["clientCertificate"] = json!({ "certificate": pem.chain, "privateKey": pem.key });
    full["signatureSchemes"] = json!(["v1", "v1a"]);
    full["retrySchedule"] = json!([1, 604_800]);
    describes(Method::POST, ALL, 200, &app.post(ENDPOINTS, full).await);
    let conflict = app.caller().keyed("first").post(ENDPOINTS, an_endpoint_with("name", "Another".into())).await;
    describes(Method::POST, ALL, 409, &conflict);
    describes(Method::POST, ALL, 400, &app.post(ENDPOINTS, json!({})).await);
    describes(
        Method::POST,
        ALL,
        400,
        &app.caller().with("scripe-api-version", "2020-01-01").post(ENDPOINTS, json!({})).await,
    );
    let reader = app.caller_of("Acme", &[Scope::WebhooksRead]).await;
    describes(Method::POST, ALL, 403, &reader.post(ENDPOINTS, an_endpoint()).await);
    describes(Method::POST, ALL, 413, &app.caller().post_text(ENDPOINTS, &event_of_bytes(256 * 1024 + 1)).await);
    describes(
        Method::POST,
        ALL,
        415,
        &app.caller().with("content-type", "text/plain").post(ENDPOINTS, json!({})).await,
    );
    let private = an_endpoint_with("url", "https://127.0.0.1/".into());
    describes(Method::POST, ALL, 422, &app.post(ENDPOINTS, private).await);
    describes(Method::GET, ALL, 200, &app.get(ENDPOINTS).await);
    describes(Method::GET, ALL, 400, &app.get(&format!("{ENDPOINTS}?limit=0")).await);
    describes(Method::GET, ALL, 400, &app.get(&format!("{ENDPOINTS}?cursor=x")).await);
    let one = format!("{ENDPOINTS}/{id}");
    describes(Method::GET, ONE, 200, &app.get(&one).await);
    describes(Method::GET, ONE, 404, &app.get(&format!("{ENDPOINTS}/whe_zzzzzzzzzzzzzzzz")).await);
    let rotate = app.post(&format!("{one}/rotate-secret"), json!({ "overlapSeconds": 60 })).await;
    describes(Method::POST, "/webhook-endpoints/{endpointId}/rotate-secret", 200, &rotate);
    let unsubscribed = app.post(&format!("{one}/test"), json!({ "event": "job.failed" })).await;
    describes(Method::POST, "/webhook-endpoints/{endpointId}/test", 422, &unsubscribed);
    let backwards = json!({ "since": "2026-05-15T08:00:00Z", "until": "2026-05-15T08:00:00Z" });
    let backwards = app.post(&format!("{one}/replay"), backwards).await;
    describes(Method::POST, "/webhook-endpoints/{endpointId}/replay", 422, &backwards);
    let counted = app.post(&format!("{one}/replay"), json!({ "since": "2026-05-15T08:00:00Z", "dryRun": true })).await;
    describes(Method::POST, "/webhook-endpoints/{endpointId}/replay", 200, &counted);
    let replay = app.post(&format!("{one}/replay"), json!({ "since": "2026-05-15T08:00:00Z" })).await;
    describes(Method::POST, "/webhook-endpoints/{endpointId}/replay", 202, &replay);
    let published = app.post(EVENTS, an_event()).await;
    describes(Method::POST, "/events", 202, &published);
    let event_id = text(&published.json()["data"], "id");
    describes(Method::GET, "/events/{eventId}", 200, &app.get(&format!("{EVENTS}/{event_id}")).await);
    describes(Method::GET, "/events", 200, &app.get(EVENTS).await);
    describes(Method::GET, "/event-types", 200, &app.get("/v1/event-types").await);
    let delivery = app.deliveries(&format!("eventId={event_id}")).await.remove(0);
    let delivery = app.get(&format!("{DELIVERIES}/{}", text(&delivery, "id"))).await;
    describes(Method::GET, "/webhook-deliveries/{deliveryId}", 200, &delivery);
    describes(Method::DELETE, ONE, 204, &app.caller().send(Method::DELETE, &one, "").await);
}

#[tokio::test]
async fn answers_about_keys_workspaces_and_limits_match_the_document() {
    let limit = std::num::NonZeroU32::new(12);
    let app = App::set_up().await.change(|settings| settings.rate_limits.management = limit).start().await;
    let document = app.get("/openapi.json").await.json();
    let describes = |method: Method, path: &str, status: u16, reply: &Reply| {
        assert_eq!(reply.status, status, "{}", reply.text());
        operation(&document, &method, path).assert_describes(reply);
    };
    let operator = app.caller_of("Operator", &Scope::ALL).await;
    describes(Method::GET, "/health/auth", 200, &operator.get("/v1/health/auth").await);
    describes(Method::GET, "/workspaces/me", 200, &operator.get("/v1/workspaces/me").await);
    let made = operator.post("/v1/workspaces", json!({ "name": "Globex" })).await;
    describes(Method::POST, "/workspaces", 200, &made);
    describes(Method::GET, "/workspaces", 200, &operator.get("/v1/workspaces").await);
    let id = text(&made.json()["data"], "id");
    let key = operator.post(&format!("/v1/workspaces/{id}/api-keys"), json!({ "scopes": ["events:read"] })).await;
    describes(Method::POST, "/workspaces/{workspaceId}/api-keys", 200, &key);
    let key = operator.post("/v1/api-keys", json!({ "name": "Backend", "expiresAt": "2030-01-01" })).await;
    describes(Method::POST, "/api-keys", 200, &key);
    let past = operator.post("/v1/api-keys", json!({ "expiresAt": "2020-01-01" })).await;
    describes(Method::POST, "/api-keys", 422, &past);
    describes(Method::GET, "/api-keys", 200, &operator.get("/v1/api-keys").await);
    let key = format!("/v1/api-keys/{}", text(&key.json()["data"], "id"));
    let gone = operator.send(Method::DELETE, &key, "").await;
    describes(Method::DELETE, "/api-keys/{apiKeyId}", 204, &gone);
    describes(Method::GET, "/api-keys/{apiKeyId}", 200, &operator.get(&key).await);
    describes(Method::GET, "/audit-log", 200, &operator.get("/v1/audit-log").await);
    let gone = operator.send(Method::DELETE, &format!("/v1/workspaces/{id}"), "").await;
    describes(Method::DELETE, "/workspaces/{workspaceId}", 204, &gone);
    let limited = operator.get("/v1/health/auth").await;
    describes(Method::GET, "/health/auth", 429, &limited);
    assert!(limited.header("retry-after").is_some());
}

#[tokio::test]
async fn the_document_has_the_url_brand_and_events_of_its_server() {
    let directory = tempfile::tempdir().expect("a directory");
    let events = directory.path().join("events.toml");
    let catalogue = "version = 1\n[brand]\nname = 'acme'\n[[event]]\nname = 'ping.sent'\ndescription = 'A ping.'\n\
                     schema = '{\"$defs\":{\"n\":{\"type\":\"integer\"}},\"properties\":{\"n\":{\"$ref\":\"#/$defs/n\"}}}'\nexample = '{\"n\":1}'\n";
    fs::write(&events, catalogue).expect("a file");
    let app = App::set_up()
        .await
        .change(|settings| {
            settings.public_url = Some("https://hooks.acme.test/".to_owned());
            settings.events_file = Some(events);
        })
        .start()
        .await;
    let reply = app.caller().without("authorization").get("/openapi.json").await;
    let document = reply.json();
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    assert_eq!(document["servers"], json!([{ "url": "https://hooks.acme.test/v1" }]));
    assert_eq!(document["info"]["title"], "Acme API");
    assert_eq!(document["components"]["schemas"]["EventName"]["enum"], json!(["ping.sent"]));
    assert_eq!(document["components"]["parameters"]["ApiVersion"]["name"], "Acme-Api-Version");
    assert_eq!(document["components"]["parameters"]["WebhookReplay"]["name"], "Acme-Replay");
    assert!(document["webhooks"]["ping.sent"].is_object());
    assert!(!document.to_string().to_lowercase().contains("scripe"), "the other brand is in the document");
    let envelope = &document["webhooks"]["ping.sent"]["post"]["requestBody"]["content"]["application/json"];
    assert_fits(&document, &envelope["schema"], &envelope["examples"]["default"]["value"], "the example");
    let body = json!({"name": "A", "url": format!("https://{PUBLIC_HOST}/"), "events": ["ping.sent"]});
    operation(&document, &Method::POST, "/webhook-endpoints").assert_describes(&app.post(ENDPOINTS, body).await);
}
