//! Writes outcomes to the store in groups, and keeps them while the store is unavailable.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use postrider_domain::delivery::DeliveryStatus;
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_domain::time::Clock;
use postrider_metrics::{AgeAt, Histograms};
use postrider_store::{AfterAttempt, OutcomeRecord, Queue, Recorded, StoreError};

use super::limiter::UnrecordedOutcome;

const WAIT_BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// An outcome, and the guard that counts it as unrecorded until it is dropped.
type QueuedOutcome = (OutcomeRecord, UnrecordedOutcome);

/// The queues of the recorder. An outcome that may wait for others to share its commit delays none that may not.
pub struct OutcomeQueues {
    can_wait: mpsc::Sender<QueuedOutcome>,
    urgent: mpsc::Sender<QueuedOutcome>,
}

impl OutcomeQueues {
    /// Waits while the queue is full.
    ///
    /// # Errors
    /// When the recorder has stopped.
    pub async fn send(&self, record: OutcomeRecord, unrecorded: UnrecordedOutcome) -> Result<(), RecorderStopped> {
        let queue = if record.can_wait() { &self.can_wait } else { &self.urgent };
        queue.send((record, unrecorded)).await.map_err(|_| RecorderStopped)
    }
}

/// Measures how old deliveries are when they end.
pub struct DeliveryAges {
    pub clock: Arc<dyn Clock>,
    pub seconds: Histograms,
}

impl DeliveryAges {
    fn measure(&self, outcomes: &[OutcomeRecord], recorded: &[Recorded]) {
        let now = self.clock.now();
        for (outcome, _) in outcomes.iter().zip(recorded).filter(|(_, recorded)| **recorded == Recorded::Done) {
            let end = match outcome.after {
                AfterAttempt::Finish { status: DeliveryStatus::Delivered, .. } => AgeAt::Delivered,
                AfterAttempt::Finish { status: DeliveryStatus::Failed, .. } => AgeAt::Failed,
                AfterAttempt::Finish { .. } | AfterAttempt::Retry { .. } => continue,
            };
            self.seconds.observe(end, now.since(outcome.delivery_id.created_at()));
        }
    }
}

/// The recorder has stopped and writes nothing any more.
#[derive(Debug)]
pub struct RecorderStopped;

/// Starts the recorder. It ends when every [`OutcomeQueues`] is dropped and every outcome is written.
pub fn start(store: Arc<dyn Queue>, ages: DeliveryAges) -> (OutcomeQueues, JoinHandle<()>) {
    let (can_wait, can_wait_queue) = mpsc::channel(limits::OUTCOMES_QUEUED);
    let (urgent, urgent_queue) = mpsc::channel(limits::OUTCOMES_QUEUED);
    let recording = async move {
        tokio::join!(run(store.as_ref(), &ages, can_wait_queue), run(store.as_ref(), &ages, urgent_queue));
    };
    (OutcomeQueues { can_wait, urgent }, tokio::spawn(recording))
}

async fn run(store: &dyn Queue, ages: &DeliveryAges, mut queue: mpsc::Receiver<QueuedOutcome>) {
    let mut group = Vec::with_capacity(limits::OUTCOMES_PER_WRITE);
    while queue.recv_many(&mut group, limits::OUTCOMES_PER_WRITE).await > 0 {
        let (outcomes, unrecorded): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        write(store, ages, outcomes).await;
        drop(unrecorded);
    }
}

/// Writes a group of outcomes. One that the store can never take must not lose the others: a group that fails is halved
/// until the faulty outcome is alone.
async fn write(store: &dyn Queue, ages: &DeliveryAges, outcomes: Vec<OutcomeRecord>) {
    let mut groups = vec![outcomes];
    while let Some(mut group) = groups.pop() {
        let Err(error) = write_group(store, ages, &group).await else { continue };
        if group.len() > 1 {
            let rest = group.split_off(group.len() / 2);
            groups.extend([rest, group]);
            continue;
        }
        for outcome in group {
            tracing::error!(
                delivery_id = %outcome.delivery_id,
                attempt = outcome.attempt.number,
                error = %Chain(&error),
                "cannot record an outcome; the delivery will be attempted again"
            );
        }
    }
}

/// Writes once, and again while the store is unavailable.
///
/// # Errors
/// When the store refuses the group as it is.
async fn write_group(store: &dyn Queue, ages: &DeliveryAges, outcomes: &[OutcomeRecord]) -> Result<(), StoreError> {
    for _ in 0..limits::OUTCOME_WRITE_TRIES {
        match store.record_outcomes_if_claimed(outcomes.to_vec()).await {
            Ok(recorded) => {
                ages.measure(outcomes, &recorded);
                let lost = recorded.iter().filter(|outcome| **outcome == Recorded::ClaimLost).count();
                if lost > 0 {
                    tracing::warn!(outcomes = lost, "outcomes came after their claims had been taken over");
                }
                return Ok(());
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                let waiting = outcomes.len();
                tracing::warn!(outcomes = waiting, error = %Chain(&error), "the store is unavailable; outcomes wait");
                tokio::time::sleep(WAIT_BETWEEN_TRIES).await;
            }
            Err(error @ StoreError::Broken(_)) => return Err(error),
        }
    }
    tracing::error!(
        outcomes = outcomes.len(),
        "outcomes were dropped: the store stayed unavailable; the deliveries will be attempted again"
    );
    Ok(())
}
