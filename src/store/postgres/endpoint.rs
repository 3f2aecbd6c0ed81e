//! Endpoints and their sealed secrets.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::endpoint::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

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
