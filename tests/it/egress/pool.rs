//! The connection pool: how many connections it keeps, for how long, and the one connection per host over HTTP/2.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use postrider_egress::{EgressSettings, SendError};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{NOON, egress, loopback_settings, post, settings_with, status};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::receiver::{Behaviour, Gate, Receiver};
use crate::support::tls::TestCa;
use crate::support::wait::bounded;

/// How a connection of the HTTP/2 server ends.
#[derive(Clone, Copy)]
enum End {
    Never,
    /// Sends GOAWAY with the answer to the n-th request.
    GoodbyeAfter(usize),
    /// Breaks the connection instead of answering the n-th request.
    BreakAt(usize),
}

/// Answers each HTTP/2 request with the body of that request.
struct Http2Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _accepting: JoinSet<()>,
}

impl Http2Server {
    async fn start(ca: &TestCa, end: End) -> Self {
        let acceptor = TlsAcceptor::from(ca.leaf(&["hooks.test"]).server_config(&["h2"]));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let mut accepting = JoinSet::new();
        let count = Arc::clone(&connections);
        accepting.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let acceptor = acceptor.clone();
                open.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve_http2(TokioIo::new(stream), end).await;
                    }
                });
            }
        });
        Self { address, connections, _accepting: accepting }
    }

    fn url(&self) -> String {
        format!("https://hooks.test:{}/", self.address.port())
    }
}

async fn serve_http2<S>(stream: S, end: End)
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let enough = Arc::new(tokio::sync::Notify::new());
    let served = Arc::new(AtomicUsize::new(0));
    let service = service_fn({
        let enough = Arc::clone(&enough);
        move |request: Request<Incoming>| {
            let number = served.fetch_add(1, Ordering::SeqCst) + 1;
            let last = matches!(end, End::GoodbyeAfter(last) | End::BreakAt(last) if number >= last);
            if last {
                enough.notify_one();
            }
            async move {
                assert_eq!(request.version(), Version::HTTP_2);
                assert!(request.uri().authority().is_some() && !request.headers().contains_key("host"));
                if last && matches!(end, End::BreakAt(_)) {
                    std::future::pending::<()>().await;
                }
                let body = request.into_body().collect().await.unwrap().to_bytes();
                Ok::<_, Infallible>(Response::new(Full::new(body)))
            }
        }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(stream, service);
    tokio::pin!(connection);
    tokio::select! {
        _ended = connection.as_mut() => return,
        () = enough.notified() => {}
    }
    if matches!(end, End::BreakAt(_)) {
        return;
    }
    connection.as_mut().graceful_shutdown();
    let _ended = connection.await;
}

#[tokio::test]
async fn requests_to_one_host_share_one_http2_connection() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Http2Server::start(&ca, End::Never).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let first = post(&egress, &server.url()).await;
    assert_eq!(&first.result.as_ref().unwrap().body[..], b"{\"n\":1}");
    let url = server.url();
    let exchanges = join_all((0..50).map(|_| post(&egress, &url))).await;
    assert!(exchanges.iter().all(|exchange| status(exchange) == 200 && exchange.reused));
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_burst_after_a_forgotten_http2_connection_opens_only_one() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Http2Server::start(&ca, End::Never).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let url = server.url();
    post(&egress, &url).await.result.unwrap();
    egress.forget(postrider_egress::TargetUrl::parse(&url).unwrap().host());
    let exchanges = join_all((0..30).map(|_| post(&egress, &url))).await;
    assert!(exchanges.iter().all(|exchange| status(exchange) == 200));
    assert_eq!(server.connections.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_http2_goaway_costs_no_attempt() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Http2Server::start(&ca, End::GoodbyeAfter(7)).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let url = server.url();
    // Six at once are fewer than the seven of a connection, so that no attempt meets a second GOAWAY.
    for _ in 0..20 {
        let exchanges = join_all((0..6).map(|_| post(&egress, &url))).await;
        for exchange in exchanges {
            assert_eq!(status(&exchange), 200);
        }
    }
    assert!(server.connections.load(Ordering::SeqCst) >= 10);
}

#[tokio::test]
async fn an_http2_connection_that_breaks_on_reuse_costs_no_attempt() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Http2Server::start(&ca, End::BreakAt(2)).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    for connections in 1..4 {
        assert_eq!(status(&post(&egress, &server.url()).await), 200);
        assert_eq!(server.connections.load(Ordering::SeqCst), connections);
    }
}

