//! One attempt from its claim to its outcome: check the lease, sign, send, judge, hand over to the recorder.

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
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint_health::{Failure, Signal, is_busy};
use postrider_domain::error_chain::Chain;
use postrider_domain::event_type::Brand;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::private_options::REDACTED;
use postrider_domain::retry::{Decision, Verdict, judge, parse_retry_after};
use postrider_domain::signing::signature_header;
use postrider_domain::target::RefusalReason;
use postrider_domain::time::{Clock, Timestamp};
use postrider_egress::{Answer, Exchange, OutboundRequest, ProxyFault, SendError, TargetUrl, Transport};
use postrider_store::{AfterAttempt, Claim, EndpointTarget, EngineStore, OutcomeRecord};

use super::limiter::Permit;
use super::private_options::{Opened, Opener};
use super::recorder::Outcomes;
use super::settings::{EngineParts, EngineSettings};
use super::signer::Signer;

const AGENT: &str = concat!("Postrider/", env!("CARGO_PKG_VERSION"));

pub struct Worker {
    store: Arc<dyn EngineStore>,
    transport: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    random: Random,
    signer: Signer,
    opener: Opener,
    outcomes: Outcomes,
    settings: EngineSettings,
    headers: HeaderNames,
    urls: Mutex<BoundedCache<RowKey, ParsedUrl>>,
}

/// An endpoint as it was claimed, and its URL in the form that the transport wants.
type ParsedUrl = (Arc<EndpointTarget>, Arc<TargetUrl>);

/// Names of headers that do not change while the process runs.
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
        // A brand holds letters and digits only, so its headers are always valid names.
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

/// What an attempt came to, before it is judged.
struct Ending {
    outcome: AttemptOutcome,
    request_headers: Vec<(String, String)>,
    answer: Option<Answer>,
    /// Known when the head of an answer came but not its end.
    status: Option<u16>,
    error: Option<String>,
    phases: Option<AttemptPhases>,
}

impl Ending {
    fn fault(outcome: AttemptOutcome, error: String) -> Self {
        Self { outcome, request_headers: Vec::new(), answer: None, status: None, error: Some(error), phases: None }
    }
}

impl Worker {
    pub fn new(parts: &EngineParts, outcomes: Outcomes) -> Self {
        Self {
            store: Arc::clone(&parts.store),
            transport: Arc::clone(&parts.transport),
            clock: Arc::clone(&parts.clock),
            random: parts.random.clone(),
            signer: Signer::new(parts.store.clone(), Arc::clone(&parts.master_key)),
            opener: Opener::new(parts.store.clone(), Arc::clone(&parts.master_key)),
            outcomes,
            headers: HeaderNames::new(&parts.settings.brand),
            settings: parts.settings.clone(),
            urls: Mutex::new(BoundedCache::new(limits::TARGET_URLS_CACHED)),
        }
    }

    /// Makes the attempt that the claim allows. The slot is held until the exchange is over, what is left of it until the outcome is
    /// recorded.
    pub async fn attempt(&self, claim: Claim, lease_until: Timestamp, mut permit: Permit) {
        permit.acquire().await;
        let started_at = self.clock.now();
        if lease_until.since(started_at) < self.deadline(&claim) + limits::LEASE_MARGIN {
            self.give_back(&claim).await;
            return;
        }
        let clocked = tokio::time::Instant::now();
        let ending = self.exchange(&claim, started_at).await;
        let duration = clocked.elapsed();
        let Ending { outcome, status, .. } = ending;
        let place = permit.finish(AttemptSample { outcome, status, duration, probe: claim.probe });
        let record = self.judged(claim, ending, started_at, duration);
        if self.outcomes.send(record, place).await.is_err() {
            tracing::error!("an outcome came after the recorder had stopped; the delivery will be attempted again");
        }
    }

    /// For the whole exchange.
    fn deadline(&self, claim: &Claim) -> Duration {
        claim.endpoint.options.timeout.unwrap_or(self.settings.attempt_deadline)
    }

    async fn give_back(&self, claim: &Claim) {
        if let Err(error) = self.store.give_back_if_claimed(vec![(claim.delivery_id, claim.token)]).await {
            tracing::warn!(error = %Chain(&error), delivery_id = %claim.delivery_id, "a claim could not be given back and runs out by itself");
        }
    }

    async fn exchange(&self, claim: &Claim, now: Timestamp) -> Ending {
        let keys = match self.signer.keys(claim).await {
            Ok(keys) => keys,
            Err(error) => {
                tracing::error!(error = %Chain(&error), endpoint_id = %claim.endpoint.id, "a delivery could not be signed");
                return Ending::fault(AttemptOutcome::InternalError, "the delivery could not be signed".to_owned());
            }
        };
        let private = match self.opener.open(&claim.endpoint).await {
            Ok(private) => private,
            Err(error) => {
                tracing::error!(error = %Chain(&error), endpoint_id = %claim.endpoint.id, "an endpoint's sealed options cannot be used");
                return Ending::fault(AttemptOutcome::InternalError, "the request could not be built".to_owned());
            }
        };
        let Some(url) = self.url(&claim.endpoint) else {
            tracing::error!(endpoint_id = %claim.endpoint.id, "a stored URL cannot be read");
            return Ending::fault(AttemptOutcome::InternalError, "the endpoint's URL cannot be read".to_owned());
        };
        let id = claim.event_id.to_string();
        let signature = signature_header(std::iter::once(&keys.0).chain(&keys.1), &id, now.seconds(), &claim.envelope);
        let Some(headers) = self.headers(claim, &private, &id, now, &signature) else {
            return Ending::fault(AttemptOutcome::InternalError, "the request could not be built".to_owned());
        };
        if claim.mode == Mode::Test {
            let request_headers = shown(&headers, usize::MAX, usize::MAX);
            return Ending {
                outcome: AttemptOutcome::Simulated,
                request_headers,
                answer: None,
                status: None,
                error: None,
                phases: None,
            };
        }
        let (identity, deadline) = (private.identity.clone(), self.deadline(claim));
        let request = OutboundRequest { url, headers, body: claim.envelope.clone(), identity, deadline };
        let exchange = self.transport.send(request).await;
        let phases = Some(phases_of(&exchange));
        match exchange.result {
            Ok(answer) => Ending {
                outcome: AttemptOutcome::of_status(answer.status),
                request_headers: Vec::new(),
                error: None,
                status: Some(answer.status),
                answer: Some(answer),
                phases,
            },
            Err(error) => {
                let (outcome, status) = classify(&error);
                Ending { status, phases, ..Ending::fault(outcome, error.to_string()) }
            }
        }
    }

