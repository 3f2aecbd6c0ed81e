//! Lanes: one row for each endpoint with something in the queue. The only file that writes `lanes`.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn hold_lane(_tx: &mut WriteTx, _endpoint_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn release_lane(_tx: &mut WriteTx, _endpoint_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn release_workspace(_tx: &mut WriteTx, _workspace_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn leave_alone_no_more(_tx: &mut WriteTx, _lane: Lane) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
