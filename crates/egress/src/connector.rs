//! The one point that every connection to a stranger passes: pinned addresses, vetted once more, raced, and over
//! TLS proven to be the host that the URL names.
//!
//! It exists so that no caller can hold a socket whose address was not vetted. It must not speak HTTP, pool, or
//! follow anything that a peer says.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use super::diagnosis::Probe;
use super::exchange::{Phase, Progress, SendError, TlsFault};
use super::identity::ClientIdentity;
use super::pin::Pins;
use super::policy::TargetPolicy;
use super::proxy::Proxy;
use super::target::{Scheme, TargetUrl};
use super::tls::{TlsConnectors, alert_of, tls_fault};
use postrider_domain::target::TargetRefusal;

/// Opens vetted connections.
pub struct Connector {
    policy: Arc<TargetPolicy>,
    pins: Arc<Pins>,
    proxy: Option<Proxy>,
    tls: TlsConnectors,
    connect_timeout: Duration,
}

/// A connection to a vetted address, over TLS to a proven host.
pub struct Connected {
    pub stream: Stream,
    pub peer: SocketAddr,
    pub protocol: Protocol,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Http1,
    Http2,
}

/// Head start of one address over the next (RFC 8305 recommends 250 ms).
const STAGGER: Duration = Duration::from_millis(250);
/// How long one address may take for its TLS handshake, so that a silent one leaves time for the others.
const TLS_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses tried per attempt. All that a name has are vetted; a name with hundreds must not buy hundreds of sockets.
const MAX_CANDIDATES: usize = 16;
impl Connector {
    pub(super) fn new(
        policy: Arc<TargetPolicy>,
        pins: Arc<Pins>,
        proxy: Option<Proxy>,
        tls: ClientConfig,
        connect_timeout: Duration,
    ) -> Self {
        Self { policy, pins, proxy, tls: TlsConnectors::new(tls), connect_timeout }
    }

    /// Connects to one of the target's pinned addresses; when none of them works, to one of a new answer's.
    ///
    /// # Errors
    /// When the target is refused, does not resolve, or no address of it can be connected to and proven.
    pub(super) async fn connect(
        &self,
        target: &TargetUrl,
        identity: Option<&ClientIdentity>,
        progress: &mut Progress,
    ) -> Result<Connected, SendError> {
        progress.phase = Phase::Dns;
        let started = Instant::now();
        let pinned = self.pins.addresses(target).await?;
        progress.phases.dns = pinned.was_resolved_now().then(|| started.elapsed());
        let failure = match self.connect_to_any(target, identity, &pinned.addresses, progress).await {
            Ok(connected) => return Ok(connected),
            // No other address would change it.
            Err(ours @ (SendError::Local(_) | SendError::Proxy(_))) => return Err(ours),
            Err(failure) => failure,
        };
        progress.phase = Phase::Dns;
        match self.pins.renew(target, &pinned).await? {
            Some(renewed) => self.connect_to_any(target, identity, &renewed.addresses, progress).await,
            None => Err(failure),
        }
    }

    /// Connects to one address of the target as a delivery would, vetting included, and closes again.
    pub(super) async fn probe(&self, target: &TargetUrl, address: IpAddr) -> Probe {
        let mut progress = Progress::default();
        let started = Instant::now();
        let connected = self.connect_to_any(target, None, &[address], &mut progress).await;
        progress.phases.total = started.elapsed();
        Probe { phases: progress.phases, result: connected.map(|connected| connected.protocol) }
    }

