//! The life of one connection: TLS handshake, requests, and an end that lets the caller read the last answer.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::to_bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;

use crate::body::Reservation;
use crate::door::Door;
use crate::exchange::Exchanges;
use crate::refusal::{self, Refusal};
use crate::stream::{Stream, Watched};
use crate::watch::{Expired, Watch};

/// What one connection is given.
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) peer: SocketAddr,
    pub(crate) at: Instant,
    /// No further request is read once this is cancelled.
    pub(crate) stop: CancellationToken,
}

/// How the requests of a connection ended.
enum End {
    Finished(Result<(), hyper::Error>),
    Expired(Expired),
}

/// Serves a connection to its end.
pub(crate) async fn serve_connection(door: Arc<Door>, router: Router, accepted: Accepted) {
    let Accepted { stream, peer, at, stop } = accepted;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = %Chain(&error), "cannot set TCP_NODELAY on a connection");
    }
    let handshake = shake_hands(&door, stream, at);
    let stream = tokio::select! {
        stream = handshake => stream,
        () = stop.cancelled() => None,
    };
    let Some(stream) = stream else { return };
    let watch = Arc::new(Watch::new(&door.limits, at));
    let exchanges = Exchanges {
        door: Arc::clone(&door),
        router: TowerToHyperService::new(router),
        watch: Arc::clone(&watch),
        reservation: Reservation::none_of(&door.bodies),
        peer: peer.ip(),
    };
    let service = service_fn(move |request: Request<Incoming>| exchanges.clone().answer(request));
    let io = TokioIo::new(Watched { stream, watch: Arc::clone(&watch) });
    let mut connection = builder().serve_connection(io, service);
    let mut timer = Box::pin(sleep_until(at + door.limits.head_time));
    let mut stopped = Box::pin(stop.cancelled());
    let mut is_stopping = false;
    let end = std::future::poll_fn(|cx| {
        if !is_stopping && stopped.as_mut().poll(cx).is_ready() {
            is_stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        poll_to_end(&mut connection, &watch, timer.as_mut(), cx)
    })
    .await;
    let parts = connection.into_parts();
    let stream = parts.io.into_inner().stream;
    finish(&door, stream, end, &parts.read_buf, &watch).await;
}

/// hyper with our limits. Its own timers stay off, because the watch has all deadlines.
fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_header_size(limits::HEAD_BYTES).max_buf_size(limits::CONNECTION_BUFFER_BYTES);
    builder
}

/// Polls the connection, then its next deadline. The timer is set again only when a deadline comes sooner than it, so
/// that a busy connection hardly ever sets it.
fn poll_to_end(
    connection: &mut (impl Future<Output = Result<(), hyper::Error>> + Unpin),
    watch: &Watch,
    mut timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<End> {
    loop {
        if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(End::Finished(result));
        }
        loop {
            let Some(deadline) = watch.next_deadline() else { return Poll::Pending };
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if deadline <= Instant::now() {
                break;
            }
        }
        if let Some(expired) = watch.expire(Instant::now()) {
            return Poll::Ready(End::Expired(expired));
        }
    }
}

/// Returns `None` when the handshake fails or takes too long.
async fn shake_hands(door: &Door, stream: TcpStream, accepted_at: Instant) -> Option<Stream> {
    let Some(certificate) = &door.certificate else { return Some(Stream::Plain(stream)) };
    let handshake = certificate.acceptor().accept(stream);
    match timeout_at(accepted_at + door.limits.head_time, handshake).await {
        Ok(Ok(stream)) => Some(Stream::Tls(Box::new(stream))),
        Ok(Err(error)) => {
            tracing::debug!(error = %Chain(&error), "a TLS handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Answers a head that was refused, and closes the connection such that the caller can read the last answer.
async fn finish(door: &Door, mut stream: Stream, end: End, head: &[u8], watch: &Watch) {
    let refusal = match end {
        End::Finished(Err(error)) if watch.is_between_exchanges() => refusal::of_parse_error(&error, head),
        End::Finished(_) => None,
        End::Expired(Expired::Head) => Some(Refusal::HeadTooSlow),
        End::Expired(Expired::Idle) => None,
        End::Expired(Expired::Answer) => return,
    };
    if let Some(refusal) = refusal {
        let answer = render(door, refusal).await;
        let written = timeout(door.limits.answer_time, stream.write_all(&answer)).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
    }
    let closing = timeout(door.limits.linger_quiet_time, stream.shutdown());
    if matches!(closing.await, Ok(Ok(()))) && (refusal.is_some() || watch.must_linger()) {
        let _ = timeout(door.limits.linger_time, linger(door, &mut stream)).await;
    }
}

async fn render(door: &Door, refusal: Refusal) -> Vec<u8> {
    let id = door.new_request_id();
    let mut response = (door.render_refusal)(refusal, id);
    door.complete(&mut response, id);
    let (head, body) = response.into_parts();
    let body = to_bytes(body, limits::ERROR_BYTES).await.unwrap_or_default();
    refusal::to_bytes(head, &body, door.clock.now())
}

/// Reads and drops what the caller still sends. Closing a socket with unread bytes would reset the connection, and the
/// caller would lose the answer.
async fn linger(door: &Door, stream: &mut Stream) {
    let mut dropped = vec![0; limits::CONNECTION_BUFFER_BYTES];
    let mut left = limits::LINGER_BYTES;
    loop {
        match timeout(door.limits.linger_quiet_time, stream.read(&mut dropped)).await {
            Ok(Ok(bytes @ 1..)) if bytes as u64 <= left => left -= bytes as u64,
            _ => return,
        }
    }
}
