//! Endpoints. Writes `endpoints`.
//!
//! A write first locks the workspace. Under the lock it counts endpoints and compares versions while no other
//! transaction changes them, and no transaction queues deliveries from the old state.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio_postgres::Row;

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
use crate::PostgresStore;
use crate::log::audit;
use crate::machinery::column::{coded, get, instant, key, number, opt_instant, parsed, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};
use crate::publish::matching;
use crate::queue::endpoint_health::{self, HEALTH_COLUMNS};
use crate::queue::{lane, operational_event, order, unsent};
use crate::secrets;
use crate::stats;

#[async_trait]
impl Endpoints for PostgresStore {
    async fn create_endpoint(
        &self,
        write: Write<Endpoint>,
        new: NewEndpoint,
    ) -> Result<Written<Endpoint>, CreateEndpointError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, new| create(tx, tenant, author, &new))).await
    }

    async fn find_endpoint(&self, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.read(move |session| Box::pin(find(session, tenant, id))).await
    }

    async fn list_endpoints(
        &self,
        tenant: Tenant,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, StoreError> {
        self.read(move |session| Box::pin(async move { endpoint_list::list(session, tenant, &filter, page).await }))
            .await
    }

    async fn endpoint_labels(&self, tenant: Tenant, ids: Vec<EndpointId>) -> Result<Vec<EndpointLabel>, StoreError> {
        self.read(move |session| Box::pin(async move { endpoint_list::labels(session, tenant, &ids).await })).await
    }

    async fn endpoints_of_host(
        &self,
        tenant: Tenant,
        host: String,
        limit: u32,
    ) -> Result<Vec<EndpointLabel>, StoreError> {
        self.read(move |session| Box::pin(async move { endpoint_list::of_host(session, tenant, &host, limit).await }))
            .await
    }

    async fn update_endpoint(
        &self,
        write: Write<Endpoint>,
        id: EndpointId,
        changes: EndpointUpdate,
    ) -> Result<Written<Endpoint>, UpdateEndpointError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx, changes| update(tx, tenant, author, id, &changes))).await
    }

    async fn delete_endpoint(&self, write: Write<()>, id: EndpointId) -> Result<Written<()>, DeleteEndpointError> {
        let Write { tenant, author, recording } = write;
        self.write_once(recording, effect!(|tx| delete(tx, tenant, author, id))).await
    }

    async fn secret_version(&self, tenant: Tenant, id: EndpointId) -> Result<Option<SecretVersion>, StoreError> {
        self.read(move |session| Box::pin(secret_version(session, tenant, id))).await
    }

    async fn rotate_secret(
        &self,
        tenant: Tenant,
        id: EndpointId,
        rotation: SecretRotation,
    ) -> Result<Endpoint, RotateSecretError> {
        self.write(effect!(|tx, rotation| rotate_secret(tx, tenant, id, &rotation))).await?
    }
}

pub const ENDPOINT_COLUMNS: &str = "key, id, url, name, events, is_active, disabled_reason, project_id, secret_last4, updated_at, \
     retry_schedule, timeout_seconds, rate_limit, ordering, signature_schemes, public_key, header_names, \
     certificate_sha256, sealed_version, trace_forwarding, mode, durable, last_seen_at";

pub fn endpoint_from_row(row: &Row) -> Result<Endpoint, PgError> {
    let key = key(row, "key")?;
    let reason: Option<&str> = get(row, "disabled_reason")?;
    Ok(Endpoint {
        key,
        id: parsed(row, "id")?,
        url: get(row, "url")?,
        listener: listener_from_row(row)?,
        name: get(row, "name")?,
        events: get::<&str>(row, "events")?.split(' ').map(EventTypeName::from_stored).collect(),
        is_active: get(row, "is_active")?,
        disabled_reason: reason
            .map(|text| DisabledReason::from_stored(text).ok_or_else(|| unexpected("endpoints.disabled_reason")))
            .transpose()?,
        project_id: get(row, "project_id")?,
        secret_last4: get(row, "secret_last4")?,
        created_at: key.created_at(),
        updated_at: instant(row, "updated_at")?,
        failure_streak: None,
        options: Arc::new(options_from_row(row)?),
        mode: coded(row, "mode", mode_from_code)?,
    })
}

fn listener_from_row(row: &Row) -> Result<Option<Listener>, PgError> {
    let durable = get::<Option<bool>>(row, "durable")?.unwrap_or_default();
    Ok(opt_instant(row, "last_seen_at")?.map(|last_seen_at| Listener { durable, last_seen_at }))
}