    /// Whether whoever has been connecting since then has been waiting for the operator's proxy.
    pub(super) fn waits_for_proxy_since(&self, start: Instant) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.was_silent_since(start))
    }

    async fn connect_to_any(
        &self,
        target: &TargetUrl,
        identity: Option<&ClientIdentity>,
        addresses: &[IpAddr],
        progress: &mut Progress,
    ) -> Result<Connected, SendError> {
        let mut untried = interleave_families(addresses);
        let mut tls_fault = None;
        loop {
            progress.phase = Phase::Connect;
            let started = Instant::now();
            let (stream, peer) = match self.race(target, &mut untried).await {
                Ok(winner) => winner,
                // A peer that answered but could not prove itself tells more than one that did not answer.
                Err(failure) => return Err(tls_fault.map_or(failure, SendError::Tls)),
            };
            progress.peer = Some(peer);
            progress.phases.connect = Some(started.elapsed());
            if target.scheme() == Scheme::Http {
                return Ok(Connected { stream: Stream::new(Io::Plain(stream)), peer, protocol: Protocol::Http1 });
            }
            progress.phase = Phase::Tls;
            let started = Instant::now();
            match self.handshake(target, identity, stream).await {
                Ok(stream) => {
                    progress.phases.tls = Some(started.elapsed());
                    let protocol = match stream.get_ref().1.alpn_protocol() {
                        Some(b"h2") => Protocol::Http2,
                        _ => Protocol::Http1,
                    };
                    return Ok(Connected { stream: Stream::new(Io::Tls(Box::new(stream))), peer, protocol });
                }
                Err(fault) => tls_fault = Some(fault),
            }
        }
    }

    /// Starts with the first address, adds the next whenever one fails or is slow, and takes whichever connects
    /// first. What failed and what won leave `untried`; what was only slower stays.
    async fn race(&self, target: &TargetUrl, untried: &mut Vec<IpAddr>) -> Result<(TcpStream, SocketAddr), SendError> {
        let mut waiting = untried.clone().into_iter();
        let mut running = FuturesUnordered::new();
        let mut failure = None;
        loop {
            if let Some(address) = waiting.next() {
                running.push(async move { (address, self.open(target, address).await) });
            }
            let more = waiting.len() > 0;
            tokio::select! {
                finished = running.next() => {
                    let Some((address, result)) = finished else {
                        return Err(failure.unwrap_or(SendError::ConnectTimeout));
                    };
                    untried.retain(|other| *other != address);
                    match result {
                        Ok(stream) => return Ok((stream, SocketAddr::new(address, target.port()))),
                        Err(fault @ SendError::Proxy(_)) => return Err(fault),
                        Err(error) => failure = Some(error),
                    }
                }
                () = sleep(STAGGER), if more => {}
            }
        }
    }

    async fn open(&self, target: &TargetUrl, address: IpAddr) -> Result<TcpStream, SendError> {
        if let Err(reason) = self.policy.vet(target, &[address]) {
            return Err(TargetRefusal { host: target.host().to_string(), reason }.into());
        }
        let target = SocketAddr::new(address, target.port());
        match &self.proxy {
            None => dial(target, self.connect_timeout).await,
            Some(proxy) => proxy.connect(target, self.connect_timeout).await,
        }
    }

    async fn handshake(
        &self,
        target: &TargetUrl,
        identity: Option<&ClientIdentity>,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, TlsFault> {
        let handshake = self.tls.of(identity).connect(target.server_name().clone(), stream);
        match timeout(TLS_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(tls_fault(&error)),
            Err(_) => Err(TlsFault::Timeout),
        }
    }
}

/// Opens a socket: to an address that has just been vetted, or to the operator's own proxy.
pub(super) async fn dial(address: SocketAddr, time: Duration) -> Result<TcpStream, SendError> {
    #[expect(clippy::disallowed_methods, reason = "the one proper place; its callers have vetted the address")]
    let connecting = TcpStream::connect(address);
    let stream = match timeout(time, connecting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(connect_failure(error)),
        Err(_) => return Err(SendError::ConnectTimeout),
    };
    stream.set_nodelay(true).map_err(SendError::ConnectFailed)?;
    Ok(stream)
}

/// A vetted connection that counts what the peer says.
pub struct Stream {
    io: Io,
    meter: Arc<Meter>,
}

/// How much plaintext a peer has sent and may send: to tell whether a byte of an answer has come, and to bound what
/// lies between the layers' own limits, like interim answers without end.
#[derive(Debug)]
pub struct Meter {
    received_bytes: AtomicU64,
    ceiling_bytes: AtomicU64,
    /// In TLS 1.3 a peer tells only after the handshake that it refuses our certificate. What carries HTTP may lose that
    /// on the way up, so it is kept here.
    alert: OnceLock<TlsFault>,
}

