//! Starts an attempt for each claim: from the dispatcher, or handed over by the transaction that accepted the event.

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

/// Starts each claim as a task of its own. The limiter has counted the claims when they were made.
pub struct Intake {
    pub limiter: ConcurrencyLimiter,
    pub worker: Arc<Worker>,
    pub attempts: TaskTracker,
    /// Aborts the attempts in flight.
    pub abort: CancellationToken,
    pub clock: Arc<dyn Clock>,
    pub waker: Waker,
    /// The store calls from a thread outside the runtime, so `tokio::spawn` does not work there.
    pub runtime: Handle,
}

impl Intake {
    pub fn start_attempts(&self, claims: Vec<Claim>, lease_until: Timestamp) {
        for claim in claims {
            let permit = self.limiter.permit(claim.lane);
            let worker = Arc::clone(&self.worker);
            let abort = self.abort.clone();
            let attempt = async move { abort.run_until_cancelled(worker.attempt(claim, lease_until, permit)).await };
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
        self.start_attempts(claims, self.clock.now().plus(lease_left));
    }

    fn wake(&self) {
        self.waker.wake();
    }
}
