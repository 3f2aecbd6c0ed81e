//! Listeners: endpoints without a URL, whose deliveries consumers lease, attempt themselves and settle.
//!
//! What a listener shares with an endpoint (read, change, delete, rotate, replay) is in `endpoint.rs` and `replay.rs`.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use postrider_domain::access::Principal;
use postrider_domain::endpoint::{EndpointName, ProjectId, SecretVersion, sealing_record};
use postrider_domain::endpoint_options::{DeliveryOrder, OptionsChange};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{DeliveryId, EndpointId};
use postrider_domain::limits;
use postrider_domain::permission::Permission;
use postrider_domain::secret::WebhookSecret;
use postrider_domain::time::Timestamp;
use postrider_store::{
    ConsumerAttempt, ConsumerResult, Destination, HeldLease, Lease, NewEndpoint, Recorded, SealedOptions,
};

use crate::endpoint::{EndpointWithSecret, create_error};
use crate::error::ServiceError;
use crate::idempotency::{Idempotent, WriteError};
use crate::portal::check_seen;
use crate::principal_write::write_by;
use crate::service::Service;

/// A listener to create.
#[derive(Debug)]
pub struct CreateListener {
    pub name: EndpointName,
    /// At least one, each once.
    pub events: Vec<EventTypeName>,
    pub project_id: Option<ProjectId>,
    pub ordering: DeliveryOrder,
    pub durable: bool,
}

/// A leased delivery as its consumer gets it.
#[derive(Debug)]
pub struct LeasedDelivery {
    pub lease: Lease,
    /// What a receiver would get.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

/// What a consumer reports about one of its leases.
#[derive(Clone, Debug)]
pub struct Settlement {
    pub held: HeldLease,
    pub result: SettledResult,
}

#[derive(Clone, Debug)]
pub enum SettledResult {
    /// The consumer made the attempt.
    Attempted { result: ConsumerResult, duration: Option<Duration> },
    /// The consumer made no attempt. The delivery is due at once, and the attempt's number is free again.
    Release,
}

/// What became of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    Recorded,
    Released,
    /// The lease had ended and the delivery was leased again or has ended. Nothing was done.
    LeaseLost,
}

const ALL_LOST: &str = "None of the leases holds any more.";
const TWICE: &str = "must name each delivery once";

impl Service {
    /// # Errors
    /// Without the scope, or when a limit on endpoints is reached.
    pub async fn create_listener(
        &self,
        principal: &Principal,
        create: CreateListener,
        idempotent: &Idempotent<EndpointWithSecret>,
    ) -> Result<EndpointWithSecret, WriteError> {
        principal.require(Permission::EndpointsWrite)?;
        check_seen(principal, &create.events)?;
        let id = EndpointId::listener(self.random.alphanumeric());
        let secret = WebhookSecret::generate(&self.random);
        let record = sealing_record(id, SecretVersion::FIRST);
        let new = NewEndpoint {
            key: self.store.next_key(),
            id,
            project_id: create.project_id,
            name: create.name,
            destination: Destination::Consumers { durable: create.durable },
            events: create.events,
            sealed_secret: self.keyring.seal(&record, secret.reveal().as_bytes()),
            secret_last4: secret.last4(),
            options: OptionsChange { ordering: Some(create.ordering), ..OptionsChange::default() },
            sealed: SealedOptions::default(),
            limits: self.endpoint_limits,
        };
        let shown = secret.clone();
        let recording = idempotent.sealed_recording(move |endpoint| EndpointWithSecret::of(endpoint, &shown));
        let written = self.store.create_endpoint(write_by(principal, recording), new).await.map_err(create_error)?;
        let endpoint = idempotent.finish(written)?;
        tracing::info!(listener_id = %endpoint.id, workspace_id = %principal.workspace_id, "listener created");
        Ok(EndpointWithSecret { endpoint, secret })
    }