/// Joins an endpoint's settings with its health.
pub const SHOWN_FROM: &str = "FROM endpoints LEFT JOIN endpoint_health ON endpoint_key = key";

pub fn shown_from_row(row: &Row) -> Result<Endpoint, PgError> {
    Ok(Endpoint { failure_streak: endpoint_health::from_row(row)?, ..endpoint_from_row(row)? })
}

async fn create(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    new: &NewEndpoint,
) -> Result<Result<Endpoint, CreateEndpointError>, PgError> {
    tx.lock_workspace(tenant.workspace).await?;
    let (in_workspace, in_project) = count(tx, tenant, tenant.project.as_ref().or(new.project_id.as_ref())).await?;
    if in_workspace >= new.limits.per_workspace {
        return Ok(Err(CreateEndpointError::WorkspaceFull(new.limits.per_workspace)));
    }
    if in_project >= new.limits.per_project {
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
    insert(tx, tenant, new, &endpoint).await?;
    endpoint_options::write(tx, &update, &endpoint, &options).await?;
    endpoint.options = Arc::new(options);
    if endpoint.listener.is_some() {
        lane::give_to_listener(tx, events_lane(tenant, &endpoint)).await?;
    }
    matching::bump(tx, tenant.workspace).await?;
    let set = changes::endpoint_created(&endpoint);
    audit::append(tx, tenant.workspace, author, AuditAction::EndpointCreated, new.id, &set).await?;
    Ok(Ok(endpoint))
}

const fn events_lane(tenant: Tenant, endpoint: &Endpoint) -> Lane {
    Lane { workspace_key: tenant.workspace, endpoint_key: endpoint.key, kind: LaneKind::Events }
}

async fn insert(tx: &WriteTx, tenant: Tenant, new: &NewEndpoint, endpoint: &Endpoint) -> Result<(), PgError> {
    tx.execute(
        "INSERT INTO endpoints (key, id, workspace_key, project_id, name, url, events, is_active, secret_version,
                                secret_last4, updated_at, mode, durable, last_seen_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, true, $8, $9, $10, $11, $12, $13)",
        &[
            &endpoint.key.as_i64(),
            &endpoint.id.to_string(),
            &tenant.workspace.as_i64(),
            &endpoint.project_id,
            &endpoint.name,
            &endpoint.url,
            &join_events(&endpoint.events),
            &i64::from(SecretVersion::FIRST.0),
            &endpoint.secret_last4,
            &endpoint.updated_at.millis(),
            &mode_code(endpoint.mode),
            &endpoint.listener.map(|listener| listener.durable),
            &endpoint.listener.map(|listener| listener.last_seen_at.millis()),
        ],
    )
    .await?;
    secrets::insert_first(tx, endpoint.key, &new.sealed_secret).await
}

/// The number of endpoints of the tenant, and of those in one project.
async fn count(session: &Session, tenant: Tenant, project_id: Option<&ProjectId>) -> Result<(u32, u32), PgError> {
    let row = session
        .query_one(
            "SELECT COUNT(*) AS in_workspace, COUNT(*) FILTER (WHERE project_id IS NOT DISTINCT FROM $2) AS in_project
             FROM endpoints WHERE workspace_key = $1 AND mode = $3 AND deleted_at IS NULL",
            &[&tenant.workspace.as_i64(), &project_id.map(ProjectId::as_str), &mode_code(tenant.mode)],
        )
        .await?;
    Ok((number(&row, "in_workspace")?, number(&row, "in_project")?))
}

