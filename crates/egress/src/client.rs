//! Sends one `POST` and reads its answer, over a pooled or a new connection, within one deadline.
//!
//! All limits on a stranger's answer apply here: time, headers, body. It must not follow redirects, repeat a request
//! that a receiver has begun to answer, or read proxy settings.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::body;
use super::connector::{Connector, Destination};
use super::exchange::{Answer, AttemptProgress, Exchange, OutboundRequest, Phase, ProxyFault, SendError};
use super::policy::RuleScope;
use super::pool::{Connection, Pool, PoolKey, PoolLimits, RequestSender};
use super::resolver::ResolveError;
use super::target::Host;
use postrider_domain::limits;
use postrider_metrics::{ConnectionState, Counters, EgressMetrics, Reused};

/// The HTTP client: a connector and a pool.
pub struct HttpClient {
    connector: Connector,
    pool: Arc<Pool>,
    connections_used: Counters,
}

impl HttpClient {
    pub fn new(connector: Connector, limits: PoolLimits, metrics: EgressMetrics) -> Self {
        let pool = Pool::new(limits);
        let EgressMetrics { connections, connections_used, before_scrape, .. } = metrics;
        let (weak, open) = (Arc::downgrade(&pool), connector.open_streams().clone());
        before_scrape.run(move || {
            let idle = weak.upgrade().map_or(0, |pool| pool.idle() as u64);
            connections.set_count(ConnectionState::Idle, idle);
            connections.set_count(ConnectionState::Busy, open.count().saturating_sub(idle));
        });
        Self { connector, pool, connections_used }
    }

    /// Sends one request. The [`Exchange`] holds the answer or the error.
    pub async fn send(&self, request: OutboundRequest) -> Exchange {
        let started = Instant::now();
        let mut progress = AttemptProgress::default();
        let call = OutboundCall::new(&request, self.connector.scope_of(request.requester));
        let attempt = self.attempt(&call, &mut progress);
        let result = match timeout(request.deadline, attempt).await {
            Ok(result) => result,
            Err(_) if progress.phase == Phase::Connect && self.connector.waits_for_proxy_since(started) => {
                Err(SendError::Proxy(ProxyFault::Unreachable))
            }
            Err(_) if progress.phase == Phase::Dns && !self.connector.name_servers_answer() => {
                Err(SendError::Dns(ResolveError::Unavailable))
            }
            Err(_) => Err(SendError::Timeout { phase: progress.phase, status: progress.status }),
        };
        if let Err(SendError::Refused(refusal)) = &result
            && refusal.reason.is_about_address()
        {
            self.pool.forget(request.url.host(), call.key.scope());
        }
        progress.phases.total = started.elapsed();
        let AttemptProgress { phases, peer, protocol, reused, .. } = progress;
        if protocol.is_some() {
            self.connections_used.increment(if reused { Reused::Yes } else { Reused::No });
        }
        Exchange { result, phases, peer, protocol, reused }
    }

    pub fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Closes the pooled connections to a host that were opened under the rules for everybody.
    pub fn forget(&self, host: &Host) {
        self.pool.forget(host, RuleScope::Everybody);
    }

    /// Idle HTTP/1.1 connections.
    pub fn idle_connections(&self) -> usize {
        self.pool.idle()
    }

    async fn attempt(&self, call: &OutboundCall<'_>, progress: &mut AttemptProgress) -> Result<Answer, SendError> {
        let mut connection = match self.pool.take(&call.key).await {
            Some(connection) => {
                progress.reused = true;
                connection
            }
            None => self.open(call, progress).await?,
        };
        let mut resends = 0;
        loop {
            let link = Arc::clone(&connection.link);
            let failure = match self.exchange(call, connection, progress).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if resends == limits::RESENDS_PER_ATTEMPT || !failure.may_resend(progress.reused) {
                return Err(failure.error);
            }
            self.pool.retire(&call.key, &link);
            drop(link);
            resends += 1;
            progress.status = None;
            // A peer that closes a shared connection after a few requests may refuse the same request again and again.
            // From the second time on it gets a connection of its own.
            connection =
                if resends == 1 { self.open(call, progress).await? } else { self.open_alone(call, progress).await? };
        }
    }

