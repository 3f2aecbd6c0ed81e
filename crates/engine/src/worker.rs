//! One attempt from its claim to its outcome: check the lease, sign, send, judge, queue the outcome for the recorder.
//!
//! The rules about retries and health are in `domain::retry` and `domain::endpoint_health`; `signal` maps an outcome to
//! them. A failure of ours is never charged to the receiver.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue};

use postrider_crypto::Random;
use postrider_domain::access::Mode;
use postrider_domain::adaptive_limit::AttemptSample;
use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases, Fault};
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::delivery::DeliveryCause;
use postrider_domain::endpoint_health::{Failure, Signal, is_busy};
use postrider_domain::error_chain::Chain;
use postrider_domain::event_type::Brand;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::private_options::REDACTED;
use postrider_domain::retry::{Verdict, judge, parse_retry_after};
use postrider_domain::sent_request::{self, HttpVersion, RequestContext, RequestParts, SentRequest, WireParts};
use postrider_domain::signing::signature_header;
use postrider_domain::span::{AttemptTrace, Tracing};
use postrider_domain::target::{RefusalReason, Requester};
use postrider_domain::time::{Clock, Timestamp};
use postrider_domain::trace_context::{TRACEPARENT, TraceContext, TraceId};
use postrider_egress::{
    Answer, Exchange, OutboundRequest, Phases, Protocol, ProxyFault, ResolveError, SendError, TargetUrl, Transport,
};
use postrider_metrics::{EngineMetrics, Only, Phase};
use postrider_store::{AfterAttempt, Claim, EndpointTarget, EngineStore, OutcomeRecord};

use super::attempt_span;
use super::limiter::Permit;
use super::private_options::{OpenedOptions, OptionsError, OptionsOpener};
use super::recorder::OutcomeQueues;
use super::settings::{EngineParts, EngineSettings};
use super::signer::Signer;

/// [`sent_request::AGENT_PRODUCT`] and the version.
pub(crate) const AGENT: &str = concat!("Postrider/", env!("CARGO_PKG_VERSION"));

pub struct Worker {
    store: Arc<dyn EngineStore>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    random: Random,
    signer: Signer,
    opener: OptionsOpener,
    outcomes: OutcomeQueues,
    settings: EngineSettings,
    headers: HeaderNames,
    urls: Mutex<BoundedCache<RowKey, ParsedUrl>>,
    metrics: EngineMetrics,
    tracing: Tracing,
}

/// An endpoint as it was claimed, and its parsed URL.
type ParsedUrl = (Arc<EndpointTarget>, Arc<TargetUrl>);

/// Header names that do not change while the process runs.
struct HeaderNames {
    webhook_id: HeaderName,
    webhook_timestamp: HeaderName,
    webhook_signature: HeaderName,
    delivery_id: HeaderName,
    delivery_attempt: HeaderName,
    replay: HeaderName,
    test: HeaderName,
}

impl HeaderNames {
    fn new(brand: &Brand) -> Self {
        // A brand has only letters and digits, so its headers are always valid names.
        let branded = |name| {
            HeaderName::from_bytes(brand.header(name).as_bytes()).unwrap_or(HeaderName::from_static("x-delivery"))
        };
        Self {
            webhook_id: HeaderName::from_static("webhook-id"),
            webhook_timestamp: HeaderName::from_static("webhook-timestamp"),
            webhook_signature: HeaderName::from_static("webhook-signature"),
            delivery_id: branded("Delivery-Id"),
            delivery_attempt: branded("Delivery-Attempt"),
            replay: branded("Replay"),
            test: branded("Test"),
        }
    }
}

/// The endpoint has changed since the claim in a way that forbids the attempt. The claim is given back. The next one
/// sees the change.
struct StaleClaim;

/// Why there is no request to send.
enum RequestError {
    /// A failure of ours, with the text for the customer.
    Ours(&'static str),
    Stale,
}

const UNBUILT: RequestError = RequestError::Ours("the request could not be built");

/// The result of an attempt before it is judged.
struct AttemptResult {
    outcome: AttemptOutcome,
    /// The request, unless none was sent. A simulated one counts as sent.
    sent: Option<SentRequest>,
    remote_address: Option<IpAddr>,
    answer: Option<Answer>,
    /// Also known when only the head of an answer came.
    status: Option<u16>,
    error: Option<String>,
    phases: Option<AttemptPhases>,
}

impl AttemptResult {
    fn failed(outcome: AttemptOutcome, error: String) -> Self {
        Self { outcome, sent: None, remote_address: None, answer: None, status: None, error: Some(error), phases: None }
    }

