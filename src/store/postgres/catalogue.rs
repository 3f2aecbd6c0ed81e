//! The store's event catalogue: which one counts, and what may take its place.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn adopt(_tx: &mut WriteTx, _new: &NewCatalogue) -> Result<CatalogueAdoption, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find(_s: &Session) -> Result<Option<String>, PgError> {
    Err(PgError::Unavailable("not built"))
}
