//! The audit log. An entry is written in the transaction of the write that it tells of.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn append(
    _tx: &WriteTx,
    _workspace_key: RowKey,
    _author: Author,
    _action: AuditAction,
    _resource_id: impl ToString,
) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn list(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: Option<RowKey>,
    _filter: &AuditFilter,
    _page: PageRequest,
) -> Result<Page<AuditEntry>, PgError> {
    Err(PgError::Unavailable("not built"))
}
