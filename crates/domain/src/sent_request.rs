//! The head of an attempt's request in the compact form that the stores keep, and the headers rebuilt from it.
//!
//! The form leaves out what other columns tell: the ids of the event and the delivery, the attempt's number and
//! instant, the cause. It keeps what can change later: the signatures, the host, the names of custom headers, our
//! version.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use super::delivery::DeliveryCause;
use super::event_type::Brand;
use super::id::{DeliveryId, EventId};
use super::private_options::REDACTED;
use super::time::Timestamp;
use super::trace_context::{TRACEPARENT, TraceContext};

/// What the value of `User-Agent` starts with. The version follows.
pub const AGENT_PRODUCT: &str = "Postrider/";
pub const CONTENT_TYPE: &str = "application/json";

/// The encoded form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRequest(Vec<u8>);

/// What the form holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestParts {
    /// Names of the endpoint's own headers, as sent. Their values are secret and are not kept.
    pub custom_headers: Vec<String>,
    /// The value of `User-Agent`.
    pub agent: String,
    /// The value of `webhook-signature`.
    pub signature: String,
    /// The value of `traceparent`, if it was sent.
    pub trace: Option<TraceContext>,
    /// `None` when nothing was sent: the attempt was simulated.
    pub wire: Option<WireParts>,
}

/// What the connection added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WireParts {
    pub version: HttpVersion,
    /// The value of `host`, or of `:authority` in HTTP/2.
    pub authority: String,
    pub content_length: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    Http1,
    Http2,
}

impl HttpVersion {
    pub const ALL: [Self; 2] = [Self::Http1, Self::Http2];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "1.1",
            Self::Http2 => "2",
        }
    }
}

/// What other columns tell about the request.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'c> {
    pub brand: &'c Brand,
    pub event_id: EventId,
    pub delivery_id: DeliveryId,
    pub cause: DeliveryCause,
    pub attempt: u32,
    pub started_at: Timestamp,
}

impl RequestParts {
    /// All headers in the order in which they were sent.
    pub fn headers(&self, context: &RequestContext<'_>) -> Vec<(String, String)> {
        let branded = |name| context.brand.header(name).to_ascii_lowercase();
        let mut headers = Vec::with_capacity(12 + self.custom_headers.len());
        if let Some(WireParts { version: HttpVersion::Http2, authority, .. }) = &self.wire {
            headers.push((":authority".to_owned(), authority.clone()));
        }
        headers.extend(self.custom_headers.iter().map(|name| (name.clone(), REDACTED.to_owned())));
        let mut add = |name: &str, value: String| headers.push((name.to_owned(), value));
        add("content-type", CONTENT_TYPE.to_owned());
        add("user-agent", self.agent.clone());
        add("webhook-id", context.event_id.to_string());
        add("webhook-timestamp", context.started_at.seconds().to_string());
        add("webhook-signature", self.signature.clone());
        add(&branded("Delivery-Id"), context.delivery_id.to_string());
        add(&branded("Delivery-Attempt"), context.attempt.to_string());
        if context.cause.is_repeat() {
            add(&branded("Replay"), "true".to_owned());
        }
        if context.cause == DeliveryCause::Test {
            add(&branded("Test"), "true".to_owned());
        }
        if let Some(trace) = &self.trace {
            add(TRACEPARENT, trace.to_string());
        }
        if let Some(wire) = &self.wire {
            if wire.version == HttpVersion::Http1 {
                add("host", wire.authority.clone());
            }
            add("content-length", wire.content_length.to_string());
        }
        headers
    }
}

// The first byte: the connection in the lower two bits, then flags.
const SIMULATED: u8 = 0;
const HTTP_1: u8 = 1;
const HTTP_2: u8 = 2;
const WIRE: u8 = 0b11;
const HAS_CUSTOM_HEADERS: u8 = 0b100;
/// The agent is kept whole, because it does not start with [`AGENT_PRODUCT`].
const WHOLE_AGENT: u8 = 0b1000;
/// The signature is a single `v1`: the most frequent one, which needs no list.
const SINGLE_V1: u8 = 0b1_0000;
const HAS_TRACE: u8 = 0b10_0000;

