//! Endpoints: their settings, and the switch that stops one. Secrets are written by `secrets.rs`.
//!
//! Writes `endpoints`, as `endpoint_options.rs` does.

use std::sync::Arc;

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::{
    DisabledReason, Endpoint, EndpointFilter, EndpointLabel, Listener, ProjectId, SecretVersion,
};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{join_events, mode_code, mode_from_code};
use postrider_store::log::changes;
use postrider_store::registry::endpoint::{
    apply, changes_origin, changes_project, clears_health, leaves_project, new_endpoint,
};
use postrider_store::registry::endpoint_options::OptionsUpdate;
use postrider_store::{
    CreateEndpointError, DeleteEndpointError, EndpointTarget, EndpointUpdate, Endpoints, Lane, LaneKind, NewEndpoint,
    RotateSecretError, SecretRotation, StoreError, UpdateEndpointError, Write, Written,
};

use super::endpoint_list;
use super::endpoint_options::{self, options_from_row};
use crate::SqliteStore;
use crate::log::audit;
use crate::machinery::column::{coded, parsed, unexpected};
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};
use crate::queue::endpoint_health::{self, HEALTH_COLUMNS};
use crate::queue::{lane, operational_event, order, unsent};
use crate::secrets;
use crate::stats;

#[async_trait]
impl Endpoints for SqliteStore {
    async fn create_endpoint(
        &self,
        write: Write<Endpoint>,
        new: NewEndpoint,
    ) -> Result<Written<Endpoint>, CreateEndpointError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| create(tx, write.tenant, write.author, &new)).await
    }

    async fn find_endpoint(&self, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.read(move |tx| find(tx.connection, tenant, id)).await
    }

    async fn list_endpoints(
        &self,
        tenant: Tenant,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, StoreError> {
        self.read(move |tx| endpoint_list::list(tx.connection, tenant, &filter, page)).await
    }

    async fn endpoint_labels(&self, tenant: Tenant, ids: Vec<EndpointId>) -> Result<Vec<EndpointLabel>, StoreError> {
        self.read(move |tx| endpoint_list::labels(tx.connection, tenant, &ids)).await
    }

    async fn endpoints_of_host(
        &self,
        tenant: Tenant,
        host: String,
        limit: u32,
    ) -> Result<Vec<EndpointLabel>, StoreError> {
        self.read(move |tx| endpoint_list::of_host(tx.connection, tenant, &host, limit)).await
    }

    async fn update_endpoint(
        &self,
        write: Write<Endpoint>,
        id: EndpointId,
        new: EndpointUpdate,
    ) -> Result<Written<Endpoint>, UpdateEndpointError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| update(tx, write.tenant, write.author, id, &new))
            .await
    }

    async fn delete_endpoint(&self, write: Write<()>, id: EndpointId) -> Result<Written<()>, DeleteEndpointError> {
        self.write_once(JobSize::ONE_ROW, write.recording, move |tx| delete(tx, write.tenant, write.author, id)).await
    }

    async fn secret_version(&self, tenant: Tenant, id: EndpointId) -> Result<Option<SecretVersion>, StoreError> {
        self.read(move |tx| secret_version(tx.connection, tenant, id)).await
    }

    async fn rotate_secret(
        &self,
        tenant: Tenant,
        id: EndpointId,
        rotation: SecretRotation,
    ) -> Result<Endpoint, RotateSecretError> {
        self.write(JobSize::ONE_ROW, move |tx| rotate_secret(tx, tenant, id, &rotation)).await?
    }
}

pub const ENDPOINT_COLUMNS: &str = "key, id, url, name, events, is_active, disabled_reason, project_id, secret_last4, \
     updated_at, retry_schedule, timeout_seconds, rate_limit, ordering, signature_schemes, public_key, header_names, \
     certificate_sha256, sealed_version, trace_forwarding, mode, durable, last_seen_at";

pub fn endpoint_from_row(row: &Row<'_>) -> Result<Endpoint, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    let events: String = row.get("events")?;
    let reason: Option<String> = row.get("disabled_reason")?;
    Ok(Endpoint {
        key,
        id: parsed(row, "id")?,
        url: row.get("url")?,
        listener: listener_from_row(row)?,
        name: row.get("name")?,
        events: events.split(' ').map(EventTypeName::from_stored).collect(),
        is_active: row.get("is_active")?,
        disabled_reason: reason
            .map(|text| DisabledReason::from_stored(&text).ok_or_else(|| unexpected("endpoints.disabled_reason")))
            .transpose()?,
        project_id: row.get("project_id")?,
        secret_last4: row.get("secret_last4")?,
        created_at: key.created_at(),
        updated_at: Timestamp::from_millis(row.get("updated_at")?),
        failure_streak: None,
        options: Arc::new(options_from_row(row)?),
        mode: coded(row, "mode", mode_from_code)?,
    })
}

