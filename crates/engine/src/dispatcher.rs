//! Asks the store for what is due, as fast as there are free slots.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::EngineStore;

use super::intake::Intake;
use super::waker::Waker;

pub struct Dispatcher {
    pub store: Arc<dyn EngineStore>,
    pub clock: Arc<dyn Clock>,
    pub waker: Waker,
    pub intake: Arc<Intake>,
    pub stop: CancellationToken,
}

/// After a failure of the store.
const STORE_FAULT_WAIT: Duration = Duration::from_secs(1);

impl Dispatcher {
    pub async fn run(self) {
        while !self.stop.is_cancelled() {
            let free = self.intake.limiter.free();
            if free == 0 {
                tokio::select! {
                    () = self.intake.limiter.released() => {}
                    () = self.stop.cancelled() => {}
                }
                continue;
            }
            // A wait counts from here: what falls due while the store is asked must not wait for the next poll.
            let asked_at = self.clock.now();
            match self.claim(free.min(limits::DELIVERIES_PER_CLAIM)).await {
                Ok(None) => {}
                Ok(Some(wait)) => {
                    let until = asked_at.plus(wait);
                    // What an endpoint's rate held back goes when its time has come, whatever else is due.
                    let token_at = self.intake.limiter.next_token_at();
                    self.wait_until(token_at.map_or(until, |at| at.min(until))).await;
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "claiming due deliveries failed");
                    self.wait_until(asked_at.plus(STORE_FAULT_WAIT)).await;
                }
            }
        }
    }

    /// Claims and sets off up to `limit` attempts. Returns how long to wait when there was nothing to claim.
    async fn claim(&self, limit: usize) -> Result<Option<Duration>, postrider_store::StoreError> {
        self.intake.limiter.share_among(self.store.nodes());
        let lease_until = self.clock.now().plus(limits::LEASE);
        let claimed = self.store.claim_due(limit, limits::LEASE, Arc::new(self.intake.limiter.clone())).await?;
        let found = !claimed.claims.is_empty();
        self.intake.set_off(claimed.claims, lease_until);
        let wait = claimed.next_due_in.unwrap_or(limits::POLL_INTERVAL).min(limits::POLL_INTERVAL);
        Ok((!found && !wait.is_zero()).then_some(wait))
    }

    async fn wait_until(&self, until: Timestamp) {
        tokio::select! {
            () = self.clock.sleep_until(until) => {}
            () = self.waker.nudged() => {}
            // A lane may have been passed over for want of a slot.
            () = self.intake.limiter.released() => {}
            () = self.stop.cancelled() => {}
        }
    }
}
