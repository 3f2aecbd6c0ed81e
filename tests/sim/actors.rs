//! The callers: they take the steps of the script through the service, and tell the model what they asked and what they
//! were answered.

use std::sync::Arc;
use std::time::Duration;

use postrider_domain::access::Principal;
use postrider_domain::endpoint::{EndpointChange, EndpointName, EndpointUrl, OpaqueId, ProjectId};
use postrider_domain::endpoint_options::{DeliveryOrder, DeliveryRate, OptionsChange};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::private_options::PrivateOptions;
use postrider_service::{
    CreateEndpoint, Idempotent, PublishEvent, RotateSecret, ServiceError, UpdateEndpoint, WriteError,
};
use serde_json::value::RawValue;

use crate::model::{Dated, Endpoint, Event, Match, Secret, Tick};
use crate::script::{Act, Behaviour, Config, KINDS, NewEvent, Step};
use crate::sim::Parts;

/// The callers of one life.
#[derive(Clone)]
pub struct Actors(pub Arc<Parts>);

/// How a request was answered.
pub enum Answer<T> {
    Done(T),
    Refused(ServiceError),
    /// Nobody can say whether it took effect.
    Unknown,
}

pub fn answer<T>(result: Result<T, WriteError>) -> Answer<T> {
    match result {
        Ok(value) => Answer::Done(value),
        Err(WriteError::Refused(error)) => refused(error),
        Err(WriteError::AnsweredBefore { .. }) => {
            Answer::Refused(ServiceError::Internal { source: "answered before without a key".into() })
        }
    }
}

pub fn refused<T>(error: ServiceError) -> Answer<T> {
    match error {
        ServiceError::Unavailable { .. } => Answer::Unknown,
        error => Answer::Refused(error),
    }
}

/// Marks a kind of request as under way.
pub struct UnderWay {
    actors: Actors,
    kind: &'static str,
    life: u64,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = self.actors.0.sim.state();
        if state.life == self.life
            && let Some(at) = state.under_way.iter().position(|kind| *kind == self.kind)
        {
            state.under_way.swap_remove(at);
        }
    }
}

const fn names() -> [&'static str; KINDS] {
    [
        "note.created",
        "post.created",
        "post.updated",
        "post.scheduled",
        "post.unscheduled",
        "source.created",
        "job.completed",
        "job.failed",
        "knowledge.indexed",
    ]
}

fn event_names(bits: u16) -> Vec<EventTypeName> {
    let named = names().into_iter().enumerate().filter(|(bit, _)| bits & 1 << bit != 0);
    named.map(|(_, name)| EventTypeName::from_stored(name)).collect()
}

pub fn bits_of(events: &[EventTypeName]) -> u16 {
    let bit = |event: &EventTypeName| names().iter().position(|name| *name == event.as_str()).expect("a known name");
    events.iter().fold(0, |bits, event| bits | 1 << bit(event))
}

pub fn project_id(project: Option<u8>) -> Option<ProjectId> {
    project.map(|project| ProjectId::parse(&format!("proj_{project}")).expect("an id"))
}

impl Actors {
    pub fn note(&self, text: &str) {
        self.0.sim.state().trace.note(self.0.clock.elapsed(), text);
    }

    pub fn violate(&self, problem: String) {
        self.0.sim.state().violate(problem);
    }

    pub fn begin(&self, kind: &'static str) -> (Tick, UnderWay) {
        let mut state = self.0.sim.state();
        state.under_way.push(kind);
        let life = state.life;
        (state.model.next_tick(), UnderWay { actors: self.clone(), kind, life })
    }

    pub fn principal(&self, owner: usize) -> &Principal {
        &self.0.principals[owner % self.0.principals.len()]
    }

    /// An endpoint that exists, for a number of the script.
    pub fn endpoint(&self, number: usize) -> Option<usize> {
        let state = self.0.sim.state();
        let living: Vec<usize> =
            (0..state.model.endpoints.len()).filter(|at| state.model.endpoints[*at].deleted.is_none()).collect();
        living.get(number % living.len().max(1)).copied()
    }

    pub fn event(&self, number: usize) -> Option<usize> {
        let count = self.0.sim.state().model.events.len();
        (count > 0).then(|| number % count)
    }

