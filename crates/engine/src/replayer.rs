//! Advances running replays in small steps, so that live traffic keeps priority.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::time::Clock;
use postrider_store::Upkeep;

/// The wait between two steps of a replay that advances.
const STEP_WAIT: Duration = Duration::from_millis(100);
/// The wait while no replay is running, or none could advance.
const IDLE_WAIT: Duration = Duration::from_secs(1);

pub async fn run(store: Arc<dyn Upkeep>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = match store.advance_replays().await {
            Ok(None | Some(0)) => IDLE_WAIT,
            Ok(Some(_)) => STEP_WAIT,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot advance the replays; the next step tries again");
                IDLE_WAIT
            }
        };
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(wait)) => {}
            () = stop.cancelled() => {}
        }
    }
}
