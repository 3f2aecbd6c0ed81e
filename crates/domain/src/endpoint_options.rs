//! The options of an endpoint: how it is called, signed for and retried.
//!
//! Contains only what may be shown. The values of custom headers and the key of a client certificate are secrets; their
//! plaintext is in `private_options.rs`, and this file knows only their names.

use std::fmt;
use std::time::Duration;

use super::id::EndpointId;
use super::invalid_field::InvalidField;
use super::limits;
use super::private_options::HeaderName;
use super::retry_schedule::RetrySchedule;

/// An endpoint's options as they are stored and shown. `None` means the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Names of the headers that every request carries, in the order in which they were set.
    pub headers: Vec<HeaderName>,
    pub retry_schedule: Option<RetrySchedule>,
    /// Deadline of a whole exchange.
    pub timeout: Option<Duration>,
    pub signature_schemes: SignatureSchemes,
    /// Verifies `v1a` signatures of the newest secret version, once that version has a key.
    pub public_key: Option<String>,
    pub rate_limit: Option<DeliveryRate>,
    pub ordering: DeliveryOrder,
    /// Whether requests carry the trace of their event.
    pub trace_forwarding: Option<bool>,
    pub client_certificate: Option<CertificateFacts>,
    /// Counts changes of the sealed options. An opened copy is valid only at this version.
    pub sealed_version: u32,
}

impl EndpointOptions {
    /// The key with which a receiver verifies; `None` unless `v1a` is on.
    pub fn shown_public_key(&self) -> Option<&str> {
        self.public_key.as_deref().filter(|_| self.signature_schemes.has_v1a())
    }

    /// Whether the endpoint has sealed options, beside its secrets.
    pub fn has_sealed(&self) -> bool {
        !self.headers.is_empty() || self.client_certificate.is_some()
    }

    /// Applies the given fields and keeps the others.
    pub fn apply(&mut self, change: &OptionsChange) {
        if let Some(schedule) = &change.retry_schedule {
            self.retry_schedule.clone_from(schedule);
        }
        self.timeout = change.timeout.unwrap_or(self.timeout);
        self.signature_schemes = change.signature_schemes.unwrap_or(self.signature_schemes);
        self.rate_limit = change.rate_limit.unwrap_or(self.rate_limit);
        self.ordering = change.ordering.unwrap_or(self.ordering);
        self.trace_forwarding = change.trace_forwarding.unwrap_or(self.trace_forwarding);
    }
}

/// Changes of the options that are not secret. `None` keeps the stored value, `Some(None)` restores the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionsChange {
    pub retry_schedule: Option<Option<RetrySchedule>>,
    pub timeout: Option<Option<Duration>>,
    pub signature_schemes: Option<SignatureSchemes>,
    pub rate_limit: Option<Option<DeliveryRate>>,
    pub ordering: Option<DeliveryOrder>,
    pub trace_forwarding: Option<Option<bool>>,
}

impl OptionsChange {
    pub const fn is_empty(&self) -> bool {
        matches!(
            self,
            Self {
                retry_schedule: None,
                timeout: None,
                signature_schemes: None,
                rate_limit: None,
                ordering: None,
                trace_forwarding: None,
            }
        )
    }
}

/// The signatures that a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureSchemes {
    /// `v1`: HMAC-SHA-256 with the shared secret.
    #[default]
    V1,
    /// Also `v1a`: Ed25519, verified with a public key.
    V1AndV1a,
}

impl SignatureSchemes {
    pub const fn has_v1a(self) -> bool {
        matches!(self, Self::V1AndV1a)
    }

    pub const fn as_strs(self) -> &'static [&'static str] {
        match self {
            Self::V1 => &["v1"],
            Self::V1AndV1a => &["v1", "v1a"],
        }
    }

    /// # Errors
    /// When the names are not exactly `v1`, or `v1` and `v1a` in either order.
    pub fn parse(names: &[String]) -> Result<Self, InvalidField> {
        match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["v1"] => Ok(Self::V1),
            ["v1", "v1a"] | ["v1a", "v1"] => Ok(Self::V1AndV1a),
            _ => Err(InvalidField("must be [\"v1\"] or [\"v1\", \"v1a\"]")),
        }
    }

    pub const fn code(self) -> i64 {
        self.has_v1a() as i64
    }

    pub const fn from_code(code: i64) -> Option<Self> {
        match code {
            0 => Some(Self::V1),
            1 => Some(Self::V1AndV1a),
            _ => None,
        }
    }
}

/// The order of an endpoint's deliveries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryOrder {
    /// As they become due, several concurrently.
    #[default]
    None,
    /// One at a time, in the order in which the events were accepted.
    Strict,
}

impl DeliveryOrder {
    pub const ALL: [Self; 2] = [Self::None, Self::Strict];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Strict => "strict",
        }
    }

    /// # Errors
    /// When the text is neither `none` nor `strict`.
    pub fn parse(text: &str) -> Result<Self, InvalidField> {
        let known = Self::ALL.into_iter().find(|order| order.as_str() == text);
        known.ok_or(InvalidField("must be \"none\" or \"strict\""))
    }

    pub const fn code(self) -> i64 {
        match self {
            Self::None => 0,
            Self::Strict => 1,
        }
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|order| order.code() == code)
    }
}

/// Deliveries per second, 1 to 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRate(u32);

impl DeliveryRate {
    /// # Errors
    /// When the number is out of range.
    pub fn parse(per_second: u64) -> Result<Self, InvalidField> {
        match u32::try_from(per_second) {
            Ok(per_second) if (1..=limits::DELIVERY_RATE_MAX).contains(&per_second) => Ok(Self(per_second)),
            _ => Err(InvalidField("must be a whole number from 1 to 1000")),
        }
    }

    pub const fn per_second(self) -> u32 {
        self.0
    }
}

/// Reads the deadline of one exchange: whole seconds from 1 to 45.
///
/// # Errors
/// When the number is out of range.
pub fn parse_timeout(seconds: u64) -> Result<Duration, InvalidField> {
    let timeout = Duration::from_secs(seconds);
    if seconds > 0 && timeout <= limits::ATTEMPT_DEADLINE_MAX {
        Ok(timeout)
    } else {
        Err(InvalidField("must be a whole number from 1 to 45"))
    }
}

/// The part of a client certificate that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the leaf's DER, in lowercase hex.
    pub sha256: String,
}

/// A sealed part of an endpoint's options. The store keys it by its `Display` text.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SealedPart {
    /// The value of the header of this name.
    Header(HeaderName),
    /// The certificate chain and the private key.
    Certificate,
}

impl SealedPart {
    /// The associated data of the sealed bytes. They open for no other endpoint and no other part.
    pub fn record(&self, endpoint: EndpointId) -> String {
        format!("{endpoint}/{self}")
    }
}

impl fmt::Display for SealedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header/{}", name.lowercase()),
            Self::Certificate => f.write_str("certificate"),
        }
    }
}
