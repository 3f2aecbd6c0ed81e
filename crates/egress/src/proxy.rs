//! Tunnels through the operator's forward proxy: `CONNECT` to an address that was vetted here, never to a name.
//!
//! The proxy is a second layer and not the guard. It gets the address to connect to; TLS runs from end to end through
//! the tunnel. It must not resolve the names of receivers, choose their addresses, or see more of a request than its
//! destination.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use url::Host;
use zeroize::Zeroizing;

use super::dial::dial;
use super::exchange::{ProxyFault, SendError};
use super::resolver::Resolver;
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::proxy::ProxyUrl;

/// Opens tunnels through one proxy.
pub(super) struct ProxyConnector {
    url: ProxyUrl,
    resolver: Resolver,
    cached: Mutex<Option<ProxyAddresses>>,
    reached_at: Mutex<Option<Instant>>,
}

struct ProxyAddresses {
    addresses: Arc<[IpAddr]>,
    since: Instant,
}

impl ProxyConnector {
    pub fn new(url: ProxyUrl, resolver: Resolver) -> Self {
        Self { url, resolver, cached: Mutex::default(), reached_at: Mutex::default() }
    }

    /// Opens a tunnel to `target`, an address that the caller has vetted. Connecting to the proxy may take `time`, and
    /// the proxy's answer as long again.
    ///
    /// # Errors
    /// [`SendError::Proxy`] when the proxy failed, [`SendError::BeyondProxy`] when the proxy could not reach the
    /// target.
    pub async fn connect(&self, target: SocketAddr, time: Duration) -> Result<TcpStream, SendError> {
        let unreachable = || SendError::Proxy(ProxyFault::Unreachable);
        let mut stream = timeout(time, self.reach(time)).await.map_err(|_| unreachable())??;
        *self.reached_at() = Some(Instant::now());
        let asked = timeout(time, self.ask(&mut stream, target)).await;
        match asked {
            Ok(Ok(status)) => judge(status).map(|()| stream),
            Ok(Err(fault)) => Err(SendError::Proxy(fault)),
            Err(_) => Err(SendError::BeyondProxy { status: None }),
        }
    }

    /// Connects to the proxy and asks it for nothing.
    ///
    /// # Errors
    /// When it accepts no connection within `time`.
    pub async fn examine(&self, time: Duration) -> Result<(), SendError> {
        let reached = timeout(time, self.reach(time)).await;
        reached.map_err(|_| SendError::Proxy(ProxyFault::Unreachable))?.map(drop)
    }

    /// Whether the proxy has accepted no connection since `start`.
    pub fn was_silent_since(&self, start: Instant) -> bool {
        self.reached_at().is_none_or(|reached| reached < start)
    }

    async fn reach(&self, time: Duration) -> Result<TcpStream, SendError> {
        for &address in self.addresses().await?.iter() {
            match dial(SocketAddr::new(address, self.url.port()), time).await {
                Ok(stream) => return Ok(stream),
                Err(local @ SendError::Local(_)) => return Err(local),
                Err(error) => {
                    tracing::warn!(proxy = %self.url, error = %Chain(&error), "cannot connect to the egress proxy")
                }
            }
        }
        *self.cached() = None;
        Err(SendError::Proxy(ProxyFault::Unreachable))
    }

    /// The proxy's own addresses. The operator chose them, so the target policy does not apply.
    async fn addresses(&self) -> Result<Arc<[IpAddr]>, SendError> {
        let name = match self.url.host() {
            Host::Ipv4(address) => return Ok(Arc::new([IpAddr::V4(*address)])),
            Host::Ipv6(address) => return Ok(Arc::new([IpAddr::V6(*address)])),
            Host::Domain(name) => name,
        };
        let fresh = |cached: &&ProxyAddresses| cached.since.elapsed() < limits::PROXY_ADDRESS_LIFETIME;
        if let Some(cached) = self.cached().as_ref().filter(fresh) {
            return Ok(Arc::clone(&cached.addresses));
        }
        let found = self.resolver.resolve(name).await.map_err(|_| SendError::Proxy(ProxyFault::Unresolvable))?;
        let addresses: Arc<[IpAddr]> = found.into();
        *self.cached() = Some(ProxyAddresses { addresses: Arc::clone(&addresses), since: Instant::now() });
        Ok(addresses)
    }

