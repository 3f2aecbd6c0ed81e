//! Recording what came of attempts: those that say nothing but that a delivery is over, all at once; those from which something
//! follows, one by one.

use std::collections::{HashMap, HashSet};

use futures_util::future::join;

use postrider_domain::attempt::{Attempt, AttemptOutcome};
use postrider_domain::delivery::{DeliveryCause, DeliveryStatus, EndReason};
use postrider_domain::endpoint_health::Signal;
use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;
use postrider_store::column::headers_to_text;
use postrider_store::{AfterAttempt, OutcomeRecord, Recorded};

use super::column::{int, key, opt_int};
use super::fault::PgError;
use super::lane::{lane_of, lower_one};
use super::transaction::WriteTx;
use super::unsent::{Unsent, end_unsent};
use super::{endpoint, health, matching, operation, order};

/// Writes attempts and what follows from them, each only if its claim still holds.
pub async fn record(tx: &mut WriteTx, outcomes: &[OutcomeRecord]) -> Result<Vec<Recorded>, PgError> {
    let context = Context::of(tx, outcomes).await?;
    let mut recorded = vec![Recorded::ClaimLost; outcomes.len()];
    let (plain, mut eventful): (Vec<usize>, Vec<usize>) =
        (0..outcomes.len()).partition(|&at| context.is_plain(tx, &outcomes[at]));
    let done = finish_plain(tx, &plain.iter().map(|&at| &outcomes[at]).collect::<Vec<_>>()).await?;
    for at in plain {
        if done.contains(&outcomes[at].delivery_id.key()) {
            recorded[at] = Recorded::Done;
        }
    }
    // In the order of their lanes, so that two nodes that meet here do not wait for each other.
    eventful.sort_by_key(|&at| outcomes[at].endpoint.lane.endpoint_key);
    let ordered: Vec<i64> = context.ordered.values().copied().collect::<HashSet<_>>().into_iter().collect();
    order::lock(tx, &ordered).await?;
    for at in eventful {
        recorded[at] = record_one(tx, &outcomes[at]).await?;
    }
    Ok(recorded)
}

/// What has to be known of a group to see which of its outcomes are plain.
struct Context {
    /// Deliveries that have a place in an order, and its lane.
    ordered: HashMap<RowKey, i64>,
    /// Endpoints whose last attempt failed.
    failing: HashSet<RowKey>,
}

impl Context {
    async fn of(tx: &WriteTx, outcomes: &[OutcomeRecord]) -> Result<Self, PgError> {
        let deliveries: Vec<i64> = outcomes.iter().map(|outcome| outcome.delivery_id.key().as_i64()).collect();
        let endpoints: HashSet<i64> =
            outcomes.iter().map(|outcome| outcome.endpoint.lane.endpoint_key.as_i64()).collect();
        let endpoints: Vec<i64> = endpoints.into_iter().collect();
        let in_order = "SELECT delivery_key, lane_key FROM due WHERE delivery_key = ANY($1) AND sequence IS NOT NULL";
        let in_streak = "SELECT endpoint_key FROM endpoint_health WHERE endpoint_key = ANY($1)";
        let (ordered, failing) = join(tx.query(in_order, &[&deliveries]), tx.query(in_streak, &[&endpoints])).await;
        Ok(Self {
            ordered: ordered?
                .iter()
                .map(|row| Ok((key(row, "delivery_key")?, int(row, "lane_key")?)))
                .collect::<Result<_, PgError>>()?,
            failing: failing?.iter().map(|row| key(row, "endpoint_key")).collect::<Result<_, _>>()?,
        })
    }

    /// Whether nothing follows from an outcome but that its delivery is over.
    fn is_plain(&self, tx: &WriteTx, outcome: &OutcomeRecord) -> bool {
        let is_told = tx.shared.operations.get().is_some() && is_exhausted(outcome);
        let says_nothing = match outcome.signal {
            Signal::Nothing => true,
            Signal::Success => !self.failing.contains(&outcome.endpoint.lane.endpoint_key),
            Signal::Failure(_) => false,
        };
        matches!(outcome.after, AfterAttempt::Finish { .. })
            && !self.ordered.contains_key(&outcome.delivery_id.key())
            && says_nothing
            && outcome.disable.is_none()
            && outcome.attempt.outcome != AttemptOutcome::Simulated
            && !is_told
    }
}

