//! Keys looked up a moment ago. A revocation made elsewhere counts as soon as an entry is too old, one made here at
//! once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use postrider_domain::access::{ApiKey, ApiKeyHash};
use postrider_domain::limits;
use postrider_domain::time::Timestamp;

use crate::lock::lock;

#[derive(Default)]
pub struct KeyCache(Mutex<HashMap<ApiKeyHash, (Arc<ApiKey>, Timestamp)>>);

impl KeyCache {
    pub fn get(&self, hash: ApiKeyHash, now: Timestamp) -> Option<Arc<ApiKey>> {
        let entries = lock(&self.0);
        let (key, since) = entries.get(&hash)?;
        let fresh = now >= *since && now.since(*since) < limits::KEY_CACHE_TTL;
        fresh.then(|| Arc::clone(key))
    }

    pub fn put(&self, hash: ApiKeyHash, key: Arc<ApiKey>, now: Timestamp) {
        let mut entries = lock(&self.0);
        if entries.len() >= limits::KEY_CACHE_ENTRIES {
            entries.clear();
        }
        entries.insert(hash, (key, now));
    }

    pub fn forget_all(&self) {
        lock(&self.0).clear();
    }
}
