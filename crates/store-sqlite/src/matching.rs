//! Which endpoints an event is for: one workspace's endpoints, cached by the writer.
//!
//! The cache counts only at the workspace's `config_version`. Every write to endpoints or secrets bumps it in its own
//! transaction, and each accept reads it in its own: "enqueued after the rotation" admits no staleness.

use std::collections::HashMap;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::endpoint::{Endpoint, SecretVersion};
use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::publish::matching::Subscriber;
use postrider_store::{EndpointTarget, Lane, LaneKind};

use super::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};

struct CachedWorkspace {
    version: i64,
    subscribers: Arc<Vec<Subscriber>>,
}

/// Workspaces whose endpoints are kept in memory; the rest are read when an event comes.
const WORKSPACES_KEPT: usize = 2_000;

#[derive(Default)]
pub struct MatchingCache {
    workspaces: HashMap<RowKey, CachedWorkspace>,
    targets: HashMap<RowKey, Arc<EndpointTarget>>,
}

impl MatchingCache {
    /// Everything cached may have been read inside a transaction that is gone.
    pub fn forget_everything(&mut self) {
        self.workspaces.clear();
        self.targets.clear();
    }

    /// To be called by every write that touches an endpoint or a secret.
    pub fn bump(&mut self, connection: &Connection, workspace_key: RowKey) -> Result<(), rusqlite::Error> {
        connection
            .prepare_cached("UPDATE workspaces SET config_version = config_version + 1 WHERE key = ?1")?
            .execute([workspace_key.as_i64()])?;
        self.workspaces.remove(&workspace_key);
        self.targets.retain(|_, target| target.lane.workspace_key != workspace_key);
        Ok(())
    }

    /// The endpoints of a workspace, as they are in this transaction.
    pub fn subscribers(
        &mut self,
        connection: &Connection,
        workspace_key: RowKey,
    ) -> Result<Arc<Vec<Subscriber>>, rusqlite::Error> {
        let version: i64 = connection
            .prepare_cached("SELECT config_version FROM workspaces WHERE key = ?1")?
            .query_row([workspace_key.as_i64()], |row| row.get(0))
            .optional()?
            .unwrap_or_default();
        match self.workspaces.get(&workspace_key) {
            Some(cached) if cached.version == version => return Ok(Arc::clone(&cached.subscribers)),
            _ => {}
        }
        let subscribers = Arc::new(read_subscribers(connection, workspace_key)?);
        if self.workspaces.len() >= WORKSPACES_KEPT {
            self.workspaces.clear();
        }
        self.workspaces.insert(workspace_key, CachedWorkspace { version, subscribers: Arc::clone(&subscribers) });
        Ok(subscribers)
    }

    /// How to call an endpoint; `None` once it is deleted.
    pub fn target(
        &mut self,
        connection: &Connection,
        endpoint_key: RowKey,
    ) -> Result<Option<Arc<EndpointTarget>>, rusqlite::Error> {
        if let Some(target) = self.targets.get(&endpoint_key) {
            return Ok(Some(Arc::clone(target)));
        }
        let sql = format!(
            "SELECT {ENDPOINT_COLUMNS}, workspace_key, secret_version, oldest_secret_version
             FROM endpoints WHERE key = ?1 AND deleted_at IS NULL"
        );
        let found = connection
            .prepare_cached(&sql)?
            .query_row([endpoint_key.as_i64()], |row| {
                let workspace_key = RowKey::from_i64(row.get("workspace_key")?);
                target_from_row(row, &endpoint_from_row(row)?, workspace_key)
            })
            .optional()?;
        if let Some(target) = &found {
            self.targets.insert(endpoint_key, Arc::clone(target));
        }
        Ok(found)
    }
}

fn target_from_row(
    row: &Row<'_>,
    endpoint: &Endpoint,
    workspace_key: RowKey,
) -> Result<Arc<EndpointTarget>, rusqlite::Error> {
    Ok(Arc::new(EndpointTarget {
        lane: Lane { workspace_key, endpoint_key: endpoint.key, kind: LaneKind::Events },
        id: endpoint.id,
        url: endpoint.url.clone(),
        secret_version: SecretVersion(row.get("secret_version")?),
        oldest_secret_version: SecretVersion(row.get("oldest_secret_version")?),
        options: Arc::clone(&endpoint.options),
    }))
}

fn read_subscribers(connection: &Connection, workspace_key: RowKey) -> Result<Vec<Subscriber>, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, secret_version, oldest_secret_version,
                (SELECT overlap_until FROM endpoint_secrets
                 WHERE endpoint_key = endpoints.key AND version = secret_version) AS overlap_until
         FROM endpoints WHERE workspace_key = ?1 AND deleted_at IS NULL ORDER BY key"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![workspace_key.as_i64()], |row| {
        let endpoint = endpoint_from_row(row)?;
        Ok(Subscriber {
            target: target_from_row(row, &endpoint, workspace_key)?,
            overlap_until: row.get::<_, Option<i64>>("overlap_until")?.map(Timestamp::from_millis),
            endpoint,
        })
    })?;
    rows.collect()
}
