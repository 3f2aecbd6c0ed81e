//! The machine's clock: the one place that reads it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use postrider_domain::time::{Clock, Sleep, Timestamp};

/// Wall-clock time of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// A wall clock can be set while something waits on it, so no single wait is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one proper place")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep<'_> {
        Box::pin(wait_until(at, || self.now()))
    }
}

/// Waits until a wall clock shows `at`, and no longer than was left of it at first: whoever waits for a second must not wait for an
/// hour because the clock has been set back by one.
pub async fn wait_until(at: Timestamp, now: impl Fn() -> Timestamp) {
    let began = Instant::now();
    let longest = at.since(now());
    loop {
        let left = at.since(now()).min(longest.saturating_sub(began.elapsed()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_WAIT)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const NOON: i64 = 1_778_846_400_000;
    const HOUR: i64 = 3_600_000;

    /// What is awaited takes some milliseconds, or an hour.
    async fn waits(at: i64, now: impl Fn() -> Timestamp) {
        let waiting = wait_until(Timestamp::from_millis(at), now);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    }

    #[tokio::test]
    async fn a_wait_is_not_made_longer_by_a_clock_that_is_set_back() {
        let asked = AtomicI64::new(0);
        waits(NOON + 5, || {
            let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            Timestamp::from_millis(if is_first { NOON } else { NOON - HOUR })
        })
        .await;
    }

    #[tokio::test]
    async fn a_wait_ends_when_the_clock_is_set_forward() {
        let asked = AtomicI64::new(0);
        waits(NOON + HOUR, || {
            let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            Timestamp::from_millis(if is_first { NOON } else { NOON + HOUR })
        })
        .await;
    }
}
