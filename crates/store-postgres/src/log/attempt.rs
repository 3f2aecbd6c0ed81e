//! Attempts. Writes `attempts`; only retention removes them.

use std::net::IpAddr;

use bytes::Bytes;
use tokio_postgres::Row;

use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases};
use postrider_domain::id::RowKey;
use postrider_domain::payload::PayloadState;
use postrider_domain::sent_request::SentRequest;
use postrider_domain::time::Timestamp;
use postrider_store::column::{address_from_bytes, address_to_bytes, headers_from_text, headers_to_text};
use postrider_store::stats::Counted;
use postrider_store::stored_bytes::{ATTEMPT_BYTES, CountedPart, bytes_of};

use crate::machinery::column::{coded, get, instant, number, opt_instant, opt_number, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;
use crate::stored_bytes::{self, removed};

/// Inserts attempts.
pub const INSERT_ATTEMPTS: &str =
    "INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome, request_headers, response_status,
                                     response_headers, response_body, error, next_attempt_at, dns_ms, connect_ms, tls_ms,
                                     first_byte_ms, connection_reused, request, remote_address, body_ms)
               SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";

/// A new attempt, whose it is, and the key of its delivery.
pub type NewAttempt = (Counted, RowKey, Attempt);

/// Writes attempts. Returns the bytes of the content of each, as they are counted.
pub async fn insert(tx: &WriteTx, attempts: &[NewAttempt]) -> Result<Vec<i64>, PgError> {
    if attempts.is_empty() {
        return Ok(Vec::new());
    }
    tx.count(|rollups| {
        attempts.iter().for_each(|(counted, key, attempt)| rollups.attempted(*counted, *key, attempt, tx.now));
    });
    let of = |column: fn(&Attempt) -> i64| attempts.iter().map(|(.., attempt)| column(attempt)).collect::<Vec<i64>>();
    let opt = |column: fn(&Attempt) -> Option<i64>| {
        attempts.iter().map(|(.., attempt)| column(attempt)).collect::<Vec<Option<i64>>>()
    };
    let text = |column: fn(&Attempt) -> Option<String>| {
        attempts.iter().map(|(.., attempt)| column(attempt)).collect::<Vec<Option<String>>>()
    };
    let request_headers = text(|attempt| headers_to_text(&attempt.request_headers));
    let response_headers = text(|attempt| headers_to_text(&attempt.response_headers));
    let requests: Vec<Option<&[u8]>> =
        attempts.iter().map(|(.., attempt)| attempt.request.as_ref().map(SentRequest::as_bytes)).collect();
    tx.execute(
        INSERT_ATTEMPTS,
        &[
            &attempts.iter().map(|(_, key, _)| key.as_i64()).collect::<Vec<i64>>(),
            &of(|attempt| i64::from(attempt.number)),
            &of(|attempt| attempt.started_at.millis()),
            &of(|attempt| i64::from(attempt.duration_ms)),
            &of(|attempt| attempt.outcome.code()),
            &request_headers,
            &opt(|attempt| attempt.response_status.map(i64::from)),
            &response_headers,
            &attempts.iter().map(|(.., attempt)| attempt.response_body.as_deref()).collect::<Vec<Option<&[u8]>>>(),
            &attempts.iter().map(|(.., attempt)| attempt.error.as_deref()).collect::<Vec<Option<&str>>>(),
            &opt(|attempt| attempt.next_attempt_at.map(Timestamp::millis)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.dns_ms).map(i64::from)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.connect_ms).map(i64::from)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.tls_ms).map(i64::from)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.first_byte_ms).map(i64::from)),
            &attempts
                .iter()
                .map(|(.., attempt)| attempt.phases.map(|phases| phases.connection_reused))
                .collect::<Vec<Option<bool>>>(),
            &requests,
            &attempts
                .iter()
                .map(|(.., attempt)| attempt.remote_address.map(address_to_bytes))
                .collect::<Vec<Option<Vec<u8>>>>(),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.body_ms).map(i64::from)),
        ],
    )
    .await?;
    let headers = request_headers.iter().zip(&response_headers);
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let bytes = attempts.iter().zip(headers).zip(&requests).map(|(((.., attempt), (request, response)), compact)| {
        let texts = length(request) + length(response) + compact.map_or(0, <[u8]>::len);
        bytes_of(texts + attempt.response_body.as_ref().map_or(0, Bytes::len))
    });
    Ok(bytes.collect())
}

