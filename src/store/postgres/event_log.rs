//! The log of events: what was accepted, and what became of it endpoint by endpoint.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::event::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::store::*;

pub async fn list(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _filter: &EventFilter,
    _page: PageRequest,
) -> Result<Page<Event>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _id: EventId,
) -> Result<Option<EventDetail>, PgError> {
    Err(PgError::Unavailable("not built"))
}
