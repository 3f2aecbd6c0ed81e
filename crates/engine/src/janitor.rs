//! What age does: expiry of waiting deliveries, of remembered answers, of replaced secrets and of the log, in small bounded
//! steps.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::id::RowKey;
use postrider_domain::limits::AGEING_ROWS_PER_STEP;
use postrider_domain::time::Clock;
use postrider_store::{AgedStep, LogPart, StoreError, Upkeep};

const ROUND: Duration = Duration::from_secs(60);
/// Between two steps through the log.
const STEP_WAIT: Duration = Duration::from_millis(20);

pub async fn run(store: Arc<dyn Upkeep>, clock: Arc<dyn Clock>, retention: Duration, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = round(store.as_ref(), retention, &stop).await {
            tracing::warn!(error = %Chain(&error), "a round of ageing failed; the next one tries again");
        }
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(ROUND)) => {}
            () = stop.cancelled() => {}
        }
    }
}

async fn round(store: &dyn Upkeep, retention: Duration, stop: &CancellationToken) -> Result<(), StoreError> {
    let mut expired = 0;
    loop {
        let step = store.expire_waiting(AGEING_ROWS_PER_STEP).await?;
        expired += step;
        let forgotten = store.forget_answers(AGEING_ROWS_PER_STEP).await?;
        let erased = store.erase_unused_secrets(AGEING_ROWS_PER_STEP).await?;
        if (step < AGEING_ROWS_PER_STEP && forgotten < AGEING_ROWS_PER_STEP && erased < AGEING_ROWS_PER_STEP)
            || stop.is_cancelled()
        {
            break;
        }
    }
    if expired > 0 {
        tracing::info!(deliveries = expired, "deliveries expired behind endpoints that are off");
    }
    for part in [LogPart::Deliveries, LogPart::Events] {
        let mut after = Some(RowKey::from_i64(0));
        while let Some(from) = after
            && !stop.is_cancelled()
        {
            after =
                store.remove_aged(AgedStep { part, age: retention, after: from, limit: AGEING_ROWS_PER_STEP }).await?;
            // Deliveries come first: the writer is left to them in between.
            tokio::time::sleep(STEP_WAIT).await;
        }
    }
    Ok(())
}
