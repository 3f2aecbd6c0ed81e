//! An endpoint's options: the columns that are shown, and what is sealed beside them.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::endpoint::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn find_signing_key(
    _s: &Session,
    _endpoint_key: RowKey,
    _version: SecretVersion,
) -> Result<Option<Vec<u8>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find_sealed(_s: &Session, _endpoint_key: RowKey) -> Result<Option<SealedParts>, PgError> {
    Err(PgError::Unavailable("not built"))
}
