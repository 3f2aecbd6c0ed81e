//! The waits between the attempts of one delivery.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::duration::{InvalidDuration, format_duration, parse_duration};
use super::invalid_field::InvalidField;
use super::limits;

/// The wait after the first attempt, the second, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetrySchedule(Vec<Duration>);

/// The text is not a retry schedule.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSchedule {
    #[error(transparent)]
    Step(#[from] InvalidDuration),
    #[error("a retry schedule has 1 to {max} waits of at most 7 days each", max = limits::RETRY_STEPS)]
    Size,
}

impl Default for RetrySchedule {
    /// 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h: about three days.
    fn default() -> Self {
        const MINUTE: u64 = 60;
        const HOUR: u64 = 3600;
        let steps = [5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR];
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

    /// How many waits it has.
    pub fn steps(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }

    pub fn step(&self, index: u32) -> Option<Duration> {
        self.0.get(usize::try_from(index).ok()?).copied()
    }
}

impl FromStr for RetrySchedule {
    type Err = InvalidSchedule;

    /// Reads `5s,5m,30m,2h`.
    fn from_str(text: &str) -> Result<Self, InvalidSchedule> {
        let steps: Vec<Duration> = text.split(',').map(|step| parse_duration(step.trim())).collect::<Result<_, _>>()?;
        let fits = steps.len() <= limits::RETRY_STEPS && steps.iter().all(|step| *step <= limits::RETRY_STEP_MAX);
        if fits { Ok(Self(steps)) } else { Err(InvalidSchedule::Size) }
    }
}

impl fmt::Display for RetrySchedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index > 0 { "," } else { "" }, format_duration(*step))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_schedule_is_the_published_one() {
        let schedule = RetrySchedule::default();
        assert_eq!(schedule.to_string(), "5s,5m,30m,2h,5h,10h,14h,20h,24h");
        assert_eq!(schedule.to_string().parse::<RetrySchedule>().unwrap(), schedule);
        assert_eq!("1s, 500ms".parse::<RetrySchedule>().unwrap().to_string(), "1s,500ms");
        for bad in ["", "5", "s", "5 s", "-1s", "1w", "8d", "1s,,2s", "99999999999999999999s"] {
            assert!(bad.parse::<RetrySchedule>().is_err(), "{bad}");
        }
    }
}
