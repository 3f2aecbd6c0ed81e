//! Pins each host to the vetted addresses of one look-up, for a day.
//!
//! Pins prevent DNS rebinding: connections go to the addresses that were vetted, not to what the name resolves to a
//! moment later. They are also our only DNS cache. It must not connect. It never adds addresses to a pin: a new answer
//! is vetted as a whole and replaces the old one as a whole.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::policy::TargetPolicy;
use super::resolver::{ResolveError, Resolver};
use super::target::{Host, Origin, TargetUrl};
use postrider_domain::limits;
use postrider_domain::target::TargetRefusal;
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

/// The pins of all hosts, limited in number.
///
/// A `BoundedCache` does not fit here: a host with a look-up or a connection attempt under way must stay, so that there
/// is only one look-up at a time per host.
pub struct Pins {
    policy: Arc<TargetPolicy>,
    resolver: Resolver,
    clock: Arc<dyn Clock>,
    /// By scheme, host and port: the verdict on plain `http` depends on the scheme.
    hosts: Mutex<HashMap<Arc<Origin>, Arc<HostPin>>>,
    max_hosts: usize,
}

impl Pins {
    pub fn new(policy: Arc<TargetPolicy>, resolver: Resolver, clock: Arc<dyn Clock>) -> Self {
        Self { policy, resolver, clock, hosts: Mutex::default(), max_hosts: limits::PINNED_HOSTS }
    }

    /// Returns the pinned addresses. Resolves first if there is no pin or it has expired. The addresses are vetted in
    /// any case, also an address literal, which needs no pin.
    ///
    /// # Errors
    /// When the target is refused or its name does not resolve.
    pub async fn addresses(&self, target: &TargetUrl) -> Result<Pinned, PinError> {
        let Host::Name(name) = target.host() else { return self.address_literal(target) };
        let host = self.host(target);
        if let Some(pinned) = host.pinned(self.clock.now()) {
            return match self.vet(target, &pinned.addresses) {
                Ok(()) => Ok(pinned),
                Err(refusal) => {
                    host.lock().pin = None;
                    Err(refusal.into())
                }
            };
        }
        self.look_up(&host, target, name).await
    }

    /// Resolves and vets now, whatever is pinned, and replaces the pin by the answer. Returns whether the addresses
    /// have changed.
    ///
    /// # Errors
    /// When the target is refused (this also removes the pin) or its name does not resolve.
    pub async fn vet_now(&self, target: &TargetUrl) -> Result<bool, PinError> {
        let Host::Name(name) = target.host() else { return self.address_literal(target).map(|_| false) };
        let host = self.host(target);
        let before = host.lock().pin.as_ref().map(|pin| pin.version);
        let pinned = self.look_up(&host, target, name).await?;
        Ok(before != Some(pinned.version))
    }

    /// Call it when no address of `failed` worked. Returns the new addresses if the host's addresses have changed.
    /// There is one look-up at a time per host, and one a minute while the addresses stay the same.
    ///
    /// # Errors
    /// When the name now resolves to a refused address. This also removes the pin.
    pub async fn renew(&self, target: &TargetUrl, failed: &Pinned) -> Result<Option<Pinned>, PinError> {
        let Host::Name(name) = target.host() else { return Ok(None) };
        if failed.fresh {
            return Ok(None);
        }
        let host = self.host(target);
        let _looking_up = host.looking_up.lock().await;
        let now = self.clock.now();
        if let Some(pinned) = host.pinned(now).filter(|pinned| pinned.version != failed.version) {
            return Ok(Some(pinned));
        }
        if host.unchanged_within(limits::PIN_RENEWAL_INTERVAL, now) {
            return Ok(None);
        }
        match self.resolve_and_record(&host, target, name).await {
            Ok(pinned) if pinned.version != failed.version => Ok(Some(pinned)),
            // Without an answer the vetted addresses stay pinned, and the caller keeps its own error.
            Ok(_) | Err(PinError::Resolve(_)) => Ok(None),
            Err(refused) => Err(refused),
        }
    }

    fn address_literal(&self, target: &TargetUrl) -> Result<Pinned, PinError> {
        let Host::Address(address) = *target.host() else { unreachable!("only called for addresses") };
        self.vet(target, &[address])?;
        Ok(Pinned { addresses: Arc::new([address]), version: 0, fresh: true })
    }

