//! The optional fields of an endpoint: which values are accepted, refused, shown and never shown.

use http::Method;
use serde_json::{Value, json};

use super::{AUDIT, ENDPOINTS, an_endpoint, an_endpoint_with, assert_done_once, faults, patch};
use crate::support::app::{App, text};
use crate::support::dns::Answer;
use crate::support::tls::TestCa;

const TOKEN: &str = "Bearer very-hush-token";

fn defaults() -> Value {
    json!({
        "headers": {},
        "retrySchedule": null,
        "timeoutSeconds": null,
        "signatureSchemes": ["v1"],
        "publicKey": null,
        "rateLimit": null,
        "ordering": "none",
        "traceForwarding": null,
        "clientCertificate": null,
    })
}

fn certificate() -> Value {
    let pem = TestCa::new().client("acme");
    json!({"certificate": pem.chain, "privateKey": pem.key})
}

/// Every optional field, with a value that is not its default.
fn everything() -> Value {
    json!({
        "headers": {"Authorization": TOKEN, "X-Tenant": "acme"},
        "retrySchedule": [1, 60, 604_800],
        "timeoutSeconds": 45,
        "signatureSchemes": ["v1", "v1a"],
        "rateLimit": 1000,
        "ordering": "strict",
        "traceForwarding": false,
        "clientCertificate": certificate(),
    })
}

fn with(mut body: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn options_of(shown: &Value) -> Value {
    defaults().as_object().unwrap().keys().map(|name| (name.clone(), shown[name].clone())).collect()
}

async fn shown(app: &App, id: &str) -> Value {
    app.get(&format!("{ENDPOINTS}/{id}")).await.data(200)
}

#[tokio::test]
async fn an_endpoint_without_options_has_the_defaults() {
    let app = App::start().await;
    let made = app.post(ENDPOINTS, an_endpoint()).await.data(200);
    assert_eq!(options_of(&made), defaults());
    let nulls: Value = everything().as_object().unwrap().keys().map(|name| (name.clone(), Value::Null)).collect();
    let made = app.post(ENDPOINTS, with(an_endpoint(), &nulls)).await.data(200);
    assert_eq!(options_of(&made), defaults(), "null is the default");
}

#[tokio::test]
async fn every_answer_shows_the_options_and_null_resets_them() {
    let mut app = App::start().await;
    let made = app.post(ENDPOINTS, with(an_endpoint(), &everything())).await.data(200);
    let (id, public_key) = (text(&made, "id"), text(&made, "publicKey"));
    assert!(public_key.starts_with("whpk_") && public_key.len() == 49, "{public_key}");
    let sha256 = text(&made["clientCertificate"], "sha256");
    assert_eq!(sha256.len(), 64);
    let expected = json!({
        "headers": {"Authorization": "[redacted]", "X-Tenant": "[redacted]"},
        "retrySchedule": [1, 60, 604_800],
        "timeoutSeconds": 45,
        "signatureSchemes": ["v1", "v1a"],
        "publicKey": public_key,
        "rateLimit": 1000,
        "ordering": "strict",
        "traceForwarding": false,
        "clientCertificate": {"sha256": sha256},
    });
    assert_eq!(options_of(&made), expected);
    app.restart().await;
    assert_eq!(options_of(&shown(&app, &id).await), expected);
    let renamed = patch(app.caller(), &id, json!({"name": "other"})).await.data(200);
    assert_eq!(options_of(&renamed), expected, "what is absent stays");
    let listed = app.get(ENDPOINTS).await.data(200);
    assert_eq!(options_of(&listed[0]), expected);
    for name in everything().as_object().unwrap().keys() {
        let changed = patch(app.caller(), &id, json!({(name): null})).await.data(200);
        assert_eq!(changed[name], defaults()[name], "{name}");
    }
    assert_eq!(options_of(&shown(&app, &id).await), defaults());
}

#[tokio::test]
async fn each_malformed_option_is_a_400_that_names_the_parameter() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    let long = "v".repeat(1025);
    let many: Value = (0..17).map(|number| (format!("x-{number}"), Value::from("v"))).collect();
    let cases = [
        ("headers", json!([])),
        ("headers", json!({"a b": "v"})),
        ("headers", json!({"": "v"})),
        ("headers", json!({"x": 1})),
        ("headers", json!({"x": ""})),
        ("headers", json!({"x": "a\r\nb: c"})),
        ("headers", json!({"x": "ä"})),
        ("headers", json!({"x": long})),
        ("headers", many),
        ("retrySchedule", json!([])),
        ("retrySchedule", json!([0])),
        ("retrySchedule", json!([604_801])),
        ("retrySchedule", json!([1.5])),
        ("retrySchedule", json!(vec![1; 33])),
        ("retrySchedule", json!("5s")),
        ("timeoutSeconds", json!(0)),
        ("timeoutSeconds", json!(46)),
        ("timeoutSeconds", json!("15")),
        ("signatureSchemes", json!([])),
        ("signatureSchemes", json!(["v1a"])),
        ("signatureSchemes", json!(["v1", "v2"])),
        ("signatureSchemes", json!("v1")),
        ("rateLimit", json!(0)),
        ("rateLimit", json!(1001)),
        ("ordering", json!("fifo")),
        ("clientCertificate", json!("PEM")),
        ("clientCertificate", json!({"certificate": "x"})),
        ("clientCertificate", json!({"certificate": "x", "privateKey": "y", "password": "z"})),
        ("clientCertificate", json!({"certificate": "x".repeat(32 * 1024 + 1), "privateKey": "y"})),
        ("publicKey", json!("whpk_")),
    ];
    for (name, value) in cases {
        for reply in [
            app.post(ENDPOINTS, an_endpoint_with(name, value.clone())).await,
            patch(app.caller(), &id, json!({(name): value})).await,
        ] {
            let error = reply.error(400, "invalid_request");
            let fault = faults(&error)[name].as_str().unwrap_or_else(|| panic!("{name} is not named in {error}"));
            assert!(fault.len() < 200, "{fault}");
        }
    }
    assert_eq!(options_of(&shown(&app, &id).await), defaults(), "nothing was written");
}