/// Empties the attempts of deliveries. Returns how many had not been emptied.
pub async fn erase(tx: &WriteTx, deliveries: &Vec<i64>) -> Result<u64, PgError> {
    if deliveries.is_empty() {
        return Ok(0);
    }
    if tx.database.stored.max.get().is_some() {
        let sql = format!(
            "SELECT key, workspace_key, SUM({ATTEMPT_BYTES})::bigint AS bytes
             FROM deliveries JOIN attempts ON delivery_key = key WHERE key = ANY ($1) GROUP BY key, workspace_key"
        );
        let rows = tx.query(&sql, &[deliveries]).await?;
        stored_bytes::count(tx, CountedPart::Attempts, removed(&rows)?.into_iter()).await?;
    }
    tx.execute(
        "UPDATE attempts SET request = NULL, request_headers = NULL, response_headers = NULL, response_body = NULL,
                             payload = $2
         WHERE delivery_key = ANY ($1) AND payload <> $2",
        &[deliveries, &PayloadState::Erased.code()],
    )
    .await
}

/// The attempts of a delivery, oldest first.
pub async fn list(session: &Session, delivery_key: RowKey) -> Result<Vec<Attempt>, PgError> {
    let sql = "SELECT * FROM attempts WHERE delivery_key = $1 ORDER BY number";
    let rows = session.query(sql, &[&delivery_key.as_i64()]).await?;
    rows.iter().map(attempt_from_row).collect()
}

fn attempt_from_row(row: &Row) -> Result<Attempt, PgError> {
    Ok(Attempt {
        number: number(row, "number")?,
        started_at: instant(row, "started_at")?,
        duration_ms: number(row, "duration_ms")?,
        outcome: coded(row, "outcome", AttemptOutcome::from_code)?,
        response_status: opt_number(row, "response_status")?,
        request: get::<Option<Vec<u8>>>(row, "request")?.map(SentRequest::from_bytes),
        remote_address: address_from_row(row)?,
        request_headers: headers_from_column(row, "request_headers")?,
        response_headers: headers_from_column(row, "response_headers")?,
        response_body: get::<Option<Vec<u8>>>(row, "response_body")?.map(Bytes::from),
        error: get(row, "error")?,
        next_attempt_at: opt_instant(row, "next_attempt_at")?,
        phases: phases_from_row(row)?,
        payload: coded(row, "payload", PayloadState::from_code)?,
    })
}

fn phases_from_row(row: &Row) -> Result<Option<AttemptPhases>, PgError> {
    let Some(connection_reused) = get(row, "connection_reused")? else { return Ok(None) };
    Ok(Some(AttemptPhases {
        dns_ms: opt_number(row, "dns_ms")?,
        connect_ms: opt_number(row, "connect_ms")?,
        tls_ms: opt_number(row, "tls_ms")?,
        first_byte_ms: opt_number(row, "first_byte_ms")?,
        body_ms: opt_number(row, "body_ms")?,
        connection_reused,
    }))
}

fn address_from_row(row: &Row) -> Result<Option<IpAddr>, PgError> {
    let bytes: Option<Vec<u8>> = get(row, "remote_address")?;
    bytes.map(|bytes| address_from_bytes(&bytes).ok_or_else(|| unexpected("attempts.remote_address"))).transpose()
}

fn headers_from_column(row: &Row, column: &'static str) -> Result<Vec<(String, String)>, PgError> {
    headers_from_text(get(row, column)?).ok_or_else(|| unexpected(column))
}
