//! In which order a page of the delivery log looks for its rows. The back ends turn walks into SQL.

use postrider_domain::attempt::AttemptOutcome;
use postrider_domain::delivery::{Delivery, DeliveryCause, DeliveryFilter, DeliveryStatus};
use postrider_domain::id::RowKey;
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::tenant::Tenant;

/// The index that is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Walk {
    /// The events have few deliveries: they are sorted.
    OfEvents,
    /// Pending deliveries are in the queue, which is short even when the log is long.
    Queue,
    /// Rows of one status other than `pending` and `delivered`: these are few.
    Unusual(DeliveryStatus),
    /// Rows that failed or were cancelled after an attempt with this outcome.
    OfOutcome(AttemptOutcome),
    /// Rows that were made by hand.
    OfCause(DeliveryCause),
    OfEndpoint(RowKey),
    /// The rows of each endpoint of the project that the tenant is narrowed to, merged.
    OfProject,
    OfWorkspace,
}

impl Walk {
    /// Sets of walks, the most promising first. The walks of a set together meet each row that may pass. A set without
    /// walks says that no row passes. `endpoint_keys` are those of the filter's endpoints that the tenant has.
    ///
    /// In each set the queue comes first: a delivery that ends between two statements is then met twice, not missed.
    pub fn choices(tenant: Tenant, filter: &DeliveryFilter, endpoint_keys: &[RowKey]) -> Vec<Vec<Self>> {
        let statuses = filter.possible_statuses();
        let no_endpoint = !filter.endpoint_ids.is_empty() && endpoint_keys.is_empty();
        if statuses.is_empty() || no_endpoint {
            return vec![Vec::new()];
        }
        if !filter.event_ids.is_empty() {
            return vec![vec![Self::OfEvents]];
        }
        let mut choices = Vec::new();
        if !statuses.contains(&DeliveryStatus::Delivered) {
            choices.push(Self::by_status(filter, &statuses));
        }
        if !filter.causes.is_empty() && !filter.causes.contains(&DeliveryCause::Event) {
            choices.push(filter.causes.iter().copied().map(Self::OfCause).collect());
        }
        if !endpoint_keys.is_empty() {
            choices.push(endpoint_keys.iter().copied().map(Self::OfEndpoint).collect());
        }
        choices.push(vec![if tenant.project.is_some() { Self::OfProject } else { Self::OfWorkspace }]);
        choices
    }

    fn by_status(filter: &DeliveryFilter, statuses: &[DeliveryStatus]) -> Vec<Self> {
        let has_attempts =
            |status: &DeliveryStatus| matches!(status, DeliveryStatus::Failed | DeliveryStatus::Cancelled);
        let mut walks = Vec::new();
        for status in statuses {
            match status {
                DeliveryStatus::Pending => walks.push(Self::Queue),
                status if has_attempts(status) && !filter.outcomes.is_empty() => {}
                status => walks.push(Self::Unusual(*status)),
            }
        }
        if statuses.iter().any(has_attempts) {
            let is_stored = |outcome: &AttemptOutcome| !is_implied(*outcome);
            walks.extend(filter.outcomes.iter().copied().filter(is_stored).map(Self::OfOutcome));
        }
        walks
    }

    /// Whether the filter may reject rows of this walk, so that the rows looked at must be bounded apart from the rows
    /// found.
    pub fn is_sparse(self, tenant: Tenant, filter: &DeliveryFilter) -> bool {
        let by_event = !filter.event_types.is_empty() || !filter.project_ids.is_empty();
        let by_answer = !filter.response_statuses.is_empty();
        let (by_endpoint, by_status) = (!filter.endpoint_ids.is_empty(), !filter.statuses.is_empty());
        let (by_cause, by_outcome) = (!filter.causes.is_empty(), !filter.outcomes.is_empty());
        let by_project = tenant.project.is_some();
        let apart = match self {
            Self::OfEvents => return false,
            // It holds the rows of all tenants.
            Self::Queue => return true,
            Self::OfProject => by_endpoint || by_cause || by_status || by_outcome,
            // An endpoint may have received events of another project before it came to this one.
            _ if by_project => return true,
            Self::Unusual(_) => by_endpoint || by_cause || by_outcome,
            Self::OfOutcome(_) => by_endpoint || by_cause || by_status,
            Self::OfCause(_) => by_endpoint || by_status || by_outcome,
            Self::OfEndpoint(_) => by_cause || by_status || by_outcome,
            Self::OfWorkspace => by_endpoint || by_cause || by_status || by_outcome,
        };
        by_event || by_answer || apart
    }

