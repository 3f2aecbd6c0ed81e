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

use postrider_store::ClaimSink;

mod dispatcher;
mod fair_share;
mod intake;
mod janitor;
mod limiter;
mod private_options;
mod recorder;
mod replayer;
mod settings;
mod signer;
mod waker;
mod worker;

pub use settings::{EngineParts, EngineSettings};

use limiter::ConcurrencyLimiter;
use waker::Waker;

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
        let (total, per_endpoint) = (parts.settings.slots, parts.settings.slots_per_endpoint);
        let limiter = ConcurrencyLimiter::new(total, per_endpoint, Arc::clone(&parts.clock), stop.clone());
        let (outcomes, recorder) = recorder::start(parts.store.clone());
        let janitor = tokio::spawn(janitor::run(
            parts.store.clone(),
            Arc::clone(&parts.clock),
            parts.settings.retention,
            stop.clone(),
        ));
        let replayer = tokio::spawn(replayer::run(parts.store.clone(), Arc::clone(&parts.clock), stop.clone()));
        let worker = Arc::new(worker::Worker::new(&parts, outcomes));
        let intake = Arc::new(intake::Intake {
            limiter,
            worker,
            attempts: attempts.clone(),
            cut: cut.clone(),
            clock: Arc::clone(&parts.clock),
            waker: waker.clone(),
            runtime: Handle::current(),
        });
        let sink: Arc<dyn ClaimSink> = intake.clone();
        parts.store.attach(Arc::downgrade(&sink));
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