    fn reached_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.reached_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cached(&self) -> MutexGuard<'_, Option<ProxyAddresses>> {
        self.cached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends `CONNECT` and returns the status of the answer.
    async fn ask(&self, stream: &mut TcpStream, target: SocketAddr) -> Result<u16, ProxyFault> {
        let mut request = Zeroizing::new(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
        if let Some(authorization) = self.url.authorization() {
            request.push_str("Proxy-Authorization: ");
            request.push_str(&authorization);
            request.push_str("\r\n");
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await.map_err(|_| ProxyFault::Broken)?;
        let mut head = Vec::with_capacity(512);
        loop {
            if stream.read_buf(&mut head).await.map_err(|_| ProxyFault::Broken)? == 0 {
                return Err(ProxyFault::Broken);
            }
            let Some(end) = head.windows(4).position(|window| window == b"\r\n\r\n") else {
                if head.len() > limits::PROXY_HEAD_BYTES {
                    return Err(ProxyFault::Broken);
                }
                continue;
            };
            let status = status_of(&head).ok_or(ProxyFault::Broken)?;
            // In a tunnel we send first, so bytes after the head of a success are a protocol error.
            let tunnel = (200..300).contains(&status);
            return if tunnel && end + 4 < head.len() { Err(ProxyFault::Broken) } else { Ok(status) };
        }
    }
}

/// What the status of an answer to `CONNECT` means. A gateway error is about the receiver; every other failure is
/// between us and the proxy.
fn judge(status: u16) -> Result<(), SendError> {
    match status {
        200..=299 => Ok(()),
        403 => Err(SendError::Proxy(ProxyFault::Forbidden)),
        407 => Err(SendError::Proxy(ProxyFault::CredentialsRefused)),
        502..=504 => Err(SendError::BeyondProxy { status: Some(status) }),
        status => Err(SendError::Proxy(ProxyFault::Status(status))),
    }
}

/// The status of an HTTP/1 status line.
fn status_of(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.1 ").or_else(|| head.strip_prefix(b"HTTP/1.0 "))?;
    let status: u16 = std::str::from_utf8(rest.get(..3)?).ok()?.parse().ok()?;
    let ends = matches!(rest.get(3), Some(b' ' | b'\r'));
    (ends && (200..600).contains(&status)).then_some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_line_is_read_strictly() {
        for (head, status) in [
            ("HTTP/1.1 200 Connection established\r\n\r\n", Some(200)),
            ("HTTP/1.0 407 \r\n\r\n", Some(407)),
            ("HTTP/1.1 200\r\n\r\n", Some(200)),
            ("HTTP/1.1 2000\r\n\r\n", None),
            ("HTTP/1.1 +20 x\r\n\r\n", None),
            ("HTTP/1.1 100 Continue\r\n\r\n", None),
            ("HTTP/2 200 OK\r\n\r\n", None),
            ("SSH-2.0-x\r\n\r\n", None),
            ("", None),
        ] {
            assert_eq!(status_of(head.as_bytes()), status, "{head:?}");
        }
    }

    #[test]
    fn only_a_gateway_error_is_about_the_receiver() {
        assert!(judge(200).is_ok());
        assert!(matches!(judge(502), Err(SendError::BeyondProxy { status: Some(502) })));
        assert!(matches!(judge(504), Err(SendError::BeyondProxy { status: Some(504) })));
        assert!(matches!(judge(403), Err(SendError::Proxy(ProxyFault::Forbidden))));
        assert!(matches!(judge(407), Err(SendError::Proxy(ProxyFault::CredentialsRefused))));
        assert!(matches!(judge(405), Err(SendError::Proxy(ProxyFault::Status(405)))));
        assert!(matches!(judge(302), Err(SendError::Proxy(ProxyFault::Status(302)))));
    }
}
