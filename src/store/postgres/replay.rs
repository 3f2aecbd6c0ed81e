//! Replays: jobs that walk an endpoint's log and queue again what it did not get.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::access::Mode;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::page::*;
use crate::domain::replay::*;
use crate::store::*;

/// Whose log is looked at, which stretch of it, and with what kind of key.
#[derive(Clone, Copy)]
pub struct Scope<'r> {
    pub endpoint_key: RowKey,
    pub mode: Mode,
    pub range: &'r ReplayRange,
}

pub async fn count(_s: &Session, _scope: Scope<'_>, _after: RowKey) -> Result<(ReplayCount, Option<RowKey>), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn create(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _endpoint_id: EndpointId,
    _new: &NewReplay,
) -> Result<Result<Replay, RequeueError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn list(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _endpoint_id: EndpointId,
    _page: PageRequest,
) -> Result<Option<Page<Replay>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn find(
    _s: &Session,
    _tag: StoreTag,
    _workspace_key: RowKey,
    _endpoint_id: EndpointId,
    _id: ReplayId,
) -> Result<Option<Replay>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn stop(
    _tx: &mut WriteTx,
    _workspace_key: RowKey,
    _endpoint_id: EndpointId,
    _id: ReplayId,
    _author: Author,
) -> Result<Result<Replay, StopReplayError>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn advance(_tx: &mut WriteTx) -> Result<Option<usize>, PgError> {
    Err(PgError::Unavailable("not built"))
}
