//! The last recorded attempt of a delivery, in words that both databases accept.
//!
//! A delivery that has ended holds what its last attempt said, unless its status says it. For a pending delivery, and
//! for one that ended before those columns existed, the attempts are read.

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{DeliveryStatus, ResponseStatuses};

/// The outcome, as an expression over the row `d` of `deliveries`.
pub fn last_outcome(d: &str) -> String {
    let [delivered, simulated, skipped] =
        [DeliveryStatus::Delivered, DeliveryStatus::Simulated, DeliveryStatus::Skipped].map(DeliveryStatus::code);
    let [was_delivered, was_simulated] =
        [AttemptOutcome::Delivered, AttemptOutcome::Simulated].map(AttemptOutcome::code);
    let read = of_attempts(d, "outcome");
    format!(
        "(CASE {d}.status WHEN {delivered} THEN {was_delivered} WHEN {simulated} THEN {was_simulated}
                          WHEN {skipped} THEN NULL ELSE COALESCE({d}.last_outcome, {read}) END)"
    )
}

/// The status of the answer.
pub fn last_response(d: &str) -> String {
    let [simulated, skipped] = [DeliveryStatus::Simulated, DeliveryStatus::Skipped].map(DeliveryStatus::code);
    let read = of_attempts(d, "response_status");
    format!(
        "(CASE WHEN {d}.status IN ({simulated}, {skipped}) THEN NULL
               WHEN {d}.last_response_status IS NOT NULL THEN {d}.last_response_status
               WHEN {d}.last_outcome IS NOT NULL THEN NULL ELSE {read} END)"
    )
}

fn of_attempts(d: &str, column: &str) -> String {
    format!("(SELECT a.{column} FROM attempts a WHERE a.delivery_key = {d}.key ORDER BY a.number DESC LIMIT 1)")
}

/// The condition that a response status is one of these. `None` when there are none.
pub fn is_answer(expression: &str, answers: &[ResponseStatuses]) -> Option<String> {
    let between = |answer: &ResponseStatuses| {
        let range = answer.range();
        format!("{expression} BETWEEN {} AND {}", range.start(), range.end())
    };
    let any: Vec<String> = answers.iter().map(between).collect();
    (!any.is_empty()).then(|| format!("({})", any.join(" OR ")))
}
