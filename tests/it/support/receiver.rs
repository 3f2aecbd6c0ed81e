//! Scripted HTTP receivers on raw sockets. They use no framework, because they must do what no framework allows: stall,
//! drip, reset, lie about lengths and never end.
//!
//! They speak HTTP/1.1 with keep-alive and read bodies by `Content-Length`, which our client always sends.

mod exchange;

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use exchange::{Exchange, Wire, read_request, until_hang_up};

use super::tls::Identity;
use super::wait::{bounded, bounded_or};

/// A well-formed answer. `Content-Length` is added.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// What the receiver does once it has read a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    Answer(Answer),
    /// Waits for the gate, then answers.
    Hold(Gate, Answer),
    /// Answers after this time.
    Late(Duration, Answer),
    /// Sends nothing until the client hangs up.
    StallBeforeHeaders,
    /// Half of the promised body, then nothing until the client hangs up.
    StallMidBody,
    /// Half of the promised body, then a close.
    CutMidBody,
    /// A status line, then a header that grows by a byte per interval and never ends.
    DripHeaders(Duration),
    /// Headers at once, then a body that grows by a byte per interval and never ends.
    DripBody(Duration),
    /// 200 and a chunked body, as fast as it is read, without end.
    EndlessBody,
    /// Interim 103 answers without end, never a final one.
    EndlessInterim,
    /// A few KiB that unpack to [`GZIP_BOMB_BYTES`].
    GzipBomb,
    /// One header of 1 MiB.
    HugeHeader,
    /// 20,000 headers.
    ManyHeaders,
    /// 200 and headers of 1 KiB each, as fast as they are read, without end.
    EndlessHeaders,
    /// RST instead of an answer.
    Reset,
    CloseWithoutAnswer,
    /// The greeting of an SSH server.
    NotHttp,
    /// Answers 200 with keep-alive. Closes when the first byte of the next request arrives, without reading it.
    KeepAliveThenClose,
}

/// The unpacked size of [`Behaviour::GzipBomb`].
pub const GZIP_BOMB_BYTES: usize = 16 << 20;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    pub method: String,
    /// The request target: path and query.
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub at: Instant,
    /// The number of the connection, from 1. It shows whether a connection was reused.
    pub connection: usize,
    /// The handshake, on a receiver with TLS.
    pub tls: Option<Handshake>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    pub server_name: Option<String>,
    pub alpn: Option<String>,
    pub resumed: bool,
    /// The client certificate in DER.
    pub client: Option<Vec<u8>>,
}

/// The counters of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub requests: usize,
    pub connections: usize,
    pub open_connections: usize,
    pub failed_handshakes: usize,
    /// Bytes of answers handed to the kernel: an upper bound of the bytes that the client has read.
    pub bytes_sent: usize,
    /// Requests that have arrived and are not answered yet: now, and the most at once.
    pub under_way: usize,
    pub most_under_way: usize,
}

/// Holds back the answers of [`Behaviour::Hold`] until it is opened. Clones share one gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

/// A receiver that answers 200 unless scripted otherwise. Stops when dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: JoinSet<()>,
}

