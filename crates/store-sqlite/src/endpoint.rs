//! Endpoints and their sealed secrets.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::audit::{AuditAction, Author};
use postrider_domain::endpoint::{DisabledReason, Endpoint, EndpointFilter, ProjectId, SecretVersion};
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EndpointId, RowKey};
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::time::Timestamp;
use postrider_store::column::join_events;
use postrider_store::registry::endpoint::{apply, forgives, made, moves};
use postrider_store::registry::endpoint_options::{Asked, OptionsRefusal};
use postrider_store::{EndpointTarget, EndpointUpdate, Lane, LaneKind, NewEndpoint, SecretRotation};

use super::column::{parsed, unexpected};
use super::endpoint_options::options_from_row;
use super::health::{HEALTH_COLUMNS, failure_streak_from_row};
use super::writer::WriteTx;
use super::{audit, endpoint_options, health, lane, operation, order, unsent};

pub const ENDPOINT_COLUMNS: &str = "key, id, url, name, events, is_active, disabled_reason, project_id, secret_last4, updated_at, \
     retry_schedule, timeout_seconds, rate_limit, ordering, signature_schemes, public_key, header_names, \
     certificate_sha256, sealed_version";

pub fn endpoint_from_row(row: &Row<'_>) -> Result<Endpoint, rusqlite::Error> {
    let key = RowKey::from_i64(row.get("key")?);
    let events: String = row.get("events")?;
    let reason: Option<String> = row.get("disabled_reason")?;
    Ok(Endpoint {
        key,
        id: parsed(row, "id")?,
        url: row.get("url")?,
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
    })
}

/// What an endpoint is shown by: its settings, and how it does.
const SHOWN_FROM: &str = "FROM endpoints LEFT JOIN endpoint_health ON endpoint_key = key";

fn shown_from_row(row: &Row<'_>) -> Result<Endpoint, rusqlite::Error> {
    Ok(Endpoint { failure_streak: failure_streak_from_row(row)?, ..endpoint_from_row(row)? })
}

/// Why an endpoint was not made.
pub enum NotCreated {
    ProjectFull,
    WorkspaceFull,
    Options(OptionsRefusal),
}

pub fn create(tx: &mut WriteTx<'_>, new: &NewEndpoint) -> Result<Result<Endpoint, NotCreated>, rusqlite::Error> {
    let (in_workspace, in_project) = count(tx.connection, new.workspace_key, new.project_id.as_ref())?;
    if in_workspace >= new.limits.per_workspace {
        return Ok(Err(NotCreated::WorkspaceFull));
    }
    if in_project >= new.limits.per_project {
        return Ok(Err(NotCreated::ProjectFull));
    }
    let mut endpoint = made(new);
    let asked = Asked { change: &new.options, sealed: &new.sealed, secret_version: SecretVersion::FIRST };
    let options = match asked.of(&endpoint.options) {
        Ok(options) => options,
        Err(refusal) => return Ok(Err(NotCreated::Options(refusal))),
    };
    tx.connection
        .prepare_cached(
            "INSERT INTO endpoints (key, id, workspace_key, project_id, name, url, events, is_active, secret_version,
                                    secret_last4, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 1, ?8, ?9, ?10)",
        )?
        .execute(params![
            endpoint.key.as_i64(),
            endpoint.id.to_string(),
            new.workspace_key.as_i64(),
            endpoint.project_id,
            endpoint.name,
            endpoint.url,
            join_events(&endpoint.events),
            SecretVersion::FIRST.0,
            endpoint.secret_last4,
            endpoint.updated_at.millis(),
        ])?;
    tx.connection
        .prepare_cached("INSERT INTO endpoint_secrets (endpoint_key, version, sealed) VALUES (?1, ?2, ?3)")?
        .execute(params![endpoint.key.as_i64(), SecretVersion::FIRST.0, new.sealed_secret])?;
    endpoint_options::write(tx, &asked, endpoint.key, &endpoint.options, &options)?;
    endpoint.options = Arc::new(options);
    tx.matching.bump(tx.connection, new.workspace_key)?;
    audit::append(tx, new.workspace_key, new.author, AuditAction::EndpointCreated, new.id)?;
    Ok(Ok(endpoint))
}

/// The endpoints of the workspace, and those of one project.
fn count(
    connection: &Connection,
    workspace_key: RowKey,
    project_id: Option<&ProjectId>,
) -> Result<(u32, u32), rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE project_id IS ?2)
             FROM endpoints WHERE workspace_key = ?1 AND deleted_at IS NULL",
        )?
        .query_row(params![workspace_key.as_i64(), project_id.map(ProjectId::as_str)], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
}

pub fn find(
    connection: &Connection,
    workspace_key: RowKey,
    id: EndpointId,
) -> Result<Option<Endpoint>, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM} WHERE id = ?1 AND workspace_key = ?2 AND deleted_at IS NULL"
    );
    connection
        .prepare_cached(&sql)?
        .query_row(params![id.to_string(), workspace_key.as_i64()], shown_from_row)
        .optional()
}