#[tokio::test]
async fn a_new_http2_connection_that_breaks_fails_the_attempt() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Http2Server::start(&ca, End::BreakAt(1)).await;
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    let exchange = post(&egress, &server.url()).await;
    assert!(matches!(exchange.result, Err(SendError::ConnectionClosed { status: None, .. })), "{exchange:?}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn http2_is_not_offered_when_it_is_switched_off() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let server = Http2Server::start(&ca, End::Never).await;
    let settings = EgressSettings { http2: false, ..settings_with(&dns, Some(&ca)) };
    let exchange = post(&egress(settings, &ManualClock::new(NOON)), &server.url()).await;
    assert!(exchange.result.is_err());
}

#[tokio::test]
async fn no_more_connections_are_kept_than_allowed() {
    for (max_idle_per_origin, max_idle) in [(3, 100), (100, 3)] {
        let receiver = Receiver::start().await;
        let gate = Gate::closed();
        receiver.otherwise(Behaviour::hold(&gate));
        let settings = EgressSettings { max_idle_per_origin, max_idle, ..loopback_settings() };
        let egress = egress(settings, &ManualClock::new(NOON));
        let url = receiver.url("/");
        let sending = join_all((0..10).map(|_| post(&egress, &url)));
        let opening = async {
            receiver.wait_for(10).await;
            gate.open();
        };
        let (exchanges, ()) = bounded("all answers", async { tokio::join!(sending, opening) }).await;
        assert!(exchanges.iter().all(|exchange| exchange.result.is_ok()));
        assert_eq!(egress.idle_connections(), 3);
        receiver.wait_until("the others' end", |counts| counts.open_connections == 3).await;
    }
}

#[tokio::test]
async fn a_full_pool_evicts_an_older_connection_for_the_latest() {
    // Two ports of one host share a shard, and eviction happens within a shard.
    let (first, second) = (Receiver::start().await, Receiver::start().await);
    let settings = EgressSettings { max_idle: 1, ..loopback_settings() };
    let egress = egress(settings, &ManualClock::new(NOON));
    post(&egress, &first.url("/")).await.result.unwrap();
    post(&egress, &second.url("/")).await.result.unwrap();
    first.wait_until("the close", |counts| counts.open_connections == 0).await;
    assert!(post(&egress, &second.url("/")).await.reused);
    assert_eq!(egress.idle_connections(), 1);
}

#[tokio::test]
async fn an_idle_connection_is_closed_without_another_request() {
    let receiver = Receiver::start().await;
    let settings = EgressSettings { idle_timeout: Duration::from_millis(20), ..loopback_settings() };
    let egress = egress(settings, &ManualClock::new(NOON));
    post(&egress, &receiver.url("/")).await.result.unwrap();
    receiver.wait_until("the close", |counts| counts.open_connections == 0).await;
    assert_eq!(egress.idle_connections(), 0);
}

#[tokio::test]
async fn a_connection_in_use_when_its_host_is_forgotten_is_not_kept() {
    let receiver = Receiver::start().await;
    let gate = Gate::closed();
    receiver.then(Behaviour::hold(&gate));
    let egress = egress(loopback_settings(), &ManualClock::new(NOON));
    let url = receiver.url("/");
    let forgetting = async {
        receiver.wait_for(1).await;
        egress.forget(postrider_egress::TargetUrl::parse(&url).unwrap().host());
        gate.open();
    };
    let (exchange, ()) = tokio::join!(post(&egress, &url), forgetting);
    assert_eq!(status(&exchange), 200);
    assert_eq!(egress.idle_connections(), 0);
}
