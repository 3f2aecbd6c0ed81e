//! One node among several: its number, its liveness and its notifications. Writes `nodes` and `server_run`.
//!
//! **Numbers.** Row keys carry the number of the process that made them, so a number belongs to one process at a time.
//! A new process gets a number that was never used. When all have been used, it gets the one whose holder was seen
//! longest ago.
//!
//! **Liveness.** A process updates its row every two seconds. A process that stood still for longer than its number is
//! kept may find it reassigned. It then takes another one.
//!
//! **Notifications.** A notification is a hint that something fell due. A node that misses it polls all the same.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use postrider_domain::error_chain::Chain;
use postrider_domain::id::KeySequence;
use postrider_domain::node as domain;
use postrider_domain::time::Timestamp;
use postrider_metrics::Only;

use super::column::{get, int, number, opt_instant, opt_int, unexpected};
use super::connect::{ConnectionConfig, connection};
use super::fault::PgError;
use super::partition;
use super::session::{IDLE_TIMEOUT, Session};
use super::transaction::Database;
use super::woken_listeners::wake_named;

/// How often a node updates its row, and how long without an update until it counts as gone.
const SEEN_EVERY: Duration = Duration::from_secs(2);
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How long the list of nodes shows one that went silent.
const LISTED_FOR: Duration = Duration::from_secs(3600);
/// A number is not reassigned before its holder has been silent for this long.
const NUMBER_KEPT: Duration = Duration::from_secs(600);
/// Row keys have nine bits for the number. The last 32 numbers are for commands: each command draws one at random.
const NUMBERS: u16 = 480;
const NUMBERS_FOR_COMMANDS: u16 = 32;
/// How often the partitions of the coming days are created.
const DAYS_EVERY: Duration = Duration::from_secs(3600);
/// The shortest interval between two notifications to other nodes.
const NUDGE_EVERY: Duration = Duration::from_millis(50);
/// This process has not reported an epoch of the master key's state.
pub const NO_KEY_EPOCH: i64 = -1;
const RECONNECT_WAIT: Duration = Duration::from_secs(2);

/// The number of a command. Two commands that draw the same number and make a key in the same millisecond collide. The
/// second transaction runs again with the next key.
pub const fn number_of_command(drawn: u16) -> u16 {
    NUMBERS + drawn % NUMBERS_FOR_COMMANDS
}

