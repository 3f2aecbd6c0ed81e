//! How a delivery stands: its state, the cause, what comes next, when, and why then. Data, no text: pages put it into
//! words in their language.
//!
//! A pure function of the delivery, its attempts and its endpoint. Times in it are instants, so it needs no clock.

use std::time::Duration;

use super::attempt::{Attempt, AttemptOutcome, Fault};
use super::delivery::{Delivery, DeliveryCause, DeliveryStatus, EndReason, Queued};
use super::endpoint::{DisabledReason, Endpoint};
use super::id::DeliveryId;
use super::limits;
use super::retry::{JITTER, parse_retry_after};
use super::retry_schedule::RetrySchedule;
use super::time::Timestamp;

/// What an explanation is made from.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'s> {
    pub delivery: &'s Delivery,
    /// The first one first.
    pub attempts: &'s [Attempt],
    /// `None` when it is deleted.
    pub endpoint: Option<&'s Endpoint>,
    /// Of endpoints without a schedule of their own.
    pub schedule: &'s RetrySchedule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub state: DeliveryStatus,
    pub cause: StateCause,
    pub next: NextStep,
    /// When `next` is due, if that is known.
    pub next_at: Option<Timestamp>,
    pub why_then: Option<WhyThen>,
    /// About when the delivery fails if every further attempt fails, or if nothing changes for what it waits for.
    pub gives_up_at: Option<Timestamp>,
    /// The head of the strict order that it waits behind.
    pub waits_for: Option<DeliveryId>,
}

/// Why a delivery is in its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateCause {
    // Pending:
    NotAttempted,
    AttemptUnderWay,
    /// The last attempt failed by the fault of the receiver.
    AttemptFailed,
    /// The last attempt failed by our own fault, or its process died.
    SenderFault,
    EndpointPaused,
    /// Switched off by its owner.
    EndpointOff,
    EndpointGone,
    EndpointFailing,
    EndpointSsrfBlocked,
    EndpointDeleted,
    /// Another delivery is before it in the endpoint's strict order.
    BehindHead,
    // Ended:
    Received,
    Simulated,
    /// As the delivery says.
    Ended(EndReason),
    /// It failed, and its endpoint's strict order waits for a decision.
    BlocksOrder(EndReason),
    /// Ended without a reason, by a version that did not keep it.
    Unknown,
}

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NextStep {
    Nothing,
    Attempt,
    /// A consumer of the listener leases it.
    Lease,
    /// The outcome of the attempt under way.
    Outcome,
    /// A probe of the paused endpoint: this delivery or another one that waits.
    Probe,
    /// Somebody activates the endpoint.
    Activation,
    /// The head of the strict order ends.
    HeadEnds,
    /// Somebody skips or retries it.
    SkipOrRetry,
    /// It is cancelled with its endpoint.
    Cancellation,
}

/// Why the next attempt is when it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhyThen {
    /// As soon as possible.
    AtOnce,
    /// The wait after the attempt: `step` of `steps`, varied by up to 20 %.
    Schedule { step: u32, steps: u32 },
    /// The receiver asked for it.
    RetryAfter,
    /// The fixed wait after a fault of ours. It uses no step of the schedule.
    SenderFault,
    /// The endpoint is paused: probes come at growing intervals.
    Paused,
    /// The receiver reported overload, so the whole endpoint gets a break.
    Overloaded,
}

impl StateCause {
    /// The names of all causes but the reasons of an end.
    pub const NAMES: [&'static str; 14] = [
        "not_attempted",
        "attempt_under_way",
        "attempt_failed",
        "sender_fault",
        "endpoint_paused",
        "endpoint_off",
        "endpoint_gone",
        "endpoint_failing",
        "endpoint_ssrf_blocked",
        "behind_head",
        "received",
        "simulated",
        "blocks_order",
        "unknown",
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotAttempted => "not_attempted",
            Self::AttemptUnderWay => "attempt_under_way",
            Self::AttemptFailed => "attempt_failed",
            Self::SenderFault => "sender_fault",
            Self::EndpointPaused => "endpoint_paused",
            Self::EndpointOff => "endpoint_off",
            Self::EndpointGone => "endpoint_gone",
            Self::EndpointFailing => "endpoint_failing",
            Self::EndpointSsrfBlocked => "endpoint_ssrf_blocked",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::BehindHead => "behind_head",
            Self::Received => "received",
            Self::Simulated => "simulated",
            Self::Ended(reason) => reason.as_str(),
            Self::BlocksOrder(_) => "blocks_order",
            Self::Unknown => "unknown",
        }
    }
}

