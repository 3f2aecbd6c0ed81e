//! Connections kept for the next request: idle HTTP/1.1 ones in stacks, one multiplexed HTTP/2 connection, per origin
//! and client identity.
//!
//! Ours rather than a library's because a refused verdict must close what is pooled, because nothing may be spawned
//! for a request, and because an idle connection must not outlive its use by more than a minute. It must not open
//! connections.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio::time::{Instant, timeout};

use super::identity::{ClientIdentity, IdentityId};
use super::stream::{Connected, Meter, Protocol, Stream};
use super::target::{Host, Origin, TargetUrl};
use postrider_domain::limits;

/// How many connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    pub max_idle_per_origin: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

/// What a connection that nobody holds may still take to say goodbye.
const LINGER: Duration = Duration::from_secs(1);
/// A connection that was given back a moment ago may still have to notice that its exchange is over.
const READY_GRACE: Duration = Duration::from_millis(5);
/// How long an attempt waits for another to open the HTTP/2 connection that both can use. Short: a host that does not
/// answer must not make its attempts wait for each other.
const GATE_WAIT: Duration = Duration::from_secs(1);
/// A silent HTTP/2 connection with open streams is asked whether it lives.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const SHARDS: usize = 16;
/// Origins looked at when the pool is full: a near-oldest is good enough, and looking at all would not be cheap.
const EVICTION_CANDIDATES: usize = 8;

/// Something that can carry a request now.
pub(super) struct Connection {
    pub sender: RequestSender,
    pub link: Arc<Link>,
}

pub(super) enum RequestSender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What is known of a connection. Its driver stops soon after the last holder has dropped it.
pub(super) struct Link {
    pub peer: SocketAddr,
    pub meter: Arc<Meter>,
    opened_at: Instant,
    era: Arc<Era>,
    under_way: AtomicU64,
    _lifeline: oneshot::Sender<()>,
}

/// The time between two `forget` calls for one origin. Every connection belongs to the era in which it was begun, also
/// before it is open; when the era has ended, the connection is not pooled again.
#[derive(Debug, Default)]
pub(super) struct Era {
    ended: AtomicBool,
}

pub(super) struct Pool {
    /// By host, so that all of a host's origins are in one.
    shards: [Mutex<Shard>; SHARDS],
    limits: PoolLimits,
    idle: AtomicUsize,
    reaper_runs: AtomicBool,
}

type Shard = HashMap<PoolKey, PoolEntry>;

/// Whom a connection belongs to: nothing that was opened to one origin, or as one client identity, carries a request of
/// another. The certificate authorities are the same for all that one pool holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    host_hash: u64,
    origin: Arc<Origin>,
    identity: Option<IdentityId>,
}

impl PoolKey {
    pub fn new(target: &TargetUrl, identity: Option<&ClientIdentity>) -> Self {
        Self {
            host_hash: target.host_hash(),
            origin: Arc::clone(target.origin()),
            identity: identity.map(ClientIdentity::id),
        }
    }
}

#[derive(Default)]
struct PoolEntry {
    /// Used from the end, so that what is not needed grows old at the front.
    idle: Vec<IdleConnection>,
    shared: Option<SharedHttp2>,
    /// There once HTTP/2 has been spoken: held by whoever opens the next connection for all.
    gate: Option<Arc<tokio::sync::Mutex<()>>>,
    /// Shared with every connection of the origin, so that the entry stays for as long as one lives.
    era: Arc<Era>,
}

struct IdleConnection {
    sender: http1::SendRequest<Full<Bytes>>,
    link: Arc<Link>,
    since: Instant,
}

struct SharedHttp2 {
    sender: http2::SendRequest<Full<Bytes>>,
    link: Arc<Link>,
    used_at: Instant,
}

