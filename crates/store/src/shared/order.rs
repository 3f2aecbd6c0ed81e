//! Words of strict order (told in `store/sqlite/order.rs`).

use crate::SkipDeliveryError;
use postrider_domain::access::Mode;
use postrider_domain::endpoint_options::{DeliveryOrder, EndpointOptions};
use postrider_domain::time::Timestamp;

/// When a row is due whose turn has not come.
pub const NOT_YET: Timestamp = Timestamp::from_millis(i64::MAX);

/// Where a new delivery stands in its endpoint's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Outside,
    /// Behind all that were accepted before.
    Last,
    /// In the place of one that failed there.
    InPlaceOf(i64),
}

/// A place in the order of a lane.
pub struct Place {
    pub sequence: i64,
    /// Nothing stands before it.
    pub is_head: bool,
}

/// Whether what is published in this mode takes a place in the endpoint's order. What a test key publishes is not sent, so
/// there is nothing to order.
pub fn is_ordered(options: &EndpointOptions, mode: Mode) -> bool {
    options.ordering == DeliveryOrder::Strict && mode == Mode::Live
}

/// Why nothing was skipped.
pub enum SkipRefusal {
    NotFound,
    NotBlocking,
}

impl From<SkipRefusal> for SkipDeliveryError {
    fn from(refusal: SkipRefusal) -> Self {
        match refusal {
            SkipRefusal::NotFound => Self::NotFound,
            SkipRefusal::NotBlocking => Self::NotBlocking,
        }
    }
}
