//! What a transaction claims on the way, beside what it answers: counted while it runs, handed over once it is on disk, and
//! given up if it is not.

use std::sync::Arc;
use std::time::Duration;

use crate::{Claim, EndpointTarget, HandOver, Lane, LaneQuota};
use postrider_domain::limits;

/// What a group claims on the way, beside what its jobs answer.
#[derive(Default)]
pub struct GroupClaims {
    hand_over: Option<Arc<dyn HandOver>>,
    handed: Vec<Claim>,
    counted: Vec<(Arc<dyn LaneQuota>, Lane)>,
    /// Something fell due, or will, that nobody has claimed.
    pub left_due: bool,
}

impl GroupClaims {
    pub fn of(hand_over: Option<Arc<dyn HandOver>>) -> Self {
        Self { hand_over, ..Self::default() }
    }

    /// Who takes over from now on.
    pub fn hand_over_to(&mut self, hand_over: Option<Arc<dyn HandOver>>) {
        self.hand_over = hand_over;
    }

    /// Who takes over what is accepted, if it has room for one more of this lane.
    pub fn has_room(&self, lane: Lane, target: &EndpointTarget) -> bool {
        self.hand_over
            .as_ref()
            .is_some_and(|hand_over| hand_over.quota(lane) > 0 && hand_over.allowance(lane, target, 1) > 0)
    }

    /// Hands an accepted delivery over, once the group is on disk.
    pub fn hand_over(&mut self, claim: Claim, lane: Lane) {
        if let Some(hand_over) = &self.hand_over {
            hand_over.claimed(lane);
            self.handed.push(claim);
        }
    }

    /// Counts a claim that its job answers with.
    pub fn count(&mut self, quota: &Arc<dyn LaneQuota>, lane: Lane) {
        quota.claimed(lane);
        self.counted.push((Arc::clone(quota), lane));
    }

    /// One that was counted did not come about.
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
        if let Some(hand_over) = &self.hand_over {
            self.handed.drain(..).for_each(|claim| hand_over.unclaimed(claim.endpoint.lane));
        }
        self.left_due = false;
    }

    /// What is to be handed over once the group is on disk.
    pub fn committed(&mut self) -> HandedOver {
        self.counted.clear();
        HandedOver {
            to: self.hand_over.take(),
            claims: std::mem::take(&mut self.handed),
            left_due: std::mem::take(&mut self.left_due),
        }
    }
}

/// What a committed group claimed beside what its jobs answer.
pub struct HandedOver {
    to: Option<Arc<dyn HandOver>>,
    claims: Vec<Claim>,
    left_due: bool,
}

impl HandedOver {
    /// The claims are on disk; they were made so long ago. Returns whether something was left due.
    pub fn take_over(self, age: Duration) -> bool {
        let Some(to) = self.to else { return self.left_due };
        if !self.claims.is_empty() {
            to.take_over(self.claims, limits::LEASE.saturating_sub(age));
        }
        if self.left_due {
            to.wake();
        }
        self.left_due
    }

    /// The claims may be lost.
    pub fn roll_back(self) {
        if let Some(to) = self.to {
            self.claims.iter().for_each(|claim| to.unclaimed(claim.endpoint.lane));
        }
    }
}
