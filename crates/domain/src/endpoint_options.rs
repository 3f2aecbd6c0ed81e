//! What an endpoint may be given beyond where it wants which events: how it is called, signed for and retried.
//!
//! Here stands what may be shown. The values of custom headers and the key of a client certificate are secrets and are
//! known here by name alone; in the clear they are `domain/private_options.rs`.

use std::fmt;
use std::time::Duration;

use super::id::EndpointId;
use super::invalid_field::InvalidField;
use super::limits;
use super::private_options::HeaderName;
use super::retry_schedule::RetrySchedule;

/// An endpoint's options as they are kept and shown. What is absent is the server's default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EndpointOptions {
    /// Of the headers that every request carries, in the order in which they were given.
    pub headers: Vec<HeaderName>,
    pub retry_schedule: Option<RetrySchedule>,
    /// For a whole exchange.
    pub timeout: Option<Duration>,
    pub signature_schemes: SignatureSchemes,
    /// Verifies `v1a` signatures made with the newest secret's version, once that version has a key.
    pub public_key: Option<String>,
    pub rate_limit: Option<DeliveryRate>,
    pub ordering: DeliveryOrder,
    pub client_certificate: Option<CertificateFacts>,
    /// Counts the changes of what is sealed: what was opened of it counts only at this version.
    pub sealed_version: u32,
}

impl EndpointOptions {
    /// The key that a receiver verifies with; none unless `v1a` is on.
    pub fn shown_public_key(&self) -> Option<&str> {
        self.public_key.as_deref().filter(|_| self.signature_schemes.has_v1a())
    }

    /// Whether anything of the endpoint is sealed beside its secrets.
    pub fn has_sealed(&self) -> bool {
        !self.headers.is_empty() || self.client_certificate.is_some()
    }

    /// Takes over what is given and leaves the rest.
    pub fn apply(&mut self, change: &OptionsChange) {
        if let Some(schedule) = &change.retry_schedule {
            self.retry_schedule.clone_from(schedule);
        }
        self.timeout = change.timeout.unwrap_or(self.timeout);
        self.signature_schemes = change.signature_schemes.unwrap_or(self.signature_schemes);
        self.rate_limit = change.rate_limit.unwrap_or(self.rate_limit);
        self.ordering = change.ordering.unwrap_or(self.ordering);
    }
}

/// What is given of the options that are no secrets; what is absent stays, `Some(None)` is back to the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OptionsChange {
    pub retry_schedule: Option<Option<RetrySchedule>>,
    pub timeout: Option<Option<Duration>>,
    pub signature_schemes: Option<SignatureSchemes>,
    pub rate_limit: Option<Option<DeliveryRate>>,
    pub ordering: Option<DeliveryOrder>,
}

impl OptionsChange {
    pub const fn is_empty(&self) -> bool {
        matches!(
            self,
            Self { retry_schedule: None, timeout: None, signature_schemes: None, rate_limit: None, ordering: None }
        )
    }
}

/// Which signatures a request carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SignatureSchemes {
    /// `v1`: HMAC-SHA-256 with the secret that both sides hold.
    #[default]
    V1,
    /// `v1a` beside it: Ed25519, verified with a key that is no secret.
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

/// In which order an endpoint's deliveries are made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryOrder {
    /// As they fall due, several at once.
    #[default]
    None,
    /// One at a time, in the order in which their events were accepted.
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

/// Deliveries a second, 1 to 1,000.
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

/// How long one exchange may take, in whole seconds from 1 to 45.
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

/// What is shown of a client certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// SHA-256 of the leaf's DER, in lowercase hex.
    pub sha256: String,
}

/// A sealed part of an endpoint's options. Its text names it in the store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SealedPart {
    /// The value of the header of this name.
    Header(HeaderName),
    /// The certificate chain and the private key.
    Certificate,
}

impl SealedPart {
    /// What the sealed bytes belong to: they open for no other endpoint and no other part.
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
