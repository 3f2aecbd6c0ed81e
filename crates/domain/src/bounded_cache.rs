//! Maps that never hold more than a fixed number of entries, for values that can be read again at any time.
//!
//! [`BoundedCache`] limits the number of entries. [`ExpiringCache`] also limits their age. Both evict the oldest insert
//! first: a lookup changes nothing, so it needs only `&self` and costs one hash. They hold no lock and read no clock:
//! the caller brings the `Mutex` and the time. They must not hold state that cannot be rebuilt.

use std::borrow::Borrow;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use super::time::Timestamp;

/// A map with a capacity. An insert of a new key into a full cache evicts the entry that was inserted first.
///
/// Replacing the value of a key keeps the key's position in that order.
pub struct BoundedCache<K, V> {
    capacity: usize,
    entries: HashMap<K, CachedValue<V>>,
    /// Keys from the oldest insert to the newest, each with the number of its insert. A pair whose number is not the
    /// entry's belongs to a removed entry and is skipped.
    inserts: VecDeque<(u64, K)>,
    next_insert: u64,
}

struct CachedValue<V> {
    insert: u64,
    value: V,
}

impl<K: Clone + Eq + Hash, V> BoundedCache<K, V> {
    /// An empty cache. It allocates as it grows. A capacity of 0 counts as 1.
    pub fn new(capacity: usize) -> Self {
        Self { capacity: capacity.max(1), entries: HashMap::new(), inserts: VecDeque::new(), next_insert: 0 }
    }

    pub fn get<Q: ?Sized + Eq + Hash>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).map(|entry| &entry.value)
    }

    pub fn get_mut<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        self.entries.get_mut(key).map(|entry| &mut entry.value)
    }

    /// Returns the value that the key had before, if any.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if let Some(entry) = self.entries.get_mut(&key) {
            return Some(std::mem::replace(&mut entry.value, value));
        }
        while self.entries.len() >= self.capacity && self.evict_oldest() {}
        self.forget_removed_keys();
        let insert = self.next_insert;
        self.next_insert += 1;
        self.inserts.push_back((insert, key.clone()));
        self.entries.insert(key, CachedValue { insert, value });
        None
    }

    pub fn remove<Q: ?Sized + Eq + Hash>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.entries.remove(key).map(|entry| entry.value)
    }

    /// Removes every entry for which `keep` returns `false`. Takes time in proportion to the number of entries.
    pub fn retain(&mut self, mut keep: impl FnMut(&K, &V) -> bool) {
        self.entries.retain(|key, entry| keep(key, &entry.value));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.inserts.clear();
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns whether there was an insert to look at.
    fn evict_oldest(&mut self) -> bool {
        let Some((insert, key)) = self.inserts.pop_front() else { return false };
        if self.entries.get(&key).is_some_and(|entry| entry.insert == insert) {
            self.entries.remove(&key);
        }
        true
    }

    /// Keeps the list of inserts at twice the capacity or below. It walks the list at most once in `capacity` inserts.
    fn forget_removed_keys(&mut self) {
        if self.inserts.len() >= self.capacity.saturating_mul(2) {
            let entries = &self.entries;
            self.inserts.retain(|(insert, key)| entries.get(key).is_some_and(|entry| entry.insert == *insert));
        }
    }
}

/// Shows how full the cache is, never what is in it: a value may be a secret.
impl<K, V> fmt::Debug for BoundedCache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (entries, capacity) = (self.entries.len(), self.capacity);
        f.debug_struct("BoundedCache").field("entries", &entries).field("capacity", &capacity).finish_non_exhaustive()
    }
}

/// A [`BoundedCache`] whose entries also expire: a lookup returns only what was inserted less than `max_age` ago.
#[derive(Debug)]
pub struct ExpiringCache<K, V> {
    max_age: Duration,
    entries: BoundedCache<K, (Timestamp, V)>,
}

impl<K: Clone + Eq + Hash, V> ExpiringCache<K, V> {
    pub fn new(capacity: usize, max_age: Duration) -> Self {
        Self { max_age, entries: BoundedCache::new(capacity) }
    }

