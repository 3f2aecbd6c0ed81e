//! Tells the operator what became of endpoints and deliveries.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::operational_event::OperationalEvent;
use crate::domain::page::*;
use crate::store::*;

pub async fn report_endpoint(
    _tx: &mut WriteTx,
    _target: &EndpointTarget,
    _what: OperationalEvent,
) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn report_exhausted(
    _tx: &mut WriteTx,
    _target: &EndpointTarget,
    _delivery_id: DeliveryId,
    _attempts: u32,
) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
