//! Pins each endpoint's host to the vetted addresses of one look-up, for a day.
//!
//! Pins prevent DNS rebinding: connections go to the addresses that were vetted, not to what the name resolves to a
//! moment later. They are also our only DNS cache. A pin belongs to one endpoint: only look-ups for that endpoint move
//! or remove it, so that a registration by somebody else never does.
//! It must not connect. It never adds addresses to a pin: a new answer
//! is vetted as a whole and replaces the old one as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::policy::TargetPolicy;
use super::resolver::{ResolveError, Resolver};
use super::target::{Host, Origin, TargetUrl};
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::id::EndpointId;
use postrider_domain::limits;
use postrider_domain::target::{Requester, TargetRefusal};
use postrider_domain::time::{Clock, Timestamp};

/// The addresses that one connection may try.
#[derive(Clone, Debug)]
pub struct Pinned {
    pub addresses: Arc<[IpAddr]>,
    /// Counts the changes of the host's addresses. It shows whether another attempt has renewed the pin meanwhile.
    version: u64,
    /// Resolved for this call, so resolving again at once would be pointless.
    fresh: bool,
}

impl Pinned {
    /// Whether the host was looked up for this call. An address literal never is.
    pub fn was_resolved_now(&self) -> bool {
        self.fresh && self.version > 0
    }
}

#[derive(Clone, Debug, thiserror::Error)]
pub enum PinError {
    #[error(transparent)]
    Refused(#[from] TargetRefusal),
    #[error("the host could not be resolved")]
    Resolve(#[from] ResolveError),
}

/// The pins of all endpoints, limited in number.
///
/// A `BoundedCache` does not fit here: a pin with a look-up or a connection attempt under way must stay, so that there
/// is only one look-up at a time per pin.
pub struct Pins {
    policy: Arc<TargetPolicy>,
    resolver: Resolver,
    clock: Arc<dyn Clock>,
    hosts: Mutex<HashMap<PinKey, Arc<HostPin>>>,
    max_hosts: usize,
    /// Hosts that kept their addresses at a renewal, by name. Shared by all endpoints: it saves look-ups and moves no
    /// pin.
    unchanged: Mutex<BoundedCache<Arc<str>, Unchanged>>,
}

/// An endpoint, and the scheme, host and port of its URL: the verdict on plain `http` depends on the scheme.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct PinKey {
    endpoint: Option<EndpointId>,
    origin: Arc<Origin>,
}

/// The addresses that a name still had, or nobody could say otherwise.
struct Unchanged {
    addresses: Arc<[IpAddr]>,
    at: Timestamp,
}

impl Pins {
    pub fn new(policy: Arc<TargetPolicy>, resolver: Resolver, clock: Arc<dyn Clock>) -> Self {
        let unchanged = Mutex::new(BoundedCache::new(limits::UNCHANGED_HOSTS));
        Self { policy, resolver, clock, hosts: Mutex::default(), max_hosts: limits::PINNED_HOSTS, unchanged }
    }

    /// Returns the pinned addresses. Resolves first if there is no pin or it has expired. The addresses are vetted in
    /// any case, also an address literal, which needs no pin.
    ///
    /// # Errors
    /// When the target is refused or its name does not resolve.
    pub async fn addresses(&self, target: &TargetUrl, requester: Requester) -> Result<Pinned, PinError> {
        let Host::Name(name) = target.host() else { return self.address_literal(target, requester) };
        let host = self.host(target, requester);
        if let Some(pinned) = host.pinned(self.clock.now()) {
            return match self.vet(target, &pinned.addresses, requester) {
                Ok(()) => Ok(pinned),
                Err(refusal) => {
                    host.lock().pin = None;
                    Err(refusal.into())
                }
            };
        }
        self.look_up(&host, target, name, requester).await
    }

    /// Resolves and vets now, whatever is pinned, and replaces this endpoint's pin by the answer.
    ///
    /// # Errors
    /// When the target is refused (this also removes the pin) or its name does not resolve.
    pub async fn vet_now(&self, target: &TargetUrl, requester: Requester) -> Result<(), PinError> {
        let Host::Name(name) = target.host() else { return self.address_literal(target, requester).map(drop) };
        self.look_up(&self.host(target, requester), target, name, requester).await.map(drop)
    }

