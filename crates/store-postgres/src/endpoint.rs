//! Endpoints and their sealed secrets.
//!
//! What changes them holds the workspace's lock from its first look on: so limits are counted and versions compared while
//! nobody else writes, and nothing is queued meanwhile by what was there before.

use std::sync::Arc;

use tokio_postgres::Row;

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::{DisabledReason, Endpoint, EndpointFilter, ProjectId, SecretVersion};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::page::{Page, PageRequest};
use postrider_store::column::join_events;
use postrider_store::registry::endpoint::{apply, forgives, made, moves};
use postrider_store::registry::endpoint_options::{Asked, OptionsRefusal};
use postrider_store::{
    CreateEndpointError, DeleteEndpointError, EndpointTarget, EndpointUpdate, Lane, LaneKind, NewEndpoint,
    RotateSecretError, SecretRotation, UpdateEndpointError,
};

use super::column::{get, instant, key, number, parsed, unexpected};
use super::endpoint_options::options_from_row;
use super::fault::PgError;
use super::health::{HEALTH_COLUMNS, failure_streak_from_row};
use super::session::Session;
use super::transaction::WriteTx;
use super::{audit, endpoint_options, health, lane, matching, operation, order, unsent};

pub const ENDPOINT_COLUMNS: &str = "key, id, url, name, events, is_active, disabled_reason, project_id, secret_last4, updated_at, \
     retry_schedule, timeout_seconds, rate_limit, ordering, signature_schemes, public_key, header_names, \
     certificate_sha256, sealed_version";

pub fn endpoint_from_row(row: &Row) -> Result<Endpoint, PgError> {
    let key = key(row, "key")?;
    let reason: Option<&str> = get(row, "disabled_reason")?;
    Ok(Endpoint {
        key,
        id: parsed(row, "id")?,
        url: get(row, "url")?,
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
    })
}

/// What an endpoint is shown by: its settings, and how it does.
const SHOWN_FROM: &str = "FROM endpoints LEFT JOIN endpoint_health ON endpoint_key = key";

fn shown_from_row(row: &Row) -> Result<Endpoint, PgError> {
    Ok(Endpoint { failure_streak: failure_streak_from_row(row)?, ..endpoint_from_row(row)? })
}

pub async fn create(tx: &mut WriteTx, new: &NewEndpoint) -> Result<Result<Endpoint, CreateEndpointError>, PgError> {
    tx.lock_workspace(new.workspace_key).await?;
    let (in_workspace, in_project) = count(tx, new.workspace_key, new.project_id.as_ref()).await?;
    if in_workspace >= new.limits.per_workspace {
        return Ok(Err(CreateEndpointError::WorkspaceFull(new.limits.per_workspace)));
    }
    if in_project >= new.limits.per_project {
        return Ok(Err(CreateEndpointError::ProjectFull(new.limits.per_project)));
    }
    let mut endpoint = made(new);
    let asked = Asked { change: &new.options, sealed: &new.sealed, secret_version: SecretVersion::FIRST };
    let options = match asked.of(&endpoint.options) {
        Ok(options) => options,
        Err(OptionsRefusal::NothingToKeep(name)) => {
            return Ok(Err(CreateEndpointError::NothingToKeep(name.as_str().to_owned())));
        }
        // `v1a` was asked for without a key of the first version.
        Err(OptionsRefusal::SecretVersionChanged) => return Err(unexpected("endpoints.public_key")),
    };
    insert(tx, new, &endpoint).await?;
    endpoint_options::write(tx, &asked, endpoint.key, &endpoint.options, &options).await?;
    endpoint.options = Arc::new(options);
    matching::bump(tx, new.workspace_key).await?;
    audit::append(tx, new.workspace_key, new.author, AuditAction::EndpointCreated, new.id).await?;
    Ok(Ok(endpoint))
}

