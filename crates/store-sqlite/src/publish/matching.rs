//! The writer's cache of endpoints: those of a workspace in one mode, which an event is matched against, and the target
//! of each endpoint.
//!
//! The endpoints of a workspace are valid only at its `config_version`. Every write to an endpoint or a secret
//! increments the version in its own transaction, and each accept reads it in its own. So a delivery enqueued after a
//! rotation is signed with the new secret, without exception.
//!
//! Writes `config_version` in `workspaces`.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::access::Mode;
use postrider_domain::bounded_cache::BoundedCache;
use postrider_domain::endpoint::{Endpoint, ProjectId, SecretVersion};
use postrider_domain::id::RowKey;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::EndpointTarget;
use postrider_store::column::mode_code;
use postrider_store::publish::matching::Subscriber;

use crate::machinery::column::parsed;
use crate::registry::endpoint::{ENDPOINT_COLUMNS, endpoint_from_row};

pub const SELECT_VERSION: &str = "SELECT config_version FROM workspaces WHERE key = ?1";

const WORKSPACE_ID: &str = "(SELECT id FROM workspaces WHERE workspaces.key = endpoints.workspace_key) AS workspace_id";

/// Workspaces whose endpoints are cached. The two modes of a workspace count apart.
const WORKSPACES_CACHED: usize = 2_000;

/// Targets in the cache.
const TARGETS_CACHED: usize = 20_000;

pub struct MatchingCache {
    /// A test event of a project is matched against the whole workspace too.
    workspaces: BoundedCache<(RowKey, Mode), CachedWorkspace>,
    targets: BoundedCache<RowKey, Arc<EndpointTarget>>,
}

impl Default for MatchingCache {
    fn default() -> Self {
        Self { workspaces: BoundedCache::new(WORKSPACES_CACHED), targets: BoundedCache::new(TARGETS_CACHED) }
    }
}

struct CachedWorkspace {
    version: i64,
    subscribers: Arc<Vec<Subscriber>>,
}

impl MatchingCache {
    /// After a rollback: the cache may hold rows of the transaction that was rolled back.
    pub fn clear(&mut self) {
        self.workspaces.clear();
        self.targets.clear();
    }

    /// Increments `config_version`. Every write to an endpoint or a secret must call this.
    pub fn invalidate(&mut self, connection: &Connection, workspace: RowKey) -> Result<(), rusqlite::Error> {
        connection
            .prepare_cached("UPDATE workspaces SET config_version = config_version + 1 WHERE key = ?1")?
            .execute([workspace.as_i64()])?;
        for mode in [Mode::Live, Mode::Test] {
            self.workspaces.remove(&(workspace, mode));
        }
        self.targets.retain(|_, target| target.workspace_key != workspace);
        Ok(())
    }

    /// The endpoints of a tenant, as they are in this transaction.
    pub fn subscribers(
        &mut self,
        connection: &Connection,
        tenant: Tenant,
    ) -> Result<Arc<Vec<Subscriber>>, rusqlite::Error> {
        let version: i64 = connection
            .prepare_cached(SELECT_VERSION)?
            .query_row([tenant.workspace.as_i64()], |row| row.get(0))
            .optional()?
            .unwrap_or_default();
        match self.workspaces.get(&(tenant.workspace, tenant.mode)) {
            Some(cached) if cached.version == version => return Ok(Arc::clone(&cached.subscribers)),
            _ => {}
        }
        let subscribers = Arc::new(read_subscribers(connection, tenant)?);
        let cached = CachedWorkspace { version, subscribers: Arc::clone(&subscribers) };
        self.workspaces.insert((tenant.workspace, tenant.mode), cached);
        Ok(subscribers)
    }

    /// The values needed to call an endpoint. `None` once it is deleted.
    pub fn target(
        &mut self,
        connection: &Connection,
        endpoint_key: RowKey,
    ) -> Result<Option<Arc<EndpointTarget>>, rusqlite::Error> {
        if let Some(target) = self.targets.get(&endpoint_key) {
            return Ok(Some(Arc::clone(target)));
        }
        let found = read_target(connection, endpoint_key)?;
        if let Some(target) = &found {
            self.targets.insert(endpoint_key, Arc::clone(target));
        }
        Ok(found)
    }
}

/// As [`MatchingCache::target`], for a read.
pub fn read_target(
    connection: &Connection,
    endpoint_key: RowKey,
) -> Result<Option<Arc<EndpointTarget>>, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, workspace_key, {WORKSPACE_ID}, secret_version, oldest_secret_version
         FROM endpoints WHERE key = ?1 AND deleted_at IS NULL"
    );
    connection
        .prepare_cached(&sql)?
        .query_row([endpoint_key.as_i64()], |row| {
            let workspace_key = RowKey::from_i64(row.get("workspace_key")?);
            target_from_row(row, &endpoint_from_row(row)?, workspace_key)
        })
        .optional()
}

fn target_from_row(
    row: &Row<'_>,
    endpoint: &Endpoint,
    workspace_key: RowKey,
) -> Result<Arc<EndpointTarget>, rusqlite::Error> {
    Ok(Arc::new(EndpointTarget {
        workspace_key,
        workspace_id: parsed(row, "workspace_id")?,
        endpoint_key: endpoint.key,
        id: endpoint.id,
        project: endpoint.project_id.as_deref().and_then(|project| ProjectId::parse(project).ok()),
        url: endpoint.url.clone(),
        secret_version: SecretVersion(row.get("secret_version")?),
        oldest_secret_version: SecretVersion(row.get("oldest_secret_version")?),
        options: Arc::clone(&endpoint.options),
    }))
}

fn read_subscribers(connection: &Connection, tenant: Tenant) -> Result<Vec<Subscriber>, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {WORKSPACE_ID}, secret_version, oldest_secret_version,
                (SELECT overlap_until FROM endpoint_secrets
                 WHERE endpoint_key = endpoints.key AND version = secret_version) AS overlap_until
         FROM endpoints WHERE workspace_key = ?1 AND mode = ?2 AND deleted_at IS NULL ORDER BY key"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(params![tenant.workspace.as_i64(), mode_code(tenant.mode)], |row| {
        let endpoint = endpoint_from_row(row)?;
        Ok(Subscriber {
            target: target_from_row(row, &endpoint, tenant.workspace)?,
            overlap_until: row.get::<_, Option<i64>>("overlap_until")?.map(Timestamp::from_millis),
            endpoint,
        })
    })?;
    rows.collect()
}
