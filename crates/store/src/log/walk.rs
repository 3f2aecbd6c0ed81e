//! In which order a page of the delivery log looks for its rows. The back ends turn a walk into SQL.

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::limits;
use postrider_domain::tenant::Tenant;

/// The index that a page of deliveries follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    OfEvent,
    /// Pending deliveries are in the queue, which is short even when the log is long.
    Queue,
    /// Rows of one status other than `pending` and `delivered`: these are few.
    Unusual,
    OfEndpoint,
    /// The rows of each endpoint of the project that the tenant is narrowed to, merged.
    OfProject,
    OfWorkspace,
}

impl Walk {
    pub fn of(tenant: Tenant, filter: &DeliveryFilter) -> Self {
        match filter {
            DeliveryFilter { event_id: Some(_), .. } => Self::OfEvent,
            DeliveryFilter { status: Some(DeliveryStatus::Pending), .. } => Self::Queue,
            DeliveryFilter { status: Some(status), .. } if *status != DeliveryStatus::Delivered => Self::Unusual,
            DeliveryFilter { endpoint_id: Some(_), .. } => Self::OfEndpoint,
            _ if tenant.project.is_some() => Self::OfProject,
            _ => Self::OfWorkspace,
        }
    }

    /// Whether the filter may reject rows of this walk, so that the rows looked at must be bounded apart from the rows
    /// found.
    pub fn is_sparse(self, tenant: Tenant, filter: &DeliveryFilter) -> bool {
        let (by_type, by_status) = (filter.event_type.is_some(), filter.status.is_some());
        match self {
            Self::OfEvent => false,
            Self::Queue => true,
            Self::Unusual => by_type || filter.endpoint_id.is_some() || tenant.project.is_some(),
            // The endpoint may have received events of another project before it came to this one.
            Self::OfEndpoint => by_type || by_status || tenant.project.is_some(),
            Self::OfProject | Self::OfWorkspace => by_type || by_status,
        }
    }
}

/// How many rows of each endpoint of a project one page looks at. Each gives at least a full page, so a page of a
/// filter that passes everything is never short.
pub fn rows_per_endpoint(endpoints: usize, page_limit: u32, is_sparse: bool) -> i64 {
    let full = page_limit + 1;
    let share = limits::LOG_ROWS_PER_PAGE / u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX);
    i64::from(if is_sparse { full.max(share) } else { full })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::access::Mode;
    use postrider_domain::endpoint::ProjectId;
    use postrider_domain::event_type::EventTypeName;
    use postrider_domain::id::RowKey;

    #[test]
    fn a_walk_is_sparse_when_its_index_leaves_rows_to_reject() {
        let whole = Tenant::whole(RowKey::from_i64(1), Mode::Live);
        let of_type = DeliveryFilter { event_type: Some(EventTypeName::from_stored("a.b")), ..Default::default() };
        let failed = DeliveryFilter { status: Some(DeliveryStatus::Failed), ..Default::default() };
        let delivered = DeliveryFilter { status: Some(DeliveryStatus::Delivered), ..Default::default() };
        let pending = DeliveryFilter { status: Some(DeliveryStatus::Pending), ..Default::default() };
        let found = [DeliveryFilter::default(), of_type, failed, delivered, pending]
            .map(|filter| (Walk::of(whole, &filter), Walk::of(whole, &filter).is_sparse(whole, &filter)));
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

    #[test]
    fn a_project_follows_its_own_endpoints() {
        let project = ProjectId::parse("p").ok();
        let tenant = Tenant { project, ..Tenant::whole(RowKey::from_i64(1), Mode::Live) };
        let all = DeliveryFilter::default();
        assert_eq!(Walk::of(tenant, &all), Walk::OfProject);
        assert!(!Walk::OfProject.is_sparse(tenant, &all));
        assert!(Walk::OfEndpoint.is_sparse(tenant, &all), "it may have been in another project");
        assert_eq!(rows_per_endpoint(500, 50, false), 51);
        assert_eq!(rows_per_endpoint(500, 50, true), 100);
        assert_eq!(rows_per_endpoint(0, 50, true), i64::from(limits::LOG_ROWS_PER_PAGE));
    }
}
