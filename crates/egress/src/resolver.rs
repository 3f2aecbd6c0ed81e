//! Resolves host names: both address families, the fully qualified name only, within one time limit.
//!
//! It wraps the DNS library, so that nothing else depends on its defaults:
//! - No search domains: a name in a URL is fully qualified.
//! - No cache: pins are our cache, and a vetting must see the current answer.
//! - Partial answers are used: one family is enough.
//! - A name server that fails, refuses or is silent does not decide: the next one is asked. `name_server` has them.
//!
//! Concurrent look-ups of one name are one look-up, and the number of look-ups is limited. It must not judge addresses,
//! not even those of `localhost`: `policy` does, for every answer alike.

use std::collections::HashMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Shared, WeakShared};
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout_at};

use super::name_server::{NameServers, QUERY_TIMEOUT, ResolverSetupError, SystemFiles};
use postrider_domain::limits;
use postrider_metrics::{Counters, LookUpResult};

/// The name did not resolve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the name has no address")]
    NoAddress,
    #[error("no name server answered in time")]
    Timeout,
    #[error("the name servers failed to answer")]
    Failed,
    /// Our own fault: it says nothing about the name.
    #[error("no name server can be reached, or too many look-ups are waiting")]
    Unavailable,
}

impl ResolveError {
    /// Whether the next look-up may succeed. "No such name" is an answer; silence and failure are none.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::NoAddress => false,
            Self::Timeout | Self::Failed | Self::Unavailable => true,
        }
    }
}

const fn result_of(answer: &FamilyAnswer) -> LookUpResult {
    match answer {
        Ok(_) => LookUpResult::Found,
        Err(ResolveError::NoAddress) => LookUpResult::NoAddress,
        Err(ResolveError::Timeout) => LookUpResult::Timeout,
        Err(ResolveError::Failed) => LookUpResult::Failed,
        Err(ResolveError::Unavailable) => LookUpResult::Unavailable,
    }
}

#[derive(Clone)]
pub struct Resolver(Arc<LookUps>);

struct LookUps {
    servers: NameServers,
    permits: Semaphore,
    under_way: Mutex<HashMap<Box<str>, WeakShared<LookUp>>>,
    counted: Counters,
}

type LookUp = Pin<Box<dyn Future<Output = FamilyAnswer> + Send>>;

/// How long the second family may still take after the first has answered with addresses. Some resolvers never answer
/// AAAA. Part of [`limits::LOOK_UP_TIMEOUT`].
const SECOND_FAMILY_GRACE: Duration = Duration::from_secs(1);

impl Resolver {
    /// Queries `servers`. When there are none, the system's servers and its hosts file, and follows both when they
    /// change.
    ///
    /// # Errors
    /// When the system's resolver configuration cannot be read.
    pub fn new(servers: &[SocketAddr], counted: Counters) -> Result<Self, ResolverSetupError> {
        let servers = match servers {
            [] => NameServers::of_system(SystemFiles::default())?,
            given => NameServers::given(given)?,
        };
        Ok(Self::with(servers, counted))
    }

    fn with(servers: NameServers, counted: Counters) -> Self {
        let permits = Semaphore::new(limits::LOOK_UPS_AT_ONCE);
        Self(Arc::new(LookUps { servers, permits, under_way: Mutex::default(), counted }))
    }

    /// Every address that the name has now, without duplicates. IPv4-mapped addresses are returned as IPv4. A caller
    /// joins a look-up of the same name that is under way.
    ///
    /// # Errors
    /// When the name has no address, or no server answered within [`limits::LOOK_UP_TIMEOUT`].
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.join(name).await
    }

    /// Whether a look-up that takes too long is the fault of its name: a name server has answered within the last
    /// minute, about any name, and no look-up waits for others to end.
    pub fn is_answered(&self) -> bool {
        self.0.permits.available_permits() > 0 && self.0.servers.answered_lately()
    }

    fn join(&self, name: &str) -> Shared<LookUp> {
        let mut under_way = self.0.under_way();
        if let Some(look_up) = under_way.get(name).and_then(WeakShared::upgrade) {
            return look_up;
        }
        let (look_ups, owned) = (Arc::clone(&self.0), Box::<str>::from(name));
        let look_up: LookUp = Box::pin(async move {
            let answer = look_ups.look_up(&owned).await;
            look_ups.counted.increment(result_of(&answer));
            look_ups.under_way().remove(&owned);
            answer
        });
        let look_up = look_up.shared();
        // Entries of look-ups that all callers gave up stay until then.
        under_way.retain(|_, look_up| look_up.upgrade().is_some());
        if let Some(weak) = look_up.downgrade() {
            under_way.insert(name.into(), weak);
        }
        look_up
    }
}

