//! Deliveries by hand: a retry of one, a test.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::delivery::*;
use crate::domain::event::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn retry(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _id: DeliveryId,
    _author: Author,
) -> Result<Result<Delivery, RequeueError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn accept_test(
    _tx: &mut WriteTx,
    _endpoint_id: EndpointId,
    _new: &NewEvent,
    _author: Author,
) -> Result<Result<Delivery, RequeueError>, PgError> {
    Err(PgError::Unavailable("not built"))
}
