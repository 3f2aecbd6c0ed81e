//! API keys that were looked up a moment ago, and hashes for which no key was found.
//!
//! A key revoked by another process stays valid until its entry expires. A key revoked by this process is refused at
//! once. A key created by this process is found at once, one of another process when the entry of its hash expires.

use std::sync::{Arc, Mutex};

use postrider_domain::access::{ApiKey, ApiKeyHash};
use postrider_domain::bounded_cache::ExpiringCache;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

use crate::lock::lock;

pub struct KeyCache {
    found: Mutex<ExpiringCache<ApiKeyHash, Arc<ApiKey>>>,
    /// Apart from the found keys, so that guesses evict none of them.
    missing: Mutex<Missing>,
}

struct Missing {
    hashes: ExpiringCache<ApiKeyHash, ()>,
    /// Counts the keys that this process has created. A look-up that began before the last of them proves nothing.
    created: u64,
}

/// What is known of a hash without asking the store.
pub enum CachedKey {
    Found(Arc<ApiKey>),
    Missing,
    /// Ask the store, then [`KeyCache::put`] the result with this number.
    Unknown(u64),
}

impl KeyCache {
    pub fn get(&self, hash: ApiKeyHash, now: Timestamp) -> CachedKey {
        if let Some(key) = lock(&self.found).get(&hash, now) {
            return CachedKey::Found(Arc::clone(key));
        }
        let missing = lock(&self.missing);
        if missing.hashes.get(&hash, now).is_some() { CachedKey::Missing } else { CachedKey::Unknown(missing.created) }
    }

    /// `asked` is the number that [`Self::get`] returned before the look-up.
    pub fn put(&self, hash: ApiKeyHash, key: Option<Arc<ApiKey>>, asked: u64, now: Timestamp) {
        if let Some(key) = key {
            lock(&self.found).insert(hash, key, now);
            return;
        }
        let mut missing = lock(&self.missing);
        if missing.created == asked {
            missing.hashes.insert(hash, (), now);
        }
    }

    /// To be called after a key was created, before anybody learns it.
    pub fn forget_missing(&self) {
        let mut missing = lock(&self.missing);
        missing.hashes.clear();
        missing.created += 1;
    }

    pub fn forget_all(&self) {
        lock(&self.found).clear();
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        let hashes = ExpiringCache::new(limits::KEY_CACHE_ENTRIES, limits::KEY_CACHE_TTL);
        Self {
            found: Mutex::new(ExpiringCache::new(limits::KEY_CACHE_ENTRIES, limits::KEY_CACHE_TTL)),
            missing: Mutex::new(Missing { hashes, created: 0 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HASH: ApiKeyHash = ApiKeyHash([7; 32]);

    fn asked(cache: &KeyCache, now: Timestamp) -> Option<u64> {
        match cache.get(HASH, now) {
            CachedKey::Unknown(asked) => Some(asked),
            CachedKey::Missing => None,
            CachedKey::Found(_) => panic!("no key was put"),
        }
    }

    #[test]
    fn a_missing_key_is_remembered_until_one_is_created() {
        let (cache, now) = (KeyCache::default(), Timestamp::from_millis(1_000_000));
        let first = asked(&cache, now).unwrap();
        cache.put(HASH, None, first, now);
        assert_eq!(asked(&cache, now), None);
        assert!(asked(&cache, now.plus(limits::KEY_CACHE_TTL)).is_some(), "within 5 s of its creation elsewhere");
        assert_eq!(asked(&cache, now.plus(limits::KEY_CACHE_TTL - Duration::from_millis(1))), None);
        cache.forget_missing();
        assert!(asked(&cache, now).is_some());
        cache.put(HASH, None, first, now);
        assert!(asked(&cache, now).is_some(), "that look-up began before the key was created");
    }
}
