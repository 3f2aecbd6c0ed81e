//! Records the outcome of an attempt: the delivery's row in the queue, the attempt in the log, and the consequences for
//! the endpoint. An outcome whose claim is lost writes nothing.
//!
//! Differs from PostgreSQL: outcomes are recorded one by one. A statement costs no round trip here.
//!
//! Writes `due`.

use rusqlite::{OptionalExtension, params};

use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::time::Timestamp;
use postrider_store::queue::Consequence;
use postrider_store::stats::Counted;
use postrider_store::stored_bytes::CountedPart;
use postrider_store::{AfterAttempt, LaneKind, OutcomeRecord, Recorded};

use super::unsent::{Unsent, end_unsent};
use super::{endpoint_health, lane, operational_event, order};
use crate::log::{attempt, delivery};
use crate::machinery::writer::WriteTx;
use crate::registry::endpoint;
use crate::stored_bytes;

/// This many outcomes are worth a commit of their own.
const WORTH_A_COMMIT: usize = 16;

pub const REMOVE_FINISHED: &str = "DELETE FROM due WHERE delivery_key = ?1 AND claim_token = ?2 RETURNING sequence";

pub const SCHEDULE_RETRY: &str = "UPDATE due SET due_at = ?3, claim_token = NULL, claimed_at = NULL, step = step + ?4
     WHERE delivery_key = ?1 AND claim_token = ?2
     RETURNING lane_key, (SELECT workspace_key FROM deliveries WHERE key = delivery_key)";

/// Whether these outcomes may share a commit that comes a moment later.
pub fn can_wait(outcomes: &[OutcomeRecord]) -> bool {
    outcomes.len() < WORTH_A_COMMIT && outcomes.iter().all(OutcomeRecord::can_wait)
}

pub fn record_all(tx: &mut WriteTx<'_>, outcomes: &[OutcomeRecord]) -> Result<Vec<Recorded>, rusqlite::Error> {
    outcomes.iter().map(|outcome| record(tx, outcome)).collect()
}

pub fn record(tx: &mut WriteTx<'_>, outcome: &OutcomeRecord) -> Result<Recorded, rusqlite::Error> {
    let row = match outcome.after {
        AfterAttempt::Finish { status, reason } => finish(tx, outcome, DeliveryEnd { status, reason })?,
        AfterAttempt::Retry { after, uses_step } => schedule_retry(tx, outcome, tx.now.plus(after), uses_step)?,
    };
    let mut attempt = outcome.attempt.clone();
    match row {
        QueueRow::ClaimLost => return Ok(Recorded::ClaimLost),
        QueueRow::DueAgain(at) => attempt.next_attempt_at = Some(at),
        QueueRow::Removed => {}
    }
    let bytes = attempt::insert(tx, Counted::of(&outcome.endpoint, outcome.mode), outcome.delivery_id.key(), &attempt)?;
    let workspace = outcome.endpoint.workspace_key;
    stored_bytes::count(tx, workspace, CountedPart::Attempts, outcome.delivery_id.key(), bytes)?;
    for consequence in outcome.consequences() {
        apply(tx, outcome, consequence)?;
    }
    Ok(Recorded::Done)
}

/// The delivery's row in the queue after an outcome.
enum QueueRow {
    /// Another holder has the claim, or the row is gone. Nothing was written.
    ClaimLost,
    DueAgain(Timestamp),
    Removed,
}

fn finish(tx: &mut WriteTx<'_>, outcome: &OutcomeRecord, end: DeliveryEnd) -> Result<QueueRow, rusqlite::Error> {
    let key = outcome.delivery_id.key();
    let removed = tx
        .connection
        .prepare_cached(REMOVE_FINISHED)?
        .query_row(params![key.as_i64(), outcome.token.0], |row| row.get(0))
        .optional()?;
    let Some(sequence) = removed else { return Ok(QueueRow::ClaimLost) };
    delivery::finish(tx, key, Counted::of(&outcome.endpoint, outcome.mode), end, &outcome.attempt)?;
    if let Some(sequence) = sequence {
        order::after_head(tx, key, sequence, end.reason)?;
    }
    Ok(QueueRow::Removed)
}

fn schedule_retry(
    tx: &mut WriteTx<'_>,
    outcome: &OutcomeRecord,
    at: Timestamp,
    uses_step: bool,
) -> Result<QueueRow, rusqlite::Error> {
    let key = outcome.delivery_id.key();
    let lane = tx
        .connection
        .prepare_cached(SCHEDULE_RETRY)?
        .query_row(params![key.as_i64(), outcome.token.0, at.millis(), uses_step], lane::from_row)
        .optional()?;
    let Some(lane) = lane else { return Ok(QueueRow::ClaimLost) };
    if tx.matching.target(tx.connection, lane.endpoint_key)?.is_none() {
        // The endpoint was deleted during the attempt.
        let unsent = Unsent { delivery_key: key, attempts: outcome.attempt.number, lost_claim_at: None };
        end_unsent(tx, &unsent, DeliveryStatus::Cancelled, EndReason::EndpointDeleted)?;
        return Ok(QueueRow::Removed);
    }
    lane::lower_next_at(tx, lane, at)?;
    // The retry may fall due before the instant that the engine waits for.
    tx.claims.left_due = true;
    Ok(QueueRow::DueAgain(at))
}

fn apply(tx: &mut WriteTx<'_>, outcome: &OutcomeRecord, consequence: Consequence) -> Result<(), rusqlite::Error> {
    match consequence {
        Consequence::Health(signal) => endpoint_health::record(tx, &outcome.endpoint, signal),
        Consequence::ProbeAgain => endpoint_health::probe_again(tx, outcome.endpoint.lane(LaneKind::Events)),
        Consequence::Disable(reason) => endpoint::disable(tx, &outcome.endpoint, reason),
        Consequence::ReportExhausted => {
            operational_event::report_exhausted(tx, &outcome.endpoint, outcome.delivery_id, outcome.attempt.number)
        }
    }
}