    /// Takes a step, and waits for its answer if the script does.
    pub async fn take(&self, step: &Step) {
        self.note(&format!("{:?}", step.act));
        let (actors, act) = (self.clone(), step.act.clone());
        if let Act::Quiet { seconds } = act {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            return;
        }
        let task = tokio::spawn(async move { actors.act(act).await });
        if step.waits {
            // While the disk has failed, some requests end only with the process.
            let ended = tokio::time::timeout(Duration::from_secs(100), task).await;
            if let Ok(Err(error)) = ended {
                self.violate(format!("a caller panicked: {error}"));
            }
        }
    }

    async fn act(&self, act: Act) {
        match act {
            Act::Publish { owner, events } => self.publish(owner, events).await,
            Act::Create { owner, config, rate } => self.create(owner, config, rate).await,
            Act::Patch { endpoint, events, project } => {
                self.change(endpoint, |config| Config { events, project, ..config.clone() }, false).await;
            }
            Act::Activate { endpoint, active } => {
                self.change(endpoint, |config| Config { active, ..config.clone() }, true).await;
            }
            Act::Delete { endpoint } => self.delete(endpoint).await,
            Act::Rotate { endpoint, overlap_s, revoke } => self.rotate(endpoint, overlap_s, revoke).await,
            Act::TestEvent { endpoint } => self.test(endpoint).await,
            Act::Retry { event, endpoint } => self.retry(event, endpoint).await,
            Act::Replay { endpoint } => self.replay(endpoint).await,
            Act::Skip { owner } => self.skip(owner).await,
            Act::EraseEvent { event, finish } => {
                if let Some(event) = self.event(event) {
                    self.erase(vec![event], None, finish).await;
                }
            }
            Act::EraseProject { owner, project, finish } => {
                let owner = owner % self.0.principals.len();
                let of = |event: &Event| event.owner == owner && event.project == Some(project);
                let events = {
                    let state = self.0.sim.state();
                    let model = &state.model;
                    (0..model.events.len()).filter(|at| of(&model.events[*at])).collect()
                };
                self.erase(events, Some((owner, project)), finish).await;
            }
            Act::Receiver { endpoint, behaviour } => {
                if let Some(index) = self.endpoint(endpoint) {
                    self.0.sim.state().model.endpoints[index].behaviour = behaviour;
                }
            }
            Act::SlowFlush { slowest_ms } => {
                self.0.disk.set_slowest_ms(slowest_ms);
                let mut state = self.0.sim.state();
                let states = state.states();
                state.tally.count("slow flush", &states);
            }
            Act::FlushError { after } => {
                self.0.disk.fail_after(after);
                let mut state = self.0.sim.state();
                let states = state.states();
                state.tally.count("failed flush", &states);
            }
            Act::Quiet { .. } | Act::Power | Act::Kill | Act::Stop => {}
        }
    }

    async fn publish(&self, owner: usize, events: Vec<NewEvent>) {
        let owner = owner % self.0.principals.len();
        let (begin, _under_way) = self.begin("publish");
        let mut indexes: Vec<usize> = Vec::new();
        for event in events {
            let index = self.note_event(owner, &event, begin);
            if !indexes.contains(&index) {
                indexes.push(index);
            }
        }
        let requests: Vec<PublishEvent> = {
            let state = self.0.sim.state();
            indexes.iter().map(|index| request_of(&state.model.events[*index])).collect()
        };
        let principal = self.principal(owner);
        let answered = match requests.len() {
            1 => {
                let event = requests.into_iter().next().expect("one event");
                self.0.service.publish_event(principal, event, &Idempotent::default()).await
            }
            _ => self.0.service.publish_batch(principal, requests, &Idempotent::default()).await,
        };
        let receipts = match answer(answered) {
            Answer::Done(receipts) => receipts,
            Answer::Unknown => return self.note("publish: unknown"),
            Answer::Refused(error) => return self.violate(format!("a publish was refused: {error:?}")),
        };
        let at = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        let tick = state.model.next_tick();
        for (index, receipt) in indexes.into_iter().zip(receipts) {
            state.trace.note(at, &format!("accepted {} replayed={}", receipt.id, receipt.replayed));
            let event = &mut state.model.events[index];
            if event.id.is_some_and(|known| known != receipt.id) {
                let problem = format!("{} was accepted as {:?} and as {}", event.marker, event.id, receipt.id);
                return state.violate(problem);
            }
            if !receipt.replayed {
                event.begin = event.begin.max(begin);
            }
            event.id = Some(receipt.id);
            event.end = event.end.or(Some(tick));
            event.acknowledged_at = event.acknowledged_at.or(Some(at));
        }
    }