impl Answer {
    pub fn status(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    fn head(&self) -> String {
        let mut head = format!("HTTP/1.1 {} Scripted\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.status >= 200 && self.status != 204 {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head + "\r\n"
    }
}

impl From<Answer> for Behaviour {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl Behaviour {
    pub fn status(status: u16) -> Self {
        Answer::status(status).into()
    }

    pub fn redirect(location: &str) -> Self {
        Answer::status(302).header("location", location).into()
    }

    /// Answers 200 once `gate` is open.
    pub fn hold(gate: &Gate) -> Self {
        Self::Hold(gate.clone(), Answer::status(200))
    }
}

impl Gate {
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub fn open(&self) {
        self.0.send_replace(true);
    }

    async fn opened(&self) {
        let mut changes = self.0.subscribe();
        let _never_closed = changes.wait_for(|open| *open).await;
    }
}

impl Received {
    /// The first value of a header, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The body as JSON. Panics if it is not JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("a body of JSON")
    }

    /// A request that was never sent, for the tests of code that checks requests.
    pub fn for_test(headers: &[(&str, &str)], body: &[u8]) -> Self {
        let pair = |&(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
            (name.parse().expect("a header name"), value.parse().expect("a header value"))
        };
        Self {
            method: "POST".to_owned(),
            path: "/".to_owned(),
            headers: headers.iter().map(pair).collect(),
            body: body.to_vec(),
            at: Instant::now(),
            connection: 0,
            tls: None,
        }
    }
}

impl Receiver {
    /// Plain HTTP on a free port of 127.0.0.1.
    pub async fn start() -> Self {
        Self::start_on((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Plain HTTP on a given address, for a receiver that comes back.
    pub async fn start_on(address: SocketAddr) -> Self {
        Self::bind(address, Transport::Plain).await
    }

    /// HTTPS with the given certificate.
    pub async fn start_tls(identity: &Identity) -> Self {
        Self::start_tls_with(identity.server_config(&["http/1.1"])).await
    }

    /// HTTPS with the given settings.
    pub async fn start_tls_with(settings: Arc<rustls::ServerConfig>) -> Self {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), Transport::Tls(settings.into())).await
    }

    /// Begins to answer the ClientHello, then stalls in the middle of a record until the client hangs up.
    pub async fn start_half_handshake() -> Self {
        Self::bind((Ipv4Addr::LOCALHOST, 0).into(), Transport::HalfHandshake).await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of this receiver by its address: `http://127.0.0.1:port/path`.
    pub fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    /// A URL of this receiver by another name, which DNS must resolve to it.
    pub fn url_at(&self, host: &str, path: &str) -> String {
        format!("{}://{host}:{}{path}", self.scheme, self.address.port())
    }

    /// Appends the behaviour for one request to the queue.
    pub fn then(&self, behaviour: impl Into<Behaviour>) -> &Self {
        self.shared.script().queue.push_back(behaviour.into());
        self
    }

    /// Sets the behaviour for every request when the queue is empty.
    pub fn otherwise(&self, behaviour: impl Into<Behaviour>) -> &Self {
        let behaviour = behaviour.into();
        self.decide(move |_| behaviour.clone())
    }

    /// As [`Self::otherwise`], but `choose` decides for each request.
    pub fn decide(&self, choose: impl Fn(&Received) -> Behaviour + Send + 'static) -> &Self {
        self.shared.script().otherwise = Box::new(choose);
        self
    }

    /// All requests so far, in order of arrival.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received().clone()
    }

    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Waits until at least `count` requests have arrived whole. Returns all of them.
    pub async fn wait_for(&self, count: usize) -> Vec<Received> {
        self.wait_until(&format!("{count} requests"), |counts| counts.requests >= count).await;
        self.received()
    }

    /// Waits until the counts meet a condition. A failure prints them and the requests that arrived.
    pub async fn wait_until(&self, what: &str, condition: impl Fn(&Counts) -> bool) -> Counts {
        let mut changes = self.shared.counts.subscribe();
        let fulfilled = async { *changes.wait_for(condition).await.expect("self is alive") };
        let explain = || {
            let arrived = self.received();
            let arrived: Vec<_> = arrived.iter().map(|request| (&request.method, &request.path)).collect();
            format!("{what} at {}; there is {:?}, requests {arrived:?}", self.address, self.counts())
        };
        bounded_or(fulfilled, explain).await
    }

    /// Closes everything. When this returns, the port refuses connections.
    pub async fn stop(mut self) {
        self.accepting.shutdown().await;
    }

    async fn bind(address: SocketAddr, transport: Transport) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port on loopback");
        let address = listener.local_addr().expect("a bound socket");
        let scheme = if matches!(transport, Transport::Plain) { "http" } else { "https" };
        let shared = Arc::new(Shared::new());
        let mut accepting = JoinSet::new();
        accepting.spawn(accept(listener, transport, Arc::clone(&shared)));
        Self { address, scheme, shared, accepting }
    }
}

/// A port of 127.0.0.1 that the system gives to nobody while this lives. It refuses connections until a server of the
/// test listens on it by its number, which may end and come back.
#[derive(Debug)]
pub struct ReservedPort(TcpSocket);

impl ReservedPort {
    pub fn reserve() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        // Servers set this too. Then the system lets them listen on a port that is bound here and not listened on.
        socket.set_reuseaddr(true).expect("an option of the socket");
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).expect("a port on loopback");
        Self(socket)
    }

    pub fn address(&self) -> SocketAddr {
        self.0.local_addr().expect("a bound socket")
    }

    pub fn number(&self) -> u16 {
        self.address().port()
    }
}

/// A raw client connection to a server of the tests.
pub async fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).await.expect("someone listens")
}

