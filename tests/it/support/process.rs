//! The real binary, run as an operator runs it: commands that end, and servers that a test can signal or kill.

use std::path::Path;
use std::process::{ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinSet;

use super::caller::Caller;
use super::wait::{bounded, bounded_or};

/// A command that has ended.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

/// A server in its own process. Killed when dropped.
pub struct Serving {
    child: Child,
    caller: Caller,
    log: Arc<Mutex<Vec<String>>>,
    reading: JoinSet<()>,
}

/// Runs `postrider` with these arguments to its end.
pub async fn postrider(arguments: &[&str]) -> Ended {
    let output: Output = bounded("a command that ends", command(arguments).output()).await.expect("a binary");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output in UTF-8");
    Ended { status: output.status, stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Creates a key with `keys create`. Returns the printed JSON.
pub async fn create_key(data_dir: &Path, arguments: &[&str]) -> Value {
    let mut all = vec!["keys", "create", "--json", "--data-dir", path_text(data_dir)];
    all.extend_from_slice(arguments);
    let ended = postrider(&all).await;
    assert!(ended.status.success(), "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).expect("a line of JSON")
}

/// A path as an argument.
pub fn path_text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

impl Ended {
    /// The exit code and the standard error. Panics if the command succeeded.
    #[track_caller]
    pub fn failure(&self) -> (i32, &str) {
        assert!(!self.status.success(), "it ended well: {}", self.stdout);
        (self.status.code().expect("an exit code"), self.stderr.trim())
    }
}

impl Serving {
    /// `postrider serve` on a free port. Returns once it listens.
    pub async fn start(data_dir: &Path, arguments: &[&str]) -> Self {
        Self::of(serve(data_dir, arguments)).await
    }

    /// Starts a server with a command that logs at `info` or more. Returns once it listens.
    pub async fn of(command: Command) -> Self {
        let (mut serving, lines) = Self::unread(command).await;
        serving.go_on_reading(lines);
        serving
    }

    /// As [`Serving::of`], but nobody reads the log after the line that says where it listens. Drop the lines to close
    /// the pipe.
    pub async fn unread(mut command: Command) -> (Self, Lines<BufReader<ChildStderr>>) {
        let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a binary");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let log = Arc::new(Mutex::new(Vec::new()));
        let explain = || format!("a server that listens; it said {:?}", log.lock().expect("no holder panics"));
        let address = bounded_or(find_address(&mut lines, &log), explain).await;
        let caller = Caller::stranger(address.parse().expect("an address"));
        (Self { child, caller, log, reading: JoinSet::new() }, lines)
    }

    /// Keeps the lines of a log that was unread.
    pub fn go_on_reading(&mut self, lines: Lines<BufReader<ChildStderr>>) {
        self.reading.spawn(keep(lines, Arc::clone(&self.log)));
    }

    /// A caller without a key.
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The lines it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().expect("no holder panics").clone()
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id().expect("a process that runs")
    }

    /// Sends SIGKILL. The server finishes nothing and logs nothing.
    pub async fn kill(mut self) {
        bounded("the end of a killed process", self.child.kill()).await.expect("a process to kill");
    }

    /// Sends SIGTERM.
    pub async fn tell_to_stop(&self) {
        self.signal("-TERM").await;
    }

    /// Sends SIGHUP.
    pub async fn hang_up(&self) {
        self.signal("-HUP").await;
    }

    /// Sends SIGSTOP, which freezes the process.
    pub async fn pause(&self) {
        self.signal("-STOP").await;
    }

    /// Sends SIGCONT.
    pub async fn go_on(&self) {
        self.signal("-CONT").await;
    }

    async fn signal(&self, signal: &str) {
        let id = self.child.id().expect("a process that runs").to_string();
        let killing = Command::new("kill").args([signal, &id]).status();
        assert!(bounded("the signal", killing).await.expect("the kill command").success());
    }

    /// Waits for the end. Returns the exit status and all log lines.
    pub async fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = bounded("the end of the server", self.child.wait()).await.expect("a process");
        bounded("the end of its log", self.reading.join_next()).await;
        (status, self.log())
    }
}

/// The command for `postrider serve` on a free port, with a log in JSON.
pub fn serve(data_dir: &Path, arguments: &[&str]) -> Command {
    let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--log-format", "json"];
    all.extend_from_slice(&["--data-dir", path_text(data_dir)]);
    all.extend_from_slice(arguments);
    // Servers of other tests run at the same time, and a warning would be in the log.
    if !arguments.contains(&"--metrics-listen") {
        all.extend_from_slice(&["--metrics-listen", "off"]);
    }
    command(&all)
}

/// A command with an empty environment.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_postrider"));
    command.args(arguments).env_clear().stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn find_address(lines: &mut Lines<BufReader<ChildStderr>>, log: &Mutex<Vec<String>>) -> String {
    while let Some(line) = lines.next_line().await.expect("a log in UTF-8") {
        let address = address_in(&line);
        log.lock().expect("no holder panics").push(line);
        if let Some(address) = address {
            return address;
        }
    }
    panic!("the server ended before it listened: {:?}", log.lock().expect("no holder panics"));
}

/// Where the server listens, if this is the line that says so, as JSON or as text.
fn address_in(line: &str) -> Option<String> {
    match serde_json::from_str::<Value>(line) {
        Ok(entry) => (entry["message"] == "listening").then(|| entry["address"].as_str().map(str::to_owned)).flatten(),
        Err(_) => {
            let fields = line.split_once(" listening ")?.1;
            fields.split(' ').find_map(|field| field.strip_prefix("address=")).map(str::to_owned)
        }
    }
}

async fn keep(mut lines: Lines<BufReader<ChildStderr>>, log: Arc<Mutex<Vec<String>>>) {
    while let Ok(Some(line)) = lines.next_line().await {
        log.lock().expect("no holder panics").push(line);
    }
}