    /// In test mode nothing is sent; the delivery log shows what would have been.
    fn simulated(request: &RequestParts) -> Self {
        Self {
            outcome: AttemptOutcome::Simulated,
            sent: Some(SentRequest::new(request)),
            remote_address: None,
            answer: None,
            status: None,
            error: None,
            phases: None,
        }
    }

    fn of_exchange(exchange: Exchange, mut request: RequestParts) -> Self {
        let phases = Some(phases_of(&exchange));
        let remote_address = exchange.peer.map(|peer| peer.ip());
        let sent = exchange.protocol.map(|protocol| {
            let version = match protocol {
                Protocol::Http1 => HttpVersion::Http1,
                Protocol::Http2 => HttpVersion::Http2,
            };
            request.wire = request.wire.map(|wire| WireParts { version, ..wire });
            SentRequest::new(&request)
        });
        match exchange.result {
            Ok(answer) => Self {
                outcome: AttemptOutcome::of_status(answer.status),
                sent,
                remote_address,
                error: None,
                status: Some(answer.status),
                answer: Some(answer),
                phases,
            },
            Err(error) => {
                let (outcome, status) = classify(&error);
                Self { status, phases, sent, remote_address, ..Self::failed(outcome, error.to_string()) }
            }
        }
    }
}

impl Worker {
    pub fn new(parts: &EngineParts, outcomes: OutcomeQueues) -> Self {
        Self {
            store: Arc::clone(&parts.store),
            transport: Arc::clone(&parts.transport),
            clock: Arc::clone(&parts.clock),
            random: parts.random.clone(),
            signer: Signer::new(parts.store.clone(), Arc::clone(&parts.keyring)),
            opener: OptionsOpener::new(parts.store.clone(), Arc::clone(&parts.keyring), parts.settings.brand.clone()),
            outcomes,
            headers: HeaderNames::new(&parts.settings.brand),
            settings: parts.settings.clone(),
            urls: Mutex::new(BoundedCache::new(limits::TARGET_URLS_CACHED)),
            metrics: parts.metrics.clone(),
            tracing: parts.tracing.clone(),
        }
    }

    /// Makes the attempt that the claim allows. The permit is held until the exchange ends. From then until the outcome
    /// is on disk, the attempt counts as unrecorded.
    pub async fn attempt(&self, claim: Claim, lease_until: Timestamp, mut permit: Permit) {
        permit.acquire().await;
        let started_at = self.clock.now();
        if lease_until.since(started_at) < self.deadline(&claim) + limits::LEASE_MARGIN {
            self.give_back(&claim).await;
            return;
        }
        if claim.attempt == 1 {
            let delay = started_at.since(claim.delivery_id.created_at());
            self.metrics.first_attempt_delay_seconds.observe(Only, delay);
        }
        let trace = claim.trace.and_then(|event| self.trace_of(&claim, event, started_at));
        let clocked = tokio::time::Instant::now();
        let result = match self.exchange(&claim, started_at, trace).await {
            Ok(result) => result,
            Err(StaleClaim) => {
                self.give_back(&claim).await;
                return;
            }
        };
        let duration = clocked.elapsed();
        let AttemptResult { outcome, status, .. } = result;
        let unrecorded = permit.finish(AttemptSample { outcome, status, duration, probe: claim.probe });
        let (event_id, trace_id) = (claim.event_id, claim.trace.map(|event| event.trace_id));
        let trace_id = trace.map(|trace| trace.context.trace_id).or(trace_id);
        let record = self.outcome_record(claim, result, started_at, duration, trace_id);
        if self.tracing.is_on() {
            attempt_span::export(&self.tracing, trace, &self.random, event_id, &record, duration);
        }
        if self.outcomes.send(record, unrecorded).await.is_err() {
            tracing::error!("cannot record an outcome: the recorder has stopped; the delivery will be attempted again");
        }
    }

    /// The trace of an attempt, if a receiver or a collector gets to see it.
    fn trace_of(&self, claim: &Claim, event: TraceContext, now: Timestamp) -> Option<AttemptTrace> {
        let is_seen = self.tracing.is_on() || self.forwards_trace(claim);
        is_seen.then(|| self.tracing.attempt(event, now.since(claim.event_id.created_at()), &self.random))
    }