impl NextStep {
    pub const ALL: [Self; 9] = [
        Self::Nothing,
        Self::Attempt,
        Self::Lease,
        Self::Outcome,
        Self::Probe,
        Self::Activation,
        Self::HeadEnds,
        Self::SkipOrRetry,
        Self::Cancellation,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Attempt => "attempt",
            Self::Lease => "lease",
            Self::Outcome => "outcome",
            Self::Probe => "probe",
            Self::Activation => "activation",
            Self::HeadEnds => "head_ends",
            Self::SkipOrRetry => "skip_or_retry",
            Self::Cancellation => "cancellation",
        }
    }
}

impl WhyThen {
    pub const NAMES: [&'static str; 6] = ["at_once", "schedule", "retry_after", "sender_fault", "paused", "overloaded"];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AtOnce => "at_once",
            Self::Schedule { .. } => "schedule",
            Self::RetryAfter => "retry_after",
            Self::SenderFault => "sender_fault",
            Self::Paused => "paused",
            Self::Overloaded => "overloaded",
        }
    }
}

/// How a delivery stands.
pub fn explain(situation: Situation<'_>) -> Explanation {
    let delivery = situation.delivery;
    match (delivery.status, &delivery.queued) {
        (DeliveryStatus::Pending, Some(queued)) => pending(situation, queued),
        (DeliveryStatus::Pending, None) => stands(delivery, StateCause::Unknown, NextStep::Nothing),
        (DeliveryStatus::Delivered, _) => stands(delivery, StateCause::Received, NextStep::Nothing),
        (DeliveryStatus::Simulated, _) => stands(delivery, StateCause::Simulated, NextStep::Nothing),
        (DeliveryStatus::Failed | DeliveryStatus::Skipped | DeliveryStatus::Cancelled, _) => {
            match (delivery.reason, delivery.is_blocking) {
                (Some(reason), true) => stands(delivery, StateCause::BlocksOrder(reason), NextStep::SkipOrRetry),
                (Some(reason), false) => stands(delivery, StateCause::Ended(reason), NextStep::Nothing),
                (None, _) => stands(delivery, StateCause::Unknown, NextStep::Nothing),
            }
        }
    }
}

fn stands(delivery: &Delivery, cause: StateCause, next: NextStep) -> Explanation {
    Explanation {
        state: delivery.status,
        cause,
        next,
        next_at: None,
        why_then: None,
        gives_up_at: None,
        waits_for: None,
    }
}

fn pending(situation: Situation<'_>, queued: &Queued) -> Explanation {
    let Situation { delivery, endpoint, .. } = situation;
    let Some(endpoint) = endpoint else {
        return stands(delivery, StateCause::EndpointDeleted, NextStep::Cancellation);
    };
    if queued.is_claimed {
        return stands(delivery, StateCause::AttemptUnderWay, NextStep::Outcome);
    }
    if let Some(head) = queued.order_head.filter(|head| *head != delivery.id) {
        let waits = stands(delivery, StateCause::BehindHead, NextStep::HeadEnds);
        return Explanation { waits_for: Some(head), ..waits };
    }
    if queued.is_held {
        let cause = match endpoint.disabled_reason {
            None => StateCause::EndpointOff,
            Some(DisabledReason::Gone) => StateCause::EndpointGone,
            Some(DisabledReason::Failing) => StateCause::EndpointFailing,
            Some(DisabledReason::SsrfBlocked) => StateCause::EndpointSsrfBlocked,
        };
        let gives_up_at = queued.held_since.map(|since| expires_at(since, queued));
        return Explanation { gives_up_at, ..stands(delivery, cause, NextStep::Activation) };
    }
    if let Some(since) = queued.paused_since {
        return Explanation {
            next_at: queued.not_before,
            why_then: Some(WhyThen::Paused),
            gives_up_at: Some(expires_at(since, queued)),
            ..stands(delivery, StateCause::EndpointPaused, NextStep::Probe)
        };
    }
    scheduled(situation, queued, endpoint)
}