async fn insert(tx: &WriteTx, new: &NewEndpoint, endpoint: &Endpoint) -> Result<(), PgError> {
    let first = i64::from(SecretVersion::FIRST.0);
    tx.execute(
        "INSERT INTO endpoints (key, id, workspace_key, project_id, name, url, events, is_active, secret_version,
                                secret_last4, updated_at)
         VALUES ($1, $2, $3, $4, $5, $6, $7, true, $8, $9, $10)",
        &[
            &endpoint.key.as_i64(),
            &endpoint.id.to_string(),
            &new.workspace_key.as_i64(),
            &endpoint.project_id,
            &endpoint.name,
            &endpoint.url,
            &join_events(&endpoint.events),
            &first,
            &endpoint.secret_last4,
            &endpoint.updated_at.millis(),
        ],
    )
    .await?;
    let sql = "INSERT INTO endpoint_secrets (endpoint_key, version, sealed) VALUES ($1, $2, $3)";
    tx.execute(sql, &[&endpoint.key.as_i64(), &first, &new.sealed_secret]).await?;
    Ok(())
}

/// The endpoints of the workspace, and those of one project.
async fn count(
    session: &Session,
    workspace_key: RowKey,
    project_id: Option<&ProjectId>,
) -> Result<(u32, u32), PgError> {
    let row = session
        .query_one(
            "SELECT COUNT(*) AS in_workspace, COUNT(*) FILTER (WHERE project_id IS NOT DISTINCT FROM $2) AS in_project
             FROM endpoints WHERE workspace_key = $1 AND deleted_at IS NULL",
            &[&workspace_key.as_i64(), &project_id.map(ProjectId::as_str)],
        )
        .await?;
    Ok((number(&row, "in_workspace")?, number(&row, "in_project")?))
}

pub async fn find(session: &Session, workspace_key: RowKey, id: EndpointId) -> Result<Option<Endpoint>, PgError> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM} WHERE id = $1 AND workspace_key = $2 AND deleted_at IS NULL"
    );
    let found = session.query_opt(&sql, &[&id.to_string(), &workspace_key.as_i64()]).await?;
    found.as_ref().map(shown_from_row).transpose()
}

pub async fn list(
    session: &Session,
    workspace_key: RowKey,
    filter: &EndpointFilter,
    page: PageRequest,
) -> Result<Page<Endpoint>, PgError> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM}
         WHERE workspace_key = $1 AND key < $2 AND deleted_at IS NULL
           AND ($3 IS NULL OR project_id = $3) AND ($4 IS NULL OR is_active = $4)
           AND ($5 IS NULL OR strpos(' ' || events || ' ', ' ' || $5 || ' ') > 0)
         ORDER BY key DESC LIMIT $6"
    );
    let rows = session
        .query(
            &sql,
            &[
                &workspace_key.as_i64(),
                &page.before().as_i64(),
                &filter.project_id.as_ref().map(ProjectId::as_str),
                &filter.is_active,
                &filter.event_type.as_ref().map(EventTypeName::as_str),
                &(i64::from(page.limit()) + 1),
            ],
        )
        .await?;
    let items = rows.iter().map(shown_from_row).collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |endpoint| endpoint.key))
}

