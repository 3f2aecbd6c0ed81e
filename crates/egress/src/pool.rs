//! The connection pool: per origin and client identity, a stack of idle HTTP/1.1 connections and one shared HTTP/2
//! connection.
//!
//! A pool of a library does not fit, for three reasons:
//! - A refused target must close its pooled connections.
//! - A request must not spawn a task.
//! - An idle connection must be closed within a minute.
//!
//! It must not open connections.

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
use super::policy::RuleScope;
use super::stream::{Connected, Meter, Protocol, Stream};
use super::target::{Host, Origin, TargetUrl};
use postrider_domain::limits;

/// How many idle connections are kept, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct PoolLimits {
    pub max_idle_per_origin: usize,
    pub max_idle: usize,
    pub idle_timeout: Duration,
}

// The following are timings of the implementation, not limits that an operator or a stranger could meet.

/// How long a dropped connection may take to close properly.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// How long a connection that was just given back may take to become ready.
const READY_GRACE: Duration = Duration::from_millis(5);
/// How long an attempt waits for another one to open an HTTP/2 connection that both can use. It is short, so that
/// attempts to a host that does not answer do not wait for each other.
const OPENING_WAIT: Duration = Duration::from_secs(1);
/// How often a silent HTTP/2 connection with open streams gets a ping, and how long the answer may take.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
const SHARDS: usize = 16;
/// Origins that are searched for the oldest idle connection when the pool is full. Searching all would be slow, and a
/// connection that is nearly the oldest is good enough.
const EVICTION_CANDIDATES: usize = 8;

/// A connection that can carry a request now.
pub(super) struct Connection {
    pub sender: RequestSender,
    pub link: Arc<Link>,
}

pub(super) enum RequestSender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl RequestSender {
    pub fn protocol(&self) -> Protocol {
        match self {
            Self::Http1(_) => Protocol::Http1,
            Self::Http2(_) => Protocol::Http2,
        }
    }
}

/// The state of a connection, shared by its holders. The driver task stops soon after the last holder drops it.
pub(super) struct Link {
    pub peer: SocketAddr,
    pub meter: Arc<Meter>,
    opened_at: Instant,
    generation: Arc<Generation>,
    in_flight: AtomicU64,
    _lifeline: oneshot::Sender<()>,
}

/// The time between two `forget` calls for one origin. A connection belongs to the generation in which its opening
/// began. After that generation has ended, the connection is not pooled again.
#[derive(Debug, Default)]
pub(super) struct Generation {
    ended: AtomicBool,
}

pub(super) struct Pool {
    /// Sharded by host, so that all origins of a host are in one shard.
    shards: [Mutex<Shard>; SHARDS],
    limits: PoolLimits,
    idle: AtomicUsize,
    reaper_runs: AtomicBool,
}

type Shard = HashMap<PoolKey, PoolEntry>;

/// Which requests a connection may carry: only those to the same origin, with the same client identity, under the same
/// rules of the operator. The certificate authorities are the same for the whole pool.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PoolKey {
    host_hash: u64,
    origin: Arc<Origin>,
    identity: Option<IdentityId>,
    scope: RuleScope,
}

impl PoolKey {
    pub fn new(target: &TargetUrl, identity: Option<&ClientIdentity>, scope: RuleScope) -> Self {
        Self {
            scope,
            host_hash: target.host_hash(),
            origin: Arc::clone(target.origin()),
            identity: identity.map(ClientIdentity::id),
        }
    }

    pub fn scope(&self) -> RuleScope {
        self.scope
    }
}

#[derive(Default)]
struct PoolEntry {
    /// Used from the end, so that the connections not needed age at the front.
    idle: Vec<IdleConnection>,
    shared: Option<SharedHttp2>,
    /// Present once the origin has spoken HTTP/2. Held by the attempt that opens the next shared connection.
    opening: Option<Arc<tokio::sync::Mutex<()>>>,
    /// Held by every connection of the origin too: the entry stays as long as one of them is open.
    generation: Arc<Generation>,
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

    /// Call it before opening a connection. A connection whose opening began before a `forget` is not pooled after it.
    pub fn begin(self: &Arc<Self>, key: &PoolKey) -> Arc<Generation> {
        let generation = Arc::clone(&entry_of(&mut self.shard(key), key).generation);
        self.ensure_reaper();
        generation
    }

    /// Takes a connection that can carry a request now, if there is one.
    pub async fn take(&self, key: &PoolKey) -> Option<Connection> {
        loop {
            let mut connection = self.pop(key)?;
            if connection.becomes_ready().await {
                return Some(connection);
            }
        }
    }

