//! Recording the outcomes of attempts. Writes `due`, and `deliveries` when many end at once.
//!
//! A plain outcome ends its delivery and has no other consequence. All plain outcomes of a group are recorded at once.
//! The others are recorded one by one.

use std::collections::{HashMap, HashSet};

use futures_util::future::join;

use postrider_domain::attempt::Attempt;
use postrider_domain::delivery::{DeliveryStatus, EndReason};
use postrider_domain::endpoint_health::Signal;
use postrider_domain::id::RowKey;
use postrider_domain::stats::DeliveryEnd;
use postrider_domain::time::Timestamp;
use postrider_store::log::walk::stored_outcome;
use postrider_store::queue::Consequence;
use postrider_store::queue::lane::lane_of;
use postrider_store::stats::Counted;
use postrider_store::stored_bytes::CountedPart;
use postrider_store::{AfterAttempt, LaneKind, OutcomeRecord, Recorded};

use super::lane::lower_one;
use super::unsent::{Unsent, end_unsent};
use super::{endpoint_health, operational_event, order};
use crate::log::attempt::NewAttempt;
use crate::log::{attempt, delivery};
use crate::machinery::column::{int, key, opt_int};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;
use crate::publish::matching;
use crate::registry::endpoint;
use crate::stored_bytes::{self, Change};

/// Writes attempts and what follows from them, each only if its claim still holds.
pub async fn record(tx: &mut WriteTx, outcomes: &[OutcomeRecord]) -> Result<Vec<Recorded>, PgError> {
    let facts = GroupFacts::read(tx, outcomes).await?;
    let mut recorded = vec![Recorded::ClaimLost; outcomes.len()];
    let (plain, mut eventful): (Vec<usize>, Vec<usize>) =
        (0..outcomes.len()).partition(|&at| facts.is_plain(tx, &outcomes[at]));
    let done = finish_many(tx, &plain.iter().map(|&at| &outcomes[at]).collect::<Vec<_>>()).await?;
    for at in plain {
        if done.contains(&outcomes[at].delivery_id.key()) {
            recorded[at] = Recorded::Done;
        }
    }
    // In the order of their lanes, so that two nodes do not deadlock here.
    eventful.sort_by_key(|&at| outcomes[at].endpoint.endpoint_key);
    let ordered: Vec<i64> = facts.ordered.values().copied().collect::<HashSet<_>>().into_iter().collect();
    order::lock(tx, &ordered).await?;
    for at in eventful {
        recorded[at] = record_one(tx, &outcomes[at]).await?;
    }
    Ok(recorded)
}

/// What decides which outcomes of a group are plain.
struct GroupFacts {
    /// Deliveries with a position in a strict order, and their lanes.
    ordered: HashMap<RowKey, i64>,
    /// Endpoints with stored failures.
    failing: HashSet<RowKey>,
}

impl GroupFacts {
    async fn read(tx: &WriteTx, outcomes: &[OutcomeRecord]) -> Result<Self, PgError> {
        let deliveries: Vec<i64> = outcomes.iter().map(|outcome| outcome.delivery_id.key().as_i64()).collect();
        let endpoints: HashSet<i64> = outcomes.iter().map(|outcome| outcome.endpoint.endpoint_key.as_i64()).collect();
        let endpoints: Vec<i64> = endpoints.into_iter().collect();
        let ordered = "SELECT delivery_key, lane_key FROM due WHERE delivery_key = ANY($1) AND sequence IS NOT NULL";
        let failing = "SELECT endpoint_key FROM endpoint_health WHERE endpoint_key = ANY($1)";
        let (ordered, failing) = join(tx.query(ordered, &[&deliveries]), tx.query(failing, &[&endpoints])).await;
        Ok(Self {
            ordered: ordered?
                .iter()
                .map(|row| Ok((key(row, "delivery_key")?, int(row, "lane_key")?)))
                .collect::<Result<_, PgError>>()?,
            failing: failing?.iter().map(|row| key(row, "endpoint_key")).collect::<Result<_, _>>()?,
        })
    }

