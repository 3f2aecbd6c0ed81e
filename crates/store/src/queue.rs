//! The words of the queue: lanes, claims, and what follows an attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use postrider_domain::access::Mode;
use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint::{DisabledReason, SecretVersion};
use postrider_domain::endpoint_health::Signal;
use postrider_domain::endpoint_options::{DeliveryOrder, EndpointOptions};
use postrider_domain::id::{DeliveryId, EndpointId, EventId, RowKey};

/// Names one claim; whoever lost it can no longer write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClaimToken(pub i64);

/// One endpoint's share of the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    pub workspace_key: RowKey,
    pub endpoint_key: RowKey,
    pub kind: LaneKind,
}

/// An endpoint that is off holds its lane, but a test is sent all the same, through a lane that is never held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LaneKind {
    Events,
    Tests,
}

/// Says how many more deliveries of a lane's endpoint may be claimed now, whichever of its lanes they come from, and keeps
/// count.
pub trait LaneQuota: Send + Sync {
    fn quota(&self, lane: Lane) -> usize;

    /// How many of `wanted` deliveries the endpoint's own rate lets go now. Asked after [`LaneQuota::quota`], when it is known how
    /// the endpoint wants to be called.
    fn allowance(&self, _lane: Lane, _target: &EndpointTarget, wanted: usize) -> usize {
        wanted
    }

    /// One row of the lane is being claimed.
    fn claimed(&self, _lane: Lane) {}

    /// A claim was rolled back.
    fn unclaimed(&self, _lane: Lane) {}
}

/// Takes deliveries over from the transaction that accepts them, so that a first attempt waits for no claim. The
/// database stays the truth: what is handed over is claimed there, in the same commit.
pub trait HandOver: LaneQuota {
    /// These claims are on disk, and their leases have at least `lease_left` to run.
    fn take_over(&self, claims: Vec<Claim>, lease_left: Duration);

    /// Something fell due, or will, that was not handed over. A hint: the engine asks from time to time all the same.
    fn wake(&self);
}

/// What the engine needs to know of an endpoint to call it.
#[derive(Debug)]
pub struct EndpointTarget {
    pub lane: Lane,
    pub id: EndpointId,
    pub url: String,
    /// Signs what is enqueued now.
    pub secret_version: SecretVersion,
    /// What was enqueued with an older one is signed with the newest.
    pub oldest_secret_version: SecretVersion,
    pub options: Arc<EndpointOptions>,
}

/// A delivery that is ours to attempt until its lease runs out.
#[derive(Clone, Debug)]
pub struct Claim {
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
    /// The endpoint is paused, and this is how it is found out whether its receiver is back.
    pub probe: bool,
}

/// The outcome of one look into the queue.
#[derive(Debug, Default)]
pub struct Claimed {
    pub claims: Vec<Claim>,
    /// When something more falls due, if anything will; zero when something is due already.
    pub next_due_in: Option<Duration>,
}

/// What follows an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterAttempt {
    Finish { status: DeliveryStatus, reason: Option<EndReason> },
    Retry { after: Duration, uses_step: bool },
}

/// One attempt's end, to be written by whoever holds the claim.
#[derive(Clone, Debug)]
pub struct OutcomeRecord {
    pub delivery_id: DeliveryId,
    pub token: ClaimToken,
    pub attempt: Attempt,
    pub cause: DeliveryCause,
    pub after: AfterAttempt,
    /// As it was called: what follows for the endpoint counts only if it still points at that URL.
    pub endpoint: Arc<EndpointTarget>,
    pub signal: Signal,
    /// Switches the endpoint off.
    pub disable: Option<DisabledReason>,
}

impl OutcomeRecord {
    /// Whether it matters to nobody if it is recorded a moment later. To the next in strict order it does, and to whoever made a test.
    pub fn can_wait(&self) -> bool {
        self.endpoint.options.ordering == DeliveryOrder::None && self.cause != DeliveryCause::Test
    }
}

/// Whether an outcome counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    Done,
    /// The claim had been taken over; nothing was written.
    ClaimLost,
}
