//! Callers that send again, skip and erase.

use std::time::Duration;

use postrider_domain::delivery::{DeliveryFilter, DeliveryStatus};
use postrider_domain::erasure::{ErasureStatus, ErasureTarget, PendingDeliveries};
use postrider_domain::page::PageRequest;
use postrider_domain::replay::ReplayRange;
use postrider_domain::time::Clock;
use postrider_service::{Idempotent, ServiceError};

use crate::actors::{Actors, Answer, answer, project_id};
use crate::model::{Dated, Tick};
use crate::options::Feature;
use crate::pages;
use crate::script::is_test;

impl Actors {
    fn note_requeue(&self, index: usize, tick: Tick) {
        let mut state = self.0.sim.state();
        state.model.endpoints[index].requeued.get_or_insert(tick);
    }

    pub async fn test(&self, number: usize) {
        let Some(index) = self.endpoint(number) else { return };
        let (begin, _under_way) = self.begin("requeue");
        self.note_requeue(index, begin);
        let (owner, id) = {
            let state = self.0.sim.state();
            (state.model.endpoints[index].owner, state.model.endpoints[index].id)
        };
        let sent = self.0.service.test_endpoint(self.principal(owner), id, None, &Idempotent::default()).await;
        match answer(sent) {
            Answer::Done(delivery) => self.expect_soon(index, owner, delivery.id.to_string()),
            Answer::Unknown => {}
            Answer::Refused(error) => self.check_refusal(index, &error),
        }
    }

    /// A test waits for nobody: when the machine has nothing else to do, its request leaves at once and not at the next
    /// poll of the queue.
    fn expect_soon(&self, index: usize, owner: usize, delivery: String) {
        const SOON: Duration = Duration::from_millis(400);
        let state = self.0.sim.state();
        let is_quiet = state.model.in_flight == 0 && state.under_way.len() == 1;
        let options = &self.0.sim.options;
        if is_test(owner) || !is_quiet || options.flush_ms > 5 || options.has(Feature::SlowFlush) {
            return;
        }
        let (actors, failed) = (self.clone(), self.0.disk.failed());
        tokio::spawn(async move {
            tokio::time::sleep(SOON).await;
            let mut state = actors.0.sim.state();
            let is_excused = actors.0.disk.failed() > failed
                || state.is_stopping
                || state.model.endpoints[index].deleted.is_some()
                || state.model.in_flight + 1 >= actors.0.sim.options.slots;
            if !is_excused && !state.model.seen.contains_key(&delivery) {
                state.violate(format!("the test {delivery} was not sent within {SOON:?} although nothing else was"));
            }
        });
    }

    /// A refusal that the state of the endpoint explains.
    fn check_refusal(&self, index: usize, error: &ServiceError) {
        let mut state = self.0.sim.state();
        let endpoint = &state.model.endpoints[index];
        let is_explained = match error {
            ServiceError::NotFound => endpoint.deleted.is_some(),
            ServiceError::Conflict(_) => true,
            _ => false,
        };
        if !is_explained {
            state.violate(format!("a request for endpoint {index} was refused: {error:?}"));
        }
    }

    pub async fn retry(&self, event: usize, endpoint: usize) {
        let (Some(event), Some(index)) = (self.event(event), self.endpoint(endpoint)) else { return };
        let (begin, _under_way) = self.begin("requeue");
        let (owner, found) = {
            let state = self.0.sim.state();
            let (of, to) = (&state.model.events[event], &state.model.endpoints[index]);
            let filter = of.id.map(|id| DeliveryFilter {
                event_ids: vec![id],
                endpoint_ids: vec![to.id],
                ..DeliveryFilter::default()
            });
            (of.owner, filter.filter(|_| of.owner == to.owner))
        };
        let Some(filter) = found else { return };
        let principal = self.principal(owner);
        let Ok(page) = self.0.service.list_deliveries(principal, filter, PageRequest::FIRST).await else { return };
        let Some(delivery) = page.items.last() else { return };
        self.note_requeue(index, begin);
        self.0.sim.state().model.released.push((event, index));
        let retried = self.0.service.retry_delivery(principal, delivery.id, &Idempotent::default()).await;
        match answer(retried) {
            Answer::Done(_) | Answer::Unknown => {}
            Answer::Refused(error) => self.check_refusal(index, &error),
        }
    }

