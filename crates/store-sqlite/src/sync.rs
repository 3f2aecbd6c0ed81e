//! Brings committed groups to the disk, and answers whoever waits for them: while one is on its way, the writer already runs the
//! next one's statements.
//!
//! The writer's connection commits with `synchronous = NORMAL`: a commit puts its pages into the write-ahead log and leaves them to
//! the operating system. Nothing is answered, and nothing that was claimed is handed over, before the log was flushed
//! here by an `fdatasync` that began after the commit. SQLite itself flushes the log before a checkpoint copies from it, so the
//! database is whole at any instant; what a power failure can take is what nobody was told of.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;

use super::inbox::Inbox;
use super::unavailable;
use postrider_store::queue::claim_ledger::CommittedClaims;

use super::writer::Job;

/// A group that is committed, and what follows once it is on disk.
pub struct Committed {
    pub jobs: Vec<Box<dyn Job>>,
    pub handed: CommittedClaims,
    /// How long ago its claims were made.
    pub age: Duration,
}

/// The writer's side.
pub struct Syncer {
    groups: mpsc::SyncSender<Committed>,
    inbox: Arc<Inbox>,
    /// A flush failed: the operating system may have dropped what was to be written, and says so only once. Nothing can be
    /// promised any more by this process.
    failed: Arc<AtomicBool>,
}

impl Syncer {
    /// `log` is the write-ahead log. The thread ends when the writer does.
    pub fn start(log: File, inbox: Arc<Inbox>) -> Result<(Self, JoinHandle<()>), std::io::Error> {
        let (groups, queue) = mpsc::sync_channel::<Committed>(1);
        let failed = Arc::new(AtomicBool::new(false));
        let syncer = Self { groups, inbox: Arc::clone(&inbox), failed: Arc::clone(&failed) };
        let runtime = Handle::try_current().ok();
        let thread = std::thread::Builder::new().name("store-sync".to_owned()).spawn(move || {
            // Should this thread end before the writer does, nobody may wait for it.
            let _on_exit = Ended { failed: Arc::clone(&failed), inbox: Arc::clone(&inbox) };
            for group in queue {
                let started = std::time::Instant::now();
                // After a failure a flush may succeed without what was lost before, on which the group builds.
                let flushed = !failed.load(Ordering::Relaxed) && flush(&log);
                if !flushed {
                    failed.store(true, Ordering::Relaxed);
                }
                inbox.sync_ended();
                let settle = move || settle(group, flushed, started.elapsed());
                // Whoever waits is a task of the runtime, which one of its own threads wakes at a fraction of the cost.
                match &runtime {
                    Some(runtime) => drop(runtime.spawn(async move { settle() })),
                    None => settle(),
                }
            }
        })?;
        Ok((syncer, thread))
    }

    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// To be called when the one before has ended.
    pub fn sync(&self, group: Committed) {
        self.inbox.sync_begins(group.jobs.len());
        if self.groups.send(group).is_err() {
            self.failed.store(true, Ordering::Relaxed);
            self.inbox.sync_ended();
            tracing::error!("the thread that flushes the write-ahead log is gone; nothing more is written");
        }
    }
}

struct Ended {
    failed: Arc<AtomicBool>,
    inbox: Arc<Inbox>,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.failed.store(true, Ordering::Relaxed);
        self.inbox.sync_ended();
    }
}

fn flush(log: &File) -> bool {
    match log.sync_data() {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(%error, "the write-ahead log could not be flushed to the disk; nothing more is written");
            false
        }
    }
}

fn settle(group: Committed, flushed: bool, took: Duration) {
    if flushed {
        group.handed.take_over(group.age + took);
    } else {
        group.handed.roll_back();
    }
    for job in group.jobs {
        job.settle(if flushed { Ok(()) } else { Err(unavailable("the disk failed")) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::writer::{JobSize, WriteTx};
    use postrider_store::StoreError;
    use postrider_store::queue::claim_ledger::ClaimLedger;

    /// Tells what it was answered.
    struct Asked(mpsc::Sender<bool>);

    impl Job for Asked {
        fn size(&self) -> JobSize {
            JobSize::ONE_ROW
        }

        fn run(&mut self, _tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
            Ok(())
        }

        fn settle(self: Box<Self>, committed: Result<(), StoreError>) {
            self.0.send(committed.is_ok()).unwrap();
        }
    }

    fn answer(syncer: &Syncer) -> bool {
        let (tell, told) = mpsc::channel();
        let jobs: Vec<Box<dyn Job>> = vec![Box::new(Asked(tell))];
        syncer.sync(Committed { jobs, handed: ClaimLedger::default().committed(), age: Duration::ZERO });
        told.recv().unwrap()
    }

    #[test]
    fn what_cannot_be_flushed_is_answered_as_failed_and_so_is_all_that_follows() {
        let inbox = Arc::new(Inbox::new(1));
        // A pipe cannot be flushed.
        let (_reader, writer) = std::io::pipe().unwrap();
        let log = File::from(std::os::fd::OwnedFd::from(writer));
        let (syncer, _thread) = Syncer::start(log, Arc::clone(&inbox)).unwrap();
        assert!(!answer(&syncer));
        assert!(syncer.has_failed());
        assert!(!answer(&syncer));
    }

    #[test]
    fn what_was_flushed_is_answered() {
        let log = tempfile::tempfile().unwrap();
        let (syncer, _thread) = Syncer::start(log, Arc::new(Inbox::new(1))).unwrap();
        assert!(answer(&syncer) && answer(&syncer));
        assert!(!syncer.has_failed());
    }
}
