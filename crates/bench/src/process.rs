//! The server as a child process, and the resource use of processes as the kernel counts it.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// A running server with its own data directory.
pub struct ServerProcess {
    child: Child,
    pid: u32,
    pub address: SocketAddr,
    /// Where `/metrics` is, if the flags turn it on.
    pub metrics: Option<SocketAddr>,
}

const START_TIMEOUT: Duration = Duration::from_secs(20);
const STOP_TIMEOUT: Duration = Duration::from_secs(60);

impl ServerProcess {
    pub async fn start(program: &Path, data_dir: &Path, more: &[String]) -> io::Result<Self> {
        let mut child = Command::new(program)
            // Settings in the environment must not change what is measured, or on which database.
            .env_clear()
            .args(["serve", "--listen", "127.0.0.1:0", "--allow-target", "127.0.0.0/8", "--log-format", "json"])
            .args(["--log", "info"])
            .args(more)
            .arg("--data-dir")
            .arg(data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let pid = child.id().ok_or_else(|| io::Error::other("the server exited immediately"))?;
        let log = child.stderr.take().ok_or_else(|| io::Error::other("cannot read the server's log"))?;
        let mut lines = BufReader::new(log).lines();
        let listening = async {
            let mut metrics = None;
            while let Some(line) = lines.next_line().await? {
                let entry: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let address = entry["address"].as_str().and_then(|text| text.parse().ok());
                if entry["message"] == "serving metrics" {
                    metrics = address;
                } else if entry["message"] == "listening" {
                    let missing = || io::Error::other("the server's log contains no address");
                    return Ok((address.ok_or_else(missing)?, metrics));
                }
            }
            Err(io::Error::other("the server did not start"))
        };
        let (address, metrics) = tokio::time::timeout(START_TIMEOUT, listening).await.map_err(|_| {
            io::Error::other(format!("the server did not start within {} s", START_TIMEOUT.as_secs()))
        })??;
        // Keep reading the log: a full pipe would block the server.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok(Self { child, pid, address, metrics })
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub const fn pid(&self) -> u32 {
        self.pid
    }

    pub fn cost(&self) -> Cost {
        Cost::of_process(self.pid)
    }

    /// Sends SIGTERM and waits for the end. Returns how long that took.
    pub async fn stop(&mut self) -> io::Result<Duration> {
        let asked = std::time::Instant::now();
        Command::new("kill").args(["-TERM", &self.pid.to_string()]).status().await?;
        tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
            .await
            .map_err(|_| io::Error::other(format!("the server did not stop within {} s", STOP_TIMEOUT.as_secs())))??;
        Ok(asked.elapsed())
    }
}

/// The resources that a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub cpu: Duration,
    pub memory_bytes: u64,
    pub peak_memory_bytes: u64,
    pub written_bytes: u64,
}

impl Cost {
    pub fn of_this_process() -> Self {
        Self::of("self")
    }

    pub fn of_process(pid: u32) -> Self {
        Self::of(&pid.to_string())
    }

    pub fn plus(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            peak_memory_bytes: self.peak_memory_bytes + other.peak_memory_bytes,
            written_bytes: self.written_bytes + other.written_bytes,
        }
    }

    fn of(process: &str) -> Self {
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        Self {
            cpu: cpu_time(&read("stat")),
            memory_bytes: labelled(&read("status"), "VmRSS:") * 1024,
            peak_memory_bytes: labelled(&read("status"), "VmHWM:") * 1024,
            written_bytes: labelled(&read("io"), "write_bytes:"),
        }
    }
}

/// The limit of open files of this process and its children.
pub fn open_files_max() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    open_files(&limits).unwrap_or(u64::MAX)
}

/// The soft limit. `None` if there is none, or it cannot be read.
fn open_files(limits: &str) -> Option<u64> {
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

/// User and system time, including waited-for children. Linux reports hundredths of a second.
pub fn cpu_time(stat: &str) -> Duration {
    const USER: usize = 11; // counted after the name, which may contain spaces
    const TICK: Duration = Duration::from_millis(10);
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<u32>().ok()).unwrap_or_default();
    TICK * (USER..USER + 4).map(ticks).sum::<u32>()
}

fn labelled(text: &str, label: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// Total size of the files in a directory, in bytes.
pub fn directory_bytes(directory: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_of_open_files_is_read() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max open files            1024                 524288               files     \n";
        assert_eq!(open_files(limits), Some(1024));
        assert_eq!(open_files(&limits.replace("1024 ", "unlimited ")), None);
    }

    #[test]
    fn the_time_of_children_is_counted() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 0 0 0 0 0 100 20 3 4 20 0 1 0";
        assert_eq!(cpu_time(stat), Duration::from_millis(1270));
    }
}
