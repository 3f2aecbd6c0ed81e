//! The one thread that writes, and its group commit.
//!
//! Differs from PostgreSQL: SQLite allows one writer at a time, so all writes are grouped.
//!
//! The writer commits jobs in groups. A group is one transaction, and its jobs are answered once it is on disk. So they
//! share the cost of one flush. While a group is being flushed (`sync.rs`), the writer runs the statements of the next
//! group, and more jobs join that until it can be committed. Under load a group is committed a moment later than it
//! could be (`inbox.rs`). Otherwise nothing waits on purpose.
//!
//! A job that refuses must not have written anything: it checks first and writes last. When a statement fails, the
//! group is rolled back, and each job runs again in a transaction of its own. So a bad job costs no other job its
//! commit. A job can therefore run twice, and a rollback clears the caches that live beside the database.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use tokio::sync::oneshot;

use postrider_domain::error_chain::Chain;
use postrider_domain::id::{KeySequence, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::time::{Clock, Timestamp};
use postrider_metrics::{Database, Only, StoreMetrics};
use postrider_store::listener::ListenerWaker;
use postrider_store::queue::claim_ledger::ClaimLedger;
use postrider_store::sealing::{OUTDATED_KEY, OutdatedKey};
use postrider_store::stats::Rollups;
use postrider_store::{ClaimSink, DISK_FULL, StoreError};

use super::checkpoint::{Checkpointer, EmptyStep};
use super::drive::{Drive, FlushLog};
use super::inbox::{Closed, Inbox};
use super::reader::ReadTx;
use super::sync::{Committed, Syncer};
use crate::publish::matching::MatchingCache;
use crate::queue::endpoint_health::HealthCache;
use crate::queue::lane::LaneCache;
use crate::stored_bytes::{self, StoredBytesBook};
use crate::{broken, stats, unavailable};

/// What a job works with: the connection inside its transaction, and the caches beside the database.
pub struct WriteTx<'w> {
    pub connection: &'w Connection,
    pub matching: &'w mut MatchingCache,
    pub lanes: &'w mut LaneCache,
    pub health: &'w mut HealthCache,
    pub claims: &'w mut ClaimLedger,
    pub stored: &'w mut StoredBytesBook,
    /// What the group counts, written before its commit.
    pub rollups: &'w mut Rollups,
    pub tag: StoreTag,
    pub now: Timestamp,
    pub keys: &'w SharedKeySequence,
    /// The workspace that receives operational events. `None` if they are not enabled.
    pub operations: Option<RowKey>,
}

/// The result of a write inside its transaction. The outer error rolls the group back. The inner error is a refusal,
/// which must come before the first write.
pub type WriteResult<T, E> = Result<Result<T, E>, rusqlite::Error>;

impl WriteTx<'_> {
    /// For the queries that a write shares with reads.
    pub fn as_read(&self) -> ReadTx<'_> {
        ReadTx { connection: self.connection, tag: self.tag }
    }

    pub fn next_key(&self) -> RowKey {
        self.keys.next(self.now)
    }
}

/// A [`KeySequence`] that threads share.
#[derive(Debug)]
pub struct SharedKeySequence(std::sync::Mutex<KeySequence>);

impl SharedKeySequence {
    pub fn new(sequence: KeySequence) -> Self {
        Self(std::sync::Mutex::new(sequence))
    }

    pub fn next(&self, now: Timestamp) -> RowKey {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next(now)
    }
}

/// A job's share of a group, which is limited by [`limits::GROUP_ROWS`] and [`limits::GROUP_BYTES`]. An estimate.
#[derive(Clone, Copy, Debug)]
pub struct JobSize {
    pub rows: usize,
    pub bytes: usize,
}

impl JobSize {
    pub const ONE_ROW: Self = Self { rows: 1, bytes: 1024 };
}

