//! Transactions. This file writes no table.
//!
//! A write transaction reads the database's time and its own id when it begins. It runs again when it lost against
//! another one. When the connection is lost during the commit, the id tells whether it committed, unless the server
//! crashed meanwhile.
//!
//! **Workspace locks.** Each workspace has an advisory lock. A transaction that reads endpoints in order to enqueue or
//! claim shares it. A transaction that changes endpoints holds it exclusively. So no delivery is enqueued or claimed by
//! a state from before a committed change.
//!
//! **Lock order.** Workspaces, orders (`queue/order.rs`), rows of `due` that no other transaction holds, lanes, health.
//! A transaction that cannot keep this order may deadlock, and then runs again.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use deadpool_postgres::Pool;
use futures_util::future::{BoxFuture, join};

use postrider_domain::error_chain::Chain;
use postrider_domain::id::{KeySequence, RowKey, StoreTag};
use postrider_domain::time::Timestamp;
use postrider_metrics::{self as metrics, StoreMetrics};
use postrider_store::listener::ListenerWaker;
use postrider_store::queue::claim_ledger::{ClaimLedger, CommittedClaims};
use postrider_store::stats::Rollups;
use postrider_store::{ClaimSink, StoreError};

use super::column::{get, int, opt_int};
use super::connect::connection;
use super::fault::{PgError, store_error};
use super::session::Session;
use super::shard::{Shard, Shards};
use super::time::StoreTime;
use super::woken_listeners::WokenListeners;
use crate::publish::matching::MatchingCache;
use crate::stats;
use crate::stored_bytes::{self, Flushed, StoredBytesBook, StoredChanges};

/// An effect of a transaction, as a closure that can run again: clones its values for each run.
macro_rules! effect {
    (|$tx:ident $(, $value:ident)*| $body:expr) => {
        move |$tx: &mut $crate::machinery::transaction::WriteTx| {
            $(let $value = $value.clone();)*
            Box::pin(async move { $body.await })
        }
    };
}

pub(crate) use effect;

/// The database as this node uses it: connections, time, keys and caches, shared by all its transactions.
pub struct Database {
    pub pool: Pool,
    /// At most one connection, which bypasses the pooler if there is a URL for that. For statements outside of
    /// transactions.
    pub maintenance: Pool,
    pub tag: StoreTag,
    pub keys: Mutex<KeySequence>,
    pub time: StoreTime,
    pub matching: Mutex<MatchingCache>,
    pub stored: StoredBytesBook,
    pub shards: Shards,
    pub sink: OnceLock<Weak<dyn ClaimSink>>,
    /// The workspace that receives operational events, once they are enabled.
    pub operations: OnceLock<RowKey>,
    /// Class of this store's advisory locks. Another store in the same database has another class.
    pub lock_class: i32,
    pub begin_write: String,
    pub begin_read: String,
    /// Notified when something was left due that another node could claim or lease.
    pub nudge: tokio::sync::Notify,
    /// What the next notification tells the other nodes.
    pub woken_listeners: WokenListeners,
    pub listener_waker: Arc<ListenerWaker>,
    /// Nodes that send, including this one, as last seen.
    pub nodes: AtomicUsize,
    /// Of these, this one has the smallest number, as last seen. It reads the gauges of the whole store.
    pub is_first_node: AtomicBool,
    /// The epoch of the master key's state by which this process works. It reports it with its liveness.
    pub key_epoch: AtomicI64,
    pub metrics: StoreMetrics,
}

/// All workspaces share this many locks. A server keeps all its locks in one table of fixed size.
const WORKSPACE_LOCKS: i64 = 61;
/// Attempts at a transaction that loses against others.
const TRIES: u32 = 6;
/// Attempts to learn the result of a commit, and the wait between two.
const RESOLVE_TRIES: u32 = 20;
const RESOLVE_WAIT: Duration = Duration::from_millis(500);