/// A test is not tried again whatever came of it, which is nothing to be told of.
fn is_exhausted(outcome: &OutcomeRecord) -> bool {
    matches!(outcome.after, AfterAttempt::Finish { reason: Some(EndReason::Exhausted), .. })
        && outcome.cause != DeliveryCause::Test
}

/// Ends deliveries whose claims still hold, many at once.
pub const FINISH: &str = "WITH ended AS (
           DELETE FROM due USING unnest($1, $2, $3, $4, $5) AS outcome (key, token, status, reason, attempts)
           WHERE due.delivery_key = outcome.key AND due.claim_token = outcome.token
           RETURNING outcome.key, outcome.status, outcome.reason, outcome.attempts
       )
       UPDATE deliveries SET status = ended.status, reason = ended.reason, attempts = ended.attempts, completed_at = $6
       FROM ended WHERE deliveries.key = ended.key RETURNING deliveries.key";

/// Ends deliveries all at once. Returns those whose claims still held.
async fn finish_plain(tx: &WriteTx, outcomes: &[&OutcomeRecord]) -> Result<HashSet<RowKey>, PgError> {
    if outcomes.is_empty() {
        return Ok(HashSet::new());
    }
    let ends = outcomes.iter().map(|outcome| match outcome.after {
        AfterAttempt::Finish { status, reason } => (status.code(), reason.map(EndReason::code)),
        AfterAttempt::Retry { .. } => (DeliveryStatus::Pending.code(), None),
    });
    let (statuses, reasons): (Vec<i64>, Vec<Option<i64>>) = ends.unzip();
    let rows = tx
        .query(
            FINISH,
            &[
                &outcomes.iter().map(|outcome| outcome.delivery_id.key().as_i64()).collect::<Vec<i64>>(),
                &outcomes.iter().map(|outcome| outcome.token.0).collect::<Vec<i64>>(),
                &statuses,
                &reasons,
                &outcomes.iter().map(|outcome| i64::from(outcome.attempt.number)).collect::<Vec<i64>>(),
                &tx.now.millis(),
            ],
        )
        .await?;
    let ended = rows.iter().map(|row| key(row, "key")).collect::<Result<HashSet<_>, _>>()?;
    let attempts: Vec<(RowKey, Attempt)> = outcomes
        .iter()
        .map(|outcome| (outcome.delivery_id.key(), &outcome.attempt))
        .filter(|(key, _)| ended.contains(key))
        .map(|(key, attempt)| (key, attempt.clone()))
        .collect();
    insert_attempts(tx, &attempts).await?;
    Ok(ended)
}

async fn record_one(tx: &mut WriteTx, outcome: &OutcomeRecord) -> Result<Recorded, PgError> {
    let key = outcome.delivery_id.key();
    let mut attempt = outcome.attempt.clone();
    match outcome.after {
        AfterAttempt::Finish { status, reason } => {
            let sql = "DELETE FROM due WHERE delivery_key = $1 AND claim_token = $2 RETURNING sequence";
            let held = tx.query_opt(sql, &[&key.as_i64(), &outcome.token.0]).await?;
            let Some(held) = held else { return Ok(Recorded::ClaimLost) };
            finish(tx, key, status, reason, attempt.number).await?;
            if let Some(sequence) = opt_int(&held, "sequence")? {
                order::after_head(tx, key, sequence, reason).await?;
            }
        }
        AfterAttempt::Retry { after, uses_step } => {
            let at = tx.now.plus(after);
            let sql = "UPDATE due SET due_at = $3, claim_token = NULL, claimed_at = NULL, step = step + $4
                       WHERE delivery_key = $1 AND claim_token = $2 RETURNING lane_key";
            let step = i64::from(uses_step);
            let held = tx.query_opt(sql, &[&key.as_i64(), &outcome.token.0, &at.millis(), &step]).await?;
            let Some(held) = held else { return Ok(Recorded::ClaimLost) };
            let lane = lane_of(int(&held, "lane_key")?, outcome.endpoint.lane.workspace_key);
            if matching::target(tx, lane).await?.is_some() {
                lower_one(tx, lane, at).await?;
                // It may fall due earlier than what the engine waits for.
                tx.claims.left_due = true;
                attempt.next_attempt_at = Some(at);
            } else {
                // The endpoint was deleted while it was being called: there is nothing to try again.
                let unsent = Unsent { delivery_key: key, attempts: attempt.number, lost_claim_at: None };
                end_unsent(tx, &[unsent], DeliveryStatus::Cancelled, EndReason::EndpointDeleted).await?;
            }
        }
    }
    let is_simulated = attempt.outcome == AttemptOutcome::Simulated;
    let number = attempt.number;
    insert_attempts(tx, &[(key, attempt)]).await?;
    health::record(tx, &outcome.endpoint, outcome.signal).await?;
    if is_simulated {
        health::probe_again(tx, outcome.endpoint.lane).await?;
    }
    if let Some(reason) = outcome.disable {
        endpoint::disable(tx, &outcome.endpoint, reason).await?;
    }
    if is_exhausted(outcome) {
        operation::report_exhausted(tx, &outcome.endpoint, outcome.delivery_id, number).await?;
    }
    Ok(Recorded::Done)
}