impl Pool {
    pub fn new(limits: PoolLimits) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            limits,
            idle: AtomicUsize::new(0),
            reaper_runs: AtomicBool::new(false),
        })
    }

    /// To be called before a connection is begun: one that was begun before a `forget` is not pooled after it.
    pub fn begin(self: &Arc<Self>, key: &PoolKey) -> Arc<Era> {
        let era = Arc::clone(&entry_of(&mut self.shard(key), key).era);
        self.ensure_reaper();
        era
    }

    /// A connection that can carry a request, if there is one.
    pub async fn take(&self, key: &PoolKey) -> Option<Connection> {
        loop {
            let mut connection = self.pop(key)?;
            if connection.becomes_ready().await {
                return Some(connection);
            }
        }
    }

    /// Gives back a connection whose exchange has ended well.
    pub fn put(&self, key: &PoolKey, connection: Connection) {
        let Connection { sender: RequestSender::Http1(sender), link } = connection else { return };
        let now = Instant::now();
        if sender.is_closed() || link.is_spent(now) {
            return;
        }
        // Read under the lock that `forget` takes, so that neither can slip past the other.
        let mut shard = self.shard(key);
        if self.idle.load(Ordering::Relaxed) >= self.limits.max_idle && !self.evict_one(&mut shard) {
            return;
        }
        let entry = entry_of(&mut shard, key);
        if !link.era.has_ended() && entry.idle.len() < self.limits.max_idle_per_origin {
            entry.idle.push(IdleConnection { sender, link, since: now });
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets others use a new HTTP/2 connection too.
    pub fn share(&self, key: &PoolKey, connection: &Connection) {
        let RequestSender::Http2(sender) = &connection.sender else { return };
        let shared =
            SharedHttp2 { sender: sender.clone(), link: Arc::clone(&connection.link), used_at: Instant::now() };
        let mut shard = self.shard(key);
        let entry = entry_of(&mut shard, key);
        if !shared.link.era.has_ended() {
            entry.shared = Some(shared);
            entry.gate.get_or_insert_default();
        }
    }

    /// Where HTTP/2 is known to be spoken, one opens a connection and the others wait a moment for it: with the turn
    /// in hand, look again before opening. `None` where everybody opens a connection of their own.
    pub async fn turn_to_open(&self, key: &PoolKey) -> Option<OwnedMutexGuard<()>> {
        let gate = self.shard(key).get(key)?.gate.clone()?;
        timeout(GATE_WAIT, gate.lock_owned()).await.ok()
    }

    /// Gives a shared connection to nobody else, since it has failed.
    pub fn retire(&self, key: &PoolKey, link: &Arc<Link>) {
        if let Some(entry) = self.shard(key).get_mut(key) {
            entry.shared = entry.shared.take().filter(|shared| !Arc::ptr_eq(&shared.link, link));
        }
    }

    /// Closes what is idle to a host, on all its ports and as whomever, and keeps what is in use from coming back.
    pub fn forget(&self, host: &Host) {
        let mut shard = self.shard_of(host);
        for (_, entry) in shard.iter_mut().filter(|(key, _)| key.origin.host == *host) {
            self.idle.fetch_sub(entry.idle.len(), Ordering::Relaxed);
            entry.idle.clear();
            entry.shared = None;
            std::mem::take(&mut entry.era).ended.store(true, Ordering::Release);
        }
    }

    /// Idle HTTP/1.1 connections, for tests and metrics.
    pub fn idle(&self) -> usize {
        self.idle.load(Ordering::Relaxed)
    }

    fn pop(&self, key: &PoolKey) -> Option<Connection> {
        let now = Instant::now();
        let mut shard = self.shard(key);
        let entry = shard.get_mut(key)?;
        if let Some(shared) = &mut entry.shared {
            if !shared.sender.is_closed() && !shared.link.is_spent(now) {
                shared.used_at = now;
                let sender = RequestSender::Http2(shared.sender.clone());
                return Some(Connection { sender, link: Arc::clone(&shared.link) });
            }
            entry.shared = None;
        }
        while let Some(IdleConnection { sender, link, since }) = entry.idle.pop() {
            self.idle.fetch_sub(1, Ordering::Relaxed);
            let fresh = now.duration_since(since) < self.limits.idle_timeout && !link.is_spent(now);
            if fresh && !sender.is_closed() {
                return Some(Connection { sender: RequestSender::Http1(sender), link });
            }
        }
        None
    }

    /// Makes room for a connection that has just been useful: closes the one idle for longest among a few origins.
    fn evict_one(&self, shard: &mut Shard) -> bool {
        let idle = shard.values_mut().filter(|entry| !entry.idle.is_empty()).take(EVICTION_CANDIDATES);
        let Some(oldest) = idle.min_by_key(|entry| entry.idle[0].since) else { return false };
        oldest.idle.remove(0);
        self.idle.fetch_sub(1, Ordering::Relaxed);
        true
    }

    fn shard(&self, key: &PoolKey) -> MutexGuard<'_, Shard> {
        self.lock_shard(key.host_hash)
    }

    fn shard_of(&self, host: &Host) -> MutexGuard<'_, Shard> {
        self.lock_shard(host.hash_for_sharding())
    }

    fn lock_shard(&self, hash: u64) -> MutexGuard<'_, Shard> {
        let index = usize::try_from(hash % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The reaper lives only while there is something to watch, so that an unused pool costs nothing.
    fn ensure_reaper(self: &Arc<Self>) {
        if !self.reaper_runs.load(Ordering::Relaxed) && !self.reaper_runs.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Arc::downgrade(self), self.limits.idle_timeout / 2));
        }
    }

    /// Drops what has been idle too long; answers whether anything is left.
    fn sweep(&self, now: Instant) -> bool {
        let mut left = false;
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            shard.retain(|_, entry| {
                let before = entry.idle.len();
                entry.idle.retain(|idle| {
                    now.duration_since(idle.since) < self.limits.idle_timeout && !idle.sender.is_closed()
                });
                self.idle.fetch_sub(before - entry.idle.len(), Ordering::Relaxed);
                let idle_timeout = self.limits.idle_timeout;
                let lives = |shared: &SharedHttp2| {
                    now.duration_since(shared.used_at) < idle_timeout && !shared.sender.is_closed()
                };
                entry.shared = entry.shared.take().filter(lives);
                Arc::strong_count(&entry.era) > 1
            });
            left |= !shard.is_empty();
        }
        left
    }
}

