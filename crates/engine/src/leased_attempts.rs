//! Attempts that the consumers of listeners make: the request that they are given, and the outcome of what they settle.
//!
//! Signatures, headers and rules are those of the engine's own attempts ([`Worker`](super::worker)). Three things
//! differ: nothing here touches the network, a result says nothing about the health of an endpoint, and a 410 is a
//! failure like any other.

use std::sync::Arc;

use async_trait::async_trait;

use postrider_crypto::Random;
use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::endpoint_health::Signal;
use postrider_domain::error_chain::Chain;
use postrider_domain::event_type::Brand;
use postrider_domain::payload::PayloadState;
use postrider_domain::retry::{Verdict, judge};
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::sent_request::{RequestContext, RequestParts, SentRequest};
use postrider_domain::signing::signature_header;
use postrider_store::sealing::keyring::Keyring;
use postrider_store::{
    AfterAttempt, ConsumerAttempt, ConsumerAttempts, ConsumerResult, EngineStore, HeldLease, Lease, OutcomeRecord,
    Recorded, StoreError,
};

use super::settings::EngineSettings;
use super::signer::Signer;
use super::worker::AGENT;

pub struct LeasedAttempts {
    store: Arc<dyn EngineStore>,
    signer: Signer,
    brand: Brand,
    schedule: RetrySchedule,
    random: Random,
    forwards_traces: bool,
}

impl LeasedAttempts {
    /// Signs and judges by these settings of the engine.
    pub fn new(store: Arc<dyn EngineStore>, keyring: Arc<Keyring>, random: Random, settings: &EngineSettings) -> Self {
        let signer = Signer::new(store.clone(), keyring);
        let (brand, schedule) = (settings.brand.clone(), settings.schedule.clone());
        Self { store, signer, brand, schedule, random, forwards_traces: settings.forwards_traces }
    }

    /// What a receiver would get. `None` when the delivery cannot be signed.
    async fn request(&self, lease: &Lease) -> Option<RequestParts> {
        let claim = &lease.claim;
        let keys = self.signer.keys(claim).await;
        let (first, second) = keys
            .inspect_err(|error| {
                let endpoint_id = claim.endpoint.id;
                tracing::error!(error = %Chain(error), %endpoint_id, "cannot sign a delivery that was leased");
            })
            .ok()?;
        let (id, at) = (claim.event_id.to_string(), lease.claimed_at.seconds());
        let signature = signature_header(std::iter::once(&first).chain(&second), &id, at, &claim.envelope);
        // The consumer makes the span of the attempt, as a child of the publisher's.
        let forwards = claim.endpoint.options.trace_forwarding.unwrap_or(self.forwards_traces);
        let trace = claim.trace.filter(|_| forwards);
        Some(RequestParts { custom_headers: Vec::new(), agent: AGENT.to_owned(), signature, trace, wire: None })
    }
}

#[async_trait]
impl ConsumerAttempts for LeasedAttempts {
    async fn request_headers(&self, lease: &Lease) -> Option<Vec<(String, String)>> {
        let claim = &lease.claim;
        let context = RequestContext {
            brand: &self.brand,
            event_id: claim.event_id,
            delivery_id: claim.delivery_id,
            cause: claim.cause,
            attempt: claim.attempt,
            started_at: lease.claimed_at,
        };
        Some(self.request(lease).await?.headers(&context))
    }

    async fn settle(&self, attempted: Vec<ConsumerAttempt>) -> Result<Vec<Recorded>, StoreError> {
        let mut outcomes = Vec::with_capacity(attempted.len());
        for attempt in attempted {
            outcomes.push(self.outcome(attempt).await);
        }
        self.store.record_outcomes_if_claimed(outcomes).await
    }

    async fn release(&self, held: Vec<HeldLease>) -> Result<(), StoreError> {
        self.store.give_back_if_claimed(held.iter().map(|held| (held.delivery_id, held.token)).collect()).await
    }
}

impl LeasedAttempts {
    async fn outcome(&self, attempt: ConsumerAttempt) -> OutcomeRecord {
        let ConsumerAttempt { lease, result, duration } = attempt;
        let request = self.request(&lease).await.map(|parts| SentRequest::new(&parts));
        let Lease { claim, claimed_at, .. } = lease;
        let (outcome, response_status, error) = match result {
            ConsumerResult::Status(status) => (outcome_of(status), Some(status), None),
            ConsumerResult::Error(text) => (AttemptOutcome::ConnectionClosed, None, Some(text)),
        };
        let schedule = claim.endpoint.options.retry_schedule.as_ref().unwrap_or(&self.schedule);
        let Verdict { decision, .. } = judge(outcome, claim.step, false, schedule, None, self.random.unit());
        let duration = duration.unwrap_or_default();
        OutcomeRecord {
            delivery_id: claim.delivery_id,
            token: claim.token,
            mode: claim.mode,
            cause: claim.cause,
            attempt: Attempt {
                number: claim.attempt,
                started_at: claimed_at,
                duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
                outcome,
                request,
                request_headers: Vec::new(),
                remote_address: None,
                response_status,
                response_headers: Vec::new(),
                response_body: None,
                error,
                next_attempt_at: None,
                phases: None,
                payload: PayloadState::Kept,
            },
            after: AfterAttempt::of(decision),
            signal: Signal::Nothing,
            endpoint: claim.endpoint,
            disable: None,
        }
    }
}

/// A 410 would switch an endpoint off. A listener has an owner who is at work on it.
const fn outcome_of(status: u16) -> AttemptOutcome {
    match AttemptOutcome::of_status(status) {
        AttemptOutcome::Gone => AttemptOutcome::HttpError,
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_410_is_a_failure_like_any_other() {
        assert_eq!(outcome_of(410), AttemptOutcome::HttpError);
        assert_eq!(outcome_of(204), AttemptOutcome::Delivered);
        assert_eq!(outcome_of(302), AttemptOutcome::Redirect);
        assert_eq!(outcome_of(100), AttemptOutcome::HttpError);
    }
}