    /// Whether an outcome only ends its delivery.
    fn is_plain(&self, tx: &WriteTx, outcome: &OutcomeRecord) -> bool {
        let changes_nothing = |consequence| match consequence {
            Consequence::Health(Signal::Success) => !self.failing.contains(&outcome.endpoint.endpoint_key),
            Consequence::Health(Signal::Nothing) => true,
            Consequence::Health(Signal::Failure(_)) | Consequence::ProbeAgain | Consequence::Disable(_) => false,
            Consequence::ReportExhausted => tx.database.operations.get().is_none(),
        };
        matches!(outcome.after, AfterAttempt::Finish { .. })
            && !self.ordered.contains_key(&outcome.delivery_id.key())
            && outcome.consequences().all(changes_nothing)
    }
}

/// Ends many deliveries whose claims still hold.
pub const FINISH: &str = "WITH ended AS (
           DELETE FROM due
           USING unnest($1, $2, $3, $4, $5, $7, $8)
               AS outcome (key, token, status, reason, attempts, last_outcome, response)
           WHERE due.delivery_key = outcome.key AND due.claim_token = outcome.token
           RETURNING outcome.key, outcome.status, outcome.reason, outcome.attempts, outcome.last_outcome,
               outcome.response
       )
       UPDATE deliveries SET status = ended.status, reason = ended.reason, attempts = ended.attempts, completed_at = $6,
           last_outcome = ended.last_outcome, last_response_status = ended.response
       FROM ended WHERE deliveries.key = ended.key RETURNING deliveries.key";

/// Ends deliveries with plain outcomes. Returns those whose claims still held.
async fn finish_many(tx: &WriteTx, outcomes: &[&OutcomeRecord]) -> Result<HashSet<RowKey>, PgError> {
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
                &outcomes.iter().map(|outcome| stored_outcome(outcome.attempt.outcome)).collect::<Vec<Option<i64>>>(),
                &outcomes
                    .iter()
                    .map(|outcome| outcome.attempt.response_status.map(i64::from))
                    .collect::<Vec<Option<i64>>>(),
            ],
        )
        .await?;
    let ended = rows.iter().map(|row| key(row, "key")).collect::<Result<HashSet<_>, _>>()?;
    let recorded: Vec<&OutcomeRecord> =
        outcomes.iter().copied().filter(|outcome| ended.contains(&outcome.delivery_id.key())).collect();
    tx.count(|rollups| {
        for outcome in &recorded {
            if let AfterAttempt::Finish { status, reason } = outcome.after {
                rollups.ended(Counted::of(&outcome.endpoint, outcome.mode), DeliveryEnd { status, reason });
            }
        }
    });
    let attempts: Vec<NewAttempt> =
        recorded.iter().map(|outcome| new_attempt(outcome, outcome.attempt.clone())).collect();
    let bytes = attempt::insert(tx, &attempts).await?;
    count_attempts(tx, &recorded, bytes).await?;
    Ok(ended)
}

fn new_attempt(outcome: &OutcomeRecord, attempt: Attempt) -> NewAttempt {
    (Counted::of(&outcome.endpoint, outcome.mode), outcome.delivery_id.key(), attempt)
}

async fn count_attempts(tx: &WriteTx, outcomes: &[&OutcomeRecord], bytes: Vec<i64>) -> Result<(), PgError> {
    let change = |(outcome, bytes): (&&OutcomeRecord, i64)| Change {
        workspace: outcome.endpoint.workspace_key,
        key: outcome.delivery_id.key(),
        bytes,
    };
    stored_bytes::count(tx, CountedPart::Attempts, outcomes.iter().zip(bytes).map(change)).await
}