    fn forwards_trace(&self, claim: &Claim) -> bool {
        claim.endpoint.options.trace_forwarding.unwrap_or(self.settings.forwards_traces)
    }

    /// The time for the whole exchange.
    fn deadline(&self, claim: &Claim) -> Duration {
        claim.endpoint.options.timeout.unwrap_or(self.settings.attempt_deadline)
    }

    async fn give_back(&self, claim: &Claim) {
        if let Err(error) = self.store.give_back_if_claimed(vec![(claim.delivery_id, claim.token)]).await {
            tracing::warn!(
                error = %Chain(&error),
                delivery_id = %claim.delivery_id,
                "cannot give a claim back; it ends when its lease expires"
            );
        }
    }

    async fn exchange(
        &self,
        claim: &Claim,
        now: Timestamp,
        trace: Option<AttemptTrace>,
    ) -> Result<AttemptResult, StaleClaim> {
        Ok(match self.request(claim, now, trace).await {
            Err(RequestError::Stale) => return Err(StaleClaim),
            Err(RequestError::Ours(text)) => AttemptResult::failed(AttemptOutcome::InternalError, text.to_owned()),
            Ok((_, logged)) if claim.mode == Mode::Test => AttemptResult::simulated(&logged),
            Ok((request, logged)) => {
                let exchange = self.transport.send(request).await;
                self.measure(&exchange.phases);
                AttemptResult::of_exchange(exchange, logged)
            }
        })
    }

    fn measure(&self, phases: &Phases) {
        let Phases { dns, connect, tls, first_byte, body, total } = *phases;
        for (phase, took) in [
            (Phase::Dns, dns),
            (Phase::Connect, connect),
            (Phase::Tls, tls),
            (Phase::FirstByte, first_byte),
            (Phase::Body, body),
            (Phase::Total, Some(total)),
        ] {
            if let Some(took) = took {
                self.metrics.phase_seconds.observe(phase, took);
            }
        }
    }

    /// Signs and builds the request, and what the log keeps of it. The cause of a failure of ours is logged here.
    async fn request(
        &self,
        claim: &Claim,
        now: Timestamp,
        trace: Option<AttemptTrace>,
    ) -> Result<(OutboundRequest, RequestParts), RequestError> {
        let endpoint_id = claim.endpoint.id;
        let keys = self.signer.keys(claim).await.map_err(|error| {
            tracing::error!(error = %Chain(&error), %endpoint_id, "cannot sign a delivery");
            RequestError::Ours("the delivery could not be signed")
        })?;
        let private = self.opener.open(&claim.endpoint).await.map_err(|error| match error {
            OptionsError::OtherOrigin => RequestError::Stale,
            error => {
                tracing::error!(error = %Chain(&error), %endpoint_id, "cannot use an endpoint's sealed options");
                UNBUILT
            }
        })?;
        let url = self.url(&claim.endpoint).ok_or_else(|| {
            tracing::error!(%endpoint_id, "cannot parse an endpoint's stored URL");
            RequestError::Ours("the endpoint's URL cannot be read")
        })?;
        let id = claim.event_id.to_string();
        let signature = signature_header(std::iter::once(&keys.0).chain(&keys.1), &id, now.seconds(), &claim.envelope);
        let mut headers = self.headers(claim, &private, &id, now, &signature).ok_or(UNBUILT)?;
        // A header of this name that the endpoint's owner set stays.
        let forwarded = trace.filter(|_| self.forwards_trace(claim) && !headers.contains_key(TRACEPARENT));
        let forwarded = forwarded.map(|trace| trace.context);
        if let Some(trace) = forwarded {
            let value = HeaderValue::from_str(&trace.to_string()).map_err(|_| UNBUILT)?;
            headers.insert(HeaderName::from_static(TRACEPARENT), value);
        }
        let (identity, deadline) = (private.identity.clone(), self.deadline(claim));
        let requester = Requester::endpoint(claim.endpoint.workspace_id, endpoint_id);
        let wire = (claim.mode == Mode::Live).then(|| WireParts {
            version: HttpVersion::Http1,
            authority: String::from_utf8_lossy(url.authority().as_bytes()).into_owned(),
            content_length: claim.envelope.len() as u64,
        });
        let custom_headers = private.headers.iter().map(|(name, _)| name.as_str().to_owned()).collect();
        let logged = RequestParts { custom_headers, agent: AGENT.to_owned(), signature, trace: forwarded, wire };
        debug_assert!(self.tells(&logged, &headers, claim, now), "the log does not tell what is sent: {headers:?}");
        Ok((OutboundRequest { url, requester, headers, body: claim.envelope.clone(), identity, deadline }, logged))
    }

