//! The request limit of a workspace: a sliding window of 60 seconds.
//!
//! The window is a log of the admitted requests, so it is exact: at most the limit in any 60 s, and a request stops
//! counting 60 s after it was admitted. Refused requests do not count. Above [`limits::RATE_LOG_EXACT`] the time of a
//! request is rounded up (see [`limits::RATE_LOG_GRAIN`]). That keeps the log short and never admits more.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use super::limits;
use super::shared_rate::CountsByAge;
use super::time::Timestamp;

/// Requests that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateBucket {
    /// Every request except publishes, reads included.
    Management,
    /// Publishes. A batch counts as one.
    Publishing,
}

impl RateBucket {
    pub const ALL: [Self; 2] = [Self::Management, Self::Publishing];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bucket| bucket.as_str() == text)
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Management => "management",
            Self::Publishing => "publishing",
        }
    }
}

/// Requests of one workspace in 60 s. `None` means no limit.
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

/// The state of a bucket after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub limit: u32,
    /// Requests that would be admitted now.
    pub remaining: u32,
    /// Time until one more is admitted: the oldest counted request leaves the window.
    pub reset: Duration,
}

/// The requests of one workspace in one bucket during the last 60 s.
#[derive(Debug, Default)]
pub struct SlidingWindow {
    /// Strictly increasing instants, and how many requests were admitted at each.
    log: VecDeque<(Timestamp, u32)>,
    counted: u32,
}

impl SlidingWindow {
    /// Admits one request, or refuses it because the window is full.
    ///
    /// # Errors
    /// The state of the bucket, when the window is full.
    pub fn take(&mut self, limit: NonZeroU32, now: Timestamp) -> Result<Rate, Rate> {
        let full = self.is_full(limit, now);
        if !full {
            self.admit(limit, now);
        }
        let rate = self.rate(limit, now);
        if full { Err(rate) } else { Ok(rate) }
    }

    /// The requests that count now.
    pub(crate) fn count(&mut self, now: Timestamp) -> u32 {
        self.forget(now);
        self.counted
    }

    /// The state of the bucket. The caller has let old requests be forgotten.
    pub(crate) fn rate(&self, limit: NonZeroU32, now: Timestamp) -> Rate {
        let reset = self.log.front().map_or(Duration::ZERO, |(at, _)| at.plus(limits::RATE_WINDOW).since(now));
        Rate { limit: limit.get(), remaining: limit.get().saturating_sub(self.counted), reset }
    }

    pub(crate) fn by_age(&self, now: Timestamp) -> CountsByAge {
        let age = |at: Timestamp| u32::try_from(now.since(at).as_secs()).unwrap_or(u32::MAX);
        CountsByAge::collect(self.log.iter().map(|(at, count)| (age(*at), *count)))
    }

    /// Whether a request would be refused.
    pub fn is_full(&mut self, limit: NonZeroU32, now: Timestamp) -> bool {
        self.forget(now);
        self.counted >= limit.get()
    }

    /// Whether no request counts any more.
    pub fn is_idle(&mut self, now: Timestamp) -> bool {
        self.forget(now);
        self.log.is_empty()
    }

    /// Counts a request without asking whether the window is full.
    pub(crate) fn admit(&mut self, limit: NonZeroU32, now: Timestamp) {
        let grain =
            if limit.get() > limits::RATE_LOG_EXACT { limits::RATE_LOG_GRAIN } else { Duration::from_millis(1) };
        let grain = i64::try_from(grain.as_millis()).unwrap_or(1);
        let rounded_up = Timestamp::from_millis((now.millis() + grain - 1).div_euclid(grain) * grain);
        self.counted += 1;
        match self.log.back_mut() {
            Some((at, count)) if *at >= rounded_up => *count += 1,
            _ => self.log.push_back((rounded_up, 1)),
        }
    }

    fn forget(&mut self, now: Timestamp) {
        // When the clock was set back by more than a window, old entries would count for that long.
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
    fn a_window_admits_its_limit_and_not_one_more() {
        let mut window = SlidingWindow::default();
        let rate = |remaining, seconds| Rate { limit: 3, remaining, reset: Duration::from_secs(seconds) };
        assert_eq!(window.take(limit(3), at(0)), Ok(rate(2, 60)));
        assert_eq!(window.take(limit(3), at(10_000)), Ok(rate(1, 50)));
        assert_eq!(window.take(limit(3), at(20_000)), Ok(rate(0, 40)));
        assert_eq!(window.take(limit(3), at(20_000)), Err(rate(0, 40)));
    }

    #[test]
    fn a_request_counts_for_exactly_60_seconds() {
        let mut window = SlidingWindow::default();
        assert!(window.take(limit(2), at(0)).is_ok());
        assert!(window.take(limit(2), at(30_000)).is_ok());
        assert_eq!(window.take(limit(2), at(59_999)).unwrap_err().reset, Duration::from_millis(1));
        assert_eq!(window.take(limit(2), at(60_000)).unwrap().reset, Duration::from_secs(30));
        assert!(window.take(limit(2), at(60_000)).is_err(), "the second is still in the window");
        assert!(window.take(limit(2), at(90_000)).is_ok());
    }

    #[test]
    fn refused_requests_do_not_count() {
        let mut window = SlidingWindow::default();
        assert!(window.take(limit(1), at(0)).is_ok());
        assert!((0..1_000).all(|n| window.take(limit(1), at(n)).is_err()));
        assert!(window.take(limit(1), at(60_000)).is_ok());
    }

    #[test]
    fn a_large_limit_has_a_short_log_and_is_never_exceeded() {
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
    fn a_large_limit_is_exact_to_within_its_grain() {
        let mut window = SlidingWindow::default();
        let many = limit(10_000);
        assert!((0..10_000).all(|_| window.take(many, at(1)).is_ok()));
        assert!(window.take(many, at(1)).is_err());
        assert!(window.take(many, at(60_000)).is_err());
        assert!(window.take(many, at(60_001 + 19)).is_ok());
    }

    #[test]
    fn a_clock_set_far_back_does_not_lock_the_caller_out() {
        let mut window = SlidingWindow::default();
        assert!(window.take(limit(1), at(3_600_000)).is_ok());
        assert!(window.take(limit(1), at(3_599_000)).is_err(), "a second back is in the window");
        assert!(window.take(limit(1), at(0)).is_ok());
    }
}
