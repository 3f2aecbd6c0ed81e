//! One transaction that writes: begun with the database's time and its own id, run again when it lost against another, and
//! resolved by its id when the connection is lost while it commits, unless the server crashed then.
//!
//! Workspaces are locked by advisory locks, shared by whoever reads their endpoints to queue or to claim and exclusive for whoever
//! changes these: so nothing is enqueued or claimed by what was changed before it. The order in which a transaction takes its
//! locks is: workspaces, orders (`order.rs`), rows of the queue that nobody else has, lanes, health. One that could not be held to
//! it, and met another, is run again.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use deadpool_postgres::Pool;
use futures_util::future::{BoxFuture, join};

use postrider_domain::id::{KeySequence, RowKey, StoreTag};
use postrider_domain::time::Timestamp;
use postrider_store::queue::claim_ledger::{ClaimLedger, CommittedClaims};
use postrider_store::{ClaimSink, StoreError};

use super::column::{get, int, opt_int};
use super::connect::connection;
use super::fault::{PgError, store_error};
use super::matching::MatchingCache;
use super::session::Session;
use super::time::StoreTime;

/// What all transactions of one node share.
pub struct Shared {
    pub pool: Pool,
    pub tag: StoreTag,
    pub keys: Mutex<KeySequence>,
    pub time: StoreTime,
    pub matching: Mutex<MatchingCache>,
    pub hand_over: OnceLock<Weak<dyn ClaimSink>>,
    /// The workspace in which the operator is told what became of endpoints, if there is one to tell.
    pub operations: OnceLock<RowKey>,
    /// Tells the advisory locks of this store from those of another in the same database.
    pub lock_class: i32,
    pub begin_write: String,
    pub begin_read: String,
    /// OperationalReport when something was left due that another node could take.
    pub nudge: tokio::sync::Notify,
    /// Nodes that send, this one included, as last seen.
    pub nodes: AtomicUsize,
}

/// Workspaces share this many locks: few, because all locks of a server lie in one table of a fixed size.
const WORKSPACE_LOCKS: i64 = 61;
/// How often a transaction that lost against another is tried.
const TRIES: u32 = 6;
/// How often, and after how long, it is asked what became of a commit.
const RESOLVE_TRIES: u32 = 20;
const RESOLVE_WAIT: Duration = Duration::from_millis(500);

