//! When to retry: a pure function of the outcome, the schedule and `Retry-After`.

use std::time::Duration;

use super::attempt::{AttemptOutcome, Fault};
use super::endpoint::DisabledReason;
use super::limits;
use super::retry_schedule::RetrySchedule;
use super::time::Timestamp;

/// The next state of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Delivered,
    Simulated,
    /// The schedule has no step left, so the delivery fails.
    Exhausted,
    /// Retry after this time. `uses_step` says whether the schedule advances.
    Retry {
        after: Duration,
        uses_step: bool,
    },
}

/// The decision on a delivery, and on its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub disable: Option<DisabledReason>,
}

/// A failed probe is queued behind everything that is due now, so that the next probe is another delivery.
const BEHIND_OTHERS: Duration = Duration::from_millis(1);
/// Share of a wait by which it is varied in either direction, so that retries do not synchronize.
pub(crate) const JITTER: f64 = 0.2;

/// Decides what follows an attempt.
///
/// - `step` counts the waits already used.
/// - `probe` says that the endpoint is paused. Then a failure uses no step, and the delivery waits with the others for
///   the endpoint's next probe.
/// - `unit` is a random number in `[0, 1)`.
pub fn judge(
    outcome: AttemptOutcome,
    step: u32,
    probe: bool,
    schedule: &RetrySchedule,
    retry_after: Option<Duration>,
    unit: f64,
) -> Verdict {
    let disable = match outcome {
        AttemptOutcome::Gone => Some(DisabledReason::Gone),
        AttemptOutcome::SsrfBlocked => Some(DisabledReason::SsrfBlocked),
        _ => None,
    };
    let decision = match (outcome, outcome.fault()) {
        (AttemptOutcome::Delivered, _) => Decision::Delivered,
        (AttemptOutcome::Simulated, _) => Decision::Simulated,
        (_, Fault::Nobody | Fault::Sender) => {
            Decision::Retry { after: jittered(limits::SENDER_FAULT_WAIT, unit), uses_step: false }
        }
        (_, Fault::Receiver) if probe => Decision::Retry {
            after: retry_after.unwrap_or_default().clamp(BEHIND_OTHERS, limits::RETRY_AFTER_MAX),
            uses_step: false,
        },
        (_, Fault::Receiver) => match schedule.step(step) {
            None => Decision::Exhausted,
            Some(wait) => {
                let asked = retry_after.unwrap_or_default().min(limits::RETRY_AFTER_MAX);
                Decision::Retry { after: jittered(wait, unit).max(asked), uses_step: true }
            }
        },
    };
    Verdict { decision, disable }
}

/// `wait`, varied by up to 20 % in either direction.
fn jittered(wait: Duration, unit: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit.clamp(0.0, 1.0))
}

/// Reads both forms of `Retry-After`: seconds and HTTP date. Capped at [`limits::RETRY_AFTER_MAX`].
pub fn parse_retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|c| c.is_ascii_digit()) {
        return Some(value.parse().map_or(limits::RETRY_AFTER_MAX, Duration::from_secs).min(limits::RETRY_AFTER_MAX));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    let millis = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    let at = Timestamp::from_millis(i64::try_from(millis).ok()?);
    Some(at.since(now).min(limits::RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_delivery_fails_after_the_last_step_of_its_schedule() {
        let schedule = RetrySchedule::default();
        for step in 0..9 {
            let verdict = judge(AttemptOutcome::HttpError, step, false, &schedule, None, 0.5);
            let after = schedule.step(step).unwrap();
            assert_eq!(verdict, Verdict { decision: Decision::Retry { after, uses_step: true }, disable: None });
        }
        assert_eq!(judge(AttemptOutcome::Timeout, 9, false, &schedule, None, 0.5).decision, Decision::Exhausted);
    }

    #[test]
    fn our_own_faults_use_no_step_even_if_none_is_left() {
        let schedule = RetrySchedule::default();
        let verdict = judge(AttemptOutcome::InternalError, 9, false, &schedule, None, 0.5);
        assert_eq!(verdict.decision, Decision::Retry { after: limits::SENDER_FAULT_WAIT, uses_step: false });
    }

    #[test]
    fn a_failed_probe_uses_no_step_even_if_none_is_left() {
        let schedule = RetrySchedule::default();
        let decision = |retry_after| judge(AttemptOutcome::HttpError, 9, true, &schedule, retry_after, 0.5).decision;
        assert_eq!(decision(None), Decision::Retry { after: BEHIND_OTHERS, uses_step: false });
        let asked = Duration::from_secs(120);
        assert_eq!(decision(Some(asked)), Decision::Retry { after: asked, uses_step: false });
        let delivered = judge(AttemptOutcome::Delivered, 9, true, &schedule, None, 0.5).decision;
        assert_eq!(delivered, Decision::Delivered);
    }

    #[test]
    fn gone_and_ssrf_blocked_switch_the_endpoint_off() {
        let schedule = RetrySchedule::default();
        let disable = |outcome| judge(outcome, 0, false, &schedule, None, 0.5).disable;
        assert_eq!(disable(AttemptOutcome::Gone), Some(DisabledReason::Gone));
        assert_eq!(disable(AttemptOutcome::SsrfBlocked), Some(DisabledReason::SsrfBlocked));
        assert_eq!(disable(AttemptOutcome::HttpError), None);
    }

    #[test]
    fn retry_after_has_two_forms_and_is_capped_at_a_day() {
        let now = Timestamp::parse("1994-11-06T08:49:00Z").unwrap();
        assert_eq!(parse_retry_after("120", now), Some(Duration::from_secs(120)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", now), Some(Duration::from_secs(37)));
        assert_eq!(parse_retry_after("Sun, 06 Nov 1994 08:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(parse_retry_after("99999999999999999999999", now), Some(limits::RETRY_AFTER_MAX));
        assert_eq!(parse_retry_after("90000", now), Some(limits::RETRY_AFTER_MAX));
        for bad in ["", "soon", "-5", "1.5"] {
            assert_eq!(parse_retry_after(bad, now), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_wait_is_jittered_and_at_least_what_the_receiver_asked(
            step in 0_u32..9, unit in 0.0_f64..1.0, asked in proptest::option::of(0_u64..200_000)
        ) {
            let schedule = RetrySchedule::default();
            let asked = asked.map(Duration::from_secs);
            let Decision::Retry { after, .. } = judge(AttemptOutcome::HttpError, step, false, &schedule, asked, unit).decision else {
                panic!("the schedule has a step left");
            };
            let wait = schedule.step(step).unwrap();
            let asked = asked.unwrap_or_default().min(limits::RETRY_AFTER_MAX);
            prop_assert!(after >= asked);
            prop_assert!(after >= wait.mul_f64(0.8));
            prop_assert!(after <= wait.mul_f64(1.2).max(asked));
        }
    }
}
