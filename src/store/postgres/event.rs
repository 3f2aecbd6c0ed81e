//! Accepting events.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::event::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn insert_for_one(_tx: &mut WriteTx, _event: &NewEvent) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn accept_one(_tx: &mut WriteTx, _event: NewEvent) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
