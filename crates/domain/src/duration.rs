//! Durations as text in settings: `500ms`, `5s`, `30m`, `2h`, `14d`.

use std::time::Duration;

/// The text is not a duration.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a duration like 500ms, 5s, 30m or 2h")]
pub struct InvalidDuration(String);

const MINUTE: u64 = 60;
const HOUR: u64 = 3600;

/// Reads a duration such as `500ms`, `5s`, `30m`, `2h` or `14d`.
///
/// # Errors
/// When the text has another form.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidDuration> {
    let fault = || InvalidDuration(text.to_owned());
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

/// Writes a duration so that [`parse_duration`] reads it.
pub fn format_duration(duration: Duration) -> String {
    match (duration.as_secs(), duration.subsec_millis()) {
        (seconds, 0) if seconds > 0 && seconds % HOUR == 0 => format!("{}h", seconds / HOUR),
        (seconds, 0) if seconds > 0 && seconds % MINUTE == 0 => format!("{}m", seconds / MINUTE),
        (seconds, 0) => format!("{seconds}s"),
        _ => format!("{}ms", duration.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_reads_back_from_its_text() {
        for text in ["500ms", "5s", "30m", "2h", "90s", "0s"] {
            assert_eq!(format_duration(parse_duration(text).unwrap()), text);
        }
        assert_eq!(parse_duration("14d").unwrap(), Duration::from_secs(14 * 24 * 3600));
        assert_eq!(parse_duration("5min").unwrap(), Duration::from_secs(300));
        for bad in ["", "5", "s", "5 s", "-1s", "1w", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
