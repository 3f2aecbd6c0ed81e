//! Checkpoints: copies the pages of the write-ahead log into the database, off the commit path.
//!
//! 1. A thread runs a passive checkpoint each time the log has grown by [`STRETCH_BYTES`]. While the writer commits, it
//!    never gets to the end of the log.
//! 2. Once the log is long, the writer itself copies the few pages that the thread has left. Its next commit then
//!    restarts the log at the beginning of the same file.
//! 3. A reader can prevent that. Beyond a second limit the writer pauses to truncate the log.
//! 4. Beyond a last limit publishes are refused until the log is short again, so that the disk does not fill unnoticed.
//!
//! A backup holds a snapshot for as long as it copies ([`LogHold`]), so the log can be neither restarted nor truncated
//! meanwhile. The writer does not try to: it would wait for the backup.
//!
//! The limits are in `postrider_domain::limits`.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use postrider_domain::error_chain::Chain;
use postrider_domain::limits;

use super::drive::Drive;
use super::schema;

/// A passive checkpoint starts each time the log has grown by this many bytes.
const STRETCH_BYTES: u64 = 16 * 1024 * 1024;

/// The writer's side: measures the log after each commit and requests checkpoints.
///
/// The measure is the number of pages in the log, which SQLite reports after each commit. The length of the file is
/// none: it stays when the log restarts at its beginning.
pub struct Checkpointer {
    pages: Arc<AtomicU64>,
    page_bytes: u64,
    requested_at_bytes: u64,
    restart_at_bytes: u64,
    truncate_again_at_bytes: u64,
    /// The thread has run the checkpoint that was requested last.
    caught_up: Arc<AtomicBool>,
    /// A backup holds a snapshot.
    is_held: Arc<AtomicBool>,
    /// [`Self::empty_step`] has requested a checkpoint.
    is_emptying: bool,
    requests: Requests,
}

/// To whom a request for a checkpoint goes.
enum Requests {
    Thread(mpsc::SyncSender<()>),
    /// There is no thread: the writer runs the checkpoint on this connection.
    Writer(Connection),
}

/// The side of a backup: how long the log is, and that nobody shall wait for its snapshot to end.
#[derive(Clone, Debug)]
pub struct LogHold {
    pages: Arc<AtomicU64>,
    page_bytes: u64,
    is_held: Arc<AtomicBool>,
}

impl LogHold {
    /// The bytes of the log that are in use.
    pub fn log_bytes(&self) -> u64 {
        self.pages.load(Ordering::Relaxed) * self.page_bytes
    }

    pub fn set(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }
}