    /// Returns a connection whose exchange has ended without an error.
    pub fn put(&self, key: &PoolKey, connection: Connection) {
        let Connection { sender: RequestSender::Http1(sender), link } = connection else { return };
        let now = Instant::now();
        if sender.is_closed() || link.is_spent(now) {
            return;
        }
        // Checked under the lock that `forget` takes: otherwise a forgotten connection could be pooled.
        let mut shard = self.shard(key);
        if self.idle.load(Ordering::Relaxed) >= self.limits.max_idle && !self.evict_one(&mut shard) {
            return;
        }
        let entry = entry_of(&mut shard, key);
        if !link.generation.has_ended() && entry.idle.len() < self.limits.max_idle_per_origin {
            entry.idle.push(IdleConnection { sender, link, since: now });
            self.idle.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Shares a new HTTP/2 connection with other attempts.
    pub fn share(&self, key: &PoolKey, connection: &Connection) {
        let RequestSender::Http2(sender) = &connection.sender else { return };
        let shared =
            SharedHttp2 { sender: sender.clone(), link: Arc::clone(&connection.link), used_at: Instant::now() };
        let mut shard = self.shard(key);
        let entry = entry_of(&mut shard, key);
        if !shared.link.generation.has_ended() {
            entry.shared = Some(shared);
            entry.opening.get_or_insert_default();
        }
    }

    /// At an origin known to speak HTTP/2, one attempt opens a connection and the others wait a moment for it. A caller
    /// that gets the lock must look into the pool again before it opens a connection. `None` means: open your own
    /// connection.
    pub async fn lock_opening(&self, key: &PoolKey) -> Option<OwnedMutexGuard<()>> {
        let opening = self.shard(key).get(key)?.opening.clone()?;
        timeout(OPENING_WAIT, opening.lock_owned()).await.ok()
    }

    /// Stops sharing an HTTP/2 connection that has failed.
    pub fn retire(&self, key: &PoolKey, link: &Arc<Link>) {
        if let Some(entry) = self.shard(key).get_mut(key) {
            entry.shared = entry.shared.take().filter(|shared| !Arc::ptr_eq(&shared.link, link));
        }
    }

    /// Closes the idle connections to a host that were opened in this scope, on all ports and with all identities.
    /// Connections in use do not return to the pool.
    pub fn forget(&self, host: &Host, scope: RuleScope) {
        let mut shard = self.shard_of(host);
        for (_, entry) in shard.iter_mut().filter(|(key, _)| key.scope == scope && key.origin.host == *host) {
            self.idle.fetch_sub(entry.idle.len(), Ordering::Relaxed);
            entry.idle.clear();
            entry.shared = None;
            std::mem::take(&mut entry.generation).ended.store(true, Ordering::Release);
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

    /// Closes the connection that has been idle longest among a few origins. Returns whether there was one.
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

    /// Starts the reaper if it is not running. It runs only while there are connections, so an unused pool costs
    /// nothing.
    fn ensure_reaper(self: &Arc<Self>) {
        if !self.reaper_runs.load(Ordering::Relaxed) && !self.reaper_runs.swap(true, Ordering::AcqRel) {
            tokio::spawn(reap(Arc::downgrade(self), self.limits.idle_timeout / 2));
        }
    }

    /// Closes connections that have been idle too long. Returns whether any entry is left.
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
                Arc::strong_count(&entry.generation) > 1
            });
            left |= !shard.is_empty();
        }
        left
    }
}

impl Connection {
    /// Starts HTTP on a new stream. The driver is the only task that a connection needs.
    ///
    /// # Errors
    /// When the HTTP handshake fails.
    pub async fn open(connected: Connected, generation: Arc<Generation>) -> hyper::Result<Self> {
        let Connected { stream, peer, protocol } = connected;
        let (lifeline, dropped) = oneshot::channel();
        let meter = stream.meter();
        let opened_at = Instant::now();
        let link =
            Arc::new(Link { peer, meter, opened_at, generation, in_flight: AtomicU64::new(0), _lifeline: lifeline });
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

impl Generation {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

/// A request in flight on a connection; it ends on drop.
pub(super) struct InFlightRequest(Arc<Link>);

impl Drop for InFlightRequest {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Link {
    /// Allows the peer `answer_bytes` for one more request, and as many for each other request in flight on the
    /// connection.
    pub fn begin_request(self: &Arc<Self>, answer_bytes: u64) -> InFlightRequest {
        let others = self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.meter.allow_bytes(answer_bytes.saturating_mul(others + 1));
        InFlightRequest(Arc::clone(self))
    }

    fn is_spent(&self, now: Instant) -> bool {
        now.duration_since(self.opened_at) >= limits::CONNECTION_AGE_MAX
    }
}

async fn open_http1(stream: Stream, dropped: oneshot::Receiver<()>) -> hyper::Result<http1::SendRequest<Full<Bytes>>> {
    // The parser's default limit on the number of headers is 100, which is ours. Setting it would cost an allocation.
    // A client may read such lines (RFC 9112, 5.1 and 5.2). A server that writes them has received the request.
    let (sender, driver) = http1::Builder::new()
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true)
        .ignore_invalid_headers_in_responses(true)
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

/// Runs a connection while it has a holder, and then until it has closed properly or [`CLOSE_GRACE`] is over.
async fn drive(driver: impl Future<Output = hyper::Result<()>>, dropped: oneshot::Receiver<()>) {
    tokio::pin!(driver);
    tokio::select! {
        biased;
        // The exchange in flight has got the error, if there was one.
        _ended = &mut driver => return,
        _ = dropped => {}
    }
    let _closed = timeout(CLOSE_GRACE, driver).await;
}

async fn reap(pool: Weak<Pool>, interval: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(pool) = pool.upgrade() else { return };
        if !pool.sweep(Instant::now()) {
            pool.reaper_runs.store(false, Ordering::Release);
            // A connection may have come between the sweep and the store. Then this reaper continues, unless another
            // has started.
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
    shard.get_mut(key).expect("the entry exists or was inserted above")
}
