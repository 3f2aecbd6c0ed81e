//! What follows from a seed before anything happens.

use crate::chance::Chance;

/// What the callers, the receivers and the machine of a world may do. Each world has a random part of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    Batch,
    Dedupe,
    Project,
    TestMode,
    Patch,
    Disable,
    Delete,
    Rotate,
    Overlap,
    Revoke,
    TestEvent,
    Retry,
    Replay,
    Strict,
    Erase,
    Retention,
    Payloads,
    Rate,
    Errors,
    Gone,
    RetryAfter,
    Timeouts,
    Resets,
    Slow,
    Power,
    Kill,
    Stop,
    FlushError,
    SlowFlush,
}

impl Feature {
    pub const ALL: [Self; 29] = [
        Self::Batch,
        Self::Dedupe,
        Self::Project,
        Self::TestMode,
        Self::Patch,
        Self::Disable,
        Self::Delete,
        Self::Rotate,
        Self::Overlap,
        Self::Revoke,
        Self::TestEvent,
        Self::Retry,
        Self::Replay,
        Self::Strict,
        Self::Erase,
        Self::Retention,
        Self::Payloads,
        Self::Rate,
        Self::Errors,
        Self::Gone,
        Self::RetryAfter,
        Self::Timeouts,
        Self::Resets,
        Self::Slow,
        Self::Power,
        Self::Kill,
        Self::Stop,
        Self::FlushError,
        Self::SlowFlush,
    ];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Faults until the end.
    Safety,
    /// Then the faults stop, and everything must end.
    Liveness,
}

#[derive(Clone, Debug)]
pub struct Options {
    pub seed: u64,
    pub mode: Mode,
    pub features: Vec<Feature>,
    pub steps: usize,
    /// The longest wait between two steps.
    pub pause_ms: usize,
    pub slots: usize,
    pub slots_per_endpoint: usize,
    /// The retry schedule, in seconds.
    pub schedule: Vec<u64>,
    pub attempt_deadline_ms: u64,
    /// How long the log is kept.
    pub retention_s: u64,
    pub payload_retention_s: u64,
    /// The longest flush.
    pub flush_ms: u64,
}

const DAY_S: u64 = 86_400;

impl Options {
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed);
        let density = chance.pick(&[2, 2, 3, 4]);
        let mut features = Feature::ALL.to_vec();
        features.retain(|_| chance.below(density) > 0 || density == 2 && chance.one_in(2));
        let has = |feature| features.contains(&feature);
        let retention_s = if has(Feature::Retention) { chance.pick(&[60, 120, 300]) } else { 30 * DAY_S };
        let schedule: &[u64] = chance.pick(&[&[1], &[1, 5, 30], &[2, 2, 2, 2], &[5, 60, 300]]);
        Self {
            seed,
            mode: if chance.one_in(3) { Mode::Liveness } else { Mode::Safety },
            steps: 20 + chance.below(100),
            pause_ms: chance.pick(&[20, 300, 3000, 10_000]),
            slots: chance.pick(&[4, 8, 64]),
            slots_per_endpoint: chance.pick(&[1, 2, 8]),
            schedule: schedule.to_vec(),
            attempt_deadline_ms: chance.pick(&[1000, 5000, 15_000]),
            retention_s,
            payload_retention_s: if has(Feature::Payloads) { 60.min(retention_s) } else { retention_s },
            flush_ms: chance.pick(&[0, 2, 5, 20]),
            features,
        }
    }

    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}
