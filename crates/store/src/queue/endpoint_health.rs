//! What an attempt changes in an endpoint's health: decided here, stored by the back ends.

use postrider_domain::endpoint::DisabledReason;
use postrider_domain::endpoint_health::{Failure, FailureStreak, HealthChange, Signal};
use postrider_domain::operational_event::OperationalEvent;
use postrider_domain::time::Timestamp;

/// One change. A back end applies them in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthStep {
    /// Delete the stored failures.
    Forget,
    /// Store the failures.
    Keep(FailureStreak),
    /// Make the head of a strict order due by this instant: a paused endpoint's probe is the head.
    AdvanceHead(Timestamp),
    /// Claim nothing of the lane before `until`.
    DelayLane {
        until: Timestamp,
        paused_since: Option<Timestamp>,
    },
    /// Claim from the lane again.
    ResumeLane,
    Report(OperationalEvent),
    Disable(DisabledReason),
}

/// The changes after an attempt at `now`. `before` are the stored failures.
pub fn steps(before: Option<FailureStreak>, signal: Signal, now: Timestamp) -> Vec<HealthStep> {
    match (signal, before) {
        (Signal::Failure(failure), before) => after_failure(before, failure, now),
        (Signal::Success, Some(before)) => after_success(&before),
        (Signal::Success, None) | (Signal::Nothing, _) => Vec::new(),
    }
}

fn after_success(before: &FailureStreak) -> Vec<HealthStep> {
    let mut steps = vec![HealthStep::Forget, HealthStep::ResumeLane];
    steps.extend(before.since().map(|_| HealthStep::Report(OperationalEvent::EndpointRecovered)));
    steps
}

fn after_failure(before: Option<FailureStreak>, failure: Failure, now: Timestamp) -> Vec<HealthStep> {
    let after = FailureStreak::after_failure(before, now, failure);
    let mut steps = vec![HealthStep::Keep(after.failure_streak)];
    // A probe may be under way. An attempt from before the pause does not change when the next probe goes.
    let was_paused_and_no_probe = before.is_some_and(|before| before.pause.is_some()) && !failure.probe;
    if let Some(until) = after.not_before.filter(|until| !was_paused_and_no_probe || *until > now) {
        steps.extend(after.failure_streak.pause.map(|pause| HealthStep::AdvanceHead(pause.next_probe_at)));
        steps.push(HealthStep::DelayLane { until, paused_since: after.failure_streak.pause.map(|pause| pause.since) });
    }
    steps.extend(after.change.map(|change| match change {
        HealthChange::Disable => HealthStep::Disable(DisabledReason::Failing),
        HealthChange::Failing | HealthChange::DisabledSoon => HealthStep::Report(OperationalEvent::EndpointFailing),
        HealthChange::Paused => HealthStep::Report(OperationalEvent::EndpointPaused),
    }));
    steps
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use postrider_domain::limits;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000_000_000);
    const FAILURE: Failure = Failure { probe: false, busy: false, retry_after: None };

    fn failures(count: u32) -> FailureStreak {
        let first_failure_at = NOW.minus(limits::PAUSE_SPAN);
        FailureStreak { first_failure_at, failures: count, pause: None, warned: false }
    }

    #[test]
    fn a_success_changes_nothing_for_a_healthy_endpoint() {
        assert_eq!(steps(None, Signal::Success, NOW), []);
        assert_eq!(steps(Some(failures(9)), Signal::Nothing, NOW), []);
    }

    #[test]
    fn a_recovery_is_reported_only_after_a_reported_state() {
        let recovered = HealthStep::Report(OperationalEvent::EndpointRecovered);
        let quiet = steps(Some(failures(1)), Signal::Success, NOW);
        assert_eq!(quiet, [HealthStep::Forget, HealthStep::ResumeLane]);
        let failing = steps(Some(failures(limits::FAILING_FAILURES)), Signal::Success, NOW);
        assert_eq!(failing, [HealthStep::Forget, HealthStep::ResumeLane, recovered]);
    }

    #[test]
    fn a_pause_delays_the_lane_until_the_first_probe() {
        let steps = steps(Some(failures(limits::PAUSE_FAILURES - 1)), Signal::Failure(FAILURE), NOW);
        let until = NOW.plus(limits::PROBE_WAIT_MIN);
        assert_eq!(
            steps[1..],
            [
                HealthStep::AdvanceHead(until),
                HealthStep::DelayLane { until, paused_since: Some(NOW) },
                HealthStep::Report(OperationalEvent::EndpointPaused),
            ]
        );
    }

    #[test]
    fn a_failure_from_before_the_pause_moves_no_probe() {
        let paused = steps(Some(failures(limits::PAUSE_FAILURES - 1)), Signal::Failure(FAILURE), NOW);
        let HealthStep::Keep(paused) = paused[0] else { panic!("{paused:?}") };
        let later = NOW.plus(limits::PROBE_WAIT_MIN).plus(Duration::from_secs(1));
        let late = steps(Some(paused), Signal::Failure(FAILURE), later);
        assert!(matches!(late[..], [HealthStep::Keep(_)]), "{late:?}");
        let probe = Failure { probe: true, ..FAILURE };
        let probed = steps(Some(paused), Signal::Failure(probe), later);
        assert!(matches!(probed[..], [_, HealthStep::AdvanceHead(_), HealthStep::DelayLane { .. }]), "{probed:?}");
    }
}
