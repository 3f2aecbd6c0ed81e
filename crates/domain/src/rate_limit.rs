//! How many requests a workspace may make in any 60 seconds.
//!
//! The window is a log of the requests that were let through, so it is exact: never more than the limit in any 60 s, and
//! a place is free again 60 s after it was taken. Requests that were refused are not counted. Above
//! [`limits::RATE_LOG_EXACT`] a request is noted a little later than it came (see [`limits::RATE_LOG_GRAIN`]), which keeps
//! the log short and never lets more through.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::limits;
use super::time::Timestamp;

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateBucket {
    /// Every request that is not a publish, reads too.
    Management,
    /// Publishes, a batch counting as one.
    Publishing,
}

impl RateBucket {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Management => "management",
            Self::Publishing => "publishing",
        }
    }
}

/// Requests of one workspace in 60 s; a bucket without a number is not limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    pub management: Option<NonZeroU32>,
    pub publishing: Option<NonZeroU32>,
}

impl RateLimits {
    pub const fn of(self, bucket: RateBucket) -> Option<NonZeroU32> {
        match bucket {
            RateBucket::Management => self.management,
            RateBucket::Publishing => self.publishing,
        }
    }
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            management: NonZeroU32::new(limits::MANAGEMENT_REQUESTS_PER_MINUTE),
            publishing: NonZeroU32::new(limits::PUBLISHING_REQUESTS_PER_MINUTE),
        }
    }
}

/// Where a bucket stands after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    /// Requests that would be let through now.
    pub remaining: u32,
    /// Until one more would be: the oldest request that counts leaves the window.
    pub reset: Duration,
}

/// One workspace's requests of the last 60 s in one bucket.
#[derive(Debug, Default)]
pub struct SlidingWindow {
    /// Instants that only grow, and how many requests were let through at each.
    log: VecDeque<(Timestamp, u32)>,
    counted: u32,
}

impl SlidingWindow {
    /// Lets one request through, or does not because the window is full.
    ///
    /// # Errors
    /// The same, when it is full.
    pub fn take(&mut self, limit: NonZeroU32, now: Timestamp) -> Result<Rate, Rate> {
        self.forget(now);
        let limit = limit.get();
        let full = self.counted >= limit;
        if !full {
            self.note(limit, now);
        }
        let reset = self.log.front().map_or(Duration::ZERO, |(at, _)| at.plus(limits::RATE_WINDOW).since(now));
        let rate = Rate { limit, remaining: limit.saturating_sub(self.counted), reset };
        if full { Err(rate) } else { Ok(rate) }
    }

    /// Whether nothing counts any more.
    pub fn is_idle(&mut self, now: Timestamp) -> bool {
        self.forget(now);
        self.log.is_empty()
    }

    fn note(&mut self, limit: u32, now: Timestamp) {
        let grain = if limit > limits::RATE_LOG_EXACT { limits::RATE_LOG_GRAIN } else { Duration::from_millis(1) };
        let grain = i64::try_from(grain.as_millis()).unwrap_or(1);
        let rounded_up = Timestamp::from_millis((now.millis() + grain - 1).div_euclid(grain) * grain);
        self.counted += 1;
        match self.log.back_mut() {
            Some((at, count)) if *at >= rounded_up => *count += 1,
            _ => self.log.push_back((rounded_up, 1)),
        }
    }

    fn forget(&mut self, now: Timestamp) {
        // A clock that was set back by more than a window would hold the past against the caller for as long.
        if self.log.back().is_some_and(|(at, _)| *at > now.plus(limits::RATE_WINDOW)) {
            *self = Self::default();
        }
        while let Some((at, count)) = self.log.front()
            && at.plus(limits::RATE_WINDOW) <= now
        {
            self.counted -= count;
            self.log.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_778_846_400_000;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(START + millis)
    }

    fn limit(requests: u32) -> NonZeroU32 {
        NonZeroU32::new(requests).unwrap()
    }

    #[test]
    fn a_window_holds_its_limit_and_not_one_more() {
        let mut window = SlidingWindow::default();
        let rate = |remaining, seconds| Rate { limit: 3, remaining, reset: Duration::from_secs(seconds) };
        assert_eq!(window.take(limit(3), at(0)), Ok(rate(2, 60)));
        assert_eq!(window.take(limit(3), at(10_000)), Ok(rate(1, 50)));
        assert_eq!(window.take(limit(3), at(20_000)), Ok(rate(0, 40)));
        assert_eq!(window.take(limit(3), at(20_000)), Err(rate(0, 40)));
    }

    #[test]
    fn a_place_is_free_again_60_seconds_after_it_was_taken_and_not_a_millisecond_sooner() {
        let mut window = SlidingWindow::default();
        assert!(window.take(limit(2), at(0)).is_ok());
        assert!(window.take(limit(2), at(30_000)).is_ok());
        assert_eq!(window.take(limit(2), at(59_999)).unwrap_err().reset, Duration::from_millis(1));
        assert_eq!(window.take(limit(2), at(60_000)).unwrap().reset, Duration::from_secs(30));
        assert!(window.take(limit(2), at(60_000)).is_err(), "the second is still in the window");
        assert!(window.take(limit(2), at(90_000)).is_ok());
    }

    #[test]
    fn what_is_refused_does_not_count() {
        let mut window = SlidingWindow::default();
        assert!(window.take(limit(1), at(0)).is_ok());
        assert!((0..1_000).all(|n| window.take(limit(1), at(n)).is_err()));
        assert!(window.take(limit(1), at(60_000)).is_ok());
    }

    #[test]
    fn a_large_limit_is_kept_in_a_short_log_and_never_exceeded() {
        let mut window = SlidingWindow::default();
        let many = limit(200_000);
        let mut admitted = Vec::new();
        for n in 0..120_000 {
            for _ in 0..5 {
                if window.take(many, at(n)).is_ok() {
                    admitted.push(n);
                }
            }
        }
        assert!(window.log.len() <= 3_001, "{}", window.log.len());
        for (index, first) in admitted.iter().enumerate().step_by(997) {
            let last = admitted.partition_point(|&n| n < first + 60_000);
            assert!(last - index <= 200_000);
        }
        assert_eq!(admitted.len(), 400_000, "the limit twice, once for each minute");
    }

    #[test]
    fn a_large_limit_has_the_same_edge_to_within_its_grain() {
        let mut window = SlidingWindow::default();
        let many = limit(10_000);
        assert!((0..10_000).all(|_| window.take(many, at(1)).is_ok()));
        assert!(window.take(many, at(1)).is_err());
        assert!(window.take(many, at(60_000)).is_err());
        assert!(window.take(many, at(60_001 + 19)).is_ok());
    }

    #[test]
    fn a_clock_set_back_for_long_is_not_held_against_the_caller() {
        let mut window = SlidingWindow::default();
        assert!(window.take(limit(1), at(3_600_000)).is_ok());
        assert!(window.take(limit(1), at(3_599_000)).is_err(), "a second back is in the window");
        assert!(window.take(limit(1), at(0)).is_ok());
    }
}