/// Before the first request: the greetings.
const NO_CEILING: u64 = u64::MAX;

impl Meter {
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Why the peer broke TLS off, if it said so.
    pub fn alert(&self) -> Option<TlsFault> {
        self.alert.get().copied()
    }

    /// From now on the peer may send this much, or more if more was allowed before; reading beyond it is an error of the kind
    /// `QuotaExceeded`. Never lowered: what a request gave up on may still be on its way when the next one begins.
    pub fn allow_bytes(&self, bytes: u64) {
        let ceiling = self.received_bytes().saturating_add(bytes);
        let raised = |before| Some(if before == NO_CEILING { ceiling } else { ceiling.max(before) });
        let _always = self.ceiling_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
    }

    /// Whether the peer has said all that it may.
    pub fn is_spent(&self) -> bool {
        self.received_bytes() >= self.ceiling_bytes.load(Ordering::Relaxed)
    }
}

enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn new(io: Io) -> Self {
        let meter = Meter {
            received_bytes: AtomicU64::new(0),
            ceiling_bytes: AtomicU64::new(NO_CEILING),
            alert: OnceLock::new(),
        };
        Self { io, meter: Arc::new(meter) }
    }

    /// Stays readable after the stream has been given away.
    pub fn meter(&self) -> Arc<Meter> {
        Arc::clone(&self.meter)
    }
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.meter.is_spent() {
            return Poll::Ready(Err(io::ErrorKind::QuotaExceeded.into()));
        }
        let before = buf.filled().len();
        let polled = match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let received = buf.filled().len() - before;
        if received > 0 {
            self.meter.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
        }
        if let Poll::Ready(Err(error)) = &polled
            && let Some(fault) = alert_of(error)
        {
            let _known = self.meter.alert.set(fault);
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Io::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Io::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(stream) => stream.is_write_vectored(),
            Io::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Io::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// IPv6 first, then alternating, each family in the order of its answer.
fn interleave_families(addresses: &[IpAddr]) -> Vec<IpAddr> {
    let mut v6 = addresses.iter().filter(|address| address.is_ipv6());
    let mut v4 = addresses.iter().filter(|address| address.is_ipv4());
    let mut order = Vec::with_capacity(addresses.len());
    loop {
        let pair = (v6.next(), v4.next());
        order.extend(pair.0.into_iter().chain(pair.1));
        if pair == (None, None) {
            order.truncate(MAX_CANDIDATES);
            return order;
        }
    }
}

fn connect_failure(error: io::Error) -> SendError {
    // ENFILE, EMFILE and ENOBUFS have no stable `ErrorKind`; the numbers are Linux's.
    const OUT_OF_RESOURCES: [i32; 3] = [23, 24, 105];
    let out_of_resources = error.raw_os_error().is_some_and(|code| OUT_OF_RESOURCES.contains(&code));
    match error.kind() {
        io::ErrorKind::ConnectionRefused => SendError::ConnectRefused,
        io::ErrorKind::TimedOut => SendError::ConnectTimeout,
        io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory => SendError::Local(error),
        _ if out_of_resources => SendError::Local(error),
        _ => SendError::ConnectFailed(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns_and_ipv6_goes_first() {
        let addresses: Vec<IpAddr> =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
        let order: Vec<String> = interleave_families(&addresses).iter().map(IpAddr::to_string).collect();
        assert_eq!(order, ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn a_name_with_hundreds_of_addresses_does_not_buy_hundreds_of_sockets() {
        let many: Vec<IpAddr> = (0..200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        assert_eq!(interleave_families(&many).len(), MAX_CANDIDATES);
    }

    #[test]
    fn running_out_of_descriptors_is_our_own_fault() {
        assert!(matches!(connect_failure(io::Error::from_raw_os_error(24)), SendError::Local(_)));
        assert!(matches!(connect_failure(io::Error::from_raw_os_error(111)), SendError::ConnectRefused));
        assert!(matches!(connect_failure(io::Error::from_raw_os_error(113)), SendError::ConnectFailed(_)));
    }
}
