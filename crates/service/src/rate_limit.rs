//! Rate limits of callers.

use postrider_domain::access::Principal;
use postrider_domain::rate_limit::{Rate, RateBucket};

use crate::service::Service;

impl Service {
    /// Counts a request of the principal's workspace. `None` when the bucket has no limit.
    ///
    /// # Errors
    /// When the workspace has reached the limit.
    pub async fn count_request(&self, principal: &Principal, bucket: RateBucket) -> Option<Result<Rate, Rate>> {
        self.rates.take(principal.tenant.workspace, bucket, self.clock.as_ref()).await
    }

    /// Exchanges request counts with the other nodes of the store. Never returns.
    pub async fn keep_exchanging_rates(&self) {
        let node = i64::from_le_bytes(self.random.bytes());
        self.rates.keep_exchanging(self.store.as_ref(), node, self.clock.as_ref()).await;
    }
}