async fn record_one(tx: &mut WriteTx, outcome: &OutcomeRecord) -> Result<Recorded, PgError> {
    let mut attempt = outcome.attempt.clone();
    let recorded = match outcome.after {
        AfterAttempt::Finish { status, reason } => finish(tx, outcome, DeliveryEnd { status, reason }).await?,
        AfterAttempt::Retry { after, uses_step } => {
            let retry = Retry { at: tx.now.plus(after), uses_step };
            schedule_retry(tx, outcome, retry, &mut attempt).await?
        }
    };
    if recorded == Recorded::ClaimLost {
        return Ok(recorded);
    }
    let bytes = attempt::insert(tx, &[new_attempt(outcome, attempt)]).await?;
    count_attempts(tx, &[outcome], bytes).await?;
    for consequence in outcome.consequences() {
        apply(tx, outcome, consequence).await?;
    }
    Ok(recorded)
}

async fn apply(tx: &mut WriteTx, outcome: &OutcomeRecord, consequence: Consequence) -> Result<(), PgError> {
    let target = &outcome.endpoint;
    match consequence {
        Consequence::Health(signal) => endpoint_health::record(tx, target, signal).await,
        Consequence::ProbeAgain => endpoint_health::probe_again(tx, target.lane(LaneKind::Events)).await,
        Consequence::Disable(reason) => endpoint::disable(tx, target, reason).await,
        Consequence::ReportExhausted => {
            operational_event::report_exhausted(tx, target, outcome.delivery_id, outcome.attempt.number).await
        }
    }
}

async fn finish(tx: &mut WriteTx, outcome: &OutcomeRecord, end: DeliveryEnd) -> Result<Recorded, PgError> {
    let key = outcome.delivery_id.key();
    let sql = "DELETE FROM due WHERE delivery_key = $1 AND claim_token = $2 RETURNING sequence";
    let held = tx.query_opt(sql, &[&key.as_i64(), &outcome.token.0]).await?;
    let Some(held) = held else { return Ok(Recorded::ClaimLost) };
    delivery::finish(tx, key, Counted::of(&outcome.endpoint, outcome.mode), end, &outcome.attempt).await?;
    if let Some(sequence) = opt_int(&held, "sequence")? {
        order::after_head(tx, key, sequence, end.reason).await?;
    }
    Ok(Recorded::Done)
}

struct Retry {
    at: Timestamp,
    /// Uses the next wait of the schedule.
    uses_step: bool,
}

/// Schedules the next attempt and notes its instant in `attempt`.
async fn schedule_retry(
    tx: &mut WriteTx,
    outcome: &OutcomeRecord,
    retry: Retry,
    attempt: &mut Attempt,
) -> Result<Recorded, PgError> {
    let Retry { at, uses_step } = retry;
    let key = outcome.delivery_id.key();
    let sql = "UPDATE due SET due_at = $3, claim_token = NULL, claimed_at = NULL, step = step + $4
                       WHERE delivery_key = $1 AND claim_token = $2 RETURNING lane_key";
    let step = i64::from(uses_step);
    let held = tx.query_opt(sql, &[&key.as_i64(), &outcome.token.0, &at.millis(), &step]).await?;
    let Some(held) = held else { return Ok(Recorded::ClaimLost) };
    let lane = lane_of(int(&held, "lane_key")?, outcome.endpoint.workspace_key);
    if matching::target(tx, lane).await?.is_some() {
        lower_one(tx, lane, at).await?;
        // The retry may fall due before the instant that the engine waits for.
        tx.claims.left_due = true;
        attempt.next_attempt_at = Some(at);
    } else {
        // The endpoint was deleted during the attempt: there is nothing to retry.
        let unsent = Unsent { delivery_key: key, attempts: attempt.number, lost_claim_at: None };
        end_unsent(tx, &[unsent], DeliveryStatus::Cancelled, EndReason::EndpointDeleted).await?;
    }
    Ok(Recorded::Done)
}
