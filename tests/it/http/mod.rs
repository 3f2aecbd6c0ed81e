//! The listener that every front door shares, with short limits: each state of a connection against clients that are
//! silent, slow, or half open.
//!
//! A client here is a raw socket, because no library sends what these tests send.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::response::Response;
use axum::routing::{get, post};
use http::{Request, StatusCode};
use postrider_crypto::Random;
use postrider_http::{BodyFault, Certificate, Door, DoorLimits, Refusal, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::app::NOON;
use crate::support::clock::ManualClock;
use crate::support::receiver::connect;
use crate::support::wait::bounded;

mod body;
mod head;
mod idle;
mod permit;
mod tls;

/// Long enough for anything that must not happen in a test, short enough to wait for in none.
const NEVER: Duration = Duration::from_secs(600);
/// A limit that a test waits for.
const SOON: Duration = Duration::from_millis(150);

/// A listener with a small router.
struct Front {
    address: SocketAddr,
    stop: CancellationToken,
    cut: CancellationToken,
    serving: JoinHandle<()>,
}

/// Limits that end nothing.
fn patient() -> DoorLimits {
    DoorLimits {
        head_time: NEVER,
        body_time: NEVER,
        body_slow_start: NEVER,
        answer_time: NEVER,
        idle_time: NEVER,
        drain_time: NEVER,
        linger_time: NEVER,
        linger_quiet_time: NEVER,
        ..DoorLimits::new(100)
    }
}

impl Front {
    async fn with(limits: DoorLimits) -> Self {
        Self::open(limits, |_| {}).await
    }

    async fn open(limits: DoorLimits, change: impl FnOnce(&mut Door)) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let render = Arc::new(|refusal: Refusal, _| {
            let mut response = Response::new(Body::from(format!("{refusal:?}")));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        });
        let mut door = Door::new(limits, render, Random::default(), Arc::new(ManualClock::new(NOON)));
        change(&mut door);
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let serving = tokio::spawn(serve(listener, router(), Arc::new(door), stop.clone(), cut.clone()));
        Self { address, stop, cut, serving }
    }

    async fn connect(&self) -> Client<TcpStream> {
        Client(connect(self.address).await)
    }
}

fn router() -> Router {
    Router::new()
        .route("/hello", get(async || "hello"))
        .route("/unread", post(async || StatusCode::UNAUTHORIZED))
        .route("/large", get(async || vec![b'x'; 64 * 1024 * 1024]))
        .route(
            "/caller",
            get(async |request: Request<Body>| format!("{:?}", postrider_http::caller_address(request.extensions()))),
        )
        .route("/length", post(read_length))
        .route("/hold", post(hold))
}

async fn read_length(request: Request<Body>) -> (StatusCode, String) {
    match to_bytes(request.into_body(), usize::MAX).await {
        Ok(bytes) => (StatusCode::OK, bytes.len().to_string()),
        Err(error) => match fault_of(&error) {
            Some(BodyFault::TooSlow) => (StatusCode::REQUEST_TIMEOUT, "too slow".to_owned()),
            Some(BodyFault::OutOfMemory) => (StatusCode::SERVICE_UNAVAILABLE, "no memory".to_owned()),
            _ => (StatusCode::BAD_REQUEST, error.to_string()),
        },
    }
}

/// Reads the body and never answers.
async fn hold(request: Request<Body>) -> StatusCode {
    let _held = to_bytes(request.into_body(), usize::MAX).await;
    std::future::pending().await
}

fn fault_of(error: &axum::Error) -> Option<&BodyFault> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(fault) = error.downcast_ref() {
            return Some(fault);
        }
        cause = error.source();
    }
    None
}

/// One end of a connection.
struct Client<S>(S);

/// The head and the body of an answer, both as text.
#[derive(Debug)]
struct Answer {
    head: String,
    body: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        bounded("a write", self.0.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends all of it unless the peer closes the connection first.
    async fn try_send(&mut self, bytes: impl AsRef<[u8]>) {
        bounded("a write", self.0.write_all(bytes.as_ref())).await.ok();
    }

    /// The next answer, which has a `Content-Length`.
    async fn answer(&mut self) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = bounded("an answer", self.0.read_u8()).await;
            head.push(
                byte.unwrap_or_else(|error| panic!("no answer but {:?}: {error}", String::from_utf8_lossy(&head))),
            );
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        bounded("a body", self.0.read_exact(&mut body)).await.unwrap();
        Answer { head, body: String::from_utf8(body).unwrap() }
    }

    /// Waits until the server closes the connection. Returns what it sent before.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        bounded("the end of the connection", self.0.read_to_end(&mut rest)).await.ok();
        rest
    }

    async fn hello(&mut self) {
        self.send(HELLO).await;
        let answer = self.answer().await;
        assert!(answer.head.starts_with("http/1.1 200 ok") && answer.body == "hello", "{answer:?}");
    }

    /// As [`Self::hello`], unless the peer closes the connection first.
    async fn try_hello(&mut self) -> std::io::Result<()> {
        let mut start = [0; 15];
        bounded("a write", self.0.write_all(HELLO.as_bytes())).await?;
        bounded("the start of an answer", self.0.read_exact(&mut start)).await?;
        assert_eq!(start, *b"HTTP/1.1 200 OK");
        Ok(())
    }
}

const HELLO: &str = "GET /hello HTTP/1.1\r\nhost: x\r\n\r\n";

impl Answer {
    /// Checks the status and the headers that every answer has.
    #[track_caller]
    fn check(&self, status: u16) -> &Self {
        assert!(self.head.starts_with(&format!("http/1.1 {status} ")), "{self:?}");
        assert!(self.head.contains("\r\nx-request-id: req_"), "{self:?}");
        assert!(self.head.contains("\r\nx-content-type-options: nosniff\r\n"), "{self:?}");
        assert!(self.head.contains("\r\ndate: "), "{self:?}");
        self
    }

    fn closes(&self) -> bool {
        self.head.contains("\r\nconnection: close\r\n")
    }
}