fn listener_from_row(row: &Row<'_>) -> Result<Option<Listener>, rusqlite::Error> {
    let last_seen_at = row.get::<_, Option<i64>>("last_seen_at")?.map(Timestamp::from_millis);
    let durable = row.get::<_, Option<bool>>("durable")?.unwrap_or_default();
    Ok(last_seen_at.map(|last_seen_at| Listener { durable, last_seen_at }))
}

/// The tables of an endpoint as it is shown: its settings and its health.
pub const SHOWN_FROM: &str = "FROM endpoints LEFT JOIN endpoint_health ON endpoint_key = key";

pub fn shown_from_row(row: &Row<'_>) -> Result<Endpoint, rusqlite::Error> {
    Ok(Endpoint { failure_streak: endpoint_health::from_row(row)?, ..endpoint_from_row(row)? })
}

fn create(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    new: &NewEndpoint,
) -> WriteResult<Endpoint, CreateEndpointError> {
    let workspace = tenant.workspace;
    let count = count(tx.connection, tenant, tenant.project.as_ref().or(new.project_id.as_ref()))?;
    if count.in_workspace >= new.limits.per_workspace {
        return Ok(Err(CreateEndpointError::WorkspaceFull(new.limits.per_workspace)));
    }
    if count.in_project >= new.limits.per_project {
        return Ok(Err(CreateEndpointError::ProjectFull(new.limits.per_project)));
    }
    let mut endpoint = new_endpoint(new, tenant);
    let update = OptionsUpdate {
        change: &new.options,
        sealed: &new.sealed,
        secret_version: SecretVersion::FIRST,
        changes_origin: false,
    };
    let options = match update.apply_to(&endpoint.options) {
        Ok(options) => options,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    insert(tx, workspace, &endpoint)?;
    secrets::insert_first(tx, endpoint.key, &new.sealed_secret)?;
    endpoint_options::write(tx, &update, endpoint.key, &endpoint.options, &options)?;
    endpoint.options = Arc::new(options);
    if endpoint.listener.is_some() {
        lane::give_to_listener(tx, events_lane(workspace, &endpoint))?;
    }
    tx.matching.invalidate(tx.connection, workspace)?;
    audit::append(tx, workspace, author, AuditAction::EndpointCreated, new.id, &changes::endpoint_created(&endpoint))?;
    Ok(Ok(endpoint))
}

const fn events_lane(workspace: RowKey, endpoint: &Endpoint) -> Lane {
    Lane { workspace_key: workspace, endpoint_key: endpoint.key, kind: LaneKind::Events }
}

fn insert(tx: &WriteTx<'_>, workspace: RowKey, endpoint: &Endpoint) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "INSERT INTO endpoints (key, id, workspace_key, project_id, name, url, events, is_active, secret_version,
                                    secret_last4, updated_at, mode, durable, last_seen_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10, ?11, ?12, ?13)",
        )?
        .execute(params![
            endpoint.key.as_i64(),
            endpoint.id.to_string(),
            workspace.as_i64(),
            endpoint.project_id,
            endpoint.name,
            endpoint.url,
            join_events(&endpoint.events),
            SecretVersion::FIRST.0,
            endpoint.secret_last4,
            endpoint.updated_at.millis(),
            mode_code(endpoint.mode),
            endpoint.listener.map(|listener| listener.durable),
            endpoint.listener.map(|listener| listener.last_seen_at.millis()),
        ])?;
    Ok(())
}

/// How many endpoints of one mode there are.
struct EndpointCount {
    in_workspace: u32,
    /// In one project, or outside of all projects.
    in_project: u32,
}

fn count(
    connection: &Connection,
    tenant: Tenant,
    project_id: Option<&ProjectId>,
) -> Result<EndpointCount, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE project_id IS ?2)
             FROM endpoints WHERE workspace_key = ?1 AND mode = ?3 AND deleted_at IS NULL",
        )?
        .query_row(
            params![tenant.workspace.as_i64(), project_id.map(ProjectId::as_str), mode_code(tenant.mode)],
            |row| Ok(EndpointCount { in_workspace: row.get(0)?, in_project: row.get(1)? }),
        )
}

pub fn find(connection: &Connection, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM}
         WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3 AND (?4 IS NULL OR project_id = ?4) AND deleted_at IS NULL"
    );
    let parameters = params![id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text()];
    connection.prepare_cached(&sql)?.query_row(parameters, shown_from_row).optional()
}