    /// Whether the headers rebuilt from the log are those of the request, apart from what the connection adds.
    fn tells(&self, logged: &RequestParts, headers: &HeaderMap, claim: &Claim, now: Timestamp) -> bool {
        let context = RequestContext {
            brand: &self.settings.brand,
            event_id: claim.event_id,
            delivery_id: claim.delivery_id,
            cause: claim.cause,
            attempt: claim.attempt,
            started_at: now,
        };
        let rebuilt = RequestParts { wire: None, ..logged.clone() }.headers(&context);
        rebuilt == shown(headers, usize::MAX, usize::MAX)
    }

    fn headers(
        &self,
        claim: &Claim,
        private: &OpenedOptions,
        id: &str,
        now: Timestamp,
        signature: &str,
    ) -> Option<HeaderMap> {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let names = &self.headers;
        let mut headers = HeaderMap::with_capacity(12 + private.headers.len());
        headers.extend(private.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(sent_request::CONTENT_TYPE));
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(names.webhook_id.clone(), value(id)?);
        headers.insert(names.webhook_timestamp.clone(), HeaderValue::from(now.seconds()));
        headers.insert(names.webhook_signature.clone(), value(signature)?);
        headers.insert(names.delivery_id.clone(), value(&claim.delivery_id.to_string())?);
        headers.insert(names.delivery_attempt.clone(), HeaderValue::from(claim.attempt));
        if claim.cause.is_repeat() {
            headers.insert(names.replay.clone(), HeaderValue::from_static("true"));
        }
        if claim.cause == DeliveryCause::Test {
            headers.insert(names.test.clone(), HeaderValue::from_static("true"));
        }
        Some(headers)
    }

    /// The endpoint's parsed URL. It is parsed again only after the endpoint has changed.
    fn url(&self, endpoint: &Arc<EndpointTarget>) -> Option<Arc<TargetUrl>> {
        let key = endpoint.endpoint_key;
        let mut urls = self.urls.lock().unwrap_or_else(PoisonError::into_inner);
        match urls.get(&key) {
            Some((known, url)) if Arc::ptr_eq(known, endpoint) => return Some(Arc::clone(url)),
            _ => {}
        }
        let url = Arc::new(TargetUrl::parse(&endpoint.url).ok()?);
        urls.insert(key, (Arc::clone(endpoint), Arc::clone(&url)));
        Some(url)
    }

