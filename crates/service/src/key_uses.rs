//! When API keys were last used. A use is noted in memory, only when a key is looked up in the store: the cache of keys
//! spares most requests that. The server writes the notes to the store now and then, all in one transaction.

use std::collections::HashMap;
use std::sync::Mutex;

use postrider_domain::access::ApiKey;
use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;

use crate::error::ServiceError;
use crate::lock::lock;
use crate::service::Service;

/// Uses that the store does not know yet.
#[derive(Default)]
pub struct KeyUses(Mutex<HashMap<RowKey, Timestamp>>);

impl KeyUses {
    pub fn note(&self, key: RowKey, now: Timestamp) {
        lock(&self.0).insert(key, now);
    }

    /// The key with the later of the stored and the noted use.
    pub fn added_to(&self, key: ApiKey) -> ApiKey {
        let noted = lock(&self.0).get(&key.key).copied();
        ApiKey { last_used_at: key.last_used_at.max(noted), ..key }
    }
}

impl Service {
    /// Writes the noted uses to the store.
    ///
    /// # Errors
    /// When the store fails. The notes are kept for the next time.
    pub async fn record_key_uses(&self) -> Result<(), ServiceError> {
        let noted: Vec<(RowKey, Timestamp)> = lock(&self.key_uses.0).iter().map(|(key, at)| (*key, *at)).collect();
        if noted.is_empty() {
            return Ok(());
        }
        let now = self.clock.now();
        self.store.record_key_uses(noted.iter().map(|(key, at)| (*key, now.since(*at))).collect()).await?;
        let mut uses = lock(&self.key_uses.0);
        for (key, at) in noted {
            if uses.get(&key) == Some(&at) {
                uses.remove(&key);
            }
        }
        Ok(())
    }
}
