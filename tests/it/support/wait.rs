//! The bounded waiter. A test waits for an event, never for a span of time. The bound only turns a hang into a failure
//! that says what was missing.

use std::future::Future;
use std::time::Duration;

/// The longest wait for anything. It is generous, because a busy machine must not fail a test.
pub const BOUND: Duration = Duration::from_secs(30);

/// The poll interval of [`eventually`], which is the only polling in the tests. It grows with the time waited: a fixed
/// one of 10 ms would make 3,000 requests within [`BOUND`], and the API refuses the 1,201st with 429.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(250);
/// The part of the time waited that one interval has, so that a poll is late by at most that part.
const POLLS_PER_WAIT: u32 = 16;

/// Polls `probe` until it returns `Some`. For state that cannot notify, such as a row in a database. Prefer
/// [`bounded`].
///
/// # Panics
/// After [`BOUND`], with a message that names `what`.
pub async fn eventually<T, Probe, Answer>(what: &str, probe: Probe) -> T
where
    Probe: FnMut() -> Answer,
    Answer: Future<Output = Option<T>>,
{
    bounded(what, found(probe)).await
}

/// As [`eventually`], with a bound of its own, and with a text that is made only on failure.
///
/// # Panics
/// After `bound`, with the text of `explain`.
pub async fn eventually_within<T, Probe, Answer>(bound: Duration, probe: Probe, explain: impl FnOnce() -> String) -> T
where
    Probe: FnMut() -> Answer,
    Answer: Future<Output = Option<T>>,
{
    within(bound, found(probe), explain).await
}

/// Polls `probe` until it returns `Some`.
async fn found<T, Probe, Answer>(mut probe: Probe) -> T
where
    Probe: FnMut() -> Answer,
    Answer: Future<Output = Option<T>>,
{
    let mut waited = Duration::ZERO;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        let interval = interval_after(waited);
        tokio::time::sleep(interval).await;
        waited += interval;
    }
}

fn interval_after(waited: Duration) -> Duration {
    (waited / POLLS_PER_WAIT).clamp(POLL_INTERVAL_MIN, POLL_INTERVAL_MAX)
}

/// Awaits `future`, which the event itself wakes.
///
/// # Panics
/// After [`BOUND`], with a message that names `what`.
pub async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    bounded_or(future, || what.to_owned()).await
}

/// As [`bounded`], but `explain` runs only on failure, so that its text can describe the state at that moment.
///
/// # Panics
/// After [`BOUND`], with the text of `explain`.
pub async fn bounded_or<T>(future: impl Future<Output = T>, explain: impl FnOnce() -> String) -> T {
    within(BOUND, future, explain).await
}

/// As [`bounded_or`], with a bound of its own.
///
/// # Panics
/// After `bound`, with the text of `explain`.
pub async fn within<T>(bound: Duration, future: impl Future<Output = T>, explain: impl FnOnce() -> String) -> T {
    match tokio::time::timeout(bound, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {bound:?} in vain: {}", explain()),
    }
}

#[cfg(test)]
mod tests {
    use postrider_domain::limits;

    use super::*;

    #[tokio::test]
    async fn the_waiter_polls_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = eventually("the third question", || {
            asked += 1;
            let reply = (asked == 3).then_some(asked);
            async move { reply }
        });
        assert_eq!(answer.await, 3);
    }

    #[test]
    fn a_whole_wait_stays_far_below_the_rate_limit_of_a_workspace() {
        let (mut waited, mut polls) = (Duration::ZERO, 0);
        while waited < BOUND {
            waited += interval_after(waited);
            polls += 1;
        }
        assert!(polls < limits::MANAGEMENT_REQUESTS_PER_MINUTE / 5, "{polls} polls");
    }

    #[tokio::test]
    #[should_panic(expected = "in vain: a letter that nobody wrote")]
    async fn a_failed_wait_says_what_was_missing() {
        let explain = || "a letter that nobody wrote".to_owned();
        within(Duration::from_millis(1), std::future::pending::<()>(), explain).await;
    }
}
