//! What age does: expiry of waiting deliveries, of remembered answers and of replaced secrets, in small bounded steps.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::domain::time::Clock;
use crate::store::{Store, StoreError};

const ROUND: Duration = Duration::from_secs(60);
/// Rows in one step: a few milliseconds of the writer's time.
const STEP: usize = 500;

pub async fn run(store: Arc<dyn Store>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = round(store.as_ref(), &stop).await {
            tracing::warn!(%error, "a round of ageing failed; the next one tries again");
        }
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(ROUND)) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn round(store: &dyn Store, stop: &CancellationToken) -> Result<(), StoreError> {
    let mut expired = 0;
    loop {
        let step = store.expire_waiting(STEP).await?;
        expired += step;
        let forgotten = store.forget_answers(STEP).await?;
        let erased = store.erase_unused_secrets(STEP).await?;
        if (step < STEP && forgotten < STEP && erased < STEP) || stop.is_cancelled() {
            break;
        }
    }
    if expired > 0 {
        tracing::info!(deliveries = expired, "deliveries expired behind endpoints that are off");
    }
    Ok(())
}
