//! Answers kept for repeated requests, each written in the transaction of the effect that it answers.
//!
//! Writes `idempotency`.

use async_trait::async_trait;
use bytes::Bytes;
use rusqlite::{Connection, OptionalExtension, Row, params};

use postrider_domain::id::RowKey;
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::erasure::{RunningErasure, named_events};
use postrider_store::sealing::{Resealed, SealedPage, SealedPlace, SealedPosition};
use postrider_store::stored_bytes::{CountedPart, answer_bytes};
use postrider_store::{Answers, KeptAnswer, StoreError, Written};

use crate::SqliteStore;
use crate::machinery::column::{coded, opt_parsed};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::{JobSize, WriteResult, WriteTx};
use crate::{meta, stored_bytes};

#[async_trait]
impl Answers for SqliteStore {
    async fn find_answer<'r>(&self, request: &'r IdempotentRequest) -> Result<Option<Written<()>>, StoreError> {
        let (request, now) = (request.clone(), self.clock.now());
        self.read(move |tx| find(tx.connection, now, &request)).await
    }

    async fn record_answer(
        &self,
        request: IdempotentRequest,
        answer: RecordedAnswer,
    ) -> Result<Written<()>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| {
            if let Some(kept) = find(tx.connection, tx.now, &request)? {
                return Ok(kept);
            }
            record(tx, &request, &answer)?;
            Ok(Written::Done(()))
        })
        .await
    }
}

/// Runs `effect` unless the same request came before within the window. Records its answer in the same transaction. A
/// refusal is not recorded.
pub fn once<T, E>(
    tx: &mut WriteTx<'_>,
    recording: Option<&Recording<T>>,
    effect: impl FnOnce(&mut WriteTx<'_>) -> WriteResult<T, E>,
) -> WriteResult<Written<T>, E> {
    let Some(recording) = recording else {
        return Ok(effect(tx)?.map(Written::Done));
    };
    match find(tx.connection, tx.now, &recording.request)? {
        Some(Written::Replayed(answer)) => return Ok(Ok(Written::Replayed(answer))),
        Some(Written::KeyReused) => return Ok(Ok(Written::KeyReused)),
        Some(Written::SealedForOther) => return Ok(Ok(Written::SealedForOther)),
        Some(Written::Done(())) | None => {}
    }
    let outcome = effect(tx)?;
    if let Ok(done) = &outcome {
        record(tx, &recording.request, &(recording.render)(done))?;
    }
    Ok(outcome.map(Written::Done))
}

/// Removes up to `limit` answers whose window has ended.
pub fn forget(tx: &mut WriteTx<'_>, limit: usize) -> Result<usize, rusqlite::Error> {
    let forgotten = tx
        .connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE key IN (SELECT key FROM idempotency WHERE key < ?1 ORDER BY key LIMIT ?2)
             RETURNING key, workspace_key, octet_length(body)",
        )?
        .query_map(params![window_start(tx.now).as_i64(), limit], |row| {
            Ok((RowKey::from_i64(row.get(0)?), RowKey::from_i64(row.get(1)?), row.get(2)?))
        })?
        .collect::<Result<Vec<(RowKey, RowKey, i64)>, _>>()?;
    for (key, workspace, bytes) in &forgotten {
        stored_bytes::count(tx, *workspace, CountedPart::Answers, *key, -bytes)?;
    }
    Ok(forgotten.len())
}

/// Looks at the next answers of all workspaces. Returns those of the workspace that name an event which is emptied or
/// gone, and where the next look begins: `None` at the end.
pub fn find_of_erased(
    tx: ReadTx<'_>,
    job: &RunningErasure,
    after: RowKey,
    limit: usize,
) -> Result<(Vec<RowKey>, Option<RowKey>), rusqlite::Error> {
    let mut answers = tx.connection.prepare_cached(
        "SELECT key, CASE WHEN workspace_key = ?3 AND mode = ?4 AND NOT sealed THEN body END FROM idempotency
         WHERE key > ?1 AND key < ?2 ORDER BY key LIMIT ?5",
    )?;
    let (_, end) = job.answers();
    let parameters = params![after.as_i64(), end.as_i64(), job.workspace.as_i64(), mode_code(job.mode), limit];
    let mut has_content = tx.connection.prepare_cached("SELECT 1 FROM events WHERE key = ?1 AND payload <> ?2")?;
    let (mut found, mut last, mut count) = (Vec::new(), None, 0);
    let mut rows = answers.query(parameters)?;
    while let Some(row) = rows.next()? {
        let key = RowKey::from_i64(row.get(0)?);
        (last, count) = (Some(key), count + 1);
        let Some(body) = row.get_ref(1)?.as_bytes_or_null()? else { continue };
        for event in named_events(body, tx.tag) {
            if !has_content.exists([event.as_i64(), PayloadState::Erased.code()])? {
                found.push(key);
                break;
            }
        }
    }
    Ok((found, last.filter(|_| count == limit)))
}

/// Removes answers. Returns how many there were.
pub fn remove(tx: &mut WriteTx<'_>, answers: &[RowKey]) -> Result<u64, rusqlite::Error> {
    let mut removed = 0;
    for key in answers {
        let row = tx
            .connection
            .prepare_cached("DELETE FROM idempotency WHERE key = ?1 RETURNING workspace_key, octet_length(body)")?
            .query_row([key.as_i64()], |row| Ok((RowKey::from_i64(row.get(0)?), row.get::<_, i64>(1)?)))
            .optional()?;
        if let Some((workspace, bytes)) = row {
            removed += 1;
            stored_bytes::count(tx, workspace, CountedPart::Answers, *key, -bytes)?;
        }
    }
    Ok(removed)
}

