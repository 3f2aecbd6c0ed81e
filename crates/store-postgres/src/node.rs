//! A node among others: the number that its row keys carry, how many nodes there are, and what they tell each other.
//!
//! A number is given to one process at a time: to the next that has never had it, and once all have been given, to whoever comes after
//! the one seen longest ago. A process says every other second that it is there. One that finds its number given away, because it
//! stood still for longer than a number is kept, takes another.
//!
//! What nodes tell each other is a hint that something fell due. Whoever misses it looks from time to time all the same.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use postrider_domain::id::KeySequence;
use postrider_domain::time::Timestamp;
use postrider_store::ClaimSink;

use super::column::{int, number};
use super::connect::{Target, connection};
use super::fault::PgError;
use super::partition;
use super::session::{NO_STANDSTILL, Session};
use super::transaction::Shared;

/// How often a node says that it is there, and how long after that it counts as gone.
const SEEN_EVERY: Duration = Duration::from_secs(2);
const GONE_AFTER: Duration = Duration::from_secs(10);
/// A number is not given to another process before its holder has been silent for this long.
const NUMBER_KEPT: Duration = Duration::from_secs(600);
/// Row keys have nine bits for it. The last 32 numbers are for commands, which come and go: each draws one.
const NUMBERS: u16 = 480;
const NUMBERS_FOR_COMMANDS: u16 = 32;
/// How often it is seen to that the coming days have their partitions.
const DAYS_EVERY: Duration = Duration::from_secs(3600);
/// At most so often are other nodes told that something fell due.
const NUDGE_EVERY: Duration = Duration::from_millis(50);
const RECONNECT_WAIT: Duration = Duration::from_secs(2);

/// The number of a command. Two that draw the same and make a key in the same millisecond meet in that key, and the second is run
/// again with the next one.
pub const fn number_of_command(drawn: u16) -> u16 {
    NUMBERS + drawn % NUMBERS_FOR_COMMANDS
}

