//! Instants and durations. The server says how long ago something was, so the reader's clock does not matter. The
//! script adds the reader's own time of day.

use std::time::Duration;

use maud::{Markup, html};

use postrider_domain::time::Timestamp;

use crate::language::{Phrase, say, say_text};

/// An instant as people read it: `14 Nov 2026, 09:14:03 UTC`.
pub fn instant(at: Timestamp) -> Markup {
    html! { time datetime=(at) { (words(at)) } }
}

/// An instant by its distance, with the instant itself as a title: `3 min ago`, `in 5 s`.
pub fn relative(at: Timestamp, now: Timestamp) -> Markup {
    let text = match at > now {
        true => say_text!("in {}", &rough(at.since(now))),
        false => say_text!("{} ago", &rough(now.since(at))),
    };
    html! { time datetime=(at) title=(words(at)) { (text) } }
}

/// When something is due: `in 5 s`, or `now` once the instant has passed. The engine may be a moment late.
pub fn due(at: Timestamp, now: Timestamp) -> Markup {
    if at > now {
        relative(at, now)
    } else {
        html! { time datetime=(at) title=(words(at)) { (say!("now")) } }
    }
}

/// A duration in its two largest units, rounded down: `2 h 5 min`.
pub fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{seconds} s"),
        60..3600 => with_rest(minutes, "min", seconds % 60, "s"),
        3600..86_400 => with_rest(hours, "h", minutes, "min"),
        _ => with_rest(days, say!("d"), hours, "h"),
    }
}

fn with_rest(value: u64, unit: &str, rest: u64, rest_unit: &str) -> String {
    if rest == 0 { format!("{value} {unit}") } else { format!("{value} {unit} {rest} {rest_unit}") }
}

/// `14 Nov 2026, 09:14:03 UTC`, from the ISO form.
fn words(at: Timestamp) -> String {
    const MONTHS: [Phrase; 12] = [
        Phrase::of("Jan"),
        Phrase::of("Feb"),
        Phrase::of("Mar"),
        Phrase::of("Apr"),
        Phrase::of("May"),
        Phrase::of("Jun"),
        Phrase::of("Jul"),
        Phrase::of("Aug"),
        Phrase::of("Sep"),
        Phrase::of("Oct"),
        Phrase::of("Nov"),
        Phrase::of("Dec"),
    ];
    let iso = at.to_string();
    let part = |range: std::ops::Range<usize>| iso.get(range).unwrap_or_default();
    let month =
        part(5..7).parse().ok().and_then(|month: usize| MONTHS.get(month.checked_sub(1)?)).unwrap_or(&MONTHS[0]);
    say_text!("{} {} {}, {} UTC", part(8..10).trim_start_matches('0'), month.text(), part(0..4), part(11..19))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_reads_as_people_write_it() {
        let at = Timestamp::parse("2026-11-04T09:14:03.250Z").unwrap();
        assert_eq!(words(at), "4 Nov 2026, 09:14:03 UTC");
    }

    #[test]
    fn a_distance_is_never_negative() {
        let at = |millis| Timestamp::from_millis(millis);
        assert!(relative(at(1_000), at(4_000)).into_string().ends_with(">3 s ago</time>"));
        assert!(relative(at(4_000), at(1_000)).into_string().ends_with(">in 3 s</time>"));
        assert!(relative(at(1_000), at(1_000)).into_string().ends_with(">0 ms ago</time>"));
    }

    #[test]
    fn what_is_due_is_never_past() {
        let at = |millis| Timestamp::from_millis(millis);
        assert!(due(at(1_000), at(4_000)).into_string().ends_with(">now</time>"));
        assert!(due(at(4_000), at(1_000)).into_string().ends_with(">in 3 s</time>"));
    }

    #[test]
    fn a_duration_has_at_most_two_units() {
        let rough = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([rough(59), rough(60), rough(7_500), rough(90_000)], ["59 s", "1 min", "2 h 5 min", "1 d 1 h"]);
    }
}
