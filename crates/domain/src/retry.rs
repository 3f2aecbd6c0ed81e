//! When to try again: a pure judgement over an outcome, the schedule and the receiver's own wish.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::attempt::{AttemptOutcome, Fault};
use super::endpoint::{DisabledReason, InvalidField};
use super::limits;
use super::time::Timestamp;

/// The waits after the first attempt, the second, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Vec<Duration>);

/// The text is not a list of waits.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSchedule {
    #[error("{0:?} is not a wait like 500ms, 5s, 30m or 2h")]
    Step(String),
    #[error("a retry schedule has 1 to {max} waits of at most 7 days each", max = limits::RETRY_STEPS)]
    Size,
}

const SECOND: u64 = 1;
const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

impl Default for RetrySchedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: about three days.
    fn default() -> Self {
        let steps =
            [5 * SECOND, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
        Self(steps.map(Duration::from_secs).to_vec())
    }
}

impl RetrySchedule {
    /// # Errors
    /// When there are no waits or too many, or one is not 1 second to 7 days long.
    pub fn from_seconds(seconds: &[u64]) -> Result<Self, InvalidField> {
        let longest = limits::RETRY_STEP_MAX.as_secs();
        let fits = (1..=limits::RETRY_STEPS).contains(&seconds.len());
        if fits && seconds.iter().all(|wait| (1..=longest).contains(wait)) {
            Ok(Self(seconds.iter().copied().map(Duration::from_secs).collect()))
        } else {
            Err(InvalidField("must be 1 to 32 waits, each a whole number of seconds from 1 to 604800"))
        }
    }

    pub fn seconds(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(Duration::as_secs)
    }

    pub fn step(&self, index: u32) -> Option<Duration> {
        self.0.get(usize::try_from(index).ok()?).copied()
    }
}

impl FromStr for RetrySchedule {
    type Err = InvalidSchedule;

    /// Reads `5s,5m,30m,2h`.
    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let steps: Vec<Duration> = text.split(',').map(|step| parse_wait(step.trim())).collect::<Result<_, _>>()?;
        let fits = steps.len() <= limits::RETRY_STEPS && steps.iter().all(|step| *step <= limits::RETRY_STEP_MAX);
        if fits { Ok(Self(steps)) } else { Err(InvalidSchedule::Size) }
    }
}

impl fmt::Display for RetrySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index > 0 { "," } else { "" }, format_wait(*step))?;
        }
        Ok(())
    }
}

/// Reads one wait, such as `500ms`, `5s`, `30m` or `2h`.
///
/// # Errors
/// When the text has another form.
pub fn parse_wait(text: &str) -> Result<Duration, InvalidSchedule> {
    let fault = || InvalidSchedule::Step(text.to_owned());
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(fault)?;
    let count: u64 = text[..digits].parse().map_err(|_| fault())?;
    let millis_each = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 1000 * MINUTE,
        "h" => 1000 * HOUR,
        "d" => 1000 * HOUR * 24,
        _ => return Err(fault()),
    };
    count.checked_mul(millis_each).map(Duration::from_millis).ok_or_else(fault)
}

/// Writes a wait so that [`parse_wait`] reads it.
pub fn format_wait(wait: Duration) -> String {
    match (wait.as_secs(), wait.subsec_millis()) {
        (seconds, 0) if seconds > 0 && seconds % HOUR == 0 => format!("{}h", seconds / HOUR),
        (seconds, 0) if seconds > 0 && seconds % MINUTE == 0 => format!("{}m", seconds / MINUTE),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", wait.as_millis()),
    }
}

/// What becomes of a delivery after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Delivered,
    Simulated,
    /// The schedule has no step left.
    Exhausted,
    /// Try again after this long; `uses_step` tells whether the schedule moves on.
    Retry {
        after: Duration,
        uses_step: bool,
    },
}

/// A judgement: what becomes of the delivery, and whether the endpoint is switched off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub decision: Decision,
    pub disable: Option<DisabledReason>,
}

/// After a fault of ours, the same step is tried again this much later.
const SENDER_FAULT_WAIT: Duration = Duration::from_secs(5);
/// A probe that failed goes behind all that is due by now, so that the next one is another.
const BEHIND_OTHERS: Duration = Duration::from_millis(1);
const JITTER: f64 = 0.2;

/// Judges an attempt. `step` counts the waits already used; `probe` says that the endpoint is paused: then a failure uses no
/// step, and the delivery waits with the others for the endpoint's next probe. `unit` is a random number in `[0, 1)`.
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
            Decision::Retry { after: jittered(SENDER_FAULT_WAIT, unit), uses_step: false }
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

/// `wait` give or take 20 %.
fn jittered(wait: Duration, unit: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * unit.clamp(0.0, 1.0))
}

/// Reads `Retry-After` in both its forms: seconds, or a date of HTTP.
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
    fn the_default_schedule_is_the_published_one_and_reads_back_from_its_text() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.to_string(), "5s,5m,30m,2h,5h,10h,14h,20h,24h");
        assert_eq!(schedule.to_string().parse::<RetrySchedule>().unwrap(), schedule);
        assert_eq!("1s, 500ms".parse::<RetrySchedule>().unwrap().to_string(), "1s,500ms");
        for bad in ["", "5", "s", "5 s", "-1s", "1w", "8d", "1s,,2s", "99999999999999999999s"] {
            assert!(bad.parse::<RetrySchedule>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_schedule_is_walked_to_its_end_and_then_the_delivery_has_failed() {
        let schedule = RetrySchedule::default();
        for step in 0..9 {
            let verdict = judge(AttemptOutcome::HttpError, step, false, &schedule, None, 0.5);
            let after = schedule.step(step).unwrap();
            assert_eq!(verdict, Verdict { decision: Decision::Retry { after, uses_step: true }, disable: None });
        }
        assert_eq!(judge(AttemptOutcome::Timeout, 9, false, &schedule, None, 0.5).decision, Decision::Exhausted);
    }

    #[test]
    fn our_own_faults_use_no_step_even_when_none_is_left() {
        let schedule = RetrySchedule::default();
        let verdict = judge(AttemptOutcome::InternalError, 9, false, &schedule, None, 0.5);
        assert_eq!(verdict.decision, Decision::Retry { after: SENDER_FAULT_WAIT, uses_step: false });
    }

    #[test]
    fn a_probe_that_fails_uses_no_step_even_when_none_is_left() {
        let schedule = RetrySchedule::default();
        let decision = |retry_after| judge(AttemptOutcome::HttpError, 9, true, &schedule, retry_after, 0.5).decision;
        assert_eq!(decision(None), Decision::Retry { after: BEHIND_OTHERS, uses_step: false });
        let asked = Duration::from_secs(120);
        assert_eq!(decision(Some(asked)), Decision::Retry { after: asked, uses_step: false });
        let delivered = judge(AttemptOutcome::Delivered, 9, true, &schedule, None, 0.5).decision;
        assert_eq!(delivered, Decision::Delivered);
    }

    #[test]
    fn gone_and_refused_switch_the_endpoint_off() {
        let schedule = RetrySchedule::default();
        let disable = |outcome| judge(outcome, 0, false, &schedule, None, 0.5).disable;
        assert_eq!(disable(AttemptOutcome::Gone), Some(DisabledReason::Gone));
        assert_eq!(disable(AttemptOutcome::SsrfBlocked), Some(DisabledReason::SsrfBlocked));
        assert_eq!(disable(AttemptOutcome::HttpError), None);
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_capped_at_a_day() {
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
        fn a_wait_stays_within_its_jitter_and_never_undercuts_what_the_receiver_asked(
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
