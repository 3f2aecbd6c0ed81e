//! A proxy in front of the server that speaks HTTP/2 to browsers, as proxies do, and HTTP/1.1 to the server.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::server::receiver::connect;
use super::server::tls::TestCa;

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

/// A port at which the proxy will answer, so that the server behind it can be told its address first.
pub struct Place(TcpListener);

/// The proxy. It serves until the runtime ends.
pub struct Front(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Streams that have been opened.
    opened: usize,
    /// Those that are open, by their numbers.
    open: BTreeSet<usize>,
    /// Requests that were no streams.
    asked: usize,
    refuses: bool,
}

impl Place {
    pub async fn take() -> Self {
        Self(TcpListener::bind("127.0.0.1:0").await.expect("a port"))
    }

    /// `https://postrider.test:port`.
    pub fn origin(&self) -> String {
        format!("https://postrider.test:{}", self.0.local_addr().expect("an address").port())
    }

    /// Serves from now on what the server at `upstream` answers.
    pub fn serve(self, upstream: SocketAddr) -> Front {
        let shared = Arc::new(Shared::default());
        let config = TestCa::new().leaf(&["postrider.test"]).server_config(&["h2"]);
        let (acceptor, state) = (TlsAcceptor::from(config), Arc::clone(&shared));
        tokio::spawn(async move {
            while let Ok((stream, _)) = self.0.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(|request| pass_on(Arc::clone(&state), upstream, request));
                    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    // A browser that closes its connection is no fault.
                    drop(builder.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Front(shared)
    }
}

impl Front {
    /// Answers streams with 429 from now on.
    pub fn refuse_streams(&self) {
        self.0.lock().refuses = true;
    }

    /// How many streams were opened, and how many of them are open.
    pub fn streams(&self) -> (usize, usize) {
        let state = self.0.lock();
        (state.opened, state.open.len())
    }

    /// Requests that were no streams.
    pub fn asked(&self) -> usize {
        self.0.lock().asked
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn pass_on(
    shared: Arc<Shared>,
    upstream: SocketAddr,
    request: Request<Incoming>,
) -> Result<Answer, hyper::Error> {
    let stream = request.uri().path().ends_with("/live").then(|| {
        let mut state = shared.lock();
        state.opened += 1;
        let number = state.opened;
        state.open.insert(number);
        Open { shared: Arc::clone(&shared), number }
    });
    {
        let mut state = shared.lock();
        state.asked += usize::from(stream.is_none());
        if state.refuses && stream.is_some() {
            let mut refused = Response::new(Empty::new().map_err(|never| match never {}).boxed());
            *refused.status_mut() = StatusCode::TOO_MANY_REQUESTS;
            return Ok(refused);
        }
    }
    let (mut parts, body) = request.into_parts();
    let authority = parts.uri.authority().map(ToString::to_string).unwrap_or_default();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = path.parse::<Uri>().expect("a path");
    parts.headers.insert(HOST, HeaderValue::from_str(&authority).expect("a host"));
    parts.version = http::Version::HTTP_11;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(connect(upstream).await)).await?;
    tokio::spawn(connection);
    let (mut head, body) = sender.send_request(Request::from_parts(parts, body)).await?.into_parts();
    head.version = http::Version::HTTP_2;
    head.headers.remove(CONNECTION);
    head.headers.remove(TRANSFER_ENCODING);
    Ok(Response::from_parts(head, Counted { body, _open: stream }.boxed()))
}

/// A stream that is open as long as this lives.
struct Open {
    shared: Arc<Shared>,
    number: usize,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.shared.lock().open.remove(&self.number);
    }
}

struct Counted {
    body: Incoming,
    _open: Option<Open>,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
