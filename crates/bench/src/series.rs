//! Arrivals for each second of a run, and in total.

use std::time::Duration;

use super::histogram::Histogram;

/// One histogram of latencies for each second since publishing began.
#[derive(Clone, Debug, Default)]
pub struct Series {
    seconds: Vec<Histogram>,
}

/// One second of a run, for the plot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Second {
    pub delivered: u64,
    pub p50: Duration,
    pub p99: Duration,
}

/// Maximum number of seconds: more than any run takes. A later arrival counts in the last second.
const SECONDS_MAX: u64 = 4 * 3600;

impl Series {
    /// Records an arrival, `at` after the start of publishing.
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

    pub fn seconds(&self) -> Vec<Second> {
        let second = |histogram: &Histogram| Second {
            delivered: histogram.count(),
            p50: histogram.quantile(0.5),
            p99: histogram.quantile(0.99),
        };
        self.seconds.iter().map(second).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_without_an_arrival_are_kept() {
        let mut series = Series::default();
        for (at, latency) in [(100, 3), (900, 5), (2500, 7)] {
            series.record(Duration::from_millis(at), Duration::from_millis(latency));
        }
        let seconds = series.seconds();
        assert_eq!(seconds.iter().map(|second| second.delivered).collect::<Vec<_>>(), [2, 0, 1]);
        assert_eq!(seconds[1].p99, Duration::ZERO);
        assert_eq!((series.whole().count(), series.whole().max()), (3, Duration::from_millis(7)));
    }
}
