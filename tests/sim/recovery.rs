//! What callers do after a start, before a stop, and once the faults have stopped.

use std::time::Duration;

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::endpoint::EndpointFilter;
use postrider_domain::endpoint_options::DeliveryOrder;
use postrider_domain::page::PageRequest;
use postrider_service::{Idempotent, ServiceError};

use crate::actors::{Actors, bits_of};
use crate::model::{Dated, possible};
use crate::script::Config;

impl Actors {
    /// After a start: requests without an answer have taken effect, or never will. Asks which.
    pub async fn reconcile(&self) {
        let known: Vec<(usize, usize)> = {
            let state = self.0.sim.state();
            let model = &state.model;
            let open = |index: &usize| {
                let endpoint = &model.endpoints[*index];
                !endpoint.is_deleted()
                    && (endpoint.deleted.is_some() || endpoint.configs.last().is_some_and(|last| last.end.is_none()))
            };
            (0..model.endpoints.len()).filter(open).map(|index| (index, model.endpoints[index].owner)).collect()
        };
        for (index, owner) in known {
            self.reconcile_endpoint(index, owner).await;
        }
        self.renew_unknown_secrets().await;
        if self.0.sim.state().model.unanswered_creations > 0 {
            for owner in 0..self.0.principals.len() {
                self.delete_strays(owner).await;
            }
        }
    }

    async fn reconcile_endpoint(&self, index: usize, owner: usize) {
        let id = self.0.sim.state().model.endpoints[index].id;
        let found = self.0.service.get_endpoint(self.principal(owner), id).await;
        let at = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        let tick = state.model.next_tick();
        let endpoint = &mut state.model.endpoints[index];
        match found {
            Ok(found) => {
                let strict = found.options.ordering == DeliveryOrder::Strict;
                let project = found.project_id.as_ref().map(|id| id.as_str().trim_start_matches("proj_").parse());
                let project = project.map(|number| number.expect("a project of ours"));
                let config = Config { events: bits_of(&found.events), project, active: found.is_active, strict };
                let is_possible = possible(&endpoint.configs, tick, tick).any(|dated| {
                    Config { active: config.active, ..dated.value.clone() } == config
                        && (endpoint.may_be_gone || dated.value.active == config.active)
                });
                endpoint.deleted = None;
                endpoint.configs.push(Dated { begin: tick, end: Some(tick), value: config.clone() });
                if !is_possible {
                    state.violate(format!("endpoint {index} is {config:?} after a start, which nobody asked for"));
                }
            }
            Err(ServiceError::NotFound) => match &mut endpoint.deleted {
                Some(deleted) => *deleted = Dated { begin: deleted.begin, end: Some(tick), value: at },
                None => state.violate(format!("endpoint {index} is gone after a start")),
            },
            Err(error) => state.violate(format!("endpoint {index} cannot be read after a start: {error:?}")),
        }
    }

    /// A secret whose answer was lost is known to nobody: its owner makes another.
    async fn renew_unknown_secrets(&self) {
        let now = self.0.clock.elapsed();
        let unknown: Vec<usize> = {
            let mut state = self.0.sim.state();
            let tick = state.model.next_tick();
            let endpoints = state.model.endpoints.iter_mut().enumerate();
            let unknown = endpoints.filter(|(_, endpoint)| {
                endpoint.deleted.is_none() && endpoint.secrets.last().is_some_and(|last| last.end.is_none())
            });
            unknown
                .map(|(index, endpoint)| {
                    // It is settled, but still unknown.
                    if let Some(last) = endpoint.secrets.last_mut() {
                        last.end = Some(tick);
                        last.value.answered_at = now;
                    }
                    index
                })
                .collect()
        };
        for index in unknown {
            let place = {
                let state = self.0.sim.state();
                let living = (0..=index).filter(|at| state.model.endpoints[*at].deleted.is_none());
                living.count() - 1
            };
            self.rotate(place, 0, false).await;
        }
    }

    async fn delete_strays(&self, owner: usize) {
        let principal = self.principal(owner);
        let page = PageRequest::parse(Some("200"), None).expect("a page");
        let Ok(page) = self.0.service.list_endpoints(principal, EndpointFilter::default(), page).await else { return };
        for endpoint in page.items {
            let is_known = self.0.sim.state().model.endpoint(endpoint.id).is_some();
            if !is_known {
                self.note(&format!("deletes the stray {}", endpoint.id));
                let _ = self.0.service.delete_endpoint(principal, endpoint.id, &Idempotent::default()).await;
            }
        }
    }

    /// Waits until no request of a caller is under way, for a stop.
    pub async fn wait_for_answers(&self) {
        for _ in 0..200 {
            if self.0.sim.state().under_way.is_empty() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The faults have stopped. Everything must end within the schedule's length and the longest pause.
    pub async fn come_to_rest(&self) {
        let at = self.0.clock.elapsed();
        let (limit, living) = {
            let mut state = self.0.sim.state();
            state.is_calm = true;
            state.trace.note(at, "the faults stop");
            let schedule: u64 = self.0.sim.options.schedule.iter().sum();
            let living: Vec<usize> =
                (0..state.model.endpoints.len()).filter(|at| state.model.endpoints[*at].deleted.is_none()).collect();
            (Duration::from_secs(2 * schedule + 2 * 3600), living)
        };
        self.0.disk.set_slowest_ms(self.0.sim.options.flush_ms);
        for index in living {
            self.change_endpoint(index, |config| Config { active: true, ..config.clone() }, true).await;
        }
        loop {
            let mut pending = 0;
            for owner in 0..self.0.principals.len() {
                self.skip(owner).await;
                let filter = DeliveryFilter { statuses: vec![DeliveryStatus::Pending], ..DeliveryFilter::default() };
                let page = self.0.service.list_deliveries(self.principal(owner), filter, PageRequest::FIRST).await;
                pending += page.map_or(1, |page| page.items.len());
            }
            if pending == 0 || self.0.sim.state().violation.is_some() {
                return;
            }
            if self.0.clock.elapsed() > at + limit {
                return self
                    .violate(format!("{pending} deliveries or more are pending {limit:?} after the last fault"));
            }
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
    }
}
