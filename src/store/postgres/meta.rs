//! The store's facts about itself.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn find(_s: &Session, _name: &str) -> Result<Option<Vec<u8>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn meta_or_insert(_s: &Session, _name: &str, _value: &[u8]) -> Result<Vec<u8>, PgError> {
    Err(PgError::Unavailable("not built"))
}
