//! Rate limits: one counter for each workspace and bucket, whichever of its keys calls.
//!
//! The counters are this process's own. Where several nodes share a store, each lets its limit through.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Mutex;

use postrider_domain::access::Principal;
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::rate_limit::{Rate, RateBucket, RateLimits, SlidingWindow};
use postrider_domain::time::Timestamp;

use super::{Service, lock};

pub struct RateLimiter {
    limits: RateLimits,
    management: Windows,
    publishing: Windows,
}

#[derive(Default)]
struct Windows(Mutex<Workspaces>);

#[derive(Default)]
struct Workspaces {
    windows: HashMap<RowKey, SlidingWindow>,
    /// At this many the idle ones are forgotten.
    forget_at: usize,
}

impl RateLimiter {
    pub fn new(limits: RateLimits) -> Self {
        Self { limits, management: Windows::default(), publishing: Windows::default() }
    }

    fn windows(&self, bucket: RateBucket) -> &Windows {
        match bucket {
            RateBucket::Management => &self.management,
            RateBucket::Publishing => &self.publishing,
        }
    }
}

impl Windows {
    fn take(&self, workspace_key: RowKey, limit: NonZeroU32, now: Timestamp) -> Result<Rate, Rate> {
        let mut workspaces = lock(&self.0);
        if workspaces.windows.len() >= workspaces.forget_at {
            workspaces.windows.retain(|_, window| !window.is_idle(now));
            workspaces.forget_at = limits::RATE_WORKSPACES.max(2 * workspaces.windows.len());
        }
        workspaces.windows.entry(workspace_key).or_default().take(limit, now)
    }
}

impl Service {
    /// Whether requests of this bucket are counted at all.
    pub fn is_rate_limited(&self, bucket: RateBucket) -> bool {
        self.rates.limits.of(bucket).is_some()
    }

    /// Counts a request. `None` when the bucket is not limited.
    ///
    /// # Errors
    /// When the workspace has used its bucket up.
    pub fn admit(&self, principal: &Principal, bucket: RateBucket) -> Option<Result<Rate, Rate>> {
        let limit = self.rates.limits.of(bucket)?;
        Some(self.rates.windows(bucket).take(principal.workspace_key, limit, self.clock.now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspaces_share_nothing_and_idle_ones_are_forgotten() {
        let windows = Windows::default();
        let one = NonZeroU32::MIN;
        let start = Timestamp::from_millis(1_778_846_400_000);
        for key in 0..50_000 {
            let now = start.plus(std::time::Duration::from_millis(u64::try_from(key).unwrap() * 60));
            assert!(windows.take(RowKey::from_i64(key), one, now).is_ok());
        }
        assert!(
            windows.take(RowKey::from_i64(49_999), one, start.plus(std::time::Duration::from_secs(3_000))).is_err()
        );
        // A thousand are busy at any time.
        assert!(lock(&windows.0).windows.len() < 4 * limits::RATE_WORKSPACES);
    }
}
