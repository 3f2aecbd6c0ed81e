//! HTTP/2 frames written by hand, for answers that no HTTP/2 library would send.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use postrider_egress::SendError;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use super::{NOON, egress, post, settings_with};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::tls::TestCa;
use crate::support::wait::bounded;

pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
pub const END_HEADERS: u8 = 4;

/// How the server answers the first request of a connection, on that request's stream.
#[derive(Clone, Copy)]
enum Answering {
    /// Response headers without end, in CONTINUATION frames.
    EndlessHead,
    /// Interim responses without end.
    EndlessInterim,
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A literal header field with a new name, without indexing.
fn field(name: &str, value: &str) -> Vec<u8> {
    let (name_length, value_length) = (u8::try_from(name.len()).unwrap(), u8::try_from(value.len()).unwrap());
    [&[0, name_length], name.as_bytes(), &[value_length], value.as_bytes()].concat()
}

/// Serves one connection. Returns the number of bytes that it could send.
async fn serve(listener: TcpListener, settings: Arc<ServerConfig>, answering: Answering) -> usize {
    let (stream, _) = listener.accept().await.unwrap();
    let mut stream = TlsAcceptor::from(settings).accept(stream).await.unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await.unwrap();
    let number = request_stream(&mut stream).await.unwrap();
    let mut sent_bytes = 0;
    let _hung_up = answer(&mut stream, number, answering, &mut sent_bytes).await;
    sent_bytes
}

async fn answer<S>(stream: &mut S, number: u32, answering: Answering, sent_bytes: &mut usize) -> io::Result<()>
where
    S: AsyncWrite + Unpin,
{
    let more = field("x-more", &"a".repeat(100)).repeat(100);
    let (first, next) = match answering {
        // 0x88 is `:status: 200` in the static table.
        Answering::EndlessHead => (frame(HEADERS, 0, number, &[0x88]), frame(CONTINUATION, 0, number, &more)),
        Answering::EndlessInterim => {
            let interim = frame(HEADERS, END_HEADERS, number, &field(":status", "103"));
            (interim.clone(), interim)
        }
    };
    stream.write_all(&first).await?;
    loop {
        stream.write_all(&next).await?;
        *sent_bytes += next.len();
    }
}

async fn request_stream(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u32> {
    read_preface(stream).await?;
    next_request_stream(stream).await
}

pub async fn read_preface(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.map(drop)
}

/// Reads until the headers of a request. Returns the id of its stream.
pub async fn next_request_stream(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u32> {
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        stream.read_exact(&mut payload).await?;
        if head[3] == HEADERS {
            return Ok(u32::from_be_bytes([head[5], head[6], head[7], head[8]]));
        }
    }
}

async fn start(ca: &TestCa, answering: Answering) -> (SocketAddr, JoinHandle<usize>) {
    let settings = ca.leaf(&["hooks.test"]).server_config(&["h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    (listener.local_addr().unwrap(), tokio::spawn(serve(listener, settings, answering)))
}

#[tokio::test]
async fn endless_headers_are_an_invalid_response_and_end_early() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    for answering in [Answering::EndlessHead, Answering::EndlessInterim] {
        let (address, serving) = start(&ca, answering).await;
        let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
        let exchange = post(&egress, &format!("https://hooks.test:{}/", address.port())).await;
        let sent_bytes = bounded("the client's hang-up", serving).await.unwrap();
        assert!(matches!(exchange.result, Err(SendError::InvalidResponse { .. })), "{exchange:?}");
        assert!(sent_bytes < 32 << 20, "{sent_bytes}");
    }
}
