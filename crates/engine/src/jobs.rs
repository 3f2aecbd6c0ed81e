//! Advances running replays and erasures in small steps, so that deliveries keep priority.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::time::Clock;
use postrider_store::{StoreError, Upkeep};

/// The wait while there is no job of a kind, or none could advance.
const IDLE_WAIT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub enum Jobs {
    Replays,
    Erasures,
}

impl Jobs {
    /// The wait between two steps of a job that advances.
    const fn step_wait(self) -> Duration {
        match self {
            Self::Replays => Duration::from_millis(100),
            Self::Erasures => Duration::from_millis(20),
        }
    }

    async fn advance(self, store: &dyn Upkeep) -> Result<Option<usize>, StoreError> {
        match self {
            Self::Replays => store.advance_replays().await,
            Self::Erasures => store.advance_erasures().await,
        }
    }
}

impl fmt::Display for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Replays => "replays",
            Self::Erasures => "erasures",
        })
    }
}

pub async fn run(jobs: Jobs, store: Arc<dyn Upkeep>, clock: Arc<dyn Clock>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let wait = match jobs.advance(store.as_ref()).await {
            Ok(None | Some(0)) => IDLE_WAIT,
            Ok(Some(_)) => jobs.step_wait(),
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "cannot advance the {jobs}; the next step tries again");
                IDLE_WAIT
            }
        };
        tokio::select! {
            () = clock.sleep_until(clock.now().plus(wait)) => {}
            () = stop.cancelled() => {}
        }
    }
}
