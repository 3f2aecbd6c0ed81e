//! The health of an endpoint: a pure state machine over the outcomes of its attempts.
//!
//! ```text
//!        3 failures            5 failures over 10 s             5 days and 12 failures
//!   ok ────────────► failing ───────────────────────► paused ──────────────────────────► disabled (`failing`)
//!    ▲                  │                                │  one probe after 30 s, 60 s, … 1 h
//!    └──── a success ───┴────────────────────────────────┘
//! ```
//!
//! A paused endpoint keeps its queue. One of the waiting deliveries is sent as a probe, so recovery is detected without
//! anyone's action. Only outcomes of attempts change the state, not publishes. The stores keep a [`FailureStreak`] for
//! each endpoint whose last attempt failed, and nothing for the others.

use std::time::Duration;

use super::limits;
use super::time::Timestamp;

/// The state that the API shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    Ok,
    /// Several consecutive attempts failed.
    Failing,
    /// Only probes are sent; the queue is kept.
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

/// The evidence that an attempt gives about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// None: a test, a simulation, or our own fault.
    Nothing,
    Success,
    Failure(Failure),
}

/// An attempt that failed by the fault of the receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The attempt was a probe of a paused endpoint.
    pub probe: bool,
    /// The receiver reported overload: 429, 502, 503 or 504.
    pub busy: bool,
    /// The break that a busy receiver asked for.
    pub retry_after: Option<Duration>,
}

/// Whether a status reports overload of the whole endpoint (contract).
pub const fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// The stored state of an endpoint whose last attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureStreak {
    /// The first failure since the last success.
    pub first_failure_at: Timestamp,
    /// Failed attempts since the last success.
    pub failures: u32,
    pub pause: Option<Pause>,
    /// The operator was warned that the endpoint will be switched off.
    pub warned: bool,
}

/// An endpoint that gets only probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    pub since: Timestamp,
    pub failed_probes: u32,
    /// No probe is sent before this instant, nor before a delivery is due.
    pub next_probe_at: Timestamp,
}

/// The effect of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterFailure {
    pub failure_streak: FailureStreak,
    pub change: Option<HealthChange>,
    /// The endpoint gets no attempt before this instant.
    pub not_before: Option<Timestamp>,
}

/// A change of state that is reported to the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthChange {
    Failing,
    Paused,
    /// The endpoint will be switched off in a day unless an attempt succeeds.
    DisabledSoon,
    /// The endpoint must be switched off now.
    Disable,
}

impl FailureStreak {
    /// The state after one more failure.
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

    /// The start of the current state.
    pub fn since(&self) -> Option<Timestamp> {
        match self.state() {
            HealthState::Ok => None,
            HealthState::Failing => Some(self.first_failure_at),
            HealthState::Paused => self.pause.map(|pause| pause.since),
        }
    }

    /// The first failure at or after this instant switches the endpoint off, unless a success comes before.
    pub fn disables_at(&self) -> Timestamp {
        self.first_failure_at.plus(limits::DISABLE_AGE)
    }
}

/// The wait between two probes: 30 s, doubled after each failed probe, up to an hour.
fn probe_wait(failed_probes: u32) -> Duration {
    limits::PROBE_WAIT_MIN.saturating_mul(1 << failed_probes.min(16)).min(limits::PROBE_WAIT_MAX)
}

/// The break of an endpoint with this many consecutive failures that is not paused yet. A single failure among
/// successes needs no break: the concurrency limit of the endpoint drops by itself.
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

    /// The state after the same failure at each of these seconds.
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
    fn the_third_consecutive_failure_is_reported_once() {
        assert_eq!(fail(&[0, 1], PLAIN).failure_streak.state(), HealthState::Ok);
        let third = fail(&[0, 1, 2], PLAIN);
        assert_eq!((third.failure_streak.state(), third.change), (HealthState::Failing, Some(HealthChange::Failing)));
        assert_eq!(third.failure_streak.since(), Some(at(0)));
        assert_eq!(fail(&[0, 1, 2, 3], PLAIN).change, None);
    }

    #[test]
    fn five_failures_pause_only_if_they_span_ten_seconds() {
        assert_eq!(fail(&[0, 0, 0, 0, 9], PLAIN).failure_streak.pause, None);
        assert_eq!(fail(&[0, 10, 20, 30], PLAIN).failure_streak.pause, None);
        let paused = fail(&[0, 0, 0, 0, 10], PLAIN);
        assert_eq!(paused.change, Some(HealthChange::Paused));
        assert_eq!(paused.failure_streak.pause, Some(Pause { since: at(10), failed_probes: 0, next_probe_at: at(40) }));
        assert_eq!(paused.not_before, Some(at(40)));
    }

    #[test]
    fn the_wait_between_probes_doubles_up_to_an_hour() {
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
    fn attempts_running_when_the_pause_began_move_no_probe() {
        let paused = fail(&[0, 0, 0, 0, 10], PLAIN).failure_streak;
        let after = FailureStreak::after_failure(Some(paused), at(20), PLAIN);
        assert_eq!(after.failure_streak.pause, paused.pause);
    }

    #[test]
    fn five_days_and_twelve_failures_disable_after_a_warning() {
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
        assert_eq!((quiet.change, quiet.failure_streak.warned), (None, false), "two failures cause no warning");
        let late = fail(&[0, 1, 2, 3, 4 * day], PLAIN);
        assert_eq!(
            late.change,
            Some(HealthChange::Paused),
            "of two changes at once the pause is reported; the warning follows"
        );
        let few = fail(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 5 * day], PLAIN);
        assert_ne!(few.change, Some(HealthChange::Disable), "eleven failures are too few");
    }

    #[test]
    fn a_busy_receiver_gets_the_break_it_asked_for() {
        let asked = Failure { busy: true, retry_after: Some(Duration::from_secs(120)), ..PLAIN };
        assert_eq!(fail(&[0], asked).not_before, Some(at(120)));
        let polite = Failure { busy: false, ..asked };
        assert_eq!(fail(&[0], polite).not_before, None, "this status does not report overload of the whole endpoint");
        let busy = Failure { busy: true, ..PLAIN };
        assert_eq!(fail(&[0, 0], busy).not_before, None);
        assert_eq!(fail(&[0, 0, 0], busy).not_before, Some(at(1)));
        assert_eq!(fail(&[0, 0, 0, 0, 0], busy).not_before, Some(at(4)));
        assert_eq!(fail(&[0, 0, 0, 0, 10], asked).failure_streak.pause.unwrap().next_probe_at, at(130));
    }

    #[test]
    fn a_failing_receiver_gets_one_attempt_a_second_until_paused() {
        assert_eq!(fail(&[0; 4], PLAIN).not_before, None);
        assert_eq!(fail(&[0; 5], PLAIN).not_before, Some(at(1)));
    }

    proptest! {
        #[test]
        fn a_pause_always_has_a_next_probe_within_bounds(
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
