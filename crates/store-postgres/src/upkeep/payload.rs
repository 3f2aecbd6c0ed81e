//! Payloads go before the rows that they belong to: the envelope of an event, and the headers and bodies of the
//! attempts at it. The rows stay, with `payload` saying why nothing is there.
//!
//! The walk goes through the events in the order of their keys and never back: it remembers in `meta` where it ended.
//! That row is also the lock by which two nodes share the work. An event that a delivery may still send keeps its
//! payload. It is noted in `late_payloads` and looked at again.
//!
//! Updates `events` and `attempts`, writes `late_payloads`.

use std::collections::BTreeSet;

use tokio_postgres::Row;

use postrider_domain::id::RowKey;
use postrider_domain::payload::PayloadState;
use postrider_store::stored_bytes::CountedPart;
use postrider_store::upkeep::PAYLOADS_WALKED_TO;
use postrider_store::{PayloadStep, Removed};

use super::retention::{count_removed_attempts, keys_from, read_in_key_order};
use crate::machinery::column::{coded, int};
use crate::machinery::fault::PgError;
use crate::machinery::session::Session;
use crate::machinery::transaction::WriteTx;
use crate::meta;
use crate::stored_bytes::{self, removed};

/// Looks at the next events and takes the payloads that may go.
pub async fn expire(tx: &mut WriteTx, step: PayloadStep) -> Result<Removed, PgError> {
    let before = RowKey::first_at(tx.now.minus(step.age)).as_i64();
    // Another node is at it.
    let Some(after) = meta::lock_row_key(tx, PAYLOADS_WALKED_TO).await? else { return Ok(Removed::default()) };
    read_in_key_order(tx).await?;
    let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
    let sql = "SELECT key, payload FROM events WHERE key > $1 AND key < $2 ORDER BY key LIMIT $3";
    let rows = tx.query(sql, &[&after.as_i64(), &before, &limit]).await?;
    let Some(last) = rows.last().map(|row| int(row, "key")).transpose()? else { return Ok(Removed::default()) };
    let kept = |row: &&Row| coded(row, "payload", PayloadState::from_code).is_ok_and(|it| it == PayloadState::Kept);
    let kept: Vec<i64> = rows.iter().filter(kept).map(|row| int(row, "key")).collect::<Result<_, _>>()?;
    let taken = take_unneeded(tx, &kept).await?;
    let late: Vec<i64> = kept.into_iter().filter(|key| !taken.contains(key)).collect();
    if !late.is_empty() {
        let sql = "INSERT INTO late_payloads (event_key) SELECT * FROM unnest($1) ON CONFLICT DO NOTHING";
        tx.execute(sql, &[&late]).await?;
    }
    let last = RowKey::from_i64(last);
    meta::set_row_key(tx, PAYLOADS_WALKED_TO, last).await?;
    Ok(Removed { rows: taken.len() as u64, next: Some(last).filter(|_| rows.len() == step.limit) })
}

/// Looks again at events whose payloads had to stay, those after `after`.
pub async fn expire_late(tx: &mut WriteTx, step: PayloadStep, after: RowKey) -> Result<Removed, PgError> {
    let before = RowKey::first_at(tx.now.minus(step.age)).as_i64();
    let limit = i64::try_from(step.limit).unwrap_or(i64::MAX);
    let sql = "SELECT event_key AS key FROM late_payloads WHERE event_key > $1 AND event_key < $2
               ORDER BY event_key LIMIT $3 FOR UPDATE SKIP LOCKED";
    let keys = keys_from(&tx.query(sql, &[&after.as_i64(), &before, &limit]).await?)?;
    let Some(last) = keys.last().copied() else { return Ok(Removed::default()) };
    let taken = take_unneeded(tx, &keys).await?;
    // Those that were removed meanwhile are needed by nothing either.
    let needed = needed(tx, &keys).await?;
    let done: Vec<i64> = keys.iter().copied().filter(|key| !needed.contains(key)).collect();
    tx.execute("DELETE FROM late_payloads WHERE event_key = ANY ($1)", &[&done]).await?;
    let next = Some(RowKey::from_i64(last)).filter(|_| keys.len() == step.limit);
    Ok(Removed { rows: taken.len() as u64, next })
}

/// Takes the payloads of those of these events that no delivery needs. `events` must be sorted.
async fn take_unneeded(tx: &mut WriteTx, events: &[i64]) -> Result<BTreeSet<i64>, PgError> {
    let needed_before = needed(tx, events).await?;
    let unneeded: Vec<i64> = events.iter().copied().filter(|key| !needed_before.contains(key)).collect();
    if unneeded.is_empty() {
        return Ok(BTreeSet::new());
    }
    // A concurrent transaction may enqueue one of them again. It locks the event first, so lock and then check again.
    let sql = "SELECT key FROM events WHERE key = ANY ($1) AND payload = 0 ORDER BY key FOR UPDATE";
    let locked = keys_from(&tx.query(sql, &[&unneeded]).await?)?;
    let needed = needed(tx, &locked).await?;
    let taken: Vec<i64> = locked.into_iter().filter(|key| !needed.contains(key)).collect();
    take(tx, &taken, PayloadState::Expired).await?;
    Ok(taken.into_iter().collect())
}

/// Those of these events of which a delivery is pending, or a strict order has stopped at one. `events` must be sorted.
async fn needed(session: &Session, events: &[i64]) -> Result<BTreeSet<i64>, PgError> {
    let (Some(first), Some(last)) = (events.first(), events.last()) else { return Ok(BTreeSet::new()) };
    let sql = "SELECT event_key AS key FROM due WHERE event_key >= $1 AND event_key <= $2
               UNION
               SELECT d.event_key FROM ordered_lanes o JOIN deliveries d ON d.key = o.blocked_by
               WHERE o.blocked_by IS NOT NULL AND d.event_key >= $1 AND d.event_key <= $2";
    Ok(keys_from(&session.query(sql, &[first, last]).await?)?.into_iter().collect())
}

/// Takes the payloads of these events and of all attempts at them. The caller has locked the events.
pub async fn take(tx: &mut WriteTx, events: &[i64], state: PayloadState) -> Result<(), PgError> {
    let Some(first) = events.iter().min().copied() else { return Ok(()) };
    let events = events.to_vec();
    // A delivery is newer than its event, so the partitions of earlier days hold none.
    let sql = "SELECT key FROM deliveries WHERE event_key = ANY ($1) AND key >= $2";
    let deliveries = keys_from(&tx.query(sql, &[&events, &first]).await?)?;
    if !deliveries.is_empty() {
        count_removed_attempts(tx, &deliveries).await?;
        let sql = "UPDATE attempts SET request = NULL, request_headers = NULL, response_headers = NULL,
                                       response_body = NULL, payload = $2
                   WHERE delivery_key = ANY ($1) AND payload = 0";
        tx.execute(sql, &[&deliveries, &state.code()]).await?;
    }
    if tx.database.stored.max.get().is_some() {
        let sql = "SELECT key, workspace_key, octet_length(envelope)::bigint AS bytes FROM events WHERE key = ANY ($1)";
        let rows = tx.query(sql, &[&events]).await?;
        stored_bytes::count(tx, CountedPart::Events, removed(&rows)?.into_iter()).await?;
    }
    let sql = "UPDATE events SET envelope = '', payload = $2 WHERE key = ANY ($1) AND payload = 0";
    tx.execute(sql, &[&events, &state.code()]).await.map(drop)
}