/// The answer kept for this request within the window.
fn find(
    connection: &Connection,
    now: Timestamp,
    request: &IdempotentRequest,
) -> Result<Option<Written<()>>, rusqlite::Error> {
    connection
        .prepare_cached(
            "SELECT body_hash, status, body, sealed, sealed_for FROM idempotency
             WHERE workspace_key = ?1 AND mode = ?2 AND route = ?3 AND idempotency_key = ?4 AND key >= ?5",
        )?
        .query_row(
            params![
                request.scope.tenant.workspace.as_i64(),
                mode_code(request.scope.tenant.mode),
                request.scope.route,
                request.key.as_str(),
                window_start(now).as_i64(),
            ],
            |row| {
                let body = Bytes::from(row.get::<_, Vec<u8>>("body")?);
                let answer = RecordedAnswer { status: row.get("status")?, body, sealed: row.get("sealed")? };
                let sealed_for = opt_parsed(row, "sealed_for")?;
                Ok(KeptAnswer { body_hash: row.get("body_hash")?, answer, sealed_for }.replayed_to(request))
            },
        )
        .optional()
}

/// Replaces an answer of the same key whose window has ended.
fn record(tx: &mut WriteTx<'_>, request: &IdempotentRequest, answer: &RecordedAnswer) -> Result<(), rusqlite::Error> {
    if answer.sealed {
        meta::check_sealed(tx, &answer.body)?;
    }
    let (key, workspace) = (tx.next_key(), request.scope.tenant.workspace);
    stored_bytes::count(tx, workspace, CountedPart::Answers, key, answer_bytes(answer))?;
    if tx.stored.max.is_some() {
        forget_ended(tx, request)?;
    }
    tx.connection
        .prepare_cached(
            "INSERT OR REPLACE INTO idempotency
                 (key, workspace_key, mode, route, idempotency_key, body_hash, status, body, sealed, sealed_for)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
        )?
        .execute(params![
            key.as_i64(),
            workspace.as_i64(),
            mode_code(request.scope.tenant.mode),
            request.scope.route,
            request.key.as_str(),
            request.body_hash,
            answer.status,
            answer.body.as_ref(),
            answer.sealed,
            request.sealed_for(answer),
        ])?;
    Ok(())
}

/// Removes an answer of the same key whose window has ended, so that its bytes are no longer counted.
fn forget_ended(tx: &mut WriteTx<'_>, request: &IdempotentRequest) -> Result<(), rusqlite::Error> {
    let Tenant { workspace, mode, .. } = request.scope.tenant;
    let ended = tx
        .connection
        .prepare_cached(
            "DELETE FROM idempotency WHERE workspace_key = ?1 AND mode = ?2 AND route = ?3 AND idempotency_key = ?4
             RETURNING key, octet_length(body)",
        )?
        .query_row(params![workspace.as_i64(), mode_code(mode), request.scope.route, request.key.as_str()], |row| {
            Ok((RowKey::from_i64(row.get(0)?), row.get::<_, i64>(1)?))
        })
        .optional()?;
    if let Some((key, bytes)) = ended {
        stored_bytes::count(tx, workspace, CountedPart::Answers, key, -bytes)?;
    }
    Ok(())
}

/// The smallest key whose window has not ended.
fn window_start(now: Timestamp) -> RowKey {
    RowKey::first_at(now.minus(limits::IDEMPOTENCY_WINDOW))
}

/// The sealed ones among the next `rows` answers.
pub fn sealed_page(connection: &Connection, after: i64, rows: usize) -> Result<SealedPage, rusqlite::Error> {
    let window = "SELECT key FROM idempotency WHERE key > ?1 ORDER BY key LIMIT ?2";
    let (count, last): (usize, Option<i64>) = connection
        .prepare_cached(&format!("SELECT COUNT(*), MAX(key) FROM ({window})"))?
        .query_row(params![after, rows], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let last = last.unwrap_or(after);
    let mut select = connection.prepare_cached(
        "SELECT key, workspace_key, mode, route, idempotency_key, body FROM idempotency
         WHERE key > ?1 AND key <= ?2 AND sealed ORDER BY key",
    )?;
    let read = |row: &Row<'_>| {
        let mode = coded(row, "mode", mode_from_code)?;
        let tenant = Tenant::whole(RowKey::from_i64(row.get("workspace_key")?), mode);
        let scope = IdempotencyScope { tenant, route: row.get("route")? };
        let (key, idempotency_key) = (RowKey::from_i64(row.get("key")?), row.get("idempotency_key")?);
        Ok((SealedPlace::Answer { key, scope, idempotency_key }, row.get("body")?))
    };
    let values = select.query_map([after, last], read)?.collect::<Result<_, rusqlite::Error>>()?;
    Ok(SealedPage { values, next: (count >= rows).then_some(SealedPosition::Answers { key: last }) })
}

/// Replaces a sealed answer if it is still as it was read.
pub fn reseal(tx: &WriteTx<'_>, value: &Resealed) -> Result<(), rusqlite::Error> {
    if let SealedPlace::Answer { key, .. } = &value.place {
        tx.connection
            .prepare_cached("UPDATE idempotency SET body = ?3 WHERE key = ?1 AND body = ?2 AND sealed")?
            .execute(params![key.as_i64(), value.from, value.to])?;
    }
    Ok(())
}