    /// The rows that each walk of a set looks at for one page.
    pub fn rows_each(walks: &[Self]) -> u32 {
        limits::LOG_ROWS_PER_PAGE / u32::try_from(walks.len().max(1)).unwrap_or(u32::MAX)
    }
}

/// How many rows of each endpoint of a project one page looks at. Each gives at least a full page, so a page of a
/// filter that passes everything is never short.
pub fn rows_per_endpoint(endpoints: usize, page_limit: u32, is_sparse: bool) -> i64 {
    let full = page_limit.saturating_add(1);
    let share = limits::LOG_ROWS_PER_PAGE / u32::try_from(endpoints.max(1)).unwrap_or(u32::MAX);
    i64::from(if is_sparse { full.max(share) } else { full })
}

/// Whether the status of a delivery already says that its last attempt had this outcome. Only other outcomes are stored
/// with the delivery.
const fn is_implied(outcome: AttemptOutcome) -> bool {
    matches!(outcome, AttemptOutcome::Delivered | AttemptOutcome::Simulated)
}

/// The code of an outcome that the status of the delivery does not say.
pub fn stored_outcome(outcome: AttemptOutcome) -> Option<i64> {
    (!is_implied(outcome)).then_some(outcome.code())
}

/// A set of walks, and the oldest row that all of them look at. `None`: they look at all rows.
#[derive(Debug)]
pub struct ChosenWalks {
    pub walks: Vec<Walk>,
    pub cut: Option<RowKey>,
}

impl ChosenWalks {
    /// Of two sets of walks that were both cut, the one that reaches further back.
    #[must_use]
    pub fn or_further(best: Option<Self>, other: Self) -> Self {
        match best {
            Some(best) if best.cut <= other.cut => best,
            _ => other,
        }
    }