#[tokio::test]
async fn each_broken_rule_is_a_422_that_names_the_parameter() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    let (one, other) = (certificate(), certificate());
    let mismatched = json!({"certificate": one["certificate"], "privateKey": other["privateKey"]});
    let mut cases = vec![
        ("headers", json!({"X-A": "1", "x-a": "2"})),
        ("headers", json!({"X-A": "1", "x_a": "2"})),
        ("headers", json!({"X-A": "[redacted]"})),
        ("clientCertificate", mismatched),
        ("clientCertificate", json!({"certificate": "no PEM", "privateKey": one["privateKey"]})),
        ("clientCertificate", json!({"certificate": one["certificate"], "privateKey": "no PEM"})),
    ];
    let spelled = ["Webhook_Signature", "SCRIPE_delivery-id", "Content_Length", "X_Forwarded_For", "Proxy"];
    let plain = ["Host", "content-type", "Webhook-Id", "Scripe-Delivery-Id", "proxy-authorization", "Cookie"];
    for reserved in plain.into_iter().chain(spelled) {
        cases.push(("headers", json!({(reserved): "v"})));
    }
    for (name, value) in cases {
        for reply in [
            app.post(ENDPOINTS, an_endpoint_with(name, value.clone())).await,
            patch(app.caller(), &id, json!({(name): value})).await,
        ] {
            let error = reply.error(422, "unprocessable");
            assert!(faults(&error)[name].is_string(), "{name} is not named in {error}");
        }
    }
    assert_eq!(options_of(&shown(&app, &id).await), defaults(), "nothing was written");
}

