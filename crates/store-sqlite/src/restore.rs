//! Checks the file of a backup, and puts it into a new data directory.
//!
//! Writes the mark [`RESTORED_COPY`] into a restored store that lacks it: a copy that another program has made.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};

use postrider_domain::time::Timestamp;
use postrider_store::backup::file::{
    check_space, copy_and_digest, digest, read_manifest, remove_if_there, sync_folder_of,
};
use postrider_store::backup::{LAST_BACKUP, LastBackup, Manifest, RESTORED_COPY, RestoreError};
use postrider_store::directory::DirectoryLock;
use postrider_store::sealing::keyring::KeyFacts;

use crate::backup::{Depth, check_integrity};
use crate::machinery::schema;
use crate::meta;

/// What is known about a checked file.
#[derive(Clone, Debug)]
pub struct CheckedBackup {
    /// `None`: there is no manifest beside the file, so its checksum was not compared.
    pub manifest: Option<Manifest>,
    pub bytes: u64,
    pub sha256: String,
    pub facts: StoreFacts,
}

/// What a database says about its store.
#[derive(Clone, Debug)]
pub struct StoreFacts {
    pub schema_version: u32,
    pub key_facts: KeyFacts,
    pub last_backup: Option<LastBackup>,
    /// A server on it sends nothing.
    pub is_restored_copy: bool,
    /// The last kept instant of the store's clock.
    pub last_time: Option<Timestamp>,
}

impl StoreFacts {
    pub(crate) fn read(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let [state, key_id, canary] = KeyFacts::NAMES.map(|name| meta::find(connection, name));
        let last_backup = meta::find(connection, LAST_BACKUP)?;
        let kept: Option<[u8; 8]> = meta::find(connection, meta::LAST_TIME)?.and_then(|bytes| bytes.try_into().ok());
        Ok(Self {
            schema_version: schema::version(connection)?,
            key_facts: KeyFacts { state: state?, key_id: key_id?, canary: canary? },
            last_backup: last_backup.as_deref().and_then(LastBackup::from_fact),
            is_restored_copy: meta::find(connection, RESTORED_COPY)?.is_some(),
            last_time: kept.map(|bytes| Timestamp::from_millis(i64::from_be_bytes(bytes))),
        })
    }
}

/// Checks a backup as a whole: its checksum, its pages, rows and indexes, and its schema. Writes nothing.
///
/// # Errors
/// When it cannot be restored.
pub fn check(file: &Path) -> Result<CheckedBackup, RestoreError> {
    refuse_log(file)?;
    let manifest = read_manifest(file)?;
    let found = digest(file).map_err(|error| not_a_store(file, error))?;
    if let Some(manifest) = &manifest {
        manifest.check(&found)?;
    }
    let facts = inspect(file)?;
    Ok(CheckedBackup { manifest, bytes: found.bytes, sha256: found.sha256, facts })
}

/// Copies a backup into a directory that is empty or does not exist, and checks it on the way as [`check`] does.
///
/// # Errors
/// When it cannot be restored. The directory is as it was before.
pub fn restore(file: &Path, directory: &Path) -> Result<CheckedBackup, RestoreError> {
    refuse_log(file)?;
    refuse_filled(directory)?;
    let manifest = read_manifest(file)?;
    let bytes = std::fs::metadata(file).map_err(|error| not_a_store(file, error))?.len();
    let existed = directory.exists();
    let lock = DirectoryLock::take(directory)?;
    let target = schema::database_path(directory);
    let partial = partial_path(directory);
    let restored = check_space(directory, bytes)
        .map_err(RestoreError::from)
        .and_then(|()| copy_checked(file, &partial, manifest))
        .and_then(|checked| {
            let moved = std::fs::rename(&partial, &target).and_then(|()| sync_folder_of(&target));
            moved.map_err(|error| write_fault(&target, error))?;
            Ok(checked)
        });
    if restored.is_err() {
        drop(remove_if_there(&partial));
        drop(remove_if_there(&directory.join("lock")));
        if !existed {
            drop(std::fs::remove_dir(directory));
        }
    }
    drop(lock);
    restored
}