    /// Returns nothing for an entry that was inserted after `now`: the clock was set back and the age is unknown.
    pub fn get<Q: ?Sized + Eq + Hash>(&self, key: &Q, now: Timestamp) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let (inserted_at, value) = self.entries.get(key)?;
        let is_fresh = now >= *inserted_at && now.since(*inserted_at) < self.max_age;
        is_fresh.then_some(value)
    }

    /// Replacing the value of a key also renews its age.
    pub fn insert(&mut self, key: K, value: V, now: Timestamp) {
        self.entries.insert(key, (now, value));
    }

    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Counts expired entries too, until they are evicted or replaced.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(capacity: usize, keys: impl IntoIterator<Item = u32>) -> BoundedCache<u32, u32> {
        let mut cache = BoundedCache::new(capacity);
        for key in keys {
            cache.insert(key, key * 10);
        }
        cache
    }

    #[test]
    fn a_full_cache_evicts_its_oldest_insert() {
        let cache = filled(3, 1..=4);
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&4)), (None, Some(&20), Some(&40)));
        assert_eq!(cache.len(), 3);
    }

    #[test]
    fn a_lookup_and_a_replacement_keep_the_order() {
        let mut cache = filled(2, 1..=2);
        assert_eq!(cache.insert(1, 11), Some(10));
        assert_eq!(cache.get(&1), Some(&11));
        cache.insert(3, 30);
        assert_eq!((cache.get(&1), cache.get(&2)), (None, Some(&20)));
    }

    #[test]
    fn a_key_inserted_again_after_its_removal_is_the_newest() {
        let mut cache = filled(2, 1..=2);
        assert_eq!(cache.remove(&1), Some(10));
        cache.insert(1, 11);
        cache.insert(3, 30);
        assert_eq!((cache.get(&1), cache.get(&2), cache.get(&3)), (Some(&11), None, Some(&30)));
    }

    #[test]
    fn a_capacity_of_zero_holds_one_entry() {
        let cache = filled(0, 1..=2);
        assert_eq!((cache.len(), cache.get(&2)), (1, Some(&20)));
    }

    #[test]
    fn a_cleared_cache_is_empty_and_can_be_filled_again() {
        let mut cache = filled(2, 1..=2);
        cache.clear();
        assert!(cache.is_empty());
        for key in 3..=5 {
            cache.insert(key, key);
        }
        assert_eq!((cache.len(), cache.get(&3), cache.get(&5)), (2, None, Some(&5)));
    }

    #[test]
    fn the_debug_print_shows_no_value() {
        let mut cache = BoundedCache::new(2);
        cache.insert("key", "secret");
        assert_eq!(format!("{cache:?}"), "BoundedCache { entries: 1, capacity: 2, .. }");
    }

    #[test]
    fn an_entry_expires_at_its_maximum_age() {
        let at = Timestamp::from_millis;
        let mut cache = ExpiringCache::new(2, Duration::from_millis(100));
        cache.insert("key", 1, at(1_000));
        assert_eq!(cache.get("key", at(1_099)), Some(&1));
        assert_eq!(cache.get("key", at(1_100)), None);
        assert_eq!(cache.get("key", at(999)), None, "the clock was set back");
        cache.insert("key", 2, at(1_100));
        assert_eq!(cache.get("key", at(1_199)), Some(&2));
    }

    #[derive(Clone, Debug)]
    enum CacheStep {
        Insert(u8, u16),
        Remove(u8),
        RetainBelow(u8),
        Clear,
    }

    fn step() -> impl Strategy<Value = CacheStep> {
        prop_oneof![
            12 => (0_u8..12, any::<u16>()).prop_map(|(key, value)| CacheStep::Insert(key, value)),
            6 => (0_u8..12).prop_map(CacheStep::Remove),
            1 => (0_u8..12).prop_map(CacheStep::RetainBelow),
            1 => Just(CacheStep::Clear),
        ]
    }

    proptest! {
        /// The model is a list in the order of the inserts.
        #[test]
        fn the_cache_agrees_with_a_plain_list(
            capacity in 1_usize..6,
            steps in proptest::collection::vec(step(), 1..200),
        ) {
            let mut cache = BoundedCache::new(capacity);
            let mut model: Vec<(u8, u16)> = Vec::new();
            for step in steps {
                match step {
                    CacheStep::Insert(key, value) => {
                        cache.insert(key, value);
                        match model.iter_mut().find(|(known, _)| *known == key) {
                            Some(entry) => entry.1 = value,
                            None => {
                                if model.len() == capacity {
                                    model.remove(0);
                                }
                                model.push((key, value));
                            }
                        }
                    }
                    CacheStep::Remove(key) => {
                        let known = model.iter().position(|(known, _)| *known == key);
                        prop_assert_eq!(cache.remove(&key), known.map(|at| model.remove(at).1));
                    }
                    CacheStep::RetainBelow(limit) => {
                        cache.retain(|key, _| *key < limit);
                        model.retain(|(key, _)| *key < limit);
                    }
                    CacheStep::Clear => {
                        cache.clear();
                        model.clear();
                    }
                }
                prop_assert_eq!(cache.len(), model.len());
                prop_assert!(cache.len() <= capacity);
                prop_assert!(cache.inserts.len() <= 2 * capacity);
                for (key, value) in &model {
                    prop_assert_eq!(cache.get(key), Some(value));
                }
            }
        }
    }
}
