//! Backups of a store: what one is, what its manifest says, and how a store takes one.
//!
//! [`mod@file`] writes and checks the file of a backup. A back end copies its pages into that file. Only SQLite does:
//! PostgreSQL has its own tools, and its back end says so.

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use postrider_domain::time::Timestamp;

use crate::OpenError;

pub mod file;

/// The fact that marks a store as a copy of another one. It is present in each backup, and is removed when the operator
/// says that the store is the only one. While it is present, the server sends nothing.
pub const RESTORED_COPY: &str = "restored_copy";

/// The fact that names the last good backup: see [`LastBackup`].
pub const LAST_BACKUP: &str = "last_backup";

/// The last good backup of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastBackup {
    /// The instant of its snapshot.
    pub at: Timestamp,
    pub bytes: u64,
}

impl LastBackup {
    pub fn to_fact(self) -> Vec<u8> {
        [self.at.millis().to_be_bytes(), self.bytes.to_be_bytes()].concat()
    }

    /// `None` for bytes that no version of this program writes.
    pub fn from_fact(bytes: &[u8]) -> Option<Self> {
        let (at, bytes) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            at: Timestamp::from_millis(i64::from_be_bytes(*at)),
            bytes: u64::from_be_bytes(bytes.try_into().ok()?),
        })
    }
}

/// The form of manifests that this version writes.
pub const MANIFEST_FORMAT: u32 = 1;

/// What is known about the file of a backup. It stands beside the file as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    pub format: u32,
    /// The version of the program that took the backup.
    pub postrider: String,
    pub schema_version: u32,
    /// Eight hexadecimal digits.
    pub store_tag: String,
    /// The instant of the snapshot. Everything that was acknowledged before is in the file.
    pub taken_at: String,
    /// The largest row key, and the instant that it carries.
    pub last_key: i64,
    pub last_key_at: String,
    pub bytes: u64,
    /// Of the whole file, in hexadecimal digits.
    pub sha256: String,
}

/// What is asked of a backup.
#[derive(Clone, Debug)]
pub struct BackupPlan {
    /// An absolute path.
    pub to: PathBuf,
    /// Replace a file that exists.
    pub replace: bool,
    /// `None`: as fast as the disks are.
    pub bytes_per_second: Option<NonZeroU64>,
}

/// What a backup does at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackupStage {
    Copying,
    /// SQLite checks the copy.
    Checking,
    /// The file is flushed to disk, and its checksum is computed.
    Sealing,
}

/// Watches a backup, and may end it.
pub trait BackupWatch: Send + Sync {
    /// `done` of `total` bytes are copied.
    fn progress(&self, stage: BackupStage, done: u64, total: u64);

    /// Asked every few milliseconds.
    fn is_cancelled(&self) -> bool;
}

/// Watches nothing.
#[derive(Debug)]
pub struct Unwatched;

impl BackupWatch for Unwatched {
    fn progress(&self, _stage: BackupStage, _done: u64, _total: u64) {}

    fn is_cancelled(&self) -> bool {
        false
    }
}

/// Why there is no backup. Nothing is left of it but perhaps a file whose name ends in `.partial`, which the next
/// backup removes.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(
        "the store is a PostgreSQL database, which `postrider backup` cannot copy: use pg_dump, or base backups with \
         archived WAL"
    )]
    NotHere,
    #[error("there is no SQLite store in {path} (--data-dir)")]
    NoStore { path: String },
    #[error("another backup of this store is running: wait for its end")]
    Running,
    #[error("{path} exists: choose another name, or replace it with --force")]
    Exists { path: String },
    #[error("{path} is in the data directory: choose a file elsewhere, such as in a folder below it")]
    InDataDirectory { path: String },
    #[error("{path} is not the path of a file in a folder that exists")]
    NotAFile {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the file system of {path} is too full: {needed} bytes are needed and {free} are free. Make room, or choose \
         another file system"
    )]
    NoSpace { path: String, needed: u64, free: u64 },
    #[error(
        "the write-ahead log grew to {wal_bytes} bytes while the backup copied, and the backup gave up at {max} so that \
         publishes are not refused. Raise --rate, or take it when there is less traffic"
    )]
    LogTooLong { wal_bytes: u64, max: u64 },
    #[error("the backup was cancelled")]
    Cancelled,
    #[error("the copy is damaged, so it was removed: {fault}. Check the disks and the memory of this machine")]
    Damaged { fault: String },
    #[error("cannot write {path}")]
    Write {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("cannot read the store")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Why a backup cannot be used or restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error(transparent)]
    Manifest(#[from] file::ManifestError),
    #[error("{path} is not the database of a store")]
    NotAStore {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    #[error("{path} holds no store, or one that was never started")]
    Empty { path: String },
    #[error(
        "{path} has a write-ahead log beside it, so it is a file of a store in use and not a backup: take one with \
         `postrider backup`"
    )]
    HasLog { path: String },
    #[error("the database is damaged: {fault}. Use another backup")]
    Damaged { fault: String },
    #[error(
        "the schema of the backup has version {found}, and this version of postrider supports up to {newest}: use a newer \
         postrider"
    )]
    Newer { found: u32, newest: u32 },
    #[error("the backup is of an unfinished copy of a store")]
    UnfinishedCopy,
    #[error("{path} is not empty: restore into a new directory (--data-dir)")]
    NotEmpty { path: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    /// There is no room.
    #[error(transparent)]
    Space(#[from] BackupError),
    #[error("cannot write {path}")]
    Write {
        path: String,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a store was not compacted. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum CompactError {
    #[error("there is no SQLite store in {path} (--data-dir)")]
    NoStore { path: String },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("another program has the database open: end it first")]
    InUse,
    /// There is no room.
    #[error(transparent)]
    Space(#[from] BackupError),
    #[error("the database is damaged: {fault}. Restore a backup")]
    Damaged { fault: String },
    #[error("cannot write {path}")]
    Write {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error("SQLite cannot copy the database")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Backups of this store.
#[async_trait]
pub trait Backups: Send + Sync + 'static {
    /// Writes a copy of the store as of one instant, while the store is in use, and records that in
    /// [`LAST_BACKUP`]. There is one backup at a time.
    ///
    /// # Errors
    /// When the copy cannot be made, or is damaged.
    async fn back_up(&self, plan: BackupPlan, watch: Arc<dyn BackupWatch>) -> Result<Manifest, BackupError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fact_of_the_last_backup_is_read_as_it_was_written() {
        let last = LastBackup { at: Timestamp::from_millis(1_778_846_400_123), bytes: 4_096 };
        assert_eq!(LastBackup::from_fact(&last.to_fact()), Some(last));
        assert_eq!(LastBackup::from_fact(b"short"), None);
        assert_eq!(LastBackup::from_fact(&[0; 17]), None);
    }
}
