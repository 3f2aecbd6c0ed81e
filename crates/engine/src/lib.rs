//! Turns due deliveries into attempts and attempts into outcomes.
//!
//! ```text
//! store ──claim──► dispatcher ──► intake ──► worker (sign, send, judge) ──► recorder ──outcomes──► store
//!   └──accepted and claimed in one commit──────┘
//! ```
//!
//! The store is the queue and the only truth. Memory holds claimed deliveries and caches: when this process stops,
//! another one takes its claims over. A wake-up is a hint: the engine also polls the store.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use postrider_metrics::{EngineMetrics, Only};
use postrider_store::ClaimSink;

mod attempt_span;
mod disk;
mod dispatcher;
mod fair_share;
mod gauge_reader;
mod intake;
mod janitor;
mod jobs;
mod leased_attempts;
mod limiter;
mod private_options;
mod recorder;
mod settings;
mod signer;
mod waker;
mod worker;

pub use leased_attempts::LeasedAttempts;
pub use settings::{EngineParts, EngineSettings};

use disk::DiskWatch;
use gauge_reader::GaugeReader;
use janitor::{Janitor, Retention};
use jobs::Jobs;
use limiter::ConcurrencyLimiter;
use waker::Waker;

/// Shows how many of the slots are in use.
fn measure_slots(metrics: &EngineMetrics, limiter: &ConcurrencyLimiter, total: usize) {
    let (metrics, limiter) = (metrics.clone(), limiter.clone());
    metrics.slots.set_count(Only, total as u64);
    metrics.before_scrape.clone().run(move || metrics.in_flight.set_count(Only, limiter.in_use() as u64));
}

/// The running tasks of the engine.
pub struct Engine {
    stop: CancellationToken,
    /// Aborts the attempts in flight.
    abort: CancellationToken,
    attempts: TaskTracker,
    dispatcher: JoinHandle<()>,
    recorder: JoinHandle<()>,
    janitor: JoinHandle<()>,
    disk_watch: JoinHandle<()>,
    replayer: JoinHandle<()>,
    eraser: JoinHandle<()>,
    gauge_reader: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts on the current runtime.
    pub fn start(parts: EngineParts) -> Self {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let waker = Waker::default();
        let attempts = TaskTracker::new();
        let (total, per_endpoint) = (parts.settings.slots, parts.settings.slots_per_endpoint);
        let limiter = ConcurrencyLimiter::new(total, per_endpoint, Arc::clone(&parts.clock), stop.clone());
        measure_slots(&parts.metrics, &limiter, total);
        let seconds = parts.metrics.delivery_age_seconds.clone();
        let ages = recorder::DeliveryAges { clock: Arc::clone(&parts.clock), seconds };
        let (outcomes, recorder) = recorder::start(parts.store.clone(), ages);
        let retention = Retention {
            log: parts.settings.retention,
            payloads: parts.settings.payload_retention,
            audit: parts.settings.audit_retention,
            parked: parts.settings.parked_retention,
        };
        let disk_watch = DiskWatch {
            store: parts.store.clone(),
            clock: Arc::clone(&parts.clock),
            max: parts.settings.max_disk,
            retention,
            metrics: parts.metrics.disk.clone(),
            removed: parts.metrics.removed_rows.clone(),
            stop: stop.clone(),
        };
        let disk_watch = tokio::spawn(disk_watch.run());
        let janitor = Janitor {
            store: parts.store.clone(),
            clock: Arc::clone(&parts.clock),
            retention,
            removed: parts.metrics.removed_rows.clone(),
            stop: stop.clone(),
        };
        let janitor = tokio::spawn(janitor.run());
        let [replayer, eraser] = [Jobs::Replays, Jobs::Erasures]
            .map(|jobs| tokio::spawn(jobs::run(jobs, parts.store.clone(), Arc::clone(&parts.clock), stop.clone())));
        let gauge_reader = parts.gauges.clone().map(|metrics| {
            let (store, clock) = (parts.store.clone(), Arc::clone(&parts.clock));
            tokio::spawn(GaugeReader { store, metrics, clock }.run(stop.clone()))
        });
        let worker = Arc::new(worker::Worker::new(&parts, outcomes));
        let intake = Arc::new(intake::Intake {
            limiter,
            worker,
            attempts: attempts.clone(),
            abort: abort.clone(),
            clock: Arc::clone(&parts.clock),
            waker: waker.clone(),
            runtime: Handle::current(),
        });
        let sink: Arc<dyn ClaimSink> = intake.clone();
        parts.store.attach(Arc::downgrade(&sink));
        let dispatcher =
            dispatcher::Dispatcher { store: parts.store, clock: parts.clock, waker, intake, stop: stop.clone() };
        let dispatcher = tokio::spawn(dispatcher.run());
        Self { stop, abort, attempts, dispatcher, recorder, janitor, disk_watch, replayer, eraser, gauge_reader }
    }

    /// Stops claiming, waits up to `grace` for the attempts in flight, and returns when their outcomes are on disk.
    ///
    /// Attempts still in flight after `grace` are aborted. The next start records them as abandoned. Writing the
    /// outcomes may take another `grace`.
    pub async fn stop(self, grace: Duration) {
        self.stop.cancel();
        self.attempts.close();
        if tokio::time::timeout(grace, self.attempts.wait()).await.is_err() {
            tracing::warn!(
                attempts = self.attempts.len(),
                "attempts in flight were aborted: they did not end within the grace period; the next start repeats them"
            );
            self.abort.cancel();
        }
        let parts = [self.dispatcher, self.janitor, self.disk_watch, self.replayer, self.eraser, self.recorder];
        let mut parts: Vec<JoinHandle<()>> = parts.into_iter().chain(self.gauge_reader).collect();
        let ended = async {
            for part in &mut parts {
                let _ = part.await;
            }
        };
        if tokio::time::timeout(grace, ended).await.is_err() {
            tracing::warn!(
                "some outcomes were not written within the grace period; the next start repeats their attempts"
            );
            // A part that is left would go on to hold the store, and the next start could not open it.
            for part in parts.into_iter().filter(|part| !part.is_finished()) {
                part.abort();
                let _ = part.await;
            }
        }
    }
}
