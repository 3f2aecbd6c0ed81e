//! Limits what refused keys may cost: their number per address, and the look-ups that they cause.
//!
//! A good key works from any address, whatever else comes from there. So an address beyond its limit may still look up
//! a key that is not cached, but all such addresses together make one look-up at a time.

use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::caller::{AddressBlock, CallerAddress};
use postrider_domain::limits;
use postrider_domain::rate_limit::{Rate, SlidingWindow};
use postrider_domain::time::Timestamp;

use crate::lock::lock;

pub struct RefusedKeys {
    /// Requests whose address is not known share a window.
    windows: Mutex<BoundedCache<Option<AddressBlock>, SlidingWindow>>,
    look_ups: Semaphore,
    /// For addresses beyond their limit.
    suspect_look_ups: Semaphore,
}

impl RefusedKeys {
    /// Counts a refused key.
    ///
    /// # Errors
    /// When the address has reached its limit.
    pub fn count(&self, address: Option<CallerAddress>, now: Timestamp) -> Result<Rate, Rate> {
        let block = address.map(AddressBlock::of);
        let mut windows = lock(&self.windows);
        if windows.get(&block).is_none() {
            windows.insert(block, SlidingWindow::default());
        }
        let window = windows.get_mut(&block).expect("it was inserted just now");
        window.take(limits::REFUSED_KEYS_PER_MINUTE, now)
    }

    /// Waits until this address may look up a key in the store.
    pub async fn look_up(&self, address: Option<CallerAddress>, now: Timestamp) -> Option<SemaphorePermit<'_>> {
        let is_suspect = lock(&self.windows)
            .get_mut(&address.map(AddressBlock::of))
            .is_some_and(|window| window.is_full(limits::REFUSED_KEYS_PER_MINUTE, now));
        let look_ups = if is_suspect { &self.suspect_look_ups } else { &self.look_ups };
        // Nobody closes a semaphore.
        look_ups.acquire().await.ok()
    }
}

impl Default for RefusedKeys {
    fn default() -> Self {
        Self {
            windows: Mutex::new(BoundedCache::new(limits::REFUSED_ADDRESSES)),
            look_ups: Semaphore::new(limits::KEY_LOOK_UPS),
            suspect_look_ups: Semaphore::new(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_address_has_its_limit_of_refused_keys_a_minute() {
        let (refused, now) = (RefusedKeys::default(), Timestamp::from_millis(1_000_000));
        let address = |text: &str| Some(CallerAddress(text.parse::<IpAddr>().unwrap()));
        let limit = limits::REFUSED_KEYS_PER_MINUTE.get();
        assert!((0..limit).all(|_| refused.count(address("192.0.2.1"), now).is_ok()));
        assert_eq!(refused.count(address("192.0.2.1"), now).unwrap_err().reset, limits::RATE_WINDOW);
        assert!(refused.count(address("192.0.2.2"), now).is_ok());
        let later = now.plus(Duration::from_secs(60));
        assert!(refused.count(address("192.0.2.1"), later).is_ok());
    }
}