/// Takes a number for the process `holder`.
pub async fn take_number(session: &Session, process: NodeProcess, now: Timestamp) -> Result<u16, PgError> {
    session.batch(&format!("BEGIN; {IDLE_TIMEOUT}")).await?;
    let taken = try_take(session, process, now).await;
    session.batch(if taken.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    taken
}

async fn try_take(session: &Session, process: NodeProcess, now: Timestamp) -> Result<u16, PgError> {
    let NodeProcess { holder, version, started_at } = process;
    let started_at = started_at.millis();
    session.batch("LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE").await?;
    let sql = "INSERT INTO nodes (number, holder, seen_at, sends, version, started_at)
               SELECT COALESCE(MAX(number) + 1, 0), $1, $2, TRUE, $4, $5 FROM nodes
               HAVING COALESCE(MAX(number) + 1, 0) < $3 RETURNING number";
    let (seen_at, numbers) = (now.millis(), i64::from(NUMBERS));
    if let Some(row) = session.query_opt(sql, &[&holder, &seen_at, &numbers, &version, &started_at]).await? {
        return number(&row, "number");
    }
    let sql =
        "UPDATE nodes SET holder = $1, seen_at = $2, sends = TRUE, key_epoch = NULL, version = $4, started_at = $5
               WHERE number = (SELECT number FROM nodes WHERE seen_at < $3 ORDER BY seen_at LIMIT 1) RETURNING number";
    let before = now.minus(NUMBER_KEPT).millis();
    match session.query_opt(sql, &[&holder, &seen_at, &before, &version, &started_at]).await? {
        Some(row) => number(&row, "number"),
        None => Err(PgError::Unavailable(
            "all 480 node numbers are in use; one becomes free ten minutes after its node was last seen",
        )),
    }
}

/// Numbers the server run if it has no number, as after a crash (`transaction.rs`).
pub async fn number_run(session: &Session) -> Result<(), PgError> {
    let sql = "INSERT INTO server_run (id) SELECT (random() * 9007199254740991)::bigint
               WHERE NOT EXISTS (SELECT 1 FROM server_run) ON CONFLICT DO NOTHING";
    session.execute(sql, &[]).await?;
    Ok(())
}

/// The background tasks of a node. They end when this is dropped.
pub struct Node {
    stop: CancellationToken,
    _tasks: Vec<JoinHandle<()>>,
}

/// A process as its row in `nodes` says.
#[derive(Clone, Copy)]
pub struct NodeProcess {
    /// Drawn at random.
    pub holder: i64,
    pub version: &'static str,
    pub started_at: Timestamp,
}

/// This process and its number.
#[derive(Clone, Copy)]
pub struct NodeIdentity {
    pub process: NodeProcess,
    pub number: u16,
}

impl Node {
    /// With `direct`, a connection with a session of its own, the node exchanges notifications with other nodes.
    pub fn start(database: &Arc<Database>, identity: NodeIdentity, direct: Option<ConnectionConfig>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = vec![
            tokio::spawn(stay_registered(Arc::clone(database), identity, stop.clone())),
            tokio::spawn(create_days_ahead(Arc::clone(database), stop.clone())),
        ];
        if let Some(direct) = direct {
            tasks.push(tokio::spawn(exchange_notifications(Arc::clone(database), direct, stop.clone())));
        }
        Self { stop, _tasks: tasks }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn stay_registered(database: Arc<Database>, mut identity: NodeIdentity, stop: CancellationToken) {
    while !stopped_within(SEEN_EVERY, &stop).await {
        let registration = update_registration(&database, &identity).await;
        database.metrics.up.set_count(Only, u64::from(registration.is_ok()));
        match registration {
            Ok(Some(senders)) => {
                database.nodes.store(senders.count, Ordering::Relaxed);
                database.is_first_node.store(senders.first == Some(identity.number), Ordering::Relaxed);
            }
            Ok(None) => match take_new_number(&database, &mut identity).await {
                Ok(()) => tracing::warn!(
                    number = identity.number,
                    "this process stood still so long that its node number was reassigned; it took a new one"
                ),
                Err(error) => {
                    tracing::error!(error = %Chain(&error), "this process's node number was reassigned, and it could not take a new one")
                }
            },
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "cannot update this node's row in the database; trying again")
            }
        }
    }
    if let Ok(connection) = connection(&database.pool).await {
        let _ = leave(&Session::new(connection), &identity).await;
    }
}

/// The nodes that send or did so in the last ten seconds.
#[derive(Clone, Copy, Debug)]
pub struct Senders {
    /// At least 1: the caller sends.
    pub count: usize,
    /// The smallest number.
    pub first: Option<u16>,
}

impl Default for Senders {
    fn default() -> Self {
        Self { count: 1, first: None }
    }
}

/// Updates this node's row. Returns the nodes that send, `None` when the number belongs to another process.
async fn update_registration(database: &Database, identity: &NodeIdentity) -> Result<Option<Senders>, PgError> {
    let session = Session::new(connection(&database.pool).await?);
    let row = session.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now", &[]).await?;
    let now = database.time.of_database(Timestamp::from_millis(int(&row, "now")?));
    number_run(&session).await?;
    let sql = "UPDATE nodes SET seen_at = $3, sends = TRUE, key_epoch = $4 WHERE number = $1 AND holder = $2";
    let number = i64::from(identity.number);
    let key_epoch = Some(database.key_epoch.load(Ordering::Relaxed)).filter(|epoch| *epoch != NO_KEY_EPOCH);
    if session.execute(sql, &[&number, &identity.process.holder, &now.millis(), &key_epoch]).await? == 0 {
        return Ok(None);
    }
    count_senders(&session, now).await.map(Some)
}

pub async fn count_senders(session: &Session, now: Timestamp) -> Result<Senders, PgError> {
    let sql = "SELECT COUNT(*) AS count, MIN(number) AS first FROM nodes WHERE sends AND seen_at >= $1";
    let row = session.query_one(sql, &[&now.minus(GONE_AFTER).millis()]).await?;
    let first = opt_int(&row, "first")?.map(u16::try_from).transpose().map_err(|_| unexpected("nodes.number"))?;
    Ok(Senders { count: number::<usize>(&row, "count")?.max(1), first })
}

/// The numbers of the nodes that send and do not yet work by the master key's state with this epoch.
pub async fn before_key_epoch(session: &Session, epoch: i64) -> Result<Vec<u16>, PgError> {
    let sql = "SELECT number FROM nodes WHERE sends AND (key_epoch IS NULL OR key_epoch < $1)
                   AND seen_at >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $2 ORDER BY number";
    let gone_after = i64::try_from(GONE_AFTER.as_millis()).unwrap_or(i64::MAX);
    session.query(sql, &[&epoch, &gone_after]).await?.iter().map(|row| number(row, "number")).collect()
}

async fn take_new_number(database: &Database, identity: &mut NodeIdentity) -> Result<(), PgError> {
    let session = Session::new(connection(&database.pool).await?);
    let now = database.time.about_now();
    identity.number = take_number(&session, identity.process, now).await?;
    let mut keys = database.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let last = keys.next(now);
    *keys = KeySequence::after(identity.number, last);
    Ok(())
}

/// The nodes that run, and those that were seen in the last hour and have not deregistered.
pub async fn list(session: &Session, now: Timestamp) -> Result<Vec<domain::Node>, PgError> {
    let sql = "SELECT number, version, started_at, seen_at, seen_at >= $1 AS is_running
               FROM nodes WHERE sends AND seen_at >= $2 ORDER BY number";
    let (running, listed) = (now.minus(GONE_AFTER).millis(), now.minus(LISTED_FOR).millis());
    let rows = session.query(sql, &[&running, &listed]).await?;
    rows.iter()
        .map(|row| {
            Ok(domain::Node {
                number: number(row, "number")?,
                version: get(row, "version")?,
                started_at: opt_instant(row, "started_at")?,
                last_seen_at: Timestamp::from_millis(int(row, "seen_at")?),
                is_running: get(row, "is_running")?,
            })
        })
        .collect()
}

/// Whether any node sends, as far as the database knows.
pub async fn is_any_active(session: &Session) -> Result<bool, PgError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM nodes WHERE sends
                   AND seen_at >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1) AS here";
    let gone_after = i64::try_from(GONE_AFTER.as_millis()).unwrap_or(i64::MAX);
    get(&session.query_one(sql, &[&gone_after]).await?, "here")
}

