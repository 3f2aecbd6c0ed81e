//! What leaves the queue without being sent.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn cancel_lanes(_tx: &mut WriteTx, _workspace_key: RowKey, _endpoint_key: RowKey) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn expire_waiting(_tx: &mut WriteTx, _limit: usize) -> Result<usize, PgError> {
    Err(PgError::Unavailable("not built"))
}
