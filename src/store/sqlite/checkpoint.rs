//! Moves what the write-ahead log holds into the database, off the commit path.
//!
//! A thread of its own checkpoints passively each time the log has grown by a stretch. Should the log outgrow what
//! that keeps up with, the writer itself stops to truncate it; beyond a last limit publishes are refused until the
//! log is short again, so that a disk does not fill without a word.

use std::path::{Path, PathBuf};
use std::sync::mpsc;

use rusqlite::Connection;

use crate::domain::limits;

use super::schema;

/// A passive checkpoint starts each time the log has grown by this much.
const STRETCH_BYTES: u64 = 16 * 1024 * 1024;

/// The writer's side: measures the log after each commit and asks for checkpoints.
pub struct Checkpointer {
    log_path: PathBuf,
    asked_at_bytes: u64,
    truncate_again_at_bytes: u64,
    requests: mpsc::SyncSender<()>,
}

impl Checkpointer {
    /// Starts the thread that checkpoints. It ends when the writer does.
    pub fn start(database: &Path) -> Result<Self, rusqlite::Error> {
        let connection = schema::connect(database)?;
        let (requests, queue) = mpsc::sync_channel::<()>(1);
        std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                for () in queue {
                    if let Err(error) = checkpoint(&connection, "PASSIVE") {
                        tracing::warn!(%error, "a checkpoint failed; the next one tries again");
                    }
                }
            })
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        let log_path = schema::log_path(database);
        Ok(Self { log_path, asked_at_bytes: 0, truncate_again_at_bytes: limits::WAL_TRUNCATE_BYTES, requests })
    }

    /// Returns whether the log is so long that new events must wait.
    pub fn after_commit(&mut self, connection: &Connection) -> bool {
        let mut bytes = self.log_bytes();
        if bytes < self.asked_at_bytes {
            (self.asked_at_bytes, self.truncate_again_at_bytes) = (0, limits::WAL_TRUNCATE_BYTES);
        }
        if bytes >= self.truncate_again_at_bytes {
            if let Err(error) = checkpoint(connection, "TRUNCATE") {
                tracing::warn!(%error, wal_bytes = bytes, "the write-ahead log could not be truncated");
            }
            bytes = self.log_bytes();
            // A reader that is still at work keeps the log; try again a stretch later, not at each commit.
            self.truncate_again_at_bytes = bytes.max(limits::WAL_TRUNCATE_BYTES - STRETCH_BYTES) + STRETCH_BYTES;
            self.asked_at_bytes = bytes;
        } else if bytes >= self.asked_at_bytes + STRETCH_BYTES {
            self.asked_at_bytes = bytes;
            // A request that finds one waiting already has nothing to add.
            let _ = self.requests.try_send(());
        }
        bytes >= limits::WAL_REFUSE_BYTES
    }

    fn log_bytes(&self) -> u64 {
        std::fs::metadata(&self.log_path).map_or(0, |metadata| metadata.len())
    }
}

fn checkpoint(connection: &Connection, mode: &str) -> Result<(), rusqlite::Error> {
    connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |_row| Ok(()))
}
