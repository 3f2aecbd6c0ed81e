//! How many attempts may be under way at once: in all, and to one endpoint.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

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
    released: Notify,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_endpoint: HashMap<RowKey, usize>,
}

/// One attempt's place; given back on drop.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    endpoint_key: RowKey,
}

impl Slots {
    pub fn new(total: usize, per_endpoint: usize) -> Self {
        let taken = Mutex::new(Taken::default());
        Self(Arc::new(Shared { total, per_endpoint, taken, released: Notify::new() }))
    }

    pub fn free(&self) -> usize {
        self.0.total.saturating_sub(self.0.taken().total)
    }

    /// Takes a place for what has been claimed; the claim was made within the quota.
    pub fn take(&self, lane: Lane) -> Slot {
        let mut taken = self.0.taken();
        taken.total += 1;
        *taken.by_endpoint.entry(lane.endpoint_key).or_default() += 1;
        Slot { shared: Arc::clone(&self.0), endpoint_key: lane.endpoint_key }
    }

    /// Completes when a place has been given back since the last time.
    pub async fn released(&self) {
        self.0.released.notified().await;
    }
}

impl LaneQuota for Slots {
    fn quota(&self, lane: Lane) -> usize {
        let under_way = self.0.taken().by_endpoint.get(&lane.endpoint_key).copied().unwrap_or_default();
        self.0.per_endpoint.saturating_sub(under_way)
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.shared.taken();
        taken.total -= 1;
        if let Some(count) = taken.by_endpoint.get_mut(&self.endpoint_key) {
            *count -= 1;
            if *count == 0 {
                taken.by_endpoint.remove(&self.endpoint_key);
            }
        }
        drop(taken);
        self.shared.released.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::LaneKind;

    #[test]
    fn an_endpoint_gets_no_more_than_its_cap_and_gets_it_back() {
        let lane = |key| Lane {
            workspace_key: RowKey::from_i64(1),
            endpoint_key: RowKey::from_i64(key),
            kind: LaneKind::Events,
        };
        let slots = Slots::new(3, 2);
        let held = [slots.take(lane(1)), slots.take(lane(1))];
        assert_eq!((slots.free(), slots.quota(lane(1)), slots.quota(lane(2))), (1, 0, 2));
        drop(held);
        assert_eq!((slots.free(), slots.quota(lane(1))), (3, 2));
        assert!(slots.0.taken().by_endpoint.is_empty());
    }
}
