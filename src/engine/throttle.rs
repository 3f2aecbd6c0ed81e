//! How many attempts may be under way at once: in all, and to one endpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::domain::id::RowKey;
use crate::store::{Lane, LaneQuota};

/// Counts the attempts under way. Cheap to clone; all clones count together.
#[derive(Clone, Debug)]
pub struct Slots(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    total: usize,
    per_endpoint: usize,
    taken: Mutex<Taken>,
    /// Told when a place is given back for which somebody had to be turned away.
    released: Notify,
    closed: CancellationToken,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_endpoint: HashMap<RowKey, usize>,
    turned_away: bool,
}

/// One attempt's place; given back on drop.
#[derive(Debug)]
pub struct Slot {
    slots: Slots,
    lane: Lane,
}

impl Slots {
    /// No place is given any more once `closed` is cancelled.
    pub fn new(total: usize, per_endpoint: usize, closed: CancellationToken) -> Self {
        let taken = Mutex::new(Taken::default());
        Self(Arc::new(Shared { total, per_endpoint, taken, released: Notify::new(), closed }))
    }

    /// Places that nobody has.
    pub fn free(&self) -> usize {
        let mut taken = self.0.taken();
        let free = self.0.total.saturating_sub(taken.total);
        taken.turned_away |= free == 0;
        free
    }

    /// The place of a claim, which was counted when the claim was made.
    pub fn slot(&self, lane: Lane) -> Slot {
        Slot { slots: self.clone(), lane }
    }

    /// Completes when a place has been given back since somebody was turned away.
    pub async fn released(&self) {
        self.0.released.notified().await;
    }

    fn give_back(&self, lane: Lane) {
        let mut taken = self.0.taken();
        taken.total = taken.total.saturating_sub(1);
        if let Some(count) = taken.by_endpoint.get_mut(&lane.endpoint_key) {
            *count -= 1;
            if *count == 0 {
                taken.by_endpoint.remove(&lane.endpoint_key);
            }
        }
        if std::mem::take(&mut taken.turned_away) {
            self.0.released.notify_one();
        }
    }
}

impl LaneQuota for Slots {
    fn quota(&self, lane: Lane) -> usize {
        if self.0.closed.is_cancelled() {
            return 0;
        }
        let mut taken = self.0.taken();
        let of_endpoint = taken.by_endpoint.get(&lane.endpoint_key).copied().unwrap_or_default();
        let quota = self.0.per_endpoint.saturating_sub(of_endpoint).min(self.0.total.saturating_sub(taken.total));
        taken.turned_away |= quota == 0;
        quota
    }

    fn claimed(&self, lane: Lane) {
        let mut taken = self.0.taken();
        taken.total += 1;
        *taken.by_endpoint.entry(lane.endpoint_key).or_default() += 1;
    }

    fn unclaimed(&self, lane: Lane) {
        self.give_back(lane);
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.give_back(self.lane);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LaneKind;

    fn lane(key: i64) -> Lane {
        Lane { workspace_key: RowKey::from_i64(1), endpoint_key: RowKey::from_i64(key), kind: LaneKind::Events }
    }

    fn take(slots: &Slots, key: i64) -> Slot {
        slots.claimed(lane(key));
        slots.slot(lane(key))
    }

    #[test]
    fn an_endpoint_gets_no_more_than_its_cap_and_gets_it_back() {
        let slots = Slots::new(3, 2, CancellationToken::new());
        let held = [take(&slots, 1), take(&slots, 1)];
        assert_eq!((slots.free(), slots.quota(lane(1)), slots.quota(lane(2))), (1, 0, 1));
        drop(held);
        assert_eq!((slots.free(), slots.quota(lane(1))), (3, 2));
        assert!(slots.0.taken().by_endpoint.is_empty());
    }

    #[test]
    fn a_claim_that_was_rolled_back_leaves_its_place() {
        let slots = Slots::new(3, 2, CancellationToken::new());
        slots.claimed(lane(1));
        slots.unclaimed(lane(1));
        assert_eq!((slots.free(), slots.quota(lane(1))), (3, 2));
    }

    #[tokio::test]
    async fn whoever_was_turned_away_is_told_of_the_next_free_place() {
        let slots = Slots::new(1, 1, CancellationToken::new());
        let held = take(&slots, 1);
        assert_eq!(slots.quota(lane(1)), 0);
        drop(held);
        tokio::time::timeout(std::time::Duration::from_secs(10), slots.released()).await.unwrap();
    }

    #[test]
    fn nothing_is_given_once_closed() {
        let closed = CancellationToken::new();
        let slots = Slots::new(1, 1, closed.clone());
        closed.cancel();
        assert_eq!(slots.quota(lane(1)), 0);
    }
}
