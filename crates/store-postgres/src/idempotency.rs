//! Answers kept for repeated requests, written in the transaction of the effect they answer. Writes `idempotency`.
//!
//! Two nodes may run the same request at once. Neither finds an answer, and both run the effect. The unique index lets
//! one of them keep its answer. The other is rolled back with its effect, runs again and finds the answer.

use std::collections::HashSet;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio_postgres::Row;

use postrider_domain::id::{RowKey, StoreTag};
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

use crate::PostgresStore;
use crate::machinery::column::{coded, get, int, key, number, opt_int, opt_parsed};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::{WriteTx, effect};
use crate::stored_bytes::{self, Change, removed};
use crate::{meta, secrets};

#[async_trait]
impl Answers for PostgresStore {
    async fn find_answer<'r>(&self, request: &'r IdempotentRequest) -> Result<Option<Written<()>>, StoreError> {
        let (request, now) = (request.clone(), self.database.time.about_now());
        self.read(move |session| Box::pin(async move { find(session, now, &request).await })).await
    }

    async fn record_answer(
        &self,
        request: IdempotentRequest,
        answer: RecordedAnswer,
    ) -> Result<Written<()>, StoreError> {
        self.write(effect!(|tx, request, answer| record_alone(tx, &request, &answer))).await
    }
}

/// The answer kept for this request, while its window is open.
async fn find(session: &Session, now: Timestamp, request: &IdempotentRequest) -> Result<Option<Written<()>>, PgError> {
    let found = session
        .query_opt(
            "SELECT body_hash, status, body, sealed, sealed_for FROM idempotency
             WHERE workspace_key = $1 AND mode = $2 AND route = $3 AND idempotency_key = $4 AND key >= $5",
            &[
                &request.scope.tenant.workspace.as_i64(),
                &mode_code(request.scope.tenant.mode),
                &request.scope.route,
                &request.key.as_str(),
                &window_start(now).as_i64(),
            ],
        )
        .await?;
    found.map(|row| answer_from_row(&row, request)).transpose()
}

/// The answer kept for each of these requests.
pub async fn find_many(
    session: &Session,
    now: Timestamp,
    requests: &[&IdempotentRequest],
) -> Result<Vec<Option<Written<()>>>, PgError> {
    let RequestColumns { workspace_keys, modes, routes, keys } = RequestColumns::of(requests.iter().copied());
    let rows = session
        .query(
            "SELECT asked.at, i.body_hash, i.status, i.body, i.sealed, i.sealed_for
             FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS asked (workspace_key, mode, route, idempotency_key, at)
             JOIN idempotency i USING (workspace_key, mode, route, idempotency_key)
             WHERE i.key >= $5",
            &[&workspace_keys, &modes, &routes, &keys, &window_start(now).as_i64()],
        )
        .await?;
    let mut found: Vec<Option<Written<()>>> = requests.iter().map(|_| None).collect();
    for row in &rows {
        let at = number::<usize>(row, "at")? - 1;
        found[at] = Some(answer_from_row(row, requests[at])?);
    }
    Ok(found)
}

fn answer_from_row(row: &Row, request: &IdempotentRequest) -> Result<Written<()>, PgError> {
    let body = Bytes::from(get::<Vec<u8>>(row, "body")?);
    let answer = RecordedAnswer { status: number(row, "status")?, body, sealed: get(row, "sealed")? };
    let sealed_for = opt_parsed(row, "sealed_for")?;
    Ok(KeptAnswer { body_hash: get(row, "body_hash")?, answer, sealed_for }.replayed_to(request))
}