    /// Opens a connection, or returns an HTTP/2 connection that another attempt has opened meanwhile.
    async fn open(&self, call: &OutboundCall<'_>, progress: &mut AttemptProgress) -> Result<Connection, SendError> {
        progress.phase = Phase::Connect;
        let opening = self.pool.lock_opening(&call.key).await;
        if opening.is_some()
            && let Some(connection) = self.pool.take(&call.key).await
        {
            progress.reused = true;
            return Ok(connection);
        }
        let connection = self.open_alone(call, progress).await?;
        self.pool.share(&call.key, &connection);
        Ok(connection)
    }

    /// Opens a connection that no other attempt uses meanwhile.
    async fn open_alone(
        &self,
        call: &OutboundCall<'_>,
        progress: &mut AttemptProgress,
    ) -> Result<Connection, SendError> {
        progress.phase = Phase::Connect;
        progress.reused = false;
        let generation = self.pool.begin(&call.key);
        let connected = self.connector.connect(call.destination, progress).await?;
        Connection::open(connected, generation).await.map_err(|error| closed(None, error))
    }

    async fn exchange(
        &self,
        call: &OutboundCall<'_>,
        mut connection: Connection,
        progress: &mut AttemptProgress,
    ) -> Result<Answer, ExchangeFailure> {
        progress.peer = Some(connection.link.peer);
        progress.protocol = Some(connection.sender.protocol());
        progress.phase = Phase::Headers;
        let started = Instant::now();
        let _in_flight = connection.link.begin_request(limits::RESPONSE_WIRE_BYTES);
        let response = connection.post(call).await?;
        progress.phases.first_byte = Some(started.elapsed());
        progress.phase = Phase::Body;
        let (head, mut body) = response.into_parts();
        let status = Some(head.status.as_u16());
        progress.status = status;
        if progress.reused && head.status == StatusCode::REQUEST_TIMEOUT {
            // A server says so when it closes an idle connection. It has not read this request.
            let error = SendError::ConnectionClosed { status, source: None };
            return Err(ExchangeFailure { error, processing: Processing::Unknown });
        }
        if head.headers.len() > limits::RESPONSE_HEADERS_READ {
            return Err(ExchangeFailure::answered(SendError::InvalidResponse { status, source: None }));
        }
        let head_came = Instant::now();
        let excerpt = match body::read(head.status, &head.headers, &mut body).await {
            Ok(excerpt) => excerpt,
            Err(error) if breaks_http(&error) || connection.link.meter.is_spent() => {
                return Err(ExchangeFailure::answered(invalid(status, error)));
            }
            Err(error) => return Err(ExchangeFailure::answered(closed(status, error))),
        };
        progress.phases.body = Some(head_came.elapsed());
        if excerpt.ended_early {
            return Err(ExchangeFailure::answered(SendError::ConnectionClosed { status, source: None }));
        }
        if excerpt.drained && head.status != StatusCode::SWITCHING_PROTOCOLS {
            self.pool.put(&call.key, connection);
        }
        Ok(Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: excerpt.bytes,
            body_truncated: excerpt.truncated,
        })
    }
}

/// A request, and the pool key of its connection.
struct OutboundCall<'a> {
    destination: Destination<'a>,
    headers: &'a HeaderMap,
    body: &'a Bytes,
    key: PoolKey,
}

impl<'a> OutboundCall<'a> {
    fn new(request: &'a OutboundRequest, scope: RuleScope) -> Self {
        let identity = request.identity.as_deref();
        Self {
            destination: Destination { target: &request.url, requester: request.requester, identity },
            headers: &request.headers,
            body: &request.body,
            key: PoolKey::new(&request.url, identity, scope),
        }
    }
}

/// Why an exchange on one connection failed.
struct ExchangeFailure {
    error: SendError,
    processing: Processing,
}

/// Whether the receiver has processed the request, as far as the failure tells.
#[derive(Clone, Copy)]
enum Processing {
    /// An answer began, or the receiver broke the protocol.
    Begun,
    /// No byte of an answer came. On a reused connection the peer has most likely closed it before the request.
    Unknown,
    /// HTTP/2 says that it has not: the stream was refused, or is above the last one of GOAWAY.
    Not,
}

