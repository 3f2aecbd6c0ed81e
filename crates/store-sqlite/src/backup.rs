//! Backups: a copy of the whole database as of one instant, taken while the writer goes on.
//!
//! A connection of its own holds a read transaction for the whole copy. SQLite's backup then copies that snapshot and
//! never starts over, however often the writer commits. Meanwhile the write-ahead log cannot be restarted, so the copy
//! gives up when the log gets long (`limits::BACKUP_WAL_BYTES`).
//!
//! The copy gets the mark [`RESTORED_COPY`] before its checksum is computed, so that a server that is started on it
//! knows what it is, however the file came there.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, OpenFlags};

use postrider_domain::error_chain::Chain;
use postrider_domain::id::{RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::OpenError;
use postrider_store::backup::file::{Digest, PartialBackup, check_space};
use postrider_store::backup::{
    BackupError, BackupPlan, BackupStage, BackupWatch, Backups, LAST_BACKUP, LastBackup, MANIFEST_FORMAT, Manifest,
    RESTORED_COPY,
};
use postrider_store::directory::DirectoryLock;

use crate::machinery::checkpoint::LogHold;
use crate::machinery::writer::JobSize;
use crate::machinery::{row_key, schema};
use crate::{SqliteStore, meta};

/// Pages of one step: 1 MB. Between two steps a backup waits for its rate, and looks whether it shall end.
const PAGES_PER_STEP: i32 = 256;
/// The copy is flushed each time it has grown by this much. One flush of everything at the end would hold up those of
/// the writer.
const FLUSH_BYTES: u64 = 32 * 1024 * 1024;
/// The longest wait in one piece, so that a backup ends soon after it is cancelled. The copy has a thread of its own
/// that may sleep.
const WAIT_MAX: Duration = Duration::from_millis(20);
/// SQLite looks whether it shall end after this many steps of its virtual machine.
const STEPS_BETWEEN_CHECKS: i32 = 10_000;

/// What a backup reads.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    database: PathBuf,
    /// `None` while no writer has the store open.
    log: Option<LogHold>,
    is_running: Arc<AtomicBool>,
}

