//! The system clock. No other file reads it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use postrider_domain::time::{Clock, Sleep, Timestamp};

/// The wall clock of this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The wall clock can be set during a wait, so it is read again after this time.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        #[expect(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep<'_> {
        Box::pin(wait_until(at, || self.now()))
    }
}

/// Waits until a wall clock shows `at`, but no longer than the time that was left at the start. Otherwise a wait of a
/// second would take an hour if the clock is set back by an hour.
pub async fn wait_until(at: Timestamp, now: impl Fn() -> Timestamp) {
    let began = Instant::now();
    let longest = at.since(now());
    loop {
        let left = at.since(now()).min(longest.saturating_sub(began.elapsed()));
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(RECHECK_INTERVAL)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    const NOON: i64 = 1_778_846_400_000;
    const HOUR: i64 = 3_600_000;

    /// The wait under test takes some milliseconds if the code is correct, otherwise an hour.
    async fn waits(at: i64, now: impl Fn() -> Timestamp) {
        let waiting = wait_until(Timestamp::from_millis(at), now);
        tokio::time::timeout(Duration::from_secs(30), waiting).await.unwrap();
    }

    #[tokio::test]
    async fn a_clock_set_back_does_not_prolong_a_wait() {
        let asked = AtomicI64::new(0);
        waits(NOON + 5, || {
            let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            Timestamp::from_millis(if is_first { NOON } else { NOON - HOUR })
        })
        .await;
    }

    #[tokio::test]
    async fn a_clock_set_forward_ends_a_wait() {
        let asked = AtomicI64::new(0);
        waits(NOON + HOUR, || {
            let is_first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            Timestamp::from_millis(if is_first { NOON } else { NOON + HOUR })
        })
        .await;
    }
}
