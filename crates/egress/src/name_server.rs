//! The name servers: which ones there are, the order in which they are asked, and what their silence means.
//!
//! An answer counts, also "no such name". SERVFAIL, REFUSED, NOTIMP and silence do not: the next server is asked. The
//! verdict when none answers decides who is charged: the name, or we. It must not cache answers.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use tokio::time::Instant;

use super::resolver::ResolveError;
use postrider_domain::error_chain::Chain;
use postrider_domain::limits;

/// The resolver cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up the DNS resolver from {origin}")]
pub struct ResolverSetupError {
    origin: &'static str,
    #[source]
    source: NetError,
}

/// The files that describe the system's resolver.
#[derive(Clone, Debug)]
pub(super) struct SystemFiles {
    resolv_conf: PathBuf,
    hosts: PathBuf,
}

impl Default for SystemFiles {
    fn default() -> Self {
        Self { resolv_conf: "/etc/resolv.conf".into(), hosts: "/etc/hosts".into() }
    }
}

pub(super) struct NameServers {
    /// `None` for servers that the operator gave.
    files: Option<SystemFiles>,
    current: Mutex<Arc<ServerSet>>,
    answered_at: Mutex<Option<Instant>>,
}

/// The servers and the hosts file as they were read.
struct ServerSet {
    servers: Vec<TokioResolver>,
    hosts: Hosts,
    /// The server that answered last is asked first.
    preferred: AtomicUsize,
    read_from: FileStamps,
}

/// Time of change and length of both files.
type FileStamps = [Option<(SystemTime, u64)>; 2];

/// What one server said that is no answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Silence {
    /// Nothing, or a message that cannot be read.
    Silent,
    Unreachable,
    /// REFUSED: it does not serve us.
    Refused,
    /// SERVFAIL, NOTIMP and the like: it cannot say.
    Failed,
}

/// One query to one name server. Three rounds of a single server fit into [`limits::LOOK_UP_TIMEOUT`].
pub(super) const QUERY_TIMEOUT: Duration = Duration::from_millis(1500);
/// A lost packet must not decide: a silent server is asked again.
const ROUNDS: usize = 3;

impl NameServers {
    pub fn given(servers: &[SocketAddr]) -> Result<Self, ResolverSetupError> {
        let servers = servers.iter().copied().map(name_server).collect();
        let set = ServerSet::new(servers, Hosts::default(), FileStamps::default())
            .map_err(|source| ResolverSetupError { origin: "the given servers", source })?;
        Ok(Self { files: None, current: Mutex::new(Arc::new(set)), answered_at: Mutex::default() })
    }

    pub fn of_system(files: SystemFiles) -> Result<Self, ResolverSetupError> {
        let set = ServerSet::read(&files)
            .map_err(|source| ResolverSetupError { origin: "the system's configuration", source })?;
        Ok(Self { files: Some(files), current: Mutex::new(Arc::new(set)), answered_at: Mutex::default() })
    }

    /// Asks one server after the other until one answers.
    pub async fn ask(&self, name: &Name, record_type: RecordType) -> Result<Vec<IpAddr>, ResolveError> {
        let set = self.current();
        if let Some(decided) = set.in_hosts_file(name, record_type) {
            return decided;
        }
        let count = set.servers.len();
        let first = set.preferred.load(Ordering::Relaxed);
        let mut said = vec![Silence::Silent; count];
        for _ in 0..ROUNDS {
            for index in (0..count).map(|offset| (first + offset) % count) {
                if said[index] != Silence::Silent {
                    continue;
                }
                match set.servers[index].lookup(name.clone(), record_type).await {
                    Ok(lookup) => {
                        self.note_answer(&set, index);
                        let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                        return Ok(addresses.map(|address| address.to_canonical()).collect());
                    }
                    Err(error) if error.is_no_records_found() => {
                        self.note_answer(&set, index);
                        return Err(ResolveError::NoAddress);
                    }
                    Err(error) => {
                        tracing::debug!(error = %Chain(&error), "a name server failed to answer; asking the next");
                        said[index] = silence_of(&error);
                    }
                }
            }
        }
        Err(verdict(&said, self.answered_lately()))
    }

    /// Whether a name server has answered within the last minute, about any name.
    pub fn answered_lately(&self) -> bool {
        self.answered_at().is_some_and(|at| at.elapsed() < limits::NAME_SERVER_TRUST)
    }

    fn note_answer(&self, set: &ServerSet, index: usize) {
        set.preferred.store(index, Ordering::Relaxed);
        *self.answered_at() = Some(Instant::now());
    }

