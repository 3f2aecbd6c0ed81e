//! The number by which the tables know a lane, in either database: the endpoint's key, with its sign turned for tests.

use crate::{Lane, LaneKind};
use postrider_domain::id::RowKey;

pub const fn lane_of(lane_key: i64, workspace_key: RowKey) -> Lane {
    Lane {
        endpoint_key: RowKey::from_i64(lane_key.abs()),
        workspace_key,
        kind: if lane_key < 0 { LaneKind::Tests } else { LaneKind::Events },
    }
}

/// The number by which the tables know a lane.
pub const fn lane_key(lane: Lane) -> i64 {
    match lane.kind {
        LaneKind::Events => lane.endpoint_key.as_i64(),
        LaneKind::Tests => -lane.endpoint_key.as_i64(),
    }
}
