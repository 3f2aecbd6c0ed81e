//! The queue: lanes, claims, and what follows an attempt.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use postrider_domain::access::Mode;
use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint::{DisabledReason, ProjectId, SecretVersion};
use postrider_domain::endpoint_health::Signal;
use postrider_domain::endpoint_options::{DeliveryOrder, EndpointOptions};
use postrider_domain::id::{DeliveryId, EndpointId, EventId, RowKey, WorkspaceId};
use postrider_domain::retry::Decision;
use postrider_domain::trace_context::TraceContext;

use crate::StoreError;

pub mod attempt;
pub mod claim_ledger;
pub mod endpoint_health;
pub mod lane;
pub mod operational_event;
pub mod order;

#[async_trait]
pub trait Queue: Send + Sync + 'static {
    /// Passes deliveries that can start at once to `sink` from now on, as long as it exists. Only the first call
    /// counts.
    fn attach(&self, sink: Weak<dyn ClaimSink>);

    /// The processes that deliver from this store, this one included, as last seen. They share the limit of each
    /// endpoint.
    fn nodes(&self) -> usize {
        1
    }

    /// Claims up to `limit` due deliveries for the length of `lease`, lane by lane, within `quota`. Each claim
    /// allocates the next attempt number. A claim found lost is recorded as an `abandoned` attempt.
    ///
    /// In a strict order only the first delivery that has not ended is claimed, and none once it has failed, until that
    /// one is skipped or retried.
    async fn claim_due(&self, limit: usize, lease: Duration, quota: Arc<dyn LaneQuota>) -> Result<Claimed, StoreError>;

    /// Returns claims unused, with their attempt numbers. They are due at once.
    async fn give_back_if_claimed(&self, claims: Vec<(DeliveryId, ClaimToken)>) -> Result<(), StoreError>;

    /// Writes attempts and what follows from them, each only if its claim still holds.
    async fn record_outcomes_if_claimed(&self, outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError>;
}

/// Identifies one claim. A holder that lost its claim can no longer write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimToken(pub i64);

/// One endpoint's share of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    pub workspace_key: RowKey,
    pub endpoint_key: RowKey,
    pub kind: LaneKind,
}

/// An inactive endpoint holds its `Events` lane. A test goes through the `Tests` lane, which is never held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneKind {
    Events,
    Tests,
}

/// Limits how many deliveries of an endpoint may be claimed now, over both of its lanes, and counts claims.
pub trait LaneQuota: Send + Sync {
    fn quota(&self, lane: Lane) -> usize;

    /// How many of `wanted` deliveries the endpoint's own rate limit allows now. Called after [`LaneQuota::quota`],
    /// once the endpoint's options are known.
    fn allowance(&self, _lane: Lane, _target: &EndpointTarget, wanted: usize) -> usize {
        wanted
    }

    /// One row of the lane is being claimed.
    fn claimed(&self, _lane: Lane) {}

    /// A claim was rolled back.
    fn unclaimed(&self, _lane: Lane) {}
}

/// Receives deliveries that were claimed by the transaction that accepted them, so that a first attempt waits for no
/// claim query. The claims are in the database, in the same commit: this is an optimisation, not a second queue.
pub trait ClaimSink: LaneQuota {
    /// These claims are on disk, and their leases have at least `lease_left` to run.
    fn take_over(&self, claims: Vec<Claim>, lease_left: Duration);

    /// Something is or will be due that was not handed over. This is a hint: the engine polls all the same.
    fn wake(&self);
}

/// The values that the engine needs to call an endpoint.
#[derive(Debug)]
pub struct EndpointTarget {
    pub workspace_key: RowKey,
    pub workspace_id: WorkspaceId,
    pub endpoint_key: RowKey,
    pub id: EndpointId,
    pub project: Option<ProjectId>,
    pub url: String,
    /// Signs what is enqueued from now on.
    pub secret_version: SecretVersion,
    /// A delivery enqueued with an older version is signed with the newest.
    pub oldest_secret_version: SecretVersion,
    pub options: Arc<EndpointOptions>,
}

impl EndpointTarget {
    pub const fn lane(&self, kind: LaneKind) -> Lane {
        Lane { workspace_key: self.workspace_key, endpoint_key: self.endpoint_key, kind }
    }