/// Keeps answers, of which no two are of the same request. Replaces an answer whose window is over.
///
/// # Errors
/// [`PgError::Overtaken`] when another node has kept an answer to one of the requests meanwhile.
pub async fn record_many(tx: &WriteTx, answers: &[(&IdempotentRequest, RecordedAnswer)]) -> Result<(), PgError> {
    let of_secrets: Vec<&[u8]> =
        answers.iter().filter(|(_, answer)| answer.sealed).map(|(_, answer)| answer.body.as_ref()).collect();
    meta::check_sealed(tx, &of_secrets).await?;
    let RequestColumns { workspace_keys, modes, routes, keys } =
        RequestColumns::of(answers.iter().map(|(request, _)| *request));
    let row_keys: Vec<i64> = answers.iter().map(|_| tx.next_key().as_i64()).collect();
    let hashes: Vec<&[u8]> = answers.iter().map(|(request, _)| request.body_hash.as_slice()).collect();
    let statuses: Vec<i64> = answers.iter().map(|(_, answer)| i64::from(answer.status)).collect();
    let bodies: Vec<&[u8]> = answers.iter().map(|(_, answer)| answer.body.as_ref()).collect();
    let sealed: Vec<bool> = answers.iter().map(|(_, answer)| answer.sealed).collect();
    let owners: Vec<Option<String>> = answers.iter().map(|(request, answer)| request.sealed_for(answer)).collect();
    let counted = answers.iter().zip(&row_keys).map(|((request, answer), key)| Change {
        workspace: request.scope.tenant.workspace,
        key: RowKey::from_i64(*key),
        bytes: answer_bytes(answer),
    });
    stored_bytes::count(tx, CountedPart::Answers, counted).await?;
    let recorded = tx
        .execute(
            // All transactions insert in the order of the index, so that two of them do not deadlock.
            "INSERT INTO idempotency
                 (key, workspace_key, mode, route, idempotency_key, body_hash, status, body, sealed, sealed_for)
             SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ORDER BY 2, 3, 4, 5
             ON CONFLICT (workspace_key, mode, route, idempotency_key) DO UPDATE
                 SET key = EXCLUDED.key, body_hash = EXCLUDED.body_hash, status = EXCLUDED.status,
                     body = EXCLUDED.body, sealed = EXCLUDED.sealed, sealed_for = EXCLUDED.sealed_for
                 WHERE idempotency.key < $11",
            &[
                &row_keys,
                &workspace_keys,
                &modes,
                &routes,
                &keys,
                &hashes,
                &statuses,
                &bodies,
                &sealed,
                &owners,
                &window_start(tx.now).as_i64(),
            ],
        )
        .await?;
    if recorded < answers.len() as u64 { Err(PgError::Overtaken) } else { Ok(()) }
}

/// Keeps the answer of a request without an effect. An answer that is already kept wins.
async fn record_alone(
    tx: &mut WriteTx,
    request: &IdempotentRequest,
    answer: &RecordedAnswer,
) -> Result<Written<()>, PgError> {
    if let Some(kept) = find(tx, tx.now, request).await? {
        return Ok(kept);
    }
    record_many(tx, &[(request, answer.clone())]).await?;
    Ok(Written::Done(()))
}

/// Runs `effect` once for a request and keeps its answer in the same transaction.
pub async fn once<T, E, F>(
    tx: &mut WriteTx,
    recording: Option<&Recording<T>>,
    effect: &F,
) -> Result<Result<Written<T>, E>, PgError>
where
    F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<Result<T, E>, PgError>> + Send + Sync,
    T: Send + Sync,
    E: Send,
{
    let Some(recording) = recording else {
        return Ok(effect(tx).await?.map(Written::Done));
    };
    match find(tx, tx.now, &recording.request).await? {
        Some(Written::Replayed(answer)) => return Ok(Ok(Written::Replayed(answer))),
        Some(Written::KeyReused) => return Ok(Ok(Written::KeyReused)),
        Some(Written::SealedForOther) => return Ok(Ok(Written::SealedForOther)),
        Some(Written::Done(())) | None => {}
    }
    let done = match effect(tx).await? {
        Ok(done) => done,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let answer = (recording.render)(&done);
    record_many(tx, &[(&recording.request, answer)]).await?;
    Ok(Ok(Written::Done(done)))
}

/// Removes up to `limit` answers whose window is over. Skips rows that another transaction holds.
pub async fn forget(tx: &mut WriteTx, limit: usize) -> Result<usize, PgError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let forgotten = tx
        .query(
            // In an array, so that the limit holds: a subquery of IN may run more than once.
            "DELETE FROM idempotency WHERE key = ANY (ARRAY
                 (SELECT key FROM idempotency WHERE key < $1 ORDER BY key LIMIT $2 FOR UPDATE SKIP LOCKED))
             RETURNING key, workspace_key, octet_length(body)::bigint AS bytes",
            &[&window_start(tx.now).as_i64(), &limit],
        )
        .await?;
    stored_bytes::count(tx, CountedPart::Answers, removed(&forgotten)?.into_iter()).await?;
    Ok(forgotten.len())
}