pub async fn find(session: &Session, tenant: Tenant, id: EndpointId) -> Result<Option<Endpoint>, PgError> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM}
         WHERE id = $1 AND workspace_key = $2 AND mode = $3 AND ($4 IS NULL OR project_id = $4) AND deleted_at IS NULL"
    );
    let values = (id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    let found = session.query_opt(&sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    found.as_ref().map(shown_from_row).transpose()
}

async fn update(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    id: EndpointId,
    update: &EndpointUpdate,
) -> Result<Result<Endpoint, UpdateEndpointError>, PgError> {
    let EndpointUpdate { change, sealed, limits } = update;
    tx.lock_workspace(tenant.workspace).await?;
    let Some(before) = find(tx, tenant, id).await? else { return Ok(Err(UpdateEndpointError::NotFound)) };
    if change.seen.is_some_and(|seen| seen != before.updated_at) {
        return Ok(Err(UpdateEndpointError::ChangedMeanwhile));
    }
    let mut endpoint = before.clone();
    if change.is_empty() && sealed.is_empty() {
        return Ok(Ok(endpoint));
    }
    let Some(secret_version) = secret_version(tx, tenant, id).await? else {
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
        && count(tx, tenant, project).await?.1 >= limits.per_project
    {
        return Ok(Err(UpdateEndpointError::ProjectFull(limits.per_project)));
    }
    apply(&mut endpoint, change, tx.now);
    store_settings(tx, &endpoint).await?;
    let events = events_lane(tenant, &endpoint);
    if options != *endpoint.options {
        if options.ordering != DeliveryOrder::Strict {
            order::unblock(tx, events).await?;
        }
        endpoint_options::write(tx, &options_update, &endpoint, &options).await?;
        endpoint.options = Arc::new(options);
    }
    match change.is_active {
        Some(true) => lane::release(tx, endpoint.key).await?,
        Some(false) => lane::hold(tx, endpoint.key).await?,
        None => {}
    }
    if clears_health(change) {
        lane::resume(tx, events).await?;
        endpoint_health::forget(tx, endpoint.key).await?;
        endpoint.failure_streak = None;
        if endpoint.listener.is_some() {
            lane::give_to_listener(tx, events).await?;
        }
    }
    if before.state().needs_somebody() && !endpoint.state().needs_somebody() {
        stats::trouble_ended(tx, endpoint.key).await?;
    }
    let changed = changes::endpoint_updated(&before, &endpoint, sealed);
    audit::append(tx, tenant.workspace, author, AuditAction::EndpointUpdated, id, &changed).await?;
    matching::bump(tx, tenant.workspace).await?;
    Ok(Ok(endpoint))
}

async fn store_settings(tx: &WriteTx, endpoint: &Endpoint) -> Result<(), PgError> {
    tx.execute(
        "UPDATE endpoints SET project_id = $2, name = $3, url = $4, events = $5, is_active = $6, disabled_reason = $7,
                              updated_at = $8
         WHERE key = $1",
        &[
            &endpoint.key.as_i64(),
            &endpoint.project_id,
            &endpoint.name,
            &endpoint.url,
            &join_events(&endpoint.events),
            &endpoint.is_active,
            &endpoint.disabled_reason.map(DisabledReason::as_str),
            &endpoint.updated_at.millis(),
        ],
    )
    .await?;
    Ok(())
}

async fn delete(
    tx: &mut WriteTx,
    tenant: Tenant,
    author: Author,
    id: EndpointId,
) -> Result<Result<(), DeleteEndpointError>, PgError> {
    tx.lock_workspace(tenant.workspace).await?;
    let Some(endpoint) = find(tx, tenant, id).await? else { return Ok(Err(DeleteEndpointError::NotFound)) };
    let removed = changes::endpoint_deleted(&endpoint);
    audit::append(tx, tenant.workspace, author, AuditAction::EndpointDeleted, id, &removed).await?;
    remove(tx, tenant.workspace, &endpoint).await?;
    Ok(Ok(()))
}

/// Deletes one listener that is not durable and was not seen since. Returns whether there was one.
pub async fn remove_unseen(tx: &mut WriteTx, unseen: Duration) -> Result<bool, PgError> {
    let since = tx.now.minus(unseen).millis();
    let sql = "SELECT key, workspace_key FROM endpoints
               WHERE NOT durable AND deleted_at IS NULL AND last_seen_at <= $1 ORDER BY last_seen_at LIMIT 1";
    let Some(row) = tx.query_opt(sql, &[&since]).await? else { return Ok(false) };
    let (endpoint_key, workspace) = (key(&row, "key")?, key(&row, "workspace_key")?);
    tx.lock_workspace(workspace).await?;
    // Looked at again under the lock: a consumer may have come back, or somebody may have deleted it.
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS} FROM endpoints
         WHERE key = $1 AND NOT durable AND deleted_at IS NULL AND last_seen_at <= $2"
    );
    if let Some(row) = tx.query_opt(&sql, &[&endpoint_key.as_i64(), &since]).await? {
        remove(tx, workspace, &endpoint_from_row(&row)?).await?;
    }
    Ok(true)
}

/// Deletes an endpoint. The transaction holds the workspace's lock.
async fn remove(tx: &mut WriteTx, workspace: RowKey, endpoint: &Endpoint) -> Result<(), PgError> {
    if endpoint.state().needs_somebody() || order::is_blocked(tx, endpoint.key).await? {
        stats::trouble_ended(tx, endpoint.key).await?;
    }
    let sql = "UPDATE endpoints SET is_active = false, deleted_at = $2, updated_at = $2 WHERE key = $1";
    tx.execute(sql, &[&endpoint.key.as_i64(), &tx.now.millis()]).await?;
    secrets::erase_of_endpoint(tx, endpoint.key).await?;
    matching::bump(tx, workspace).await?;
    unsent::cancel_lanes(tx, workspace, endpoint.key).await?;
    endpoint_health::forget(tx, endpoint.key).await
}