    pub async fn replay(&self, number: usize) {
        let Some(index) = self.endpoint(number) else { return };
        let (begin, _under_way) = self.begin("requeue");
        self.note_requeue(index, begin);
        let (owner, id) = {
            let state = self.0.sim.state();
            (state.model.endpoints[index].owner, state.model.endpoints[index].id)
        };
        let until = self.0.clock.now();
        let statuses = vec![DeliveryStatus::Failed, DeliveryStatus::Skipped, DeliveryStatus::Delivered];
        let range = ReplayRange { since: until.minus(Duration::from_secs(600)), until, statuses };
        let started = self.0.service.start_replay(self.principal(owner), id, range, &Idempotent::default()).await;
        match answer(started) {
            Answer::Done(_) | Answer::Unknown => {}
            Answer::Refused(error) => self.check_refusal(index, &error),
        }
    }

    /// Skips every delivery that blocks a strict order of this owner.
    pub async fn skip(&self, owner: usize) {
        let (_, _under_way) = self.begin("requeue");
        let principal = self.principal(owner);
        let Ok(blocking) = self.0.service.blocking_deliveries(principal).await else { return };
        for delivery in blocking {
            {
                let mut state = self.0.sim.state();
                let model = &mut state.model;
                let event = model.events.iter().position(|event| event.id == Some(delivery.event_id));
                let endpoint = model.endpoint(delivery.endpoint_id);
                model.released.extend(event.zip(endpoint));
            }
            let skipped = self.0.service.skip_delivery(principal, delivery.id, &Idempotent::default()).await;
            match answer(skipped) {
                Answer::Done(_) | Answer::Unknown => {}
                Answer::Refused(ServiceError::NotFound | ServiceError::Conflict(_)) => {}
                Answer::Refused(error) => self.violate(format!("a skip was refused: {error:?}")),
            }
        }
    }

    pub async fn erase(&self, events: Vec<usize>, project: Option<(usize, u8)>, finish: bool) {
        let (begin, _under_way) = self.begin("erasure");
        let (owner, target, erased) = {
            let mut state = self.0.sim.state();
            let model = &mut state.model;
            let (owner, target) = match (project, events.first()) {
                (Some((owner, project)), _) => {
                    (owner, ErasureTarget::Project(project_id(Some(project)).expect("a project")))
                }
                (None, Some(event)) => match model.events[*event].id {
                    Some(id) => (model.events[*event].owner, ErasureTarget::Event(id)),
                    None => return,
                },
                (None, None) => return,
            };
            // What was accepted before must be gone. What is still under way may be.
            let erased: Vec<usize> =
                events.iter().copied().filter(|at| model.events[*at].acknowledged_at.is_some()).collect();
            for event in events {
                model.events[event].erased.get_or_insert(Dated { begin, end: None, value: () });
            }
            (owner, target, erased)
        };
        let pending = if finish { PendingDeliveries::Finish } else { PendingDeliveries::Cancel };
        let principal = self.principal(owner);
        let mut erasure = match answer(self.0.service.erase(principal, target, pending, &Idempotent::default()).await) {
            Answer::Done(erasure) => erasure,
            Answer::Unknown => return,
            // Retention may have taken the event.
            Answer::Refused(ServiceError::NotFound) => return,
            Answer::Refused(error) => return self.violate(format!("an erasure was refused: {error:?}")),
        };
        while erasure.status != ErasureStatus::Erased {
            tokio::time::sleep(Duration::from_millis(500)).await;
            match self.0.service.get_erasure(principal, erasure.id).await {
                Ok(now) => erasure = now,
                // Retention takes an ended erasure too.
                Err(ServiceError::NotFound | ServiceError::Unavailable { .. }) => return,
                Err(error) => return self.violate(format!("an erasure cannot be read: {error:?}")),
            }
        }
        self.check_erased(&erased);
    }

    /// No byte of the content is left in the files, except in gaps (`pages.rs`), which are counted.
    fn check_erased(&self, events: &[usize]) {
        let at = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        let tick = state.model.next_tick();
        for event in events {
            let marker = state.model.events[*event].marker.clone();
            state.trace.note(at, &format!("erased {marker}"));
            let found = pages::search(self.0.disk.directory(), marker.as_bytes()).expect("a database");
            state.tally.left_in_gaps += u64::from(found.in_gaps > 0);
            if found.elsewhere > 0 {
                state.violate(format!("{marker} is in the files although it was erased"));
            }
            if let Some(erased) = &mut state.model.events[*event].erased {
                erased.end = Some(tick);
            }
        }
    }
}
