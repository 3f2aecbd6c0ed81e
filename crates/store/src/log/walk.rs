//! In which order a page of the delivery log looks for its rows. The back ends turn a walk into SQL.

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};

/// The index that a page of deliveries follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    OfEvent,
    /// Pending deliveries are in the queue, which is short even when the log is long.
    Queue,
    /// Rows of one status other than `pending` and `delivered`: these are few.
    Unusual,
    OfEndpoint,
    OfWorkspace,
}

impl Walk {
    pub fn of(filter: &DeliveryFilter) -> Self {
        match filter {
            DeliveryFilter { event_id: Some(_), .. } => Self::OfEvent,
            DeliveryFilter { status: Some(DeliveryStatus::Pending), .. } => Self::Queue,
            DeliveryFilter { status: Some(status), .. } if *status != DeliveryStatus::Delivered => Self::Unusual,
            DeliveryFilter { endpoint_id: Some(_), .. } => Self::OfEndpoint,
            _ => Self::OfWorkspace,
        }
    }

    /// Whether the filter may reject rows of this walk, so that the rows looked at must be bounded apart from the rows
    /// found.
    pub fn is_sparse(self, filter: &DeliveryFilter) -> bool {
        let (by_type, by_status) = (filter.event_type.is_some(), filter.status.is_some());
        match self {
            Self::OfEvent => false,
            Self::Queue => true,
            Self::Unusual => by_type || filter.endpoint_id.is_some(),
            Self::OfEndpoint | Self::OfWorkspace => by_type || by_status,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::event_type::EventTypeName;

    #[test]
    fn a_walk_is_sparse_when_its_index_leaves_rows_to_reject() {
        let of_type = DeliveryFilter { event_type: Some(EventTypeName::from_stored("a.b")), ..Default::default() };
        let failed = DeliveryFilter { status: Some(DeliveryStatus::Failed), ..Default::default() };
        let delivered = DeliveryFilter { status: Some(DeliveryStatus::Delivered), ..Default::default() };
        let pending = DeliveryFilter { status: Some(DeliveryStatus::Pending), ..Default::default() };
        let found = [DeliveryFilter::default(), of_type, failed, delivered, pending]
            .map(|filter| (Walk::of(&filter), Walk::of(&filter).is_sparse(&filter)));
        assert_eq!(
            found,
            [
                (Walk::OfWorkspace, false),
                (Walk::OfWorkspace, true),
                (Walk::Unusual, false),
                (Walk::OfWorkspace, true),
                (Walk::Queue, true),
            ]
        );
    }
}