impl ExchangeFailure {
    fn answered(error: SendError) -> Self {
        Self { error, processing: Processing::Begun }
    }

    /// Whether the request may be sent once more, on a fresh connection.
    fn may_resend(&self, reused: bool) -> bool {
        match self.processing {
            Processing::Begun => false,
            Processing::Unknown => reused,
            Processing::Not => true,
        }
    }
}

impl Connection {
    /// Sends the request and waits for the head of the answer. A TLS alert, or the limit on bytes, explains a failure
    /// better than the HTTP library does.
    async fn post(&mut self, call: &OutboundCall<'_>) -> Result<Response<Incoming>, ExchangeFailure> {
        let posted = self.try_post(call).await;
        posted.map_err(|failure| match self.link.meter.alert() {
            Some(fault) => ExchangeFailure { error: SendError::Tls(fault), ..failure },
            None if self.link.meter.is_spent() => ExchangeFailure::answered(SendError::InvalidResponse {
                status: None,
                source: Some(failure.error.into()),
            }),
            None => failure,
        })
    }

    async fn try_post(&mut self, call: &OutboundCall<'_>) -> Result<Response<Incoming>, ExchangeFailure> {
        let before = self.link.meter.received_bytes();
        let mut headers = call.headers.clone();
        let mut request = Request::new(Full::new(call.body.clone()));
        *request.method_mut() = Method::POST;
        match &mut self.sender {
            RequestSender::Http1(sender) => {
                headers.entry(HOST).or_insert_with(|| call.destination.target.authority().clone());
                *request.headers_mut() = headers;
                *request.uri_mut() = call.destination.target.origin_form().clone();
                sender.try_send_request(request).await.map_err(|mut failed| {
                    let never_sent = failed.take_message().is_some();
                    let silent = self.link.meter.received_bytes() == before;
                    let error = failed.into_error();
                    if breaks_http(&error) && !never_sent {
                        return ExchangeFailure::answered(invalid(None, error));
                    }
                    let processing = if never_sent || silent { Processing::Unknown } else { Processing::Begun };
                    ExchangeFailure { error: closed(None, error), processing }
                })
            }
            RequestSender::Http2(sender) => {
                headers.remove(HOST);
                *request.headers_mut() = headers;
                *request.uri_mut() = call.destination.target.absolute_form().clone();
                sender.try_send_request(request).await.map_err(|mut failed| {
                    let never_sent = failed.take_message().is_some();
                    let error = failed.into_error();
                    match h2_fault(&error) {
                        Some(fault) if fault.is_library() => ExchangeFailure::answered(invalid(None, error)),
                        fault => {
                            let processing = match fault {
                                _ if never_sent => Processing::Not,
                                Some(fault) => processing_of(fault),
                                None => Processing::Unknown,
                            };
                            ExchangeFailure { error: closed(None, error), processing }
                        }
                    }
                })
            }
        }
    }
}

/// GOAWAY fails only the streams above its last one: those below it are still answered, or end with the connection.
fn processing_of(fault: &h2::Error) -> Processing {
    if fault.is_remote() && (fault.is_go_away() || fault.reason() == Some(h2::Reason::REFUSED_STREAM)) {
        Processing::Not
    } else if fault.is_io() || fault.is_go_away() {
        Processing::Unknown
    } else {
        Processing::Begun
    }
}

fn h2_fault(error: &hyper::Error) -> Option<&h2::Error> {
    error.source().and_then(|source| source.downcast_ref())
}

/// Whether the peer sent something that is not valid HTTP or exceeds a limit, as opposed to closing the connection.
fn breaks_http(error: &hyper::Error) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput, QuotaExceeded};
    let is_invalid = |source: &(dyn Error + 'static)| {
        let io = source.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput | QuotaExceeded))
    };
    error.is_parse() || h2_fault(error).is_some_and(h2::Error::is_library) || error.source().is_some_and(is_invalid)
}

fn closed(status: Option<u16>, error: hyper::Error) -> SendError {
    SendError::ConnectionClosed { status, source: Some(error.into()) }
}

fn invalid(status: Option<u16>, error: hyper::Error) -> SendError {
    SendError::InvalidResponse { status, source: Some(error.into()) }
}
