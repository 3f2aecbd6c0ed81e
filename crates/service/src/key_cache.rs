//! API keys that were looked up a moment ago. A key revoked by another process stays valid until its entry expires. A
//! key revoked by this process is refused at once.

use std::sync::{Arc, Mutex};

use postrider_domain::access::{ApiKey, ApiKeyHash};
use postrider_domain::bounded_cache::ExpiringCache;
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

use crate::lock::lock;

pub struct KeyCache(Mutex<ExpiringCache<ApiKeyHash, Arc<ApiKey>>>);

impl KeyCache {
    pub fn get(&self, hash: ApiKeyHash, now: Timestamp) -> Option<Arc<ApiKey>> {
        lock(&self.0).get(&hash, now).map(Arc::clone)
    }

    pub fn put(&self, hash: ApiKeyHash, key: Arc<ApiKey>, now: Timestamp) {
        lock(&self.0).insert(hash, key, now);
    }

    pub fn forget_all(&self) {
        lock(&self.0).clear();
    }
}

impl Default for KeyCache {
    fn default() -> Self {
        Self(Mutex::new(ExpiringCache::new(limits::KEY_CACHE_ENTRIES, limits::KEY_CACHE_TTL)))
    }
}
