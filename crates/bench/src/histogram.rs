//! A histogram of latencies with logarithmic buckets: an error of at most one percent in bounded memory.

use std::time::Duration;

const SUB_BITS: u32 = 7;
const SUBS: usize = 1 << SUB_BITS;
const POWERS: usize = 40;

/// Counts of latencies in microseconds.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Only as many buckets as the largest value needs, because each second of a run has a histogram.
    counts: Vec<u64>,
    total: u64,
    max_micros: u64,
}

impl Histogram {
    pub fn record(&mut self, value: Duration) {
        let micros = u64::try_from(value.as_micros()).unwrap_or(u64::MAX);
        let bucket = bucket_of(micros);
        self.grow_to(bucket + 1);
        self.counts[bucket] += 1;
        self.total += 1;
        self.max_micros = self.max_micros.max(micros);
    }

    pub fn merge(&mut self, other: &Self) {
        self.grow_to(other.counts.len());
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine += theirs;
        }
        self.total += other.total;
        self.max_micros = self.max_micros.max(other.max_micros);
    }

    fn grow_to(&mut self, buckets: usize) {
        if buckets > self.counts.len() {
            self.counts.resize(buckets, 0);
        }
    }

    pub const fn count(&self) -> u64 {
        self.total
    }

    /// The value that `fraction` of the latencies do not exceed.
    pub fn quantile(&self, fraction: f64) -> Duration {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count"
        )]
        let rank = (self.total as f64 * fraction).ceil() as u64;
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return Duration::from_micros(upper_bound(bucket).min(self.max_micros));
            }
        }
        self.max()
    }

    pub fn max(&self) -> Duration {
        Duration::from_micros(self.max_micros)
    }
}

fn bucket_of(micros: u64) -> usize {
    let bits = u64::BITS - micros.leading_zeros();
    let shift = bits.saturating_sub(SUB_BITS + 1);
    let sub = usize::try_from(micros >> shift).unwrap_or(0);
    let power = usize::try_from(shift).unwrap_or(0);
    (power * SUBS + sub).min(SUBS * POWERS - 1)
}

fn upper_bound(bucket: usize) -> u64 {
    let power = if bucket < 2 * SUBS { 0 } else { bucket / SUBS - 1 };
    let sub = bucket - power * SUBS;
    ((sub as u64 + 1) << power) - 1
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bucket_bounds_its_values_within_one_percent(micros in 0_u64..1_000_000_000_000) {
            let bound = upper_bound(bucket_of(micros));
            prop_assert!(bound >= micros, "{bound}");
            prop_assert!(bound - micros <= micros / 100 + 1, "{bound}");
        }
    }

    #[test]
    fn quantiles_are_within_one_percent() {
        let mut histogram = Histogram::default();
        for millis in 1..=1000 {
            histogram.record(Duration::from_millis(millis));
        }
        let near = |fraction, millis: u64| {
            let value = histogram.quantile(fraction).as_millis();
            assert!(value.abs_diff(u128::from(millis)) <= u128::from(millis / 100 + 1), "{value}");
        };
        near(0.5, 500);
        near(0.99, 990);
        assert_eq!(histogram.quantile(1.0), Duration::from_secs(1));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
