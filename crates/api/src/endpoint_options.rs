//! The optional fields of an endpoint, in requests and in answers.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use postrider_domain::endpoint_options::{
    DeliveryOrder, DeliveryRate, EndpointOptions, OptionsChange, SignatureSchemes, parse_timeout,
};
use postrider_domain::limits;
use postrider_domain::private_options::{
    ClientCertificate, GivenHeader, HeaderName, HeaderValue, PrivateOptions, REDACTED,
};
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_service::fields::{Fields, boolean, cut, string, whole_number};

/// The fields after `updatedAt`, in this order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OptionsView<'e> {
    /// Only names. A value is never shown.
    headers: Map<String, Value>,
    retry_schedule: Option<Vec<u64>>,
    timeout_seconds: Option<u64>,
    signature_schemes: &'static [&'static str],
    public_key: Option<&'e str>,
    rate_limit: Option<u32>,
    ordering: &'static str,
    trace_forwarding: Option<bool>,
    client_certificate: Option<CertificateView<'e>>,
}

#[derive(Serialize)]
struct CertificateView<'e> {
    sha256: &'e str,
}

impl<'e> OptionsView<'e> {
    pub fn new(options: &'e EndpointOptions) -> Self {
        let redacted = |name: &HeaderName| (name.as_str().to_owned(), Value::from(REDACTED));
        let certificate = options.client_certificate.as_ref();
        Self {
            headers: options.headers.iter().map(redacted).collect(),
            retry_schedule: options.retry_schedule.as_ref().map(|schedule| schedule.seconds().collect()),
            timeout_seconds: options.timeout.map(|timeout| timeout.as_secs()),
            signature_schemes: options.signature_schemes.as_strs(),
            public_key: options.shown_public_key(),
            rate_limit: options.rate_limit.map(DeliveryRate::per_second),
            ordering: options.ordering.as_str(),
            trace_forwarding: options.trace_forwarding,
            client_certificate: certificate.map(|facts| CertificateView { sha256: &facts.sha256 }),
        }
    }
}

/// Reads the optional fields of a body. `null` restores the default; an absent field keeps its value.
pub fn take(fields: &mut Fields<'_>) -> (OptionsChange, PrivateOptions) {
    let private = PrivateOptions {
        headers: fields.optional("headers", or_null(headers)).map(Option::unwrap_or_default),
        client_certificate: fields.optional("clientCertificate", or_null(client_certificate)),
    };
    let options = OptionsChange {
        retry_schedule: fields.optional("retrySchedule", or_null(retry_schedule)),
        timeout: fields.optional("timeoutSeconds", or_null(timeout)),
        signature_schemes: fields.optional("signatureSchemes", or_null(schemes)).map(Option::unwrap_or_default),
        rate_limit: fields.optional("rateLimit", or_null(rate_limit)),
        ordering: fields.optional("ordering", or_null(string(DeliveryOrder::parse))).map(Option::unwrap_or_default),
        trace_forwarding: fields.optional("traceForwarding", or_null(boolean)),
    };
    (options, private)
}

fn or_null<T>(
    read: impl FnOnce(&RawValue) -> Result<T, String>,
) -> impl FnOnce(&RawValue) -> Result<Option<T>, String> {
    move |raw| if raw.get() == "null" { Ok(None) } else { read(raw).map(Some) }
}

/// Faults name the header and never show a value.
fn headers(raw: &RawValue) -> Result<Vec<GivenHeader>, String> {
    let members: Map<String, Value> =
        serde_json::from_str(raw.get()).map_err(|_| "must be an object of names and values".to_owned())?;
    if members.len() > limits::CUSTOM_HEADERS {
        return Err(format!("must have at most {} headers", limits::CUSTOM_HEADERS));
    }
    let read = |(name, value): (String, Value)| {
        let shown = cut(&name);
        let fault_of = |fault: &str| format!("{shown:?} {fault}");
        let name = HeaderName::parse(&name).map_err(|fault| fault_of(fault.0))?;
        let value = match value {
            Value::String(text) if text == REDACTED => None,
            Value::String(text) => Some(HeaderValue::parse(&Zeroizing::new(text)).map_err(|fault| fault_of(fault.0))?),
            _ => return Err(fault_of("has a value that is not a string")),
        };
        Ok(GivenHeader { name, value })
    };
    members.into_iter().map(read).collect()
}

fn retry_schedule(raw: &RawValue) -> Result<RetrySchedule, String> {
    let waits: Vec<&RawValue> =
        serde_json::from_str(raw.get()).map_err(|_| "must be an array of whole seconds".to_owned())?;
    let longest = limits::RETRY_STEP_MAX.as_secs();
    let seconds: Result<Vec<u64>, String> = waits.into_iter().map(whole_number(1, longest)).collect();
    seconds.and_then(|seconds| RetrySchedule::from_seconds(&seconds).map_err(|fault| fault.to_string()))
}

fn timeout(raw: &RawValue) -> Result<Duration, String> {
    let longest = limits::ATTEMPT_DEADLINE_MAX.as_secs();
    whole_number(1, longest)(raw).and_then(|seconds| parse_timeout(seconds).map_err(|fault| fault.to_string()))
}

fn schemes(raw: &RawValue) -> Result<SignatureSchemes, String> {
    let names: Vec<String> =
        serde_json::from_str(raw.get()).map_err(|_| "must be [\"v1\"] or [\"v1\", \"v1a\"]".to_owned())?;
    SignatureSchemes::parse(&names).map_err(|fault| fault.to_string())
}

fn rate_limit(raw: &RawValue) -> Result<DeliveryRate, String> {
    whole_number(1, u64::from(limits::DELIVERY_RATE_MAX))(raw)
        .and_then(|rate| DeliveryRate::parse(rate).map_err(|fault| fault.to_string()))
}

fn client_certificate(raw: &RawValue) -> Result<ClientCertificate, String> {
    const SHAPE: &str = "must be an object of the strings certificate and privateKey, both PEM";
    let mut members: Map<String, Value> = serde_json::from_str(raw.get()).map_err(|_| SHAPE.to_owned())?;
    let (chain, key) = (members.remove("certificate"), members.remove("privateKey"));
    match (chain, key) {
        (Some(Value::String(chain)), Some(Value::String(key))) if members.is_empty() => {
            ClientCertificate::parse(chain, key).map_err(|fault| fault.to_string())
        }
        _ => Err(SHAPE.to_owned()),
    }
}
