//! The store's time: the database's clock, so that due times and leases follow one clock on all nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postrider_domain::time::{Clock, Timestamp};

use super::settings::TimeSource;

/// A node whose clock is off by more than this stops sending. Receivers would refuse the timestamps of its signatures.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(30);

/// Why a node whose clock is off claims nothing and is not ready.
pub const CLOCK_IS_OFF: &str = "this node's clock is more than 30 seconds off the database's";

pub struct StoreTime {
    clock: Arc<dyn Clock>,
    source: TimeSource,
    /// How far the database's clock was ahead of ours when last read, in milliseconds.
    ahead: AtomicI64,
}

impl StoreTime {
    pub fn new(clock: Arc<dyn Clock>, source: TimeSource) -> Self {
        Self { clock, source, ahead: AtomicI64::new(0) }
    }

    /// The time of this machine.
    pub fn local(&self) -> Timestamp {
        self.clock.now()
    }

    /// The store's time, from the database's time just read.
    pub fn of_database(&self, database: Timestamp) -> Timestamp {
        let local = self.clock.now();
        match self.source {
            TimeSource::Given => local,
            TimeSource::Database => {
                self.ahead.store(database.millis() - local.millis(), Ordering::Relaxed);
                database
            }
        }
    }

    /// An estimate of the store's time, without asking the database.
    pub fn about_now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now().millis() + self.ahead.load(Ordering::Relaxed))
    }

    /// How far this machine's clock was ahead of the database's when that was last read, in seconds.
    #[expect(clippy::cast_precision_loss, reason = "a difference of two clocks is below 2^53 milliseconds")]
    pub fn ahead_of_database_seconds(&self) -> f64 {
        -self.ahead.load(Ordering::Relaxed) as f64 / 1_000.0
    }

    /// The difference between this machine's clock and the database's.
    pub fn off(&self) -> Duration {
        Duration::from_millis(self.ahead.load(Ordering::Relaxed).unsigned_abs())
    }

    pub fn is_off(&self) -> bool {
        self.off() > CLOCK_OFF_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::time::Sleep;

    const NOON: Timestamp = Timestamp::from_millis(1_778_846_400_000);

    /// A clock that stands at noon.
    struct Noon;

    impl Clock for Noon {
        fn now(&self) -> Timestamp {
            NOON
        }

        fn sleep_until(&self, _at: Timestamp) -> Sleep<'_> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn a_clock_is_off_beyond_thirty_seconds_until_read_right_again() {
        let time = StoreTime::new(Arc::new(Noon), TimeSource::Database);
        let beyond = CLOCK_OFF_MAX + Duration::from_millis(1);
        for (database, is_off) in [
            (NOON.plus(CLOCK_OFF_MAX), false),
            (NOON.plus(beyond), true),
            (NOON, false),
            (NOON.minus(beyond), true),
            (NOON.minus(CLOCK_OFF_MAX), false),
        ] {
            assert_eq!(time.of_database(database), database);
            assert_eq!((time.is_off(), time.about_now()), (is_off, database), "{:?} off", time.off());
        }
    }
}
