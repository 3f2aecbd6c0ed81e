//! A manual clock, which stands still until a test moves it and shows how many tasks sleep on it. Also a shifted clock,
//! which runs at an offset from the machine's clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use postrider::clock::{SystemClock, wait_until};
use postrider_domain::time::{Clock, Sleep, Timestamp};
use tokio::sync::watch;

use super::wait::bounded_or;

/// Clones share one time, so that a test can keep one and pass on the other.
#[derive(Clone, Debug)]
pub struct ManualClock {
    state: Arc<watch::Sender<State>>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    next_sleeper: u64,
    sleepers: BTreeMap<u64, Timestamp>,
}

impl ManualClock {
    pub fn new(now: Timestamp) -> Self {
        let state = State { now, next_sleeper: 0, sleepers: BTreeMap::new() };
        Self { state: Arc::new(watch::Sender::new(state)) }
    }

    /// Moves the time forward, and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        self.state.send_modify(|state| state.now = state.now.plus(by));
    }

    /// Sets the time, also backwards, as an operator or NTP can.
    pub fn set(&self, now: Timestamp) {
        self.state.send_modify(|state| state.now = now);
    }

    /// The number of sleepers. A sleeper whose time has come is not counted, even if it has not run yet.
    pub fn waiters(&self) -> usize {
        self.state.borrow().asleep().count()
    }

    /// Waits until at least one task sleeps. Returns the earliest wake time.
    pub async fn until_someone_waits(&self) -> Timestamp {
        self.until_asleep(1).await
    }

    /// Waits until at least `count` tasks sleep. Returns the earliest wake time.
    pub async fn until_asleep(&self, count: usize) -> Timestamp {
        let mut changes = self.state.subscribe();
        let enough = async {
            let state = changes.wait_for(|state| state.asleep().count() >= count.max(1)).await.expect("self is alive");
            state.asleep().min().expect("at least one sleeps")
        };
        bounded_or(enough, || format!("{count} sleepers on the clock; there are {}", self.waiters())).await
    }

    /// Waits until a task sleeps, then moves to the earliest wake time. Returns that time.
    pub async fn advance_to_next_wake(&self) -> Timestamp {
        let wake_at = self.until_someone_waits().await;
        self.set(wake_at);
        wake_at
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state.borrow().now
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep<'_> {
        Box::pin(async move {
            let mut changes = self.state.subscribe();
            if self.now() >= at {
                return;
            }
            let _sleeper = Sleeper::enter(&self.state, at);
            changes.wait_for(|state| state.now >= at).await.expect("self is alive");
        })
    }
}

/// The machine's clock plus an offset that a test sets. Clones share the offset.
#[derive(Clone, Debug, Default)]
pub struct ShiftedClock {
    ahead_ms: Arc<AtomicI64>,
}

impl ShiftedClock {
    /// Sets the offset in milliseconds. A negative offset is behind the machine's clock.
    pub fn set_ahead_ms(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(SystemClock.now().millis() + self.ahead_ms.load(Ordering::Relaxed))
    }

    fn sleep_until(&self, at: Timestamp) -> Sleep<'_> {
        Box::pin(wait_until(at, || self.now()))
    }
}

impl State {
    fn asleep(&self) -> impl Iterator<Item = Timestamp> {
        self.sleepers.values().copied().filter(|at| *at > self.now)
    }
}

/// Keeps a sleeper on the list while its future lives. A dropped `select!` arm leaves the list too.
struct Sleeper<'a> {
    state: &'a watch::Sender<State>,
    number: u64,
}

impl<'a> Sleeper<'a> {
    fn enter(state: &'a watch::Sender<State>, at: Timestamp) -> Self {
        let mut number = 0;
        state.send_modify(|state| {
            number = state.next_sleeper;
            state.next_sleeper += 1;
            state.sleepers.insert(number, at);
        });
        Self { state, number }
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.state.send_modify(|state| {
            state.sleepers.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::super::wait::bounded;
    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_778_846_400_000);

    #[tokio::test]
    async fn a_sleeper_wakes_at_its_time_and_not_before() {
        let clock = ManualClock::new(NOON);
        let sleeping = tokio::spawn({
            let clock = clock.clone();
            async move {
                clock.sleep_until(NOON.plus(Duration::from_secs(5))).await;
                clock.now()
            }
        });
        assert_eq!(clock.until_someone_waits().await, NOON.plus(Duration::from_secs(5)));
        clock.advance(Duration::from_secs(4));
        assert_eq!(clock.waiters(), 1);
        assert!(!sleeping.is_finished());
        clock.advance(Duration::from_secs(1));
        assert_eq!(clock.waiters(), 0);
        let woke_at = bounded("the sleeper", sleeping).await.unwrap();
        assert_eq!(woke_at, NOON.plus(Duration::from_secs(5)));
    }

    #[tokio::test]
    async fn a_past_or_dropped_sleep_is_not_counted() {
        let clock = ManualClock::new(NOON);
        bounded("a sleep in the past", clock.sleep_until(NOON)).await;
        let given_up = clock.sleep_until(NOON.plus(Duration::from_secs(1)));
        tokio::select! {
            biased;
            () = given_up => panic!("the clock stands still"),
            () = async {} => {}
        }
        assert_eq!(clock.waiters(), 0);
    }

    #[tokio::test]
    async fn the_clock_moves_from_wake_to_wake() {
        let clock = ManualClock::new(NOON);
        let (soon, late) = (NOON.plus(Duration::from_secs(1)), NOON.plus(Duration::from_secs(9)));
        let sleeps = [late, soon].map(|at| {
            let clock = clock.clone();
            tokio::spawn(async move { clock.sleep_until(at).await })
        });
        assert_eq!(clock.until_asleep(2).await, soon);
        assert_eq!(clock.advance_to_next_wake().await, soon);
        assert_eq!(clock.advance_to_next_wake().await, late);
        for sleep in sleeps {
            bounded("a sleeper", sleep).await.unwrap();
        }
    }
}
