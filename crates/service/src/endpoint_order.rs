//! The list of endpoints with those first that fail.
//!
//! The state of an endpoint changes while somebody turns pages, so a position in this order cannot be one key. The list
//! is made of groups, each of them the newest first: a position is a group, and a key in it.

use postrider_domain::access::Principal;
use postrider_domain::endpoint::{Endpoint, EndpointFilter, EndpointState};
use postrider_domain::id::RowKey;
use postrider_domain::page::PageRequest;
use postrider_domain::permission::Permission;

use crate::error::ServiceError;
use crate::portal::seen_by;
use crate::service::Service;

/// The groups in their order. Each is named by its first state.
const GROUPS: [&[EndpointState]; 4] = [
    &[EndpointState::Failing],
    &[EndpointState::Paused],
    &[EndpointState::Disabled],
    &[EndpointState::Ok, EndpointState::Off],
];

/// A page of this list.
#[derive(Debug)]
pub struct FailingFirst {
    pub items: Vec<Endpoint>,
    /// The group of the next page, and the key after which it begins there.
    pub next: Option<(EndpointState, Option<RowKey>)>,
}

impl Service {
    /// Endpoints that pass the filter: failing ones, then paused ones, then disabled ones, then the others. `from` is
    /// the group in which the page begins.
    ///
    /// # Errors
    /// Without the scope, or when the store fails.
    pub async fn list_endpoints_failing_first(
        &self,
        principal: &Principal,
        filter: EndpointFilter,
        from: Option<EndpointState>,
        page: PageRequest,
    ) -> Result<FailingFirst, ServiceError> {
        principal.require(Permission::EndpointsRead)?;
        let first = GROUPS.iter().position(|group| from.is_some_and(|state| group.contains(&state))).unwrap_or(0);
        let (mut items, mut start) = (Vec::new(), page);
        for group in &GROUPS[first..] {
            let here = std::mem::replace(&mut start, page.from_start());
            let states = of_group(group, &filter.states);
            if states.is_empty() {
                continue;
            }
            let left = page.limit().saturating_sub(u32::try_from(items.len()).unwrap_or(u32::MAX));
            let asked = EndpointFilter { states, ..filter.clone() };
            // Of a group behind a full page it matters only whether it has any.
            let found = self.store.list_endpoints(principal.tenant, asked, here.with_limit(left.max(1))).await?;
            if left == 0 {
                if found.items.is_empty() {
                    continue;
                }
                return Ok(FailingFirst { items, next: Some((group[0], None)) });
            }
            items.extend(found.items.into_iter().map(|endpoint| seen_by(principal, endpoint)));
            if let Some(key) = found.next {
                return Ok(FailingFirst { items, next: Some((group[0], Some(key))) });
            }
        }
        Ok(FailingFirst { items, next: None })
    }
}

/// The states of a group that are asked for. None are asked for: all.
fn of_group(group: &[EndpointState], asked: &[EndpointState]) -> Vec<EndpointState> {
    group.iter().copied().filter(|state| asked.is_empty() || asked.contains(state)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_is_in_one_group() {
        for state in EndpointState::ALL {
            assert_eq!(GROUPS.iter().filter(|group| group.contains(&state)).count(), 1, "{state:?}");
        }
        let asked = [EndpointState::Off, EndpointState::Failing];
        assert_eq!(of_group(GROUPS[3], &asked), [EndpointState::Off]);
        assert!(of_group(GROUPS[1], &asked).is_empty());
    }
}