impl Checkpointer {
    /// Measures what `writer` commits, and starts the thread that checkpoints, if the store has threads. The thread
    /// ends when the writer does.
    pub fn start(
        database: &Path,
        writer: &mut Connection,
        drive: &Drive,
    ) -> Result<(Self, Option<JoinHandle<()>>), rusqlite::Error> {
        let connection = schema::connect(database)?;
        if let Drive::Tasks(_) = drive {
            return Ok((Self::watch(writer, Requests::Writer(connection))?, None));
        }
        let (requests, queue) = mpsc::sync_channel::<()>(1);
        let checkpointer = Self::watch(writer, Requests::Thread(requests))?;
        let caught_up = Arc::clone(&checkpointer.caught_up);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                for () in queue {
                    run_requested(&connection, &caught_up);
                }
            })
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok((checkpointer, Some(thread)))
    }

    fn watch(writer: &mut Connection, requests: Requests) -> Result<Self, rusqlite::Error> {
        let page_bytes = writer.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut Wal, pages: i32| {
            counter.store(u64::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
            Ok(())
        }))?;
        Ok(Self {
            pages,
            page_bytes,
            requested_at_bytes: 0,
            restart_at_bytes: limits::WAL_RESTART_BYTES,
            truncate_again_at_bytes: limits::WAL_TRUNCATE_BYTES,
            caught_up: Arc::default(),
            is_held: Arc::default(),
            is_emptying: false,
            requests,
        })
    }

    /// Returns whether the log is so long that events must be refused.
    pub fn after_commit(&mut self, connection: &Connection) -> bool {
        let mut bytes = self.log_bytes();
        if bytes < self.requested_at_bytes {
            (self.requested_at_bytes, self.truncate_again_at_bytes) = (0, limits::WAL_TRUNCATE_BYTES);
        }
        if bytes >= self.truncate_again_at_bytes && !self.is_held.load(Ordering::Relaxed) {
            match checkpoint(connection, "TRUNCATE") {
                Ok(pages) => self.pages.store(pages, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(error = %Chain(&error), wal_bytes = bytes, "cannot truncate the write-ahead log");
                }
            }
            bytes = self.log_bytes();
            // A running reader keeps the log. The next try comes a stretch later, not at each commit.
            self.truncate_again_at_bytes = bytes.max(limits::WAL_TRUNCATE_BYTES - STRETCH_BYTES) + STRETCH_BYTES;
            self.requested_at_bytes = bytes;
        } else if bytes >= self.requested_at_bytes + STRETCH_BYTES {
            self.requested_at_bytes = bytes;
            self.caught_up.store(false, Ordering::Relaxed);
            self.request();
        } else if bytes >= self.restart_at_bytes && self.caught_up.swap(false, Ordering::Relaxed) {
            // Passive: it waits for no reader. One that needs the log prevents the restart until the next stretch.
            if let Err(error) = checkpoint(connection, "PASSIVE") {
                tracing::warn!(error = %Chain(&error), wal_bytes = bytes, "cannot restart the write-ahead log");
            }
        }
        bytes >= limits::WAL_REFUSE_BYTES
    }

    /// One step towards an empty log. First the thread copies most of it, and then the writer truncates it. It waits
    /// for a reader only for a moment.
    pub fn empty_step(&mut self, connection: &Connection) -> Result<EmptyStep, rusqlite::Error> {
        if self.is_held.load(Ordering::Relaxed) {
            return Ok(EmptyStep::HeldByReader);
        }
        if !self.is_emptying {
            self.is_emptying = true;
            self.caught_up.store(false, Ordering::Relaxed);
        }
        if !self.caught_up.load(Ordering::Relaxed) {
            self.request();
            return Ok(EmptyStep::Copying);
        }
        self.is_emptying = false;
        connection.busy_timeout(READER_WAIT)?;
        let truncated = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| {
            Ok((row.get::<_, bool>(0)?, row.get::<_, i64>(1)?))
        });
        connection.busy_timeout(schema::BUSY_TIMEOUT)?;
        let (is_busy, pages) = truncated?;
        self.pages.store(u64::try_from(pages).unwrap_or_default(), Ordering::Relaxed);
        Ok(if is_busy || pages > 0 { EmptyStep::HeldByReader } else { EmptyStep::Empty })
    }

    fn request(&self) {
        match &self.requests {
            // The channel is full when a request waits already, which is enough.
            Requests::Thread(thread) => drop(thread.try_send(())),
            Requests::Writer(connection) => run_requested(connection, &self.caught_up),
        }
    }

    /// The bytes of the log that are in use.
    pub fn log_bytes(&self) -> u64 {
        self.pages.load(Ordering::Relaxed) * self.page_bytes
    }

    pub fn hold(&self) -> LogHold {
        LogHold { pages: Arc::clone(&self.pages), page_bytes: self.page_bytes, is_held: Arc::clone(&self.is_held) }
    }
}

/// How far [`Checkpointer::empty_step`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmptyStep {
    /// The thread copies the log.
    Copying,
    /// A reader needs the log.
    HeldByReader,
    /// The log is empty, and the database is flushed. Nothing is left of what was deleted before.
    Empty,
}

/// How long the writer waits for readers to truncate the log. It writes nothing meanwhile.
const READER_WAIT: Duration = Duration::from_millis(20);

fn run_requested(connection: &Connection, caught_up: &AtomicBool) {
    match checkpoint(connection, "PASSIVE") {
        Ok(_) => caught_up.store(true, Ordering::Relaxed),
        Err(error) => tracing::warn!(error = %Chain(&error), "a checkpoint failed: the next one tries again"),
    }
}

