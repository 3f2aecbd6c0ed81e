//! What a transaction adds to the metrics of the log. Both back ends count into it as they write, and add it to the
//! metrics after the commit: what was rolled back was never counted.

use postrider_domain::access::Mode;
use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::DeliveryCause;
use postrider_domain::stats::DeliveryEnd;
use postrider_metrics::{Counters, Labels, LogMetrics, Position, StatusClass};

use crate::column::mode_code;

/// Counts by the positions of the series. A transaction has few rows, so no allocation is needed.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    events: [u32; MODES.len()],
    created: [u32; DeliveryCause::ALL.len()],
    ended: [u32; DeliveryEnd::ALL.len()],
    attempts: [u32; AttemptOutcome::ALL.len()],
    responses: [u32; StatusClass::VALUES.len()],
}

/// By their codes.
const MODES: [Mode; 2] = [Mode::Live, Mode::Test];

/// The label values of the log's metrics. The rest is empty.
pub fn labels() -> Labels {
    let reason = |end: &DeliveryEnd| end.reason.map_or("none", |reason| reason.as_str());
    Labels {
        modes: MODES.iter().map(|mode| mode.as_str()).collect(),
        causes: DeliveryCause::ALL.iter().map(|cause| cause.as_str()).collect(),
        ends: DeliveryEnd::ALL.iter().map(|end| (end.status.as_str(), reason(end))).collect(),
        outcomes: AttemptOutcome::ALL.iter().map(|outcome| outcome.as_str()).collect(),
        ..Labels::default()
    }
}

impl Tally {
    pub fn event(&mut self, mode: Mode) {
        add_one(&mut self.events, position(mode_code(mode)));
    }

    pub fn created(&mut self, cause: DeliveryCause) {
        add_one(&mut self.created, position(cause.code()));
    }

    pub fn ended(&mut self, end: DeliveryEnd) {
        debug_assert!(end.position().is_some(), "{end:?} is not among the ends of deliveries");
        add_one(&mut self.ended, end.position());
    }

    /// `status` is the one that the receiver answered.
    pub fn attempted(&mut self, outcome: AttemptOutcome, status: Option<u16>) {
        add_one(&mut self.attempts, position(outcome.code()));
        add_one(&mut self.responses, status.and_then(StatusClass::of).map(Position::position));
    }

    /// Call it after the commit.
    pub fn add_to(&self, metrics: &LogMetrics) {
        add_all(&self.events, &metrics.events_accepted);
        add_all(&self.created, &metrics.deliveries_created);
        add_all(&self.ended, &metrics.deliveries_ended);
        add_all(&self.attempts, &metrics.attempts);
        add_all(&self.responses, &metrics.attempt_responses);
    }
}

/// Codes are positions: both are the order of declaration.
fn position(code: i64) -> Option<usize> {
    usize::try_from(code).ok()
}

fn add_one(counts: &mut [u32], position: Option<usize>) {
    if let Some(count) = position.and_then(|position| counts.get_mut(position)) {
        *count += 1;
    }
}

fn add_all(counts: &[u32], counters: &Counters) {
    for (position, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        counters.add(position, u64::from(*count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_label_at_a_position_is_the_one_of_the_counted_value() {
        let labels = labels();
        for mode in MODES {
            assert_eq!(labels.modes[position(mode_code(mode)).unwrap()], mode.as_str());
        }
        for cause in DeliveryCause::ALL {
            assert_eq!(labels.causes[position(cause.code()).unwrap()], cause.as_str());
        }
        for outcome in AttemptOutcome::ALL {
            assert_eq!(labels.outcomes[position(outcome.code()).unwrap()], outcome.as_str());
        }
        for (at, end) in DeliveryEnd::ALL.into_iter().enumerate() {
            assert_eq!(end.position(), Some(at));
            assert_eq!(labels.ends[at].0, end.status.as_str());
        }
    }
}
