//! Registers families and keeps what the documentation says about each.

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::registry::Registry;

use super::series::{Counters, Gauges, Histograms, SeriesLabels};

/// A family as the documentation lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Family {
    /// As it is scraped.
    pub name: String,
    pub kind: &'static str,
    /// Each label with its values, in order.
    pub labels: Vec<(&'static str, Vec<&'static str>)>,
    pub help: &'static str,
}

/// The registry under construction.
#[derive(Debug, Default)]
pub struct Register {
    pub registry: Registry,
    pub families: Vec<Family>,
}

impl Register {
    pub fn counters(&mut self, name: &str, help: &'static str, labels: Vec<SeriesLabels>) -> Counters {
        let counters = Counters::new(labels.clone());
        // The encoder adds the suffix.
        self.add(&format!("postrider_{name}"), "_total", "counter", help, &labels, counters.clone());
        counters
    }

    pub fn histograms(
        &mut self,
        name: &str,
        help: &'static str,
        bounds: &'static [f64],
        labels: Vec<SeriesLabels>,
    ) -> Histograms {
        let histograms = Histograms::new(bounds, labels.clone());
        self.add(&format!("postrider_{name}"), "", "histogram", help, &labels, histograms.clone());
        histograms
    }

    pub fn gauges(&mut self, name: &str, help: &'static str, labels: Vec<SeriesLabels>) -> Gauges {
        let gauges = Gauges::new(labels.clone());
        self.add(&format!("postrider_{name}"), "", "gauge", help, &labels, gauges.clone());
        gauges
    }

    fn add(
        &mut self,
        name: &str,
        suffix: &str,
        kind: &'static str,
        help: &'static str,
        labels: &[SeriesLabels],
        metric: impl EncodeMetric + Send + Sync + std::fmt::Debug + 'static,
    ) {
        self.registry.register(name, help, metric);
        self.describe(format!("{name}{suffix}"), kind, help, labels);
    }

    pub fn describe(&mut self, name: String, kind: &'static str, help: &'static str, series: &[SeriesLabels]) {
        let mut labels: Vec<(&'static str, Vec<&'static str>)> = Vec::new();
        for (label, value) in series.iter().flatten() {
            match labels.iter_mut().find(|(name, _)| name == label) {
                Some((_, values)) if values.contains(value) => {}
                Some((_, values)) => values.push(value),
                None => labels.push((label, vec![value])),
            }
        }
        self.families.push(Family { name, kind, labels, help });
    }
}

/// A family without labels.
pub fn single() -> Vec<SeriesLabels> {
    vec![Vec::new()]
}

/// A family with one label.
pub fn by(label: &'static str, values: &[&'static str]) -> Vec<SeriesLabels> {
    values.iter().map(|value| vec![(label, *value)]).collect()
}
