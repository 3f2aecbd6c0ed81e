//! How an endpoint does: from its first failure in a row to the pause, to being switched off, and back.
//!
//! ```text
//!        3 failures            5 failures over 10 s             5 days and 12 failures
//!   ok ────────────► failing ───────────────────────► paused ──────────────────────────► disabled (`failing`)
//!    ▲                  │                                │  one probe after 30 s, 60 s, … 1 h
//!    └──── a success ───┴────────────────────────────────┘
//! ```
//!
//! Pausing is not disabling: what waits goes on waiting, and a probe, which is one of the deliveries that wait, finds out
//! by itself that the receiver is back. Only what an attempt brought counts; what was published meanwhile does not. Everything
//! here is pure; the stores keep a [`FailureStreak`] for each endpoint whose last attempt failed, and none for the others.

use std::time::Duration;

use super::limits;
use super::time::Timestamp;

/// What is told of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    Ok,
    /// Several attempts in a row have failed.
    Failing,
    /// Nothing is sent but probes; the queue is kept.
    Paused,
}

impl HealthState {
    pub const ALL: [Self; 3] = [Self::Ok, Self::Failing, Self::Paused];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failing => "failing",
            Self::Paused => "paused",
        }
    }
}

/// What an attempt says of its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nothing: it was a test or a simulation, or the fault was ours.
    Nothing,
    Success,
    Failure(Failure),
}

/// An attempt that failed by the receiver's fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// It was a paused endpoint's probe.
    pub probe: bool,
    /// The receiver said that it has too much to do: 429, 502, 503 or 504.
    pub busy: bool,
    /// How long a busy receiver asked to be left alone.
    pub retry_after: Option<Duration>,
}

/// Whether an answer with this status speaks for the whole endpoint: the receiver has too much to do (contract).
pub const fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// What is kept of an endpoint whose last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureStreak {
    /// The first failure since the last success.
    pub first_failure_at: Timestamp,
    /// Attempts that failed since.
    pub failures: u32,
    pub pause: Option<Pause>,
    /// It was told that the endpoint will soon be switched off.
    pub warned: bool,
}

/// An endpoint that is left alone but for probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub since: Timestamp,
    pub failed_probes: u32,
    /// Not before this, and not before something is due.
    pub next_probe_at: Timestamp,
}

/// What a failure changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterFailure {
    pub failure_streak: FailureStreak,
    pub change: Option<HealthChange>,
    /// Nothing is sent to the endpoint before this instant.
    pub not_before: Option<Timestamp>,
}

/// A change of state that somebody may want to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthChange {
    Failing,
    Paused,
    /// It will be switched off in a day unless an attempt succeeds.
    DisabledSoon,
    /// It is to be switched off now.
    Disable,
}

impl FailureStreak {
    /// What one more failure makes of an endpoint.
    pub fn after_failure(before: Option<Self>, now: Timestamp, failure: Failure) -> AfterFailure {
        let fresh = Self { first_failure_at: now, failures: 0, pause: None, warned: false };
        let mut failure_streak = before.unwrap_or(fresh);
        failure_streak.failures = failure_streak.failures.saturating_add(1);
        let age = now.since(failure_streak.first_failure_at);
        let mut change = (failure_streak.failures == limits::FAILING_FAILURES).then_some(HealthChange::Failing);
        match &mut failure_streak.pause {
            None if failure_streak.failures >= limits::PAUSE_FAILURES && age >= limits::PAUSE_SPAN => {
                failure_streak.pause =
                    Some(Pause { since: now, failed_probes: 0, next_probe_at: now.plus(limits::PROBE_WAIT_MIN) });
                change = Some(HealthChange::Paused);
            }
            Some(pause) if failure.probe => {
                pause.failed_probes = pause.failed_probes.saturating_add(1);
                pause.next_probe_at = now.plus(probe_wait(pause.failed_probes));
            }
            _ => {}
        }
        if age >= limits::DISABLE_AGE && failure_streak.failures >= limits::DISABLE_FAILURES {
            change = Some(HealthChange::Disable);
        } else if age >= limits::DISABLE_WARNING_AGE
            && !failure_streak.warned
            && change.is_none()
            && failure_streak.failures >= limits::FAILING_FAILURES
        {
            failure_streak.warned = true;
            change = Some(HealthChange::DisabledSoon);
        }
        let asked =
            failure.retry_after.filter(|_| failure.busy).map(|wait| now.plus(wait.min(limits::RETRY_AFTER_MAX)));
        let not_before = match &mut failure_streak.pause {
            Some(pause) => {
                pause.next_probe_at = pause.next_probe_at.max(asked.unwrap_or(now));
                Some(pause.next_probe_at)
            }
            None => asked.max(slow_down(failure_streak.failures, failure.busy).map(|wait| now.plus(wait))),
        };
        AfterFailure { failure_streak, change, not_before }
    }

