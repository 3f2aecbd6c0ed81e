//! Which endpoints match an event: the endpoints of one workspace, cached in memory.
//!
//! The cache is valid only at the workspace's `config_version`. Every write to endpoints or secrets increments it in
//! the same transaction. Every accept reads it in its own transaction, under the workspace's lock. So an event enqueued
//! after a rotation never uses the old secret.
//!
//! A transaction that has changed endpoints bypasses the cache, because its reads may be rolled back.
//!
//! Writes `workspaces.config_version`.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio_postgres::Row;

use postrider_domain::access::Mode;
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::endpoint::{Endpoint, ProjectId, SecretVersion};
use postrider_domain::event::NewEvent;
use postrider_domain::id::RowKey;
use postrider_store::publish::matching::Subscriber;
use postrider_store::{EndpointTarget, Lane};

use crate::machinery::column::{int, key, number, opt_instant, parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;
use crate::registry::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};

/// The endpoints of one workspace by mode, oldest first.
// Differs from SQLite, which caches the modes apart: here a claim finds its target by the workspace of its lane.
#[derive(Default)]
pub struct Subscribers {
    live: Vec<Subscriber>,
    test: Vec<Subscriber>,
}

impl Subscribers {
    /// Those of the event's mode that match it.
    pub fn matching(&self, event: &NewEvent) -> impl Iterator<Item = &Subscriber> {
        let of_mode = match event.tenant.mode {
            Mode::Live => &self.live,
            Mode::Test => &self.test,
        };
        of_mode.iter().filter(|subscriber| subscriber.matches(event))
    }

    /// The endpoint with this key, of either mode. A binary search: the keys are in order.
    pub fn get(&self, endpoint_key: RowKey) -> Option<&Subscriber> {
        [&self.live, &self.test].into_iter().find_map(|of_mode| {
            let at = of_mode.binary_search_by_key(&endpoint_key, |subscriber| subscriber.endpoint.key).ok()?;
            of_mode.get(at)
        })
    }

    fn push(&mut self, subscriber: Subscriber) {
        match subscriber.endpoint.mode {
            Mode::Live => self.live.push(subscriber),
            Mode::Test => self.test.push(subscriber),
        }
    }
}

struct CachedWorkspace {
    version: i64,
    subscribers: Arc<Subscribers>,
}

/// Workspaces whose endpoints are cached.
const WORKSPACES_CACHED: usize = 2_000;

pub struct MatchingCache {
    workspaces: BoundedCache<RowKey, CachedWorkspace>,
}

impl Default for MatchingCache {
    fn default() -> Self {
        Self { workspaces: BoundedCache::new(WORKSPACES_CACHED) }
    }
}

impl MatchingCache {
    fn find(&self, workspace_key: RowKey, version: i64) -> Option<&Arc<Subscribers>> {
        let cached = self.workspaces.get(&workspace_key).filter(|cached| cached.version == version)?;
        Some(&cached.subscribers)
    }

    fn keep(&mut self, workspace_key: RowKey, version: i64, subscribers: Arc<Subscribers>) {
        self.workspaces.insert(workspace_key, CachedWorkspace { version, subscribers });
    }
}

/// The endpoints of a workspace as this transaction sees them. The transaction shares or holds the workspace's lock. If
/// it read the endpoints before it had the lock, it calls [`load`] first.
pub async fn subscribers(tx: &mut WriteTx, workspace_key: RowKey) -> Result<Arc<Subscribers>, PgError> {
    if !tx.versions.contains_key(&workspace_key) {
        let versions = versions(tx, &[workspace_key]).await?;
        tx.versions.extend(versions);
    }
    if let Some(cached) = cached(tx, workspace_key) {
        return Ok(cached);
    }
    let read = read_and_keep(tx, &[workspace_key]).await?;
    Ok(read.into_values().next().unwrap_or_default())
}

/// Reads the endpoints of many workspaces at once, where they changed. Reads their versions again: the transaction may
/// have read them before it held the locks.
pub async fn load(tx: &mut WriteTx, workspace_keys: &[RowKey]) -> Result<(), PgError> {
    let versions = versions(tx, workspace_keys).await?;
    load_at(tx, versions).await
}

/// As [`load`], with versions that were read under the locks.
pub async fn load_at(tx: &mut WriteTx, versions: Vec<(RowKey, i64)>) -> Result<(), PgError> {
    let workspace_keys: Vec<RowKey> = versions.iter().map(|(workspace_key, _)| *workspace_key).collect();
    tx.versions.extend(versions);
    let missing: HashSet<RowKey> =
        workspace_keys.into_iter().filter(|workspace_key| cached(tx, *workspace_key).is_none()).collect();
    if !missing.is_empty() {
        let missing: Vec<RowKey> = missing.into_iter().collect();
        read_and_keep(tx, &missing).await?;
    }
    Ok(())
}

/// The target of a lane's endpoint. `None` once the endpoint is deleted.
pub async fn target(tx: &mut WriteTx, lane: Lane) -> Result<Option<Arc<EndpointTarget>>, PgError> {
    if tx.changed_endpoints {
        return read_target(tx, lane).await;
    }
    let subscribers = subscribers(tx, lane.workspace_key).await?;
    Ok(subscribers.get(lane.endpoint_key).map(|subscriber| Arc::clone(&subscriber.target)))
}