/// Looks at the next answers of all workspaces. Returns those of the job's workspace that name an event which is
/// emptied or gone, and where the next look begins: `None` at the end.
pub async fn find_of_erased(
    session: &Session,
    job: &RunningErasure,
    tag: StoreTag,
    limit: usize,
) -> Result<(Vec<i64>, Option<RowKey>), PgError> {
    let sql = "SELECT key, CASE WHEN workspace_key = $3 AND mode = $4 AND NOT sealed THEN body END AS body
               FROM idempotency WHERE key > $1 AND key < $2 ORDER BY key LIMIT $5";
    let (after, (_, end)) = (job.pass.cursor.as_i64(), job.answers());
    let (workspace, mode, rows) =
        (job.workspace.as_i64(), mode_code(job.mode), i64::try_from(limit).unwrap_or(i64::MAX));
    let rows = session.query(sql, &[&after, &end.as_i64(), &workspace, &mode, &rows]).await?;
    let mut named = Vec::new();
    for row in &rows {
        if let Some(body) = get::<Option<&[u8]>>(row, "body")? {
            let answer = int(row, "key")?;
            named.extend(named_events(body, tag).into_iter().map(|event| (answer, event.as_i64())));
        }
    }
    let events: Vec<i64> = named.iter().map(|(_, event)| *event).collect();
    let kept = "SELECT key FROM events WHERE key = ANY ($1) AND payload <> $2";
    let kept = session.query(kept, &[&events, &PayloadState::Erased.code()]).await?;
    let kept = kept.iter().map(|row| int(row, "key")).collect::<Result<HashSet<_>, _>>()?;
    let found = named.iter().filter(|(_, event)| !kept.contains(event)).map(|(answer, _)| *answer);
    let last = rows.last().filter(|_| rows.len() == limit);
    Ok((found.collect(), last.map(|row| key(row, "key")).transpose()?))
}

/// Removes answers. Returns how many there were.
pub async fn remove(tx: &WriteTx, answers: &Vec<i64>) -> Result<u64, PgError> {
    let sql = "DELETE FROM idempotency WHERE key = ANY ($1)
               RETURNING key, workspace_key, octet_length(body)::bigint AS bytes";
    let rows = tx.query(sql, &[answers]).await?;
    stored_bytes::count(tx, CountedPart::Answers, removed(&rows)?.into_iter()).await?;
    Ok(rows.len() as u64)
}

/// The sealed ones among the next `rows` answers.
pub async fn sealed_page(session: &Session, after: i64, rows: usize) -> Result<SealedPage, PgError> {
    let limit = i64::try_from(rows).unwrap_or(i64::MAX);
    let sql = "SELECT COUNT(*) AS count, MAX(key) AS last
               FROM (SELECT key FROM idempotency WHERE key > $1 ORDER BY key LIMIT $2) AS next";
    let page = session.query_one(sql, &[&after, &limit]).await?;
    let (count, last): (usize, i64) = (number(&page, "count")?, opt_int(&page, "last")?.unwrap_or(after));
    let sql = "SELECT key, workspace_key, mode, route, idempotency_key, body FROM idempotency
               WHERE key > $1 AND key <= $2 AND sealed ORDER BY key";
    let mut values = Vec::new();
    for row in session.query(sql, &[&after, &last]).await? {
        let tenant = Tenant::whole(key(&row, "workspace_key")?, coded(&row, "mode", mode_from_code)?);
        let scope = IdempotencyScope { tenant, route: get(&row, "route")? };
        let place =
            SealedPlace::Answer { key: key(&row, "key")?, scope, idempotency_key: get(&row, "idempotency_key")? };
        values.push((place, get(&row, "body")?));
    }
    Ok(SealedPage { values, next: (count >= rows).then_some(SealedPosition::Answers { key: last }) })
}

/// Replaces each sealed answer that is still as it was read.
pub async fn reseal(tx: &WriteTx, values: &[Resealed]) -> Result<(), PgError> {
    let of_answer = |value: &'_ Resealed| match &value.place {
        SealedPlace::Answer { key, .. } => Some(key.as_i64()),
        _ => None,
    };
    let chosen = values.iter().filter_map(|value| Some((of_answer(value)?, value)));
    let (keys, chosen): (Vec<i64>, Vec<&Resealed>) = chosen.unzip();
    if chosen.is_empty() {
        return Ok(());
    }
    let (from, to) = secrets::from_and_to(&chosen);
    let sql = "UPDATE idempotency i SET body = n.new FROM unnest($1, $2, $3) AS n (key, old, new)
               WHERE i.key = n.key AND i.body = n.old AND i.sealed";
    tx.execute(sql, &[&keys, &from, &to]).await?;
    Ok(())
}

/// The unique key of each request, column by column.
struct RequestColumns<'r> {
    workspace_keys: Vec<i64>,
    modes: Vec<i64>,
    routes: Vec<&'r str>,
    keys: Vec<&'r str>,
}

impl<'r> RequestColumns<'r> {
    fn of(requests: impl Iterator<Item = &'r IdempotentRequest> + Clone) -> Self {
        Self {
            workspace_keys: requests.clone().map(|request| request.scope.tenant.workspace.as_i64()).collect(),
            modes: requests.clone().map(|request| mode_code(request.scope.tenant.mode)).collect(),
            routes: requests.clone().map(|request| request.scope.route.as_str()).collect(),
            keys: requests.map(|request| request.key.as_str()).collect(),
        }
    }
}

/// The key of the oldest request whose window is still open.
fn window_start(now: Timestamp) -> RowKey {
    RowKey::first_at(now.minus(limits::IDEMPOTENCY_WINDOW))
}
