//! Moves what the write-ahead log holds into the database, off the commit path.
//!
//! A thread of its own checkpoints passively each time the log has grown by a stretch. While the writer goes on it never gets to the
//! log's end; so once the log is long, the writer itself copies the little that the thread has left, and its next commit begins the
//! log anew in the same file. Should a reader keep it from that for long, the writer stops to truncate the log; beyond a last limit
//! publishes are refused until the log is short again, so that a disk does not fill without a word.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use rusqlite::Connection;
use rusqlite::hooks::Wal;

use postrider_domain::limits;

use super::schema;

/// A passive checkpoint starts each time the log has grown by this much.
const STRETCH_BYTES: u64 = 16 * 1024 * 1024;

/// The writer's side: measures the log after each commit and asks for checkpoints.
///
/// What counts is what the log holds, as SQLite tells after each commit. The file is no measure: it keeps its length when
/// the log starts over from its beginning.
pub struct Checkpointer {
    pages: Arc<AtomicU64>,
    page_bytes: u64,
    asked_at_bytes: u64,
    restart_at_bytes: u64,
    truncate_again_at_bytes: u64,
    /// The thread has just done what it was asked for last.
    caught_up: Arc<AtomicBool>,
    requests: mpsc::SyncSender<()>,
}

impl Checkpointer {
    /// Watches what `writer` commits, and starts the thread that checkpoints. It ends when the writer does.
    pub fn start(database: &Path, writer: &mut Connection) -> Result<(Self, JoinHandle<()>), rusqlite::Error> {
        let connection = schema::connect(database)?;
        let (requests, queue) = mpsc::sync_channel::<()>(1);
        let checkpointer = Self::watch(writer, requests)?;
        let caught_up = Arc::clone(&checkpointer.caught_up);
        let thread = std::thread::Builder::new()
            .name("store-checkpoint".to_owned())
            .spawn(move || {
                for () in queue {
                    match checkpoint(&connection, "PASSIVE") {
                        Ok(_) => caught_up.store(true, Ordering::Relaxed),
                        Err(error) => tracing::warn!(%error, "a checkpoint failed; the next one tries again"),
                    }
                }
            })
            .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
        Ok((checkpointer, thread))
    }

    fn watch(writer: &mut Connection, requests: mpsc::SyncSender<()>) -> Result<Self, rusqlite::Error> {
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
            asked_at_bytes: 0,
            restart_at_bytes: limits::WAL_RESTART_BYTES,
            truncate_again_at_bytes: limits::WAL_TRUNCATE_BYTES,
            caught_up: Arc::default(),
            requests,
        })
    }

    /// Returns whether the log is so long that new events must wait.
    pub fn after_commit(&mut self, connection: &Connection) -> bool {
        let mut bytes = self.log_bytes();
        if bytes < self.asked_at_bytes {
            (self.asked_at_bytes, self.truncate_again_at_bytes) = (0, limits::WAL_TRUNCATE_BYTES);
        }
        if bytes >= self.truncate_again_at_bytes {
            match checkpoint(connection, "TRUNCATE") {
                Ok(pages) => self.pages.store(pages, Ordering::Relaxed),
                Err(error) => {
                    tracing::warn!(%error, wal_bytes = bytes, "the write-ahead log could not be truncated");
                }
            }
            bytes = self.log_bytes();
            // A reader that is still at work keeps the log; try again a stretch later, not at each commit.
            self.truncate_again_at_bytes = bytes.max(limits::WAL_TRUNCATE_BYTES - STRETCH_BYTES) + STRETCH_BYTES;
            self.asked_at_bytes = bytes;
        } else if bytes >= self.asked_at_bytes + STRETCH_BYTES {
            self.asked_at_bytes = bytes;
            self.caught_up.store(false, Ordering::Relaxed);
            // A request that finds one waiting already has nothing to add.
            let _ = self.requests.try_send(());
        } else if bytes >= self.restart_at_bytes && self.caught_up.swap(false, Ordering::Relaxed) {
            // It waits for nobody: a reader that still needs the log keeps it as it is until the next stretch.
            if let Err(error) = checkpoint(connection, "PASSIVE") {
                tracing::warn!(%error, wal_bytes = bytes, "the write-ahead log could not be begun anew");
            }
        }
        bytes >= limits::WAL_REFUSE_BYTES
    }

    fn log_bytes(&self) -> u64 {
        self.pages.load(Ordering::Relaxed) * self.page_bytes
    }
}

/// Returns how many pages the log holds afterwards.
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
        asked: mpsc::Receiver<()>,
        directory: tempfile::TempDir,
    }

    impl Log {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let mut writer = schema::connect(&schema::database_path(directory.path())).unwrap();
            writer.execute_batch("CREATE TABLE filler (bytes BLOB)").unwrap();
            let (requests, asked) = mpsc::sync_channel(1);
            let checkpointer = Checkpointer::watch(&mut writer, requests).unwrap();
            Self { writer, checkpointer, asked, directory }
        }

        fn database(&self) -> std::path::PathBuf {
            schema::database_path(self.directory.path())
        }

        /// Commits this much, and tells whether a checkpoint was asked for.
        fn commit(&mut self, bytes: u64) -> bool {
            self.writer.execute("INSERT INTO filler VALUES (zeroblob(?1))", [bytes.cast_signed()]).unwrap();
            assert!(!self.checkpointer.after_commit(&self.writer));
            self.asked.try_recv().is_ok()
        }
    }

    #[test]
    fn each_stretch_asks_for_a_checkpoint_also_in_a_log_that_started_over() {
        let mut log = Log::new();
        for round in 0..4 {
            assert!(!log.commit(STRETCH_BYTES / 2), "round {round}");
            assert!(log.commit(STRETCH_BYTES), "round {round}");
            assert!(!log.commit(1), "it is asked for once");
            checkpoint(&log.writer, "PASSIVE").unwrap();
        }
    }

    #[test]
    fn a_long_log_is_begun_anew_in_the_same_file_though_the_writer_never_rests() {
        let mut log = Log::new();
        // Sooner than in truth, for the disk's sake.
        log.checkpointer.restart_at_bytes = 2 * STRETCH_BYTES;
        assert!(log.commit(2 * STRETCH_BYTES));
        log.commit(1);
        assert!(log.checkpointer.log_bytes() > 2 * STRETCH_BYTES, "the thread has not caught up");
        log.checkpointer.caught_up.store(true, Ordering::Relaxed);
        // A reader that needs the log keeps it.
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
        assert!(file.len() > 2 * STRETCH_BYTES, "it is written over");
    }

    #[test]
    fn a_log_that_outgrows_its_checkpoints_is_truncated() {
        let mut log = Log::new();
        // Sooner than in truth, for the disk's sake.
        log.checkpointer.truncate_again_at_bytes = 2 * STRETCH_BYTES;
        log.commit(2 * STRETCH_BYTES);
        assert_eq!(log.checkpointer.log_bytes(), 0);
        log.commit(STRETCH_BYTES);
        assert!(log.checkpointer.log_bytes() >= STRETCH_BYTES);
    }
}