/// Returns the number of pages in the log afterwards.
fn checkpoint(connection: &Connection, mode: &str) -> Result<u64, rusqlite::Error> {
    let pages: i64 = connection.query_row(&format!("PRAGMA wal_checkpoint({mode})"), [], |row| row.get(1))?;
    Ok(u64::try_from(pages).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log {
        writer: Connection,
        checkpointer: Checkpointer,
        requests: mpsc::Receiver<()>,
        directory: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut writer = schema::connect(&schema::database_path(directory.path())).unwrap();
            writer.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
            let (sender, requests) = mpsc::sync_channel(1);
            let checkpointer = Checkpointer::watch(&mut writer, Requests::Thread(sender)).unwrap();
            Self { writer, checkpointer, requests, directory }
        }

        fn database(&self) -> std::path::PathBuf {
            schema::database_path(self.directory.path())
        }

        /// Commits this many bytes. Returns whether a checkpoint was requested.
        fn commit(&mut self, bytes: u64) -> bool {
            self.writer.execute("INSERT INTO filler VALUES (zeroblob(?1))", [bytes.cast_signed()]).unwrap();
            assert!(!self.checkpointer.after_commit(&self.writer));
            self.requests.try_recv().is_ok()
        }
    }

    #[test]
    fn each_stretch_requests_a_checkpoint_also_after_a_restart() {
        let mut log = Log::new();
        for round in 0..4 {
            assert!(!log.commit(STRETCH_BYTES / 2), "round {round}");
            assert!(log.commit(STRETCH_BYTES), "round {round}");
            assert!(!log.commit(1), "a checkpoint is requested once");
            checkpoint(&log.writer, "PASSIVE").unwrap();
        }
    }

    #[test]
    fn a_long_log_restarts_in_its_file_under_a_busy_writer() {
        let mut log = Log::new();
        // A lower limit than the real one, so that the test writes less.
        log.checkpointer.restart_at_bytes = 2 * STRETCH_BYTES;
        assert!(log.commit(2 * STRETCH_BYTES));
        log.commit(1);
        assert!(log.checkpointer.log_bytes() > 2 * STRETCH_BYTES, "the thread has not caught up");
        log.checkpointer.caught_up.store(true, Ordering::Relaxed);
        // A reader that needs the log prevents its restart.
        let reader = schema::connect(&log.database()).unwrap();
        reader.execute_batch("BEGIN; SELECT COUNT(*) FROM filler").unwrap();
        log.commit(1);
        log.commit(1);
        assert!(log.checkpointer.log_bytes() > 2 * STRETCH_BYTES);
        reader.execute_batch("COMMIT").unwrap();
        log.checkpointer.caught_up.store(true, Ordering::Relaxed);
        log.commit(1);
        log.commit(1);
        assert!(log.checkpointer.log_bytes() < STRETCH_BYTES);
        let file = std::fs::metadata(log.database().with_extension("db-wal")).unwrap();
        assert!(file.len() > 2 * STRETCH_BYTES, "the log is overwritten in place");
    }

    #[test]
    fn an_emptied_log_waits_for_the_thread_and_for_readers() {
        let mut log = Log::new();
        log.commit(STRETCH_BYTES / 2);
        let reader = schema::connect(&log.database()).unwrap();
        reader.execute_batch("BEGIN; SELECT COUNT(*) FROM filler").unwrap();
        log.commit(1);
        let step = |log: &mut Log| log.checkpointer.empty_step(&log.writer).unwrap();
        assert_eq!(step(&mut log), EmptyStep::Copying);
        assert!(log.requests.try_recv().is_ok(), "the thread is asked to copy");
        log.checkpointer.caught_up.store(true, Ordering::Relaxed);
        assert_eq!(step(&mut log), EmptyStep::HeldByReader);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(step(&mut log), EmptyStep::Copying);
        log.checkpointer.caught_up.store(true, Ordering::Relaxed);
        assert_eq!(step(&mut log), EmptyStep::Empty);
        let file = std::fs::metadata(log.database().with_extension("db-wal")).unwrap();
        assert_eq!((file.len(), log.checkpointer.log_bytes()), (0, 0));
    }

    #[test]
    fn a_log_that_grows_past_its_checkpoints_is_truncated() {
        let mut log = Log::new();
        // A lower limit than the real one, so that the test writes less.
        log.checkpointer.truncate_again_at_bytes = 2 * STRETCH_BYTES;
        log.commit(2 * STRETCH_BYTES);
        assert_eq!(log.checkpointer.log_bytes(), 0);
        log.commit(STRETCH_BYTES);
        assert!(log.checkpointer.log_bytes() >= STRETCH_BYTES);
    }

    #[test]
    fn a_log_that_a_backup_holds_is_truncated_only_afterwards() {
        let mut log = Log::new();
        log.checkpointer.truncate_again_at_bytes = 2 * STRETCH_BYTES;
        let hold = log.checkpointer.hold();
        hold.set(true);
        assert!(log.commit(3 * STRETCH_BYTES), "the thread checkpoints all the same");
        assert!(hold.log_bytes() >= 3 * STRETCH_BYTES);
        hold.set(false);
        log.commit(1);
        assert_eq!(hold.log_bytes(), 0);
    }
}
