//! Opening the store: connect, migrate, take a node number, start the background tasks.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};

use postrider_domain::error_chain::Chain;
use postrider_domain::id::{KeySequence, StoreTag};
use postrider_domain::time::{Clock, Timestamp};
use postrider_metrics::Only;
use postrider_store::disk::DiskGate;
use postrider_store::{OpenError, StoreSeed, copy};

use super::column::{get, int, unexpected};
use super::connect::{ConnectError, ConnectionConfig, connection};
use super::fault::PgError;
use super::group::GroupCommit;
use super::node::{self, Node, NodeIdentity, NodeProcess, Senders};
use super::session::{IDLE_TIMEOUT, PLANNER, Session};
use super::settings::PostgresSettings;
use super::shard::Shards;
use super::time::StoreTime;
use super::transaction::Database;
use super::woken_listeners::WokenListeners;
use super::{partition, schema};
use crate::publish::matching::MatchingCache;
use crate::rate::OldRatesRemoved;
use crate::stored_bytes::StoredBytesBook;
use crate::{PostgresStore, gauges, meta};

impl PostgresStore {
    /// Opens the store in the database of the settings and migrates its schema.
    ///
    /// # Errors
    /// When the database cannot be reached or used, or its schema is of a newer version.
    pub async fn open(settings: &PostgresSettings, clock: Arc<dyn Clock>, seed: StoreSeed) -> Result<Self, OpenError> {
        let wrong = |error: ConnectError| OpenError::Database(error.into());
        let direct =
            settings.direct_url.as_ref().map(|url| ConnectionConfig::of(url, settings)).transpose().map_err(wrong)?;
        let target = ConnectionConfig::of(&settings.url, settings).map_err(wrong)?;
        // One connection for the lock and one for the migrations.
        let migrating = direct.as_ref().unwrap_or(&target).pool(2).map_err(wrong)?;
        schema::migrate(&migrating).await?;
        drop(migrating);
        let maintenance = direct.as_ref().unwrap_or(&target).pool(1).map_err(wrong)?;
        let pool = target.pool(settings.pool_size).map_err(wrong)?;
        let session = Session::new(connection(&pool).await.map_err(unusable)?);
        let time = StoreTime::new(clock, settings.time);
        let facts = DatabaseFacts::read(&session, &time, seed).await.map_err(unusable)?;
        let holder = i64::from(seed.tag.as_u32()) << 16 | i64::from(seed.node);
        let process = NodeProcess { holder, version: seed.version, started_at: facts.now };
        let (number, senders) = if settings.sends {
            let number = node::take_number(&session, process, facts.now).await.map_err(unusable)?;
            // Counted now, so that a node that starts beside others takes only its share from the start.
            (number, node::count_senders(&session, facts.now).await.map_err(unusable)?)
        } else {
            (node::number_of_command(seed.node), Senders::default())
        };
        // This node registers first and then reads the mark. A copy sets the mark first and then looks for nodes. So
        // one sees the other.
        if meta::find(&session, copy::UNFINISHED).await.map_err(unusable)?.is_some() {
            if settings.sends {
                node::leave(&session, &NodeIdentity { process, number }).await.map_err(unusable)?;
            }
            return Err(OpenError::UnfinishedCopy);
        }
        if settings.sends
            && let Err(error) = partition::ensure_days(&session, facts.lock_class, facts.now).await
        {
            tracing::warn!(error = %Chain(&error), "cannot create the partitions of the coming days; trying again");
        }
        drop(session);
        let database = Arc::new(Database {
            pool,
            maintenance,
            tag: facts.tag,
            keys: Mutex::new(KeySequence::new(number)),
            time,
            matching: Mutex::new(MatchingCache::default()),
            stored: StoredBytesBook::default(),
            shards: Shards::default(),
            sink: OnceLock::new(),
            operations: OnceLock::new(),
            lock_class: facts.lock_class,
            begin_write: begin("BEGIN", settings, facts.is_durable),
            begin_read: begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", settings, true),
            nudge: tokio::sync::Notify::new(),
            woken_listeners: WokenListeners::default(),
            listener_waker: Arc::default(),
            nodes: AtomicUsize::new(senders.count),
            is_first_node: AtomicBool::new(senders.first == Some(number)),
            key_epoch: AtomicI64::new(node::NO_KEY_EPOCH),
            metrics: settings.metrics.clone(),
        });
        database.metrics.up.set_count(Only, 1);
        gauges::show_at_scrape(&database);
        let node = settings.sends.then(|| Node::start(&database, NodeIdentity { process, number }, direct));
        Ok(Self {
            groups: GroupCommit::start(&database),
            old_rates_removed: OldRatesRemoved::default(),
            disk: DiskGate::default(),
            database,
            _node: node,
        })
    }
}

fn unusable(error: PgError) -> OpenError {
    OpenError::Database(error.into())
}

/// The statements that begin a transaction.
fn begin(begin: &str, settings: &PostgresSettings, is_durable: bool) -> String {
    let timeout_ms = settings.statement_timeout.as_millis();
    let durable = if is_durable { "" } else { "SET LOCAL synchronous_commit = on;" };
    format!("{begin}; {IDLE_TIMEOUT}; {durable} SET LOCAL statement_timeout = {timeout_ms}; {PLANNER}")
}

/// Facts read when the store is opened.
struct DatabaseFacts {
    tag: StoreTag,
    now: Timestamp,
    lock_class: i32,
    /// By default, a commit returns only once it is on disk.
    is_durable: bool,
}

impl DatabaseFacts {
    async fn read(session: &Session, time: &StoreTime, seed: StoreSeed) -> Result<Self, PgError> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now, 'meta'::regclass::oid::bigint AS class,
                          current_setting('synchronous_commit') AS durable";
        let row = session.query_one(sql, &[]).await?;
        node::number_run(session).await?;
        let class = u32::try_from(int(&row, "class")?).map_err(|_| unexpected("pg_class.oid"))?;
        let is_durable = get::<&str>(&row, "durable")? != "off";
        if !is_durable {
            tracing::warn!("synchronous_commit is off in this database; postrider turns it on in its own transactions");
        }
        let kept = meta::find_or_insert(session, "store_tag", &seed.tag.as_u32().to_be_bytes()).await?;
        let bytes: [u8; 4] = kept.try_into().map_err(|_| unexpected("meta.store_tag"))?;
        Ok(Self {
            tag: StoreTag::from_u32(u32::from_be_bytes(bytes)),
            now: time.of_database(Timestamp::from_millis(int(&row, "now")?)),
            lock_class: class.cast_signed(),
            is_durable,
        })
    }
}