pub trait Job: Send {
    fn size(&self) -> JobSize;
    /// Whether the job may share a commit that comes a moment later.
    fn can_wait(&self) -> bool {
        false
    }
    fn run(&mut self, tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error>;
    /// Answers the caller: after the commit is on disk, or when it failed.
    fn settle(self: Box<Self>, committed: Result<(), StoreError>);
}

struct Task<F, T> {
    size: JobSize,
    can_wait: bool,
    effect: F,
    result: Option<T>,
    reply: oneshot::Sender<Result<T, StoreError>>,
}

impl<F, T> Job for Task<F, T>
where
    F: FnMut(&mut WriteTx<'_>) -> Result<T, rusqlite::Error> + Send,
    T: Send,
{
    fn size(&self) -> JobSize {
        self.size
    }

    fn can_wait(&self) -> bool {
        self.can_wait
    }

    fn run(&mut self, tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error> {
        self.result = Some((self.effect)(tx)?);
        Ok(())
    }

    fn settle(self: Box<Self>, committed: Result<(), StoreError>) {
        let Self { result, reply, .. } = *self;
        let outcome = committed.and_then(|()| result.ok_or_else(|| broken("a job was committed but did not run")));
        // The send fails when the caller was cancelled. The write is committed all the same.
        let _ = reply.send(outcome);
    }
}

/// Sends jobs to the writer thread. The thread ends when this is dropped and all jobs are written.
pub struct Writer {
    inbox: Arc<Inbox>,
    refuse_publishes: Arc<AtomicBool>,
    sink: Arc<OnceLock<Weak<dyn ClaimSink>>>,
    operations: Arc<OnceLock<RowKey>>,
    stored_bytes_max: Arc<OnceLock<u64>>,
    emptying: Arc<EmptyRequests>,
    pub listener_waker: Arc<ListenerWaker>,
}

/// Those who wait for a step towards an empty log.
type EmptyRequests = Mutex<Vec<oneshot::Sender<Result<EmptyStep, StoreError>>>>;

/// What the writer thread needs.
pub struct WriterParts {
    pub connection: Connection,
    pub tag: StoreTag,
    pub clock: Arc<dyn Clock>,
    pub keys: Arc<SharedKeySequence>,
    pub checkpointer: Checkpointer,
    /// The write-ahead log.
    pub log: File,
    pub metrics: StoreMetrics,
}

impl Writer {
    /// Returns the threads of the writer and of flushing, in the order in which they end. None, if the store has none:
    /// then a task of the current runtime does the work of both.
    pub fn start(parts: WriterParts, drive: &Drive) -> Result<(Self, Vec<JoinHandle<()>>), std::io::Error> {
        let inbox = Arc::new(Inbox::new(limits::WRITES_QUEUED));
        let WriterParts { connection, tag, clock, keys, checkpointer, log, metrics } = parts;
        let (syncer, sync_thread) = match drive {
            Drive::Threads => {
                let (syncer, thread) = Syncer::start(log, Arc::clone(&inbox), metrics.clone())?;
                (syncer, Some(thread))
            }
            Drive::Tasks(_) => (Syncer::without_thread(Arc::clone(&inbox), metrics.clone()), None),
        };
        let refuse_publishes = Arc::new(AtomicBool::new(false));
        let sink = Arc::new(OnceLock::new());
        let operations = Arc::new(OnceLock::new());
        let stored_bytes_max = Arc::new(OnceLock::new());
        let emptying = Arc::new(EmptyRequests::default());
        let writer = Self {
            inbox: Arc::clone(&inbox),
            refuse_publishes: Arc::clone(&refuse_publishes),
            sink: Arc::clone(&sink),
            operations: Arc::clone(&operations),
            stored_bytes_max: Arc::clone(&stored_bytes_max),
            emptying: Arc::clone(&emptying),
            listener_waker: Arc::default(),
        };
        let claims = ClaimLedger::of(None, Arc::clone(&writer.listener_waker));
        let work = WriterWork {
            connection,
            tag,
            clock,
            keys,
            checkpointer,
            refuse_publishes,
            matching: MatchingCache::default(),
            lanes: LaneCache::default(),
            health: HealthCache::default(),
            claims,
            stored: StoredBytesBook::default(),
            rollups: Rollups::default(),
            sink,
            operations,
            stored_bytes_max,
            emptying,
            inbox,
            syncer,
            metrics,
        };
        let thread = match drive {
            Drive::Threads => {
                Some(std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || work.run())?)
            }
            Drive::Tasks(log) => {
                tokio::spawn(work.run_as_task(Arc::clone(log)));
                None
            }
        };
        Ok((writer, thread.into_iter().chain(sync_thread).collect()))
    }

    pub fn attach(&self, sink: Weak<dyn ClaimSink>) {
        if self.sink.set(sink).is_err() {
            tracing::error!("a second engine was attached to the store: it is passed no claims");
        }
    }

    pub fn enable_operational_events(&self, workspace_key: RowKey) {
        if self.operations.set(workspace_key).is_err() {
            tracing::error!("operational events are already enabled: the second workspace is ignored");
        }
    }

    pub fn limit_stored_bytes(&self, max: u64) {
        if self.stored_bytes_max.set(max).is_err() {
            tracing::error!("the budget of workspaces is already set: the second one is ignored");
        }
    }

    /// Whether the write-ahead log has reached its limit, so that events are refused.
    pub fn refuses_publishes(&self) -> bool {
        self.refuse_publishes.load(Ordering::Relaxed)
    }

    /// Runs `effect` in the next group. Returns once the group is on disk. A job that can wait does not start a group
    /// at once.
    pub async fn write<T, F>(&self, size: JobSize, can_wait: bool, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut WriteTx<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let task: Box<dyn Job> = Box::new(Task { size, can_wait, effect, result: None, reply });
        self.inbox.put(task).await.map_err(|Closed| unavailable("the store is closing"))?;
        answer.await.map_err(|_| unavailable("the store is closing"))?
    }
}

impl Writer {
    /// Takes one step towards an empty write-ahead log, after everything written before.
    pub async fn empty_log_step(&self) -> Result<EmptyStep, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.emptying.lock().unwrap_or_else(PoisonError::into_inner).push(reply);
        // The writer looks after each group.
        self.write(JobSize { rows: 0, bytes: 0 }, false, |_| Ok(())).await?;
        answer.await.map_err(|_| unavailable("the store is closing"))?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

/// The writer's state, on its thread or in its task.
struct WriterWork {
    connection: Connection,
    tag: StoreTag,
    clock: Arc<dyn Clock>,
    keys: Arc<SharedKeySequence>,
    checkpointer: Checkpointer,
    refuse_publishes: Arc<AtomicBool>,
    matching: MatchingCache,
    lanes: LaneCache,
    health: HealthCache,
    claims: ClaimLedger,
    stored: StoredBytesBook,
    rollups: Rollups,
    sink: Arc<OnceLock<Weak<dyn ClaimSink>>>,
    operations: Arc<OnceLock<RowKey>>,
    stored_bytes_max: Arc<OnceLock<u64>>,
    emptying: Arc<EmptyRequests>,
    inbox: Arc<Inbox>,
    syncer: Syncer,
    metrics: StoreMetrics,
}

impl Drop for WriterWork {
    /// Drops the jobs that wait, however the work ends: no caller may wait for ever.
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

impl WriterWork {
    /// Ends when the inbox is closed and empty.
    fn run(mut self) {
        while let Some(first) = self.inbox.first() {
            self.serve(first);
        }
    }

    /// As [`Self::run`], without threads: a group is flushed before the next one begins.
    async fn run_as_task(mut self, log: Arc<dyn FlushLog>) {
        while let Some(first) = self.inbox.first_for_task().await {
            self.serve(first);
            self.syncer.flush_waiting(log.as_ref()).await;
        }
    }

    /// Writes the group that begins with this job, and looks after the log.
    fn serve(&mut self, first: Box<dyn Job>) {
        if self.syncer.has_failed() {
            return first.settle(Err(unavailable("the disk failed")));
        }
        self.write_group(first);
        let over_limit = self.checkpointer.after_commit(&self.connection);
        self.metrics.wal_bytes.set_count(Only, self.checkpointer.log_bytes());
        self.refuse_publishes.store(over_limit, Ordering::Relaxed);
        self.empty_log();
    }

    /// Takes a step towards an empty log, if somebody waits for one.
    fn empty_log(&mut self) {
        let waiting = std::mem::take(&mut *self.emptying.lock().unwrap_or_else(PoisonError::into_inner));
        if waiting.is_empty() {
            return;
        }
        let step = self.checkpointer.empty_step(&self.connection);
        for reply in waiting {
            // The send fails when the caller was cancelled.
            let _ = reply.send(step.as_ref().copied().map_err(store_error));
        }
    }

    /// Writes a job, and every job that comes until it is time to commit.
    fn write_group(&mut self, first: Box<dyn Job>) {
        let mut group = vec![first];
        match self.transact(&mut group, true) {
            Ok(committed) => self.syncer.sync(Committed { jobs: group, ..committed }),
            Err(error) if group.len() == 1 => {
                group.into_iter().for_each(|job| job.settle(Err(store_error(&error))));
            }
            Err(error) => {
                tracing::warn!(
                    jobs = group.len(),
                    error = %Chain(&error),
                    "a group of writes was rolled back: its jobs run one by one"
                );
                for job in group {
                    let mut alone = vec![job];
                    match self.transact(&mut alone, false) {
                        Ok(committed) => self.syncer.sync(Committed { jobs: alone, ..committed }),
                        Err(error) => alone.into_iter().for_each(|job| job.settle(Err(store_error(&error)))),
                    }
                }
            }
        }
    }

    /// Runs all jobs and commits, or rolls back. `more` allows further jobs to join.
    fn transact(&mut self, group: &mut Vec<Box<dyn Job>>, more: bool) -> Result<Committed, rusqlite::Error> {
        self.claims.set_sink(self.sink.get().and_then(Weak::upgrade));
        let (started, begun) = (self.clock.now(), Instant::now());
        match self.try_transact(group, more, started) {
            Ok(()) => {
                self.measure_commit(group.len(), begun.elapsed());
                let age = self.clock.now().since(started);
                Ok(Committed { jobs: Vec::new(), claims: self.claims.committed(), age })
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn measure_commit(&mut self, jobs: usize, took: Duration) {
        self.rollups.committed(&self.metrics.log);
        self.metrics.commits.increment(Database::Sqlite);
        self.metrics.commit_seconds.observe(Only, took);
        self.metrics.commit_jobs.observe_count(Only, jobs);
    }

    fn roll_back(&mut self) {
        self.matching.clear();
        self.lanes.clear();
        self.health.clear();
        self.stored.clear();
        self.rollups.clear();
        self.claims.rolled_back();
        self.claims.set_sink(None);
        // SQLite rolls back automatically after some failures.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(error = %Chain(&error), "a rollback failed");
        }
    }

    /// Runs the jobs of the group and, if `more` may join, those that come until the group before is on disk.
    fn try_transact(
        &mut self,
        group: &mut Vec<Box<dyn Job>>,
        more: bool,
        now: Timestamp,
    ) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        self.stored.max = self.stored_bytes_max.get().copied();
        let mut tx = WriteTx {
            connection: &self.connection,
            matching: &mut self.matching,
            lanes: &mut self.lanes,
            health: &mut self.health,
            claims: &mut self.claims,
            stored: &mut self.stored,
            rollups: &mut self.rollups,
            tag: self.tag,
            now,
            keys: &self.keys,
            operations: self.operations.get().copied(),
        };
        let mut size = JobSize { rows: 0, bytes: 0 };
        let mut next = 0;
        loop {
            while let Some(job) = group.get_mut(next) {
                let more = job.size();
                size = JobSize { rows: size.rows + more.rows, bytes: size.bytes + more.bytes };
                // A group may stay open for a while. A job must not run at an instant before its caller sent it.
                tx.now = self.clock.now().max(tx.now);
                match catch_unwind(AssertUnwindSafe(|| job.run(&mut tx))) {
                    Ok(outcome) => outcome?,
                    Err(_) => return Err(rusqlite::Error::UnwindingPanic),
                }
                next += 1;
            }
            let full = !more || size.rows >= limits::GROUP_ROWS || size.bytes >= limits::GROUP_BYTES;
            match self.inbox.next(full) {
                Some(job) => group.push(job),
                None => break,
            }
        }
        stored_bytes::flush(&mut tx)?;
        stats::flush(&mut tx)?;
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

/// `Unavailable` for a fault that may pass, such as a full disk or a locked file. `Broken` for any other.
pub fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ffi::ErrorCode as Code;
    if let rusqlite::Error::ToSqlConversionFailure(source) = error
        && source.is::<OutdatedKey>()
    {
        return unavailable(OUTDATED_KEY);
    }
    let source = error.to_string().into();
    let why = match error.sqlite_error_code() {
        Some(Code::DiskFull) => DISK_FULL,
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => "the database is locked",
        Some(Code::SystemIoFailure) => "the disk failed",
        Some(Code::ReadOnly) => "the database is read-only",
        Some(Code::OutOfMemory) => "memory is short",
        _ => return StoreError::Broken(source),
    };
    StoreError::Unavailable { why, source: Some(source) }
}
