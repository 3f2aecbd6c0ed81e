//! What the writer knows of lanes without asking: `lanes.next_at` of those that are not held, as this thread wrote it.
//!
//! The writer alone writes lanes, so what it remembers is exact until a rollback, which forgets everything. It spares a
//! statement for each delivery where the bound in the table is low enough already.

use std::collections::HashMap;

use crate::domain::time::Timestamp;

/// Lanes remembered; beyond it all are forgotten and read again when needed.
const LANES_KEPT: usize = 100_000;

/// What is known of a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneBound {
    /// Nothing lies in it.
    Empty,
    /// Nothing in it is due before this instant.
    NotBefore(Timestamp),
    /// Its endpoint is off.
    Held,
}

#[derive(Default)]
pub struct LaneBounds(HashMap<i64, LaneBound>);

impl LaneBounds {
    pub fn get(&self, lane_key: i64) -> Option<LaneBound> {
        self.0.get(&lane_key).copied()
    }

    pub fn set(&mut self, lane_key: i64, bound: LaneBound) {
        if self.0.len() >= LANES_KEPT {
            self.0.clear();
        }
        self.0.insert(lane_key, bound);
    }

    pub fn forget(&mut self, lane_key: i64) {
        self.0.remove(&lane_key);
    }

    pub fn forget_everything(&mut self) {
        self.0.clear();
    }
}
