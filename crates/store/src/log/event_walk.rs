//! In which order a page of events looks for its rows. The back ends turn a walk into SQL.

use postrider_domain::event::EventFilter;
use postrider_domain::tenant::Tenant;

/// The index that a page of events follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventWalk {
    /// At most one event for each: they are sorted.
    OfExternalIds,
    /// Events that no active endpoint was subscribed to.
    WithoutDeliveries,
    OfWorkspace,
}

impl EventWalk {
    pub const fn of(filter: &EventFilter) -> Self {
        if !filter.external_ids.is_empty() {
            Self::OfExternalIds
        } else if filter.matched_none {
            Self::WithoutDeliveries
        } else {
            Self::OfWorkspace
        }
    }

    /// Whether the filter may reject rows of this walk, so that the rows looked at must be bounded.
    pub const fn is_sparse(self, tenant: Tenant, filter: &EventFilter) -> bool {
        match self {
            Self::OfExternalIds => false,
            // Some matched only endpoints that were not active.
            Self::WithoutDeliveries => true,
            Self::OfWorkspace => {
                tenant.project.is_some() || !filter.event_types.is_empty() || !filter.project_ids.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::access::Mode;
    use postrider_domain::event_type::EventTypeName;
    use postrider_domain::id::RowKey;
    use postrider_domain::list_filter::filter_from_pairs;

    #[test]
    fn a_walk_is_sparse_when_its_index_leaves_events_to_reject() {
        let whole = Tenant::whole(RowKey::from_i64(1), Mode::Live);
        let first = |pairs: &[(&str, &str)]| {
            let filter: EventFilter =
                filter_from_pairs(pairs.iter().copied(), &|name| Ok(EventTypeName::from_stored(name))).unwrap();
            (EventWalk::of(&filter), EventWalk::of(&filter).is_sparse(whole, &filter))
        };
        assert_eq!(first(&[]), (EventWalk::OfWorkspace, false));
        assert_eq!(first(&[("type", "a.b")]), (EventWalk::OfWorkspace, true));
        assert_eq!(first(&[("projectId", "p")]), (EventWalk::OfWorkspace, true));
        assert_eq!(first(&[("deliveries", "none")]), (EventWalk::WithoutDeliveries, true));
        assert_eq!(first(&[("deliveries", "none"), ("externalId", "x")]), (EventWalk::OfExternalIds, false));
    }
}
