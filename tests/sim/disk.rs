//! The disk of a world. The store flushes its write-ahead log here: a flush takes time, may fail, and covers what was
//! in the log when it began. After a power failure the log ends where the last flush ended, or somewhat later.
//!
//! Only the log can lose anything: SQLite itself flushes the log before a checkpoint, and the database after it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use postrider_store_sqlite::FlushLog;

use crate::chance::Chance;

const DATABASE: &str = "postrider.db";
const LOG: &str = "postrider.db-wal";
const HEADER_BYTES: u64 = 32;
const FRAME_HEAD_BYTES: u64 = 24;

/// Where the valid frames of the log end. The salt names the round: the log restarts at the beginning of its file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct LogEnd {
    salt: [u8; 8],
    bytes: u64,
}

#[derive(Debug)]
struct State {
    flushed: LogEnd,
    chance: Chance,
    slowest_ms: u64,
    /// So many flushes succeed before one fails.
    fails_after: Option<u32>,
    /// A flush failed: the system has dropped what it should have written, so nothing after it counts either.
    has_hole: bool,
    flushes: u64,
    failed: u64,
}

/// The disk of one life.
#[derive(Clone, Debug)]
pub struct SimDisk {
    directory: PathBuf,
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    pub fn new(directory: &Path, chance: Chance, slowest_ms: u64) -> Self {
        let state = State {
            flushed: LogEnd::default(),
            chance,
            slowest_ms,
            fails_after: None,
            has_hole: false,
            flushes: 0,
            failed: 0,
        };
        Self { directory: directory.to_owned(), state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn set_slowest_ms(&self, slowest_ms: u64) {
        self.state().slowest_ms = slowest_ms;
    }

    /// One flush fails, after so many more.
    pub fn fail_after(&self, flushes: u32) {
        self.state().fails_after = Some(flushes);
    }

    pub fn failed(&self) -> u64 {
        self.state().failed
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Copies what is on the disk at a power failure, or what the page cache holds when only the process is killed.
    pub fn copy_to(&self, to: &Path, power_fails: bool) -> io::Result<()> {
        fs::create_dir_all(to)?;
        fs::copy(self.directory.join(DATABASE), to.join(DATABASE))?;
        let log = self.directory.join(LOG);
        if !log.exists() {
            return Ok(());
        }
        let written = log_end(&log, LogEnd::default())?;
        let mut state = self.state();
        let mut kept = written.bytes;
        if power_fails {
            let flushed = if state.flushed.salt == written.salt { state.flushed.bytes } else { 0 };
            // The system may have written more than it was asked to, but nothing beyond a hole is valid.
            let more = usize::try_from(written.bytes - flushed).expect("a short log");
            kept = flushed
                + match state.chance.below(4) {
                    0 if !state.has_hole => state.chance.below(more + 1) as u64,
                    1 if !state.has_hole => more as u64,
                    _ => 0,
                };
        }
        fs::copy(&log, to.join(LOG))?;
        File::options().write(true).open(to.join(LOG))?.set_len(kept)
    }
}

/// Follows the frames of the log's round, from where it ended before.
fn log_end(log: &Path, before: LogEnd) -> io::Result<LogEnd> {
    let file = File::open(log)?;
    let length = file.metadata()?.len();
    let mut header = [0; HEADER_BYTES as usize];
    if length < HEADER_BYTES {
        return Ok(LogEnd::default());
    }
    file.read_exact_at(&mut header, 0)?;
    let page_bytes = u64::from(u32::from_be_bytes(header[8..12].try_into().expect("4 bytes")));
    let salt: [u8; 8] = header[16..24].try_into().expect("8 bytes");
    let mut bytes = if before.salt == salt { before.bytes } else { HEADER_BYTES };
    let mut frame = [0; FRAME_HEAD_BYTES as usize];
    while bytes + FRAME_HEAD_BYTES + page_bytes <= length {
        file.read_exact_at(&mut frame, bytes)?;
        if frame[8..16] != salt {
            break;
        }
        bytes += FRAME_HEAD_BYTES + page_bytes;
    }
    Ok(LogEnd { salt, bytes })
}

#[async_trait]
impl FlushLog for SimDisk {
    async fn flush(&self) -> Result<(), io::Error> {
        let (wait, covers, fails) = {
            let mut state = self.state();
            let covers = log_end(&self.directory.join(LOG), state.flushed)?;
            let slowest = usize::try_from(state.slowest_ms).expect("few milliseconds");
            let wait = state.chance.below(slowest + 1);
            let fails = state.fails_after == Some(0);
            state.fails_after = state.fails_after.and_then(|left| left.checked_sub(1));
            (Duration::from_millis(wait as u64), covers, fails)
        };
        tokio::time::sleep(wait).await;
        let mut state = self.state();
        if fails {
            state.has_hole = true;
            state.failed += 1;
            return Err(io::Error::other("the simulated disk failed"));
        }
        state.flushes += 1;
        if !state.has_hole {
            state.flushed = covers;
        }
        Ok(())
    }
}
