//! The claims that a transaction makes: counted while it runs, passed to the engine once it is on disk, uncounted if it
//! fails.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::limits;

use crate::{Claim, ClaimSink, EndpointTarget, Lane, LaneQuota};

/// The claims of one group of writes.
#[derive(Default)]
pub struct ClaimLedger {
    sink: Option<Arc<dyn ClaimSink>>,
    /// For the sink, once the group is on disk.
    handed: Vec<Claim>,
    /// In the answers of the group's jobs.
    counted: Vec<(Arc<dyn LaneQuota>, Lane)>,
    /// Something is or will be due that nobody has claimed.
    pub left_due: bool,
}

impl ClaimLedger {
    pub fn of(sink: Option<Arc<dyn ClaimSink>>) -> Self {
        Self { sink, ..Self::default() }
    }

    pub fn set_sink(&mut self, sink: Option<Arc<dyn ClaimSink>>) {
        self.sink = sink;
    }

    /// Whether the sink accepts one more delivery of this lane.
    pub fn has_room(&self, lane: Lane, target: &EndpointTarget) -> bool {
        self.sink.as_ref().is_some_and(|sink| sink.quota(lane) > 0 && sink.allowance(lane, target, 1) > 0)
    }

    /// Passes an accepted delivery to the sink, once the group is on disk.
    pub fn hand_over(&mut self, claim: Claim) {
        if let Some(sink) = &self.sink {
            sink.claimed(claim.lane);
            self.handed.push(claim);
        }
    }

    /// Counts a claim that its job returns.
    pub fn count(&mut self, quota: &Arc<dyn LaneQuota>, lane: Lane) {
        quota.claimed(lane);
        self.counted.push((Arc::clone(quota), lane));
    }

    /// Takes back one count.
    pub fn uncount(&mut self, quota: &Arc<dyn LaneQuota>, lane: Lane) {
        if let Some(at) = self.counted.iter().rposition(|(_, counted)| *counted == lane) {
            self.counted.swap_remove(at);
            quota.unclaimed(lane);
        }
    }

    pub fn rolled_back(&mut self) {
        for (quota, lane) in self.counted.drain(..) {
            quota.unclaimed(lane);
        }
        if let Some(sink) = &self.sink {
            self.handed.drain(..).for_each(|claim| sink.unclaimed(claim.lane));
        }
        self.left_due = false;
    }

    /// The group's claims for the sink, to be passed on once the group is on disk.
    pub fn committed(&mut self) -> CommittedClaims {
        self.counted.clear();
        CommittedClaims {
            sink: self.sink.take(),
            claims: std::mem::take(&mut self.handed),
            left_due: std::mem::take(&mut self.left_due),
        }
    }
}

/// The claims of a committed group for the sink.
pub struct CommittedClaims {
    sink: Option<Arc<dyn ClaimSink>>,
    claims: Vec<Claim>,
    left_due: bool,
}

impl CommittedClaims {
    /// Passes the claims on. They are on disk, and were made `age` ago. Returns whether something was left due.
    pub fn take_over(self, age: Duration) -> bool {
        let Some(sink) = self.sink else { return self.left_due };
        if !self.claims.is_empty() {
            sink.take_over(self.claims, limits::LEASE.saturating_sub(age));
        }
        if self.left_due {
            sink.wake();
        }
        self.left_due
    }

    /// Uncounts the claims: they may not be on disk.
    pub fn roll_back(self) {
        if let Some(sink) = self.sink {
            self.claims.iter().for_each(|claim| sink.unclaimed(claim.lane));
        }
    }
}