fn update(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: EndpointId,
    update: &EndpointUpdate,
) -> WriteResult<Endpoint, UpdateEndpointError> {
    let workspace = tenant.workspace;
    let EndpointUpdate { change, sealed, limits } = update;
    let Some(before) = find(tx.connection, tenant, id)? else {
        return Ok(Err(UpdateEndpointError::NotFound));
    };
    if change.seen.is_some_and(|seen| seen != before.updated_at) {
        return Ok(Err(UpdateEndpointError::ChangedMeanwhile));
    }
    let mut endpoint = before.clone();
    if change.is_empty() && sealed.is_empty() {
        return Ok(Ok(endpoint));
    }
    let Some(secret_version) = secret_version(tx.connection, tenant, id)? else {
        return Ok(Err(UpdateEndpointError::NotFound));
    };
    if leaves_project(tenant, change) {
        return Ok(Err(UpdateEndpointError::OtherProject));
    }
    let options_update = OptionsUpdate {
        change: &change.options,
        sealed,
        secret_version,
        changes_origin: changes_origin(&endpoint, change),
    };
    let options = match options_update.apply_to(&endpoint.options) {
        Ok(options) => options,
        Err(refusal) => return Ok(Err(refusal.into())),
    };
    if let Some(project) = change.project_id.as_ref().map(Option::as_ref)
        && changes_project(&endpoint, project)
        && count(tx.connection, tenant, project)?.in_project >= limits.per_project
    {
        return Ok(Err(UpdateEndpointError::ProjectFull(limits.per_project)));
    }
    apply(&mut endpoint, change, tx.now);
    store_settings(tx, &endpoint)?;
    let lane = events_lane(workspace, &endpoint);
    if options != *endpoint.options {
        if options.ordering != DeliveryOrder::Strict {
            order::unblock(tx, lane)?;
        }
        endpoint_options::write(tx, &options_update, endpoint.key, &endpoint.options, &options)?;
        endpoint.options = Arc::new(options);
    }
    if clears_health(change) {
        endpoint_health::forget(tx, endpoint.key)?;
        lane::resume(tx, lane)?;
        endpoint.failure_streak = None;
    }
    match change.is_active {
        Some(true) => lane::release(tx, endpoint.key)?,
        Some(false) => lane::hold(tx, endpoint.key)?,
        None => {}
    }
    if endpoint.listener.is_some() && clears_health(change) {
        lane::give_to_listener(tx, lane)?;
    }
    if before.state().needs_somebody() && !endpoint.state().needs_somebody() {
        stats::trouble_ended(tx, endpoint.key)?;
    }
    let changed = changes::endpoint_updated(&before, &endpoint, sealed);
    audit::append(tx, workspace, author, AuditAction::EndpointUpdated, id, &changed)?;
    tx.matching.invalidate(tx.connection, workspace)?;
    Ok(Ok(endpoint))
}

/// Stores what a change may set, the options apart.
fn store_settings(tx: &WriteTx<'_>, endpoint: &Endpoint) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET project_id = ?2, name = ?3, url = ?4, events = ?5, is_active = ?6,
                                  disabled_reason = ?7, updated_at = ?8
             WHERE key = ?1",
        )?
        .execute(params![
            endpoint.key.as_i64(),
            endpoint.project_id,
            endpoint.name,
            endpoint.url,
            join_events(&endpoint.events),
            endpoint.is_active,
            endpoint.disabled_reason.map(DisabledReason::as_str),
            endpoint.updated_at.millis(),
        ])?;
    Ok(())
}

fn delete(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    author: Author,
    id: EndpointId,
) -> WriteResult<(), DeleteEndpointError> {
    let workspace = tenant.workspace;
    let Some(endpoint) = find(tx.connection, tenant, id)? else { return Ok(Err(DeleteEndpointError::NotFound)) };
    audit::append(tx, workspace, author, AuditAction::EndpointDeleted, id, &changes::endpoint_deleted(&endpoint))?;
    remove(tx, workspace, &endpoint)?;
    Ok(Ok(()))
}

/// Deletes listeners that are not durable and were not seen since.
pub fn remove_unseen(tx: &mut WriteTx<'_>, since: Timestamp, limit: usize) -> Result<usize, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, workspace_key FROM endpoints INDEXED BY endpoints_unseen
         WHERE durable = 0 AND deleted_at IS NULL AND last_seen_at <= ?1 ORDER BY last_seen_at LIMIT ?2"
    );
    let unseen = tx
        .connection
        .prepare_cached(&sql)?
        .query_map(params![since.millis(), limit], |row| {
            Ok((RowKey::from_i64(row.get("workspace_key")?), endpoint_from_row(row)?))
        })?
        .collect::<Result<Vec<_>, _>>()?;
    unseen.iter().try_for_each(|(workspace, listener)| remove(tx, *workspace, listener))?;
    Ok(unseen.len())
}