fn copy_checked(file: &Path, partial: &Path, manifest: Option<Manifest>) -> Result<CheckedBackup, RestoreError> {
    let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(partial);
    let mut copy = opened.map_err(|error| write_fault(partial, error))?;
    let found = copy_and_digest(file, &mut copy).map_err(|error| write_fault(partial, error))?;
    if let Some(manifest) = &manifest {
        manifest.check(&found)?;
    }
    let mut facts = inspect(partial)?;
    if !facts.is_restored_copy {
        let fault = |error: rusqlite::Error| write_fault(partial, error);
        let connection = Connection::open_with_flags(partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fault)?;
        connection.execute_batch("PRAGMA journal_mode = DELETE").map_err(fault)?;
        meta::set_fact(&connection, RESTORED_COPY, &[]).map_err(fault)?;
        facts.is_restored_copy = true;
    }
    copy.sync_all().map_err(|error| write_fault(partial, error))?;
    Ok(CheckedBackup { manifest, bytes: found.bytes, sha256: found.sha256, facts })
}

/// The rest of a restore that was killed does not count.
fn refuse_filled(directory: &Path) -> Result<(), RestoreError> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Ok(()) };
    let ours = [Some("lock".into()), partial_path(directory).file_name().map(ToOwned::to_owned)];
    let is_filled = entries.flatten().any(|entry| {
        let name = Some(entry.file_name());
        // Made by the file system itself at the top of a volume.
        !ours.contains(&name) && name.is_none_or(|name| name != "lost+found")
    });
    match is_filled {
        true => Err(RestoreError::NotEmpty { path: directory.display().to_string() }),
        false => Ok(()),
    }
}

/// The file of a store in use is no backup: its latest commits are in its log.
fn refuse_log(file: &Path) -> Result<(), RestoreError> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    match std::fs::metadata(log).is_ok_and(|log| log.len() > 0) {
        true => Err(RestoreError::HasLog { path: file.display().to_string() }),
        false => Ok(()),
    }
}

/// Checks the database in a file, which nobody else may change meanwhile.
fn inspect(file: &Path) -> Result<StoreFacts, RestoreError> {
    let fault = |error: rusqlite::Error| not_a_store(file, error);
    let connection = open_unchanging(file).map_err(fault)?;
    let version = schema::version(&connection).map_err(fault)?;
    if version == 0 {
        return Err(RestoreError::Empty { path: file.display().to_string() });
    }
    if version > schema::newest_version() {
        return Err(RestoreError::Newer { found: version, newest: schema::newest_version() });
    }
    if let Some(fault) = check_integrity(&connection, Depth::Whole).map_err(fault)? {
        return Err(RestoreError::Damaged { fault });
    }
    if meta::is_unfinished_copy(&connection).map_err(fault)? {
        return Err(RestoreError::UnfinishedCopy);
    }
    StoreFacts::read(&connection).map_err(fault)
}

/// Opens a database without a lock, a log or any file beside it.
fn open_unchanging(file: &Path) -> Result<Connection, rusqlite::Error> {
    let mut uri = "file:".to_owned();
    for byte in file.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' => uri.push(char::from(*byte)),
            // Writing into a string cannot fail.
            other => drop(write!(uri, "%{other:02X}")),
        }
    }
    uri.push_str("?mode=ro&immutable=1");
    Connection::open_with_flags(uri, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI)
}

fn partial_path(directory: &Path) -> PathBuf {
    directory.join("postrider.db.restoring")
}

fn not_a_store(file: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RestoreError {
    RestoreError::NotAStore { path: file.display().to_string(), source: error.into() }
}

fn write_fault(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> RestoreError {
    RestoreError::Write { path: path.display().to_string(), source: error.into() }
}
