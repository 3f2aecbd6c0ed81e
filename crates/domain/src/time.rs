//! Timestamps in whole milliseconds, and the [`Clock`] trait, the only source of the current time.
//!
//! The store keeps integers; the wire shows ISO 8601 in UTC with exactly three fractional digits. Nothing here reads a
//! clock: the real implementation of the trait is in the binary.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

/// The future that [`Clock::sleep_until`] returns.
pub type Sleep<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The source of the current time. Tests use a clock that moves only on command.
pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;

    /// Completes when `now()` reaches `at`. If the clock is set back meanwhile, completes after the time that was left
    /// at the start.
    fn sleep_until(&self, at: Timestamp) -> Sleep<'_>;
}

/// The text is not an ISO 8601 instant with an offset.
#[derive(Debug, thiserror::Error)]
#[error("must be an ISO 8601 date and time with an offset, like 2026-05-15T08:21:00.000Z")]
pub struct InvalidTimestamp;

impl Timestamp {
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole Unix seconds, rounded down: the unit of `webhook-timestamp`.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1000)
    }

    pub fn plus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    pub fn minus(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(millis))
    }

    /// The time from `earlier` to `self`; zero when `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads an ISO 8601 instant with an offset. Digits below a millisecond are dropped.
    ///
    /// # Errors
    /// When the text is not such an instant, or is outside the years 1970 to 9999.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        const LAST: i64 = 253_402_300_799_999; // 9999-12-31T23:59:59.999Z
        let instant: jiff::Timestamp = text.parse().map_err(|_| InvalidTimestamp)?;
        let millis = instant.as_millisecond();
        if (0..=LAST).contains(&millis) { Ok(Self(millis)) } else { Err(InvalidTimestamp) }
    }
}

/// A day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Timestamp);

/// The text is not a date.
#[derive(Debug, thiserror::Error)]
#[error("must be a date like 2026-05-15")]
pub struct InvalidDay;

impl Day {
    /// # Errors
    /// When the text is not `YYYY-MM-DD`, is not a valid day, or is before 1970.
    pub fn parse(text: &str) -> Result<Self, InvalidDay> {
        let form = text.len() == 10 && text.bytes().enumerate().all(|(at, c)| (at == 4 || at == 7) == (c == b'-'));
        if !form {
            return Err(InvalidDay);
        }
        Timestamp::parse(&format!("{text}T00:00:00Z")).map(Self).map_err(|_| InvalidDay)
    }

    pub const fn containing(at: Timestamp) -> Self {
        const MILLIS: i64 = 24 * 3600 * 1000;
        Self(Timestamp(at.0.div_euclid(MILLIS) * MILLIS))
    }

    /// 00:00 UTC of the day.
    pub const fn starts_at(self) -> Timestamp {
        self.0
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let instant = self.0.to_string();
        f.write_str(instant.split('T').next().unwrap_or_default())
    }
}

impl serde::Serialize for Day {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(instant) => write!(f, "{instant:.3}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_at_midnight_utc_and_parses_back() {
        let day = Day::parse("2026-05-15").unwrap();
        assert_eq!(day.starts_at().to_string(), "2026-05-15T00:00:00.000Z");
        assert_eq!((day.to_string().as_str(), Day::containing(day.starts_at())), ("2026-05-15", day));
        assert_eq!(Day::containing(Timestamp(day.starts_at().millis() + 86_399_999)), day);
        for bad in [
            "2026-02-29",
            "2026-5-15",
            "2026-05-15T00:00:00Z",
            "20260515",
            "2026-13-01",
            "+026-05-15",
            "",
            "2026-05-1é",
        ] {
            assert!(Day::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_instant_is_shown_in_utc_with_three_fractional_digits() {
        assert_eq!(Timestamp::from_millis(1_778_833_260_000).to_string(), "2026-05-15T08:21:00.000Z");
        assert_eq!(Timestamp::from_millis(1_699_335_116_007).to_string(), "2023-11-07T05:31:56.007Z");
    }

    #[test]
    fn an_offset_is_required_and_converted_to_utc() {
        let parsed = Timestamp::parse("2026-05-15T10:21:00.123456+02:00").unwrap();
        assert_eq!(parsed.to_string(), "2026-05-15T08:21:00.123Z");
        for bad in ["2026-05-15T08:21:00", "2026-05-15", "yesterday", "", "1778833260", "1969-12-31T23:59:59Z"] {
            assert!(Timestamp::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn seconds_round_down_and_durations_are_never_negative() {
        assert_eq!(Timestamp::from_millis(1_999).seconds(), 1);
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
        assert_eq!(Timestamp::from_millis(5).plus(Duration::MAX).millis(), i64::MAX);
    }
}
