//! Rate limits of callers.

use postrider_domain::access::Principal;
use postrider_domain::rate_limit::{Rate, RateBucket};

use crate::service::Service;

impl Service {
    /// Counts a request of the principal's workspace. `None` when the bucket has no limit.
    ///
    /// # Errors
    /// When the workspace has reached the limit.
    pub fn count_request(&self, principal: &Principal, bucket: RateBucket) -> Option<Result<Rate, Rate>> {
        self.rates.take(principal.tenant.workspace, bucket, self.clock.now())
    }
}
