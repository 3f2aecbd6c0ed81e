//! What the engine is started with: its parts and its settings.

use std::sync::Arc;
use std::time::Duration;

use postrider_crypto::{MasterKey, Random};
use postrider_domain::event_type::Brand;
use postrider_domain::limits;
use postrider_domain::retry::RetrySchedule;
use postrider_domain::time::Clock;
use postrider_egress::Transport;
use postrider_store::EngineStore;

/// What the engine is made of.
pub struct EngineParts {
    pub store: Arc<dyn EngineStore>,
    pub transport: Arc<dyn Transport>,
    pub clock: Arc<dyn Clock>,
    pub master_key: Arc<MasterKey>,
    pub random: Random,
    pub settings: EngineSettings,
}

#[derive(Clone, Debug)]
pub struct EngineSettings {
    pub brand: Brand,
    pub schedule: RetrySchedule,
    /// For one whole exchange with a receiver.
    pub attempt_deadline: Duration,
    /// How long the log keeps what is over.
    pub retention: Duration,
    /// Attempts under way at once.
    pub slots: usize,
    /// Attempts under way at once to one endpoint.
    pub slots_per_endpoint: usize,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            brand: Brand::default(),
            schedule: RetrySchedule::default(),
            attempt_deadline: limits::ATTEMPT_DEADLINE,
            retention: limits::RETENTION,
            slots: limits::SLOTS,
            slots_per_endpoint: limits::SLOTS_PER_ENDPOINT,
        }
    }
}
