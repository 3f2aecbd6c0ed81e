//! The receivers of a run: they answer as configured and record each arrival.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::arrivals::Arrivals;
use super::directory::Directory;
use super::tls::Authority;
use super::wire::{consume, read_message};

/// The properties of the receivers.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverOptions {
    pub is_tls: bool,
    /// Number of loopback addresses. Endpoints are spread over them.
    pub addresses: usize,
    pub answer: Answer,
}

/// The answer of a receiver, and its delay.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    AtOnce,
    /// 500 to one in this many requests at random, all without delay.
    FailsOneIn(u32),
    /// After a random delay.
    After {
        least: Duration,
        spread: Duration,
    },
}

/// Receivers that listen until the runtime ends.
pub struct Sink {
    pub base_urls: Vec<String>,
    /// The directory with the CA certificate of TLS receivers.
    trusted: Option<Directory>,
}

const CA_FILE: &str = "ca.pem";
const SUCCESS: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";
const FAILURE: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n";

impl Sink {
    /// Starts the receivers, each on a free port.
    pub async fn start(receiver: ReceiverOptions, arrivals: &Arc<Arrivals>) -> io::Result<Self> {
        let authority = receiver.is_tls.then(Authority::new).transpose()?;
        let mut base_urls = Vec::with_capacity(receiver.addresses);
        for number in 0..receiver.addresses {
            let address = IpAddr::V4(loopback(number));
            let listener = TcpListener::bind((address, 0)).await?;
            let scheme = if receiver.is_tls { "https" } else { "http" };
            base_urls.push(format!("{scheme}://{}", listener.local_addr()?));
            let tls = authority.as_ref().map(|authority| authority.acceptor(address)).transpose()?;
            tokio::spawn(accept(listener, tls, receiver.answer, Arc::clone(arrivals)));
        }
        let trusted = authority.map(|authority| {
            let directory = Directory::create()?;
            std::fs::write(directory.0.join(CA_FILE), authority.pem())?;
            Ok::<_, io::Error>(directory)
        });
        Ok(Self { base_urls, trusted: trusted.transpose()? })
    }

    /// The flags that make a server trust these receivers.
    pub fn server_flags(&self) -> Vec<String> {
        self.trusted.as_ref().map_or_else(Vec::new, |directory| {
            vec!["--ca-file".to_owned(), directory.0.join(CA_FILE).display().to_string()]
        })
    }
}

/// Addresses from 127.0.0.1 on. All of 127.0.0.0/8 is loopback.
fn loopback(number: usize) -> Ipv4Addr {
    let [.., high, low] = u32::try_from(number + 1).unwrap_or(1).to_be_bytes();
    Ipv4Addr::new(127, 0, high, low)
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, answer: Answer, arrivals: Arc<Arrivals>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, arrivals) = (tls.clone(), Arc::clone(&arrivals));
        tokio::spawn(async move {
            arrivals.connection_opened();
            handle(stream, tls, answer, &arrivals).await;
            arrivals.connection_closed();
        });
    }
}

async fn handle(stream: TcpStream, tls: Option<TlsAcceptor>, answer: Answer, arrivals: &Arrivals) {
    let _ = stream.set_nodelay(true);
    match tls {
        None => serve(stream, answer, arrivals).await,
        Some(tls) => {
            if let Ok(stream) = tls.accept(stream).await {
                serve(stream, answer, arrivals).await;
            }
        }
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: Answer, arrivals: &Arrivals) {
    let mut buffer = BytesMut::with_capacity(16 * 1024);
    while let Ok(Some(head)) = read_message(&mut stream, &mut buffer).await {
        let fails = matches!(answer, Answer::FailsOneIn(many) if arrivals.random_below(many) == 0);
        if fails {
            arrivals.failed_on_purpose();
        } else {
            let (text, rest) = buffer.split_at(head.length);
            arrivals.arrived(text, &rest[..head.body_bytes]);
        }
        consume(&mut buffer, &head);
        if let Answer::After { least, spread } = answer {
            tokio::time::sleep(least + spread * arrivals.random_below(1_000) / 1_000).await;
        }
        let answered = stream.write_all(if fails { FAILURE } else { SUCCESS }).await;
        if answered.is_err() || stream.flush().await.is_err() {
            break;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_receiver_has_its_own_address() {
        assert_eq!(loopback(0), Ipv4Addr::LOCALHOST);
        assert_eq!(loopback(254), Ipv4Addr::new(127, 0, 0, 255));
        assert_eq!(loopback(999), Ipv4Addr::new(127, 0, 3, 232));
    }
}