    fn outcome_record(
        &self,
        claim: Claim,
        result: AttemptResult,
        started_at: Timestamp,
        duration: Duration,
        trace_id: Option<TraceId>,
    ) -> OutcomeRecord {
        let retry_after = result.answer.as_ref().and_then(|answer| {
            let value = answer.headers.get(RETRY_AFTER)?.to_str().ok()?;
            parse_retry_after(value, self.clock.now())
        });
        // Somebody waits for the outcome of a test event: it is never retried.
        let step = if claim.cause == DeliveryCause::Test { u32::MAX } else { claim.step };
        let schedule = claim.endpoint.options.retry_schedule.as_ref().unwrap_or(&self.settings.schedule);
        let Verdict { decision, disable } =
            judge(result.outcome, step, claim.probe, schedule, retry_after, self.random.unit());
        let after = AfterAttempt::of(decision);
        log_attempt(&claim, &result, duration, trace_id);
        let (response_headers, response_body) = match result.answer {
            None => (Vec::new(), None),
            Some(answer) => (
                shown(&answer.headers, limits::RESPONSE_HEADERS, limits::RESPONSE_HEADER_BYTES),
                Some(answer.body).filter(|body: &Bytes| !body.is_empty()),
            ),
        };
        OutcomeRecord {
            delivery_id: claim.delivery_id,
            token: claim.token,
            mode: claim.mode,
            cause: claim.cause,
            attempt: Attempt {
                number: claim.attempt,
                started_at,
                duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
                outcome: result.outcome,
                request: result.sent,
                request_headers: Vec::new(),
                remote_address: result.remote_address,
                response_status: result.status,
                response_headers,
                response_body,
                error: result.error,
                next_attempt_at: None,
                phases: result.phases,
                payload: PayloadState::Kept,
            },
            after,
            signal: signal(&claim, result.outcome, result.status, retry_after),
            endpoint: claim.endpoint,
            disable,
        }
    }
}

/// The duration of each phase, as the delivery log keeps it.
fn phases_of(exchange: &Exchange) -> AttemptPhases {
    let millis = |part: Option<Duration>| part.map(|part| u32::try_from(part.as_millis()).unwrap_or(u32::MAX));
    AttemptPhases {
        dns_ms: millis(exchange.phases.dns),
        connect_ms: millis(exchange.phases.connect),
        tls_ms: millis(exchange.phases.tls),
        first_byte_ms: millis(exchange.phases.first_byte),
        body_ms: millis(exchange.phases.body),
        connection_reused: exchange.reused,
    }
}

/// The outcome that stands for an error. The outcome says whose fault it was.
fn classify(error: &SendError) -> (AttemptOutcome, Option<u16>) {
    match error {
        SendError::Refused(refusal) if refusal.reason == RefusalReason::Unresolvable => {
            (AttemptOutcome::DnsFailed, None)
        }
        SendError::Refused(_) => (AttemptOutcome::SsrfBlocked, None),
        SendError::Dns(ResolveError::Unavailable) => (AttemptOutcome::DnsUnavailable, None),
        SendError::Dns(_) => (AttemptOutcome::DnsFailed, None),
        SendError::ConnectRefused | SendError::ConnectTimeout | SendError::ConnectFailed(_) => {
            (AttemptOutcome::ConnectFailed, None)
        }
        SendError::Local(_) => (AttemptOutcome::InternalError, None),
        SendError::Proxy(ProxyFault::Forbidden) => (AttemptOutcome::ProxyRefused, None),
        SendError::Proxy(_) => (AttemptOutcome::ProxyFailed, None),
        SendError::BeyondProxy { .. } => (AttemptOutcome::ConnectFailed, None),
        SendError::Tls(_) => (AttemptOutcome::TlsFailed, None),
        SendError::Timeout { status, .. } => (AttemptOutcome::Timeout, *status),
        SendError::ConnectionClosed { status, .. } => (AttemptOutcome::ConnectionClosed, *status),
        SendError::InvalidResponse { status, .. } => (AttemptOutcome::InvalidResponse, *status),
    }
}

/// What the attempt says about the health of its endpoint. A test event says nothing: it may go to an inactive
/// endpoint.
fn signal(claim: &Claim, outcome: AttemptOutcome, status: Option<u16>, retry_after: Option<Duration>) -> Signal {
    match outcome.fault() {
        _ if claim.cause == DeliveryCause::Test => Signal::Nothing,
        Fault::Receiver => {
            Signal::Failure(Failure { probe: claim.probe, busy: status.is_some_and(is_busy), retry_after })
        }
        Fault::Nobody if outcome == AttemptOutcome::Delivered => Signal::Success,
        Fault::Nobody | Fault::Sender => Signal::Nothing,
    }
}

/// Headers as the delivery log keeps them, with secret values redacted.
fn shown(headers: &HeaderMap, count: usize, bytes_each: usize) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| {
        if value.is_sensitive() {
            return REDACTED.to_owned();
        }
        let bytes = value.as_bytes();
        String::from_utf8_lossy(&bytes[..bytes.len().min(bytes_each)]).into_owned()
    };
    headers.iter().take(count).map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn log_attempt(claim: &Claim, result: &AttemptResult, duration: Duration, trace_id: Option<TraceId>) {
    let trace_id = trace_id.as_ref().map(tracing::field::display);
    let (delivery_id, endpoint_id) = (claim.delivery_id, claim.endpoint.id);
    let (outcome, duration_ms) = (result.outcome.as_str(), duration.as_millis());
    if result.outcome.fault() == Fault::Nobody {
        tracing::debug!(%delivery_id, %endpoint_id, trace_id, attempt = claim.attempt, outcome, duration_ms, "attempt made");
    } else {
        tracing::info!(
            %delivery_id, %endpoint_id, trace_id, attempt = claim.attempt, outcome, duration_ms,
            status = result.status, error = result.error.as_deref(), "attempt failed"
        );
    }
}
