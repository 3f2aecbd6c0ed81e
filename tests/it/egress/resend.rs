//! A request that the receiver has not processed is sent again in the same attempt.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use postrider_domain::limits::RESENDS_PER_ATTEMPT;
use postrider_egress::SendError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::http2_frames::{
    END_HEADERS, GOAWAY, HEADERS, RST_STREAM, SETTINGS, frame, next_request_stream, read_preface,
};
use super::{NOON, egress, post, settings_with, status, to_loopback};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::tls::TestCa;

const END_STREAM: u8 = 1;
const NO_ERROR: u32 = 0;
const REFUSED_STREAM: u32 = 7;

/// How an HTTP/2 server ends its connections.
#[derive(Clone, Copy)]
enum Habit {
    /// Answers this many requests of each connection, then sends GOAWAY and processes no other.
    FewRequests(usize),
    /// Refuses the streams of this many connections, and answers those of the next.
    Refusing(usize),
}

struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn start(ca: &TestCa, habit: Habit) -> Self {
        let acceptor = TlsAcceptor::from(ca.leaf(&["hooks.test"]).server_config(&["h2"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, answered) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (opened, count) = (Arc::clone(&connections), Arc::clone(&answered));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let number = opened.fetch_add(1, Ordering::SeqCst) + 1;
                let (acceptor, count) = (acceptor.clone(), Arc::clone(&count));
                open.spawn(async move {
                    let stream = acceptor.accept(stream).await.unwrap();
                    let _hung_up = serve(stream, habit, number, &count).await;
                });
            }
        });
        Self { address, connections, answered, _tasks: tasks }
    }

    fn url(&self) -> String {
        format!("https://hooks.test:{}/", self.address.port())
    }
}

async fn serve<S>(mut stream: S, habit: Habit, connection: usize, answered: &AtomicUsize) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    read_preface(&mut stream).await?;
    let mut processed = 0;
    loop {
        let number = next_request_stream(&mut stream).await?;
        let reply = match habit {
            Habit::FewRequests(most) if processed >= most => continue,
            Habit::Refusing(refusing) if connection <= refusing => {
                frame(RST_STREAM, 0, number, &REFUSED_STREAM.to_be_bytes())
            }
            // 0x88 is `:status: 200` in the static table.
            _ => {
                answered.fetch_add(1, Ordering::SeqCst);
                frame(HEADERS, END_HEADERS | END_STREAM, number, &[0x88])
            }
        };
        stream.write_all(&reply).await?;
        processed += 1;
        if matches!(habit, Habit::FewRequests(most) if processed == most) {
            let payload = [number.to_be_bytes(), NO_ERROR.to_be_bytes()].concat();
            stream.write_all(&frame(GOAWAY, 0, 0, &payload)).await?;
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_ten_requests_a_connection_loses_none() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Server::start(&ca, Habit::FewRequests(10)).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let url = server.url();
    for _ in 0..4 {
        let exchanges = join_all((0..64).map(|_| post(&egress, &url))).await;
        for exchange in &exchanges {
            assert_eq!(status(exchange), 200);
        }
    }
    assert_eq!(server.answered.load(Ordering::SeqCst), 4 * 64, "each request is processed once");
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_up_to_five_times() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let most = usize::try_from(RESENDS_PER_ATTEMPT).unwrap();
    for (refusing, succeeds) in [(1, true), (most, true), (most + 1, false)] {
        let server = Server::start(&ca, Habit::Refusing(refusing)).await;
        let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
        let exchange = post(&egress, &server.url()).await;
        assert_eq!(exchange.result.is_ok(), succeeds, "{refusing}: {exchange:?}");
        assert_eq!(server.connections.load(Ordering::SeqCst), refusing.min(most) + 1);
    }
}

/// Answers the first request of each connection with 200, and the second with 408. Returns the number of connections.
async fn impatient(first: &'static str) -> (SocketAddr, Arc<AtomicUsize>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            for answer in [first, TIMED_OUT] {
                let mut request = Vec::new();
                while !request.ends_with(b"{\"n\":1}") {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        break;
                    }
                }
                let _gone = stream.write_all(answer.as_bytes()).await;
            }
        }
    });
    (address, connections, tasks)
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const TIMED_OUT: &str = "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn a_408_on_a_kept_connection_is_no_answer() {
    let (address, connections, _tasks) = impatient(TAKEN).await;
    let egress = to_loopback();
    for expected in 1..4 {
        let exchange = post(&egress, &format!("http://{address}/")).await;
        assert_eq!((status(&exchange), exchange.reused), (200, false));
        assert_eq!(connections.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_408_on_a_new_connection_is_an_answer() {
    let (address, connections, _tasks) = impatient(TIMED_OUT).await;
    let exchange = post(&to_loopback(), &format!("http://{address}/")).await;
    assert_eq!(status(&exchange), 408);
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_new_connection_that_dies_unanswered_is_not_tried_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 64];
        stream.read_exact(&mut request).await.unwrap();
        drop(stream);
    };
    let (url, egress) = (format!("http://{address}/"), to_loopback());
    let (exchange, ()) = tokio::join!(post(&egress, &url), accepting);
    assert!(matches!(exchange.result, Err(SendError::ConnectionClosed { status: None, .. })), "{exchange:?}");
}
