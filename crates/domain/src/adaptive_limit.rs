//! How many attempts may be in flight to one endpoint at once: a limit that follows how the endpoint answers.
//!
//! - It starts at [`limits::SLOTS_AT_FIRST`] and grows by one with every answer that takes less than [`limits::QUICK`].
//! - A slower answer shrinks it to three quarters, but not below [`limits::SLOTS_WHEN_SLOW`].
//! - A sign of overload halves it: no complete answer, or a status of 429, 502, 503 or 504.
//! - After a successful probe of a paused endpoint it starts from one.
//!
//! Everything here is a pure function of the samples. What counts as an attempt in flight is the caller's business.

use std::time::Duration;

use super::attempt::AttemptOutcome;
use super::endpoint_health::is_busy;
use super::limits;

/// The limit of one endpoint and what it is derived from.
#[derive(Clone, Copy, Debug)]
pub struct AdaptiveLimit {
    in_flight: usize,
    fast: bool,
    /// A moving average of how long the endpoint's exchanges take; `None` before the first.
    mean_ms: Option<f32>,
}

/// What one attempt showed of its endpoint.
#[derive(Clone, Copy, Debug)]
pub struct AttemptSample {
    pub outcome: AttemptOutcome,
    /// Of the answer, if its head came.
    pub status: Option<u16>,
    pub duration: Duration,
    /// The attempt was the probe of a paused endpoint.
    pub probe: bool,
}

/// The weight of one exchange in the moving average.
const MEAN_WEIGHT: f32 = 0.2;

impl AdaptiveLimit {
    /// Before the first sample. `max` is the most that any endpoint may have.
    pub fn initial(max: usize) -> Self {
        Self { in_flight: limits::SLOTS_AT_FIRST.min(max), fast: false, mean_ms: None }
    }

    /// Attempts that may be in flight to the endpoint at once; at least one after the first sample.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Whether the endpoint's exchanges take less than [`limits::QUICK`] on average. An endpoint without samples is not
    /// fast.
    pub fn is_fast(&self) -> bool {
        self.fast
    }

    /// Deliveries to claim beyond the limit: as many as a fast endpoint takes while the store writes the next claims.
    pub fn claims_ahead(&self) -> usize {
        match self.mean_ms {
            Some(mean_ms) if self.fast => {
                let rounds = limits::CLAIMED_AHEAD.as_secs_f32() * 1000.0 / mean_ms.max(0.1);
                // The cast loses nothing: the number is small and its fraction is not wanted.
                self.in_flight * (rounds as usize).min(limits::CLAIMED_AHEAD_TURNS)
            }
            _ => 0,
        }
    }