const WORKSPACE_ID: &str = "(SELECT id FROM workspaces WHERE workspaces.key = endpoints.workspace_key) AS workspace_id";

/// Invalidates the caches of all nodes. Every write to an endpoint or a secret must call this.
pub async fn bump(tx: &mut WriteTx, workspace_key: RowKey) -> Result<(), PgError> {
    tx.changed_endpoints = true;
    let sql = "UPDATE workspaces SET config_version = config_version + 1 WHERE key = $1";
    tx.execute(sql, &[&workspace_key.as_i64()]).await?;
    Ok(())
}

fn cached(tx: &WriteTx, workspace_key: RowKey) -> Option<Arc<Subscribers>> {
    if tx.changed_endpoints {
        return None;
    }
    let version = *tx.versions.get(&workspace_key)?;
    cache(tx).find(workspace_key, version).map(Arc::clone)
}

fn cache(tx: &WriteTx) -> MutexGuard<'_, MatchingCache> {
    tx.database.matching.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The current `config_version` of these workspaces. Empty for a transaction that bypasses the cache.
pub async fn versions(tx: &WriteTx, workspace_keys: &[RowKey]) -> Result<Vec<(RowKey, i64)>, PgError> {
    if tx.changed_endpoints {
        return Ok(Vec::new());
    }
    let sql = "SELECT key, config_version FROM workspaces WHERE key = ANY($1)";
    let rows = tx.query(sql, &[&as_numbers(workspace_keys)]).await?;
    rows.iter().map(|row| Ok((key(row, "key")?, int(row, "config_version")?))).collect()
}

/// Reads endpoints and caches them at the version that was read before. They are as new as that version or newer, and a
/// past version is never looked up again.
async fn read_and_keep(tx: &WriteTx, workspace_keys: &[RowKey]) -> Result<HashMap<RowKey, Arc<Subscribers>>, PgError> {
    let read = read_subscribers(tx, workspace_keys).await?;
    if !tx.changed_endpoints {
        let mut cache = cache(tx);
        for (workspace_key, subscribers) in &read {
            if let Some(version) = tx.versions.get(workspace_key) {
                cache.keep(*workspace_key, *version, Arc::clone(subscribers));
            }
        }
    }
    Ok(read)
}

async fn read_subscribers(
    session: &Session,
    workspace_keys: &[RowKey],
) -> Result<HashMap<RowKey, Arc<Subscribers>>, PgError> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, workspace_key, {WORKSPACE_ID}, secret_version, oldest_secret_version,
                (SELECT overlap_until FROM endpoint_secrets
                 WHERE endpoint_key = endpoints.key AND version = secret_version) AS overlap_until
         FROM endpoints WHERE workspace_key = ANY($1) AND deleted_at IS NULL ORDER BY key"
    );
    let mut found: HashMap<RowKey, Subscribers> =
        workspace_keys.iter().map(|workspace_key| (*workspace_key, Subscribers::default())).collect();
    for row in session.query(&sql, &[&as_numbers(workspace_keys)]).await? {
        let (endpoint, workspace_key) = (endpoint_from_row(&row)?, key(&row, "workspace_key")?);
        let subscriber = Subscriber {
            target: target_from_row(&row, &endpoint, workspace_key)?,
            overlap_until: opt_instant(&row, "overlap_until")?,
            endpoint,
        };
        found.entry(workspace_key).or_default().push(subscriber);
    }
    Ok(found.into_iter().map(|(workspace_key, subscribers)| (workspace_key, Arc::new(subscribers))).collect())
}

/// As [`target`], for a read.
pub async fn read_target(session: &Session, lane: Lane) -> Result<Option<Arc<EndpointTarget>>, PgError> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {WORKSPACE_ID}, secret_version, oldest_secret_version
         FROM endpoints WHERE key = $1 AND workspace_key = $2 AND deleted_at IS NULL"
    );
    let values = (lane.endpoint_key.as_i64(), lane.workspace_key.as_i64());
    let Some(row) = session.query_opt(&sql, &[&values.0, &values.1]).await? else { return Ok(None) };
    target_from_row(&row, &endpoint_from_row(&row)?, lane.workspace_key).map(Some)
}

fn target_from_row(row: &Row, endpoint: &Endpoint, workspace_key: RowKey) -> Result<Arc<EndpointTarget>, PgError> {
    Ok(Arc::new(EndpointTarget {
        workspace_key,
        workspace_id: parsed(row, "workspace_id")?,
        endpoint_key: endpoint.key,
        id: endpoint.id,
        project: endpoint.project_id.as_deref().and_then(|project| ProjectId::parse(project).ok()),
        url: endpoint.url.clone(),
        secret_version: SecretVersion(number(row, "secret_version")?),
        oldest_secret_version: SecretVersion(number(row, "oldest_secret_version")?),
        options: Arc::clone(&endpoint.options),
    }))
}

fn as_numbers(keys: &[RowKey]) -> Vec<i64> {
    keys.iter().map(|key| key.as_i64()).collect()
}
