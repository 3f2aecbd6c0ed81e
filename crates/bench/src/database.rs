//! The PostgreSQL database of a run: the flags for the servers under test, and its CPU time.
//!
//! CPU time can be measured only if PostgreSQL runs on this machine. Memory is not measured, because most of it is
//! shared. Nothing is created or dropped here: the user provides an empty database for the benchmark.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use url::Url;

use super::process::cpu_time;

/// The location of the database, as in the flags of the server.
#[derive(Clone, Debug)]
pub struct DatabaseOptions {
    pub url: String,
    pub password_file: Option<PathBuf>,
}

const DEFAULT_PORT: u16 = 5432;
/// The kernel's name of PostgreSQL processes. It does not depend on their titles.
const PROCESS_NAME: &str = "postgres";

impl DatabaseOptions {
    /// The flags for `serve` and `keys`.
    pub fn flags(&self) -> Vec<String> {
        let mut flags = vec!["--database-url".to_owned(), self.url.clone()];
        if let Some(file) = &self.password_file {
            flags.extend(["--database-password-file".to_owned(), file.display().to_string()]);
        }
        flags
    }

    /// CPU time of all processes of the database server so far. `None` if it is on another machine, or cannot be
    /// distinguished from other servers.
    pub fn cpu(&self) -> Option<Duration> {
        let port = local_port(&self.url)?;
        let processes = Process::all();
        let postmaster = postmaster(&processes, |process| port_of(process.pid), port)?;
        Some(time_of_tree(&processes, postmaster))
    }
}

/// The port, if the URL points at this machine.
fn local_port(url: &str) -> Option<u16> {
    let url = Url::parse(url).ok()?;
    let query: HashMap<_, _> = url.query_pairs().collect();
    let host = query.get("host").map_or_else(|| url.host_str().unwrap_or_default(), AsRef::as_ref);
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    let is_local =
        host.is_empty() || host == "localhost" || host.starts_with('/') || address.is_ok_and(|ip| ip.is_loopback());
    let port = query.get("port").and_then(|port| port.parse().ok()).or_else(|| url.port());
    is_local.then(|| port.unwrap_or(DEFAULT_PORT))
}

/// A process named `postgres`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Process {
    pid: u32,
    parent: u32,
    /// CPU time, including waited-for children.
    time: Duration,
}

impl Process {
    fn all() -> Vec<Self> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                Self::parse(pid, &fs::read_to_string(entry.path().join("stat")).ok()?)
            })
            .collect()
    }

    /// Parses `/proc/PID/stat`.
    fn parse(pid: u32, stat: &str) -> Option<Self> {
        let (before, after) = stat.rsplit_once(')')?;
        let name = before.split_once('(')?.1;
        let parent = after.split_whitespace().nth(1)?.parse().ok()?;
        (name == PROCESS_NAME).then(|| Self { pid, parent, time: cpu_time(stat) })
    }
}

/// The parent of all processes of a database server. If there are several servers, `port_of` identifies it.
fn postmaster(processes: &[Process], port_of: impl Fn(&Process) -> Option<u16>, port: u16) -> Option<u32> {
    let is_child = |process: &Process| processes.iter().any(|other| other.pid == process.parent);
    let postmasters: Vec<&Process> = processes.iter().filter(|process| !is_child(process)).collect();
    let on_port = postmasters.iter().find(|process| port_of(process) == Some(port));
    match (on_port, postmasters.as_slice()) {
        (Some(process), _) => Some(process.pid),
        // It runs as another user, so its directory is unreadable, but it is the only one.
        (None, [only]) if port_of(only).is_none() => Some(only.pid),
        _ => None,
    }
}

/// The working directory of a postmaster is its cluster, where line 4 of `postmaster.pid` is the port.
fn port_of(pid: u32) -> Option<u16> {
    let file = Path::new("/proc").join(pid.to_string()).join("cwd/postmaster.pid");
    fs::read_to_string(file).ok()?.lines().nth(3)?.trim().parse().ok()
}

/// The time of the postmaster includes ended children, because it waits for them. Running children are added.
fn time_of_tree(processes: &[Process], postmaster: u32) -> Duration {
    let is_of_it = |process: &&Process| process.pid == postmaster || process.parent == postmaster;
    processes.iter().filter(is_of_it).map(|process| process.time).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32, millis: u64) -> Process {
        Process { pid, parent, time: Duration::from_millis(millis) }
    }

    #[test]
    fn only_processes_named_postgres_are_read() {
        let stat = "17 (postgres) S 12 17 17 0 -1 4194304 9 0 0 0 100 20 3 4 20 0 1 0 7";
        assert_eq!(Process::parse(17, stat), Some(process(17, 12, 1270)));
        assert_eq!(Process::parse(17, &stat.replace("(postgres)", "(my (postgres)")), None);
        assert_eq!(Process::parse(17, &stat.replace("postgres", "postgrest")), None);
        assert_eq!(Process::parse(17, "17 (postgres"), None);
    }

    #[test]
    fn two_servers_are_distinguished_by_their_ports() {
        let processes =
            [process(10, 1, 100), process(11, 10, 20), process(12, 10, 3), process(20, 1, 7), process(21, 20, 1)];
        let ports = |process: &Process| if process.pid == 10 { Some(5432) } else { Some(5433) };
        let of_first = postmaster(&processes, ports, 5432).unwrap();
        assert_eq!(time_of_tree(&processes, of_first), Duration::from_millis(123));
        assert_eq!(postmaster(&processes, ports, 5433), Some(20));
        assert_eq!(postmaster(&processes, ports, 5434), None);
        assert_eq!(postmaster(&processes, |_| None, 5432), None, "the two cannot be distinguished");
        assert_eq!(postmaster(&processes[..3], |_| None, 5432), Some(10), "it is the only one");
    }

    #[test]
    fn a_database_on_another_machine_has_no_local_port() {
        assert_eq!(local_port("postgres://user@localhost/bench"), Some(5432));
        assert_eq!(local_port("postgresql://user@127.0.0.1:5433/bench"), Some(5433));
        assert_eq!(local_port("postgresql://user@[::1]:5433/bench"), Some(5433));
        assert_eq!(local_port("postgresql:///bench?host=/var/run/postgresql&port=5434"), Some(5434));
        assert_eq!(local_port("postgres://user@db.example.com/bench"), None);
        assert_eq!(local_port("postgres://user@10.0.0.7/bench"), None);
        assert_eq!(local_port("no url"), None);
    }
}
