//! One try at a delivery and how it ended: a closed list that knows whose fault it was.

use bytes::Bytes;

use super::time::Timestamp;

/// Who answers for an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Nobody,
    Receiver,
    /// Ours: never charged to the receiver and no step of the schedule.
    Sender,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AttemptOutcome {
    /// The receiver answered 2xx.
    Delivered,
    /// An answer other than 2xx, 3xx and 410.
    HttpError,
    /// 3xx: redirects are never followed.
    Redirect,
    /// 410: the receiver wants no more.
    Gone,
    /// The exchange was not over at its deadline.
    Timeout,
    /// The host's name has no address, or nothing answered for it.
    DnsFailed,
    ConnectFailed,
    TlsFailed,
    /// The connection ended before the answer did.
    ConnectionClosed,
    /// What came back is not HTTP, or its headers are too many or too large.
    InvalidResponse,
    /// The guard refused every way to the host.
    SsrfBlocked,
    /// Rendered and signed with a test key, and not sent.
    Simulated,
    /// The process that had claimed it is gone.
    Abandoned,
    /// A fault of ours that has no other name.
    InternalError,
    /// The operator's forward proxy cannot be reached, or does not do as a proxy does.
    ProxyFailed,
    /// The operator's forward proxy may not connect to where the host is.
    ProxyRefused,
}

impl AttemptOutcome {
    pub const ALL: [Self; 16] = [
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
    ];

    /// What an answer with this status amounts to.
    pub const fn of_status(status: u16) -> Self {
        match status {
            200..=299 => Self::Delivered,
            300..=399 => Self::Redirect,
            410 => Self::Gone,
            _ => Self::HttpError,
        }
    }

    pub const fn fault(self) -> Fault {
        match self {
            Self::Delivered | Self::Simulated | Self::Abandoned => Fault::Nobody,
            Self::InternalError | Self::ProxyFailed => Fault::Sender,
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
        }
    }

    pub const fn code(self) -> i64 {
        self as i64
    }

    pub fn from_code(code: i64) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.code() == code)
    }
}

/// What the log keeps of one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Counts from 1 without a gap.
    pub number: u32,
    pub started_at: Timestamp,
    pub duration_ms: u32,
    pub outcome: AttemptOutcome,
    /// Kept for simulated attempts: exactly what would have been sent.
    pub request_headers: Vec<(String, String)>,
    pub response_status: Option<u16>,
    pub response_headers: Vec<(String, String)>,
    /// The first 4 KiB.
    pub response_body: Option<Bytes>,
    pub error: Option<String>,
    /// Set when the outcome is recorded.
    pub next_attempt_at: Option<Timestamp>,
    /// Where the time went; `None` when no exchange was begun.
    pub phases: Option<AttemptPhases>,
}

/// How long each part of an exchange took, in milliseconds rounded down; `None` for a part that did not happen or did
/// not end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttemptPhases {
    /// Looking the host's name up; a pinned answer needs none.
    pub dns_ms: Option<u32>,
    /// Until one of the host's addresses was connected to.
    pub connect_ms: Option<u32>,
    pub tls_ms: Option<u32>,
    /// From the start of the request until the head of the answer.
    pub first_byte_ms: Option<u32>,
    /// The answer, or the failure, came over a connection that had carried a request before.
    pub connection_reused: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_2xx_is_success_and_every_code_reads_back() {
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
