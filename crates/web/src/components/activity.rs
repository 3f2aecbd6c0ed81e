//! The attempts of an endpoint in the last 24 hours, as a small bar chart with its numbers in words.

use maud::{Markup, html};

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::stats::{Counts, EndpointActivity, QueueState};

use crate::language::{say, say_text};

/// Units of the drawing: an hour is this wide, and the highest bar this high.
const HOUR: u64 = 4;
const HEIGHT: u64 = 24;

/// One bar for each hour, failures on top.
pub fn day(activity: &EndpointActivity) -> Markup {
    let hours: Vec<(u64, u64)> = activity.hours.iter().map(|hour| split(&hour.counts)).collect();
    let (good, bad) = hours.iter().fold((0, 0), |(good, bad), hour| (good + hour.0, bad + hour.1));
    if good + bad == 0 {
        return html! { span.soft { (say!("nothing sent")) } };
    }
    let highest = hours.iter().map(|(good, bad)| good + bad).max().unwrap_or(1).max(1);
    let width = HOUR * u64::try_from(hours.len()).unwrap_or(24);
    // A bar that stands for something is at least one unit high.
    let high = |count: u64| if count == 0 { 0 } else { (count * HEIGHT / highest).max(1) };
    html! {
        svg.bars viewBox={ "0 0 " (width) " " (HEIGHT) } aria-hidden="true" focusable="false" {
            @for (index, (good, bad)) in (0..).zip(&hours) {
                @let (low, top) = (high(*good), high(*bad));
                @let low = low.min(HEIGHT.saturating_sub(top));
                rect.chart-good x=(index * HOUR) y=(HEIGHT - low) width=(HOUR - 1) height=(low) {}
                rect.chart-bad x=(index * HOUR) y=(HEIGHT - low - top) width=(HOUR - 1) height=(top) {}
            }
        }
        span.sub {
            @match bad {
                0 => (say!("{} delivered", good)),
                1 => (say!("{} delivered, 1 attempt failed", good)),
                _ => (say!("{} delivered, {} attempts failed", good, bad)),
            }
        }
    }
}

/// Attempts that succeeded, and attempts that did not.
fn split(counts: &Counts) -> (u64, u64) {
    let good = counts.attempts_of(AttemptOutcome::Delivered) + counts.attempts_of(AttemptOutcome::Simulated);
    (good, counts.attempted().saturating_sub(good))
}

/// How many deliveries wait. Beyond a limit nobody counts.
pub fn waiting(queue: QueueState) -> String {
    if queue.is_exact() { queue.pending.to_string() } else { say_text!("{} or more", &queue.pending.to_string()) }
}