// A part of a list of signatures. Any other text is kept as it is.
const V1: u8 = 1;
const V1A: u8 = 2;
const TEXT: u8 = 3;
const V1_BYTES: usize = 32;
const V1A_BYTES: usize = 64;
const TRACE_BYTES: usize = TraceContext::STORED_BYTES;

impl SentRequest {
    pub fn new(parts: &RequestParts) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.push(match parts.wire.as_ref().map(|wire| wire.version) {
            None => SIMULATED,
            Some(HttpVersion::Http1) => HTTP_1,
            Some(HttpVersion::Http2) => HTTP_2,
        });
        match parts.agent.strip_prefix(AGENT_PRODUCT) {
            Some(version) => push_text(&mut bytes, version),
            None => {
                bytes[0] |= WHOLE_AGENT;
                push_text(&mut bytes, &parts.agent);
            }
        }
        if let Some(wire) = &parts.wire {
            push_number(&mut bytes, wire.content_length);
            push_text(&mut bytes, &wire.authority);
        }
        if !parts.custom_headers.is_empty() {
            bytes[0] |= HAS_CUSTOM_HEADERS;
            push_number(&mut bytes, parts.custom_headers.len() as u64);
            for name in &parts.custom_headers {
                push_text(&mut bytes, name);
            }
        }
        if let Some(trace) = &parts.trace {
            bytes[0] |= HAS_TRACE;
            bytes.extend(trace.to_bytes());
        }
        match raw_signature(&parts.signature, "v1,", V1_BYTES) {
            Some(raw) => {
                bytes[0] |= SINGLE_V1;
                bytes.extend(raw);
            }
            None => push_signatures(&mut bytes, &parts.signature),
        }
        Self(bytes)
    }

    pub const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// `None` when the bytes are not of this form.
    pub fn parts(&self) -> Option<RequestParts> {
        let mut rest = &self.0[..];
        let [first] = *take(&mut rest, 1)? else { return None };
        let agent = take_text(&mut rest)?;
        let version = match first & WIRE {
            SIMULATED => None,
            HTTP_1 => Some(HttpVersion::Http1),
            HTTP_2 => Some(HttpVersion::Http2),
            _ => return None,
        };
        let wire = match version {
            None => None,
            Some(version) => {
                let content_length = take_number(&mut rest)?;
                Some(WireParts { version, content_length, authority: take_text(&mut rest)? })
            }
        };
        let mut custom_headers = Vec::new();
        if first & HAS_CUSTOM_HEADERS != 0 {
            for _ in 0..take_number(&mut rest)? {
                custom_headers.push(take_text(&mut rest)?);
            }
        }
        let trace = match first & HAS_TRACE != 0 {
            true => Some(TraceContext::from_bytes(take(&mut rest, TRACE_BYTES)?)?),
            false => None,
        };
        let signature = match first & SINGLE_V1 != 0 {
            true => encoded("v1,", take(&mut rest, V1_BYTES)?),
            false => take_signatures(&mut rest)?,
        };
        let agent = if first & WHOLE_AGENT != 0 { agent } else { format!("{AGENT_PRODUCT}{agent}") };
        rest.is_empty().then_some(RequestParts { custom_headers, agent, signature, trace, wire })
    }
}

/// The bytes of a signature of this scheme, if the text is exactly that.
fn raw_signature(text: &str, scheme: &str, length: usize) -> Option<Vec<u8>> {
    let raw = BASE64_STANDARD.decode(text.strip_prefix(scheme)?).ok()?;
    (raw.len() == length).then_some(raw)
}

fn encoded(scheme: &str, raw: &[u8]) -> String {
    let mut text = scheme.to_owned();
    BASE64_STANDARD.encode_string(raw, &mut text);
    text
}

fn push_signatures(bytes: &mut Vec<u8>, signature: &str) {
    let parts: Vec<&str> = signature.split(' ').collect();
    push_number(bytes, parts.len() as u64);
    for part in parts {
        if let Some(raw) = raw_signature(part, "v1,", V1_BYTES) {
            bytes.push(V1);
            bytes.extend(raw);
        } else if let Some(raw) = raw_signature(part, "v1a,", V1A_BYTES) {
            bytes.push(V1A);
            bytes.extend(raw);
        } else {
            bytes.push(TEXT);
            push_text(bytes, part);
        }
    }
}

