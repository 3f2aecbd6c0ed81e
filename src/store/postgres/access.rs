//! API keys.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::access::*;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn create_api_key(_tx: &mut WriteTx, _new: &NewApiKey) -> Result<Result<ApiKey, CreateApiKeyError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find_api_key(_s: &Session, _hash: ApiKeyHash) -> Result<Option<ApiKey>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn get_api_key(
    _s: &Session,
    _workspace_key: Option<RowKey>,
    _id: ApiKeyId,
) -> Result<Option<ApiKey>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn list_api_keys(
    _s: &Session,
    _workspace_key: Option<RowKey>,
    _page: PageRequest,
) -> Result<Page<ApiKey>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn revoke_api_key(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _id: ApiKeyId,
    _author: Author,
) -> Result<Result<ApiKey, RevokeApiKeyError>, PgError> {
    Err(PgError::Unavailable("not built"))
}
