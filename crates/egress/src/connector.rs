//! Opens every connection to a stranger: to pinned addresses, each vetted again right before it is dialled.
//!
//! It exists so that no caller can hold a socket to an address that was not vetted. Over TLS, the peer must prove that
//! it is the host in the URL. It must not speak HTTP, keep connections, or follow anything that a peer says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

use super::dial::dial;
use super::exchange::{AttemptProgress, Phase, Phases, SendError, TlsFault};
use super::identity::ClientIdentity;
use super::pin::Pins;
use super::policy::{RuleScope, TargetPolicy};
use super::proxy::ProxyConnector;
use super::stream::{Connected, OpenStreams, PlainOrTls, Protocol};
use super::target::{Scheme, TargetUrl};
use super::tls::{TlsConnectors, tls_fault};
use postrider_domain::limits;
use postrider_domain::target::{Requester, TargetRefusal};

/// Opens vetted connections.
pub struct Connector {
    policy: Arc<TargetPolicy>,
    pins: Arc<Pins>,
    proxy: Option<ProxyConnector>,
    tls: TlsConnectors,
    connect_timeout: Duration,
    open_streams: OpenStreams,
}

/// Where to connect, for whom, and with which client certificate.
#[derive(Clone, Copy)]
pub(super) struct Destination<'a> {
    pub target: &'a TargetUrl,
    pub requester: Requester,
    pub identity: Option<&'a ClientIdentity>,
}

/// The result of connecting to one address and closing again without a request.
#[derive(Debug)]
pub struct Probe {
    pub phases: Phases,
    pub result: Result<Protocol, SendError>,
}

/// Head start of one address over the next, as RFC 8305 recommends. Part of the algorithm, not a limit.
const STAGGER: Duration = Duration::from_millis(250);

impl Connector {
    pub(super) fn new(
        policy: Arc<TargetPolicy>,
        pins: Arc<Pins>,
        proxy: Option<ProxyConnector>,
        tls: ClientConfig,
        connect_timeout: Duration,
        open_streams: OpenStreams,
    ) -> Self {
        Self { policy, pins, proxy, tls: TlsConnectors::new(tls), connect_timeout, open_streams }
    }

    pub(super) fn open_streams(&self) -> &OpenStreams {
        &self.open_streams
    }

    /// Connects to one of the target's pinned addresses. If none works, resolves the host again and tries the new ones.
    ///
    /// # Errors
    /// When the target is refused, does not resolve, or no address accepts a connection and proves that it is the host.
    pub(super) async fn connect(
        &self,
        destination: Destination<'_>,
        progress: &mut AttemptProgress,
    ) -> Result<Connected, SendError> {
        let Destination { target, requester, .. } = destination;
        progress.phase = Phase::Dns;
        let started = Instant::now();
        let pinned = self.pins.addresses(target, requester).await?;
        progress.phases.dns = pinned.was_resolved_now().then(|| started.elapsed());
        let failure = match self.connect_to_any(destination, &pinned.addresses, progress).await {
            Ok(connected) => return Ok(connected),
            // The fault is ours or the proxy's: no other address would help.
            Err(ours @ (SendError::Local(_) | SendError::Proxy(_))) => return Err(ours),
            Err(failure) => failure,
        };
        progress.phase = Phase::Dns;
        match self.pins.renew(target, requester, &pinned).await? {
            Some(renewed) => self.connect_to_any(destination, &renewed.addresses, progress).await,
            None => Err(failure),
        }
    }

    /// Connects to one address of the target as a delivery does, including the vetting, and closes again.
    pub(super) async fn probe(&self, target: &TargetUrl, requester: Requester, address: IpAddr) -> Probe {
        let destination = Destination { target, requester, identity: None };
        let mut progress = AttemptProgress::default();
        let started = Instant::now();
        let connected = self.connect_to_any(destination, &[address], &mut progress).await;
        progress.phases.total = started.elapsed();
        Probe { phases: progress.phases, result: connected.map(|connected| connected.protocol) }
    }

    /// Whose connections a requester may share.
    pub(super) fn scope_of(&self, requester: Requester) -> RuleScope {
        self.policy.scope_of(requester)
    }

    /// Whether a name server has answered lately.
    pub(super) fn name_servers_answer(&self) -> bool {
        self.pins.name_servers_answer()
    }

