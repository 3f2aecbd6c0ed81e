//! Counts arrivals: how often each event arrived, when, and whether at a matching endpoint. Verifies the signatures of
//! a sample with the endpoint's secret.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use postrider_crypto::MacKey;
use postrider_domain::signing::signature_header;

use super::load::Load;
use super::series::Series;
use super::wire::{header, path};

/// Digits of the number at the end of an event's `data`.
pub const NUMBER_DIGITS: usize = 10;
/// One of this many arrivals has its signature checked.
const SAMPLING_INTERVAL: u64 = 64;

/// The arrivals of one run.
pub struct Arrivals {
    load: Load,
    started: Instant,
    /// When each event was published, or should have been at a fixed rate, in microseconds since `started`.
    published: Vec<AtomicU64>,
    counts: Vec<AtomicU32>,
    total: AtomicU64,
    last_micros: AtomicU64,
    misrouted: AtomicU64,
    bad_signatures: AtomicU64,
    failed_on_purpose: AtomicU64,
    connections: AtomicU64,
    /// Random numbers drawn so far.
    draws: AtomicU64,
    /// Start of publishing, in microseconds since `started`.
    began_micros: AtomicU64,
    series: Mutex<Series>,
    /// Indexed by the number of the endpoint.
    keys: Mutex<Vec<Option<MacKey>>>,
    arrived: Notify,
}

impl Arrivals {
    pub fn new(load: &Load) -> Arc<Self> {
        let events = load.events_max();
        Arc::new(Self {
            load: load.clone(),
            started: Instant::now(),
            published: std::iter::repeat_with(AtomicU64::default).take(events).collect(),
            counts: std::iter::repeat_with(AtomicU32::default).take(events).collect(),
            total: AtomicU64::new(0),
            last_micros: AtomicU64::new(0),
            misrouted: AtomicU64::new(0),
            bad_signatures: AtomicU64::new(0),
            failed_on_purpose: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            draws: AtomicU64::new(0),
            began_micros: AtomicU64::new(0),
            series: Mutex::default(),
            keys: Mutex::new(std::iter::repeat_with(|| None).take(load.endpoints()).collect()),
            arrived: Notify::new(),
        })
    }

