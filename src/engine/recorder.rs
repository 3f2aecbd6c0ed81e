//! Writes outcomes in groups, and holds on to them while the store cannot take them.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::store::{OutcomeRecord, Recorded, Store, StoreError};

use super::throttle::Unrecorded;

/// Outcomes that wait to be written; beyond it attempts wait with theirs, and slots with them.
const OUTCOMES_QUEUED: usize = 4_096;
/// Outcomes in one write.
const OUTCOMES_PER_WRITE: usize = 512;
/// Longer than this and the leases have run out: whoever took over will record.
const WRITE_TRIES: u32 = 60;
const WAIT_BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// Where outcomes go, each with the place of its claim.
pub type Outcomes = mpsc::Sender<(OutcomeRecord, Unrecorded)>;

/// Ends once every sender is gone and everything is written.
pub fn start(store: Arc<dyn Store>) -> (Outcomes, JoinHandle<()>) {
    let (outcomes, queue) = mpsc::channel(OUTCOMES_QUEUED);
    (outcomes, tokio::spawn(run(store, queue)))
}

async fn run(store: Arc<dyn Store>, mut queue: mpsc::Receiver<(OutcomeRecord, Unrecorded)>) {
    let mut group = Vec::with_capacity(OUTCOMES_PER_WRITE);
    while queue.recv_many(&mut group, OUTCOMES_PER_WRITE).await > 0 {
        let (outcomes, places): (Vec<_>, Vec<_>) = group.drain(..).unzip();
        write(store.as_ref(), outcomes).await;
        drop(places);
    }
}

/// Writes a group of outcomes. One that the store can never take must not cost the others theirs: a group that fails is
/// halved until the culprit stands alone.
async fn write(store: &dyn Store, outcomes: Vec<OutcomeRecord>) {
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
                %error,
                source = ?std::error::Error::source(&error),
                "an outcome could not be recorded; the delivery will be attempted again"
            );
        }
    }
}

/// # Errors
/// When the store will not take the group as it is. While it is only unavailable, the outcomes wait.
async fn write_group(store: &dyn Store, outcomes: &[OutcomeRecord]) -> Result<(), StoreError> {
    for _ in 0..WRITE_TRIES {
        match store.record_outcomes_if_claimed(outcomes.to_vec()).await {
            Ok(recorded) => {
                let lost = recorded.iter().filter(|outcome| **outcome == Recorded::ClaimLost).count();
                if lost > 0 {
                    tracing::warn!(outcomes = lost, "outcomes came after their claims had been taken over");
                }
                return Ok(());
            }
            Err(error @ StoreError::Unavailable { .. }) => {
                tracing::warn!(outcomes = outcomes.len(), %error, "outcomes wait for the store");
                tokio::time::sleep(WAIT_BETWEEN_TRIES).await;
            }
            Err(error @ StoreError::Broken(_)) => return Err(error),
        }
    }
    tracing::error!(outcomes = outcomes.len(), "outcomes were given up; the deliveries will be attempted again");
    Ok(())
}
