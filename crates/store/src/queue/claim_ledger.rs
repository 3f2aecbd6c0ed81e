//! The claims that a transaction makes: counted while it runs, passed to the engine once it is on disk, uncounted if it
//! fails.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use postrider_domain::id::RowKey;
use postrider_domain::limits;

use crate::listener::ListenerWaker;
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
    waker: Arc<ListenerWaker>,
    /// Listeners with something new in the queue. Behind a lock only because PostgreSQL shares a transaction while
    /// statements are pipelined.
    woken: Mutex<Vec<RowKey>>,
}

impl ClaimLedger {
    pub fn of(sink: Option<Arc<dyn ClaimSink>>, waker: Arc<ListenerWaker>) -> Self {
        Self { sink, waker, ..Self::default() }
    }

    /// Wakes the consumers that wait for this listener, once the group is on disk.
    pub fn wake_listener(&self, endpoint_key: RowKey) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if woken.last() != Some(&endpoint_key) {
            woken.push(endpoint_key);
        }
    }

    fn take_woken(&mut self) -> Vec<RowKey> {
        std::mem::take(self.woken.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_sink(&mut self, sink: Option<Arc<dyn ClaimSink>>) {
        self.sink = sink;
    }

    /// Whether the sink accepts one more delivery of this lane. A listener's deliveries are for its consumers alone.
    pub fn has_room(&self, lane: Lane, target: &EndpointTarget) -> bool {
        if target.id.is_listener() {
            return false;
        }
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
        self.take_woken();
    }

    /// The group's claims for the sink, to be passed on once the group is on disk.
    pub fn committed(&mut self) -> CommittedClaims {
        self.counted.clear();
        CommittedClaims {
            sink: self.sink.take(),
            claims: std::mem::take(&mut self.handed),
            left_due: std::mem::take(&mut self.left_due),
            woken: self.take_woken(),
            waker: Arc::clone(&self.waker),
        }
    }
}

/// The claims of a committed group for the sink.
pub struct CommittedClaims {
    sink: Option<Arc<dyn ClaimSink>>,
    claims: Vec<Claim>,
    left_due: bool,
    woken: Vec<RowKey>,
    waker: Arc<ListenerWaker>,
}

/// What a committed group left for others to do.
pub struct LeftOver {
    /// Something is or will be due.
    pub is_due: bool,
    /// Listeners with something new in the queue.
    pub listeners: Vec<RowKey>,
}

impl CommittedClaims {
    /// Passes the claims on and wakes consumers. The claims are on disk, and were made `age` ago.
    pub fn take_over(self, age: Duration) -> LeftOver {
        self.waker.wake(&self.woken);
        let left = LeftOver { is_due: self.left_due, listeners: self.woken };
        let Some(sink) = self.sink else { return left };
        if !self.claims.is_empty() {
            sink.take_over(self.claims, limits::LEASE.saturating_sub(age));
        }
        if self.left_due {
            sink.wake();
        }
        left
    }

    /// Uncounts the claims: they may not be on disk.
    pub fn roll_back(self) {
        if let Some(sink) = self.sink {
            self.claims.iter().for_each(|claim| sink.unclaimed(claim.lane));
        }
    }
}
