//! Answers kept for replay, written in the transaction of the effect they answer.

use super::fault::PgError;
use super::session::Session;
use super::transaction::WriteTx;
use crate::domain::audit::*;
use crate::domain::id::*;
use crate::domain::idempotency::*;
use crate::domain::page::*;
use crate::domain::time::Timestamp;
use crate::store::*;
use futures_util::future::BoxFuture;

pub async fn find(_s: &Session, _now: Timestamp, _request: &IdempotentRequest) -> Result<Option<Written<()>>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn record(_tx: &WriteTx, _request: &IdempotentRequest, _answer: &RecordedAnswer) -> Result<(), PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn record_alone(
    _tx: &mut WriteTx,
    _request: &IdempotentRequest,
    _answer: &RecordedAnswer,
) -> Result<Written<()>, PgError> {
    Err(PgError::Unavailable("not built"))
}

pub async fn once<T, E, F>(
    _tx: &mut WriteTx,
    _recording: Option<&Recording<T>>,
    _effect: &F,
) -> Result<Result<Written<T>, E>, PgError>
where
    F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<Result<T, E>, PgError>> + Send + Sync,
    T: Send + Sync,
    E: Send,
{
    Err(PgError::Unavailable("not built"))
}

pub async fn forget(_tx: &mut WriteTx, _limit: usize) -> Result<usize, PgError> {
    Err(PgError::Unavailable("not built"))
}
