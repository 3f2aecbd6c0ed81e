//! Claiming.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;
use std::sync::Arc;
use std::time::Duration;

pub async fn claim(
    _tx: &mut WriteTx,
    _limit: usize,
    _lease: Duration,
    _quota: &Arc<dyn LaneQuota>,
) -> Result<Claimed, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn give_back(_tx: &mut WriteTx, _claims: &[(DeliveryId, ClaimToken)]) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn count_due(_tx: &mut WriteTx, _endpoint_key: RowKey, _enough: usize) -> Result<usize, PgError> {
    Err(PgError::Unavailable("not built"))
}
