//! Arrivals second by second, for the plot and for the whole.

use std::time::Duration;

use super::histogram::Histogram;

/// One histogram of latencies for each second since publishing began.
#[derive(Clone, Debug, Default)]
pub struct Series {
    seconds: Vec<Histogram>,
}

/// What comes later still counts, into the last: more seconds than any run takes.
const SECONDS_MAX: u64 = 4 * 3600;

impl Series {
    /// An arrival so long after the beginning.
    pub fn record(&mut self, at: Duration, latency: Duration) {
        let second = usize::try_from(at.as_secs().min(SECONDS_MAX)).unwrap_or(0);
        if second >= self.seconds.len() {
            self.seconds.resize_with(second + 1, Histogram::default);
        }
        self.seconds[second].record(latency);
    }

    pub fn whole(&self) -> Histogram {
        let mut whole = Histogram::default();
        for second in &self.seconds {
            whole.merge(second);
        }
        whole
    }
}