pub fn list(
    connection: &Connection,
    workspace_key: RowKey,
    filter: &EndpointFilter,
    page: PageRequest,
) -> Result<Page<Endpoint>, rusqlite::Error> {
    let sql = format!(
        "SELECT {ENDPOINT_COLUMNS}, {HEALTH_COLUMNS} {SHOWN_FROM}
         WHERE workspace_key = ?1 AND key < ?2 AND deleted_at IS NULL
           AND (?3 IS NULL OR project_id = ?3) AND (?4 IS NULL OR is_active = ?4)
           AND (?5 IS NULL OR instr(' ' || events || ' ', ' ' || ?5 || ' ') > 0)
         ORDER BY key DESC LIMIT ?6"
    );
    let items = connection
        .prepare_cached(&sql)?
        .query_map(
            params![
                workspace_key.as_i64(),
                page.before().as_i64(),
                filter.project_id.as_ref().map(ProjectId::as_str),
                filter.is_active,
                filter.event_type.as_ref().map(EventTypeName::as_str),
                page.limit() + 1,
            ],
            shown_from_row,
        )?
        .collect::<Result<Vec<_>, _>>()?;
    Ok(page.cut(items, |endpoint| endpoint.key))
}

/// Why an endpoint was not changed.
pub enum UpdateRefusal {
    NotFound,
    ProjectFull,
    Options(OptionsRefusal),
}

pub fn update(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    id: EndpointId,
    update: &EndpointUpdate,
    author: Author,
) -> Result<Result<Endpoint, UpdateRefusal>, rusqlite::Error> {
    let EndpointUpdate { change, sealed, limits } = update;
    let Some(mut endpoint) = find(tx.connection, workspace_key, id)? else {
        return Ok(Err(UpdateRefusal::NotFound));
    };
    if change.is_empty() && sealed.is_empty() {
        return Ok(Ok(endpoint));
    }
    let Some(secret_version) = secret_version(tx.connection, workspace_key, id)? else {
        return Ok(Err(UpdateRefusal::NotFound));
    };
    let asked = Asked { change: &change.options, sealed, secret_version };
    let options = match asked.of(&endpoint.options) {
        Ok(options) => options,
        Err(refusal) => return Ok(Err(UpdateRefusal::Options(refusal))),
    };
    if let Some(project) = change.project_id.as_ref().map(Option::as_ref)
        && moves(&endpoint, project)
        && count(tx.connection, workspace_key, project)?.1 >= limits.per_project
    {
        return Ok(Err(UpdateRefusal::ProjectFull));
    }
    apply(&mut endpoint, change, tx.now);
    tx.connection
        .prepare_cached(
            "UPDATE endpoints SET project_id = ?2, name = ?3, url = ?4, events = ?5, is_active = ?6, disabled_reason = ?7,
                                  updated_at = ?8
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
    if options != *endpoint.options {
        if options.ordering != DeliveryOrder::Strict {
            order::unblock(tx, Lane { workspace_key, endpoint_key: endpoint.key, kind: LaneKind::Events })?;
        }
        endpoint_options::write(tx, &asked, endpoint.key, &endpoint.options, &options)?;
        endpoint.options = Arc::new(options);
    }
    if forgives(change) {
        health::forget(tx, endpoint.key)?;
        lane::leave_alone_no_more(tx, Lane { workspace_key, endpoint_key: endpoint.key, kind: LaneKind::Events })?;
        endpoint.failure_streak = None;
    }
    match change.is_active {
        Some(true) => lane::release_lane(tx, endpoint.key)?,
        Some(false) => lane::hold_lane(tx, endpoint.key)?,
        None => {}
    }
    audit::append(tx, workspace_key, author, AuditAction::EndpointUpdated, id)?;
    tx.matching.bump(tx.connection, workspace_key)?;
    Ok(Ok(endpoint))
}

/// No such endpoint, or nothing of this kind of its own.
pub struct NotFound;

pub fn delete(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    id: EndpointId,
    author: Author,
) -> Result<Result<(), NotFound>, rusqlite::Error> {
    let Some(endpoint) = find(tx.connection, workspace_key, id)? else { return Ok(Err(NotFound)) };
    tx.connection
        .prepare_cached("UPDATE endpoints SET is_active = 0, deleted_at = ?2, updated_at = ?2 WHERE key = ?1")?
        .execute(params![endpoint.key.as_i64(), tx.now.millis()])?;
    tx.connection
        .prepare_cached("DELETE FROM endpoint_secrets WHERE endpoint_key = ?1")?
        .execute([endpoint.key.as_i64()])?;
    endpoint_options::remove_all_parts(tx, endpoint.key)?;
    health::forget(tx, endpoint.key)?;
    tx.matching.bump(tx.connection, workspace_key)?;
    audit::append(tx, workspace_key, author, AuditAction::EndpointDeleted, id)?;
    unsent::cancel_lanes(tx, workspace_key, endpoint.key)?;
    Ok(Ok(()))
}

pub fn secret_version(
    connection: &Connection,
    workspace_key: RowKey,
    id: EndpointId,
) -> Result<Option<SecretVersion>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT secret_version FROM endpoints WHERE id = ?1 AND workspace_key = ?2 AND deleted_at IS NULL",
        )?
        .query_row(params![id.to_string(), workspace_key.as_i64()], |row| Ok(SecretVersion(row.get(0)?)))
        .optional()
}