/// Marks all endpoints of a workspace as deleted.
pub async fn delete_of_workspace(tx: &WriteTx, workspace: RowKey) -> Result<(), PgError> {
    tx.execute(
        "UPDATE endpoints SET is_active = false, deleted_at = $2, updated_at = $2
     WHERE workspace_key = $1 AND deleted_at IS NULL",
        &[&workspace.as_i64(), &tx.now.millis()],
    )
    .await?;
    Ok(())
}

async fn secret_version(session: &Session, tenant: Tenant, id: EndpointId) -> Result<Option<SecretVersion>, PgError> {
    let sql = "SELECT secret_version FROM endpoints
               WHERE id = $1 AND workspace_key = $2 AND mode = $3 AND ($4 IS NULL OR project_id = $4)
                 AND deleted_at IS NULL";
    let values = (id.to_string(), tenant.workspace.as_i64(), mode_code(tenant.mode), tenant.project_text());
    let found = session.query_opt(sql, &[&values.0, &values.1, &values.2, &values.3]).await?;
    found.map(|row| Ok(SecretVersion(number(&row, "secret_version")?))).transpose()
}

async fn rotate_secret(
    tx: &mut WriteTx,
    tenant: Tenant,
    id: EndpointId,
    rotation: &SecretRotation,
) -> Result<Result<Endpoint, RotateSecretError>, PgError> {
    tx.lock_workspace(tenant.workspace).await?;
    let (Some(endpoint), Some(current)) = (find(tx, tenant, id).await?, secret_version(tx, tenant, id).await?) else {
        return Ok(Err(RotateSecretError::NotFound));
    };
    if rotation.version.0 != current.0 + 1 {
        return Ok(Err(RotateSecretError::SecretVersionChanged));
    }
    let version = i64::from(rotation.version.0);
    let signing_key = Some(&rotation.signing_key).filter(|_| endpoint.options.signature_schemes.has_v1a());
    tx.execute(
        "UPDATE endpoints SET secret_version = $2, secret_last4 = $3, updated_at = greatest(updated_at, $4),
                oldest_secret_version = CASE WHEN $5 THEN $2 ELSE oldest_secret_version END, public_key = $6
         WHERE key = $1",
        &[
            &endpoint.key.as_i64(),
            &version,
            &rotation.last4,
            &tx.now.millis(),
            &rotation.revoke_queued,
            &signing_key.map(|key| key.public_key.as_str()),
        ],
    )
    .await?;
    secrets::insert_rotated(tx, endpoint.key, rotation, signing_key).await?;
    let changed = changes::secret_rotated(&endpoint, rotation);
    audit::append(tx, tenant.workspace, rotation.author, AuditAction::EndpointSecretRotated, id, &changed).await?;
    matching::bump(tx, tenant.workspace).await?;
    Ok(find(tx, tenant, id).await?.ok_or(RotateSecretError::NotFound))
}

/// Disables an endpoint and holds its lane. Does nothing when the endpoint is inactive already or has another URL by
/// now.
///
/// The caller need not hold the workspace's lock: this takes it only when there is an endpoint to disable.
pub async fn disable(tx: &mut WriteTx, target: &EndpointTarget, reason: DisabledReason) -> Result<(), PgError> {
    let (workspace_key, endpoint_key) = (target.workspace_key, target.endpoint_key);
    let found = tx
        .query_opt(
            "SELECT 1 FROM endpoints WHERE key = $1 AND url = $2 AND is_active AND deleted_at IS NULL",
            &[&endpoint_key.as_i64(), &target.url],
        )
        .await?;
    if found.is_none() {
        return Ok(());
    }
    tx.lock_workspace(workspace_key).await?;
    let changed = tx
        .execute(
            "UPDATE endpoints SET is_active = false, disabled_reason = $3, updated_at = $4
             WHERE key = $1 AND url = $2 AND is_active AND deleted_at IS NULL",
            &[&endpoint_key.as_i64(), &target.url, &reason.as_str(), &tx.now.millis()],
        )
        .await?;
    if changed > 0 {
        lane::hold(tx, endpoint_key).await?;
        matching::bump(tx, workspace_key).await?;
        operational_event::report_endpoint(tx, target, OperationalEvent::EndpointDisabled).await?;
    }
    Ok(())
}
