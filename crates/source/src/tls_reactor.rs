//! TLS for a client that cannot take a TLS library of ours: its runtime gives it streams that are encrypted already.
//!
//! `lapin` brings a TLS stack of its own, with some fifty crates. It asks its runtime for TCP streams, so this runtime
//! hands it streams on which rustls has made the handshake, with the one provider that this program uses anyway.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_rs::Tokio;
use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use futures_util::Stream;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt as _};

/// What a handshake needs.
#[derive(Clone, Debug)]
pub struct TlsParts {
    pub config: Arc<rustls::ClientConfig>,
    /// The name that the certificate must be for.
    pub host: String,
}

/// The runtime of this process, whose TCP streams are encrypted if there is something to encrypt with.
pub fn runtime(tls: Option<TlsParts>) -> RuntimeParts<Tokio, TlsReactor> {
    RuntimeParts::new(Tokio::current(), TlsReactor { tokio: Tokio::current(), tls })
}

#[derive(Clone, Debug)]
pub struct TlsReactor {
    tokio: Tokio,
    tls: Option<TlsParts>,
}

pub enum MaybeTls {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Reactor for TlsReactor {
    type TcpStream = Compat<MaybeTls>;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl futures_io::AsyncRead + futures_io::AsyncWrite + Send + Unpin + 'static> {
        self.tokio.register(socket)
    }

    fn sleep(&self, time: Duration) -> Self::Sleep {
        self.tokio.sleep(time)
    }

    fn interval(&self, time: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.tokio.interval(time)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let (connecting, tls) = (self.tokio.tcp_connect_addr(address), self.tls.clone());
        async move {
            let stream = connecting.await?.into_inner();
            stream.set_nodelay(true)?;
            let Some(TlsParts { config, host }) = tls else { return Ok(MaybeTls::Plain(stream).compat()) };
            let name = ServerName::try_from(host).map_err(io::Error::other)?;
            let encrypted = TlsConnector::from(config).connect(name, stream).await?;
            Ok(MaybeTls::Tls(Box::new(encrypted)).compat())
        }
    }
}

impl AsyncRead for MaybeTls {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for MaybeTls {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
