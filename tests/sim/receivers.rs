//! The receivers of a world, behind the transport's seam: each request is checked against the model, and answered as
//! the endpoint's receiver behaves just now.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue};
use postrider_domain::endpoint_options::CertificateFacts;
use postrider_domain::id::EndpointId;
use postrider_domain::private_options::ClientCertificate;
use postrider_domain::target::{Requester, TargetGuard, VettingError};
use postrider_egress::{Answer, Exchange, OutboundRequest, Phase, Phases, Protocol, SendError, SendFuture, Transport};
use tokio::time::Instant;
use url::Url;

use crate::clock::SimClock;
use crate::model::Request;
use crate::script::Behaviour;
use crate::sim::Sim;

/// The receivers of one life.
pub struct Receivers {
    pub sim: Arc<Sim>,
    pub clock: SimClock,
    pub life: u64,
}

/// What a receiver does with a request.
#[derive(Clone, Copy, Debug)]
enum Reaction {
    Answer { status: u16, retry_after: Option<u16> },
    Timeout,
    Reset,
    Refused,
}

/// An exchange that may be cut off by the end of the process.
struct InFlight<'r> {
    receivers: &'r Receivers,
    delivery: String,
    status: Option<u16>,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = self.receivers.sim.state();
        if state.life == self.receivers.life {
            state.model.leave(&self.delivery, self.status);
        }
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> &'h str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

impl Receivers {
    async fn exchange(&self, request: OutboundRequest) -> Exchange {
        let began = Instant::now();
        let (reaction, takes) = self.receive(&request);
        let delivery = text(&request.headers, "scripe-delivery-id").to_owned();
        let mut in_flight = InFlight { receivers: self, delivery, status: None };
        tokio::time::sleep(takes).await;
        let result = match reaction {
            Reaction::Answer { status, retry_after } => {
                in_flight.status = Some(status);
                let mut headers = HeaderMap::new();
                if let Some(seconds) = retry_after {
                    headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
                }
                // It repeats what it got, so that the content is in the log of attempts too.
                let body = request.body.slice(..request.body.len().min(4096));
                Ok(Answer { status, headers, body, body_truncated: false })
            }
            Reaction::Timeout => Err(SendError::Timeout { phase: Phase::Headers, status: None }),
            Reaction::Reset => Err(SendError::ConnectionClosed { status: None, source: None }),
            Reaction::Refused => Err(SendError::ConnectRefused),
        };
        let mut state = self.sim.state();
        let line = format!("exchange of {} ended: {:?}", in_flight.delivery, in_flight.status);
        state.trace.note(self.clock.elapsed(), &line);
        drop(state);
        drop(in_flight);
        let phases = Phases { total: began.elapsed(), ..Phases::default() };
        Exchange { result, phases, peer: None, protocol: Some(Protocol::Http1), reused: false }
    }

    /// Checks a request against the model, and draws what its receiver does and how long it takes.
    fn receive(&self, outbound: &OutboundRequest) -> (Reaction, Duration) {
        let headers = &outbound.headers;
        let body = String::from_utf8_lossy(&outbound.body);
        let is_test = headers.contains_key("scripe-test");
        let mut state = self.sim.state();
        let event = if is_test { None } else { state.model.event_of(&body) };
        let request = Request {
            at: self.clock.elapsed(),
            endpoint: outbound.requester.endpoint.and_then(|id| state.model.endpoint(id)),
            event,
            is_requeued: is_test || headers.contains_key("scripe-replay"),
            webhook_id: text(headers, "webhook-id"),
            timestamp: text(headers, "webhook-timestamp").parse().unwrap_or_default(),
            signature: text(headers, "webhook-signature"),
            body: &outbound.body,
            delivery: text(headers, "scripe-delivery-id"),
            attempt: text(headers, "scripe-delivery-attempt").parse().unwrap_or_default(),
        };
        let (delivery, attempt, endpoint) = (request.delivery, request.attempt, request.endpoint);
        state.trace.note(request.at, &format!("attempt {attempt} of {delivery} to endpoint {endpoint:?}"));
        let limits = (self.sim.options.slots, self.sim.options.slots_per_endpoint);
        let problem = match (event, is_test) {
            (None, false) => Err("an event that nobody published".to_owned()),
            _ => state.model.receive(&request, limits),
        };
        if let Err(problem) = problem {
            state.violate(format!("attempt {attempt} of {delivery} ({:?}): {problem}", endpoint.zip(event)));
        }
        state.tally.attempts += 1;
        state.react(endpoint, outbound.deadline, if request.is_requeued { "requeue" } else { "attempt" })
    }
}

impl crate::sim::State {
    fn react(&mut self, endpoint: Option<usize>, deadline: Duration, of: &'static str) -> (Reaction, Duration) {
        let behaviour = endpoint.map_or(Behaviour::Works, |index| self.model.endpoints[index].behaviour);
        let behaviour = if self.is_calm { Behaviour::Works } else { behaviour };
        let soon = Duration::from_millis(1 + self.chance.below(60) as u64);
        let answer = |status| Reaction::Answer { status, retry_after: None };
        let (reaction, takes, fault) = match behaviour {
            Behaviour::Works => (answer(self.chance.pick(&[200, 200, 201, 204])), soon, None),
            Behaviour::Flaky if self.chance.one_in(2) => (answer(200), soon, None),
            Behaviour::Flaky | Behaviour::Down => {
                (answer(self.chance.pick(&[400, 404, 429, 500, 503])), soon, Some("4xx or 5xx"))
            }
            Behaviour::Gone => {
                if let Some(index) = endpoint {
                    self.model.endpoints[index].may_be_gone = true;
                }
                (answer(410), soon, Some("410"))
            }
            Behaviour::RetryAfter(seconds) => {
                (Reaction::Answer { status: 503, retry_after: Some(seconds) }, soon, Some("Retry-After"))
            }
            Behaviour::Timeout => (Reaction::Timeout, deadline, Some("timeout")),
            Behaviour::Reset => (Reaction::Reset, soon, Some("reset")),
            Behaviour::Refused => (Reaction::Refused, soon, Some("refused")),
            Behaviour::Slow => (answer(200), deadline.mul_f64(0.9), Some("slow receiver")),
        };
        if let Some(fault) = fault {
            self.tally.count(fault, &[of]);
        }
        (reaction, takes)
    }
}

impl Transport for Receivers {
    fn send(&self, request: OutboundRequest) -> SendFuture<'_> {
        Box::pin(self.exchange(request))
    }
}

/// A guard that lets everything pass: `tests/it/egress` tests the real one.
pub struct OpenGuard;

#[async_trait]
impl TargetGuard for OpenGuard {
    fn allows_plain_http(&self, _url: &Url, _requester: Requester) -> bool {
        false
    }

    fn allow_operator_webhook(&self, _url: &Url, _endpoint: EndpointId) {}

    async fn vet(&self, _url: &Url, _requester: Requester) -> Result<(), VettingError> {
        Ok(())
    }

    fn vet_client_certificate(&self, _certificate: &ClientCertificate) -> Result<CertificateFacts, String> {
        Err("is not simulated".to_owned())
    }
}