    /// Whether the operator's proxy accepts connections. `None` when there is none.
    pub(super) async fn examine_proxy(&self) -> Option<Result<(), SendError>> {
        Some(self.proxy.as_ref()?.examine(self.connect_timeout).await)
    }

    /// Whether a connection attempt that began at `start` is still waiting for the operator's proxy.
    pub(super) fn waits_for_proxy_since(&self, start: Instant) -> bool {
        self.proxy.as_ref().is_some_and(|proxy| proxy.was_silent_since(start))
    }

    async fn connect_to_any(
        &self,
        destination: Destination<'_>,
        addresses: &[IpAddr],
        progress: &mut AttemptProgress,
    ) -> Result<Connected, SendError> {
        let Destination { target, identity, .. } = destination;
        let mut untried = interleave_families(addresses);
        let mut tls_fault = None;
        loop {
            progress.phase = Phase::Connect;
            let started = Instant::now();
            let (stream, peer) = match self.race(destination, &mut untried).await {
                Ok(winner) => winner,
                // The TLS failure of a peer that answered is more useful than the silence of another.
                Err(failure) => return Err(tls_fault.map_or(failure, SendError::Tls)),
            };
            progress.peer = Some(peer);
            progress.phases.connect = Some(started.elapsed());
            if target.scheme() == Scheme::Http {
                return Ok(Connected {
                    stream: self.open_streams.open(PlainOrTls::Plain(stream)),
                    peer,
                    protocol: Protocol::Http1,
                });
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
                    let stream = self.open_streams.open(PlainOrTls::Tls(Box::new(stream)));
                    return Ok(Connected { stream, peer, protocol });
                }
                Err(fault) => tls_fault = Some(fault),
            }
        }
    }

    /// Starts with the first address, adds the next when one fails or is slow, and returns the first connection.
    /// Removes addresses that failed or won from `untried`. Addresses that were only slower stay.
    async fn race(
        &self,
        destination: Destination<'_>,
        untried: &mut Vec<IpAddr>,
    ) -> Result<(TcpStream, SocketAddr), SendError> {
        let mut waiting = untried.clone().into_iter();
        let mut running = FuturesUnordered::new();
        let mut failure = None;
        loop {
            if let Some(address) = waiting.next() {
                running.push(async move { (address, self.open(destination, address).await) });
            }
            let more = waiting.len() > 0;
            tokio::select! {
                finished = running.next() => {
                    let Some((address, result)) = finished else {
                        return Err(failure.unwrap_or(SendError::ConnectTimeout));
                    };
                    untried.retain(|other| *other != address);
                    match result {
                        Ok(stream) => return Ok((stream, SocketAddr::new(address, destination.target.port()))),
                        Err(fault @ SendError::Proxy(_)) => return Err(fault),
                        Err(error) => failure = Some(error),
                    }
                }
                () = sleep(STAGGER), if more => {}
            }
        }
    }

    async fn open(&self, destination: Destination<'_>, address: IpAddr) -> Result<TcpStream, SendError> {
        let Destination { target, requester, .. } = destination;
        if let Err(reason) = self.policy.vet(target, &[address], requester) {
            return Err(TargetRefusal { host: target.host().to_string(), reason, is_passing: false }.into());
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
        match timeout(limits::TLS_HANDSHAKE_TIMEOUT, handshake).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(tls_fault(&error)),
            Err(_) => Err(TlsFault::Timeout),
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
            order.truncate(limits::ADDRESSES_PER_ATTEMPT);
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_families_alternate_and_ipv6_goes_first() {
        let addresses: Vec<IpAddr> =
            ["192.0.2.1", "192.0.2.2", "2001:db8::1"].iter().map(|text| text.parse().unwrap()).collect();
        let order: Vec<String> = interleave_families(&addresses).iter().map(IpAddr::to_string).collect();
        assert_eq!(order, ["2001:db8::1", "192.0.2.1", "192.0.2.2"]);
    }

    #[test]
    fn a_host_with_many_addresses_gets_a_limited_number_of_tries() {
        let many: Vec<IpAddr> = (0..200).map(|last| IpAddr::from([192, 0, 2, last])).collect();
        assert_eq!(interleave_families(&many).len(), limits::ADDRESSES_PER_ATTEMPT);
    }
}
