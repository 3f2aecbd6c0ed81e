//! Instants and durations on the command line: `2h` ago, or RFC 3339.

use std::time::Duration;

use postrider_domain::duration::parse_duration;
use postrider_domain::time::{Clock as _, Timestamp};

use crate::clock::SystemClock;

/// An instant in the past by its distance from now (`30s`, `15m`, `2h`, `7d`), or as RFC 3339.
pub fn instant(text: &str) -> Result<Timestamp, String> {
    if let Ok(distance) = parse_duration(text) {
        return Ok(SystemClock.now().minus(distance));
    }
    Timestamp::parse(text)
        .map_err(|_| "is neither a time ago, like 30s, 15m, 2h or 7d, nor a time like 2026-05-15T08:21:00Z".to_owned())
}

/// As [`instant`], as the text that the API takes.
pub fn instant_text(text: &str) -> Result<String, String> {
    instant(text).map(|at| at.to_string())
}

/// `30s`, `15m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_distance_or_rfc_3339() {
        assert_eq!(instant_text("2026-05-15T10:21:00+02:00").unwrap(), "2026-05-15T08:21:00.000Z");
        let (before, two_hours) = (SystemClock.now(), Duration::from_secs(2 * 3600));
        let ago = instant("2h").unwrap();
        assert!(ago >= before.minus(two_hours) && ago <= SystemClock.now().minus(two_hours));
        for bad in ["", "yesterday", "2026-05-15", "-2h", "2 h", "1778846400"] {
            let fault = instant(bad).unwrap_err();
            assert!(fault.contains("2h"), "{fault}");
        }
    }
}
