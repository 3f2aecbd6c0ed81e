//! Endpoints and their sealed secrets.

use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::domain::endpoint::{DisabledReason, Endpoint, SecretVersion};
use crate::domain::event_type::EventTypeName;
use crate::domain::id::{EndpointId, RowKey};
use crate::domain::time::Timestamp;
use crate::store::NewEndpoint;

use super::column::{parsed, unexpected};
use super::writer::WriteTx;

pub const ENDPOINT_COLUMNS: &str =
    "key, id, url, name, events, is_active, disabled_reason, project_id, secret_last4, updated_at";

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
    })
}

/// Why an endpoint was not made.
pub enum Full {
    Project,
    Workspace,
}

pub fn create(tx: &mut WriteTx<'_>, new: &NewEndpoint) -> Result<Result<Endpoint, Full>, rusqlite::Error> {
    let (in_workspace, in_project) = count(tx.connection, new)?;
    if in_workspace >= new.limits.per_workspace {
        return Ok(Err(Full::Workspace));
    }
    if in_project >= new.limits.per_project {
        return Ok(Err(Full::Project));
    }
    let endpoint = Endpoint {
        key: new.key,
        id: new.id,
        url: new.url.as_str().to_owned(),
        name: new.name.as_str().to_owned(),
        events: new.events.clone(),
        is_active: true,
        disabled_reason: None,
        project_id: new.project_id.as_ref().map(|project| project.as_str().to_owned()),
        secret_last4: new.secret_last4.clone(),
        created_at: new.key.created_at(),
        updated_at: new.key.created_at(),
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
    tx.matching.bump(tx.connection, new.workspace_key)?;
    Ok(Ok(endpoint))
}

/// The endpoints of the workspace, and those of the new one's project.
fn count(connection: &Connection, new: &NewEndpoint) -> Result<(u32, u32), rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT COUNT(*), COUNT(*) FILTER (WHERE project_id IS ?2)
             FROM endpoints WHERE workspace_key = ?1 AND deleted_at IS NULL",
        )?
        .query_row(
            params![new.workspace_key.as_i64(), new.project_id.as_ref().map(|project| project.as_str())],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
}

pub fn find(
    connection: &Connection,
    workspace_key: RowKey,
    id: EndpointId,
) -> Result<Option<Endpoint>, rusqlite::Error> {
    let sql =
        format!("SELECT {ENDPOINT_COLUMNS} FROM endpoints WHERE id = ?1 AND workspace_key = ?2 AND deleted_at IS NULL");
    connection
        .prepare_cached(&sql)?
        .query_row(params![id.to_string(), workspace_key.as_i64()], endpoint_from_row)
        .optional()
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
pub fn disable(
    tx: &mut WriteTx<'_>,
    target: &crate::store::EndpointTarget,
    reason: DisabledReason,
) -> Result<(), rusqlite::Error> {
    let lane = target.lane;
    let changed = tx
        .connection
        .prepare_cached(
            "UPDATE endpoints SET is_active = 0, disabled_reason = ?3, updated_at = ?4
             WHERE key = ?1 AND url = ?2 AND is_active = 1 AND deleted_at IS NULL",
        )?
        .execute(params![lane.endpoint_key.as_i64(), target.url, reason.as_str(), tx.now.millis()])?;
    if changed > 0 {
        tx.connection
            .prepare_cached("UPDATE lanes SET held_since = ?2 WHERE lane_key = ?1 AND held_since IS NULL")?
            .execute(params![lane.endpoint_key.as_i64(), tx.now.millis()])?;
        tx.matching.bump(tx.connection, lane.workspace_key)?;
    }
    Ok(())
}

pub fn join_events(events: &[EventTypeName]) -> String {
    let mut joined = String::new();
    for event in events {
        if !joined.is_empty() {
            joined.push(' ');
        }
        joined.push_str(event.as_str());
    }
    joined
}