    pub const fn state(&self) -> HealthState {
        if self.pause.is_some() {
            HealthState::Paused
        } else if self.failures >= limits::FAILING_FAILURES {
            HealthState::Failing
        } else {
            HealthState::Ok
        }
    }

    /// When its state began.
    pub fn since(&self) -> Option<Timestamp> {
        match self.state() {
            HealthState::Ok => None,
            HealthState::Failing => Some(self.first_failure_at),
            HealthState::Paused => self.pause.map(|pause| pause.since),
        }
    }

    /// The endpoint is switched off by the first failure from this instant on, unless a success comes before.
    pub fn disables_at(&self) -> Timestamp {
        self.first_failure_at.plus(limits::DISABLE_AGE)
    }
}

/// Between two probes: 30 s, then twice as long each time, up to an hour.
fn probe_wait(failed_probes: u32) -> Duration {
    limits::PROBE_WAIT_MIN.saturating_mul(1 << failed_probes.min(16)).min(limits::PROBE_WAIT_MAX)
}

/// How long an endpoint that is not paused yet is left alone after so many failures in a row. A single failure among successes
/// slows nothing: how many attempts go out side by side falls by itself.
fn slow_down(failures: u32, busy: bool) -> Option<Duration> {
    if busy && failures >= limits::FAILING_FAILURES {
        let doublings = (failures - limits::FAILING_FAILURES).min(5);
        return Some(limits::SLOW_DOWN * (1 << doublings));
    }
    (failures >= limits::PAUSE_FAILURES).then_some(limits::SLOW_DOWN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_000_000_000_000);
    const PLAIN: Failure = Failure { probe: false, busy: false, retry_after: None };
    const PROBE: Failure = Failure { probe: true, ..PLAIN };

    fn at(seconds: u64) -> Timestamp {
        START.plus(Duration::from_secs(seconds))
    }

    /// The same failure at each of these seconds.
    fn fail(seconds: &[u64], failure: Failure) -> AfterFailure {
        let mut last = None;
        for &second in seconds {
            last = Some(FailureStreak::after_failure(
                last.map(|after: AfterFailure| after.failure_streak),
                at(second),
                failure,
            ));
        }
        last.unwrap()
    }

    #[test]
    fn the_third_failure_in_a_row_is_failing_and_is_told_once() {
        assert_eq!(fail(&[0, 1], PLAIN).failure_streak.state(), HealthState::Ok);
        let third = fail(&[0, 1, 2], PLAIN);
        assert_eq!((third.failure_streak.state(), third.change), (HealthState::Failing, Some(HealthChange::Failing)));
        assert_eq!(third.failure_streak.since(), Some(at(0)));
        assert_eq!(fail(&[0, 1, 2, 3], PLAIN).change, None);
    }

    #[test]
    fn five_failures_pause_only_when_they_span_ten_seconds() {
        assert_eq!(fail(&[0, 0, 0, 0, 9], PLAIN).failure_streak.pause, None);
        assert_eq!(fail(&[0, 10, 20, 30], PLAIN).failure_streak.pause, None);
        let paused = fail(&[0, 0, 0, 0, 10], PLAIN);
        assert_eq!(paused.change, Some(HealthChange::Paused));
        assert_eq!(paused.failure_streak.pause, Some(Pause { since: at(10), failed_probes: 0, next_probe_at: at(40) }));
        assert_eq!(paused.not_before, Some(at(40)));
    }

    #[test]
    fn probes_wait_thirty_seconds_then_twice_as_long_up_to_an_hour() {
        let mut failure_streak = fail(&[0, 0, 0, 0, 10], PLAIN).failure_streak;
        let mut waits = Vec::new();
        for _ in 0..9 {
            let now = failure_streak.pause.unwrap().next_probe_at;
            let after = FailureStreak::after_failure(Some(failure_streak), now, PROBE);
            waits.push(after.failure_streak.pause.unwrap().next_probe_at.since(now).as_secs());
            failure_streak = after.failure_streak;
        }
        assert_eq!(waits, [60, 120, 240, 480, 960, 1920, 3600, 3600, 3600]);
    }

    #[test]
    fn what_was_under_way_when_the_pause_began_moves_no_probe() {
        let paused = fail(&[0, 0, 0, 0, 10], PLAIN).failure_streak;
        let after = FailureStreak::after_failure(Some(paused), at(20), PLAIN);
        assert_eq!(after.failure_streak.pause, paused.pause);
    }

    #[test]
    fn an_endpoint_is_switched_off_after_five_days_and_twelve_failures_and_warned_a_day_before() {
        let day = 24 * 3600;
        let mut failure_streak = fail(&[0; 11], PLAIN).failure_streak;
        let mut fail_at = |second: u64| {
            let after = FailureStreak::after_failure(Some(failure_streak), at(second), PLAIN);
            failure_streak = after.failure_streak;
            after.change
        };
        assert_eq!(fail_at(day), Some(HealthChange::Paused));
        assert_eq!(fail_at(4 * day - 1), None);
        assert_eq!(fail_at(4 * day), Some(HealthChange::DisabledSoon));
        assert_eq!(fail_at(4 * day + 1), None);
        assert_eq!(fail_at(5 * day - 1), None);
        assert_eq!(fail_at(5 * day), Some(HealthChange::Disable));
        let quiet = fail(&[0, 4 * day], PLAIN);
        assert_eq!((quiet.change, quiet.failure_streak.warned), (None, false), "two failures are not worth a warning");
        let late = fail(&[0, 1, 2, 3, 4 * day], PLAIN);
        assert_eq!(
            late.change,
            Some(HealthChange::Paused),
            "of two turns at once, the pause is told; the warning comes next"
        );
        let few = fail(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5 * day], PLAIN);
        assert_ne!(few.change, Some(HealthChange::Disable), "eleven failures are too few");
    }

    #[test]
    fn a_busy_receiver_is_left_alone_for_as_long_as_it_asked() {
        let asked = Failure { busy: true, retry_after: Some(Duration::from_secs(120)), ..PLAIN };
        assert_eq!(fail(&[0], asked).not_before, Some(at(120)));
        let polite = Failure { busy: false, ..asked };
        assert_eq!(fail(&[0], polite).not_before, None, "an answer that does not speak for the endpoint");
        let busy = Failure { busy: true, ..PLAIN };
        assert_eq!(fail(&[0, 0], busy).not_before, None);
        assert_eq!(fail(&[0, 0, 0], busy).not_before, Some(at(1)));
        assert_eq!(fail(&[0, 0, 0, 0, 0], busy).not_before, Some(at(4)));
        assert_eq!(fail(&[0, 0, 0, 0, 10], asked).failure_streak.pause.unwrap().next_probe_at, at(130));
    }

    #[test]
    fn a_receiver_that_only_fails_gets_one_attempt_a_second_until_it_is_paused() {
        assert_eq!(fail(&[0; 4], PLAIN).not_before, None);
        assert_eq!(fail(&[0; 5], PLAIN).not_before, Some(at(1)));
    }

    proptest! {
        #[test]
        fn a_pause_always_has_a_probe_ahead_within_its_bounds(
            gaps in proptest::collection::vec((0_u64..100_000, any::<bool>(), any::<bool>(), proptest::option::of(0_u64..200_000)), 1..60)
        ) {
            let (mut now, mut failure_streak) = (START, None);
            for (gap, probe, busy, retry_after) in gaps {
                now = now.plus(Duration::from_millis(gap));
                let failure = Failure { probe, busy, retry_after: retry_after.map(Duration::from_secs) };
                let after = FailureStreak::after_failure(failure_streak, now, failure);
                if let Some(pause) = after.failure_streak.pause {
                    let latest = limits::PROBE_WAIT_MAX.max(limits::RETRY_AFTER_MAX);
                    prop_assert!(pause.next_probe_at <= now.plus(latest));
                    prop_assert!(pause.next_probe_at >= pause.since);
                    prop_assert_eq!(after.not_before, Some(pause.next_probe_at));
                    prop_assert!(after.failure_streak.failures >= limits::PAUSE_FAILURES);
                }
                failure_streak = Some(after.failure_streak);
            }
        }
    }
}