pub async fn update(
    tx: &mut WriteTx,
    workspace_key: RowKey,
    id: EndpointId,
    update: &EndpointUpdate,
    author: Author,
) -> Result<Result<Endpoint, UpdateEndpointError>, PgError> {
    let EndpointUpdate { change, sealed, limits } = update;
    tx.lock_workspace(workspace_key).await?;
    let Some(mut endpoint) = find(tx, workspace_key, id).await? else {
        return Ok(Err(UpdateEndpointError::NotFound));
    };
    if change.is_empty() && sealed.is_empty() {
        return Ok(Ok(endpoint));
    }
    let Some(secret_version) = secret_version(tx, workspace_key, id).await? else {
        return Ok(Err(UpdateEndpointError::NotFound));
    };
    let asked = Asked { change: &change.options, sealed, secret_version };
    let options = match asked.of(&endpoint.options) {
        Ok(options) => options,
        Err(OptionsRefusal::NothingToKeep(name)) => {
            return Ok(Err(UpdateEndpointError::NothingToKeep(name.as_str().to_owned())));
        }
        Err(OptionsRefusal::SecretVersionChanged) => return Ok(Err(UpdateEndpointError::SecretVersionChanged)),
    };
    if let Some(project) = change.project_id.as_ref().map(Option::as_ref)
        && moves(&endpoint, project)
        && count(tx, workspace_key, project).await?.1 >= limits.per_project
    {
        return Ok(Err(UpdateEndpointError::ProjectFull(limits.per_project)));
    }
    apply(&mut endpoint, change, tx.now);
    write(tx, &endpoint).await?;
    let events = Lane { workspace_key, endpoint_key: endpoint.key, kind: LaneKind::Events };
    if options != *endpoint.options {
        if options.ordering != DeliveryOrder::Strict {
            order::unblock(tx, events).await?;
        }
        endpoint_options::write(tx, &asked, endpoint.key, &endpoint.options, &options).await?;
        endpoint.options = Arc::new(options);
    }
    match change.is_active {
        Some(true) => lane::release_lane(tx, endpoint.key).await?,
        Some(false) => lane::hold_lane(tx, endpoint.key).await?,
        None => {}
    }
    if forgives(change) {
        lane::leave_alone_no_more(tx, events).await?;
        health::forget(tx, endpoint.key).await?;
        endpoint.failure_streak = None;
    }
    audit::append(tx, workspace_key, author, AuditAction::EndpointUpdated, id).await?;
    matching::bump(tx, workspace_key).await?;
    Ok(Ok(endpoint))
}