    fn headers(&self, claim: &Claim, private: &Opened, id: &str, now: Timestamp, signature: &str) -> Option<HeaderMap> {
        let value = |text: &str| HeaderValue::from_str(text).ok();
        let names = &self.headers;
        let mut headers = HeaderMap::with_capacity(12 + private.headers.len());
        // Ours come after them and win, should a name have been reserved since.
        headers.extend(private.headers.iter().cloned());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
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

    /// The endpoint's URL in the form that the transport wants; parsed again only after a change.
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

    fn judged(&self, claim: Claim, ending: Ending, started_at: Timestamp, duration: Duration) -> OutcomeRecord {
        let retry_after = ending.answer.as_ref().and_then(|answer| {
            let value = answer.headers.get(RETRY_AFTER)?.to_str().ok()?;
            parse_retry_after(value, self.clock.now())
        });
        // A test is for whoever waits for its outcome: it is not tried again later.
        let step = if claim.cause == DeliveryCause::Test { u32::MAX } else { claim.step };
        let schedule = claim.endpoint.options.retry_schedule.as_ref().unwrap_or(&self.settings.schedule);
        let Verdict { decision, disable } =
            judge(ending.outcome, step, claim.probe, schedule, retry_after, self.random.unit());
        let after = match decision {
            Decision::Delivered => AfterAttempt::Finish { status: DeliveryStatus::Delivered, reason: None },
            Decision::Simulated => AfterAttempt::Finish { status: DeliveryStatus::Simulated, reason: None },
            Decision::Exhausted => {
                AfterAttempt::Finish { status: DeliveryStatus::Failed, reason: Some(EndReason::Exhausted) }
            }
            Decision::Retry { after, uses_step } => AfterAttempt::Retry { after, uses_step },
        };
        log_attempt(&claim, &ending, duration);
        let (response_headers, response_body) = match ending.answer {
            None => (Vec::new(), None),
            Some(answer) => (
                shown(&answer.headers, limits::RESPONSE_HEADERS, limits::RESPONSE_HEADER_BYTES),
                Some(answer.body).filter(|body: &Bytes| !body.is_empty()),
            ),
        };
        OutcomeRecord {
            delivery_id: claim.delivery_id,
            token: claim.token,
            cause: claim.cause,
            attempt: Attempt {
                number: claim.attempt,
                started_at,
                duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
                outcome: ending.outcome,
                request_headers: ending.request_headers,
                response_status: ending.status,
                response_headers,
                response_body,
                error: ending.error,
                next_attempt_at: None,
                phases: ending.phases,
            },
            after,
            signal: signal(&claim, ending.outcome, ending.status, retry_after),
            endpoint: claim.endpoint,
            disable,
        }
    }
}

/// Where the time of an exchange went, as the log keeps it.
fn phases_of(exchange: &Exchange) -> AttemptPhases {
    let millis = |part: Option<Duration>| part.map(|part| u32::try_from(part.as_millis()).unwrap_or(u32::MAX));
    AttemptPhases {
        dns_ms: millis(exchange.phases.dns),
        connect_ms: millis(exchange.phases.connect),
        tls_ms: millis(exchange.phases.tls),
        first_byte_ms: millis(exchange.phases.first_byte),
        connection_reused: exchange.reused,
    }
}

/// Whose fault it was and what it is called.
fn classify(error: &SendError) -> (AttemptOutcome, Option<u16>) {
    match error {
        SendError::Refused(refusal) if refusal.reason == RefusalReason::Unresolvable => {
            (AttemptOutcome::DnsFailed, None)
        }
        SendError::Refused(_) => (AttemptOutcome::SsrfBlocked, None),
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

/// What the attempt says of its endpoint. A test does not: it may go to one that is off.
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

/// Headers as the log keeps them: without the values that are secrets.
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

fn log_attempt(claim: &Claim, ending: &Ending, duration: Duration) {
    let (delivery_id, endpoint_id) = (claim.delivery_id, claim.endpoint.id);
    let (outcome, duration_ms) = (ending.outcome.as_str(), duration.as_millis());
    if ending.outcome.fault() == Fault::Nobody {
        tracing::debug!(%delivery_id, %endpoint_id, attempt = claim.attempt, outcome, duration_ms, "attempt made");
    } else {
        tracing::info!(
            %delivery_id, %endpoint_id, attempt = claim.attempt, outcome, duration_ms,
            status = ending.status, error = ending.error.as_deref(), "attempt failed"
        );
    }
}
