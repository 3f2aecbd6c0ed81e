//! Lanes: how the tables number them, and what a back end remembers of one.

use postrider_domain::id::RowKey;
use postrider_domain::time::Timestamp;

use crate::{Lane, LaneKind};

pub const fn lane_of(lane_key: i64, workspace_key: RowKey) -> Lane {
    Lane {
        endpoint_key: RowKey::from_i64(lane_key.abs()),
        workspace_key,
        kind: if lane_key < 0 { LaneKind::Tests } else { LaneKind::Events },
    }
}

/// The lane's number in the tables: the endpoint's key, negated for tests.
pub const fn lane_key(lane: Lane) -> i64 {
    match lane.kind {
        LaneKind::Events => lane.endpoint_key.as_i64(),
        LaneKind::Tests => -lane.endpoint_key.as_i64(),
    }
}

/// A lower bound on when a lane has something due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneBound {
    /// The lane has no row in the queue.
    Empty,
    /// Nothing is due before this instant.
    NotBefore(Timestamp),
    /// The endpoint is inactive, paused or slowed down.
    Held,
    /// The endpoint is a listener. The engine never visits the lane.
    OfListener,
}

impl LaneBound {
    /// Whether something may be due now, so that a newer delivery must not overtake it.
    pub fn may_have_due(self, now: Timestamp) -> bool {
        match self {
            Self::Empty => false,
            Self::NotBefore(next_at) => next_at <= now,
            Self::Held | Self::OfListener => true,
        }
    }
}