/// As [`connect`], for an address where perhaps nothing listens any more.
///
/// # Errors
/// When the connection is refused.
pub async fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    #[expect(clippy::disallowed_methods, reason = "the test plays the stranger")]
    let connecting = TcpStream::connect(address);
    bounded("a connection or its refusal", connecting).await
}

/// Whether an address refuses connections.
pub async fn refuses(address: SocketAddr) -> bool {
    try_connect(address).await.is_err()
}

#[derive(Clone)]
enum Transport {
    Plain,
    Tls(TlsAcceptor),
    HalfHandshake,
}

type Choose = Box<dyn Fn(&Received) -> Behaviour + Send>;

struct Script {
    queue: VecDeque<Behaviour>,
    otherwise: Choose,
}

struct Shared {
    script: Mutex<Script>,
    received: Mutex<Vec<Received>>,
    counts: watch::Sender<Counts>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Shared {
    fn new() -> Self {
        let script = Script { queue: VecDeque::new(), otherwise: Box::new(|_| Behaviour::status(200)) };
        Self { script: Mutex::new(script), received: Mutex::default(), counts: watch::Sender::default() }
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().expect("no holder panics")
    }

    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().expect("no holder panics")
    }

    /// Records the request and takes its behaviour in one step, so that the script runs in the order of arrival.
    fn arrive(&self, request: Received) -> Behaviour {
        let mut script = self.script();
        let behaviour = script.queue.pop_front().unwrap_or_else(|| (script.otherwise)(&request));
        self.received().push(request);
        self.counts.send_modify(|counts| counts.requests += 1);
        behaviour
    }
}

/// Counts an open connection for as long as it lives.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.open_connections -= 1);
    }
}

/// Counts a request that is being answered for as long as it lives.
struct UnderWay<'a>(&'a Shared);

impl<'a> UnderWay<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.counts.send_modify(|counts| {
            counts.under_way += 1;
            counts.most_under_way = counts.most_under_way.max(counts.under_way);
        });
        Self(shared)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.counts.send_modify(|counts| counts.under_way -= 1);
    }
}

async fn accept(listener: TcpListener, transport: Transport, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _slow_is_fine = stream.set_nodelay(true);
        shared.counts.send_modify(|counts| {
            counts.connections += 1;
            counts.open_connections += 1;
        });
        let open = Open(Arc::clone(&shared));
        let number = shared.counts.borrow().connections;
        let transport = transport.clone();
        connections.spawn(async move {
            // Either the client or the script ended the connection. The counts show it.
            let _ended = greet(stream, transport, number, &open.0).await;
        });
    }
}

async fn greet(mut stream: TcpStream, transport: Transport, number: usize, shared: &Shared) -> io::Result<()> {
    match transport {
        Transport::Plain => serve(stream, number, None, shared).await,
        Transport::HalfHandshake => {
            // A handshake record that announces 122 bytes and sends only the head of a ServerHello.
            const HALF: [u8; 11] = [0x16, 0x03, 0x03, 0x00, 0x7a, 0x02, 0x00, 0x00, 0x76, 0x03, 0x03];
            stream.read_u8().await?;
            stream.write_all(&HALF).await?;
            until_hang_up(&mut stream).await
        }
        Transport::Tls(acceptor) => match acceptor.accept(stream).into_fallible().await {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let handshake = Handshake {
                    server_name: session.server_name().map(str::to_owned),
                    alpn: session.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
                    client: session.peer_certificates().map(|chain| chain[0].to_vec()),
                    resumed: session.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
                };
                serve(stream, number, Some(handshake), shared).await
            }
            Err((failure, mut stream)) => {
                shared.counts.send_modify(|counts| counts.failed_handshakes += 1);
                // A close with unread data would send a reset, which could overtake the alert.
                until_hang_up(&mut stream).await?;
                Err(failure)
            }
        },
    }
}

async fn serve(mut wire: impl Wire, number: usize, tls: Option<Handshake>, shared: &Shared) -> io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let Some(mut request) = read_request(&mut wire, &mut unread, number).await? else { return Ok(()) };
        request.tls.clone_from(&tls);
        let asked_to_close = request.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let behaviour = shared.arrive(request);
        let _under_way = UnderWay::new(shared);
        let mut exchange = Exchange { wire: &mut wire, shared };
        if !exchange.perform(behaviour).await? || asked_to_close {
            return wire.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests;