/// Deregisters this node, so that the others get its share at once.
pub async fn leave(session: &Session, identity: &NodeIdentity) -> Result<(), PgError> {
    let sql = "UPDATE nodes SET sends = FALSE WHERE number = $1 AND holder = $2";
    session.execute(sql, &[&i64::from(identity.number), &identity.process.holder]).await?;
    Ok(())
}

async fn create_days_ahead(database: Arc<Database>, stop: CancellationToken) {
    loop {
        if let Err(error) = create_days(&database).await {
            tracing::debug!(error = %Chain(&error), "cannot create the partitions of the coming days; trying again");
        }
        if stopped_within(DAYS_EVERY, &stop).await {
            return;
        }
    }
}

async fn create_days(database: &Database) -> Result<(), PgError> {
    let session = Session::new(connection(&database.pool).await?);
    partition::ensure_days(&session, database.lock_class, database.time.about_now()).await
}

/// Exchanges notifications with other nodes. Reconnects when the connection is lost.
async fn exchange_notifications(database: Arc<Database>, direct: ConnectionConfig, stop: CancellationToken) {
    let channel = format!("postrider_{}", database.lock_class.unsigned_abs());
    let told = || database.woken_listeners.take_text();
    let wake = |text: &str| {
        if wake_named(text, &database.listener_waker)
            && let Some(sink) = database.sink.get().and_then(Weak::upgrade)
        {
            sink.wake();
        }
    };
    loop {
        let ended = tokio::select! {
            () = stop.cancelled() => return,
            ended = direct.listen(&channel, (&database.nudge, told), NUDGE_EVERY, wake) => ended,
        };
        if let Err(error) = ended {
            tracing::warn!(error = %Chain(&error), "the connection for notifications was lost; this node polls until it is back");
        }
        if stopped_within(RECONNECT_WAIT, &stop).await {
            return;
        }
    }
}

/// Waits. Returns whether the node was stopped meanwhile.
async fn stopped_within(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(time) => false,
    }
}
