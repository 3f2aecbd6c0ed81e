//! The metrics of a server: the registry, every family, and the text that Prometheus reads.
//!
//! | file | what it holds |
//! |---|---|
//! | `families.rs` | every family, in a struct for each part of the server that counts |
//! | `labels.rs` | label values |
//! | `series.rs` | counters, histograms and gauges, as arrays of atomic numbers |
//! | `process.rs` | processor time, memory and files of the process |
//! | `scrape.rs` | what happens at a scrape; the formats |
//! | `page.rs` | the table of the documentation |
//!
//! Other crates get the struct that they need as an argument, update it, and never see the registry. No id, URL, name
//! or path of a tenant may become a label value: label values are fixed when the process starts (the names of sources
//! by the operator's settings), so the number of
//! series depends on nothing that a tenant does.

mod families;
mod labels;
mod page;
mod process;
mod register;
mod scrape;
mod series;

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::{prometheus_text, text};
use prometheus_client::registry::Registry;

pub use families::{
    DiskMetrics, EgressMetrics, EngineMetrics, Families, Labels, LogMetrics, QueueMetrics, ServerMetrics,
    ServiceMetrics, SourceMetrics, StoreMetrics, TraceMetrics,
};
pub use labels::{
    AgeAt, ConnectionState, Database, DeduplicatedBy, Direction, DiskStateLabel, EndpointState, LaneState,
    LookUpResult, MessageResult, Phase, PoolState, PublishKind, QueueState, RemovedKind, Reused, SpanResult,
    StatusClass, WatchedFile,
};
pub use page::table;
pub use register::Family;
pub use scrape::{BeforeScrape, Format};
pub use series::{Counters, Gauges, Histograms, Only, Position};

use register::Register;

/// What this binary was built from.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub version: &'static str,
    pub commit: &'static str,
}

/// The registry and the handles of all families.
#[derive(Debug)]
pub struct Metrics {
    /// Locked during a scrape, so that scrapes come one after the other.
    registry: Mutex<Registry>,
    described: Vec<Family>,
    before_scrape: BeforeScrape,
    pub families: Families,
}

impl Metrics {
    pub fn new(labels: &Labels, build: Build) -> Self {
        let (mut register, before_scrape) = (Register::default(), BeforeScrape::default());
        let families = Families::register(&mut register, labels, &before_scrape);
        let built = vec![vec![("version", build.version), ("commit", build.commit)]];
        register.gauges("build_info", "Always 1. The labels say what this server was built from", built).set(Only, 1.0);
        process::register(&mut register);
        let Register { registry, families: described } = register;
        Self { registry: Mutex::new(registry), described, before_scrape, families }
    }

    /// All families as text.
    pub fn scrape(&self, format: Format) -> String {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        self.before_scrape.read_all();
        let mut body = String::new();
        let encoded = match format {
            Format::Text => prometheus_text::encode(&mut body, &registry),
            Format::OpenMetrics => text::encode(&mut body, &registry),
        };
        encoded.expect("a string takes whatever is written to it");
        body
    }

    /// Every family, in the order of a scrape.
    pub fn described(&self) -> &[Family] {
        &self.described
    }
}

#[cfg(test)]
mod tests;
