//! One attempt at a delivery, and its outcome: a closed list that also says whose fault a failure was.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;

use super::payload::PayloadState;
use super::sent_request::{HttpVersion, SentRequest};
use super::time::Timestamp;

/// Who is responsible for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nobody,
    Receiver,
    /// Our own fault: not charged to the receiver, and it uses no step of the schedule.
    Sender,
}

impl Fault {
    pub const ALL: [Self; 3] = [Self::Nobody, Self::Receiver, Self::Sender];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Receiver => "receiver",
            Self::Sender => "sender",
        }
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// The receiver answered 2xx.
    Delivered,
    /// A status other than 2xx, 3xx and 410.
    HttpError,
    /// 3xx. Redirects are never followed.
    Redirect,
    /// 410: the receiver wants no further events.
    Gone,
    /// The exchange did not end before its deadline.
    Timeout,
    /// The host name has no address, or the name servers could not say.
    DnsFailed,
    ConnectFailed,
    TlsFailed,
    /// The connection closed before the answer was complete.
    ConnectionClosed,
    /// The answer is not HTTP, or its headers are too many or too large.
    InvalidResponse,
    /// The guard refused the host's addresses.
    SsrfBlocked,
    /// Published with a test key: rendered and signed, but not sent.
    Simulated,
    /// The process that held the claim is gone.
    Abandoned,
    /// Any other fault of our own.
    InternalError,
    /// The operator's forward proxy cannot be reached, or does not behave as a proxy.
    ProxyFailed,
    /// The operator's forward proxy refuses to connect to the host's address.
    ProxyRefused,
    /// No name server can be reached.
    DnsUnavailable,
}

impl AttemptOutcome {
    pub const ALL: [Self; 17] = [
        Self::Delivered,
        Self::HttpError,
        Self::Redirect,
        Self::Gone,
        Self::Timeout,
        Self::DnsFailed,
        Self::ConnectFailed,
        Self::TlsFailed,
        Self::ConnectionClosed,
        Self::InvalidResponse,
        Self::SsrfBlocked,
        Self::Simulated,
        Self::Abandoned,
        Self::InternalError,
        Self::ProxyFailed,
        Self::ProxyRefused,
        Self::DnsUnavailable,
    ];

    /// The outcome of an answer with this status.
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            300..=399 => Self::Redirect,
            410 => Self::Gone,
            _ => Self::HttpError,
        }
    }

    /// The outcome as a customer of the portal sees it. Proxies and name servers are the operator's own.
    #[must_use]
    pub const fn for_customer(self) -> Self {
        match self {
            Self::ProxyFailed | Self::DnsUnavailable => Self::InternalError,
            Self::ProxyRefused => Self::SsrfBlocked,
            other => other,
        }
    }

    /// The error text of this outcome as a customer of the portal sees it: nothing where it would tell about the
    /// operator's network, and no address.
    pub fn error_for_customer(self, error: &str) -> Option<String> {
        match self {
            Self::Timeout | Self::TlsFailed | Self::ConnectionClosed | Self::InvalidResponse => {
                Some(without_addresses(error))
            }
            _ => None,
        }
    }

    pub const fn fault(self) -> Fault {
        match self {
            Self::Delivered | Self::Simulated | Self::Abandoned => Fault::Nobody,
            Self::InternalError | Self::ProxyFailed | Self::DnsUnavailable => Fault::Sender,
            Self::HttpError
            | Self::Redirect
            | Self::Gone
            | Self::Timeout
            | Self::DnsFailed
            | Self::ConnectFailed
            | Self::TlsFailed
            | Self::ConnectionClosed
            | Self::InvalidResponse
            | Self::SsrfBlocked
            | Self::ProxyRefused => Fault::Receiver,
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::HttpError => "http_error",
            Self::Redirect => "redirect",
            Self::Gone => "gone",
            Self::Timeout => "timeout",
            Self::DnsFailed => "dns_failed",
            Self::ConnectFailed => "connect_failed",
            Self::TlsFailed => "tls_failed",
            Self::ConnectionClosed => "connection_closed",
            Self::InvalidResponse => "invalid_response",
            Self::SsrfBlocked => "ssrf_blocked",
            Self::Simulated => "simulated",
            Self::Abandoned => "abandoned",
            Self::InternalError => "internal_error",
            Self::ProxyFailed => "proxy_failed",
            Self::ProxyRefused => "proxy_refused",
            Self::DnsUnavailable => "dns_unavailable",
        }
    }

    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }
}

