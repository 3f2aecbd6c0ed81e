//! Writes outcomes in groups, and holds on to them while the store cannot take them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::store::{OutcomeRecord, Recorded, Store, StoreError};

/// Outcomes that wait to be written; beyond it attempts wait with theirs, and slots with them.
const OUTCOMES_QUEUED: usize = 4_096;
/// Outcomes in one write.
const OUTCOMES_PER_WRITE: usize = 512;
/// Longer than this and the leases have run out: whoever took over will record.
const WRITE_TRIES: u32 = 60;
const WAIT_BETWEEN_TRIES: Duration = Duration::from_secs(1);

pub type Outcomes = mpsc::Sender<OutcomeRecord>;

/// Ends once every sender is gone and everything is written.
pub fn start(store: Arc<dyn Store>) -> (Outcomes, JoinHandle<()>) {
    let (outcomes, queue) = mpsc::channel(OUTCOMES_QUEUED);
    (outcomes, tokio::spawn(run(store, queue)))
}

async fn run(store: Arc<dyn Store>, mut queue: mpsc::Receiver<OutcomeRecord>) {
    let mut group = Vec::with_capacity(OUTCOMES_PER_WRITE);
    while queue.recv_many(&mut group, OUTCOMES_PER_WRITE).await > 0 {
        write(store.as_ref(), std::mem::take(&mut group)).await;
    }
}

async fn write(store: &dyn Store, outcomes: Vec<OutcomeRecord>) {
    for _ in 0..WRITE_TRIES {
        match store.record_outcomes_if_claimed(outcomes.clone()).await {
            Ok(recorded) => {
                let lost = recorded.iter().filter(|outcome| **outcome == Recorded::ClaimLost).count();
                if lost > 0 {
                    tracing::warn!(outcomes = lost, "outcomes came after their claims had been taken over");
                }
                return;
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(outcomes = outcomes.len(), %error, "outcomes wait for the store");
                tokio::time::sleep(WAIT_BETWEEN_TRIES).await;
            }
            Err(error @ StoreError::Broken(_)) => {
                tracing::error!(
                    outcomes = outcomes.len(),
                    %error,
                    source = ?std::error::Error::source(&error),
                    "outcomes could not be recorded; the deliveries will be attempted again"
                );
                return;
            }
        }
    }
    tracing::error!(outcomes = outcomes.len(), "outcomes were given up; the deliveries will be attempted again");
}