    /// The limit after one more sample. An attempt that failed through a fault of ours changes nothing.
    #[must_use]
    pub fn after(self, sample: AttemptSample, max: usize) -> Self {
        let AttemptSample { outcome, status, duration, probe } = sample;
        let overloaded = match outcome {
            AttemptOutcome::Delivered
            | AttemptOutcome::HttpError
            | AttemptOutcome::Redirect
            | AttemptOutcome::Gone
            | AttemptOutcome::InvalidResponse => status.is_some_and(is_busy),
            AttemptOutcome::Timeout
            | AttemptOutcome::ConnectFailed
            | AttemptOutcome::ConnectionClosed
            | AttemptOutcome::TlsFailed
            | AttemptOutcome::DnsFailed => true,
            AttemptOutcome::SsrfBlocked
            | AttemptOutcome::Simulated
            | AttemptOutcome::Abandoned
            | AttemptOutcome::ProxyFailed
            | AttemptOutcome::ProxyRefused
            | AttemptOutcome::DnsUnavailable
            | AttemptOutcome::InternalError => return self,
        };
        let duration_ms = duration.as_secs_f32() * 1000.0;
        let mean_ms = self.mean_ms.map_or(duration_ms, |mean| mean + MEAN_WEIGHT * (duration_ms - mean));
        let fast = Duration::from_secs_f32(mean_ms / 1000.0) < limits::QUICK;
        let in_flight = if overloaded {
            self.in_flight / 2
        } else if probe {
            1
        } else if duration < limits::QUICK {
            self.in_flight + 1
        } else {
            (self.in_flight * 3 / 4).max(limits::SLOTS_WHEN_SLOW.min(self.in_flight))
        };
        Self { in_flight: in_flight.clamp(1, max), fast, mean_ms: Some(mean_ms) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64;
    const FAST: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_secs(14);

    fn answered(duration: Duration) -> AttemptSample {
        AttemptSample { outcome: AttemptOutcome::Delivered, status: Some(200), duration, probe: false }
    }

    fn failed(outcome: AttemptOutcome, status: Option<u16>) -> AttemptSample {
        AttemptSample { outcome, status, duration: FAST, probe: false }
    }

    fn after_many(limit: AdaptiveLimit, count: usize, sample: AttemptSample) -> AdaptiveLimit {
        (0..count).fold(limit, |limit, _| limit.after(sample, MAX))
    }

    #[test]
    fn fast_answers_raise_the_limit_and_slow_ones_lower_it() {
        let limit = AdaptiveLimit::initial(MAX).after(answered(FAST), MAX);
        assert_eq!(limit.in_flight(), limits::SLOTS_AT_FIRST + 1);
        let limit = after_many(limit, 100, answered(FAST));
        assert_eq!(limit.in_flight(), MAX);
        let limit = after_many(limit, 100, answered(SLOW));
        assert_eq!(limit.in_flight(), limits::SLOTS_WHEN_SLOW, "a slow endpoint that answers keeps a few");
    }

    #[test]
    fn signs_of_overload_halve_the_limit_and_nothing_else_does() {
        let limit = after_many(AdaptiveLimit::initial(MAX), 100, answered(FAST));
        let limit = limit.after(failed(AttemptOutcome::HttpError, Some(503)), MAX);
        assert_eq!(limit.in_flight(), 32);
        let limit = limit.after(failed(AttemptOutcome::ConnectFailed, None), MAX);
        assert_eq!(limit.in_flight(), 16);
        let limit = after_many(limit, 9, failed(AttemptOutcome::Timeout, None));
        assert_eq!(limit.in_flight(), 1);
        let limit = limit.after(failed(AttemptOutcome::InternalError, None), MAX);
        assert_eq!(limit.in_flight(), 1, "a fault of ours says nothing about the endpoint");
        let limit = limit.after(failed(AttemptOutcome::HttpError, Some(500)), MAX);
        assert_eq!(limit.in_flight(), 2, "a fast 500 is an answer without a sign of overload");
    }

    #[test]
    fn a_resumed_endpoint_starts_from_one() {
        let limit = after_many(AdaptiveLimit::initial(MAX), 100, answered(FAST));
        let limit = limit.after(AttemptSample { probe: true, ..answered(FAST) }, MAX);
        assert_eq!(limit.in_flight(), 1);
        assert_eq!(limit.after(answered(FAST), MAX).in_flight(), 2);
    }

    #[test]
    fn only_a_very_fast_endpoint_has_claims_ahead() {
        let ahead = |millis| {
            let limit = AdaptiveLimit::initial(4).after(answered(Duration::from_millis(millis)), 4);
            (limit.in_flight(), limit.claims_ahead())
        };
        assert_eq!(ahead(1), (4, 3 * 4), "three times as many as may be in flight");
        assert_eq!(ahead(10), (4, 2 * 4));
        assert_eq!(ahead(21), (4, 0));
        assert_eq!(AdaptiveLimit::initial(4).claims_ahead(), 0);
    }

    proptest! {
        #[test]
        fn the_limit_stays_between_one_and_the_maximum(
            max in 1_usize..100,
            samples in proptest::collection::vec((0_u64..20_000, any::<bool>(), any::<bool>()), 1..200),
        ) {
            let mut limit = AdaptiveLimit::initial(max);
            for (millis, timed_out, probe) in samples {
                let duration = Duration::from_millis(millis);
                let sample = if timed_out {
                    AttemptSample { duration, probe, ..failed(AttemptOutcome::Timeout, None) }
                } else {
                    AttemptSample { probe, ..answered(duration) }
                };
                limit = limit.after(sample, max);
                prop_assert!((1..=max).contains(&limit.in_flight()));
                prop_assert!(limit.is_fast() || limit.claims_ahead() == 0);
            }
        }
    }
}
