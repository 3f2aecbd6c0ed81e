//! The days of the log.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn ensure_days(_s: &Session, _lock_class: i32, _now: crate::domain::time::Timestamp) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}
