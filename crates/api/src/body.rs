//! Reading a JSON body: bounded, strict, and with every fault named by its parameter.

use std::collections::BTreeMap;

use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use serde_json::value::RawValue;

use postrider_domain::json::canonicalise;
use postrider_domain::limits;
use postrider_service::{ParameterFault, ServiceError};

/// A body that is exactly one JSON value without ambiguities.
#[derive(Clone)]
pub struct JsonBody {
    bytes: Bytes,
    canonical: Bytes,
}

/// What a route takes for a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRule {
    Required,
    /// No body means `{}`.
    Optional,
    /// Many events, each at most as large and as deep as one that comes alone.
    Batch,
    /// A batch with an `Idempotency-Key`, which makes it as small as any other body.
    KeyedBatch,
}

impl BodyRule {
    const fn bytes(self) -> usize {
        match self {
            Self::Required | Self::Optional | Self::KeyedBatch => limits::BODY_BYTES,
            Self::Batch => limits::BATCH_BYTES,
        }
    }

    const fn depth(self) -> usize {
        match self {
            Self::Required | Self::Optional => limits::JSON_DEPTH,
            Self::Batch | Self::KeyedBatch => limits::JSON_DEPTH + 2,
        }
    }

    /// Completes "The body is larger than 256 KB" where another request could have had more.
    const fn hint(self) -> &'static str {
        match self {
            Self::Required | Self::Optional | Self::Batch => "",
            Self::KeyedBatch => {
                ", the most that a request with an Idempotency-Key may have; without one a batch may have 8 MB"
            }
        }
    }
}

impl JsonBody {
    /// Reads at most as much as the rule allows.
    pub async fn read(headers: &HeaderMap, body: Body, rule: BodyRule) -> Result<Self, ServiceError> {
        let (limit, depth, hint) = (rule.bytes(), rule.depth(), rule.hint());
        let too_large = || ServiceError::PayloadTooLarge(format!("The body is larger than {}{hint}.", size(limit)));
        let declared = headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        if declared.is_some_and(|length: usize| length > limit) {
            return Err(too_large());
        }
        let bytes = to_bytes(body, limit).await.map_err(|error| {
            let cause = std::error::Error::source(&error);
            if cause.is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>()) {
                too_large()
            } else {
                ServiceError::invalid("body", "could not be read to its end")
            }
        })?;
        if bytes.is_empty() && rule == BodyRule::Optional {
            return Self::parse(Bytes::from_static(b"{}"), depth);
        }
        if !is_json(headers) {
            return Err(ServiceError::UnsupportedMediaType);
        }
        if bytes.len() > limits::BODY_BYTES {
            return aside(move || Self::parse(bytes, depth)).await;
        }
        Self::parse(bytes, depth)
    }

    pub fn parse(bytes: Bytes, depth: usize) -> Result<Self, ServiceError> {
        let canonical =
            canonicalise(&bytes, depth).map_err(|fault| ServiceError::invalid("body", fault.to_string()))?;
        Ok(Self { bytes, canonical: canonical.into() })
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The items of the array that is this member, in canonical form. Empty when there is no such array.
    pub fn canonical_items(&self, name: &str) -> Vec<&[u8]> {
        let members: Result<BTreeMap<String, &RawValue>, _> = serde_json::from_slice(&self.canonical);
        let array = members.ok().and_then(|members| members.get(name).copied());
        let items: Option<Vec<&RawValue>> = array.and_then(|array| serde_json::from_str(array.get()).ok());
        items.unwrap_or_default().into_iter().map(|item| item.get().as_bytes()).collect()
    }

    /// SHA-256 of the canonical form.
    pub fn hash(&self) -> [u8; 32] {
        postrider_domain::idempotency::body_hash(&self.canonical)
    }

    /// The members of the object that the body must be.
    pub fn fields(&self) -> Result<Fields<'_>, ServiceError> {
        serde_json::from_slice(&self.bytes)
            .map(|members| Fields { members, faults: Vec::new(), prefix: String::new() })
            .map_err(|_| ServiceError::invalid("body", "must be a JSON object"))
    }
}

/// Checks a body whose object must have no members.
pub fn parse_nothing(body: &JsonBody) -> Result<(), ServiceError> {
    body.fields()?.finish()
}

/// Runs work on a long body where it keeps no other request waiting.
pub async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ServiceError> + Send + 'static,
) -> Result<T, ServiceError> {
    let outcome = tokio::task::spawn_blocking(work).await;
    outcome.map_err(|error| ServiceError::Internal { source: Box::new(error) })?
}

/// A limit in the unit in which it is told.
fn size(bytes: usize) -> String {
    const MEGABYTE: usize = 1024 * 1024;
    if bytes.is_multiple_of(MEGABYTE) { format!("{} MB", bytes / MEGABYTE) } else { format!("{} KB", bytes / 1024) }
}

fn is_json(headers: &HeaderMap) -> bool {
    let Some(Ok(value)) = headers.get(CONTENT_TYPE).map(|value| value.to_str()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let json = parts.next().is_some_and(|media_type| media_type.eq_ignore_ascii_case("application/json"));
    json && parts.all(|parameter| match parameter.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    })
}

/// An object's members, taken out one by one. What is wrong is collected and told all at once.
pub struct Fields<'b> {
    members: BTreeMap<String, &'b RawValue>,
    faults: Vec<ParameterFault>,
    prefix: String,
}

const MISSING: &str = "is required";

impl<'b> Fields<'b> {
    /// The members of an object inside a body, whose faults are named with the prefix.
    pub fn inside(raw: &'b RawValue, prefix: String) -> Result<Self, ServiceError> {
        match serde_json::from_str(raw.get()) {
            Ok(members) => Ok(Self { members, faults: Vec::new(), prefix: prefix + "." }),
            Err(_) => Err(ServiceError::invalid(prefix, "must be an object")),
        }
    }

