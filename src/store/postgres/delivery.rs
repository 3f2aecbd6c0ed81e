//! The delivery log: what became of each delivery, and its attempts.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::attempt::*;
use crate::domain::audit::*;
use crate::domain::delivery::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn list(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _filter: &DeliveryFilter,
    _page: PageRequest,
) -> Result<Page<Delivery>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find_one(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _id: DeliveryId,
) -> Result<Option<Delivery>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _id: DeliveryId,
) -> Result<Option<(Delivery, Vec<Attempt>)>, PgError> {
    Err(PgError::Unavailable("not built"))
}
