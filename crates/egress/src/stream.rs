//! A vetted connection as a byte stream that counts and limits what the peer sends.
//!
//! The layers above limit headers and bodies. This limit also covers what they do not count, like endless interim
//! answers. It must not connect and knows no HTTP.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::exchange::TlsFault;
use super::tls::alert_of;
use postrider_metrics::{Counters, Direction};

/// A connection to a vetted address. Over TLS, the peer has proven that it is the URL's host.
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

/// Plaintext or TLS bytes to and from a peer.
pub struct Stream {
    io: PlainOrTls,
    meter: Arc<Meter>,
    open: OpenStreams,
}

/// Counts the open streams and the bytes of all streams.
#[derive(Clone, Debug, Default)]
pub struct OpenStreams {
    count: Arc<AtomicU64>,
    bytes: Counters,
}

impl OpenStreams {
    pub fn counting_into(bytes: Counters) -> Self {
        Self { count: Arc::default(), bytes }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn open(&self, io: PlainOrTls) -> Stream {
        self.count.fetch_add(1, Ordering::Relaxed);
        Stream::new(io, self.clone())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.open.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the plaintext bytes from a peer: to know whether any byte of an answer came, and to enforce a limit.
#[derive(Debug)]
pub struct Meter {
    received_bytes: AtomicU64,
    ceiling_bytes: AtomicU64,
    /// In TLS 1.3 a peer refuses our certificate only after the handshake. The HTTP library may lose that error, so it
    /// is kept here.
    alert: OnceLock<TlsFault>,
}

/// Before the first request, for the greetings of HTTP/2.
const NO_CEILING: u64 = u64::MAX;

impl Meter {
    pub fn received_bytes(&self) -> u64 {
        self.received_bytes.load(Ordering::Relaxed)
    }

    /// Why the peer ended TLS, if it sent an alert.
    pub fn alert(&self) -> Option<TlsFault> {
        self.alert.get().copied()
    }

    /// Allows the peer to send `bytes` more from now on. A read beyond the limit is an error of the kind
    /// `QuotaExceeded`. The limit is never lowered: the rest of an earlier answer may still arrive when the next
    /// request begins.
    pub fn allow_bytes(&self, bytes: u64) {
        let ceiling = self.received_bytes().saturating_add(bytes);
        let raised = |before| Some(if before == NO_CEILING { ceiling } else { ceiling.max(before) });
        let _always = self.ceiling_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, raised);
    }

    /// Whether the peer has used up its limit.
    pub fn is_spent(&self) -> bool {
        self.received_bytes() >= self.ceiling_bytes.load(Ordering::Relaxed)
    }
}

pub enum PlainOrTls {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    fn new(io: PlainOrTls, open: OpenStreams) -> Self {
        let meter = Meter {
            received_bytes: AtomicU64::new(0),
            ceiling_bytes: AtomicU64::new(NO_CEILING),
            alert: OnceLock::new(),
        };
        Self { io, meter: Arc::new(meter), open }
    }

    fn count_sent(&self, polled: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(sent)) = &polled {
            self.open.bytes.add(Direction::Sent, *sent as u64);
        }
        polled
    }

    fn is_tls(&self) -> bool {
        matches!(self.io, PlainOrTls::Tls(_))
    }

    /// Stays readable after the stream has been moved.
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
            PlainOrTls::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            PlainOrTls::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        let received = buf.filled().len() - before;
        if received > 0 {
            self.meter.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
            self.open.bytes.add(Direction::Received, received as u64);
        }
        match &polled {
            // The peer closed the connection without TLS `close_notify`, as many servers do. The stream ends here, and
            // the HTTP library knows whether the answer may.
            Poll::Ready(Err(error)) if self.is_tls() && error.kind() == io::ErrorKind::UnexpectedEof => {
                return Poll::Ready(Ok(()));
            }
            Poll::Ready(Err(error)) => {
                if let Some(fault) = alert_of(error) {
                    let _known = self.meter.alert.set(fault);
                }
            }
            _ => {}
        }
        polled
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            PlainOrTls::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            PlainOrTls::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        };
        self.count_sent(polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = match &mut self.io {
            PlainOrTls::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            PlainOrTls::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        };
        self.count_sent(polled)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            PlainOrTls::Plain(stream) => stream.is_write_vectored(),
            PlainOrTls::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            PlainOrTls::Plain(stream) => Pin::new(stream).poll_flush(cx),
            PlainOrTls::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            PlainOrTls::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            PlainOrTls::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
