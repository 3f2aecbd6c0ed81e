//! Writes outcomes in groups, and holds on to them while the store cannot take them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;
use postrider_store::{OutcomeRecord, Queue, Recorded, StoreError};

use super::limiter::UnrecordedOutcome;

const WAIT_BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// An outcome, and the place of its claim.
type Outcome = (OutcomeRecord, UnrecordedOutcome);

/// Where outcomes go. Those that can wait for others to share their commit hold up none that cannot.
pub struct Outcomes {
    patient: mpsc::Sender<Outcome>,
    urgent: mpsc::Sender<Outcome>,
}

impl Outcomes {
    /// # Errors
    /// When nothing is recorded any more.
    pub async fn send(&self, record: OutcomeRecord, place: UnrecordedOutcome) -> Result<(), Stopped> {
        let queue = if record.can_wait() { &self.patient } else { &self.urgent };
        queue.send((record, place)).await.map_err(|_| Stopped)
    }
}

/// The recorder has ended.
#[derive(Debug)]
pub struct Stopped;

/// Ends once every sender is gone and everything is written.
pub fn start(store: Arc<dyn Queue>) -> (Outcomes, JoinHandle<()>) {
    let ((patient, patient_queue), (urgent, urgent_queue)) =
        (mpsc::channel(limits::OUTCOMES_QUEUED), mpsc::channel(limits::OUTCOMES_QUEUED));
    let recording = async move {
        tokio::join!(run(store.as_ref(), patient_queue), run(store.as_ref(), urgent_queue));
    };
    (Outcomes { patient, urgent }, tokio::spawn(recording))
}

async fn run(store: &dyn Queue, mut queue: mpsc::Receiver<Outcome>) {
    let mut group = Vec::with_capacity(limits::OUTCOMES_PER_WRITE);
    while queue.recv_many(&mut group, limits::OUTCOMES_PER_WRITE).await > 0 {
        let (outcomes, places): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        write(store, outcomes).await;
        drop(places);
    }
}

/// Writes a group of outcomes. One that the store can never take must not cost the others theirs: a group that fails is
/// halved until the culprit stands alone.
async fn write(store: &dyn Queue, outcomes: Vec<OutcomeRecord>) {
    let mut groups = vec![outcomes];
    while let Some(mut group) = groups.pop() {
        let Err(error) = write_group(store, &group).await else { continue };
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
                "an outcome could not be recorded; the delivery will be attempted again"
            );
        }
    }
}

/// # Errors
/// When the store will not take the group as it is. While it is only unavailable, the outcomes wait.
async fn write_group(store: &dyn Queue, outcomes: &[OutcomeRecord]) -> Result<(), StoreError> {
    for _ in 0..limits::OUTCOME_WRITE_TRIES {
        match store.record_outcomes_if_claimed(outcomes.to_vec()).await {
            Ok(recorded) => {
                let lost = recorded.iter().filter(|outcome| **outcome == Recorded::ClaimLost).count();
                if lost > 0 {
                    tracing::warn!(outcomes = lost, "outcomes came after their claims had been taken over");
                }
                return Ok(());
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(outcomes = outcomes.len(), error = %Chain(&error), "outcomes wait for the store");
                tokio::time::sleep(WAIT_BETWEEN_TRIES).await;
            }
            Err(error @ StoreError::Broken(_)) => return Err(error),
        }
    }
    tracing::error!(outcomes = outcomes.len(), "outcomes were given up; the deliveries will be attempted again");
    Ok(())
}
