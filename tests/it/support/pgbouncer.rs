//! PgBouncer in transaction mode in front of the PostgreSQL of one test. It has fewer connections to the database than
//! a node opens to it, so its clients really share them.

use std::io::ErrorKind;
use std::os::unix::fs::chown;
use std::path::PathBuf;
use std::process::Stdio;

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;
use tokio_postgres::SimpleQueryMessage;

use super::cluster::{Cluster, other_user};
use super::postgres::{connect, skip};
use super::process::path_text;
use super::receiver::ReservedPort;
use super::wait::{bounded, bounded_or};

/// Connections from PgBouncer to the database.
pub const CONNECTIONS: usize = 4;

/// One process of PgBouncer. Killed when dropped.
pub struct PgBouncer {
    directory: TempDir,
    program: PathBuf,
    /// The user and group to run as when the tests run as root, because PgBouncer refuses root.
    user: Option<(u32, u32)>,
    port: ReservedPort,
    /// `None` while it is killed.
    running: Option<Running>,
}

struct Running {
    child: Child,
    /// Drains its log.
    _reading: JoinSet<()>,
}

impl PgBouncer {
    /// Starts PgBouncer with the fewest settings it needs. Returns `None` and prints a message when it is not
    /// installed.
    ///
    /// # Panics
    /// In CI when it is not installed.
    pub async fn before(cluster: &Cluster) -> Option<Self> {
        let Some(program) = find_program().await else {
            skip("every test behind PgBouncer, since it is not installed. To run them: apt-get install pgbouncer");
            return None;
        };
        let directory = tempfile::tempdir().expect("a directory");
        let user = other_user(directory.path());
        let mut pooler = Self { directory, program, user, port: ReservedPort::reserve(), running: None };
        let lines = [
            "[databases]".to_owned(),
            // `auth_type = any` ignores the user name of the client, so the user is named here.
            format!("* = host=127.0.0.1 port={} user=postgres", cluster.port()),
            "[pgbouncer]".to_owned(),
            "auth_type = any".to_owned(),
            "listen_addr = 127.0.0.1".to_owned(),
            format!("listen_port = {}", pooler.port.number()),
            "unix_socket_dir =".to_owned(),
            "pool_mode = transaction".to_owned(),
            format!("default_pool_size = {CONNECTIONS}"),
        ];
        std::fs::write(pooler.settings(), lines.join("\n") + "\n").expect("a file");
        if let Some((user, group)) = user {
            chown(pooler.directory.path(), Some(user), Some(group)).expect("a directory of ours");
        }
        pooler.resume().await;
        Some(pooler)
    }

    pub fn url(&self) -> String {
        self.url_of("postgres")
    }

    /// Sends SIGKILL, which breaks every connection to it and through it. Returns once it has ended.
    pub async fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        bounded("the end of a killed PgBouncer", running.child.kill()).await.expect("a process to kill");
    }

    /// Starts it again on the same port. Returns when it accepts connections.
    pub async fn resume(&mut self) {
        let mut command = Command::new(&self.program);
        command.arg(self.settings()).current_dir(self.directory.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        if let Some((user, group)) = self.user {
            command.uid(user).gid(group);
        }
        let mut child = command.spawn().expect("a program that was found");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut said = Vec::new();
        let listening = until_up(&mut lines, &mut said);
        let is_up = bounded("a PgBouncer that listens", listening).await;
        assert!(is_up, "PgBouncer ended before it listened: {said:?}");
        let mut reading = JoinSet::new();
        reading.spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        self.running = Some(Running { child, _reading: reading });
    }

    /// The number of clients, and the number of connections to the database.
    pub async fn shares(&self) -> (usize, usize) {
        (self.count("SHOW CLIENTS").await, self.count("SHOW SERVERS").await)
    }

    /// The number of rows about the database `postgres` that the console returns.
    async fn count(&self, command: &str) -> usize {
        let console = connect(&self.url_of("pgbouncer")).await.expect("the console");
        let answered = bounded_or(console.simple_query(command), || command.to_owned()).await.expect("an answer");
        let is_of_database = |message: &&SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => row.get("database") == Some("postgres"),
            _ => false,
        };
        answered.iter().filter(is_of_database).count()
    }

    fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port.number())
    }

    fn settings(&self) -> String {
        path_text(&self.directory.path().join("pgbouncer.ini")).to_owned()
    }
}

/// Returns whether it is up. If not, it has ended, and `said` holds its log.
async fn until_up(lines: &mut Lines<BufReader<ChildStderr>>, said: &mut Vec<String>) -> bool {
    while let Some(line) = lines.next_line().await.expect("a log in UTF-8") {
        let is_up = line.contains("process up");
        said.push(line);
        if is_up {
            return true;
        }
    }
    false
}

/// Debian installs it in `/usr/sbin`, which is in the `PATH` of root only.
async fn find_program() -> Option<PathBuf> {
    for path in ["pgbouncer", "/usr/sbin/pgbouncer"] {
        let version = Command::new(path).arg("--version").stdin(Stdio::null()).output().await;
        match version {
            Ok(output) if output.status.success() => return Some(path.into()),
            Ok(output) => panic!("{path} --version: {output:?}"),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{path}: {error}"),
        }
    }
    None
}
