//! The label values of families that no other crate has a type for. The values of all others come from the crates that
//! have the types ([`super::Labels`]).

use super::series::Position;

/// A closed set of label values, in the order of the series.
macro_rules! label_values {
    ($($(#[$doc:meta])* $name:ident { $($variant:ident = $text:literal),+ $(,)? })+) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {
                $($variant),+
            }

            impl $name {
                pub const VALUES: &'static [&'static str] = &[$($text),+];
            }

            impl Position for $name {
                fn position(self) -> usize {
                    self as usize
                }
            }
        )+
    };
}

label_values! {
    /// A part of an attempt.
    Phase {
        Dns = "dns",
        Connect = "connect",
        Tls = "tls",
        FirstByte = "first_byte",
        Body = "body",
        Total = "total",
    }

    /// The first digit of an HTTP status.
    StatusClass {
        Informational = "1xx",
        Success = "2xx",
        Redirection = "3xx",
        ClientError = "4xx",
        ServerError = "5xx",
    }

    /// The direction of bytes between this server and receivers.
    Direction {
        Sent = "sent",
        Received = "received",
    }

    /// What became of a span.
    SpanResult {
        Exported = "exported",
        Failed = "failed",
        Dropped = "dropped",
    }

    /// What became of a message of a source.
    MessageResult {
        Accepted = "accepted",
        Repeated = "repeated",
        Parked = "parked",
    }

    /// How a delivery with attempts ended.
    AgeAt {
        Delivered = "delivered",
        Failed = "failed",
    }

    /// Whether a connection to a receiver had carried a request before.
    Reused {
        No = "false",
        Yes = "true",
    }

    /// What a connection to a receiver does.
    ConnectionState {
        Idle = "idle",
        Busy = "busy",
    }

    /// The result of a DNS look-up.
    LookUpResult {
        Found = "found",
        NoAddress = "no_address",
        Timeout = "timeout",
        Failed = "failed",
        Unavailable = "unavailable",
    }

    /// How a repeated event was recognised.
    DeduplicatedBy {
        ExternalId = "external_id",
        IdempotencyKey = "idempotency_key",
    }

    /// The form of a publish.
    PublishKind {
        Single = "single",
        Batch = "batch",
    }

    /// How a delivery stands in the queue.
    QueueState {
        Due = "due",
        Scheduled = "scheduled",
        Held = "held",
        Claimed = "claimed",
    }

    /// How the lane of an endpoint stands.
    LaneState {
        Ready = "ready",
        Waiting = "waiting",
        Paused = "paused",
        Held = "held",
    }

    /// How an endpoint stands.
    EndpointState {
        Ok = "ok",
        Failing = "failing",
        Paused = "paused",
        Disabled = "disabled",
        Off = "off",
    }

    /// The database of a store.
    Database {
        Sqlite = "sqlite",
        Postgres = "postgres",
    }

    /// What a connection of this server to its database does.
    PoolState {
        Idle = "idle",
        Busy = "busy",
    }

    /// The state of the disk budget.
    DiskStateLabel {
        Ok = "ok",
        Tight = "tight",
        Full = "full",
        Stopped = "stopped",
    }

    /// What retention removes.
    RemovedKind {
        Payloads = "payloads",
        Deliveries = "deliveries",
        Events = "events",
        Answers = "answers",
        Audit = "audit",
    }

    /// A file of the settings that is read while the server runs.
    WatchedFile {
        Certificate = "tls_certificate",
    }
}

impl StatusClass {
    /// `None` for a number that is no status.
    pub const fn of(status: u16) -> Option<Self> {
        Some(match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => return None,
        })
    }
}
