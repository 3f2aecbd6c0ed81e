//! Strict order.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::delivery::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub use crate::store::shared::order::*;

pub async fn take_blocked_place(_tx: &mut WriteTx, _delivery_key: RowKey) -> Result<Option<i64>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn unblock(_tx: &mut WriteTx, _lane: Lane) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn skip(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _id: DeliveryId,
    _author: Author,
) -> Result<Result<Delivery, SkipRefusal>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn forget_lane(_tx: &mut WriteTx, _endpoint_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn forget_workspace(_tx: &mut WriteTx, _workspace_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
