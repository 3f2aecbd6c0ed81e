//! Claims due deliveries from the store while there are free permits.

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

/// The wait after the store failed.
const STORE_FAILURE_WAIT: Duration = Duration::from_secs(1);

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
            // The wait counts from here: a delivery that becomes due during the claim must not wait for the next poll.
            let asked_at = self.clock.now();
            match self.claim(free.min(limits::DELIVERIES_PER_CLAIM)).await {
                Ok(None) => {}
                Ok(Some(wait)) => {
                    let until = asked_at.plus(wait);
                    // A delivery that an endpoint's rate held back is sent when the next token comes.
                    let token_at = self.intake.limiter.next_token_at();
                    self.wait_until(token_at.map_or(until, |at| at.min(until))).await;
                }
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "cannot claim due deliveries; retrying in a second");
                    self.wait_until(asked_at.plus(STORE_FAILURE_WAIT)).await;
                }
            }
        }
    }

    /// Claims and starts up to `limit` attempts. Returns how long to wait if there was nothing to claim.
    async fn claim(&self, limit: usize) -> Result<Option<Duration>, postrider_store::StoreError> {
        self.intake.limiter.share_among(self.store.nodes());
        let lease_until = self.clock.now().plus(limits::LEASE);
        let claimed = self.store.claim_due(limit, limits::LEASE, Arc::new(self.intake.limiter.clone())).await?;
        let found = !claimed.claims.is_empty();
        self.intake.start_attempts(claimed.claims, lease_until);
        let wait = claimed.next_due_in.unwrap_or(limits::POLL_INTERVAL).min(limits::POLL_INTERVAL);
        Ok((!found && !wait.is_zero()).then_some(wait))
    }

    async fn wait_until(&self, until: Timestamp) {
        // The clock may have been set back since `until` was computed. No wait is longer than this.
        let until = until.min(self.clock.now().plus(limits::POLL_INTERVAL));
        // The order decides whether a wake-up is used up, and a fixed order can be repeated.
        tokio::select! {
            biased;
            () = self.clock.sleep_until(until) => {}
            () = self.waker.woken() => {}
            // A lane may have been refused because no permit was free.
            () = self.intake.limiter.released() => {}
            () = self.stop.cancelled() => {}
        }
    }
}