    /// Call it when no address of `failed` worked. Returns the new addresses if the host's addresses have changed.
    /// There is one look-up at a time per pin, and one a minute per host while its addresses stay the same.
    ///
    /// # Errors
    /// When the name now resolves to a refused address. This also removes the pin.
    pub async fn renew(
        &self,
        target: &TargetUrl,
        requester: Requester,
        failed: &Pinned,
    ) -> Result<Option<Pinned>, PinError> {
        let Host::Name(name) = target.host() else { return Ok(None) };
        if failed.fresh {
            return Ok(None);
        }
        let host = self.host(target, requester);
        let _looking_up = host.looking_up.lock().await;
        let now = self.clock.now();
        if let Some(pinned) = host.pinned(now).filter(|pinned| pinned.version != failed.version) {
            return Ok(Some(pinned));
        }
        if self.is_known_unchanged(name, failed, now) {
            return Ok(None);
        }
        match self.resolve_and_record(&host, target, name, requester).await {
            Ok(pinned) if pinned.version != failed.version => Ok(Some(pinned)),
            // Without an answer the vetted addresses stay pinned, and the caller keeps its own error.
            Ok(_) | Err(PinError::Resolve(_)) => {
                let unchanged = Unchanged { addresses: Arc::clone(&failed.addresses), at: self.clock.now() };
                self.unchanged().insert(Arc::clone(name), unchanged);
                Ok(None)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Whether a renewal within the last minute, for any endpoint, found exactly these addresses.
    fn is_known_unchanged(&self, name: &Arc<str>, failed: &Pinned, now: Timestamp) -> bool {
        self.unchanged().get(name).is_some_and(|unchanged| {
            now.since(unchanged.at) < limits::PIN_RENEWAL_INTERVAL && same_set(&unchanged.addresses, &failed.addresses)
        })
    }

    pub fn name_servers_answer(&self) -> bool {
        self.resolver.is_answered()
    }

    fn unchanged(&self) -> MutexGuard<'_, BoundedCache<Arc<str>, Unchanged>> {
        self.unchanged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn address_literal(&self, target: &TargetUrl, requester: Requester) -> Result<Pinned, PinError> {
        let Host::Address(address) = *target.host() else { unreachable!("only called for addresses") };
        self.vet(target, &[address], requester)?;
        Ok(Pinned { addresses: Arc::new([address]), version: 0, fresh: true })
    }

    /// One look-up at a time per pin. A caller that had to wait for another's look-up uses that outcome.
    async fn look_up(
        &self,
        host: &HostPin,
        target: &TargetUrl,
        name: &str,
        requester: Requester,
    ) -> Result<Pinned, PinError> {
        let seen = host.lock().look_ups;
        let _looking_up = host.looking_up.lock().await;
        if let Some(outcome) = host.outcome_after(seen) {
            return outcome;
        }
        self.resolve_and_record(host, target, name, requester).await
    }

    async fn resolve_and_record(
        &self,
        host: &HostPin,
        target: &TargetUrl,
        name: &str,
        requester: Requester,
    ) -> Result<Pinned, PinError> {
        let outcome = match self.resolver.resolve(name).await {
            Ok(addresses) => self.vet(target, &addresses, requester).map(|()| addresses).map_err(PinError::from),
            Err(error) => Err(error.into()),
        };
        host.record(outcome, self.clock.now())
    }

    fn vet(&self, target: &TargetUrl, addresses: &[IpAddr], requester: Requester) -> Result<(), TargetRefusal> {
        let verdict = self.policy.vet(target, addresses, requester);
        verdict.map_err(|reason| TargetRefusal { host: target.host().to_string(), reason, is_passing: false })
    }

    fn host(&self, target: &TargetUrl, requester: Requester) -> Arc<HostPin> {
        let key = PinKey { endpoint: requester.endpoint, origin: Arc::clone(target.origin()) };
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(&key) {
            return Arc::clone(host);
        }
        if hosts.len() >= self.max_hosts {
            evict_oldest(&mut hosts);
        }
        Arc::clone(hosts.entry(key).or_default())
    }
}

/// One endpoint's pin and its look-ups.
#[derive(Debug, Default)]
struct HostPin {
    state: Mutex<PinState>,
    /// Held during a look-up.
    looking_up: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct PinState {
    pin: Option<Pin>,
    versions: u64,
    look_ups: u64,
    last_outcome: Option<Result<Pinned, PinError>>,
}

#[derive(Debug)]
struct Pin {
    addresses: Arc<[IpAddr]>,
    version: u64,
    pinned_at: Timestamp,
}

impl HostPin {
    fn lock(&self) -> MutexGuard<'_, PinState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pinned(&self, now: Timestamp) -> Option<Pinned> {
        let state = self.lock();
        let pin = state.pin.as_ref().filter(|pin| now.since(pin.pinned_at) < limits::PIN_LIFETIME)?;
        Some(Pinned { addresses: Arc::clone(&pin.addresses), version: pin.version, fresh: false })
    }

    fn outcome_after(&self, seen: u64) -> Option<Result<Pinned, PinError>> {
        let state = self.lock();
        if state.look_ups == seen { None } else { state.last_outcome.clone() }
    }

    /// Records the outcome of a look-up: a vetted answer replaces the pin, a refusal removes it, no answer keeps it.
    fn record(&self, outcome: Result<Vec<IpAddr>, PinError>, now: Timestamp) -> Result<Pinned, PinError> {
        let mut state = self.lock();
        let outcome = outcome.map(|addresses| {
            let same = state.pin.as_ref().is_some_and(|pin| same_set(&pin.addresses, &addresses));
            if !same {
                state.versions += 1;
            }
            let pin = Pin { addresses: addresses.into(), version: state.versions, pinned_at: now };
            let pinned = Pinned { addresses: Arc::clone(&pin.addresses), version: pin.version, fresh: true };
            state.pin = Some(pin);
            pinned
        });
        if let Err(PinError::Refused(_)) = &outcome {
            state.pin = None;
        }
        state.look_ups += 1;
        state.last_outcome = Some(outcome.clone());
        outcome
    }
}

fn same_set(left: &[IpAddr], right: &[IpAddr]) -> bool {
    left.len() == right.len() && left.iter().all(|address| right.contains(address))
}

/// Evicts a sixteenth of the hosts, so that a full map is not searched for every new host. Hosts without a pin go
/// first, then the oldest pins. Hosts in use stay.
fn evict_oldest(hosts: &mut HashMap<PinKey, Arc<HostPin>>) {
    let age_of = |host: &HostPin| host.lock().pin.as_ref().map(|pin| pin.pinned_at);
    let idle = hosts.iter().filter(|(_, host)| Arc::strong_count(host) == 1);
    let mut by_age: Vec<_> = idle.map(|(key, host)| (age_of(host), key.clone())).collect();
    by_age.sort_unstable_by_key(|(pinned_at, _)| *pinned_at);
    by_age.truncate((hosts.len() / 16).max(1));
    for (_, key) in by_age {
        hosts.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn refused() -> PinError {
        let reason = postrider_domain::target::RefusalReason::Private;
        TargetRefusal { host: "a.example".to_owned(), reason, is_passing: false }.into()
    }

    #[test]
    fn a_pin_expires_after_its_lifetime() {
        let host = HostPin::default();
        let start = Timestamp::from_millis(0);
        host.record(Ok(addresses(&["192.0.2.1"])), start).unwrap();
        assert!(host.pinned(start.plus(limits::PIN_LIFETIME).minus(Duration::from_millis(1))).is_some());
        assert!(host.pinned(start.plus(limits::PIN_LIFETIME)).is_none());
    }

    #[test]
    fn a_refusal_removes_the_pin_and_no_answer_keeps_it() {
        let host = HostPin::default();
        let now = Timestamp::from_millis(0);
        host.record(Ok(addresses(&["192.0.2.1"])), now).unwrap();
        host.record(Err(ResolveError::Timeout.into()), now).unwrap_err();
        assert!(host.pinned(now).is_some());
        host.record(Err(refused()), now).unwrap_err();
        assert!(host.pinned(now).is_none());
    }

    #[test]
    fn the_same_answer_in_another_order_is_no_change() {
        let host = HostPin::default();
        let now = Timestamp::from_millis(0);
        let first = host.record(Ok(addresses(&["192.0.2.1", "192.0.2.2"])), now).unwrap();
        let same = host.record(Ok(addresses(&["192.0.2.2", "192.0.2.1"])), now).unwrap();
        assert_eq!(first.version, same.version);
        let moved = host.record(Ok(addresses(&["192.0.2.3"])), now).unwrap();
        assert_ne!(first.version, moved.version);
    }

    #[test]
    fn a_full_map_evicts_its_oldest_hosts_and_none_in_use() {
        let mut hosts = HashMap::new();
        let mut used = Vec::new();
        for number in 0..32_u16 {
            let target = TargetUrl::parse(&format!("https://host-{number}.example/")).unwrap();
            let host = Arc::new(HostPin::default());
            host.record(Ok(addresses(&["192.0.2.1"])), Timestamp::from_millis(number.into())).unwrap();
            if number == 0 {
                used.push(Arc::clone(&host));
            }
            hosts.insert(PinKey { endpoint: None, origin: Arc::clone(target.origin()) }, host);
        }
        evict_oldest(&mut hosts);
        let mut left: Vec<_> = hosts.keys().map(|key| key.origin.host.to_string()).collect();
        left.sort_unstable();
        assert_eq!(left.len(), 30);
        assert!(left.contains(&"host-0.example".to_owned()));
        assert!(!left.contains(&"host-1.example".to_owned()) && !left.contains(&"host-2.example".to_owned()));
    }
}