    /// The versions that sign a delivery which was enqueued with these. A version that was revoked for queued
    /// deliveries is replaced by the newest one.
    pub fn signing_versions(
        &self,
        enqueued: SecretVersion,
        also: Option<SecretVersion>,
    ) -> (SecretVersion, Option<SecretVersion>) {
        let is_revoked = enqueued < self.oldest_secret_version;
        if is_revoked { (self.secret_version, None) } else { (enqueued, also) }
    }
}

/// A delivery that this process may attempt until the lease ends.
#[derive(Clone, Debug)]
pub struct Claim {
    pub lane: Lane,
    pub delivery_id: DeliveryId,
    pub event_id: EventId,
    pub token: ClaimToken,
    pub mode: Mode,
    pub cause: DeliveryCause,
    /// The number of the attempt that this claim allows.
    pub attempt: u32,
    /// Waits of the schedule used so far.
    pub step: u32,
    pub endpoint: Arc<EndpointTarget>,
    pub secret_version: SecretVersion,
    /// In an overlap: the version that signs too, after the first.
    pub also_secret_version: Option<SecretVersion>,
    pub envelope: Bytes,
    /// The trace of the event.
    pub trace: Option<TraceContext>,
    /// The endpoint is paused, and this attempt tests whether its receiver is back.
    pub probe: bool,
}

/// The result of one claim query.
#[derive(Debug, Default)]
pub struct Claimed {
    pub claims: Vec<Claim>,
    /// When more falls due, if anything will. Zero when something is due already.
    pub next_due_in: Option<Duration>,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAttempt {
    Finish { status: DeliveryStatus, reason: Option<EndReason> },
    Retry { after: Duration, uses_step: bool },
}

impl AfterAttempt {
    pub const fn of(decision: Decision) -> Self {
        match decision {
            Decision::Delivered => Self::Finish { status: DeliveryStatus::Delivered, reason: None },
            Decision::Simulated => Self::Finish { status: DeliveryStatus::Simulated, reason: None },
            Decision::Exhausted => Self::Finish { status: DeliveryStatus::Failed, reason: Some(EndReason::Exhausted) },
            Decision::Retry { after, uses_step } => Self::Retry { after, uses_step },
        }
    }
}

/// The end of one attempt, written by the holder of the claim.
#[derive(Clone, Debug)]
pub struct OutcomeRecord {
    pub delivery_id: DeliveryId,
    pub token: ClaimToken,
    pub attempt: Attempt,
    pub mode: Mode,
    pub cause: DeliveryCause,
    pub after: AfterAttempt,
    /// The endpoint as it was called. Consequences for the endpoint count only if it still has that URL.
    pub endpoint: Arc<EndpointTarget>,
    pub signal: Signal,
    /// Disables the endpoint.
    pub disable: Option<DisabledReason>,
}

/// What an attempt means for its endpoint, apart from its delivery. A back end applies these in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consequence {
    /// Update the endpoint's health.
    Health(Signal),
    /// The probe of a paused endpoint ended without evidence about it: schedule the probe again.
    ProbeAgain,
    Disable(DisabledReason),
    /// Report to the operator that the delivery's schedule has ended.
    ReportExhausted,
}

impl OutcomeRecord {
    /// Whether the outcome may be recorded a moment later. Not so for a strict order, where the next delivery waits for
    /// it, nor for a test, for which a person waits.
    pub fn can_wait(&self) -> bool {
        self.endpoint.options.ordering == DeliveryOrder::None && self.cause != DeliveryCause::Test
    }

    /// Whether the delivery's schedule has ended. A test has no schedule.
    pub fn is_exhausted(&self) -> bool {
        matches!(self.after, AfterAttempt::Finish { reason: Some(EndReason::Exhausted), .. })
            && self.cause != DeliveryCause::Test
    }

    pub fn consequences(&self) -> impl Iterator<Item = Consequence> {
        let is_simulated = self.attempt.outcome == AttemptOutcome::Simulated;
        [
            (self.signal != Signal::Nothing).then_some(Consequence::Health(self.signal)),
            is_simulated.then_some(Consequence::ProbeAgain),
            self.disable.map(Consequence::Disable),
            self.is_exhausted().then_some(Consequence::ReportExhausted),
        ]
        .into_iter()
        .flatten()
    }
}

/// Whether an outcome was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Done,
    /// Another holder had taken the claim over. Nothing was written.
    ClaimLost,
}
