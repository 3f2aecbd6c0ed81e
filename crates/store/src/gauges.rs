//! Gauges of the store as a whole, for metrics. They are read in the background, never at a scrape.
//!
//! How many rows are in which state cannot be told from the writes: a scheduled delivery falls due, and a lane is held,
//! without a write to its rows. So the rows are counted now and then, in steps that are short wherever the cursor is.

use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::endpoint::EndpointState;

use crate::StoreError;
use crate::queue::order::NOT_YET;
use crate::registry::endpoint::is_in_state;

#[async_trait]
pub trait Gauges: Send + Sync + 'static {
    /// Whether this process reads these gauges. Of several nodes one does.
    fn reads_gauges(&self) -> bool {
        true
    }

    /// How long the oldest due delivery has been due. `None` if nothing is due. Lanes that are held, paused or delayed
    /// do not count. Of many lanes with something due, only those are looked at that have waited longest.
    async fn oldest_due(&self) -> Result<Option<Duration>, StoreError>;

    /// Counts up to `limit` rows behind `after` by their state.
    async fn count_states(&self, part: StatePart, after: i64, limit: usize) -> Result<StateStep, StoreError>;

    async fn size(&self) -> Result<StoreSize, StoreError>;
}

/// Rows that are counted by state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatePart {
    Deliveries,
    Lanes,
    Endpoints,
}

/// The most states that a part has.
pub const STATES: usize = 5;

/// The result of one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateStep {
    /// By the position of the state among the label values of the metrics.
    pub counts: [u64; STATES],
    /// Where the next step begins. `None` at the end.
    pub next: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreSize {
    pub bytes: u64,
    /// Of these, bytes that hold nothing. `None` where that is not known.
    pub free_bytes: Option<u64>,
}

/// The lanes that [`Gauges::oldest_due`] looks at.
pub const LANES_LOOKED_AT: i64 = 64;

impl StateStep {
    /// From the rows of a step: state, count and largest key of each. A state that is none, as of a deleted endpoint,
    /// is only passed.
    pub fn of(rows: impl IntoIterator<Item = (i64, u64, i64)>, limit: usize) -> Self {
        let (mut counts, mut passed, mut last) = ([0; STATES], 0, None);
        for (state, count, key) in rows {
            if let Some(of_state) = usize::try_from(state).ok().and_then(|state| counts.get_mut(state)) {
                *of_state += count;
            }
            passed += count;
            last = last.max(Some(key));
        }
        Self { counts, next: last.filter(|_| passed >= limit as u64) }
    }
}

/// The state of a row as a number, in words that both databases accept: the position among the label values of the
/// metrics, and -1 for a row that does not count. `now` is the parameter of the instant. The columns are those of the
/// tables that a part joins.
pub fn state_of(part: StatePart, now: &str) -> String {
    // A delivery to a listener waits for a consumer, whether or not it is due.
    const LISTENERS: i64 = NOT_YET.millis();
    match part {
        StatePart::Deliveries => format!(
            "CASE WHEN claim_token IS NOT NULL AND due_at > {now} THEN 3
                  WHEN held_since IS NOT NULL OR paused_since IS NOT NULL OR not_before = {LISTENERS} THEN 2
                  WHEN due_at <= {now} THEN 0 ELSE 1 END"
        ),
        StatePart::Lanes => format!(
            "CASE WHEN held_since IS NOT NULL THEN 3 WHEN paused_since IS NOT NULL THEN 2
                  WHEN next_at <= {now} THEN 0 ELSE 1 END"
        ),
        StatePart::Endpoints => {
            let states = [
                EndpointState::Ok,
                EndpointState::Failing,
                EndpointState::Paused,
                EndpointState::Disabled,
                EndpointState::Off,
            ];
            let cases: Vec<String> = states
                .into_iter()
                .enumerate()
                .filter_map(|(position, state)| Some(format!("WHEN {} THEN {position}", is_in_state(&[state])?)))
                .collect();
            format!("CASE WHEN deleted_at IS NOT NULL THEN -1 {} ELSE -1 END", cases.join(" "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_step_goes_on_behind_its_last_row() {
        let step = StateStep::of([(0, 2, 17), (3, 1, 90), (-1, 4, 40)], 7);
        assert_eq!(step, StateStep { counts: [2, 0, 0, 1, 0], next: Some(90) });
        assert_eq!(StateStep::of([(0, 2, 17), (-1, 4, 40)], 7).next, None);
        assert_eq!(StateStep::of([], 7), StateStep::default());
    }
}