impl Database {
    pub fn next_key(&self, now: Timestamp) -> RowKey {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).next(now)
    }

    /// Runs `effect` in a transaction and returns after its commit. Runs it again when it lost against another
    /// transaction. It completes even if the caller is cancelled.
    pub async fn write<T, F>(self: &Arc<Self>, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<T, PgError>> + Send + Sync + 'static,
    {
        let database = Arc::clone(self);
        let work = async move {
            let mut tries = 1;
            loop {
                match database.try_write(&effect).await {
                    Err(error) if error.is_retryable() && tries < TRIES => {
                        tracing::debug!(error = %Chain(&error), tries, "a transaction lost against another one; running it again");
                        tries += 1;
                    }
                    outcome => return outcome.map_err(store_error),
                }
            }
        };
        tokio::spawn(work).await.map_err(|error| StoreError::Broken(Box::new(error)))?
    }

    async fn try_write<T, F>(self: &Arc<Self>, effect: &F) -> Result<T, PgError>
    where
        F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<T, PgError>> + Send + Sync,
    {
        let mut tx = WriteTx::begin(self).await?;
        match effect(&mut tx).await {
            Ok(value) => {
                tx.commit().await?;
                Ok(value)
            }
            Err(error) => {
                tx.roll_back().await;
                Err(error)
            }
        }
    }

    /// Runs `query` in one snapshot.
    pub async fn read<T, F>(self: &Arc<Self>, query: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> FnOnce(&'t Session) -> BoxFuture<'t, Result<T, PgError>> + Send + 'static,
    {
        let database = Arc::clone(self);
        let work = async move {
            let mut open = OpenRead(Some(Session::new(connection(&database.pool).await?)));
            let Some(session) = &open.0 else { return Err(PgError::Unavailable("a read ended before it began")) };
            let (begun, value) = join(session.batch(&database.begin_read), query(session)).await;
            let ended = match (&begun, &value) {
                (Ok(()), Ok(_)) => session.batch("COMMIT").await,
                _ => session.batch("ROLLBACK").await,
            };
            if ended.is_ok() {
                // Returns the connection to the pool.
                drop(open.0.take());
            }
            begun.and(value)
        };
        let read = tokio::spawn(work).await.map_err(|error| StoreError::Broken(Box::new(error)))?;
        read.map_err(store_error)
    }
}

/// A connection in a read transaction. If dropped before the end, as when the query panics, the connection is closed.
struct OpenRead(Option<Session>);

impl Drop for OpenRead {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.discard();
        }
    }
}

/// A write transaction in progress. If dropped before the end, its connection is closed, which rolls it back.
pub struct WriteTx {
    session: Option<Session>,
    pub database: Arc<Database>,
    pub now: Timestamp,
    pub claims: ClaimLedger,
    pub tag: StoreTag,
    /// `config_version` of the workspaces read so far.
    pub versions: HashMap<RowKey, i64>,
    /// This transaction changed an endpoint. What it reads of endpoints may be rolled back and must not be cached.
    pub changed_endpoints: bool,
    /// Changes of what workspaces store, written before the commit.
    pub stored: StoredChanges,
    /// What the transaction counts, written before the commit. Behind a lock only because transactions are shared while
    /// statements are pipelined.
    rollups: Mutex<Rollups>,
    /// The writes that share the transaction.
    pub jobs: usize,
    id: String,
    /// The server run that issued the id. `None` when that run had no number yet.
    run: Option<i64>,
    began: Timestamp,
}

impl Deref for WriteTx {
    type Target = Session;

    fn deref(&self) -> &Session {
        // Only the end of the transaction takes it out.
        self.session.as_ref().expect("a transaction has its connection until it ends")
    }
}

impl WriteTx {
    pub async fn begin(database: &Arc<Database>) -> Result<Self, PgError> {
        let session = Session::new(connection(&database.pool).await?);
        let began = database.time.local();
        let first =
            "SELECT pg_current_xact_id()::text AS id, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now,
                            (SELECT id FROM server_run) AS run";
        let (begun, row) = join(session.batch(&database.begin_write), session.query_one(first, &[])).await;
        let facts = begun.and(row).and_then(|row| Ok((get(&row, "id")?, opt_int(&row, "run")?, int(&row, "now")?)));
        let (id, run, database_now) = match facts {
            Ok(facts) => facts,
            Err(error) => {
                session.discard();
                return Err(error);
            }
        };
        let now = database.time.of_database(Timestamp::from_millis(database_now));
        // With its clock off, this node must not sign. Another node may send, or this one later.
        let sink = database.sink.get().and_then(Weak::upgrade).filter(|_| !database.time.is_off());
        Ok(Self {
            session: Some(session),
            database: Arc::clone(database),
            now,
            claims: ClaimLedger::of(sink, Arc::clone(&database.listener_waker)),
            tag: database.tag,
            versions: HashMap::new(),
            changed_endpoints: false,
            stored: StoredChanges::default(),
            rollups: Mutex::default(),
            jobs: 1,
            id,
            run,
            began,
        })
    }

    pub fn next_key(&self) -> RowKey {
        self.database.next_key(self.now)
    }

    /// Keeps other transactions from changing endpoints of these workspaces until this one ends. Call it before reading
    /// any of them.
    pub async fn share_workspaces(&self, keys: impl IntoIterator<Item = RowKey>) -> Result<(), PgError> {
        let mut locks: Vec<i32> = keys.into_iter().map(lock_of).collect();
        locks.sort_unstable();
        locks.dedup();
        let class = self.database.lock_class;
        self.query("SELECT pg_advisory_xact_lock_shared($1, lock) FROM unnest($2) AS lock", &[&class, &locks]).await?;
        Ok(())
    }

    /// Waits until no transaction enqueues or claims for this workspace, and keeps others from it until this one ends.
    /// Call it before reading any endpoint of the workspace.
    pub async fn lock_workspace(&self, key: RowKey) -> Result<(), PgError> {
        self.query("SELECT pg_advisory_xact_lock($1, $2)", &[&self.database.lock_class, &lock_of(key)]).await?;
        Ok(())
    }

