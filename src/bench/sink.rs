//! The receiver of a run: answers 204 at once, notes each arrival, and checks the signature of a sample.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::crypto::MacKey;
use crate::domain::signing::signature_header;

use super::histogram::Histogram;
use super::wire::{header, pass, read_message};

/// Digits of the number that ends an event's `data`.
pub const NUMBER_DIGITS: usize = 10;
/// One in so many arrivals has its signature checked.
const SAMPLE: u64 = 64;

/// What a run leaves behind.
pub struct Arrivals {
    started: Instant,
    /// When each event was published, or should have been, in microseconds since `started`.
    published: Vec<AtomicU64>,
    counts: Vec<AtomicU32>,
    total: AtomicU64,
    last_micros: AtomicU64,
    bad_signatures: AtomicU64,
    latencies: Mutex<Histogram>,
    keys: Mutex<Vec<MacKey>>,
    arrived: Notify,
}

impl Arrivals {
    pub fn new(events: usize) -> Arc<Self> {
        Arc::new(Self {
            started: Instant::now(),
            published: std::iter::repeat_with(AtomicU64::default).take(events).collect(),
            counts: std::iter::repeat_with(AtomicU32::default).take(events).collect(),
            total: AtomicU64::new(0),
            last_micros: AtomicU64::new(0),
            bad_signatures: AtomicU64::new(0),
            latencies: Mutex::default(),
            keys: Mutex::default(),
            arrived: Notify::new(),
        })
    }

    pub fn expect_signed_with(&self, key: MacKey) {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).push(key);
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

    /// Waits until `expected` have arrived, or none has for `patience`.
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

    /// Events that arrived fewer times than they should have, and arrivals beyond that.
    pub fn missing_and_repeated(&self, events: usize, times_each: u32) -> (u64, u64) {
        self.counts[..events].iter().fold((0, 0), |(missing, repeated), count| {
            let count = count.load(Ordering::Relaxed);
            (
                missing + u64::from(times_each.saturating_sub(count)),
                repeated + u64::from(count.saturating_sub(times_each)),
            )
        })
    }

    pub fn bad_signatures(&self) -> u64 {
        self.bad_signatures.load(Ordering::Relaxed)
    }

    pub fn latencies(&self) -> Histogram {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From the first publish to the last arrival.
    pub fn span(&self, events: usize) -> Duration {
        let first = self.published[..events].iter().map(|at| at.load(Ordering::Relaxed)).min().unwrap_or_default();
        Duration::from_micros(self.last_micros.load(Ordering::Relaxed).saturating_sub(first))
    }

    fn arrived(&self, head: &[u8], body: &[u8], local: &mut Histogram) {
        let at = self.micros(Instant::now());
        let total = self.total.fetch_add(1, Ordering::Relaxed) + 1;
        self.last_micros.fetch_max(at, Ordering::Relaxed);
        if let Some(number) = number_of(body)
            && let Some(count) = self.counts.get(number)
        {
            count.fetch_add(1, Ordering::Relaxed);
            let published = self.published[number].load(Ordering::Relaxed);
            local.record(Duration::from_micros(at.saturating_sub(published)));
        }
        if total.is_multiple_of(SAMPLE) {
            if !self.is_signed(head, body) {
                self.bad_signatures.fetch_add(1, Ordering::Relaxed);
            }
            self.arrived.notify_waiters();
        }
    }

    fn is_signed(&self, head: &[u8], body: &[u8]) -> bool {
        let text = |name: &[u8]| header(head, name).and_then(|value| std::str::from_utf8(value).ok());
        let (Some(id), Some(timestamp), Some(signature)) =
            (text(b"webhook-id"), text(b"webhook-timestamp"), text(b"webhook-signature"))
        else {
            return false;
        };
        let Ok(timestamp) = timestamp.parse() else { return false };
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.iter().any(|key| signature_header([key], id, timestamp, body) == signature)
    }
}

/// The number that stands at the end of `data`, just before the two closing braces.
fn number_of(body: &[u8]) -> Option<usize> {
    let end = body.len().checked_sub(2)?;
    std::str::from_utf8(body.get(end.checked_sub(NUMBER_DIGITS)?..end)?).ok()?.parse().ok()
}

/// Listens on a free port until the runtime ends.
pub async fn start(arrivals: Arc<Arrivals>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&arrivals)));
        }
    });
    Ok(address)
}

async fn serve(mut stream: TcpStream, arrivals: Arc<Arrivals>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    let mut latencies = Histogram::default();
    while let Ok(Some(head)) = read_message(&mut stream, &mut buffer).await {
        let (text, rest) = buffer.split_at(head.length);
        arrivals.arrived(text, &rest[..head.body_bytes], &mut latencies);
        pass(&mut buffer, &head);
        if stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.is_err() {
            break;
        }
    }
    arrivals.latencies.lock().unwrap_or_else(PoisonError::into_inner).merge(&latencies);
}

/// The headers of a signed request, for the ceiling.
pub fn signed_headers(id: &str, timestamp: i64, signature: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(4);
    headers.insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(HeaderName::from_static("webhook-id"), HeaderValue::from_str(id).ok()?);
    headers.insert(HeaderName::from_static("webhook-timestamp"), HeaderValue::from(timestamp));
    headers.insert(HeaderName::from_static("webhook-signature"), HeaderValue::from_str(signature).ok()?);
    Some(headers)
}
