//! The schemas of an endpoint's optional fields.

use serde_json::{Map, Value, json};

use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::limits;
use postrider_domain::private_options::REDACTED;

use super::schema::{Schemas, array, closed_object, described, growing, nullable, object, one_of, reference};

/// The fields that a caller writes, in the order of [`view`].
pub const WRITTEN: [&str; 8] = [
    "headers",
    "retrySchedule",
    "timeoutSeconds",
    "signatureSchemes",
    "rateLimit",
    "ordering",
    "traceForwarding",
    "clientCertificate",
];

/// The fields in a request. `null` restores the default.
pub fn written() -> Map<String, Value> {
    let mut fields = Map::new();
    for name in WRITTEN {
        let field = match name {
            "headers" => described(
                headers(json!({
                    "type": "string",
                    "minLength": 1,
                    "maxLength": limits::CUSTOM_HEADER_VALUE_CHARS,
                    "pattern": "^[!-~]([\\t -~]*[!-~])?$",
                })),
                HEADERS,
            ),
            "clientCertificate" => described(
                reference("ClientCertificate"),
                "The client certificate for receivers that demand one (mutual TLS). \
                The private key is never shown again.",
            ),
            "ordering" => described(reference("DeliveryOrder"), &format!("{ORDERING} null (default): `none`.")),
            "signatureSchemes" => {
                let schemes = common(name);
                let text = format!("{} null (default): `v1`.", schemes["description"].as_str().unwrap_or_default());
                described(schemes, &text)
            }
            _ => common(name),
        };
        fields.insert(name.to_owned(), nullable(field));
    }
    fields
}

/// The fields of an answer after `updatedAt`, in this order.
pub fn view() -> Vec<(&'static str, Value)> {
    vec![
        (
            "headers",
            described(
                headers(growing(&[REDACTED])),
                "The headers that every request to the endpoint carries. The values are never shown.",
            ),
        ),
        ("retrySchedule", nullable(common("retrySchedule"))),
        ("timeoutSeconds", nullable(common("timeoutSeconds"))),
        (
            "signatureSchemes",
            described(
                array(growing(&SIGNATURE_SCHEMES)),
                common("signatureSchemes")["description"].as_str().unwrap_or_default(),
            ),
        ),
        (
            "publicKey",
            json!({
                "type": ["string", "null"],
                "pattern": "^whpk_[A-Za-z0-9+/]{43}=$",
                "description": "The public key for its `v1a` signatures: Ed25519, in base64. Each rotation changes it; \
                                null without `v1a`.",
            }),
        ),
        ("rateLimit", nullable(common("rateLimit"))),
        ("ordering", described(growing(&DeliveryOrder::ALL.map(DeliveryOrder::as_str)), ORDERING)),
        ("traceForwarding", nullable(common("traceForwarding"))),
        (
            "clientCertificate",
            nullable(described(reference("ClientCertificateShown"), "The fingerprint of the client certificate.")),
        ),
    ]
}

/// The fields in an example.
pub fn example() -> Vec<(&'static str, Value)> {
    vec![
        ("headers", json!({ "Authorization": REDACTED })),
        ("retrySchedule", Value::Null),
        ("timeoutSeconds", Value::Null),
        ("signatureSchemes", json!(["v1"])),
        ("publicKey", Value::Null),
        ("rateLimit", Value::Null),
        ("ordering", "none".into()),
        ("traceForwarding", Value::Null),
        ("clientCertificate", Value::Null),
    ]
}

const SIGNATURE_SCHEMES: [&str; 2] = ["v1", "v1a"];
const ORDERING: &str = "`strict`: one delivery at a time, in the order in which the events were accepted.";
const HEADERS: &str = "Headers that every request to the endpoint carries: names and values. Names that belong to the \
                       connection, the body or the service are refused (see the documentation), and so are two names \
                       that differ only in case. A value may be a secret and is never shown; the value `[redacted]` \
                       keeps the stored one. When `url` gets another scheme, host or port, give every value anew or \
                       remove them with null.";

fn headers(value: Value) -> Value {
    let name = format!("^[A-Za-z0-9!#$%&'*+.^_`|~-]{{1,{}}}$", limits::CUSTOM_HEADER_NAME_CHARS);
    json!({
        "type": "object",
        "maxProperties": limits::CUSTOM_HEADERS,
        "propertyNames": { "pattern": name },
        "additionalProperties": value,
    })
}

fn common(name: &str) -> Value {
    match name {
        "retrySchedule" => json!({
            "type": "array",
            "minItems": 1,
            "maxItems": limits::RETRY_STEPS,
            "items": { "type": "integer", "minimum": 1, "maximum": limits::RETRY_STEP_MAX.as_secs() },
            "description": "The waits between attempts in seconds, each varied by up to 20 %; null: the server's \
                            schedule.",
        }),
        "timeoutSeconds" => json!({
            "type": "integer",
            "minimum": 1,
            "maximum": limits::ATTEMPT_DEADLINE_MAX.as_secs(),
            "description": "How long a whole attempt may take; null: the server's timeout.",
        }),
        "signatureSchemes" => json!({
            "type": "array",
            "minItems": 1,
            "maxItems": 2,
            "uniqueItems": true,
            "items": one_of(&SIGNATURE_SCHEMES),
            "contains": { "const": "v1" },
            "description": "Which signatures a request carries: `v1`, or `v1` and `v1a` (Ed25519).",
        }),
        "traceForwarding" => json!({
            "type": "boolean",
            "description": "Whether requests carry `traceparent` if the event has a trace; null: as the server is set.",
        }),
        _ => json!({
            "type": "integer",
            "minimum": 1,
            "maximum": limits::DELIVERY_RATE_MAX,
            "description": "The most deliveries per second; null: no limit for this endpoint.",
        }),
    }
}

/// The components that [`written`] and [`view`] refer to.
pub fn schemas() -> Schemas {
    let shown = json!({
        "sha256": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "SHA-256 of the first certificate of the chain, in DER.",
        },
    });
    vec![
        ("DeliveryOrder", one_of(&DeliveryOrder::ALL.map(DeliveryOrder::as_str))),
        ("ClientCertificate", certificate()),
        ("ClientCertificateShown", object(shown, &[])),
    ]
}

fn certificate() -> Value {
    let pem = |characters: usize, description: &str| {
        json!({
            "type": "string",
            "minLength": 1,
            "maxLength": characters,
            "pattern": "^[\\t\\n\\r -~]+$",
            "description": description,
        })
    };
    let properties = json!({
        "certificate": pem(limits::CERTIFICATE_CHARS, "PEM: the certificate, then its intermediate certificates."),
        "privateKey": pem(limits::CERTIFICATE_KEY_CHARS, "PEM: the private key, not encrypted."),
    });
    closed_object(properties, &[])
}
