//! Listeners: endpoints without a URL, whose deliveries are leased by consumers.
//!
//! A listener's deliveries are rows of the queue as any others. Three things differ:
//!
//! - **The lane is delayed for ever.** Its row in `lanes` has `not_before` at [`NOT_YET`], so that the engine neither
//!   finds it nor waits for it. A claim that meets a listener without such a row gives it one. When the listener is
//!   deleted, the row is released, and the engine cancels what is queued, as for any endpoint.
//! - **A lease is a claim** with the same token, attempt number and expiry. Its holder is a consumer, which may outlive
//!   the process that made the claim: a start releases no leases.
//! - **A wake-up goes to the consumers** that wait for the listener ([`ListenerWaker`]). It is a hint, as the engine's.
//!
//! [`NOT_YET`]: crate::queue::order::NOT_YET

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use postrider_domain::id::{DeliveryId, EndpointId, InvalidId, RowKey};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;

use crate::{Claim, ClaimToken, Recorded, StoreError};

/// What the service asks of a store for the consumers of listeners. What they settle is recorded by
/// [`ConsumerAttempts`].
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    fn listener_waker(&self) -> Arc<ListenerWaker>;

    /// What waits in a listener's queue. `None` without such a listener. It reads only.
    async fn look_at_listener(&self, tenant: Tenant, id: EndpointId) -> Result<Option<ListenerQueue>, StoreError>;

    /// Claims up to `max` due deliveries of a listener for the length of a lease, and notes that it was seen. Claims
    /// fewer when they have many bytes. `None` without such a listener; nothing while it is off.
    async fn lease_due(&self, tenant: Tenant, id: EndpointId, max: usize) -> Result<Option<Vec<Lease>>, StoreError>;

    /// The leases that still hold, in the order of `held`. `None` without such a listener.
    async fn find_leases(
        &self,
        tenant: Tenant,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Option<Vec<Option<Lease>>>, StoreError>;

    /// Lets leases last from now on. Returns for each whether it still held, and when it ends. `None` without such a
    /// listener.
    async fn renew_leases(
        &self,
        tenant: Tenant,
        id: EndpointId,
        held: Vec<HeldLease>,
    ) -> Result<Option<Vec<Option<Timestamp>>>, StoreError>;
}

/// What the engine knows of an attempt that a consumer makes: its request, and what follows from its result.
#[async_trait]
pub trait ConsumerAttempts: Send + Sync + 'static {
    /// The headers that a receiver would get. `None` when the delivery cannot be signed, which is logged.
    async fn request_headers(&self, lease: &Lease) -> Option<Vec<(String, String)>>;

    /// Records attempts, judged as those of a receiver. Returns for each whether its lease still held.
    async fn settle(&self, attempted: Vec<ConsumerAttempt>) -> Result<Vec<Recorded>, StoreError>;

    /// Returns deliveries without an attempt. They are due at once, and the numbers of their attempts are free again.
    async fn release(&self, held: Vec<HeldLease>) -> Result<(), StoreError>;
}

/// An attempt that a consumer made.
#[derive(Clone, Debug)]
pub struct ConsumerAttempt {
    pub lease: Lease,
    pub result: ConsumerResult,
    pub duration: Option<Duration>,
}

/// How a consumer's attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConsumerResult {
    /// A status of HTTP.
    Status(u16),
    /// There was none, for this reason.
    Error(String),
}

/// A lease as its holder names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeldLease {
    pub delivery_id: DeliveryId,
    pub token: ClaimToken,
}

/// A delivery that a consumer may attempt until the lease ends.
#[derive(Clone, Debug)]
pub struct Lease {
    pub claim: Claim,
    /// The instant of the attempt, which its request carries.
    pub claimed_at: Timestamp,
    pub ends_at: Timestamp,
}

/// The token of a lease as text: 16 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseToken(pub ClaimToken);

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0.0.cast_unsigned())
    }
}

impl FromStr for LeaseToken {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let has_form = text.len() == 16 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        let token = u64::from_str_radix(text, 16).ok().filter(|_| has_form).ok_or(InvalidId)?;
        Ok(Self(ClaimToken(token.cast_signed())))
    }
}

/// What a listener's queue looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenerQueue {
    pub endpoint_key: RowKey,
    /// When the next delivery is due: zero if one is due now, `None` if none will be, or while the listener is off.
    pub next_due_in: Option<Duration>,
    /// For how long it has not been noted that a consumer was here.
    pub seen_ago: Duration,
}

/// Wakes the requests of this process that wait for a delivery to a listener.
#[derive(Debug, Default)]
pub struct ListenerWaker {
    waiting: Mutex<HashMap<RowKey, watch::Sender<()>>>,
}

impl ListenerWaker {
    /// Counts wake-ups from here on, so that none between a look into the queue and the wait is lost.
    pub fn wait_for(self: &Arc<Self>, listener: RowKey) -> ListenerWait {
        let receiver = self.waiting().entry(listener).or_insert_with(|| watch::channel(()).0).subscribe();
        ListenerWait { waker: Arc::clone(self), listener, receiver }
    }

    pub fn wake(&self, listeners: &[RowKey]) {
        if listeners.is_empty() {
            return;
        }
        let waiting = self.waiting();
        listeners.iter().filter_map(|listener| waiting.get(listener)).for_each(|sender| sender.send_replace(()));
    }

    pub fn wake_all(&self) {
        self.waiting().values().for_each(|sender| sender.send_replace(()));
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<RowKey, watch::Sender<()>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One waiting request.
pub struct ListenerWait {
    waker: Arc<ListenerWaker>,
    listener: RowKey,
    receiver: watch::Receiver<()>,
}

impl ListenerWait {
    /// Completes at the next wake-up since the last one.
    pub async fn woken(&mut self) {
        // The waker is there as long as this is, and so is the sender.
        let _ = self.receiver.changed().await;
    }
}

impl Drop for ListenerWait {
    fn drop(&mut self) {
        let mut waiting = self.waker.waiting();
        if waiting.get(&self.listener).is_some_and(|sender| sender.receiver_count() <= 1) {
            waiting.remove(&self.listener);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_and_nothing_else_is_one() {
        let token = LeaseToken(ClaimToken(0x0123_4567_89ab_cdef));
        assert_eq!(token.to_string(), "0123456789abcdef");
        assert_eq!("0123456789abcdef".parse::<LeaseToken>().unwrap(), token);
        for bad in ["", "0123456789abcde", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdef0"] {
            assert!(bad.parse::<LeaseToken>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_wake_up_before_the_wait_is_not_lost() {
        let (waker, listener) = (Arc::new(ListenerWaker::default()), RowKey::from_i64(7));
        let (mut first, mut second) = (waker.wait_for(listener), waker.wait_for(listener));
        waker.wake(&[RowKey::from_i64(8), listener]);
        first.woken().await;
        second.woken().await;
        assert!(tokio::time::timeout(Duration::ZERO, first.woken()).await.is_err(), "one wake-up wakes once");
        drop(first);
        assert_eq!(waker.waiting().len(), 1);
        drop(second);
        assert!(waker.waiting().is_empty(), "nothing is kept of those that wait no more");
    }
}