/// Nothing holds it up: the next attempt has its time.
fn scheduled(situation: Situation<'_>, queued: &Queued, endpoint: &Endpoint) -> Explanation {
    let Situation { delivery, attempts, .. } = situation;
    let schedule = endpoint.options.retry_schedule.as_ref().unwrap_or(situation.schedule);
    let last = attempts.last();
    let cause = match last.map(|attempt| attempt.outcome) {
        None => StateCause::NotAttempted,
        Some(outcome) if outcome.fault() == Fault::Receiver => StateCause::AttemptFailed,
        Some(_) => StateCause::SenderFault,
    };
    let next_at = queued.next_attempt_at();
    let is_delayed = queued.not_before.is_some_and(|until| queued.due_at.is_some_and(|due| due < until));
    let why_then = match (last, queued.due_at) {
        _ if is_delayed => WhyThen::Overloaded,
        (None, _) | (_, None) => WhyThen::AtOnce,
        (Some(last), Some(due_at)) => why_due(last, due_at, queued.step, schedule),
    };
    // A test has no schedule: its first failure ends it.
    let waits = if delivery.cause == DeliveryCause::Test { Duration::ZERO } else { waits_from(schedule, queued.step) };
    Explanation {
        next_at,
        why_then: Some(why_then),
        gives_up_at: next_at.map(|next| next.plus(waits)),
        ..stands(delivery, cause, if endpoint.listener.is_some() { NextStep::Lease } else { NextStep::Attempt })
    }
}

/// Why a delivery is due at this instant, after this attempt.
fn why_due(last: &Attempt, due_at: Timestamp, step: u32, schedule: &RetrySchedule) -> WhyThen {
    match last.outcome {
        AttemptOutcome::Abandoned => return WhyThen::AtOnce,
        outcome if outcome.fault() == Fault::Sender => return WhyThen::SenderFault,
        _ => {}
    }
    let wait = step.checked_sub(1).and_then(|used| schedule.step(used));
    if asked_for(last, due_at, wait) {
        return WhyThen::RetryAfter;
    }
    match wait {
        // A failed probe uses no step.
        None => WhyThen::AtOnce,
        Some(_) => WhyThen::Schedule { step, steps: schedule.steps() },
    }
}

/// Whether the receiver's `Retry-After` set this instant: it asked for at least the shortest wait of the step, and the
/// instant is what it asked for.
fn asked_for(last: &Attempt, due_at: Timestamp, wait: Option<Duration>) -> bool {
    let ended_at = last.started_at.plus(Duration::from_millis(last.duration_ms.into()));
    let asked = last.response_headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
    let Some(asked) = asked.and_then(|(_, value)| parse_retry_after(value, ended_at)) else { return false };
    let shortest = wait.map_or(Duration::ZERO, |wait| wait.mul_f64(1.0 - JITTER));
    let asked_at = ended_at.plus(asked);
    let is_near = due_at <= asked_at.plus(RECORDED_WITHIN) && asked_at <= due_at.plus(RECORDED_WITHIN);
    asked >= shortest && asked > Duration::ZERO && is_near
}

/// How far the instant from which the wait counts is from the end of the attempt, in the usual case: it is when the
/// outcome is recorded, by the clock of the store.
const RECORDED_WITHIN: Duration = Duration::from_secs(5);

/// The sum of the waits from this step on.
fn waits_from(schedule: &RetrySchedule, step: u32) -> Duration {
    (step..schedule.steps()).filter_map(|index| schedule.step(index)).sum()
}

/// When what waits since then fails as expired.
fn expires_at(since: Timestamp, queued: &Queued) -> Timestamp {
    queued.due_at.map_or(since, |due| due.max(since)).plus(limits::WAITING_MAX)
}

#[cfg(test)]
#[path = "explanation_tests.rs"]
mod tests;