    /// Leases up to `max` deliveries that are due. Waits up to `wait` for the first one.
    ///
    /// # Errors
    /// Without the scope, when the key is revoked during the wait, or when this workspace has no such listener.
    pub async fn lease(
        &self,
        principal: &Principal,
        id: EndpointId,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<LeasedDelivery>, ServiceError> {
        principal.require(Permission::EndpointsWrite)?;
        self.check_sends()?;
        let until = Instant::now() + wait;
        let queue = self.store.look_at_listener(principal.tenant, id).await?.ok_or(ServiceError::NotFound)?;
        let mut woken = self.store.listener_waker().wait_for(queue.endpoint_key);
        let mut ended = self.waits_ended.subscribe();
        let mut has_waited = false;
        loop {
            let queue = self.store.look_at_listener(principal.tenant, id).await?.ok_or(ServiceError::NotFound)?;
            let is_due = queue.next_due_in.is_some_and(|wait| wait.is_zero());
            if is_due || queue.seen_ago >= limits::LISTENER_SEEN_EVERY {
                if has_waited {
                    self.check_still_valid(principal).await?;
                }
                let leased = self.store.lease_due(principal.tenant, id, max).await?.ok_or(ServiceError::NotFound)?;
                if !leased.is_empty() {
                    return self.with_requests(leased).await;
                }
            }
            if Instant::now() >= until || *ended.borrow_and_update() {
                return Ok(Vec::new());
            }
            let next = Instant::now() + queue.next_due_in.unwrap_or(limits::LEASE_POLL_INTERVAL).max(AT_LEAST);
            tokio::select! {
                () = woken.woken() => {}
                _ = ended.changed() => {}
                () = tokio::time::sleep_until(until.min(next).min(Instant::now() + limits::LEASE_POLL_INTERVAL)) => {}
            }
            has_waited = true;
        }
    }

    /// Ends the waits for leases, so that a server can stop.
    pub fn end_waits(&self) {
        self.waits_ended.send_replace(true);
    }

    /// A delivery that cannot be signed is left out. It goes out again when its lease has ended.
    async fn with_requests(&self, leases: Vec<Lease>) -> Result<Vec<LeasedDelivery>, ServiceError> {
        let mut leased = Vec::with_capacity(leases.len());
        for lease in leases {
            if let Some(headers) = self.attempts.request_headers(&lease).await {
                let body = lease.claim.envelope.clone();
                leased.push(LeasedDelivery { lease, headers, body });
            }
        }
        if leased.is_empty() {
            return Err(ServiceError::Internal { source: "the leased deliveries cannot be signed".into() });
        }
        Ok(leased)
    }

    /// Lets leases last for their whole time from now on. Returns the end of each, `None` for one that is lost.
    ///
    /// # Errors
    /// Without the scope, when all leases are lost, or when this workspace has no such listener.
    pub async fn renew_leases(
        &self,
        principal: &Principal,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Vec<(DeliveryId, Option<Timestamp>)>, ServiceError> {
        principal.require(Permission::EndpointsWrite)?;
        let ids: Vec<DeliveryId> = held.iter().map(|held| held.delivery_id).collect();
        let renewed = self.store.renew_leases(principal.tenant, id, held).await?.ok_or(ServiceError::NotFound)?;
        if renewed.iter().all(Option::is_none) {
            return Err(ServiceError::Conflict(ALL_LOST.to_owned()));
        }
        Ok(ids.into_iter().zip(renewed).collect())
    }

    /// Records attempts that a consumer made, and takes deliveries back that it did not attempt.
    ///
    /// # Errors
    /// Without the scope, when all leases are lost, or when this workspace has no such listener.
    pub async fn settle(
        &self,
        principal: &Principal,
        id: EndpointId,
        settlements: Vec<Settlement>,
    ) -> Result<Vec<(DeliveryId, Settled)>, ServiceError> {
        principal.require(Permission::EndpointsWrite)?;
        let held: Vec<HeldLease> = settlements.iter().map(|settlement| settlement.held).collect();
        let mut named = HashSet::new();
        if !held.iter().all(|held| named.insert(held.delivery_id)) {
            return Err(ServiceError::invalid("results", TWICE));
        }
        let leases = self.store.find_leases(principal.tenant, id, held).await?.ok_or(ServiceError::NotFound)?;
        let mut settled = vec![Settled::LeaseLost; settlements.len()];
        let (mut released, mut attempted, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (at, (settlement, lease)) in settlements.iter().zip(leases).enumerate() {
            match (lease, &settlement.result) {
                (None, _) => {}
                (Some(_), SettledResult::Release) => {
                    released.push(settlement.held);
                    settled[at] = Settled::Released;
                }
                (Some(lease), SettledResult::Attempted { result, duration }) => {
                    attempted.push(ConsumerAttempt { lease, result: result.clone(), duration: *duration });
                    places.push(at);
                }
            }
        }
        if !released.is_empty() {
            self.attempts.release(released).await?;
        }
        if !attempted.is_empty() {
            let recorded = self.attempts.settle(attempted).await?;
            for (at, recorded) in places.into_iter().zip(recorded) {
                settled[at] = match recorded {
                    Recorded::Done => Settled::Recorded,
                    Recorded::ClaimLost => Settled::LeaseLost,
                };
            }
        }
        if settled.iter().all(|settled| *settled == Settled::LeaseLost) {
            return Err(ServiceError::Conflict(ALL_LOST.to_owned()));
        }
        Ok(settlements.iter().map(|settlement| settlement.held.delivery_id).zip(settled).collect())
    }
}

/// Between two looks, whatever the queue says: a delivery that falls due in no time must not make a busy loop.
const AT_LEAST: Duration = Duration::from_millis(20);
