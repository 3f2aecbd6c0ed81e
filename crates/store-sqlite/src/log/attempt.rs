//! The attempts of a delivery.
//!
//! Writes `attempts`. Only retention removes rows (`upkeep/retention.rs`).

use std::net::IpAddr;

use bytes::Bytes;
use rusqlite::{Row, params};

use postrider_domain::attempt::{Attempt, AttemptOutcome, AttemptPhases};
use postrider_domain::id::{DeliveryId, RowKey};
use postrider_domain::payload::PayloadState;
use postrider_domain::sent_request::SentRequest;
use postrider_domain::time::Timestamp;
use postrider_store::column::{address_from_bytes, address_to_bytes, headers_from_text, headers_to_text};
use postrider_store::stats::Counted;
use postrider_store::stored_bytes::{ATTEMPT_BYTES, CountedPart, bytes_of};

use crate::machinery::column::{coded, unexpected};
use crate::machinery::reader::ReadTx;
use crate::machinery::writer::WriteTx;
use crate::stored_bytes;

pub const INSERT_ATTEMPT: &str =
    "INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome, request_headers,
                           response_status, response_headers, response_body, error, next_attempt_at,
                           dns_ms, connect_ms, tls_ms, first_byte_ms, connection_reused,
                           request, remote_address, body_ms)
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19)";

/// Returns the bytes of its content, as they are counted.
pub fn insert(
    tx: &mut WriteTx<'_>,
    counted: Counted,
    delivery_key: RowKey,
    attempt: &Attempt,
) -> Result<i64, rusqlite::Error> {
    let request_headers = headers_to_text(&attempt.request_headers);
    let response_headers = headers_to_text(&attempt.response_headers);
    let texts = [&request_headers, &response_headers].into_iter().flatten().map(String::len);
    let request = attempt.request.as_ref().map(SentRequest::as_bytes);
    let bytes =
        texts.sum::<usize>() + request.map_or(0, <[u8]>::len) + attempt.response_body.as_ref().map_or(0, Bytes::len);
    let phases = attempt.phases.unwrap_or_default();
    tx.connection.prepare_cached(INSERT_ATTEMPT)?.execute(params![
        delivery_key.as_i64(),
        attempt.number,
        attempt.started_at.millis(),
        attempt.duration_ms,
        attempt.outcome.code(),
        request_headers,
        attempt.response_status,
        response_headers,
        attempt.response_body.as_deref(),
        attempt.error,
        attempt.next_attempt_at.map(Timestamp::millis),
        phases.dns_ms,
        phases.connect_ms,
        phases.tls_ms,
        phases.first_byte_ms,
        attempt.phases.map(|phases| phases.connection_reused),
        request,
        attempt.remote_address.map(address_to_bytes),
        phases.body_ms,
    ])?;
    tx.rollups.attempted(counted, delivery_key, attempt, tx.now);
    Ok(bytes_of(bytes))
}

/// Empties the attempts of a delivery. Returns how many had not been emptied.
pub fn erase(tx: &mut WriteTx<'_>, workspace: RowKey, delivery_key: RowKey) -> Result<u64, rusqlite::Error> {
    let (count, bytes): (u64, i64) = tx
        .connection
        .prepare_cached(&format!(
            "SELECT COUNT(*), COALESCE(SUM({ATTEMPT_BYTES}), 0) FROM attempts WHERE delivery_key = ?1 AND payload <> ?2"
        ))?
        .query_row([delivery_key.as_i64(), PayloadState::Erased.code()], |row| Ok((row.get(0)?, row.get(1)?)))?;
    if count > 0 {
        tx.connection
            .prepare_cached(
                "UPDATE attempts SET request = NULL, request_headers = NULL, response_headers = NULL,
                                     response_body = NULL, payload = ?2
                 WHERE delivery_key = ?1 AND payload <> ?2",
            )?
            .execute([delivery_key.as_i64(), PayloadState::Erased.code()])?;
        stored_bytes::count(tx, workspace, CountedPart::Attempts, delivery_key, -bytes)?;
    }
    Ok(count)
}

/// All attempts of a delivery, the first one first.
pub fn list(tx: ReadTx<'_>, id: DeliveryId) -> Result<Vec<Attempt>, rusqlite::Error> {
    tx.connection
        .prepare_cached("SELECT * FROM attempts WHERE delivery_key = ?1 ORDER BY number")?
        .query_map([id.key().as_i64()], attempt_from_row)?
        .collect()
}

fn attempt_from_row(row: &Row<'_>) -> Result<Attempt, rusqlite::Error> {
    Ok(Attempt {
        number: row.get("number")?,
        started_at: Timestamp::from_millis(row.get("started_at")?),
        duration_ms: row.get("duration_ms")?,
        outcome: coded(row, "outcome", AttemptOutcome::from_code)?,
        response_status: row.get("response_status")?,
        request: row.get::<_, Option<Vec<u8>>>("request")?.map(SentRequest::from_bytes),
        remote_address: address_from_row(row)?,
        request_headers: headers_from_column(row, "request_headers")?,
        response_headers: headers_from_column(row, "response_headers")?,
        response_body: row.get::<_, Option<Vec<u8>>>("response_body")?.map(Bytes::from),
        error: row.get("error")?,
        next_attempt_at: row.get::<_, Option<i64>>("next_attempt_at")?.map(Timestamp::from_millis),
        phases: phases_from_row(row)?,
        payload: coded(row, "payload", PayloadState::from_code)?,
    })
}

fn phases_from_row(row: &Row<'_>) -> Result<Option<AttemptPhases>, rusqlite::Error> {
    let Some(connection_reused) = row.get("connection_reused")? else { return Ok(None) };
    Ok(Some(AttemptPhases {
        dns_ms: row.get("dns_ms")?,
        connect_ms: row.get("connect_ms")?,
        tls_ms: row.get("tls_ms")?,
        first_byte_ms: row.get("first_byte_ms")?,
        body_ms: row.get("body_ms")?,
        connection_reused,
    }))
}

fn address_from_row(row: &Row<'_>) -> Result<Option<IpAddr>, rusqlite::Error> {
    let bytes: Option<Vec<u8>> = row.get("remote_address")?;
    bytes.map(|bytes| address_from_bytes(&bytes).ok_or_else(|| unexpected("attempts.remote_address"))).transpose()
}

fn headers_from_column(row: &Row<'_>, column: &'static str) -> Result<Vec<(String, String)>, rusqlite::Error> {
    headers_from_text(row.get_ref(column)?.as_str_or_null()?).ok_or_else(|| unexpected(column))
}
