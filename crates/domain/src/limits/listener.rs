//! Limits of listeners and their consumers.

use std::time::Duration;

/// A listener that is not durable is removed when no consumer has used it for this long (contract).
pub const LISTENER_KEPT: Duration = Duration::from_secs(24 * 3600);
/// How often it is noted that a consumer uses a listener: often enough for [`LISTENER_KEPT`], and seldom enough that
/// waiting consumers write nothing.
pub const LISTENER_SEEN_EVERY: Duration = Duration::from_secs(300);
/// Deliveries that one request leases, renews or settles (contract).
pub const LEASES_PER_REQUEST: u64 = 100;
/// How long a request for leases waits for a delivery (contract): shorter than proxies wait for an answer.
pub const LEASE_WAIT_MAX: Duration = Duration::from_secs(30);
/// A waiting request looks into the queue this often, with or without a wake-up.
pub const LEASE_POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Bytes of envelopes after which one request leases no more: the answer repeats them in base64.
pub const LEASED_BYTES: usize = 2 * 1024 * 1024;
/// Deliveries that are leased before their bytes are counted.
pub const LEASED_AT_ONCE: usize = 8;
/// How long one request of `postrider listen` waits for a delivery: a connection that is cut is noticed soon.
pub const LISTEN_WAIT: Duration = Duration::from_secs(15);
/// How often `postrider listen` renews its leases: twice before they lapse.
pub const LISTEN_RENEWS_EVERY: Duration = Duration::from_secs(20);
/// How long `postrider listen` waits for answers of the local server when it is stopped.
pub const LISTEN_DRAIN: Duration = Duration::from_secs(2);
/// Bytes of the local server's answer that `postrider listen` reads.
pub const LOCAL_ANSWER_BYTES: usize = 64 * 1024;
/// Characters of the error of a result that a consumer settles.
pub const SETTLED_ERROR_CHARS: usize = 1_000;
