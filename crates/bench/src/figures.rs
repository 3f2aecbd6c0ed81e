//! The figures of one run, and their formatting.

use std::time::Duration;

use serde_json::{Value, json};

use super::histogram::Histogram;
use super::series::Series;

/// The figures of one run.
pub struct Figures {
    pub events: u64,
    pub delivered: u64,
    pub refused: u64,
    pub missing: u64,
    pub repeated: u64,
    pub misrouted: u64,
    pub bad_signatures: u64,
    pub accepted_per_second: f64,
    pub delivered_per_second: f64,
    pub publish: Histogram,
    pub arrival: Histogram,
    pub series: Series,
    pub server_cpu_per_1000: f64,
    pub own_cpu_per_1000: f64,
    pub peak_memory_bytes: u64,
    pub written_per_delivery: f64,
    pub kept_per_delivery: f64,
    pub stop_took: Duration,
    pub facts: Vec<Fact>,
    /// Whether files and memory stayed within their bounds, where the scenario has them.
    pub is_flat: bool,
}

/// A figure that only some scenarios have.
pub struct Fact {
    /// Its name in JSON.
    pub name: &'static str,
    pub value: f64,
    /// A sentence for the table. Empty if another fact's sentence includes it.
    pub text: String,
}

pub const MEGABYTE: f64 = 1_000_000.0;

impl Figures {
    /// Whether every accepted event arrived where it should, with a valid signature, and nothing grew that should not.
    pub fn is_sound(&self) -> bool {
        self.is_flat && self.are_events_sound()
    }

    fn are_events_sound(&self) -> bool {
        self.refused + self.missing + self.misrouted + self.bad_signatures == 0
    }

    /// Describes faults and repeated arrivals. Repeated arrivals are allowed.
    pub fn faults(&self) -> Option<String> {
        (!self.are_events_sound() || self.repeated > 0).then(|| {
            format!(
                "{} events, {} deliveries: {} refused, {} missing, {} repeated, {} at the wrong endpoint, {} badly signed",
                self.events,
                self.delivered,
                self.refused,
                self.missing,
                self.repeated,
                self.misrouted,
                self.bad_signatures
            )
        })
    }

    pub fn json(&self) -> Value {
        let latency = |histogram: &Histogram| {
            json!({
                "p50": millis(histogram.quantile(0.5)), "p95": millis(histogram.quantile(0.95)),
                "p99": millis(histogram.quantile(0.99)), "max": millis(histogram.max()),
            })
        };
        let mut value = json!({
            "events": self.events, "delivered": self.delivered,
            "refused": self.refused, "missing": self.missing, "repeated": self.repeated,
            "misrouted": self.misrouted, "badSignatures": self.bad_signatures,
            "acceptedPerSecond": self.accepted_per_second, "deliveredPerSecond": self.delivered_per_second,
            "publishMillis": latency(&self.publish), "arrivalMillis": latency(&self.arrival),
            "serverCpuSecondsPer1000": self.server_cpu_per_1000, "ownCpuSecondsPer1000": self.own_cpu_per_1000,
            "peakMemoryBytes": self.peak_memory_bytes, "writtenBytesPerDelivery": self.written_per_delivery,
            "keptBytesPerDelivery": self.kept_per_delivery, "stopMillis": millis(self.stop_took),
        });
        for fact in &self.facts {
            value[fact.name] = fact.value.into();
        }
        value
    }
}

pub fn quantiles(histogram: &Histogram) -> String {
    format!(
        "{:.1}/{:.1}/{:.1}/{:.1}",
        millis(histogram.quantile(0.5)),
        millis(histogram.quantile(0.95)),
        millis(histogram.quantile(0.99)),
        millis(histogram.max())
    )
}

fn millis(value: Duration) -> f64 {
    value.as_secs_f64() * 1000.0
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a run are far below what a double holds exactly")]
pub fn bytes(number: u64) -> f64 {
    number as f64
}
