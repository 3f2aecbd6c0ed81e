//! Answers written byte by byte: what RFC 9112 lets a client read, and what is no complete answer.

use std::net::SocketAddr;

use postrider_egress::{Exchange, SendError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::{LONG, NOON, SHORT, egress, post_within, settings_with, status, to_loopback};
use crate::support::clock::ManualClock;
use crate::support::dns::{Answer, DnsServer};
use crate::support::tls::TestCa;

/// What the server does after its answer.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// Closes the TCP connection, without TLS `close_notify`.
    Close,
    StayOpen,
}

/// Answers the first request of each connection with these bytes.
async fn serve(answer: &'static str, then: Then, tls: Option<TlsAcceptor>) -> (SocketAddr, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut open: Vec<Box<dyn std::any::Any + Send>> = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            match &tls {
                None => open.extend(respond(stream, answer, then).await.map(|stream| Box::new(stream) as _)),
                Some(tls) => {
                    let stream = tls.accept(stream).await.unwrap();
                    open.extend(respond(stream, answer, then).await.map(|stream| Box::new(stream) as _));
                }
            }
        }
    });
    (address, tasks)
}

/// Returns the stream if it stays open. Dropping a TLS stream sends no `close_notify`.
async fn respond<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, answer: &str, then: Then) -> Option<S> {
    let mut request = Vec::new();
    while !request.ends_with(b"{\"n\":1}") {
        stream.read_buf(&mut request).await.unwrap();
    }
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    (then == Then::StayOpen).then_some(stream)
}

async fn ask(answer: &'static str, then: Then) -> Exchange {
    let (address, _tasks) = serve(answer, then, None).await;
    let deadline = if then == Then::Close { LONG } else { SHORT };
    post_within(&to_loopback(), &format!("http://{address}/"), deadline).await
}

#[tokio::test]
async fn what_a_client_may_read_is_an_answer() {
    for (answer, then, code, body) in [
        ("HTTP/1.1 200 OK\r\nX-A: b\r\n c\r\n\td\r\nContent-Length: 2\r\n\r\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\n chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nContent-Length : 2\r\nX-A\t: b\r\n\r\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nno header line\r\nContent-Length: 2\r\n\r\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 200 OK\r\n\r\nok", Then::Close, 200, "ok"),
        ("HTTP/1.0 200 OK\r\n\r\nok", Then::Close, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nok", Then::Close, 200, "ok"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok", Then::StayOpen, 200, "ok"),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 20\r\n\r\n", Then::StayOpen, 204, ""),
        ("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok", Then::StayOpen, 204, ""),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 20\r\n\r\n", Then::Close, 304, ""),
    ] {
        let exchange = ask(answer, then).await;
        assert_eq!(status(&exchange), code, "{answer:?}");
        assert_eq!(&exchange.result.unwrap().body[..], body.as_bytes(), "{answer:?}");
    }
}

#[tokio::test]
async fn a_body_that_does_not_reach_its_end_is_a_failure() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nok",
    ] {
        let result = ask(answer, Then::Close).await.result;
        assert!(matches!(result, Err(SendError::ConnectionClosed { status: Some(200), .. })), "{answer:?}: {result:?}");
    }
    let open = ask("HTTP/1.1 200 OK\r\n\r\nok", Then::StayOpen).await.result;
    assert!(matches!(open, Err(SendError::Timeout { status: Some(200), .. })), "{open:?}");
    let head = ask("HTTP/1.1 200 OK\r\nContent-", Then::Close).await.result;
    assert!(matches!(head, Err(SendError::ConnectionClosed { status: None, .. })), "{head:?}");
}

#[tokio::test]
async fn a_connection_that_ends_without_close_notify_ends_the_body() {
    let (dns, ca) = (DnsServer::start().await, TestCa::new());
    dns.set("hooks.test", Answer::addresses(&["127.0.0.1"]));
    let egress = egress(settings_with(&dns, Some(&ca)), &ManualClock::new(NOON));
    for (answer, complete) in [
        ("HTTP/1.1 200 OK\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", false),
    ] {
        let acceptor = TlsAcceptor::from(ca.leaf(&["hooks.test"]).server_config(&["http/1.1"]));
        let (address, _tasks) = serve(answer, Then::Close, Some(acceptor)).await;
        let exchange = post_within(&egress, &format!("https://hooks.test:{}/", address.port()), LONG).await;
        assert_eq!(exchange.result.is_ok(), complete, "{answer:?}: {exchange:?}");
    }
}

#[tokio::test]
async fn bytes_after_an_answer_without_a_body_are_not_the_next_answer() {
    let answer = "HTTP/1.1 204 No Content\r\nContent-Length: 38\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
    let (address, _tasks) = serve(answer, Then::StayOpen, None).await;
    let egress = to_loopback();
    for _ in 0..5 {
        let exchange = post_within(&egress, &format!("http://{address}/"), LONG).await;
        assert_eq!((status(&exchange), exchange.reused), (204, false));
    }
}