impl LookUps {
    async fn look_up(&self, name: &str) -> FamilyAnswer {
        let mut name = Name::from_ascii(name).map_err(|_| ResolveError::NoAddress)?;
        name.set_fqdn(true);
        let deadline = Instant::now() + limits::LOOK_UP_TIMEOUT;
        let Ok(Ok(_permit)) = timeout_at(deadline, self.permits.acquire()).await else {
            // Other names held all permits. Nobody was asked about this one.
            return Err(ResolveError::Unavailable);
        };
        let asked_at = Instant::now();
        let v6 = self.servers.ask(&name, RecordType::AAAA);
        let v4 = self.servers.ask(&name, RecordType::A);
        match timeout_at(deadline, both_families(v6, v4, SECOND_FAMILY_GRACE)).await {
            Ok(answer) => answer,
            Err(_) if asked_at.elapsed() >= QUERY_TIMEOUT && self.servers.answered_lately() => {
                Err(ResolveError::Timeout)
            }
            // The servers had less time than one query may take, or they answer nobody.
            Err(_) => Err(ResolveError::Unavailable),
        }
    }

    fn under_way(&self) -> MutexGuard<'_, HashMap<Box<str>, WeakShared<LookUp>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").finish_non_exhaustive()
    }
}

type FamilyAnswer = Result<Vec<IpAddr>, ResolveError>;

/// Waits for both families, but at most `grace` for the second after the first has addresses.
async fn both_families(
    v6: impl Future<Output = FamilyAnswer>,
    v4: impl Future<Output = FamilyAnswer>,
    grace: Duration,
) -> FamilyAnswer {
    tokio::pin!(v6, v4);
    let (first, second) = tokio::select! {
        answer = &mut v6 => with_grace(answer, v4, grace).await,
        answer = &mut v4 => {
            let (v4, v6) = with_grace(answer, v6, grace).await;
            (v6, v4)
        }
    };
    let mut addresses = Vec::new();
    let mut fault = ResolveError::NoAddress;
    for answer in [first, second] {
        match answer {
            Ok(found) => {
                for address in found {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            Err(ResolveError::NoAddress) => {}
            Err(error) => fault = error,
        }
    }
    if addresses.is_empty() { Err(fault) } else { Ok(addresses) }
}

async fn with_grace(
    first: FamilyAnswer,
    second: impl Future<Output = FamilyAnswer>,
    grace: Duration,
) -> (FamilyAnswer, FamilyAnswer) {
    let found = matches!(&first, Ok(addresses) if !addresses.is_empty());
    let grace_over = async {
        if found {
            sleep(grace).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        second = second => (first, second),
        () = grace_over => (first, Err(ResolveError::Timeout)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn one_family_is_enough_when_the_other_fails() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        for fault in [ResolveError::NoAddress, ResolveError::Timeout, ResolveError::Failed] {
            let answer = both_families(async { Err(fault) }, async { Ok(vec![v4, v4]) }, LONG).await;
            assert_eq!(answer.unwrap(), [v4]);
        }
    }

    #[tokio::test]
    async fn a_failure_outweighs_an_empty_answer() {
        let answer =
            both_families(async { Err(ResolveError::NoAddress) }, async { Err(ResolveError::Failed) }, LONG).await;
        assert!(matches!(answer, Err(ResolveError::Failed)));
        let answer = both_families(async { Ok(vec![]) }, async { Err(ResolveError::NoAddress) }, LONG).await;
        assert!(matches!(answer, Err(ResolveError::NoAddress)));
    }

    #[tokio::test]
    async fn a_family_that_never_answers_delays_no_longer_than_the_grace() {
        let v4: IpAddr = "192.0.2.1".parse().unwrap();
        let answer = both_families(std::future::pending(), async { Ok(vec![v4]) }, Duration::from_millis(1)).await;
        assert_eq!(answer.unwrap(), [v4]);
    }
}
