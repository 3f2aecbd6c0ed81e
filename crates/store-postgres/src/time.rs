//! What time it is: the database's time, so that due times and leases go by one clock however many nodes there are.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postrider_domain::time::{Clock, Timestamp};

use super::settings::TimeSource;

/// A node whose clock is further off than this stops sending: its signatures would carry a time that receivers refuse.
pub const CLOCK_OFF_MAX: Duration = Duration::from_secs(30);

pub struct StoreTime {
    clock: Arc<dyn Clock>,
    source: TimeSource,
    /// How far the database's clock is ahead of ours, in milliseconds, as last seen.
    ahead: AtomicI64,
}

impl StoreTime {
    pub fn new(clock: Arc<dyn Clock>, source: TimeSource) -> Self {
        Self { clock, source, ahead: AtomicI64::new(0) }
    }

    /// This machine's own time.
    pub fn local(&self) -> Timestamp {
        self.clock.now()
    }

    /// The store's time, given what the database has just said.
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

    /// The store's time as far as it is known without asking.
    pub fn about_now(&self) -> Timestamp {
        Timestamp::from_millis(self.clock.now().millis() + self.ahead.load(Ordering::Relaxed))
    }

    /// How far this machine's clock is off the database's.
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

    /// Always noon.
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
    fn a_clock_is_off_beyond_thirty_seconds_in_either_direction_and_right_again_as_soon_as_it_is_seen() {
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
