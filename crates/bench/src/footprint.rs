//! What the servers occupy during a run: files and memory, and whether they grow.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::figures::{MEGABYTE, bytes};
use super::process::{Cost, directory_bytes};

/// What was occupied at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    pub file_bytes: u64,
    pub memory_bytes: u64,
}

/// Looks at a run until it is dropped.
pub struct FootprintWatch {
    seen: Arc<Mutex<Vec<Footprint>>>,
    task: JoinHandle<()>,
}

/// How much more the last quarter may occupy than the second: files go up and down with each round of retention, memory
/// with the load.
const FILES_TREND_MAX: f64 = 1.1;
const MEMORY_TREND_MAX: f64 = 1.2;
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl FootprintWatch {
    pub fn start(servers: Vec<u32>, directories: Vec<PathBuf>) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            loop {
                let footprint = Footprint {
                    file_bytes: directories.iter().map(|directory| directory_bytes(directory)).sum(),
                    memory_bytes: servers.iter().map(|pid| Cost::of_process(*pid).memory_bytes).sum(),
                };
                kept.lock().unwrap_or_else(PoisonError::into_inner).push(footprint);
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        });
        Self { seen, task }
    }

    pub fn end(self) -> Vec<Footprint> {
        std::mem::take(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for FootprintWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The most that the second and the last quarter of a run occupied. The first quarter fills files and caches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trend {
    pub second: Footprint,
    pub last: Footprint,
}

impl Trend {
    pub fn of(seen: &[Footprint]) -> Self {
        let quarter = seen.len() / 4;
        let most = |part: &[Footprint]| Footprint {
            file_bytes: part.iter().map(|seen| seen.file_bytes).max().unwrap_or_default(),
            memory_bytes: part.iter().map(|seen| seen.memory_bytes).max().unwrap_or_default(),
        };
        Self { second: most(&seen[quarter..2 * quarter]), last: most(&seen[seen.len() - quarter..]) }
    }

    pub fn files(self) -> f64 {
        ratio(self.last.file_bytes, self.second.file_bytes)
    }

    pub fn memory(self) -> f64 {
        ratio(self.last.memory_bytes, self.second.memory_bytes)
    }

    pub fn is_flat(self) -> bool {
        self.files() <= FILES_TREND_MAX && self.memory() <= MEMORY_TREND_MAX
    }

    pub fn text(self) -> String {
        let megabytes = |number| bytes(number) / MEGABYTE;
        format!(
            "files took at most {:.1} MB in the second quarter and {:.1} MB in the last, memory {:.1} and {:.1} MB",
            megabytes(self.second.file_bytes),
            megabytes(self.last.file_bytes),
            megabytes(self.second.memory_bytes),
            megabytes(self.last.memory_bytes),
        )
    }
}

fn ratio(later: u64, earlier: u64) -> f64 {
    bytes(later) / bytes(earlier.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(files: [u64; 8], memory: u64) -> Vec<Footprint> {
        files.into_iter().map(|file_bytes| Footprint { file_bytes, memory_bytes: memory }).collect()
    }

    #[test]
    fn the_last_quarter_is_compared_with_the_second() {
        let flat = Trend::of(&seen([1, 5, 80, 100, 90, 200, 95, 109], 7));
        assert_eq!([flat.second.file_bytes, flat.last.file_bytes], [100, 109]);
        assert!(flat.is_flat());
        assert!(!Trend::of(&seen([1, 5, 80, 100, 90, 200, 95, 111], 7)).is_flat());
        let mut leaking = seen([1; 8], 100);
        leaking[7].memory_bytes = 121;
        assert!(!Trend::of(&leaking).is_flat());
    }
}