#[tokio::test]
async fn another_origin_needs_its_own_headers_and_certificate() {
    let app = App::start().await;
    app.dns().set("other.example.com", Answer::addresses(&["93.184.215.15"]));
    let options = json!({
        "url": "https://hooks.example.com/a",
        "headers": {"Authorization": TOKEN, "X-Tenant": "acme"},
        "clientCertificate": certificate(),
    });
    let id = app.endpoint(with(an_endpoint(), &options)).await.id;
    let kept = options_of(&shown(&app, &id).await);
    for same in ["https://hooks.example.com/b?c=d", "https://HOOKS.example.com/", "https://hooks.example.com:443/"] {
        patch(app.caller(), &id, json!({"url": same})).await.data(200);
    }
    patch(app.caller(), &id, json!({"url": "https://hooks.example.com/c", "headers": kept["headers"]})).await.data(200);
    assert_eq!(options_of(&shown(&app, &id).await), kept);

    let other = "https://other.example.com/a";
    let redacted = json!({"Authorization": "[redacted]", "X-Tenant": "new"});
    for (change, named) in [
        (json!({"url": other}), "headers"),
        (json!({"url": other, "clientCertificate": null}), "headers"),
        (json!({"url": other, "headers": redacted, "clientCertificate": null}), "headers"),
        (json!({"url": other, "headers": null}), "clientCertificate"),
        (json!({"url": "https://hooks.example.com:8443/a", "headers": null}), "clientCertificate"),
    ] {
        let error = patch(app.caller(), &id, change.clone()).await.error(422, "unprocessable");
        assert!(faults(&error)[named].is_string(), "{change}: {error}");
    }
    let endpoint = shown(&app, &id).await;
    assert_eq!((options_of(&endpoint), text(&endpoint, "url")), (kept, "https://hooks.example.com/c".to_owned()));

    let anew = json!({"url": other, "headers": {"Authorization": "for the other"}, "clientCertificate": certificate()});
    assert_eq!(patch(app.caller(), &id, anew).await.data(200)["url"], other);
    let away = json!({"url": "https://hooks.example.com/", "headers": null, "clientCertificate": null});
    patch(app.caller(), &id, away).await.data(200);
    patch(app.caller(), &id, json!({"url": other})).await.data(200);
}

#[tokio::test]
async fn only_writes_of_an_endpoint_accept_options() {
    let app = App::start().await;
    let id = app.endpoint(an_endpoint()).await.id;
    for path in ["rotate-secret", "test"] {
        let reply = app.post(&format!("{ENDPOINTS}/{id}/{path}"), json!({"ordering": "strict"})).await;
        assert!(faults(&reply.error(400, "invalid_request"))["ordering"].is_string(), "{path}");
    }
}

#[tokio::test]
async fn a_secret_option_is_in_no_answer_no_record_and_no_file() {
    let app = App::start().await;
    let body = with(an_endpoint(), &everything());
    let key = text(&body["clientCertificate"], "privateKey");
    let secret_line = key.lines().nth(1).unwrap().to_owned();
    let made = assert_done_once(app.caller(), Method::POST, ENDPOINTS, body, 200).await;
    let id = text(&made.data(200), "id");
    let change = json!({"headers": {"Authorization": "[redacted]", "X-Other": "other-hush-value"}});
    let path = format!("{ENDPOINTS}/{id}");
    let changed = assert_done_once(app.caller(), Method::PATCH, &path, change, 200).await;
    let refused = patch(app.caller(), &id, json!({"headers": {"x": "refused-hush\n"}})).await;
    let audit = app.get(AUDIT).await;
    for secret in [TOKEN, "very-hush", "other-hush", "refused-hush", &secret_line] {
        for reply in [&made, &changed, &refused, &audit, &app.get(&path).await, &app.get(ENDPOINTS).await] {
            assert!(!reply.text().contains(secret), "{secret} in {}", reply.text());
        }
        assert_eq!(app.files_holding(secret.as_bytes()), Vec::<String>::new(), "{secret}");
    }
    assert_eq!(app.files_holding(b"whsk_"), Vec::<String>::new());
}