impl Shared {
    pub fn next_key(&self, now: Timestamp) -> RowKey {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner).next(now)
    }

    /// Runs `effect` in a transaction, again if it lost against another, and returns after its commit. It runs to its end even
    /// if nobody waits for it any more.
    pub async fn write<T, F>(self: &Arc<Self>, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<T, PgError>> + Send + Sync + 'static,
    {
        let shared = Arc::clone(self);
        let work = async move {
            let mut tries = 1;
            loop {
                match shared.try_write(&effect).await {
                    Err(error) if error.is_worth_another_try() && tries < TRIES => {
                        tracing::debug!(%error, tries, "a transaction is run again");
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
        let shared = Arc::clone(self);
        let work = async move {
            let mut open = OpenRead(Some(Session::new(connection(&shared.pool).await?)));
            let Some(session) = &open.0 else { return Err(PgError::Unavailable("a read ended before it began")) };
            let (begun, value) = join(session.batch(&shared.begin_read), query(session)).await;
            let ended = match (&begun, &value) {
                (Ok(()), Ok(_)) => session.batch("COMMIT").await,
                _ => session.batch("ROLLBACK").await,
            };
            if ended.is_ok() {
                // Given back to the pool.
                drop(open.0.take());
            }
            begun.and(value)
        };
        let read = tokio::spawn(work).await.map_err(|error| StoreError::Broken(Box::new(error)))?;
        read.map_err(store_error)
    }
}

/// A connection inside a transaction that reads. Dropped before its end, as when the reader panics, it is closed.
struct OpenRead(Option<Session>);

impl Drop for OpenRead {
    fn drop(&mut self) {
        if let Some(session) = self.0.take() {
            session.discard();
        }
    }
}

/// A transaction under way. Dropped before its end, its connection is closed, which rolls it back.
pub struct WriteTx {
    session: Option<Session>,
    pub shared: Arc<Shared>,
    pub now: Timestamp,
    pub claims: ClaimLedger,
    pub tag: StoreTag,
    /// `config_version` of the workspaces looked at.
    pub versions: HashMap<RowKey, i64>,
    /// It changed an endpoint: what it reads of endpoints may be rolled back, and is not to be kept.
    pub changed_endpoints: bool,
    id: String,
    /// The run of the server that gave the id; `None` when it had just begun and had no number yet.
    run: Option<i64>,
    began: Timestamp,
}

impl Deref for WriteTx {
    type Target = Session;

    fn deref(&self) -> &Session {
        // It is taken out only by what ends the transaction.
        self.session.as_ref().expect("a transaction has its connection until it ends")
    }
}

impl WriteTx {
    pub async fn begin(shared: &Arc<Shared>) -> Result<Self, PgError> {
        let session = Session::new(connection(&shared.pool).await?);
        let began = shared.time.local();
        let first =
            "SELECT pg_current_xact_id()::text AS id, (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now,
                            (SELECT id FROM server_run) AS run";
        let (begun, row) = join(session.batch(&shared.begin_write), session.query_one(first, &[])).await;
        let facts = begun.and(row).and_then(|row| Ok((get(&row, "id")?, opt_int(&row, "run")?, int(&row, "now")?)));
        let (id, run, database_now) = match facts {
            Ok(facts) => facts,
            Err(error) => {
                session.discard();
                return Err(error);
            }
        };
        let now = shared.time.of_database(Timestamp::from_millis(database_now));
        // What it would sign by a clock that is off, another node may send, or this one later.
        let hand_over = shared.hand_over.get().and_then(Weak::upgrade).filter(|_| !shared.time.is_off());
        Ok(Self {
            session: Some(session),
            shared: Arc::clone(shared),
            now,
            claims: ClaimLedger::of(hand_over),
            tag: shared.tag,
            versions: HashMap::new(),
            changed_endpoints: false,
            id,
            run,
            began,
        })
    }

    pub fn next_key(&self) -> RowKey {
        self.shared.next_key(self.now)
    }

    /// Lets nobody change the endpoints of these workspaces until this transaction ends. To be called before anything of
    /// them is read.
    pub async fn share_workspaces(&self, keys: impl IntoIterator<Item = RowKey>) -> Result<(), PgError> {
        let mut locks: Vec<i32> = keys.into_iter().map(lock_of).collect();
        locks.sort_unstable();
        locks.dedup();
        let class = self.shared.lock_class;
        self.query("SELECT pg_advisory_xact_lock_shared($1, lock) FROM unnest($2) AS lock", &[&class, &locks]).await?;
        Ok(())
    }

    /// Waits until nobody queues or claims by the endpoints of this workspace, and keeps them from it until this
    /// transaction ends. To be called before anything of them is read.
    pub async fn lock_workspace(&self, key: RowKey) -> Result<(), PgError> {
        self.query("SELECT pg_advisory_xact_lock($1, $2)", &[&self.shared.lock_class, &lock_of(key)]).await?;
        Ok(())
    }

    /// Makes everything durable and hands over what was claimed on the way.
    pub async fn commit(mut self) -> Result<(), PgError> {
        let handed = self.finish().await?;
        let age = self.shared.time.local().since(self.began);
        let left_due = handed.take_over(age);
        if left_due {
            self.shared.nudge.notify_one();
        }
        Ok(())
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

    /// The connection was lost while the commit was under way: asks the database what became of it.
    async fn resolve(&mut self, lost: PgError) -> Result<(), PgError> {
        for _ in 0..RESOLVE_TRIES {
            match self.shared.fate_of(&self.id, self.run).await {
                Ok(Fate::Committed) => return Ok(()),
                Ok(Fate::RolledBack) => {
                    self.claims.rolled_back();
                    return Err(lost);
                }
                Ok(Fate::Unknown) => {
                    self.claims.rolled_back();
                    return Err(PgError::Unavailable("the database crashed during a commit"));
                }
                Ok(Fate::UnderWay) | Err(_) => tokio::time::sleep(RESOLVE_WAIT).await,
            }
        }
        tracing::error!(error = %lost, "the connection was lost during a commit, and the database could not be asked what became of it");
        self.claims.rolled_back();
        Err(PgError::Unavailable("the database went away during a commit"))
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

/// What became of a transaction.
enum Fate {
    Committed,
    RolledBack,
    UnderWay,
    /// The server has crashed since, or another has taken its place: an id that was not on disk yet is given out once more, and what
    /// is said of it then is about another transaction.
    Unknown,
}

impl Shared {
    async fn fate_of(&self, id: &str, run: Option<i64>) -> Result<Fate, PgError> {
        let Some(run) = run else { return Ok(Fate::Unknown) };
        let session = Session::new(connection(&self.pool).await?);
        let sql = "SELECT CASE WHEN (SELECT id FROM server_run) = $2 THEN pg_xact_status($1::text::xid8) ELSE 'unknown' END AS fate";
        let row = session.query_one(sql, &[&id, &run]).await?;
        Ok(match get::<Option<&str>>(&row, "fate")? {
            Some("committed") => Fate::Committed,
            Some("aborted") => Fate::RolledBack,
            Some("in progress") => Fate::UnderWay,
            // It is so long ago that nothing is kept of it, or another run's.
            _ => Fate::Unknown,
        })
    }
}

fn lock_of(workspace_key: RowKey) -> i32 {
    i32::try_from(workspace_key.as_i64().rem_euclid(WORKSPACE_LOCKS)).unwrap_or_default()
}