async fn finish(
    tx: &WriteTx,
    key: RowKey,
    status: DeliveryStatus,
    reason: Option<EndReason>,
    attempts: u32,
) -> Result<(), PgError> {
    let sql = "UPDATE deliveries SET status = $2, reason = $3, attempts = $4, completed_at = $5 WHERE key = $1";
    let (reason, attempts) = (reason.map(EndReason::code), i64::from(attempts));
    tx.execute(sql, &[&key.as_i64(), &status.code(), &reason, &attempts, &tx.now.millis()]).await?;
    Ok(())
}

/// Writes attempts into the log.
pub async fn insert_attempts(tx: &WriteTx, attempts: &[(RowKey, Attempt)]) -> Result<(), PgError> {
    if attempts.is_empty() {
        return Ok(());
    }
    let of = |column: fn(&Attempt) -> i64| attempts.iter().map(|(_, attempt)| column(attempt)).collect::<Vec<i64>>();
    let opt = |column: fn(&Attempt) -> Option<i64>| {
        attempts.iter().map(|(_, attempt)| column(attempt)).collect::<Vec<Option<i64>>>()
    };
    let text = |column: fn(&Attempt) -> Option<String>| {
        attempts.iter().map(|(_, attempt)| column(attempt)).collect::<Vec<Option<String>>>()
    };
    let sql = "INSERT INTO attempts (delivery_key, number, started_at, duration_ms, outcome, request_headers, response_status,
                                     response_headers, response_body, error, next_attempt_at, dns_ms, connect_ms, tls_ms,
                                     first_byte_ms, connection_reused)
               SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)";
    tx.execute(
        sql,
        &[
            &attempts.iter().map(|(key, _)| key.as_i64()).collect::<Vec<i64>>(),
            &of(|attempt| i64::from(attempt.number)),
            &of(|attempt| attempt.started_at.millis()),
            &of(|attempt| i64::from(attempt.duration_ms)),
            &of(|attempt| attempt.outcome.code()),
            &text(|attempt| headers_to_text(&attempt.request_headers)),
            &opt(|attempt| attempt.response_status.map(i64::from)),
            &text(|attempt| headers_to_text(&attempt.response_headers)),
            &attempts.iter().map(|(_, attempt)| attempt.response_body.as_deref()).collect::<Vec<Option<&[u8]>>>(),
            &attempts.iter().map(|(_, attempt)| attempt.error.as_deref()).collect::<Vec<Option<&str>>>(),
            &opt(|attempt| attempt.next_attempt_at.map(Timestamp::millis)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.dns_ms).map(i64::from)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.connect_ms).map(i64::from)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.tls_ms).map(i64::from)),
            &opt(|attempt| attempt.phases.and_then(|phases| phases.first_byte_ms).map(i64::from)),
            &attempts
                .iter()
                .map(|(_, attempt)| attempt.phases.map(|phases| phases.connection_reused))
                .collect::<Vec<Option<bool>>>(),
        ],
    )
    .await?;
    Ok(())
}