fn remove(tx: &mut WriteTx<'_>, workspace: RowKey, endpoint: &Endpoint) -> Result<(), rusqlite::Error> {
    if endpoint.state().needs_somebody() || order::is_blocked(tx, endpoint.key)? {
        stats::trouble_ended(tx, endpoint.key)?;
    }
    tx.connection
        .prepare_cached("UPDATE endpoints SET is_active = 0, deleted_at = ?2, updated_at = ?2 WHERE key = ?1")?
        .execute(params![endpoint.key.as_i64(), tx.now.millis()])?;
    secrets::erase_of_endpoint(tx, endpoint.key)?;
    endpoint_health::forget(tx, endpoint.key)?;
    tx.matching.invalidate(tx.connection, workspace)?;
    unsent::cancel_lanes(tx, workspace, endpoint.key)
}

/// Deletes every endpoint of a workspace that is being deleted.
pub fn delete_of_workspace(tx: &WriteTx<'_>, workspace: RowKey) -> Result<(), rusqlite::Error> {
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET is_active = 0, deleted_at = ?2, updated_at = ?2
             WHERE workspace_key = ?1 AND deleted_at IS NULL",
        )?
        .execute(params![workspace.as_i64(), tx.now.millis()])?;
    Ok(())
}

fn secret_version(
    connection: &Connection,
    tenant: Tenant,
    id: EndpointId,
) -> Result<Option<SecretVersion>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT secret_version FROM endpoints
             WHERE id = ?1 AND workspace_key = ?2 AND mode = ?3 AND (?4 IS NULL OR project_id = ?4)
               AND deleted_at IS NULL",
        )?
        .query_row(
            params![id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text()],
            |row| Ok(SecretVersion(row.get(0)?)),
        )
        .optional()
}

fn rotate_secret(
    tx: &mut WriteTx<'_>,
    tenant: Tenant,
    id: EndpointId,
    rotation: &SecretRotation,
) -> WriteResult<Endpoint, RotateSecretError> {
    let workspace = tenant.workspace;
    let (Some(endpoint), Some(current)) =
        (find(tx.connection, tenant, id)?, secret_version(tx.connection, tenant, id)?)
    else {
        return Ok(Err(RotateSecretError::NotFound));
    };
    if rotation.version.0 != current.0 + 1 {
        return Ok(Err(RotateSecretError::SecretVersionChanged));
    }
    let signing_key = Some(&rotation.signing_key).filter(|_| endpoint.options.signature_schemes.has_v1a());
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET secret_version = ?2, secret_last4 = ?3, updated_at = max(updated_at, ?4),
                    oldest_secret_version = CASE WHEN ?5 THEN ?2 ELSE oldest_secret_version END, public_key = ?6
             WHERE key = ?1",
        )?
        .execute(params![
            endpoint.key.as_i64(),
            rotation.version.0,
            rotation.last4,
            tx.now.millis(),
            rotation.revoke_queued,
            signing_key.map(|key| key.public_key.as_str()),
        ])?;
    secrets::insert_rotated(tx, endpoint.key, rotation, signing_key)?;
    let changed = changes::secret_rotated(&endpoint, rotation);
    audit::append(tx, workspace, rotation.author, AuditAction::EndpointSecretRotated, id, &changed)?;
    tx.matching.invalidate(tx.connection, workspace)?;
    Ok(find(tx.connection, tenant, id)?.ok_or(RotateSecretError::NotFound))
}

/// Switches an endpoint off and holds its lane, unless it is off already or has another URL than the one called.
pub fn disable(tx: &mut WriteTx<'_>, called: &EndpointTarget, reason: DisabledReason) -> Result<(), rusqlite::Error> {
    let changed = tx
        .connection
        .prepare_cached(
            "UPDATE endpoints SET is_active = 0, disabled_reason = ?3, updated_at = ?4
             WHERE key = ?1 AND url = ?2 AND is_active = 1 AND deleted_at IS NULL",
        )?
        .execute(params![called.endpoint_key.as_i64(), called.url, reason.as_str(), tx.now.millis()])?;
    if changed > 0 {
        lane::hold(tx, called.endpoint_key)?;
        tx.matching.invalidate(tx.connection, called.workspace_key)?;
        operational_event::report_endpoint(tx, called, OperationalEvent::EndpointDisabled)?;
    }
    Ok(())
}