/// The backup that runs.
struct Running(Arc<AtomicBool>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Source {
    pub fn new(database: &Path, log: LogHold) -> Self {
        Self { database: database.to_owned(), log: Some(log), is_running: Arc::default() }
    }

    fn begin(&self) -> Result<Running, BackupError> {
        match self.is_running.swap(true, Ordering::Acquire) {
            true => Err(BackupError::Running),
            false => Ok(Running(Arc::clone(&self.is_running))),
        }
    }

    /// Refuses a target among the files of the store.
    fn check_target(&self, to: &Path) -> Result<(), BackupError> {
        let folder = |path: &Path| path.parent().and_then(|folder| folder.canonicalize().ok());
        match folder(to).is_some_and(|target| Some(target) == folder(&self.database)) {
            true => Err(BackupError::InDataDirectory { path: to.display().to_string() }),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Backups for SqliteStore {
    async fn back_up(&self, plan: BackupPlan, watch: Arc<dyn BackupWatch>) -> Result<Manifest, BackupError> {
        let (source, clock) = (self.backups.clone(), Arc::clone(&self.clock));
        // The work goes on if the caller is cancelled, so it holds the mark that it runs.
        let running = source.begin()?;
        let work = move || {
            let _running = running;
            back_up(&source, &plan, &watch, clock.as_ref())
        };
        let (manifest, last) =
            tokio::task::spawn_blocking(work).await.map_err(|error| BackupError::Store(error.into()))??;
        let recorded =
            self.write(JobSize::ONE_ROW, move |tx| meta::set_fact(tx.connection, LAST_BACKUP, &last.to_fact())).await;
        if let Err(error) = recorded {
            tracing::warn!(error = %Chain(&error), "the backup is good, but the store cannot record when it was taken");
        }
        Ok(manifest)
    }
}

/// Takes a backup of a store that no process has open.
///
/// # Errors
/// As [`Backups::back_up`], and when a process has the store open.
pub fn back_up_stopped(
    directory: &Path,
    plan: &BackupPlan,
    watch: &Arc<dyn BackupWatch>,
    clock: &dyn Clock,
) -> Result<Manifest, BackupError> {
    if !SqliteStore::is_in(directory) {
        return Err(BackupError::NoStore { path: directory.display().to_string() });
    }
    let _lock = DirectoryLock::take(directory).map_err(|error: OpenError| BackupError::Store(error.into()))?;
    let database = schema::database_path(directory);
    let source = Source { database: database.clone(), log: None, is_running: Arc::default() };
    let (manifest, last) = back_up(&source, plan, watch, clock)?;
    let recorded =
        schema::connect(&database).and_then(|connection| meta::set_fact(&connection, LAST_BACKUP, &last.to_fact()));
    recorded.map_err(store_fault)?;
    Ok(manifest)
}

/// The facts of the snapshot that a backup copies.
struct Snapshot {
    taken_at: Timestamp,
    schema_version: u32,
    tag: StoreTag,
    last_key: RowKey,
}

fn back_up(
    source: &Source,
    plan: &BackupPlan,
    watch: &Arc<dyn BackupWatch>,
    clock: &dyn Clock,
) -> Result<(Manifest, LastBackup), BackupError> {
    source.check_target(&plan.to)?;
    let partial = PartialBackup::create(&plan.to, plan.replace)?;
    let copy = Copy { partial: partial.path(), plan, watch };
    let (snapshot, bytes) = copy.take(source, clock)?;
    watch.progress(BackupStage::Checking, bytes, bytes);
    copy.mark_and_check(&snapshot, bytes)?;
    watch.progress(BackupStage::Sealing, bytes, bytes);
    let manifest = partial.finish(|digest| snapshot.describe(digest))?;
    let last = LastBackup { at: snapshot.taken_at, bytes: manifest.bytes };
    Ok((manifest, last))
}

impl Snapshot {
    /// Reads the facts. The first read begins the snapshot of the connection's transaction.
    fn read(connection: &Connection, clock: &dyn Clock) -> Result<Self, rusqlite::Error> {
        // Before the snapshot: everything that was acknowledged until then is in it.
        let taken_at = clock.now();
        Ok(Self {
            taken_at,
            schema_version: schema::version(connection)?,
            tag: meta::stored_tag(connection)?,
            last_key: row_key::largest(connection, taken_at)?,
        })
    }

    fn describe(&self, Digest { bytes, sha256 }: Digest) -> Manifest {
        Manifest {
            format: MANIFEST_FORMAT,
            postrider: env!("CARGO_PKG_VERSION").to_owned(),
            schema_version: self.schema_version,
            store_tag: format!("{:08x}", self.tag.as_u32()),
            taken_at: self.taken_at.to_string(),
            last_key: self.last_key.as_i64(),
            last_key_at: self.last_key.created_at().to_string(),
            bytes,
            sha256,
        }
    }
}

/// The copy of one snapshot into a partial file.
struct Copy<'c> {
    partial: &'c Path,
    plan: &'c BackupPlan,
    watch: &'c Arc<dyn BackupWatch>,
}

impl Copy<'_> {
    /// Copies the pages. Returns the facts of the snapshot and its bytes.
    fn take(&self, source: &Source, clock: &dyn Clock) -> Result<(Snapshot, u64), BackupError> {
        let connection = schema::connect(&source.database).map_err(store_fault)?;
        connection.execute_batch("PRAGMA query_only = ON; BEGIN").map_err(store_fault)?;
        if let Some(log) = &source.log {
            log.set(true);
        }
        let copied = self.copy_pages(&connection, source.log.as_ref(), clock);
        let ended = connection.execute_batch("COMMIT");
        if let Some(log) = &source.log {
            // Off the commit path: the writer has few pages left to copy when it truncates the log.
            if let Err(error) = connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(())) {
                tracing::warn!(error = %Chain(&error), "the checkpoint after a backup failed: the next one tries again");
            }
            log.set(false);
        }
        let copied = copied?;
        ended.map_err(store_fault)?;
        Ok(copied)
    }

    fn copy_pages(
        &self,
        source: &Connection,
        log: Option<&LogHold>,
        clock: &dyn Clock,
    ) -> Result<(Snapshot, u64), BackupError> {
        let snapshot = Snapshot::read(source, clock).map_err(store_fault)?;
        let number = |sql| source.query_row(sql, [], |row| row.get::<_, u64>(0)).map_err(store_fault);
        let page_bytes = number("PRAGMA page_size")?;
        let total = number("PRAGMA page_count")? * page_bytes;
        let folder = self.partial.parent().unwrap_or(self.partial);
        check_space(folder, total)?;
        let write_fault = |error: rusqlite::Error| self.write_fault(error, total);
        let file = File::open(self.partial).map_err(|error| self.io_fault(error))?;
        let mut target =
            Connection::open_with_flags(self.partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(write_fault)?;
        // A backup that is killed is thrown away, so the copy needs no journal.
        target
            .execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -2048")
            .map_err(write_fault)?;
        let backup = Backup::new(source, &mut target).map_err(write_fault)?;
        let (started, mut flushed) = (Instant::now(), 0);
        loop {
            let step = backup.step(PAGES_PER_STEP).map_err(write_fault)?;
            let progress = backup.progress();
            let copied = u64::try_from(progress.pagecount - progress.remaining).unwrap_or_default() * page_bytes;
            self.watch.progress(BackupStage::Copying, copied, total);
            self.check(log)?;
            if copied - flushed >= FLUSH_BYTES {
                file.sync_data().map_err(|error| self.io_fault(error))?;
                flushed = copied;
            }
            match step {
                StepResult::Done => return Ok((snapshot, total)),
                // Another program holds the copy for a moment. Nothing tells when it lets go.
                StepResult::Busy | StepResult::Locked => std::thread::sleep(WAIT_MAX),
                _ => self.wait_for_rate(copied, started, log)?,
            }
        }
    }

    /// Waits until `copied` bytes are not more than the rate allows since `started`.
    fn wait_for_rate(&self, copied: u64, started: Instant, log: Option<&LogHold>) -> Result<(), BackupError> {
        let Some(rate) = self.plan.bytes_per_second else { return Ok(()) };
        let due = Duration::from_millis(copied.saturating_mul(1_000) / rate);
        while let Some(left) = due.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            std::thread::sleep(left.min(WAIT_MAX));
            self.check(log)?;
        }
        Ok(())
    }

    /// Whether the backup goes on.
    fn check(&self, log: Option<&LogHold>) -> Result<(), BackupError> {
        if self.watch.is_cancelled() {
            return Err(BackupError::Cancelled);
        }
        let wal_bytes = log.map_or(0, LogHold::log_bytes);
        if wal_bytes > limits::BACKUP_WAL_BYTES {
            return Err(BackupError::LogTooLong { wal_bytes, max: limits::BACKUP_WAL_BYTES });
        }
        Ok(())
    }

    /// Marks the copy as one, and lets SQLite check it.
    fn mark_and_check(&self, snapshot: &Snapshot, bytes: u64) -> Result<(), BackupError> {
        let write_fault = |error: rusqlite::Error| self.write_fault(error, bytes);
        let mut copy =
            Connection::open_with_flags(self.partial, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(write_fault)?;
        // A single file, whose log is in no second one.
        copy.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = OFF").map_err(write_fault)?;
        let taken_at = snapshot.taken_at.millis().to_be_bytes();
        let last = LastBackup { at: snapshot.taken_at, bytes };
        meta::set_fact(&copy, RESTORED_COPY, &taken_at).map_err(write_fault)?;
        meta::set_fact(&copy, LAST_BACKUP, &last.to_fact()).map_err(write_fault)?;
        let watch = Arc::clone(self.watch);
        copy.progress_handler(STEPS_BETWEEN_CHECKS, Some(move || watch.is_cancelled())).map_err(write_fault)?;
        match check_integrity(&copy, Depth::Quick) {
            Ok(None) => Ok(()),
            Ok(Some(fault)) => Err(BackupError::Damaged { fault }),
            Err(_) if self.watch.is_cancelled() => Err(BackupError::Cancelled),
            Err(error) => Err(write_fault(error)),
        }
    }

    fn write_fault(&self, error: rusqlite::Error, needed: u64) -> BackupError {
        if error.sqlite_error_code() == Some(rusqlite::ffi::ErrorCode::DiskFull) {
            let folder = self.partial.parent().unwrap_or(self.partial);
            let free = postrider_store::backup::file::free_bytes(folder).unwrap_or_default();
            return BackupError::NoSpace { path: folder.display().to_string(), needed, free };
        }
        BackupError::Write { path: self.partial.display().to_string(), source: error.into() }
    }

    fn io_fault(&self, error: std::io::Error) -> BackupError {
        BackupError::Write { path: self.partial.display().to_string(), source: error.into() }
    }
}

/// How much SQLite checks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Depth {
    /// Every page and every row, but not whether the indexes agree with the tables.
    Quick,
    Whole,
}

/// The first fault that SQLite finds, if there is one.
pub(crate) fn check_integrity(connection: &Connection, depth: Depth) -> Result<Option<String>, rusqlite::Error> {
    let sql = match depth {
        Depth::Quick => "PRAGMA quick_check(1)",
        Depth::Whole => "PRAGMA integrity_check(1)",
    };
    let found: String = connection.query_row(sql, [], |row| row.get(0))?;
    Ok(Some(found).filter(|found| found != "ok"))
}

fn store_fault(error: rusqlite::Error) -> BackupError {
    BackupError::Store(error.into())
}
