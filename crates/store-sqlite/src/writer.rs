//! The one thread that writes, and its group commit.
//!
//! Whatever waits when the writer comes round is written in one transaction and answered once it is on disk: the cost
//! of reaching the disk is shared by all who wait for it. While one group is on its way to the disk (`sync.rs`), the
//! statements of the next one run already, and more join it until it can be committed; under load that is a moment later
//! than it could be (`inbox.rs`), and otherwise nothing waits on purpose.
//!
//! A job must not have written anything when it refuses: it checks first and writes last. When a statement fails, the
//! group is rolled back and each job runs again in a transaction of its own, so that one bad job costs no other its
//! commit. Jobs can therefore run twice, and everything cached beside the database is forgotten on a rollback.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use postrider_domain::id::{KeySequence, RowKey, StoreTag};
use postrider_domain::limits;
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::ClaimSink;
use postrider_store::queue::claim_ledger::ClaimLedger;

use super::checkpoint::Checkpointer;
use super::health::HealthCache;
use super::inbox::{Closed, Inbox};
use super::lane::LaneBounds;
use super::matching::MatchingCache;
use super::sync::{Committed, Syncer};
use super::{StoreError, broken, unavailable};

/// What a job works with: the connection inside its transaction, and what is cached beside the database.
pub struct WriteTx<'w> {
    pub connection: &'w Connection,
    pub matching: &'w mut MatchingCache,
    pub lanes: &'w mut LaneBounds,
    pub health: &'w mut HealthCache,
    pub claims: &'w mut ClaimLedger,
    pub tag: StoreTag,
    pub now: Timestamp,
    pub keys: &'w SharedKeys,
    /// The workspace in which the operator is told what became of endpoints, if there is one to tell.
    pub operations: Option<RowKey>,
}

impl WriteTx<'_> {
    pub fn next_key(&self) -> RowKey {
        self.keys.next(self.now)
    }
}

/// Row keys are handed out to the writer and to whoever prepares a write.
pub type SharedKeys = Arc<KeyMaker>;

/// A [`KeySequence`] that threads share.
#[derive(Debug)]
pub struct KeyMaker(std::sync::Mutex<KeySequence>);

impl KeyMaker {
    pub fn new(sequence: KeySequence) -> Self {
        Self(std::sync::Mutex::new(sequence))
    }

    pub fn next(&self, now: Timestamp) -> RowKey {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next(now)
    }
}

/// How much of a group a job takes up.
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
    /// It need not have a commit of its own: nobody waits for it who would notice a moment.
    fn can_wait(&self) -> bool {
        false
    }
    fn run(&mut self, tx: &mut WriteTx<'_>) -> Result<(), rusqlite::Error>;
    /// Answers whoever waits, after the commit or instead of it.
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
        let outcome = committed.and_then(|()| result.ok_or_else(|| broken("a job that did not run")));
        // Nobody waits any more when the caller was cancelled; the write stands all the same.
        let _ = reply.send(outcome);
    }
}

/// Sends jobs to the writer thread, which ends when this is dropped and everything was written.
pub struct Writer {
    inbox: Arc<Inbox>,
    refuse_publishes: Arc<AtomicBool>,
    hand_over: Arc<OnceLock<Weak<dyn ClaimSink>>>,
    operations: Arc<OnceLock<RowKey>>,
}

/// What the writer thread is made of.
pub struct WriterParts {
    pub connection: Connection,
    pub tag: StoreTag,
    pub clock: Arc<dyn Clock>,
    pub keys: SharedKeys,
    pub checkpointer: Checkpointer,
    /// The write-ahead log.
    pub log: File,
}

impl Writer {
    /// The threads end in their order.
    pub fn start(parts: WriterParts) -> Result<(Self, [JoinHandle<()>; 2]), std::io::Error> {
        let inbox = Arc::new(Inbox::new(limits::WRITES_QUEUED));
        let WriterParts { connection, tag, clock, keys, checkpointer, log } = parts;
        let (syncer, sync_thread) = Syncer::start(log, Arc::clone(&inbox))?;
        let refuse_publishes = Arc::new(AtomicBool::new(false));
        let hand_over = Arc::new(OnceLock::new());
        let operations = Arc::new(OnceLock::new());
        let writer = Self {
            inbox: Arc::clone(&inbox),
            refuse_publishes: Arc::clone(&refuse_publishes),
            hand_over: Arc::clone(&hand_over),
            operations: Arc::clone(&operations),
        };
        let thread = std::thread::Builder::new().name("store-writer".to_owned()).spawn(move || {
            WriterThread {
                connection,
                tag,
                clock,
                keys,
                checkpointer,
                refuse_publishes,
                matching: MatchingCache::default(),
                lanes: LaneBounds::default(),
                health: HealthCache::default(),
                claims: ClaimLedger::default(),
                hand_over,
                operations,
                inbox,
                syncer,
            }
            .run();
        })?;
        Ok((writer, [thread, sync_thread]))
    }

