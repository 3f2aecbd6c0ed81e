//! Which endpoints an event is for: one workspace's endpoints, cached by the node.
//!
//! The cache counts only at the workspace's `config_version`. Every write to endpoints or secrets bumps it in its own transaction, and
//! each accept reads it in its own, under the workspace's lock: "enqueued after the rotation" admits no staleness. A transaction
//! that has written to endpoints keeps out of the cache, since what it reads may be rolled back.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio_postgres::Row;

use postrider_domain::endpoint::{Endpoint, SecretVersion};
use postrider_domain::id::RowKey;
use postrider_store::{EndpointTarget, Lane, LaneKind};

use super::column::{int, key, number, opt_instant};
use super::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;

pub use postrider_store::publish::matching::Subscriber;

/// The endpoints of one workspace, oldest first.
#[derive(Default)]
pub struct Subscribers(Vec<Subscriber>);

impl Subscribers {
    pub fn iter(&self) -> impl Iterator<Item = &Subscriber> {
        self.0.iter()
    }

    /// Looks by bisection: the keys are in order.
    pub fn get(&self, endpoint_key: RowKey) -> Option<&Subscriber> {
        let at = self.0.binary_search_by_key(&endpoint_key, |subscriber| subscriber.endpoint.key).ok()?;
        self.0.get(at)
    }
}

struct CachedWorkspace {
    version: i64,
    subscribers: Arc<Subscribers>,
}

/// Workspaces whose endpoints are kept in memory; the rest are read when an event comes.
const WORKSPACES_KEPT: usize = 2_000;

#[derive(Default)]
pub struct MatchingCache {
    workspaces: HashMap<RowKey, CachedWorkspace>,
}

impl MatchingCache {
    fn find(&self, workspace_key: RowKey, version: i64) -> Option<&Arc<Subscribers>> {
        let cached = self.workspaces.get(&workspace_key).filter(|cached| cached.version == version)?;
        Some(&cached.subscribers)
    }

    fn keep(&mut self, workspace_key: RowKey, version: i64, subscribers: Arc<Subscribers>) {
        if self.workspaces.len() >= WORKSPACES_KEPT && !self.workspaces.contains_key(&workspace_key) {
            self.workspaces.clear();
        }
        self.workspaces.insert(workspace_key, CachedWorkspace { version, subscribers });
    }
}

/// The endpoints of a workspace, as they are in this transaction, which shares or holds the workspace's lock. One that looked at
/// them before it had the lock calls [`load`] first.
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

/// Reads those of many workspaces at once, as far as they changed. What was known of them in this transaction is looked at
/// again: it may have been read before their locks were held.
pub async fn load(tx: &mut WriteTx, workspace_keys: &[RowKey]) -> Result<(), PgError> {
    let versions = versions(tx, workspace_keys).await?;
    load_at(tx, versions).await
}

/// As [`load`], with the versions that were read when the locks were held.
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

/// How to call an endpoint; `None` once it is deleted.
pub async fn target(tx: &mut WriteTx, lane: Lane) -> Result<Option<Arc<EndpointTarget>>, PgError> {
    if tx.changed_endpoints {
        return read_target(tx, lane).await;
    }
    let subscribers = subscribers(tx, lane.workspace_key).await?;
    Ok(subscribers.get(lane.endpoint_key).map(|subscriber| Arc::clone(&subscriber.target)))
}

/// To be called by every write that touches an endpoint or a secret.
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
    tx.shared.matching.lock().unwrap_or_else(PoisonError::into_inner)
}

/// `config_version` of these workspaces, as it is now. A transaction that keeps out of the cache has no use for any.
pub async fn versions(tx: &WriteTx, workspace_keys: &[RowKey]) -> Result<Vec<(RowKey, i64)>, PgError> {
    if tx.changed_endpoints {
        return Ok(Vec::new());
    }
    let sql = "SELECT key, config_version FROM workspaces WHERE key = ANY($1)";
    let rows = tx.query(sql, &[&as_numbers(workspace_keys)]).await?;
    rows.iter().map(|row| Ok((key(row, "key")?, int(row, "config_version")?))).collect()
}

/// Reads endpoints and keeps them at the version that was read before: they are as new, or newer, and a version that has
/// passed is never looked for again.
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
        "SELECT {ENDPOINT_COLUMNS}, workspace_key, secret_version, oldest_secret_version,
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
        found.entry(workspace_key).or_default().0.push(subscriber);
    }
    Ok(found.into_iter().map(|(workspace_key, subscribers)| (workspace_key, Arc::new(subscribers))).collect())
}

async fn read_target(session: &Session, lane: Lane) -> Result<Option<Arc<EndpointTarget>>, PgError> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, secret_version, oldest_secret_version
         FROM endpoints WHERE key = $1 AND workspace_key = $2 AND deleted_at IS NULL"
    );
    let values = (lane.endpoint_key.as_i64(), lane.workspace_key.as_i64());
    let Some(row) = session.query_opt(&sql, &[&values.0, &values.1]).await? else { return Ok(None) };
    target_from_row(&row, &endpoint_from_row(&row)?, lane.workspace_key).map(Some)
}

fn target_from_row(row: &Row, endpoint: &Endpoint, workspace_key: RowKey) -> Result<Arc<EndpointTarget>, PgError> {
    Ok(Arc::new(EndpointTarget {
        lane: Lane { workspace_key, endpoint_key: endpoint.key, kind: LaneKind::Events },
        id: endpoint.id,
        url: endpoint.url.clone(),
        secret_version: SecretVersion(number(row, "secret_version")?),
        oldest_secret_version: SecretVersion(number(row, "oldest_secret_version")?),
        options: Arc::clone(&endpoint.options),
    }))
}

fn as_numbers(keys: &[RowKey]) -> Vec<i64> {
    keys.iter().map(|key| key.as_i64()).collect()
}
