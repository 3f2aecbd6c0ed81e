//! The one bounded waiter. A test waits for an event, never for a span of time; the bound only turns a hang into
//! a failure that says what was missing.

use std::future::Future;
use std::time::Duration;

/// How long anything awaited may take. Generous, because a busy machine is no reason to fail.
pub const BOUND: Duration = Duration::from_secs(30);

/// How often [`eventually`] asks again: the only polling in the tests.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
const LONG_POLL_INTERVAL: Duration = Duration::from_millis(200);

/// Asks until the answer is `Some`. For what cannot notify, like a row in a database; prefer [`bounded`].
///
/// # Panics
/// After [`BOUND`], naming `what` did not happen.
pub async fn eventually<T, Probe, Answer>(what: &str, probe: Probe) -> T
where
    Probe: FnMut() -> Answer,
    Answer: Future<Output = Option<T>>,
{
    bounded(what, found(probe, POLL_INTERVAL)).await
}

/// As [`eventually`], for what takes longer on purpose, such as a lease to run out. The text is made at the moment of failure.
///
/// # Panics
/// After `bound`, with the text of `explain`.
pub async fn eventually_within<T, Probe, Answer>(bound: Duration, probe: Probe, explain: impl FnOnce() -> String) -> T
where
    Probe: FnMut() -> Answer,
    Answer: Future<Output = Option<T>>,
{
    within(bound, found(probe, LONG_POLL_INTERVAL), explain).await
}

/// Asks again and again until there is an answer.
async fn found<T, Probe, Answer>(mut probe: Probe, interval: Duration) -> T
where
    Probe: FnMut() -> Answer,
    Answer: Future<Output = Option<T>>,
{
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        tokio::time::sleep(interval).await;
    }
}

/// Awaits `future`, which is woken by the event itself.
///
/// # Panics
/// After [`BOUND`], naming `what` did not happen.
pub async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    bounded_or(future, || what.to_owned()).await
}

/// As [`bounded`], but the text is made at the moment of failure, so that it can tell what did happen.
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
    use super::*;

    #[tokio::test]
    async fn the_waiter_asks_until_there_is_an_answer() {
        let mut asked = 0;
        let answer = eventually("the third question", || {
            asked += 1;
            let reply = (asked == 3).then_some(asked);
            async move { reply }
        });
        assert_eq!(answer.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "in vain: a letter that nobody wrote")]
    async fn a_wait_in_vain_says_what_was_missing() {
        let explain = || "a letter that nobody wrote".to_owned();
        within(Duration::from_millis(1), std::future::pending::<()>(), explain).await;
    }
}
