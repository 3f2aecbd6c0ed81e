//! A PostgreSQL server for one test, which may stop it, crash it or make it refuse clients. It runs the installed
//! programs, listens on a free port of this machine, and is removed after the test.

use std::ffi::OsStr;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;
use tokio::process::Command;
use tokio_postgres::Client;

use super::postgres::{connect, skip};
use super::process::path_text;
use super::receiver::ReservedPort;
use super::wait::within;

/// The longest run of one program: to create a server, or to recover one after a crash, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running server. Stopped when dropped.
pub struct Cluster {
    directory: TempDir,
    programs: PathBuf,
    /// The user and group to run as when the tests run as root, because PostgreSQL refuses root.
    user: Option<(u32, u32)>,
    port: ReservedPort,
}

/// How a server shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// Ends the sessions and writes everything to disk.
    Fast,
    /// As in a crash: memory is lost, and the next start recovers from the log.
    Immediate,
}

impl Cluster {
    /// Starts a server with these lines added to its settings. Returns `None` and prints a message when PostgreSQL is
    /// not installed.
    ///
    /// # Panics
    /// In CI when it is not installed.
    pub async fn start(settings: &[&str]) -> Option<Self> {
        let Some(programs) = find_programs().await else {
            skip("every test with a PostgreSQL of its own, since initdb and pg_ctl are not installed");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let user = other_user(directory.path());
        if let Some((user, group)) = user {
            chown(directory.path(), Some(user), Some(group)).expect("a directory of ours");
        }
        let cluster = Self { directory, programs, user, port: ReservedPort::reserve() };
        let data = cluster.data();
        let made = ["-D", &data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"];
        cluster.run("initdb", &made).await;
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {}", cluster.port()),
            format!("unix_socket_directories = '{}'", path_text(cluster.directory.path())),
            "shared_buffers = '16MB'".to_owned(),
        ];
        lines.extend(settings.iter().map(|line| (*line).to_owned()));
        let path = Path::new(&data).join("postgresql.auto.conf");
        std::fs::write(path, lines.join("\n") + "\n").expect("a file of the server's");
        cluster.resume().await;
        Some(cluster)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port())
    }

    pub fn port(&self) -> u16 {
        self.port.number()
    }

    pub async fn client(&self) -> Client {
        self.try_client().await.expect("a server that runs")
    }

    /// # Errors
    /// When the server does not run.
    pub async fn try_client(&self) -> Result<Client, tokio_postgres::Error> {
        connect(&format!("{}?application_name=test", self.url())).await
    }

    /// Stops the server. Returns when it has ended.
    pub async fn stop(&self, how: Shutdown) {
        self.run("pg_ctl", &["stop", "-D", &self.data(), "-m", how.mode(), "-w"]).await;
    }

    /// Starts the stopped server. Returns when it accepts connections.
    pub async fn resume(&self) {
        let log = self.directory.path().join("log");
        self.run("pg_ctl", &["start", "-D", &self.data(), "-l", path_text(&log), "-w", "-t", "50"]).await;
    }

    pub async fn restart(&self, how: Shutdown) {
        self.stop(how).await;
        self.resume().await;
    }

    fn data(&self) -> String {
        path_text(&self.directory.path().join("data")).to_owned()
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).env_clear().current_dir(self.directory.path()).stdin(Stdio::null());
        // The server would keep inherited pipes open for as long as it runs.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        command
    }

    async fn run(&self, program: &str, arguments: &[&str]) {
        let running = self.command(program, arguments).status();
        let ended = within(PATIENCE, running, || format!("{program} {arguments:?}")).await.expect("a program");
        let log = || std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        assert!(ended.success(), "{program} {arguments:?}: {ended}; the server said {}", log());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let data = self.data();
        let mut stop = self.command("pg_ctl", &["stop", "-D", &data, "-m", "immediate", "-w"]).into_std();
        // It may have been stopped already.
        let _ = stop.status();
    }
}

impl Shutdown {
    const fn mode(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// The directory of `initdb` and `pg_ctl`: the newest version under `/usr/lib/postgresql`, or that of `pg_config`.
async fn find_programs() -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name().and_then(OsStr::to_str)?.parse().ok()?, path.join("bin")))
        })
        .collect();
    found.sort();
    let configured = Command::new("pg_config").arg("--bindir").output().await;
    let configured = configured.ok().filter(|output: &Output| output.status.success());
    let configured = configured.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let mut all = found.into_iter().rev().map(|(_, path)| path).chain(configured);
    all.find(|path| ["initdb", "pg_ctl"].iter().all(|program| path.join(program).exists()))
}

/// The user `postgres`, or else `nobody`, if the tests run as root.
pub(super) fn other_user(ours: &Path) -> Option<(u32, u32)> {
    if std::fs::metadata(ours).expect("a directory of ours").uid() != 0 {
        return None;
    }
    let users = std::fs::read_to_string("/etc/passwd").expect("a list of users");
    let find = |name: &str| {
        let mut fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let user = fields.find(|fields| fields.len() > 3 && fields[0] == name)?;
        Some((user[2].parse().ok()?, user[3].parse().ok()?))
    };
    find("postgres").or_else(|| find("nobody"))
}
