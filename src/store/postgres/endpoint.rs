//! Endpoints and their sealed secrets.

use std::sync::Arc;

use tokio_postgres::Row;

use crate::domain::event_type::EventTypeName;

use super::column::{get, instant, key, parsed, unexpected};
use super::endpoint_options::options_from_row;
use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::endpoint::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

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
        trouble: None,
        options: Arc::new(options_from_row(row)?),
    })
}

pub async fn create(_tx: &mut WriteTx, _new: &NewEndpoint) -> Result<Result<Endpoint, CreateEndpointError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find(_s: &Session, _workspace_key: RowKey, _id: EndpointId) -> Result<Option<Endpoint>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn list(
    _s: &Session,
    _workspace_key: RowKey,
    _filter: &EndpointFilter,
    _page: PageRequest,
) -> Result<Page<Endpoint>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn update(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _id: EndpointId,
    _update: &EndpointUpdate,
    _author: Author,
) -> Result<Result<Endpoint, UpdateEndpointError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn delete(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _id: EndpointId,
    _author: Author,
) -> Result<Result<(), DeleteEndpointError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn secret_version(
    _s: &Session,
    _workspace_key: RowKey,
    _id: EndpointId,
) -> Result<Option<SecretVersion>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn rotate_secret(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _id: EndpointId,
    _rotation: &SecretRotation,
    _author: Author,
) -> Result<Result<Endpoint, RotateSecretError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn erase_unused_secrets(_tx: &mut WriteTx, _limit: usize) -> Result<usize, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find_secret(
    _s: &Session,
    _endpoint_key: RowKey,
    _version: SecretVersion,
) -> Result<Option<Vec<u8>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn disable(_tx: &mut WriteTx, _target: &EndpointTarget, _reason: DisabledReason) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
