//! The real binary under the shim: what may happen to its calls, and how it ended.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::task::JoinHandle;

use crate::disk::Disk;
use crate::support::caller::Caller;
use crate::support::process::path_text;
use crate::support::wait::bounded;

/// The exit code of a process that the shim ended.
pub const POWER_FAILED: i32 = 86;

/// Ends the process at the `n`-th such call on a path with this suffix; `*` is any.
#[derive(Clone, Copy, Debug)]
pub struct Trigger {
    pub call: &'static str,
    pub suffix: &'static str,
    pub n: usize,
    /// 0 before the call, 1 during a flush, 2 after the call.
    pub when: usize,
}

/// Such calls fail from the `from`-th on, `count` times. Without an `errno` they write half.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: &'static str,
    pub suffix: &'static str,
    pub errno: i32,
    pub from: usize,
    pub count: usize,
}

pub const EIO: i32 = 5;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;
pub const SHORT: i32 = 0;

/// The settings of the shim for one process.
#[derive(Clone, Debug, Default)]
pub struct Power {
    pub trigger: Option<Trigger>,
    pub fault: Option<Fault>,
    /// The fault counts only while this file exists.
    pub fault_while: Option<PathBuf>,
    /// Flushes of paths with this suffix do nothing.
    pub lie: Option<&'static str>,
    /// The longest time of a flush.
    pub flush_us: usize,
    pub seed: u64,
}

impl Power {
    pub fn apply(&self, command: &mut Command, disk: &Disk) {
        let seed = (self.seed & 0xffff_ffff).to_string();
        command
            .env("LD_PRELOAD", shim())
            .env("POWER_DISK", disk.watched())
            .env("POWER_LOG", disk.record())
            .env("POWER_STASH", disk.stash())
            .env("POWER_SYNC_US", self.flush_us.to_string())
            .env("POWER_SEED", seed);
        if let Some(Trigger { call, suffix, n, when }) = self.trigger {
            command.env("POWER_TRIGGER", format!("{call} {suffix} {n} {when}"));
        }
        if let Some(Fault { call, suffix, errno, from, count }) = self.fault {
            command.env("POWER_FAULT", format!("{call} {suffix} {errno} {from} {count}"));
        }
        if let Some(path) = &self.fault_while {
            command.env("POWER_WHILE", path);
        }
        if let Some(suffix) = self.lie {
            command.env("POWER_LIE", suffix);
        }
    }
}

/// Compiles the shim once.
fn shim() -> &'static Path {
    static SHIM: OnceLock<PathBuf> = OnceLock::new();
    SHIM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/power/shim.c");
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("power-shim-{}.so", std::process::id()));
        let mut compiler = std::process::Command::new("cc");
        compiler.args(["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]).arg(&library).arg(source);
        assert!(compiler.status().expect("a C compiler named cc").success(), "the shim does not compile");
        library
    })
}

/// A server that listens. Killed when dropped.
pub struct Running {
    child: Child,
    pub caller: Caller,
    reading: JoinHandle<Vec<String>>,
}

/// A server that has ended, and the lines that it logged.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub log: Vec<String>,
}

impl Ended {
    pub fn lost_power(&self) -> bool {
        self.status.code() == Some(POWER_FAILED)
    }
}

/// Starts a server that logs JSON.
///
/// # Errors
/// When it ended before it listened.
pub async fn start(mut command: Command) -> Result<Running, Ended> {
    let mut child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().expect("a binary");
    let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
    let mut log = Vec::new();
    let address = bounded("a server that listens or ends", find_address(&mut lines, &mut log)).await;
    match address {
        Some(address) => {
            let caller = Caller::stranger(address.parse().expect("an address"));
            Ok(Running { child, caller, reading: tokio::spawn(keep(lines, log)) })
        }
        None => Err(Ended { status: child.wait().await.expect("a process"), log }),
    }
}

impl Running {
    pub fn signal(&self, signal: &str) {
        // It may have ended meanwhile.
        let Some(id) = self.child.id() else { return };
        let sent = std::process::Command::new("kill").args([signal, &id.to_string()]).stderr(Stdio::null()).status();
        sent.expect("the kill command");
    }

    pub async fn ended(mut self) -> Ended {
        let status = bounded("the end of the server", self.child.wait()).await.expect("a process");
        let log = bounded("the end of its log", self.reading).await.expect("a reader that does not panic");
        Ended { status, log }
    }
}

async fn find_address(lines: &mut Lines<BufReader<ChildStderr>>, log: &mut Vec<String>) -> Option<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        let entry: Value = serde_json::from_str(&line).unwrap_or_default();
        log.push(line);
        if entry["message"] == "listening" {
            return entry["address"].as_str().map(str::to_owned);
        }
    }
    None
}

async fn keep(mut lines: Lines<BufReader<ChildStderr>>, mut log: Vec<String>) -> Vec<String> {
    while let Ok(Some(line)) = lines.next_line().await {
        log.push(line);
    }
    log
}

/// Many short retries, so that a receiver that fails now and then never exhausts the schedule.
const SETTINGS: &[&str] = &[
    "--allow-target",
    "127.0.0.1",
    "--retry-schedule",
    "20ms,20ms,50ms,100ms,200ms,500ms,1s,1s",
    "--rate-limit-management",
    "0",
    "--rate-limit-publishing",
    "0",
    "--stop-grace",
    "2s",
];

/// `serve` with the settings of every world.
pub fn serve(disk: &Disk, key_file: Option<&Path>) -> Command {
    let mut arguments = SETTINGS.to_vec();
    if let Some(path) = key_file {
        arguments.extend(["--master-key-file", path_text(path)]);
    }
    crate::support::process::serve(&disk.data_dir(), &arguments)
}

/// What a ledger shares between tasks.
pub type Shared<T> = Arc<Mutex<T>>;
