//! Flushes committed groups to the disk and answers their jobs. The writer runs the statements of the next group
//! meanwhile.
//!
//! The writer's connection commits with `synchronous = NORMAL`: a commit writes its pages to the write-ahead log and
//! leaves them to the operating system. No job is answered and no claim is handed over before an `fdatasync` of the
//! log, begun after the commit, has ended. SQLite flushes the log itself before a checkpoint copies from it, so the
//! database is consistent at any instant. A power failure can only lose writes that were not answered yet.

use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use postrider_domain::error_chain::Chain;
use postrider_metrics::{Only, StoreMetrics};
use postrider_store::queue::claim_ledger::CommittedClaims;

use super::drive::FlushLog;
use super::inbox::Inbox;
use super::writer::Job;
use crate::unavailable;

/// A committed group, and what follows once it is on disk.
pub struct Committed {
    pub jobs: Vec<Box<dyn Job>>,
    /// For the engine.
    pub claims: CommittedClaims,
    /// The age of the claims.
    pub age: Duration,
}

/// The writer's side.
pub struct Syncer {
    groups: Groups,
    inbox: Arc<Inbox>,
    /// A flush failed. The operating system may have dropped the pages, and reports that only once. So this process can
    /// promise nothing any more.
    failed: Arc<AtomicBool>,
    metrics: StoreMetrics,
}

/// Where committed groups wait for their flush.
enum Groups {
    Thread(mpsc::SyncSender<Committed>),
    /// There is no thread: the writer flushes them before it goes on.
    Writer(Mutex<Vec<Committed>>),
}

impl Syncer {
    /// For a writer that is a task: it flushes by itself.
    pub fn without_thread(inbox: Arc<Inbox>, metrics: StoreMetrics) -> Self {
        Self { groups: Groups::Writer(Mutex::default()), inbox, failed: Arc::default(), metrics }
    }

    /// `log` is the write-ahead log. The thread ends when the writer does.
    pub fn start(
        log: File,
        inbox: Arc<Inbox>,
        metrics: StoreMetrics,
    ) -> Result<(Self, JoinHandle<()>), std::io::Error> {
        let (groups, queue) = mpsc::sync_channel::<Committed>(1);
        let failed = Arc::new(AtomicBool::new(false));
        let syncer = Self {
            groups: Groups::Thread(groups),
            inbox: Arc::clone(&inbox),
            failed: Arc::clone(&failed),
            metrics: metrics.clone(),
        };
        let runtime = Handle::try_current().ok();
        let thread = std::thread::Builder::new().name("store-sync".to_owned()).spawn(move || {
            // If this thread ends before the writer does, the writer must not wait for it.
            let _on_exit = FailOnExit { failed: Arc::clone(&failed), inbox: Arc::clone(&inbox) };
            for group in queue {
                let started = Instant::now();
                // A flush after a failed one may succeed although the pages that this group builds on are lost.
                let flushed = !failed.load(Ordering::Relaxed) && is_flushed(log.sync_data());
                note_flush(&metrics, &failed, flushed, started);
                inbox.sync_ended();
                let settle = move || settle(group, flushed, started.elapsed());
                // The callers are tasks of the runtime. Its own threads wake them at a fraction of the cost.
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

    /// Flushes a group. The flush before must have ended.
    pub fn sync(&self, group: Committed) {
        let thread = match &self.groups {
            Groups::Thread(thread) => thread,
            Groups::Writer(waiting) => {
                waiting.lock().unwrap_or_else(PoisonError::into_inner).push(group);
                return;
            }
        };
        self.inbox.sync_begins(group.jobs.len());
        if thread.send(group).is_err() {
            self.failed.store(true, Ordering::Relaxed);
            self.inbox.sync_ended();
            tracing::error!(
                "the thread that flushes the write-ahead log has ended: nothing more is written until a restart"
            );
        }
    }

    /// Flushes the groups that wait, and answers their jobs. For a writer that is a task.
    pub async fn flush_waiting(&self, log: &dyn FlushLog) {
        let Groups::Writer(waiting) = &self.groups else { return };
        let groups = std::mem::take(&mut *waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for group in groups {
            let started = Instant::now();
            let flushed = !self.has_failed() && is_flushed(log.flush().await);
            note_flush(&self.metrics, &self.failed, flushed, started);
            settle(group, flushed, started.elapsed());
        }
    }
}

/// Marks the syncer as failed when its thread ends.
struct FailOnExit {
    failed: Arc<AtomicBool>,
    inbox: Arc<Inbox>,
}

impl Drop for FailOnExit {
    fn drop(&mut self) {
        self.failed.store(true, Ordering::Relaxed);
        self.inbox.sync_ended();
    }
}

fn note_flush(metrics: &StoreMetrics, failed: &AtomicBool, flushed: bool, started: Instant) {
    metrics.sync_seconds.observe(Only, started.elapsed());
    metrics.up.set_count(Only, u64::from(flushed));
    if !flushed {
        failed.store(true, Ordering::Relaxed);
    }
}

fn is_flushed(result: Result<(), std::io::Error>) -> bool {
    match result {
        Ok(()) => true,
        Err(error) => {
            tracing::error!(
                error = %Chain(&error),
                "cannot flush the write-ahead log: nothing more is written until a restart"
            );
            false
        }
    }
}

fn settle(group: Committed, flushed: bool, took: Duration) {
    if flushed {
        group.claims.take_over(group.age + took);
    } else {
        group.claims.roll_back();
    }
    for job in group.jobs {
        job.settle(if flushed { Ok(()) } else { Err(unavailable("the disk failed")) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machinery::writer::{JobSize, WriteTx};
    use postrider_store::StoreError;
    use postrider_store::queue::claim_ledger::ClaimLedger;

    /// A job that reports its answer.
    struct Reporting(mpsc::Sender<bool>);

    impl Job for Reporting {
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
        let (sender, receiver) = mpsc::channel();
        let jobs: Vec<Box<dyn Job>> = vec![Box::new(Reporting(sender))];
        syncer.sync(Committed { jobs, claims: ClaimLedger::default().committed(), age: Duration::ZERO });
        receiver.recv().unwrap()
    }

    #[test]
    fn after_a_failed_flush_every_job_fails() {
        let inbox = Arc::new(Inbox::new(1));
        // A pipe cannot be flushed.
        let (_reader, writer) = std::io::pipe().unwrap();
        let log = File::from(std::os::fd::OwnedFd::from(writer));
        let (syncer, _thread) = Syncer::start(log, Arc::clone(&inbox), StoreMetrics::default()).unwrap();
        assert!(!answer(&syncer));
        assert!(syncer.has_failed());
        assert!(!answer(&syncer));
    }

    #[test]
    fn a_flushed_job_is_answered() {
        let log = tempfile::tempfile().unwrap();
        let (syncer, _thread) = Syncer::start(log, Arc::new(Inbox::new(1)), StoreMetrics::default()).unwrap();
        assert!(answer(&syncer) && answer(&syncer));
        assert!(!syncer.has_failed());
    }
}
