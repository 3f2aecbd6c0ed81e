//! Resolves host names: both address families, the fully qualified name only, within one time limit.
//!
//! It wraps the DNS library, so that nothing else depends on its defaults:
//! - No search domains: a name in a URL is fully qualified.
//! - No cache: pins are our cache, and a vetting must see the current answer.
//! - Partial answers are used: one family is enough.
//!
//! It must not judge addresses, not even those of `localhost`: `policy` does, for every answer alike.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::{Name, RecordType};
use tokio::time::{sleep, timeout};

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;

/// The name did not resolve.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("the name has no address")]
    NoAddress,
    #[error("no name server answered in time")]
    Timeout,
    #[error("the name servers failed to answer")]
    Failed,
}

impl ResolveError {
    /// Whether the next look-up may succeed. "No such name" is an answer; silence and failure are none.
    pub const fn is_passing(&self) -> bool {
        match self {
            Self::NoAddress => false,
            Self::Timeout | Self::Failed => true,
        }
    }
}

/// The resolver cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the DNS resolver from {origin}")]
pub struct ResolverSetupError {
    origin: &'static str,
    #[source]
    source: NetError,
}

#[derive(Clone, Debug)]
pub struct Resolver {
    dns: TokioResolver,
}

/// One query to one name server. With the retries below it fits into [`limits::LOOK_UP_TIMEOUT`]; set for the DNS
/// library.
const QUERY_TIMEOUT: Duration = Duration::from_millis(1500);
const QUERY_RETRIES: usize = 2;
/// How long the second family may still take after the first has answered with addresses. Some resolvers never answer
/// AAAA. Part of [`limits::LOOK_UP_TIMEOUT`].
const SECOND_FAMILY_GRACE: Duration = Duration::from_secs(1);

impl Resolver {
    /// Queries `servers`. When there are none, the system's servers and its hosts file.
    ///
    /// # Errors
    /// When the system's resolver configuration cannot be read.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, ResolverSetupError> {
        let (origin, built) = if servers.is_empty() {
            ("the system's configuration", TokioResolver::builder_tokio())
        } else {
            let config = ResolverConfig::from_name_servers(servers.iter().copied().map(name_server).collect());
            let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
            ("the given servers", Ok(builder))
        };
        let hosts_file = if servers.is_empty() { ResolveHosts::Always } else { ResolveHosts::Never };
        let dns = built.and_then(|mut builder| {
            limit(builder.options_mut(), hosts_file);
            builder.build()
        });
        Ok(Self { dns: dns.map_err(|source| ResolverSetupError { origin, source })? })
    }

    /// Every address that the name has now, without duplicates. IPv4-mapped addresses are returned as IPv4.
    ///
    /// # Errors
    /// When the name has no address, or no server answered within [`limits::LOOK_UP_TIMEOUT`].
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        let mut name = Name::from_ascii(name).map_err(|_| ResolveError::NoAddress)?;
        name.set_fqdn(true);
        let v6 = self.ask(name.clone(), RecordType::AAAA);
        let v4 = self.ask(name, RecordType::A);
        match timeout(limits::LOOK_UP_TIMEOUT, both_families(v6, v4, SECOND_FAMILY_GRACE)).await {
            Ok(answer) => answer,
            Err(_) => Err(ResolveError::Timeout),
        }
    }

    async fn ask(&self, name: Name, record_type: RecordType) -> Result<Vec<IpAddr>, ResolveError> {
        match self.dns.lookup(name, record_type).await {
            Ok(lookup) => {
                let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                Ok(addresses.map(|address| address.to_canonical()).collect())
            }
            Err(error) if error.is_no_records_found() => Err(ResolveError::NoAddress),
            Err(NetError::Timeout) => Err(ResolveError::Timeout),
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "a name server failed to answer");
                Err(ResolveError::Failed)
            }
        }
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

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.to_vec())
}

fn limit(options: &mut ResolverOpts, hosts_file: ResolveHosts) {
    options.timeout = QUERY_TIMEOUT;
    options.attempts = QUERY_RETRIES;
    options.cache_size = 0;
    options.ndots = 0;
    options.use_hosts_file = hosts_file;
    options.server_ordering_strategy = ServerOrderingStrategy::QueryStatistics;
    options.try_tcp_on_error = true;
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
