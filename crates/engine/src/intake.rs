//! Where claims come in: from the dispatcher, and handed over by the transaction that accepted their event.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use postrider_domain::time::{Clock, Timestamp};
use postrider_store::{Claim, ClaimSink, EndpointTarget, Lane, LaneQuota};

use super::limiter::ConcurrencyLimiter;
use super::waker::Waker;
use super::worker::Worker;

/// Sets claims off, each as a task of its own. Its places are counted when claims are made.
pub struct Intake {
    pub limiter: ConcurrencyLimiter,
    pub worker: Arc<Worker>,
    pub attempts: TaskTracker,
    /// Drops the attempts under way.
    pub cut: CancellationToken,
    pub clock: Arc<dyn Clock>,
    pub waker: Waker,
    /// The store calls from a thread that is not the runtime's.
    pub runtime: Handle,
}

impl Intake {
    pub fn set_off(&self, claims: Vec<Claim>, lease_until: Timestamp) {
        for claim in claims {
            let permit = self.limiter.permit(claim.lane);
            let worker = Arc::clone(&self.worker);
            let cut = self.cut.clone();
            let attempt = async move { cut.run_until_cancelled(worker.attempt(claim, lease_until, permit)).await };
            self.attempts.spawn_on(attempt, &self.runtime);
        }
    }
}

impl LaneQuota for Intake {
    fn quota(&self, lane: Lane) -> usize {
        self.limiter.quota(lane)
    }

    fn allowance(&self, lane: Lane, target: &EndpointTarget, wanted: usize) -> usize {
        self.limiter.allowance(lane, target, wanted)
    }

    fn claimed(&self, lane: Lane) {
        self.limiter.claimed(lane);
    }

    fn unclaimed(&self, lane: Lane) {
        self.limiter.unclaimed(lane);
    }
}

impl ClaimSink for Intake {
    fn take_over(&self, claims: Vec<Claim>, lease_left: Duration) {
        self.set_off(claims, self.clock.now().plus(lease_left));
    }

    fn wake(&self) {
        self.waker.wake();
    }
}