    /// One look-up at a time per host. A caller that had to wait for another's look-up uses that outcome.
    async fn look_up(&self, host: &HostPin, target: &TargetUrl, name: &str) -> Result<Pinned, PinError> {
        let seen = host.lock().look_ups;
        let _looking_up = host.looking_up.lock().await;
        if let Some(outcome) = host.outcome_after(seen) {
            return outcome;
        }
        self.resolve_and_record(host, target, name).await
    }

    async fn resolve_and_record(&self, host: &HostPin, target: &TargetUrl, name: &str) -> Result<Pinned, PinError> {
        let outcome = match self.resolver.resolve(name).await {
            Ok(addresses) => self.vet(target, &addresses).map(|()| addresses).map_err(PinError::from),
            Err(error) => Err(error.into()),
        };
        host.record(outcome, self.clock.now())
    }

    fn vet(&self, target: &TargetUrl, addresses: &[IpAddr]) -> Result<(), TargetRefusal> {
        let verdict = self.policy.vet(target, addresses);
        verdict.map_err(|reason| TargetRefusal { host: target.host().to_string(), reason })
    }

    fn host(&self, target: &TargetUrl) -> Arc<HostPin> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(target.origin()) {
            return Arc::clone(host);
        }
        if hosts.len() >= self.max_hosts {
            evict_oldest(&mut hosts);
        }
        Arc::clone(hosts.entry(Arc::clone(target.origin())).or_default())
    }
}

/// One host's pin and its look-ups.
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
    /// When the last look-up found no change.
    unchanged_at: Option<Timestamp>,
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

    fn unchanged_within(&self, span: Duration, now: Timestamp) -> bool {
        self.lock().unchanged_at.is_some_and(|at| now.since(at) < span)
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
            state.unchanged_at = same.then_some(now);
            if !same {
                state.versions += 1;
            }
            let pin = Pin { addresses: addresses.into(), version: state.versions, pinned_at: now };
            let pinned = Pinned { addresses: Arc::clone(&pin.addresses), version: pin.version, fresh: true };
            state.pin = Some(pin);
            pinned
        });
        match &outcome {
            Ok(_) => {}
            Err(PinError::Refused(_)) => state.pin = None,
            Err(PinError::Resolve(_)) => state.unchanged_at = Some(now),
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
fn evict_oldest(hosts: &mut HashMap<Arc<Origin>, Arc<HostPin>>) {
    let age_of = |host: &HostPin| host.lock().pin.as_ref().map(|pin| pin.pinned_at);
    let idle = hosts.iter().filter(|(_, host)| Arc::strong_count(host) == 1);
    let mut by_age: Vec<_> = idle.map(|(origin, host)| (age_of(host), Arc::clone(origin))).collect();
    by_age.sort_unstable_by_key(|(pinned_at, _)| *pinned_at);
    by_age.truncate((hosts.len() / 16).max(1));
    for (_, origin) in by_age {
        hosts.remove(&origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn refused() -> PinError {
        let reason = postrider_domain::target::RefusalReason::Private;
        TargetRefusal { host: "a.example".to_owned(), reason }.into()
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
        assert!(host.unchanged_within(limits::PIN_RENEWAL_INTERVAL, now.plus(Duration::from_secs(59))));
        assert!(!host.unchanged_within(limits::PIN_RENEWAL_INTERVAL, now.plus(Duration::from_secs(60))));
        let moved = host.record(Ok(addresses(&["192.0.2.3"])), now).unwrap();
        assert_ne!(first.version, moved.version);
        assert!(!host.unchanged_within(limits::PIN_RENEWAL_INTERVAL, now));
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
            hosts.insert(Arc::clone(target.origin()), host);
        }
        evict_oldest(&mut hosts);
        let mut left: Vec<_> = hosts.keys().map(|origin| origin.host.to_string()).collect();
        left.sort_unstable();
        assert_eq!(left.len(), 30);
        assert!(left.contains(&"host-0.example".to_owned()));
        assert!(!left.contains(&"host-1.example".to_owned()) && !left.contains(&"host-2.example".to_owned()));
    }
}
