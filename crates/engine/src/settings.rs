//! What the engine is started with. The composition root fills it in; nothing here reads a setting.

use std::sync::Arc;
use std::time::Duration;

use postrider_crypto::Random;
use postrider_domain::event_type::Brand;
use postrider_domain::limits;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::span::Tracing;
use postrider_domain::time::Clock;
use postrider_egress::Transport;
use postrider_metrics::{EngineMetrics, QueueMetrics};
use postrider_store::EngineStore;
use postrider_store::sealing::keyring::Keyring;

/// What the engine needs from the rest of the process.
pub struct EngineParts {
    pub store: Arc<dyn EngineStore>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    pub keyring: Arc<Keyring>,
    pub random: Random,
    pub settings: EngineSettings,
    pub metrics: EngineMetrics,
    pub tracing: Tracing,
    /// What is read in the store now and then. `None`: nobody looks at it.
    pub gauges: Option<QueueMetrics>,
}

#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub brand: Brand,
    pub schedule: RetrySchedule,
    /// For one exchange with a receiver, from the look-up to the end of the body. An endpoint may set its own.
    pub attempt_deadline: Duration,
    /// How long the log keeps finished deliveries and their events.
    pub retention: Duration,
    /// How long payloads are kept, at most as long as the log.
    pub payload_retention: Duration,
    /// How long the audit log keeps an entry.
    pub audit_retention: Duration,
    /// How long a parked message of a source is kept.
    pub parked_retention: Duration,
    /// Bytes that the store may take on the disk. `None`: as many as the file system has.
    pub max_disk: Option<u64>,
    /// Attempts in flight at once.
    pub slots: usize,
    /// Attempts in flight at once to one endpoint, from all nodes together.
    pub slots_per_endpoint: usize,
    /// Whether requests carry the trace of their event, for endpoints without a setting of their own.
    pub forwards_traces: bool,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            brand: Brand::default(),
            schedule: RetrySchedule::default(),
            attempt_deadline: limits::ATTEMPT_DEADLINE,
            retention: limits::RETENTION,
            payload_retention: limits::RETENTION,
            audit_retention: limits::AUDIT_RETENTION,
            parked_retention: limits::PARKED_RETENTION,
            max_disk: None,
            slots: limits::SLOTS,
            slots_per_endpoint: limits::SLOTS_PER_ENDPOINT,
            forwards_traces: true,
        }
    }
}
