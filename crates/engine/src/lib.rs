//! Due deliveries become attempts, attempts become outcomes.
//!
//! ```text
//! store ──claim──► dispatcher ──► intake ──► worker (sign, send, judge) ──► recorder ──outcomes──► store
//!   └──accepted and claimed in one commit──────┘
//! ```
//!
//! The store is the queue and the only truth; what is in memory here is claimed work, which another process takes
//! over should this one stop. A wake-up is a hint: without one the engine asks the store all the same.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use postrider_crypto::{MasterKey, Random};
use postrider_domain::event_type::Brand;
use postrider_domain::limits;
use postrider_domain::retry_schedule::RetrySchedule;
use postrider_domain::time::Clock;
use postrider_egress::Transport;
use postrider_store::{HandOver, Store};

mod dispatcher;
mod intake;
mod janitor;
mod private_options;
mod recorder;
mod replayer;
mod signer;
mod throttle;
mod waker;
mod worker;

use waker::Waker;

/// What the engine is made of.
pub struct EngineParts {
    pub store: Arc<dyn Store>,
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

/// The engine at work.
pub struct Engine {
    stop: CancellationToken,
    /// Drops the attempts under way.
    cut: CancellationToken,
    attempts: TaskTracker,
    dispatcher: JoinHandle<()>,
    recorder: JoinHandle<()>,
    janitor: JoinHandle<()>,
    replayer: JoinHandle<()>,
}

impl Engine {
    /// Starts on the current runtime.
    pub fn start(parts: EngineParts) -> Self {
        let (stop, cut) = (CancellationToken::new(), CancellationToken::new());
        let waker = Waker::default();
        let attempts = TaskTracker::new();
        let (slots, per_endpoint) = (parts.settings.slots, parts.settings.slots_per_endpoint);
        let slots = throttle::Slots::new(slots, per_endpoint, Arc::clone(&parts.clock), stop.clone());
        let (outcomes, recorder) = recorder::start(Arc::clone(&parts.store));
        let janitor = tokio::spawn(janitor::run(
            Arc::clone(&parts.store),
            Arc::clone(&parts.clock),
            parts.settings.retention,
            stop.clone(),
        ));
        let replayer = tokio::spawn(replayer::run(Arc::clone(&parts.store), Arc::clone(&parts.clock), stop.clone()));
        let worker = Arc::new(worker::Worker::new(&parts, outcomes));
        let intake = Arc::new(intake::Intake {
            slots,
            worker,
            attempts: attempts.clone(),
            cut: cut.clone(),
            clock: Arc::clone(&parts.clock),
            waker: waker.clone(),
            runtime: Handle::current(),
        });
        let hand_over: Arc<dyn HandOver> = intake.clone();
        parts.store.attach(Arc::downgrade(&hand_over));
        let dispatcher =
            dispatcher::Dispatcher { store: parts.store, clock: parts.clock, waker, intake, stop: stop.clone() };
        let dispatcher = tokio::spawn(dispatcher.run());
        Self { stop, cut, attempts, dispatcher, recorder, janitor, replayer }
    }

    /// Claims no more, waits up to `grace` for the attempts under way, and returns once their outcomes are on disk.
    /// What is still under way then is dropped and left to the next start, which records it as abandoned.
    pub async fn stop(self, grace: Duration) {
        self.stop.cancel();
        self.attempts.close();
        if tokio::time::timeout(grace, self.attempts.wait()).await.is_err() {
            tracing::warn!(
                attempts = self.attempts.len(),
                "attempts were still under way when the time to stop was up"
            );
            self.cut.cancel();
        }
        let recorded = async { (self.dispatcher.await, self.janitor.await, self.replayer.await, self.recorder.await) };
        if tokio::time::timeout(grace, recorded).await.is_err() {
            tracing::warn!("outcomes were still unrecorded when the time to stop was up");
        }
    }
}