    /// A member that must be there.
    pub fn required<T>(&mut self, name: &str, read: impl FnOnce(&'b RawValue) -> Result<T, String>) -> Option<T> {
        match self.members.remove(name) {
            Some(raw) => self.read(name, raw, read),
            None => {
                self.fault(name, MISSING);
                None
            }
        }
    }

    /// A member that may be absent, but not null.
    pub fn optional<T>(&mut self, name: &str, read: impl FnOnce(&'b RawValue) -> Result<T, String>) -> Option<T> {
        let raw = self.members.remove(name)?;
        self.read(name, raw, read)
    }

    /// A member that may be absent or null, which mean the same.
    pub fn nullable<T>(&mut self, name: &str, read: impl FnOnce(&'b RawValue) -> Result<T, String>) -> Option<T> {
        let raw = self.members.remove(name).filter(|raw| raw.get() != "null")?;
        self.read(name, raw, read)
    }

    pub fn fault(&mut self, name: &str, fault: impl Into<String>) {
        self.faults.push((format!("{}{name}", self.prefix), fault.into()));
    }

    /// Says what was wrong, members that nobody took included.
    pub fn finish(mut self) -> Result<(), ServiceError> {
        let unknown: Vec<String> = self.members.keys().cloned().collect();
        for name in unknown {
            self.fault(&name, "is not a known parameter");
        }
        if self.faults.is_empty() { Ok(()) } else { Err(ServiceError::InvalidRequest { parameters: self.faults }) }
    }

    fn read<T>(
        &mut self,
        name: &str,
        raw: &'b RawValue,
        read: impl FnOnce(&'b RawValue) -> Result<T, String>,
    ) -> Option<T> {
        read(raw).map_err(|fault| self.fault(name, fault)).ok()
    }
}

/// Reads a string and what it stands for.
pub fn string<T, E: std::fmt::Display>(
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> impl FnOnce(&RawValue) -> Result<T, String> {
    move |raw| {
        let text: String = serde_json::from_str(raw.get()).map_err(|_| "must be a string".to_owned())?;
        parse(&text).map_err(|error| error.to_string())
    }
}

/// Reads `true` or `false`.
pub fn boolean(raw: &RawValue) -> Result<bool, String> {
    serde_json::from_str(raw.get()).map_err(|_| "must be true or false".to_owned())
}

/// Reads a whole number from `min` to `max`.
pub fn whole_number(min: u64, max: u64) -> impl Fn(&RawValue) -> Result<u64, String> {
    move |raw| {
        let number = serde_json::from_str(raw.get()).ok().or_else(|| whole_float(raw));
        let number = number.filter(|number| (min..=max).contains(number));
        number.ok_or_else(|| format!("must be a whole number from {min} to {max}"))
    }
}

/// `300.0` and `3e2` are whole numbers too: to JSON Schema, and to whoever writes JSON from a language without integers.
fn whole_float(raw: &RawValue) -> Option<u64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_991.0;
    let number: f64 = serde_json::from_str(raw.get()).ok()?;
    let is_whole = number.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&number);
    // Without a fraction, an exponent or a sign, which is how whole floats are shown, it reads as an integer.
    is_whole.then(|| format!("{number}").trim_start_matches('-').parse().ok()).flatten()
}

/// Reads an object and keeps it as the bytes that came.
pub fn object(raw: &RawValue) -> Result<Box<RawValue>, String> {
    if raw.get().starts_with('{') { Ok(raw.to_owned()) } else { Err("must be an object".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media_type(value: &'static str) -> bool {
        is_json(&HeaderMap::from_iter([(CONTENT_TYPE, http::HeaderValue::from_static(value))]))
    }

    #[test]
    fn only_json_in_utf8_is_taken() {
        assert!(media_type("application/json"));
        assert!(media_type("Application/JSON; charset=UTF-8"));
        assert!(!media_type("application/json; charset=latin1"));
        assert!(!media_type("application/x-www-form-urlencoded"));
        assert!(!media_type("text/json"));
        assert!(!is_json(&HeaderMap::new()));
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_float() {
        let read = |text: &str| whole_number(0, 604_800)(&RawValue::from_string(text.to_owned()).unwrap()).ok();
        for (text, number) in [("0", 0), ("318", 318), ("318.0", 318), ("3e2", 300), ("604800.0", 604_800), ("-0.0", 0)]
        {
            assert_eq!(read(text), Some(number), "{text}");
        }
        for bad in ["318.5", "-1", "-1.0", "604801", "604801.0", "1e400", "1e30", "true", "\"1\"", "null"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_fault_is_told_at_once() {
        let body =
            JsonBody::parse(Bytes::from_static(b"{\"a\":1,\"n\":null,\"x\":true}"), limits::JSON_DEPTH).ok().unwrap();
        let mut fields = body.fields().ok().unwrap();
        assert_eq!(fields.required("a", string(|text| Ok::<_, String>(text.to_owned()))), None);
        assert_eq!(fields.nullable("n", string(|text| Ok::<_, String>(text.to_owned()))), None);
        assert_eq!(fields.required("b", string(|text| Ok::<_, String>(text.to_owned()))), None);
        let Err(ServiceError::InvalidRequest { parameters }) = fields.finish() else { panic!("faults were lost") };
        let told: Vec<String> = parameters.iter().map(|(name, fault)| format!("{name} {fault}")).collect();
        assert_eq!(told, ["a must be a string", "b is required", "x is not a known parameter"]);
    }
}
