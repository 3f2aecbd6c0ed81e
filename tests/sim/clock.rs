//! The clock of a simulation: the paused time of its runtime, which jumps to the next timer when nothing else is left
//! to do.

use std::time::Duration;

use postrider_domain::time::{Clock, Sleep, Timestamp};
use tokio::time::Instant;

/// 2026-08-01T00:00:00Z.
const START_MS: i64 = 1_785_542_400_000;

/// The clock of one life.
#[derive(Clone, Copy, Debug)]
pub struct SimClock {
    life_began: Instant,
    /// The time before this life.
    before: Duration,
}

impl SimClock {
    /// Goes on after the lives before. Call it on the runtime of this life.
    pub fn after(before: Duration) -> Self {
        Self { life_began: Instant::now(), before }
    }

    /// Since the beginning of the world.
    pub fn elapsed(&self) -> Duration {
        self.before + self.life_began.elapsed()
    }
}

/// The instant of a world.
pub fn instant(elapsed: Duration) -> Timestamp {
    Timestamp::from_millis(START_MS).plus(elapsed)
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        instant(self.elapsed())
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep<'_> {
        Box::pin(async move {
            while self.now() < at {
                tokio::time::sleep(at.since(self.now())).await;
            }
        })
    }
}
