//! Opening the store of a node.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};

use postrider_domain::id::{KeySequence, StoreTag};
use postrider_domain::time::{Clock, Timestamp};
use postrider_store::{OpenError, StoreSeed, copy};

use super::column::{get, int};
use super::connect::{ConnectError, Target, connection};
use super::fault::PgError;
use super::group::Groups;
use super::matching::MatchingCache;
use super::node::{self, Identity, Node};
use super::session::{NO_STANDSTILL, Session};
use super::settings::PostgresSettings;
use super::time::StoreTime;
use super::transaction::Shared;
use super::{PLANNER, PostgresStore, meta, partition, schema, unexpected_value};

impl PostgresStore {
    /// Opens the store in the database that the settings name, and brings its schema up to date.
    ///
    /// # Errors
    /// When the database cannot be reached or used, or a newer version made its schema.
    pub async fn open(settings: &PostgresSettings, clock: Arc<dyn Clock>, seed: StoreSeed) -> Result<Self, OpenError> {
        let wrong = |error: ConnectError| OpenError::Database(error.into());
        let direct = settings.direct_url.as_ref().map(|url| Target::of(url, settings)).transpose().map_err(wrong)?;
        let target = Target::of(&settings.url, settings).map_err(wrong)?;
        // One for the lock and one for the migrations themselves; they close when this pool goes.
        let migrating = direct.as_ref().unwrap_or(&target).pool(2).map_err(wrong)?;
        schema::migrate(&migrating).await?;
        drop(migrating);
        let pool = target.pool(settings.pool_size).map_err(wrong)?;
        let session = Session::new(connection(&pool).await.map_err(unusable)?);
        let time = StoreTime::new(clock, settings.time);
        let facts = Facts::read(&session, &time, seed).await.map_err(unusable)?;
        let holder = i64::from(seed.tag.as_u32()) << 16 | i64::from(seed.node);
        let (number, nodes) = if settings.sends {
            let number = node::take_number(&session, holder, facts.now).await.map_err(unusable)?;
            // One that begins beside others takes no more than its part from the first moment on.
            (number, node::count_senders(&session, facts.now).await.map_err(unusable)?)
        } else {
            (node::number_of_command(seed.node), 1)
        };
        // A copy marks the store first and then looks for nodes: of the two, one sees the other.
        if meta::find(&session, copy::UNFINISHED).await.map_err(unusable)?.is_some() {
            if settings.sends {
                node::leave(&session, &Identity { holder, number }).await.map_err(unusable)?;
            }
            return Err(OpenError::UnfinishedCopy);
        }
        if settings.sends
            && let Err(error) = partition::ensure_days(&session, facts.lock_class, facts.now).await
        {
            tracing::warn!(%error, "the partitions of the coming days were not made; they are tried again");
        }
        drop(session);
        let shared = Arc::new(Shared {
            pool,
            tag: facts.tag,
            keys: Mutex::new(KeySequence::new(number)),
            time,
            matching: Mutex::new(MatchingCache::default()),
            hand_over: OnceLock::new(),
            operations: OnceLock::new(),
            lock_class: facts.lock_class,
            begin_write: begin("BEGIN", settings, facts.is_durable),
            begin_read: begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", settings, true),
            nudge: tokio::sync::Notify::new(),
            nodes: AtomicUsize::new(nodes),
        });
        let node = settings.sends.then(|| Node::start(&shared, Identity { holder, number }, direct));
        Ok(Self { groups: Groups::start(&shared), shared, _node: node })
    }
}

fn unusable(error: PgError) -> OpenError {
    OpenError::Database(error.into())
}

/// How transactions begin.
fn begin(begin: &str, settings: &PostgresSettings, is_durable: bool) -> String {
    let timeout_ms = settings.statement_timeout.as_millis();
    let durable = if is_durable { "" } else { "SET LOCAL synchronous_commit = on;" };
    format!("{begin}; {NO_STANDSTILL}; {durable} SET LOCAL statement_timeout = {timeout_ms}; {PLANNER}")
}

/// What is read of the database when it is opened.
struct Facts {
    tag: StoreTag,
    now: Timestamp,
    lock_class: i32,
    /// A commit is on disk when it is answered, unless told otherwise.
    is_durable: bool,
}

impl Facts {
    async fn read(session: &Session, time: &StoreTime, seed: StoreSeed) -> Result<Self, PgError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now, 'meta'::regclass::oid::bigint AS class,
                          current_setting('synchronous_commit') AS durable";
        let row = session.query_one(sql, &[]).await?;
        node::number_run(session).await?;
        let class = u32::try_from(int(&row, "class")?).map_err(|_| unexpected_value("pg_class.oid"))?;
        let is_durable = get::<&str>(&row, "durable")? != "off";
        if !is_durable {
            tracing::warn!("synchronous_commit is off in this database; it is on in postrider's own transactions");
        }
        let kept = meta::meta_or_insert(session, "store_tag", &seed.tag.as_u32().to_be_bytes()).await?;
        let bytes: [u8; 4] = kept.try_into().map_err(|_| unexpected_value("meta.store_tag"))?;
        Ok(Self {
            tag: StoreTag::from_u32(u32::from_be_bytes(bytes)),
            now: time.of_database(Timestamp::from_millis(int(&row, "now")?)),
            lock_class: class.cast_signed(),
            is_durable,
        })
    }
}