/// Takes a number for a node that is known by `holder`.
pub async fn take_number(session: &Session, holder: i64, now: Timestamp) -> Result<u16, PgError> {
    session.batch(&format!("BEGIN; {NO_STANDSTILL}")).await?;
    let taken = try_take(session, holder, now).await;
    session.batch(if taken.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    taken
}

async fn try_take(session: &Session, holder: i64, now: Timestamp) -> Result<u16, PgError> {
    session.batch("LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE").await?;
    let sql = "INSERT INTO nodes (number, holder, seen_at, sends)
               SELECT COALESCE(MAX(number) + 1, 0), $1, $2, TRUE FROM nodes HAVING COALESCE(MAX(number) + 1, 0) < $3
               RETURNING number";
    if let Some(row) = session.query_opt(sql, &[&holder, &now.millis(), &i64::from(NUMBERS)]).await? {
        return number(&row, "number");
    }
    let sql = "UPDATE nodes SET holder = $1, seen_at = $2, sends = TRUE
               WHERE number = (SELECT number FROM nodes WHERE seen_at < $3 ORDER BY seen_at LIMIT 1) RETURNING number";
    let before = now.minus(NUMBER_KEPT).millis();
    match session.query_opt(sql, &[&holder, &now.millis(), &before]).await? {
        Some(row) => number(&row, "number"),
        None => {
            Err(PgError::Unavailable("480 nodes have begun on this database within ten minutes, and it takes no more"))
        }
    }
}

/// Gives the run of the server a number if it has none, as after a crash (`transaction.rs`).
pub async fn number_run(session: &Session) -> Result<(), PgError> {
    let sql = "INSERT INTO server_run (id) SELECT (random() * 9007199254740991)::bigint
               WHERE NOT EXISTS (SELECT 1 FROM server_run) ON CONFLICT DO NOTHING";
    session.execute(sql, &[]).await?;
    Ok(())
}

/// The tasks of a node, which end when this is dropped.
pub struct Node {
    stop: CancellationToken,
    _tasks: Vec<JoinHandle<()>>,
}

/// Who this process is.
#[derive(Clone, Copy)]
pub struct Identity {
    pub holder: i64,
    pub number: u16,
}

impl Node {
    /// `direct` leads to a session of its own, which hears and tells other nodes.
    pub fn start(shared: &Arc<Shared>, identity: Identity, direct: Option<Target>) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = vec![
            tokio::spawn(be_seen(Arc::clone(shared), identity, stop.clone())),
            tokio::spawn(keep_days(Arc::clone(shared), stop.clone())),
        ];
        if let Some(direct) = direct {
            tasks.push(tokio::spawn(hear(Arc::clone(shared), direct, stop.clone())));
        }
        Self { stop, _tasks: tasks }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn be_seen(shared: Arc<Shared>, mut identity: Identity, stop: CancellationToken) {
    while !waited(SEEN_EVERY, &stop).await {
        match say_so(&shared, &identity).await {
            Ok(Some(nodes)) => shared.nodes.store(nodes, Ordering::Relaxed),
            Ok(None) => match take_another(&shared, &mut identity).await {
                Ok(()) => tracing::warn!(
                    number = identity.number,
                    "this process stood still for so long that it took a new number"
                ),
                Err(error) => tracing::error!(%error, "this process's number was given away, and it found no other"),
            },
            Err(error) => tracing::debug!(%error, "the database could not be told that this node is there"),
        }
    }
    if let Ok(connection) = connection(&shared.pool).await {
        let _ = leave(&Session::new(connection), &identity).await;
    }
}

/// How many nodes send; `None` when the number is somebody else's.
async fn say_so(shared: &Shared, identity: &Identity) -> Result<Option<usize>, PgError> {
    let session = Session::new(connection(&shared.pool).await?);
    let row = session.query_one("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now", &[]).await?;
    let now = shared.time.of_database(Timestamp::from_millis(int(&row, "now")?));
    number_run(&session).await?;
    let sql = "UPDATE nodes SET seen_at = $3, sends = TRUE WHERE number = $1 AND holder = $2";
    let number = i64::from(identity.number);
    if session.execute(sql, &[&number, &identity.holder, &now.millis()]).await? == 0 {
        return Ok(None);
    }
    count_senders(&session, now).await.map(Some)
}

/// How many nodes send, or did a moment ago; never none, as whoever asks does.
pub async fn count_senders(session: &Session, now: Timestamp) -> Result<usize, PgError> {
    let sql = "SELECT COUNT(*) AS count FROM nodes WHERE sends AND seen_at >= $1";
    let row = session.query_one(sql, &[&now.minus(GONE_AFTER).millis()]).await?;
    number::<usize>(&row, "count").map(|nodes| nodes.max(1))
}

async fn take_another(shared: &Shared, identity: &mut Identity) -> Result<(), PgError> {
    let session = Session::new(connection(&shared.pool).await?);
    let now = shared.time.about_now();
    identity.number = take_number(&session, identity.holder, now).await?;
    let mut keys = shared.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let last = keys.next(now);
    *keys = KeySequence::after(identity.number, last);
    Ok(())
}

/// Whether a node sends, as far as the database knows.
pub async fn is_any_here(session: &Session) -> Result<bool, PgError> {
    let sql = "SELECT EXISTS (SELECT 1 FROM nodes WHERE sends
                   AND seen_at >= (extract(epoch FROM clock_timestamp()) * 1000)::bigint - $1) AS here";
    let gone_after = i64::try_from(GONE_AFTER.as_millis()).unwrap_or(i64::MAX);
    super::column::get(&session.query_one(sql, &[&gone_after]).await?, "here")
}

/// Lets the others have this node's share at once.
pub async fn leave(session: &Session, identity: &Identity) -> Result<(), PgError> {
    let sql = "UPDATE nodes SET sends = FALSE WHERE number = $1 AND holder = $2";
    session.execute(sql, &[&i64::from(identity.number), &identity.holder]).await?;
    Ok(())
}

async fn keep_days(shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        if let Err(error) = make_days(&shared).await {
            tracing::debug!(%error, "the partitions of the coming days were not made; they are tried again");
        }
        if waited(DAYS_EVERY, &stop).await {
            return;
        }
    }
}

async fn make_days(shared: &Shared) -> Result<(), PgError> {
    let session = Session::new(connection(&shared.pool).await?);
    partition::ensure_days(&session, shared.lock_class, shared.time.about_now()).await
}

/// Hears of other nodes' work and tells them of ours, on a connection of its own, made anew whenever it is lost.
async fn hear(shared: Arc<Shared>, direct: Target, stop: CancellationToken) {
    let channel = format!("postrider_{}", shared.lock_class.unsigned_abs());
    let told = || {
        if let Some(hand_over) = shared.hand_over.get().and_then(Weak::upgrade) {
            ClaimSink::wake(hand_over.as_ref());
        }
    };
    loop {
        let heard = tokio::select! {
            () = stop.cancelled() => return,
            heard = direct.listen(&channel, &shared.nudge, NUDGE_EVERY, told) => heard,
        };
        if let Err(error) = heard {
            tracing::warn!(%error, "the connection that hears of other nodes' work was lost; this node looks from time to time until it is back");
        }
        if waited(RECONNECT_WAIT, &stop).await {
            return;
        }
    }
}

/// Whether it was told to stop instead of waiting to the end.
async fn waited(time: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        () = stop.cancelled() => true,
        () = tokio::time::sleep(time) => false,
    }
}