fn take_signatures(rest: &mut &[u8]) -> Option<String> {
    let mut parts = Vec::new();
    for _ in 0..take_number(rest)? {
        let [kind] = *take(rest, 1)? else { return None };
        parts.push(match kind {
            V1 => encoded("v1,", take(rest, V1_BYTES)?),
            V1A => encoded("v1a,", take(rest, V1A_BYTES)?),
            TEXT => take_text(rest)?,
            _ => return None,
        });
    }
    Some(parts.join(" "))
}

/// Seven bits a byte, the lowest first.
fn push_number(bytes: &mut Vec<u8>, mut number: u64) {
    loop {
        let [low, ..] = number.to_le_bytes();
        number >>= 7;
        if number == 0 {
            bytes.push(low & 0x7f);
            return;
        }
        bytes.push(low | 0x80);
    }
}

fn take_number(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let [byte] = *take(rest, 1)? else { return None };
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn push_text(bytes: &mut Vec<u8>, text: &str) {
    push_number(bytes, text.len() as u64);
    bytes.extend(text.as_bytes());
}

fn take_text(rest: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(take_number(rest)?).ok()?;
    String::from_utf8(take(rest, length)?.to_vec()).ok()
}

fn take<'b>(rest: &mut &'b [u8], length: usize) -> Option<&'b [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(signature: &str) -> RequestParts {
        RequestParts {
            custom_headers: Vec::new(),
            agent: "Postrider/0.1.0".to_owned(),
            signature: signature.to_owned(),
            trace: None,
            wire: Some(WireParts {
                version: HttpVersion::Http1,
                authority: "hooks.example:8443".to_owned(),
                content_length: 262_144,
            }),
        }
    }

    fn trace() -> TraceContext {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        TraceContext::of_headers(std::iter::once(text.as_bytes())).unwrap()
    }

    const V1_TEXT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    const V1A_TEXT: &str =
        "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg==";

    #[test]
    fn every_form_reads_back_as_it_was() {
        let simulated = RequestParts { wire: None, ..parts(V1_TEXT) };
        let own_headers = vec!["x-token".to_owned(), "x-\u{e9}".to_owned()];
        let all = [
            parts(V1_TEXT),
            parts(&format!("{V1_TEXT} {V1A_TEXT}")),
            parts(&format!("{V1_TEXT} {V1_TEXT} {V1A_TEXT}")),
            parts(V1A_TEXT),
            parts(""),
            parts("v1,short v1a,not-base64! v2,future"),
            RequestParts { custom_headers: own_headers, agent: "Other/2".to_owned(), ..parts(V1_TEXT) },
            RequestParts { trace: Some(trace()), ..parts(V1_TEXT) },
            RequestParts { trace: Some(trace()), ..parts(&format!("{V1_TEXT} {V1A_TEXT}")) },
            simulated,
        ];
        for parts in all {
            assert_eq!(SentRequest::new(&parts).parts().as_ref(), Some(&parts));
        }
    }

    #[test]
    fn a_cut_or_longer_form_is_refused_and_does_not_panic() {
        let whole = SentRequest::new(&RequestParts {
            custom_headers: vec!["x-token".to_owned()],
            trace: Some(trace()),
            ..parts(&format!("{V1_TEXT} {V1A_TEXT}"))
        });
        let whole = whole.as_bytes();
        for length in 0..whole.len() {
            assert_eq!(SentRequest::from_bytes(whole[..length].to_vec()).parts(), None, "{length}");
        }
        assert_eq!(SentRequest::from_bytes([whole, &[0]].concat()).parts(), None);
        for byte in 0..=u8::MAX {
            let _ = SentRequest::from_bytes(vec![byte; 40]).parts();
        }
    }

    #[test]
    fn the_usual_form_takes_little_more_than_its_signature_and_host() {
        let form = SentRequest::new(&parts(V1_TEXT));
        assert!(form.as_bytes().len() <= V1_BYTES + "hooks.example:8443".len() + 12, "{}", form.as_bytes().len());
    }
}