    /// The event of the model: a new one, or one that is published again.
    fn note_event(&self, owner: usize, event: &NewEvent, begin: Tick) -> usize {
        const MARGIN: Duration = Duration::from_secs(30);
        let retention = Duration::from_secs(self.0.sim.options.retention_s);
        let now = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        let named: Vec<usize> = (0..state.model.events.len())
            .filter(|at| {
                let each = &state.model.events[*at];
                // Once retention has taken it, the same request is another event.
                let is_kept = each.acknowledged_at.is_none_or(|at| now + MARGIN < at + retention);
                each.owner == owner && each.external.is_some() && each.erased.is_none() && is_kept
            })
            .collect();
        if let (Some(number), true, false) = (event.external, event.repeats, named.is_empty()) {
            return named[number % named.len()];
        }
        let number = state.model.events.len();
        let marker = format!("marker-{number}-{:016x}", state.chance.next());
        let data = format!(r#"{{"id":"{marker}","filler":"{}"}}"#, "f".repeat(event.filler));
        state.model.events.push(Event {
            owner,
            kind: event.kind,
            project: event.project,
            external: event.external.map(|_| format!("external-{number}")),
            marker,
            data,
            begin,
            end: None,
            id: None,
            acknowledged_at: None,
            erased: None,
        });
        number
    }

    async fn create(&self, owner: usize, config: Config, rate: Option<u64>) {
        let owner = owner % self.0.principals.len();
        let (begin, _under_way) = self.begin("configuration");
        self.0.sim.state().model.unanswered_creations += 1;
        let create = CreateEndpoint {
            name: EndpointName::parse("endpoint").expect("a name"),
            url: EndpointUrl::parse(&format!("https://receiver-{begin}.example/hook")).expect("a URL"),
            events: event_names(config.events),
            project_id: project_id(config.project),
            options: OptionsChange {
                ordering: Some(if config.strict { DeliveryOrder::Strict } else { DeliveryOrder::None }),
                rate_limit: rate.map(|rate| Some(DeliveryRate::parse(rate).expect("a rate"))),
                ..OptionsChange::default()
            },
            private: PrivateOptions::default(),
        };
        let created = self.0.service.create_endpoint(self.principal(owner), create, &Idempotent::default()).await;
        let made = match answer(created) {
            Answer::Done(made) => made,
            Answer::Unknown => return self.note("create: unknown"),
            Answer::Refused(error) => return self.violate(format!("an endpoint was refused: {error:?}")),
        };
        let at = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        state.model.unanswered_creations -= 1;
        let end = Some(state.model.next_tick());
        state.trace.note(at, &format!("created {}", made.endpoint.id));
        let secret = Secret {
            text: Some(made.secret.reveal().to_owned()),
            overlap_until: Duration::ZERO,
            revokes: false,
            answered_at: at,
        };
        state.model.endpoints.push(Endpoint {
            owner,
            id: made.endpoint.id,
            key: made.endpoint.key.as_i64(),
            configs: vec![Dated { begin, end, value: config }],
            secrets: vec![Dated { begin, end, value: secret }],
            deleted: None,
            may_be_gone: false,
            requeued: None,
            behaviour: Behaviour::Works,
            in_flight: 0,
        });
    }

    async fn change(&self, number: usize, to: impl Fn(&Config) -> Config, activates: bool) {
        let Some(index) = self.endpoint(number) else { return };
        self.change_endpoint(index, to, activates).await;
    }

    /// One change of an endpoint at a time: of two at once nobody could say which was the last.
    pub async fn change_endpoint(&self, index: usize, to: impl Fn(&Config) -> Config, activates: bool) {
        let (begin, _under_way) = self.begin("configuration");
        let (owner, id, config) = {
            let mut state = self.0.sim.state();
            let endpoint = &mut state.model.endpoints[index];
            if endpoint.configs.last().is_none_or(|last| last.end.is_none()) {
                return;
            }
            let config = to(&endpoint.configs.last().expect("the creation").value);
            endpoint.configs.push(Dated { begin, end: None, value: config.clone() });
            (endpoint.owner, endpoint.id, config)
        };
        let change = if activates {
            EndpointChange { is_active: Some(config.active), ..EndpointChange::default() }
        } else {
            EndpointChange {
                events: Some(event_names(config.events)),
                project_id: Some(project_id(config.project)),
                ..EndpointChange::default()
            }
        };
        let update = UpdateEndpoint { change, private: PrivateOptions::default() };
        let updated = self.0.service.update_endpoint(self.principal(owner), id, update, &Idempotent::default()).await;
        let answered = answer(updated);
        let mut state = self.0.sim.state();
        let tick = state.model.next_tick();
        let endpoint = &mut state.model.endpoints[index];
        let at = endpoint.configs.iter().position(|dated| dated.begin == begin).expect("the change");
        match answered {
            Answer::Done(_) => endpoint.configs[at].end = Some(tick),
            Answer::Unknown => {}
            Answer::Refused(ServiceError::NotFound) if endpoint.deleted.is_some() => {
                endpoint.configs.remove(at);
            }
            Answer::Refused(error) => state.violate(format!("a change was refused: {error:?}")),
        }
    }

    async fn delete(&self, number: usize) {
        let Some(index) = self.endpoint(number) else { return };
        let (begin, _under_way) = self.begin("configuration");
        let (owner, id) = {
            let mut state = self.0.sim.state();
            let endpoint = &mut state.model.endpoints[index];
            endpoint.deleted = Some(Dated { begin, end: None, value: Duration::MAX });
            (endpoint.owner, endpoint.id)
        };
        let deleted = self.0.service.delete_endpoint(self.principal(owner), id, &Idempotent::default()).await;
        let at = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        let tick = state.model.next_tick();
        match answer(deleted) {
            Answer::Done(()) => {
                state.model.endpoints[index].deleted = Some(Dated { begin, end: Some(tick), value: at });
            }
            Answer::Unknown => {}
            Answer::Refused(error) => state.violate(format!("a deletion was refused: {error:?}")),
        }
    }

    pub async fn rotate(&self, number: usize, overlap_s: u64, revokes: bool) {
        let Some(index) = self.endpoint(number) else { return };
        let (begin, _under_way) = self.begin("configuration");
        let (owner, id) = {
            let mut state = self.0.sim.state();
            let endpoint = &mut state.model.endpoints[index];
            if endpoint.secrets.last().is_none_or(|last| last.end.is_none()) {
                return;
            }
            let secret = Secret { text: None, overlap_until: Duration::ZERO, revokes, answered_at: Duration::MAX };
            endpoint.secrets.push(Dated { begin, end: None, value: secret });
            (endpoint.owner, endpoint.id)
        };
        let overlap = Duration::from_secs(overlap_s);
        let asked_at = self.0.clock.elapsed();
        let rotate = RotateSecret { overlap, revoke_queued: revokes, replaces: None };
        let answered = match self.0.service.rotate_secret(self.principal(owner), id, rotate).await {
            Ok(rotated) => Answer::Done(rotated),
            Err(error) => refused(error),
        };
        let at = self.0.clock.elapsed();
        let mut state = self.0.sim.state();
        let tick = state.model.next_tick();
        let endpoint = &mut state.model.endpoints[index];
        let place = endpoint.secrets.iter().position(|dated| dated.begin == begin).expect("the rotation");
        match answered {
            Answer::Done(rotated) => {
                let text = Some(rotated.secret.reveal().to_owned());
                let overlap_until = if overlap.is_zero() { Duration::ZERO } else { asked_at + overlap };
                endpoint.secrets[place] =
                    Dated { begin, end: Some(tick), value: Secret { text, overlap_until, revokes, answered_at: at } };
            }
            Answer::Unknown => {}
            Answer::Refused(ServiceError::NotFound) if endpoint.deleted.is_some() => {
                endpoint.secrets.remove(place);
            }
            Answer::Refused(error) => state.violate(format!("a rotation was refused: {error:?}")),
        }
    }
}

fn request_of(event: &Event) -> PublishEvent {
    PublishEvent {
        event_type: EventTypeName::from_stored(names()[usize::from(event.kind)]),
        data: RawValue::from_string(event.data.clone()).expect("JSON"),
        project_id: project_id(event.project),
        external_id: event.external.as_deref().map(|id| OpaqueId::parse(id).expect("an id")),
        occurred_at: None,
        trace: None,
        body_hash: postrider_crypto::sha256(event.data.as_bytes()),
    }
}

/// For the checks of the database.
pub const fn is_expected(of: Match, rows: usize) -> bool {
    rows <= 1 && (rows == 1 || !of.must) && (rows == 0 || of.may)
}