async fn write(tx: &WriteTx, endpoint: &Endpoint) -> Result<(), PgError> {
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

pub async fn delete(
    tx: &mut WriteTx,
    workspace_key: RowKey,
    id: EndpointId,
    author: Author,
) -> Result<Result<(), DeleteEndpointError>, PgError> {
    tx.lock_workspace(workspace_key).await?;
    let Some(endpoint) = find(tx, workspace_key, id).await? else { return Ok(Err(DeleteEndpointError::NotFound)) };
    let sql = "UPDATE endpoints SET is_active = false, deleted_at = $2, updated_at = $2 WHERE key = $1";
    tx.execute(sql, &[&endpoint.key.as_i64(), &tx.now.millis()]).await?;
    tx.execute("DELETE FROM endpoint_secrets WHERE endpoint_key = $1", &[&endpoint.key.as_i64()]).await?;
    endpoint_options::remove_all_parts(tx, endpoint.key).await?;
    matching::bump(tx, workspace_key).await?;
    audit::append(tx, workspace_key, author, AuditAction::EndpointDeleted, id).await?;
    unsent::cancel_lanes(tx, workspace_key, endpoint.key).await?;
    health::forget(tx, endpoint.key).await?;
    Ok(Ok(()))
}

pub async fn secret_version(
    session: &Session,
    workspace_key: RowKey,
    id: EndpointId,
) -> Result<Option<SecretVersion>, PgError> {
    let sql = "SELECT secret_version FROM endpoints WHERE id = $1 AND workspace_key = $2 AND deleted_at IS NULL";
    let found = session.query_opt(sql, &[&id.to_string(), &workspace_key.as_i64()]).await?;
    found.map(|row| Ok(SecretVersion(number(&row, "secret_version")?))).transpose()
}

pub async fn rotate_secret(
    tx: &mut WriteTx,
    workspace_key: RowKey,
    id: EndpointId,
    rotation: &SecretRotation,
    author: Author,
) -> Result<Result<Endpoint, RotateSecretError>, PgError> {
    tx.lock_workspace(workspace_key).await?;
    let (Some(endpoint), Some(current)) =
        (find(tx, workspace_key, id).await?, secret_version(tx, workspace_key, id).await?)
    else {
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
    let overlap_until = (!rotation.overlap.is_zero()).then(|| tx.now.plus(rotation.overlap).millis());
    tx.execute(
        "INSERT INTO endpoint_secrets (endpoint_key, version, sealed, overlap_until, sealed_signing_key)
         VALUES ($1, $2, $3, $4, $5)",
        &[
            &endpoint.key.as_i64(),
            &version,
            &rotation.sealed,
            &overlap_until,
            &signing_key.map(|key| key.sealed.as_slice()),
        ],
    )
    .await?;
    audit::append(tx, workspace_key, author, AuditAction::EndpointSecretRotated, id).await?;
    matching::bump(tx, workspace_key).await?;
    Ok(find(tx, workspace_key, id).await?.ok_or(RotateSecretError::NotFound))
}

/// Erases secrets older than the newest that nothing queued is signed with, once no overlap needs them either.
///
/// Nothing new can come to need one of them: a secret that is not the newest is used for what is queued in an overlap alone,
/// and an overlap has ended here only when that is written down.
pub async fn erase_unused_secrets(tx: &mut WriteTx, limit: usize) -> Result<usize, PgError> {
    end_overlaps(tx).await?;
    let erased = tx
        .execute(
            "DELETE FROM endpoint_secrets WHERE (endpoint_key, version) IN
                 (SELECT s.endpoint_key, s.version FROM endpoint_secrets s
                  JOIN endpoints e ON e.key = s.endpoint_key
                  JOIN endpoint_secrets newest ON newest.endpoint_key = e.key AND newest.version = e.secret_version
                  WHERE s.version < e.secret_version
                    AND (newest.overlap_until IS NULL OR s.version < e.secret_version - 1)
                    AND NOT EXISTS
                         (SELECT 1 FROM due
                          WHERE lane_key IN (e.key, -e.key) AND due.secret_version >= e.oldest_secret_version
                            AND (due.secret_version = s.version OR due.also_secret_version = s.version))
                  LIMIT $1)",
            &[&i64::try_from(limit).unwrap_or(i64::MAX)],
        )
        .await?;
    Ok(usize::try_from(erased).unwrap_or(usize::MAX))
}

/// Writes down which overlaps have ended in one workspace; the next call sees to the next. That an instant has passed proves
/// nothing alone: a transaction that began before it may still be queueing something with both secrets. Under the
/// workspace's lock there is none, and whoever comes after sees no overlap, whatever the time it began at.
async fn end_overlaps(tx: &mut WriteTx) -> Result<(), PgError> {
    let now = tx.now.millis();
    let ended = tx
        .query_opt(
            "SELECT e.workspace_key FROM endpoint_secrets newest
             JOIN endpoints e ON e.key = newest.endpoint_key AND e.secret_version = newest.version
             WHERE newest.overlap_until <= $1 ORDER BY newest.overlap_until LIMIT 1",
            &[&now],
        )
        .await?;
    let Some(ended) = ended else { return Ok(()) };
    let workspace_key = key(&ended, "workspace_key")?;
    tx.lock_workspace(workspace_key).await?;
    tx.execute(
        "UPDATE endpoint_secrets SET overlap_until = NULL
         WHERE overlap_until <= $1 AND endpoint_key IN (SELECT key FROM endpoints WHERE workspace_key = $2)",
        &[&now, &workspace_key.as_i64()],
    )
    .await?;
    matching::bump(tx, workspace_key).await
}

pub async fn find_secret(
    session: &Session,
    endpoint_key: RowKey,
    version: SecretVersion,
) -> Result<Option<Vec<u8>>, PgError> {
    let sql = "SELECT sealed FROM endpoint_secrets WHERE endpoint_key = $1 AND version = $2";
    let found = session.query_opt(sql, &[&endpoint_key.as_i64(), &i64::from(version.0)]).await?;
    found.map(|row| get(&row, "sealed")).transpose()
}

/// Switches an endpoint off and holds its lane, unless it is off already or points elsewhere by now. Called without the
/// workspace's lock, which is taken only when there is something to switch off.
pub async fn disable(tx: &mut WriteTx, target: &EndpointTarget, reason: DisabledReason) -> Result<(), PgError> {
    let Lane { workspace_key, endpoint_key, .. } = target.lane;
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
        lane::hold_lane(tx, endpoint_key).await?;
        matching::bump(tx, workspace_key).await?;
        operation::report_endpoint(tx, target, OperationalEvent::EndpointDisabled).await?;
    }
    Ok(())
}
