//! Advances erasures in small steps, so that deliveries keep priority.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::time::Clock;
use postrider_store::Upkeep;

/// The wait between two steps of an erasure that advances.
const STEP_WAIT: Duration = Duration::from_millis(20);
/// The wait while there is no erasure, or all of them wait.
const IDLE_WAIT: Duration = Duration::from_secs(1);

pub async fn run(store: Arc<dyn Upkeep>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = match store.advance_erasures().await {
            Ok(None | Some(0)) => IDLE_WAIT,
            Ok(Some(_)) => STEP_WAIT,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot advance the erasures; the next step tries again");
                IDLE_WAIT
            }
        };
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(wait)) => {}
            () = stop.cancelled() => {}
        }
    }
}