    /// Counts, for the rollups of the transaction.
    pub fn count<T>(&self, count: impl FnOnce(&mut Rollups) -> T) -> T {
        count(&mut self.rollups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The time since the transaction began.
    pub fn age(&self) -> Duration {
        self.database.time.local().since(self.began)
    }

    /// Writes what the transaction has counted. The shard is held until the commit.
    async fn flush(&self) -> Result<(Option<Shard>, Option<Flushed>), PgError> {
        if self.stored.is_empty() && self.count(|rollups| rollups.is_empty()) {
            return Ok((None, None));
        }
        let shard = Shard::take(&self.database);
        let (flushed, counted) = join(stored_bytes::flush(self, &shard), stats::flush(self, &shard)).await;
        counted?;
        Ok((Some(shard), flushed?))
    }

    /// Commits, then passes the transaction's claims to the engine.
    pub async fn commit(mut self) -> Result<(), PgError> {
        let (_shard, flushed) = self.flush().await?;
        let claims = self.finish().await?;
        if let Some(flushed) = flushed {
            flushed.committed(&self.database);
        }
        let age = self.database.time.local().since(self.began);
        self.measure_commit(age);
        let left = claims.take_over(age);
        if left.is_due || !left.listeners.is_empty() {
            self.database.woken_listeners.note(&left.listeners, left.is_due);
            self.database.nudge.notify_one();
        }
        Ok(())
    }

    fn measure_commit(&mut self, took: Duration) {
        let metrics = &self.database.metrics;
        self.rollups.get_mut().unwrap_or_else(PoisonError::into_inner).committed(&metrics.log);
        metrics.commits.increment(metrics::Database::Postgres);
        metrics.commit_seconds.observe(metrics::Only, took);
        metrics.commit_jobs.observe_count(metrics::Only, self.jobs);
    }

    async fn finish(&mut self) -> Result<CommittedClaims, PgError> {
        let Some(session) = self.session.take() else { return Err(PgError::Unavailable("a transaction ended twice")) };
        match session.batch("COMMIT").await {
            Ok(()) => {}
            Err(error) if error.lost_connection() => {
                session.discard();
                self.resolve(error).await?;
            }
            Err(error) => {
                session.discard();
                self.claims.rolled_back();
                return Err(error);
            }
        }
        Ok(self.claims.committed())
    }

    /// The connection was lost during the commit: asks the database for the result.
    async fn resolve(&mut self, lost: PgError) -> Result<(), PgError> {
        for _ in 0..RESOLVE_TRIES {
            match self.database.commit_status(&self.id, self.run).await {
                Ok(CommitStatus::Committed) => return Ok(()),
                Ok(CommitStatus::RolledBack) => {
                    self.claims.rolled_back();
                    return Err(lost);
                }
                Ok(CommitStatus::Unknown) => {
                    self.claims.rolled_back();
                    return Err(PgError::Unavailable("the database crashed during a commit"));
                }
                Ok(CommitStatus::InProgress) | Err(_) => tokio::time::sleep(RESOLVE_WAIT).await,
            }
        }
        tracing::error!(error = %Chain(&lost), "the connection was lost during a commit, and the database did not answer whether it committed");
        self.claims.rolled_back();
        Err(PgError::Unavailable("the connection was lost during a commit, and its result is unknown"))
    }

    pub async fn roll_back(mut self) {
        self.claims.rolled_back();
        if let Some(session) = self.session.take()
            && session.batch("ROLLBACK").await.is_err()
        {
            session.discard();
        }
    }
}

impl Drop for WriteTx {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            session.discard();
            self.claims.rolled_back();
        }
    }
}

/// The result of a transaction as the database knows it.
enum CommitStatus {
    Committed,
    RolledBack,
    InProgress,
    /// The server has crashed since, or another server has replaced it. An id that was not on disk yet is issued again,
    /// so its status may be that of another transaction.
    Unknown,
}

impl Database {
    async fn commit_status(&self, id: &str, run: Option<i64>) -> Result<CommitStatus, PgError> {
        let Some(run) = run else { return Ok(CommitStatus::Unknown) };
        let session = Session::new(connection(&self.pool).await?);
        let sql = "SELECT CASE WHEN (SELECT id FROM server_run) = $2 THEN pg_xact_status($1::text::xid8) ELSE 'unknown' END AS fate";
        let row = session.query_one(sql, &[&id, &run]).await?;
        Ok(match get::<Option<&str>>(&row, "fate")? {
            Some("committed") => CommitStatus::Committed,
            Some("aborted") => CommitStatus::RolledBack,
            Some("in progress") => CommitStatus::InProgress,
            // Too old to be known, or of another run.
            _ => CommitStatus::Unknown,
        })
    }
}

fn lock_of(workspace_key: RowKey) -> i32 {
    i32::try_from(workspace_key.as_i64().rem_euclid(WORKSPACE_LOCKS)).unwrap_or_default()
}