/// One attempt as the log keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1 without gaps.
    pub number: u32,
    pub started_at: Timestamp,
    pub duration_ms: u32,
    pub outcome: AttemptOutcome,
    /// The request. `None` when nothing was sent, and in attempts of earlier versions.
    pub request: Option<SentRequest>,
    /// The request's headers. A store returns those that earlier versions kept in full, the service rebuilds the others
    /// from `request`.
    pub request_headers: Vec<(String, String)>,
    /// The address of the last connection: the receiver's, or that of the operator's proxy.
    pub remote_address: Option<IpAddr>,
    pub response_status: Option<u16>,
    pub response_headers: Vec<(String, String)>,
    /// The first 4 KiB.
    pub response_body: Option<Bytes>,
    pub error: Option<String>,
    /// Set when the outcome is recorded.
    pub next_attempt_at: Option<Timestamp>,
    /// Timings of the exchange; `None` if none was started.
    pub phases: Option<AttemptPhases>,
    /// Whether the headers and bodies are still stored.
    pub payload: PayloadState,
}

impl Attempt {
    /// How the request was sent. `None` when none was, or when it is not known.
    pub fn http_version(&self) -> Option<HttpVersion> {
        self.request.as_ref()?.parts()?.wire.map(|wire| wire.version)
    }
}

/// Duration of each part of an exchange, in milliseconds rounded down. `None`: the part did not happen or did not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptPhases {
    /// The DNS look-up. A pinned answer needs none.
    pub dns_ms: Option<u32>,
    /// Until a connection to one of the host's addresses was established.
    pub connect_ms: Option<u32>,
    pub tls_ms: Option<u32>,
    /// From the start of the request to the head of the answer.
    pub first_byte_ms: Option<u32>,
    /// From the head of the answer to its end, or to the last byte that is read.
    pub body_ms: Option<u32>,
    /// The connection had already carried another request.
    pub connection_reused: bool,
}

/// The text with each IP address replaced, with or without a port.
fn without_addresses(text: &str) -> String {
    let is_part = |c: char| c.is_ascii_hexdigit() || matches!(c, '.' | ':' | '[' | ']' | '%');
    let hidden = |word: &str| {
        let bare = word.trim_end_matches(['.', ':']);
        let is_address = bare.parse::<IpAddr>().is_ok() || bare.parse::<SocketAddr>().is_ok();
        let is_bracketed = bare.strip_prefix('[').and_then(|rest| rest.split(']').next());
        is_address || is_bracketed.is_some_and(|inner| inner.parse::<IpAddr>().is_ok())
    };
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let part = is_part(first);
        let end = rest.find(|c| is_part(c) != part).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        shown.push_str(if part && hidden(word) { "(address)" } else { word });
        rest = after;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_customer_sees_no_address_and_no_proxy() {
        let shown = |text: &str| AttemptOutcome::TlsFailed.error_for_customer(text).unwrap();
        assert_eq!(
            shown("at 10.0.0.5:443, then [fd00::1]:8443 and ::1."),
            "at (address), then (address) and (address)"
        );
        assert_eq!(shown("face: no certificate for a.example, 3.5 s"), "face: no certificate for a.example, 3.5 s");
        for outcome in AttemptOutcome::ALL {
            let customer = outcome.for_customer();
            assert_eq!(customer.for_customer(), customer);
            assert!(!customer.as_str().contains("proxy"), "{}", customer.as_str());
        }
        assert_eq!(AttemptOutcome::ConnectFailed.error_for_customer("the egress proxy could not connect"), None);
    }

    #[test]
    fn only_2xx_is_success_and_every_code_parses_back() {
        for status in 100..=599 {
            let delivered = AttemptOutcome::of_status(status) == AttemptOutcome::Delivered;
            assert_eq!(delivered, (200..300).contains(&status), "{status}");
        }
        assert_eq!(AttemptOutcome::of_status(410), AttemptOutcome::Gone);
        assert_eq!(AttemptOutcome::of_status(302), AttemptOutcome::Redirect);
        for outcome in AttemptOutcome::ALL {
            assert_eq!(AttemptOutcome::from_code(outcome.code()), Some(outcome));
        }
    }
}
