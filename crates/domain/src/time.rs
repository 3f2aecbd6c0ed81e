//! Timestamps in whole milliseconds, and the [`Clock`] trait, the only source of the current time.
//!
//! The store keeps integers; the wire shows ISO 8601 in UTC with exactly three fractional digits. Nothing here reads a
//! clock: the real implementation of the trait is in the binary.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::SignedDuration;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;

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

const EPOCH: DateTime = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);

/// Why a text is not an instant that the service supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTimestamp {
    #[error("must be an ISO 8601 date and time with an offset, like 2026-05-15T08:21:00.000Z")]
    Form,
    #[error("must be from 1970-01-01T00:00:00.000Z to 9999-12-31T23:59:59.999Z")]
    Range,
}

/// 9999-12-31T23:59:59.999Z, the last instant with a year of four digits.
const LAST_MILLIS: i64 = 253_402_300_799_999;

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
    /// When the text is not such an instant, or is outside the years 1970 to 9999 in UTC.
    pub fn parse(text: &str) -> Result<Self, InvalidTimestamp> {
        // `jiff::Timestamp` ends 26 hours before the year 9999 does, so the civil time and the offset are read apart.
        let pieces = DateTimeParser::new().parse_pieces(text).map_err(|_| InvalidTimestamp::Form)?;
        let (Some(time), Some(offset)) = (pieces.time(), pieces.to_numeric_offset()) else {
            return Err(InvalidTimestamp::Form);
        };
        let since_epoch = pieces.date().to_datetime(time).duration_since(EPOCH);
        let utc = since_epoch - SignedDuration::from_secs(i64::from(offset.seconds()));
        let is_before = utc.is_negative();
        let millis = i64::try_from(utc.as_millis()).map_err(|_| InvalidTimestamp::Range)?;
        if is_before || millis > LAST_MILLIS { Err(InvalidTimestamp::Range) } else { Ok(Self(millis)) }
    }
}

/// A clock that never goes back, made of one that can be set. After the other was set back, this one goes on from where
/// it was, and is ahead until the other has caught up. So a wait that began before lasts what was left of it.
pub struct SteadyClock {
    clock: Arc<dyn Clock>,
    state: Mutex<SteadyState>,
}

#[derive(Clone, Copy)]
struct SteadyState {
    /// What the other clock showed last.
    seen: Timestamp,
    /// What this clock showed last.
    shown: Timestamp,
    /// How far this clock is ahead of the other, in milliseconds.
    ahead: i64,
}

impl SteadyClock {
    /// Goes on from `last`, the last instant of an earlier run, if the clock is behind it now.
    pub fn after(last: Timestamp, clock: Arc<dyn Clock>) -> Self {
        let seen = clock.now();
        let shown = seen.max(last);
        Self { clock, state: Mutex::new(SteadyState { seen, shown, ahead: shown.0 - seen.0 }) }
    }
}

impl Clock for SteadyClock {
    fn now(&self) -> Timestamp {
        // No holder of the lock panics while it changes the state.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = self.clock.now();
        if seen >= state.shown {
            state.ahead = 0;
        } else if seen < state.seen {
            state.ahead = state.shown.0 - seen.0;
        }
        state.seen = seen;
        state.shown = Timestamp(seen.0 + state.ahead).max(state.shown);
        state.shown
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep<'_> {
        let left = at.since(self.now());
        Box::pin(async move { self.clock.sleep_until(self.clock.now().plus(left)).await })
    }
}

/// A day in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Timestamp);

/// The text is not a date.
#[derive(Debug, thiserror::Error)]
#[error("must be a date from 1970-01-01 to 9999-12-31, like 2026-05-15")]
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
        match EPOCH.checked_add(SignedDuration::from_millis(self.0)) {
            Ok(civil) => write!(f, "{civil:.3}Z"),
            // No instant that is read or stored; a sum may be.
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
    fn every_instant_of_the_supported_years_is_read_and_shown() {
        for text in [
            "1970-01-01T00:00:00.000Z",
            "9999-12-30T22:00:00.000Z",
            "9999-12-30T22:00:00.001Z",
            "9999-12-31T23:59:59.999Z",
            "2024-02-29T23:59:59.999Z",
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().to_string(), text);
        }
        let last = Timestamp::parse("9999-12-31T20:59:59.9999-03:00").unwrap();
        assert_eq!((last.millis(), last.to_string().as_str()), (LAST_MILLIS, "9999-12-31T23:59:59.999Z"));
        assert_eq!(Timestamp::parse("1970-01-01T05:00:00+05:00").unwrap().millis(), 0);
        for text in [
            "1969-12-31T23:59:59.999Z",
            "1969-12-31T23:59:59.9999Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59.999-00:01",
            "0001-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), Err(InvalidTimestamp::Range), "{text}");
        }
        for text in ["10000-01-01T00:00:00Z", "2026-02-29T00:00:00Z", "2026-05-15T25:00:00Z"] {
            assert_eq!(Timestamp::parse(text), Err(InvalidTimestamp::Form), "{text}");
        }
        assert_eq!(Day::parse("9999-12-31").unwrap().to_string(), "9999-12-31");
    }

    /// A clock that a test sets.
    #[derive(Default)]
    struct SetClock(Mutex<i64>);

    impl Clock for SetClock {
        fn now(&self) -> Timestamp {
            Timestamp(*self.0.lock().unwrap())
        }

        fn sleep_until(&self, _at: Timestamp) -> Sleep<'_> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn a_steady_clock_goes_on_when_the_other_is_set_back() {
        const HOUR: i64 = 3_600_000;
        let clock = Arc::new(SetClock(Mutex::new(10 * HOUR)));
        let steady = SteadyClock::after(Timestamp(0), clock.clone());
        let shows = |wall: i64| {
            *clock.0.lock().unwrap() = wall;
            steady.now().millis()
        };
        assert_eq!(shows(10 * HOUR + 5), 10 * HOUR + 5);
        assert_eq!(shows(9 * HOUR), 10 * HOUR + 5, "it neither jumps nor goes back");
        assert_eq!(shows(9 * HOUR + 7), 10 * HOUR + 12, "and goes on");
        assert_eq!(shows(8 * HOUR), 10 * HOUR + 12, "also from a second time");
        assert_eq!(shows(8 * HOUR + 1), 10 * HOUR + 13);
        assert_eq!(shows(10 * HOUR + 13), 10 * HOUR + 13, "until the other has caught up");
        assert_eq!(shows(10 * HOUR + 14), 10 * HOUR + 14);
        let restarted = SteadyClock::after(Timestamp(10 * HOUR + 20), clock);
        assert_eq!(restarted.now().millis(), 10 * HOUR + 20, "an earlier run is gone on from");
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
