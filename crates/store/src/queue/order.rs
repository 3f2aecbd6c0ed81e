//! Strict order of an endpoint's deliveries.
//!
//! A delivery has a position (`due.sequence`), allocated in the transaction that accepts its event. Only the head of a
//! lane is ever due. The rest is parked at [`NOT_YET`] and moves up one by one. A head that failed stops the order
//! until it is skipped or retried.

use postrider_domain::access::Mode;
use postrider_domain::delivery::EndReason;
use postrider_domain::endpoint_options::{DeliveryOrder, EndpointOptions};
use postrider_domain::time::Timestamp;

/// `due_at` of a row behind the head.
pub const NOT_YET: Timestamp = Timestamp::from_millis(i64::MAX);

/// Where a new delivery goes in its endpoint's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OrderPlacement {
    Outside,
    /// Behind all deliveries accepted before.
    Last,
    /// At the position of a delivery that failed there.
    InPlaceOf(i64),
}

/// A position in the order of a lane.
pub struct Position {
    pub sequence: i64,
    /// Nothing is before it.
    pub is_head: bool,
}

/// Whether an event published in this mode takes a position in the endpoint's order. An event of test mode is not sent,
/// so it has no order.
pub fn is_ordered(options: &EndpointOptions, mode: Mode) -> bool {
    options.ordering == DeliveryOrder::Strict && mode == Mode::Live
}

/// Whether a delivery that ended so stops the order. One whose event is gone does not: nothing could be retried or
/// shown.
pub const fn blocks(reason: Option<EndReason>) -> bool {
    matches!(reason, Some(EndReason::Exhausted | EndReason::Expired))
}