    pub fn attach(&self, hand_over: Weak<dyn ClaimSink>) {
        if self.hand_over.set(hand_over).is_err() {
            tracing::error!("a second engine was attached to the store and is not handed anything");
        }
    }

    pub fn report_operations(&self, workspace_key: RowKey) {
        if self.operations.set(workspace_key).is_err() {
            tracing::error!("the store was told twice where to report to");
        }
    }

    /// Whether the write-ahead log has outgrown its limit, so that new events must wait.
    pub fn refuses_publishes(&self) -> bool {
        self.refuse_publishes.load(Ordering::Relaxed)
    }

    /// Runs `effect` in the next group, which is not begun at once for what can wait, and returns after its commit.
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

impl Drop for Writer {
    fn drop(&mut self) {
        self.inbox.close();
    }
}

struct WriterThread {
    connection: Connection,
    tag: StoreTag,
    clock: Arc<dyn Clock>,
    keys: SharedKeys,
    checkpointer: Checkpointer,
    refuse_publishes: Arc<AtomicBool>,
    matching: MatchingCache,
    lanes: LaneBounds,
    health: HealthCache,
    claims: ClaimLedger,
    hand_over: Arc<OnceLock<Weak<dyn ClaimSink>>>,
    operations: Arc<OnceLock<RowKey>>,
    inbox: Arc<Inbox>,
    syncer: Syncer,
}

impl Drop for WriterThread {
    /// Whatever the thread ends of, nobody may wait for it for ever.
    fn drop(&mut self) {
        self.inbox.abandon();
    }
}

impl WriterThread {
    /// Ends when the inbox is closed and empty.
    fn run(mut self) {
        while let Some(first) = self.inbox.first() {
            if self.syncer.has_failed() {
                first.settle(Err(unavailable("the disk failed")));
                continue;
            }
            self.write_group(first);
            let over_limit = self.checkpointer.after_commit(&self.connection);
            self.refuse_publishes.store(over_limit, Ordering::Relaxed);
        }
    }

    /// Writes a job, and all that come until it is time to commit.
    fn write_group(&mut self, first: Box<dyn Job>) {
        let mut group = vec![first];
        match self.transact(&mut group, true) {
            Ok(committed) => self.syncer.sync(Committed { jobs: group, ..committed }),
            Err(error) if group.len() == 1 => {
                group.into_iter().for_each(|job| job.settle(Err(store_error(&error))));
            }
            Err(error) => {
                tracing::warn!(jobs = group.len(), %error, "a group of writes was rolled back; its jobs run one by one");
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

    /// Runs all jobs and commits, or rolls everything back.
    fn transact(&mut self, group: &mut Vec<Box<dyn Job>>, more: bool) -> Result<Committed, rusqlite::Error> {
        self.claims.hand_over_to(self.hand_over.get().and_then(Weak::upgrade));
        let started = self.clock.now();
        match self.try_transact(group, more, started) {
            Ok(()) => {
                let age = self.clock.now().since(started);
                Ok(Committed { jobs: Vec::new(), handed: self.claims.committed(), age })
            }
            Err(error) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    fn roll_back(&mut self) {
        self.matching.forget_everything();
        self.lanes.forget_everything();
        self.health.forget_everything();
        self.claims.rolled_back();
        self.claims.hand_over_to(None);
        // After some failures SQLite has rolled back by itself; then there is nothing left to roll back.
        if !self.connection.is_autocommit()
            && let Err(error) = self.connection.execute_batch("ROLLBACK")
        {
            tracing::error!(%error, "a rollback failed");
        }
    }

    /// Runs what is in the group and, if `more` may join, what comes until the group before is on disk.
    fn try_transact(
        &mut self,
        group: &mut Vec<Box<dyn Job>>,
        more: bool,
        now: Timestamp,
    ) -> Result<(), rusqlite::Error> {
        self.connection.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut tx = WriteTx {
            connection: &self.connection,
            matching: &mut self.matching,
            lanes: &mut self.lanes,
            health: &mut self.health,
            claims: &mut self.claims,
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
                // A group may stay open for a while, and a job must not be told that it is earlier than when it was given.
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
        self.connection.prepare_cached("COMMIT")?.execute([])?;
        Ok(())
    }
}

/// Tells apart what may pass (a full disk, a locked file) from what will not.
pub fn store_error(error: &rusqlite::Error) -> StoreError {
    use rusqlite::ffi::ErrorCode as Code;
    let source = error.to_string().into();
    let why = match error.sqlite_error_code() {
        Some(Code::DiskFull) => "the disk is full",
        Some(Code::DatabaseBusy | Code::DatabaseLocked) => "the database is locked",
        Some(Code::SystemIoFailure) => "the disk failed",
        Some(Code::ReadOnly) => "the database is read-only",
        Some(Code::OutOfMemory) => "memory is short",
        _ => return StoreError::Broken(source),
    };
    StoreError::Unavailable { why, source: Some(source) }
}