    pub fn expect_signed_with(&self, endpoint: usize, key: MacKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)[endpoint] = Some(key);
    }

    pub fn publishing_begins(&self, at: Instant) {
        self.began_micros.store(self.micros(at), Ordering::Relaxed);
    }

    pub fn publishing(&self, number: usize, at: Instant) {
        self.published[number].store(self.micros(at), Ordering::Relaxed);
    }

    fn micros(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_micros()).unwrap_or(u64::MAX)
    }

    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Waits until `expected` events have arrived, or none has arrived for `patience`.
    pub async fn wait_for(&self, expected: u64, patience: Duration) {
        let mut seen = self.total();
        let mut quiet_since = Instant::now();
        while seen < expected && quiet_since.elapsed() < patience {
            let _ = tokio::time::timeout(Duration::from_millis(100), self.arrived.notified()).await;
            let now = self.total();
            if now > seen {
                (seen, quiet_since) = (now, Instant::now());
            }
        }
    }

    /// Deliveries that did not arrive, and arrivals beyond the expected number.
    pub fn missing_and_repeated(&self, events: usize) -> (u64, u64) {
        let times_each = u32::try_from(self.load.fan_out).unwrap_or(u32::MAX);
        self.counts[..events].iter().fold((0, 0), |(missing, repeated), count| {
            let count = count.load(Ordering::Relaxed);
            (
                missing + u64::from(times_each.saturating_sub(count)),
                repeated + u64::from(count.saturating_sub(times_each)),
            )
        })
    }

    /// Arrivals at an endpoint that does not match the event.
    pub fn misrouted(&self) -> u64 {
        self.misrouted.load(Ordering::Relaxed)
    }

    pub fn bad_signatures(&self) -> u64 {
        self.bad_signatures.load(Ordering::Relaxed)
    }

    /// Counts a request that is answered with an error, so that it is retried.
    pub fn failed_on_purpose(&self) {
        self.failed_on_purpose.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were answered with an error.
    pub fn failures(&self) -> u64 {
        self.failed_on_purpose.load(Ordering::Relaxed)
    }

    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// Open connections to the sink.
    pub fn open_connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A uniform number below `bound`. The sequence is the same in each run.
    pub fn random_below(&self, bound: u32) -> u32 {
        let mixed = mix(self.draws.fetch_add(1, Ordering::Relaxed));
        u32::try_from(mixed % u64::from(bound)).unwrap_or(0)
    }

    /// Times from publish to arrival, for each second of the run.
    pub fn series(&self) -> Series {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the first publish to the last arrival.
    pub fn span(&self, events: usize) -> Duration {
        let first = self.published[..events].iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or_default();
        Duration::from_micros(self.last_micros.load(Ordering::Relaxed).saturating_sub(first))
    }

    /// Counts a request that is answered with success.
    pub fn arrived(&self, head: &[u8], body: &[u8]) {
        let at = self.micros(Instant::now());
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        self.last_micros.fetch_max(at, Ordering::Relaxed);
        let endpoint = endpoint_of(head);
        if let Some(number) = number_of(body)
            && let Some(count) = self.counts.get(number)
        {
            count.fetch_add(1, Ordering::Relaxed);
            let published = self.published[number].load(Ordering::Relaxed);
            let latency = Duration::from_micros(at.saturating_sub(published));
            let since = Duration::from_micros(at.saturating_sub(self.began_micros.load(Ordering::Relaxed)));
            self.series.lock().unwrap_or_else(PoisonError::into_inner).record(since, latency);
            if !endpoint.is_some_and(|endpoint| self.load.is_for(number, endpoint)) {
                self.misrouted.fetch_add(1, Ordering::Relaxed);
            }
        }
        if total.is_multiple_of(SAMPLING_INTERVAL) {
            if !endpoint.is_some_and(|endpoint| self.is_signed(endpoint, head, body)) {
                self.bad_signatures.fetch_add(1, Ordering::Relaxed);
            }
            self.arrived.notify_waiters();
        }
    }

    /// Checks the signature with the secret of the called endpoint.
    fn is_signed(&self, endpoint: usize, head: &[u8], body: &[u8]) -> bool {
        let text = |name: &[u8]| header(head, name).and_then(|value| std::str::from_utf8(value).ok());
        let (Some(id), Some(timestamp), Some(signature)) =
            (text(b"webhook-id"), text(b"webhook-timestamp"), text(b"webhook-signature"))
        else {
            return false;
        };
        let Ok(timestamp) = timestamp.parse() else { return false };
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = keys.get(endpoint).and_then(Option::as_ref);
        key.is_some_and(|key| signature_header([key], id, timestamp, body) == signature)
    }
}

/// SplitMix64: random enough for answers, from a counter.
const fn mix(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Reads the number of the endpoint, which is the path of its URL.
fn endpoint_of(head: &[u8]) -> Option<usize> {
    std::str::from_utf8(path(head)?.strip_prefix(b"/")?).ok()?.parse().ok()
}

/// Reads the number at the end of `data`, before the two closing braces.
fn number_of(body: &[u8]) -> Option<usize> {
    let end = body.len().checked_sub(2)?;
    std::str::from_utf8(body.get(end.checked_sub(NUMBER_DIGITS)?..end)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrivals() -> Arc<Arrivals> {
        let load = Load {
            workspaces: 2,
            projects: 1,
            fan_out: 1,
            events_per_request: 1,
            events_per_second: Some(10),
            publishers: 1,
            payload_bytes: 1,
            duration: Duration::from_secs(1),
        };
        let arrivals = Arrivals::new(&load);
        for (endpoint, secret) in [b"of the first", b"of the other"].into_iter().enumerate() {
            arrivals.expect_signed_with(endpoint, MacKey::new(secret));
        }
        arrivals
    }

    fn head(endpoint: usize, secret: &[u8], body: &[u8]) -> String {
        let signature = signature_header([&MacKey::new(secret)], "evt_1", 7, body);
        format!(
            "POST /{endpoint} HTTP/1.1\r\nwebhook-id: evt_1\r\nwebhook-timestamp: 7\r\nwebhook-signature: {signature}\r\n\r\n"
        )
    }

    #[test]
    fn a_signature_counts_only_with_the_called_endpoints_secret() {
        let (arrivals, body) = (arrivals(), br#"{"data":{"n":10000000001}}"#);
        assert!(arrivals.is_signed(1, head(1, b"of the other", body).as_bytes(), body));
        assert!(!arrivals.is_signed(1, head(1, b"of the first", body).as_bytes(), body));
        assert!(!arrivals.is_signed(2, head(2, b"of the first", body).as_bytes(), body));
    }

    #[test]
    fn one_draw_in_five_is_a_failure() {
        let arrivals = arrivals();
        let failures = (0..10_000).filter(|_| arrivals.random_below(5) == 0).count();
        assert!((1_900..2_100).contains(&failures), "{failures}");
    }

    #[test]
    fn misrouted_and_missing_arrivals_are_counted() {
        let (arrivals, body) = (arrivals(), br#"{"data":{"n":10000000001}}"#);
        arrivals.arrived(head(1, b"of the other", body).as_bytes(), body);
        assert_eq!((arrivals.misrouted(), arrivals.missing_and_repeated(2)), (0, (1, 0)));
        arrivals.arrived(head(0, b"of the first", body).as_bytes(), body);
        assert_eq!((arrivals.misrouted(), arrivals.missing_and_repeated(2)), (1, (1, 1)));
    }
}
