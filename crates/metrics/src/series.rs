//! Counters, histograms and gauges with a fixed set of label values.
//!
//! A handle holds its series in an array, and a caller names a series by its position. So an update is one or two
//! atomic operations: no look-up by label, no lock and no allocation. Every series exists from the start, with the
//! value 0, so that a rate can be computed from the first scrape on.
//!
//! The default handle has no series and counts nothing. Tests and commands use it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

/// The labels of one series: names and values.
pub type SeriesLabels = Vec<(&'static str, &'static str)>;

#[derive(Debug)]
struct Series<V> {
    labels: SeriesLabels,
    value: V,
}

fn series_of<V>(labels: Vec<SeriesLabels>, value: impl Fn() -> V) -> Arc<[Series<V>]> {
    labels.into_iter().map(|labels| Series { labels, value: value() }).collect()
}

/// Encodes one series, with its labels if it has any.
fn encode_series(
    encoder: &mut MetricEncoder<'_>,
    labels: &SeriesLabels,
    encode: impl FnOnce(&mut MetricEncoder<'_>) -> fmt::Result,
) -> fmt::Result {
    if labels.is_empty() { encode(encoder) } else { encode(&mut encoder.encode_family(labels)?) }
}

/// The position of a series in its family.
pub trait Position {
    fn position(self) -> usize;
}

impl Position for usize {
    fn position(self) -> usize {
        self
    }
}

/// The position of the only series of a family without labels.
#[derive(Clone, Copy, Debug)]
pub struct Only;

impl Position for Only {
    fn position(self) -> usize {
        0
    }
}

/// Counters, which only grow.
#[derive(Clone, Debug, Default)]
pub struct Counters(Arc<[Series<AtomicU64>]>);

impl Counters {
    pub(crate) fn new(labels: Vec<SeriesLabels>) -> Self {
        Self(series_of(labels, AtomicU64::default))
    }

    pub fn add(&self, position: impl Position, count: u64) {
        if let Some(series) = self.0.get(position.position()) {
            series.value.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn increment(&self, position: impl Position) {
        self.add(position, 1);
    }

    /// Continues a count that is kept elsewhere.
    pub fn raise_to(&self, position: impl Position, count: u64) {
        if let Some(series) = self.0.get(position.position()) {
            series.value.fetch_max(count, Ordering::Relaxed);
        }
    }
}

impl EncodeMetric for Counters {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|Series { labels, value }| {
            let value = value.load(Ordering::Relaxed);
            encode_series(&mut encoder, labels, |encoder| encoder.encode_counter::<NoLabelSet, u64, u64>(&value, None))
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

/// Distributions of values over buckets.
#[derive(Clone, Debug, Default)]
pub struct Histograms {
    /// The largest value of each bucket but the last, in rising order.
    bounds: &'static [f64],
    series: Arc<[Series<Distribution>]>,
}

#[derive(Debug)]
struct Distribution {
    /// One more than there are bounds.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

impl Histograms {
    pub(crate) fn new(bounds: &'static [f64], labels: Vec<SeriesLabels>) -> Self {
        let empty = || Distribution {
            counts: (0..=bounds.len()).map(|_| AtomicU64::default()).collect(),
            sum: AtomicU64::default(),
        };
        Self { bounds, series: series_of(labels, empty) }
    }

    /// Counts a duration, in seconds.
    pub fn observe(&self, position: impl Position, duration: Duration) {
        self.observe_value(position, duration.as_secs_f64());
    }

    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is not met")]
    pub fn observe_count(&self, position: impl Position, count: usize) {
        self.observe_value(position, count as f64);
    }

    fn observe_value(&self, position: impl Position, value: f64) {
        let Some(Series { value: distribution, .. }) = self.series.get(position.position()) else { return };
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        distribution.counts[bucket].fetch_add(1, Ordering::Relaxed);
        let added = |bits| Some((f64::from_bits(bits) + value).to_bits());
        let _always = distribution.sum.fetch_update(Ordering::Relaxed, Ordering::Relaxed, added);
    }
}

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.series.iter().try_for_each(|Series { labels, value }| {
            let bounds = self.bounds.iter().copied().chain([f64::INFINITY]);
            let counts = value.counts.iter().map(|count| count.load(Ordering::Relaxed));
            let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
            let count = buckets.iter().map(|(_, count)| count).sum();
            let sum = f64::from_bits(value.sum.load(Ordering::Relaxed));
            encode_series(&mut encoder, labels, |encoder| {
                encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
            })
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Values that go up and down. A value is absent until it is set: no series is better than a wrong one.
#[derive(Clone, Debug, Default)]
pub struct Gauges(Arc<[Series<AtomicU64>]>);

/// The bits of the value of an absent series.
const ABSENT: u64 = f64::NAN.to_bits();

impl Gauges {
    pub(crate) fn new(labels: Vec<SeriesLabels>) -> Self {
        Self(series_of(labels, || AtomicU64::new(ABSENT)))
    }

    pub fn set(&self, position: impl Position, value: f64) {
        if let Some(series) = self.0.get(position.position()) {
            series.value.store(value.to_bits(), Ordering::Relaxed);
        }
    }

    /// Sets the gauge to a number of things.
    #[expect(clippy::cast_precision_loss, reason = "a count beyond 2^53 is not met")]
    pub fn set_count(&self, position: impl Position, count: u64) {
        self.set(position, count as f64);
    }

    /// Leaves the family out until a value is set again.
    pub fn clear(&self) {
        self.0.iter().for_each(|series| series.value.store(ABSENT, Ordering::Relaxed));
    }

    fn present(&self) -> impl Iterator<Item = (&SeriesLabels, f64)> {
        let value = |series: &Series<AtomicU64>| f64::from_bits(series.value.load(Ordering::Relaxed));
        self.0.iter().map(move |series| (&series.labels, value(series))).filter(|(_, value)| !value.is_nan())
    }
}

impl EncodeMetric for Gauges {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.present()
            .try_for_each(|(labels, value)| encode_series(&mut encoder, labels, |encoder| encoder.encode_gauge(&value)))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.present().next().is_none()
    }
}