impl Connection {
    /// Speaks HTTP over a new stream; its driver is the one task that a connection costs.
    ///
    /// # Errors
    /// When the HTTP/2 greeting cannot be written.
    pub async fn open(connected: Connected, era: Arc<Era>) -> hyper::Result<Self> {
        let Connected { stream, peer, protocol } = connected;
        let (lifeline, dropped) = oneshot::channel();
        let meter = stream.meter();
        let opened_at = Instant::now();
        let link = Arc::new(Link { peer, meter, opened_at, era, under_way: AtomicU64::new(0), _lifeline: lifeline });
        let sender = match protocol {
            Protocol::Http1 => RequestSender::Http1(open_http1(stream, dropped).await?),
            Protocol::Http2 => RequestSender::Http2(open_http2(stream, dropped).await?),
        };
        Ok(Self { sender, link })
    }

    async fn becomes_ready(&mut self) -> bool {
        match &mut self.sender {
            RequestSender::Http1(sender) => {
                sender.is_ready() || matches!(timeout(READY_GRACE, sender.ready()).await, Ok(Ok(())))
            }
            RequestSender::Http2(sender) => sender.is_ready(),
        }
    }
}

impl Era {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// A request that a connection carries; over when dropped.
pub(super) struct InFlightRequest(Arc<Link>);

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Lets the peer say this much in answer to one more request, and to each of those that share the connection with it.
    pub fn begin_request(self: &Arc<Self>, answer_bytes: u64) -> InFlightRequest {
        let others = self.under_way.fetch_add(1, Ordering::Relaxed);
        self.meter.allow_bytes(answer_bytes.saturating_mul(others + 1));
        InFlightRequest(Arc::clone(self))
    }

    fn is_spent(&self, now: Instant) -> bool {
        now.duration_since(self.opened_at) >= limits::CONNECTION_AGE_MAX
    }
}

async fn open_http1(stream: Stream, dropped: oneshot::Receiver<()>) -> hyper::Result<http1::SendRequest<Full<Bytes>>> {
    // The parser's own limit on the number of headers is 100, the one we want; setting it would cost an allocation.
    let (sender, driver) = http1::Builder::new()
        .max_header_size(limits::RESPONSE_HEAD_BYTES)
        .max_buf_size(limits::READ_AHEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(drive(driver, dropped));
    Ok(sender)
}

async fn open_http2(stream: Stream, dropped: oneshot::Receiver<()>) -> hyper::Result<http2::SendRequest<Full<Bytes>>> {
    let (sender, driver) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_stream_window_size(limits::HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(limits::HTTP2_CONNECTION_WINDOW_BYTES)
        .max_header_list_size(u32::try_from(limits::RESPONSE_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(drive(driver, dropped));
    Ok(sender)
}

/// Runs a connection while someone holds it, and a moment longer for its goodbye.
async fn drive(driver: impl Future<Output = hyper::Result<()>>, dropped: oneshot::Receiver<()>) {
    tokio::pin!(driver);
    tokio::select! {
        biased;
        // What went wrong, the exchange that it happened to has been told.
        _ended = &mut driver => return,
        _ = dropped => {}
    }
    let _goodbye = timeout(LINGER, driver).await;
}

async fn reap(pool: Weak<Pool>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.sweep(Instant::now()) {
            pool.reaper_runs.store(false, Ordering::Release);
            // Something may have come between the look and the note; then this one stays, unless another has begun.
            if !pool.sweep(Instant::now()) || pool.reaper_runs.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

fn entry_of<'a>(shard: &'a mut Shard, key: &PoolKey) -> &'a mut PoolEntry {
    if !shard.contains_key(key) {
        shard.insert(key.clone(), PoolEntry::default());
    }
    shard.get_mut(key).expect("it was there or has just been put there")
}