/// Why a secret was not rotated.
pub enum RotateRefusal {
    NotFound,
    Outrun,
}

pub fn rotate_secret(
    tx: &mut WriteTx<'_>,
    workspace_key: RowKey,
    id: EndpointId,
    rotation: &SecretRotation,
    author: Author,
) -> Result<Result<Endpoint, RotateRefusal>, rusqlite::Error> {
    let (Some(endpoint), Some(current)) =
        (find(tx.connection, workspace_key, id)?, secret_version(tx.connection, workspace_key, id)?)
    else {
        return Ok(Err(RotateRefusal::NotFound));
    };
    if rotation.version.0 != current.0 + 1 {
        return Ok(Err(RotateRefusal::Outrun));
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
    let overlap_until = (!rotation.overlap.is_zero()).then(|| tx.now.plus(rotation.overlap).millis());
    tx.connection
        .prepare_cached(
            "INSERT INTO endpoint_secrets (endpoint_key, version, sealed, overlap_until, sealed_signing_key)
             VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            endpoint.key.as_i64(),
            rotation.version.0,
            rotation.sealed,
            overlap_until,
            signing_key.map(|key| key.sealed.as_slice()),
        ])?;
    audit::append(tx, workspace_key, author, AuditAction::EndpointSecretRotated, id)?;
    tx.matching.bump(tx.connection, workspace_key)?;
    Ok(find(tx.connection, workspace_key, id)?.ok_or(RotateRefusal::NotFound))
}

/// Secrets older than the newest that nothing queued is signed with, now that no overlap needs them either.
pub fn unused_secrets(
    connection: &Connection,
    now: Timestamp,
    limit: usize,
) -> Result<Vec<(i64, u32)>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT s.endpoint_key, s.version FROM endpoint_secrets s
             JOIN endpoints e ON e.key = s.endpoint_key
             JOIN endpoint_secrets newest ON newest.endpoint_key = e.key AND newest.version = e.secret_version
             WHERE s.version < e.secret_version
               AND (newest.overlap_until IS NULL OR newest.overlap_until <= ?1 OR s.version < e.secret_version - 1)
               AND NOT EXISTS
                    (SELECT 1 FROM due
                     WHERE lane_key IN (e.key, -e.key) AND due.secret_version >= e.oldest_secret_version
                       AND (due.secret_version = s.version OR due.also_secret_version = s.version))
             LIMIT ?2",
        )?
        .query_map(params![now.millis(), limit], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

pub fn erase_secrets(tx: &mut WriteTx<'_>, unused: &[(i64, u32)]) -> Result<usize, rusqlite::Error> {
    let mut erased = 0;
    for (endpoint_key, version) in unused {
        erased += tx
            .connection
            .prepare_cached("DELETE FROM endpoint_secrets WHERE endpoint_key = ?1 AND version = ?2")?
            .execute(params![endpoint_key, version])?;
    }
    Ok(erased)
}

pub fn find_secret(
    connection: &Connection,
    endpoint_key: RowKey,
    version: SecretVersion,
) -> Result<Option<Vec<u8>>, rusqlite::Error> {
    connection
        .prepare_cached("SELECT sealed FROM endpoint_secrets WHERE endpoint_key = ?1 AND version = ?2")?
        .query_row(params![endpoint_key.as_i64(), version.0], |row| row.get(0))
        .optional()
}

/// Switches an endpoint off and holds its lane, unless it is off already or points elsewhere by now.
pub fn disable(tx: &mut WriteTx<'_>, target: &EndpointTarget, reason: DisabledReason) -> Result<(), rusqlite::Error> {
    let lane = target.lane;
    let changed = tx
        .connection
        .prepare_cached(
            "UPDATE endpoints SET is_active = 0, disabled_reason = ?3, updated_at = ?4
             WHERE key = ?1 AND url = ?2 AND is_active = 1 AND deleted_at IS NULL",
        )?
        .execute(params![lane.endpoint_key.as_i64(), target.url, reason.as_str(), tx.now.millis()])?;
    if changed > 0 {
        lane::hold_lane(tx, lane.endpoint_key)?;
        tx.matching.bump(tx.connection, lane.workspace_key)?;
        operation::report_endpoint(tx, target, OperationalEvent::EndpointDisabled)?;
    }
    Ok(())
}