    /// Merges what the walks found, in their order, each up to one row more than the page has.
    pub fn merge(&self, page: PageRequest, found: Vec<Vec<Delivery>>) -> Page<Delivery> {
        let mut items: Vec<Delivery> = found.into_iter().rev().flatten().collect();
        // Sorting keeps the order of equal rows, so that the one that was read last stays.
        items.sort_by_key(|delivery| std::cmp::Reverse(delivery.id.key()));
        items.dedup_by_key(|delivery| delivery.id.key());
        page.cut(items, |delivery| delivery.id.key()).searched_from(self.cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postrider_domain::access::Mode;
    use postrider_domain::endpoint::ProjectId;
    use postrider_domain::event_type::EventTypeName;
    use postrider_domain::list_filter::filter_from_pairs;

    fn filter(pairs: &[(&str, &str)]) -> DeliveryFilter {
        filter_from_pairs(pairs.iter().copied(), &|name| Ok(EventTypeName::from_stored(name))).unwrap()
    }

    /// The most promising walks, each with whether it is sparse.
    fn first(pairs: &[(&str, &str)]) -> Vec<(Walk, bool)> {
        let filter = filter(pairs);
        let endpoints: Vec<RowKey> = filter.endpoint_ids.iter().map(|_| RowKey::from_i64(7)).collect();
        let walks = Walk::choices(whole(), &filter, &endpoints).swap_remove(0);
        walks.into_iter().map(|walk| (walk, walk.is_sparse(whole(), &filter))).collect()
    }

    fn whole() -> Tenant {
        Tenant::whole(RowKey::from_i64(1), Mode::Live)
    }

    #[test]
    fn a_project_follows_its_own_endpoints() {
        let tenant = Tenant { project: ProjectId::parse("p").ok(), ..whole() };
        let all = DeliveryFilter::default();
        assert_eq!(Walk::choices(tenant, &all, &[]), [vec![Walk::OfProject]]);
        assert!(!Walk::OfProject.is_sparse(tenant, &all));
        let of_endpoint = Walk::OfEndpoint(RowKey::from_i64(7));
        assert!(of_endpoint.is_sparse(tenant, &all), "it may have been in another project");
        assert_eq!(rows_per_endpoint(500, 50, false), 51);
        assert_eq!(rows_per_endpoint(100, 50, true), 100);
        assert_eq!(rows_per_endpoint(0, 50, true), i64::from(limits::LOG_ROWS_PER_PAGE));
    }

    const ENDPOINT: (&str, &str) = ("endpointId", "whe_a1b2c3d4e5f6g7h8");

    #[test]
    fn a_walk_is_sparse_when_its_index_leaves_rows_to_reject() {
        use AttemptOutcome::Timeout;
        use DeliveryStatus::{Cancelled, Failed, Skipped};
        let of_endpoint = Walk::OfEndpoint(RowKey::from_i64(7));
        assert_eq!(first(&[]), [(Walk::OfWorkspace, false)]);
        assert_eq!(first(&[("eventType", "a.b")]), [(Walk::OfWorkspace, true)]);
        assert_eq!(first(&[("projectId", "p")]), [(Walk::OfWorkspace, true)]);
        assert_eq!(first(&[("status", "delivered")]), [(Walk::OfWorkspace, true)]);
        assert_eq!(first(&[("status", "failed")]), [(Walk::Unusual(Failed), false)]);
        assert_eq!(
            first(&[("status", "skipped,pending")]),
            [(Walk::Queue, true), (Walk::Unusual(Skipped), false)],
            "the queue is first"
        );
        assert_eq!(first(&[("cause", "retry")]), [(Walk::OfCause(DeliveryCause::Retry), false)]);
        assert_eq!(first(&[("cause", "retry,event")]), [(Walk::OfWorkspace, true)]);
        assert_eq!(first(&[("outcome", "timeout")]), [(Walk::Queue, true), (Walk::OfOutcome(Timeout), false)]);
        assert_eq!(first(&[("outcome", "timeout"), ("status", "failed")]), [(Walk::OfOutcome(Timeout), true)]);
        assert_eq!(first(&[("outcome", "delivered")]), [(Walk::OfWorkspace, true)]);
        assert_eq!(
            first(&[("responseStatus", "5xx")]),
            [(Walk::Queue, true), (Walk::Unusual(Failed), true), (Walk::Unusual(Cancelled), true)]
        );
        assert_eq!(first(&[ENDPOINT]), [(of_endpoint, false)]);
        assert_eq!(first(&[ENDPOINT, ("status", "delivered")]), [(of_endpoint, true)]);
        assert_eq!(first(&[ENDPOINT, ("status", "failed")]), [(Walk::Unusual(Failed), true)]);
    }

    #[test]
    fn nothing_is_walked_when_no_row_can_pass() {
        assert_eq!(first(&[("outcome", "timeout"), ("status", "skipped")]), []);
        assert_eq!(Walk::choices(whole(), &filter(&[ENDPOINT]), &[]), [Vec::new()]);
    }

    #[test]
    fn of_two_searches_that_were_cut_the_further_one_counts() {
        let searched = |cut: i64| ChosenWalks { walks: vec![Walk::OfWorkspace], cut: Some(RowKey::from_i64(cut)) };
        let best = ChosenWalks::or_further(Some(searched(5)), searched(3));
        assert_eq!(best.cut, Some(RowKey::from_i64(3)));
        assert_eq!(ChosenWalks::or_further(Some(best), searched(4)).cut, Some(RowKey::from_i64(3)));
    }
}