    /// The servers and the hosts file. Reads both files again when one has changed. A file that cannot be read now is
    /// tried again at the next look-up.
    fn current(&self) -> Arc<ServerSet> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = &self.files
            && files.stamps() != current.read_from
        {
            match ServerSet::read(files) {
                Ok(set) => *current = Arc::new(set),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), "cannot read /etc/resolv.conf again; the former name servers stay");
                }
            }
        }
        Arc::clone(&current)
    }

    fn answered_at(&self) -> MutexGuard<'_, Option<Instant>> {
        self.answered_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerSet {
    fn new(servers: Vec<NameServerConfig>, hosts: Hosts, read_from: FileStamps) -> Result<Self, NetError> {
        let servers = servers.into_iter().map(resolver_of).collect::<Result<_, _>>()?;
        Ok(Self { servers, hosts, preferred: AtomicUsize::new(0), read_from })
    }

    fn read(files: &SystemFiles) -> Result<Self, NetError> {
        // Before the files: a change while they are read is noticed at the next look-up.
        let stamps = files.stamps();
        let (config, _) = parse_resolv_conf(std::fs::read(&files.resolv_conf)?)?;
        let mut hosts = Hosts::default();
        if let Ok(file) = std::fs::File::open(&files.hosts) {
            hosts.read_hosts_conf(file)?;
        }
        Self::new(config.name_servers().to_vec(), hosts, stamps)
    }

    /// A name in the hosts file is decided there, for both families.
    fn in_hosts_file(&self, name: &Name, record_type: RecordType) -> Option<Result<Vec<IpAddr>, ResolveError>> {
        let find = |record_type| self.hosts.lookup_static_host(&Query::query(name.clone(), record_type));
        let (own, other) = match record_type {
            RecordType::A => (find(RecordType::A), RecordType::AAAA),
            _ => (find(RecordType::AAAA), RecordType::A),
        };
        match own {
            Some(lookup) => {
                let addresses = lookup.answers().iter().filter_map(|record| record.data.ip_addr());
                Some(Ok(addresses.map(|address| address.to_canonical()).collect()))
            }
            None => find(other).map(|_| Err(ResolveError::NoAddress)),
        }
    }
}

impl SystemFiles {
    fn stamps(&self) -> FileStamps {
        [&self.resolv_conf, &self.hosts].map(|path| {
            let metadata = std::fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// Who is at fault when no server answered. Servers that cannot be reached or refuse us say nothing about the name,
/// even if they answered a moment ago.
fn verdict(said: &[Silence], answered_lately: bool) -> ResolveError {
    if said.contains(&Silence::Failed) {
        ResolveError::Failed
    } else if answered_lately && said.contains(&Silence::Silent) {
        ResolveError::Timeout
    } else {
        ResolveError::Unavailable
    }
}

fn silence_of(error: &NetError) -> Silence {
    match error {
        NetError::Dns(DnsError::ResponseCode(ResponseCode::Refused)) => Silence::Refused,
        NetError::Dns(_) => Silence::Failed,
        NetError::Io(_) | NetError::NoConnections => Silence::Unreachable,
        _ => Silence::Silent,
    }
}

fn name_server(server: SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = server.port();
        connection
    });
    NameServerConfig::new(server.ip(), true, connections.to_vec())
}

/// A resolver for one server alone, so that each answer is known to be that server's.
fn resolver_of(server: NameServerConfig) -> Result<TokioResolver, NetError> {
    let config = ResolverConfig::from_name_servers(vec![server]);
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = QUERY_TIMEOUT;
    options.attempts = 0;
    options.cache_size = 0;
    options.ndots = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.try_tcp_on_error = true;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verdict_charges_the_name_only_with_evidence() {
        use Silence::{Failed, Refused, Silent, Unreachable};
        for (said, lately, charged) in [
            (&[Failed, Failed][..], false, true),
            (&[Failed, Silent], false, true),
            (&[Silent, Silent], true, true),
            (&[Silent, Silent], false, false),
            (&[Unreachable, Refused], false, false),
            (&[Unreachable, Refused], true, false),
            (&[Unreachable, Silent], true, true),
            (&[], false, false),
        ] {
            let charges = !matches!(verdict(said, lately), ResolveError::Unavailable);
            assert_eq!(charges, charged);
        }
    }

    #[tokio::test]
    async fn changed_files_are_read_again_and_the_hosts_file_decides() {
        let directory = std::env::temp_dir().join(format!("postrider-name-servers-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let files = SystemFiles { resolv_conf: directory.join("resolv.conf"), hosts: directory.join("hosts") };
        std::fs::write(&files.resolv_conf, "nameserver 127.0.0.1\n").unwrap();
        let servers = NameServers::of_system(files.clone()).unwrap();
        assert_eq!(servers.current().servers.len(), 1);
        std::fs::write(&files.hosts, "192.0.2.7 hooks.test\n").unwrap();
        std::fs::write(&files.resolv_conf, "nameserver 127.0.0.1\nnameserver 127.0.0.2\n").unwrap();
        assert_eq!(servers.current().servers.len(), 2);
        let name = Name::from_ascii("hooks.test.").unwrap();
        let found = servers.ask(&name, RecordType::A).await.unwrap();
        assert_eq!(found, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        let absent = servers.ask(&name, RecordType::AAAA).await;
        assert!(matches!(absent, Err(ResolveError::NoAddress)), "it is not asked elsewhere");
        std::fs::remove_file(&files.resolv_conf).unwrap();
        assert_eq!(servers.current().servers.len(), 2, "what cannot be read changes nothing");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
