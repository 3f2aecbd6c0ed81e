//! The reference: what callers were answered, what receivers saw, and what may follow from it.
//!
//! Callers work at the same time, and an answer may get lost. So the model keeps intervals: a change took effect
//! somewhere between its request and its answer, or perhaps never if there was no answer. A check fails only if no
//! order of these explains what was seen.

use std::collections::BTreeMap;
use std::time::Duration;

use postrider_domain::id::{DeliveryId, EndpointId, EventId};
use standardwebhooks::Webhook;

use crate::script::{Behaviour, Config, is_test};

/// Counts requests and answers: an order of everything that callers know.
pub type Tick = u64;

/// Something that took effect between its request and its answer. Without an answer: at any time since, or never.
#[derive(Clone, Debug)]
pub struct Dated<T> {
    pub begin: Tick,
    pub end: Option<Tick>,
    pub value: T,
}

/// Those that may have been the newest at some instant between two ticks.
pub fn possible<T>(all: &[Dated<T>], from: Tick, to: Tick) -> impl Iterator<Item = &Dated<T>> {
    all.iter().enumerate().filter_map(move |(index, each)| {
        let is_replaced = all[index + 1..].iter().any(|later| later.end.is_some_and(|end| end < from));
        (each.begin <= to && !is_replaced).then_some(each)
    })
}

#[derive(Clone, Debug)]
pub struct Secret {
    /// `None`: the answer was lost.
    pub text: Option<String>,
    /// Both this and the one before sign what is enqueued before this instant.
    pub overlap_until: Duration,
    pub revokes: bool,
    /// When the answer came.
    pub answered_at: Duration,
}

#[derive(Debug)]
pub struct Endpoint {
    pub owner: usize,
    pub id: EndpointId,
    pub key: i64,
    /// The first one is the creation.
    pub configs: Vec<Dated<Config>>,
    pub secrets: Vec<Dated<Secret>>,
    pub deleted: Option<Dated<Duration>>,
    /// A receiver answered 410, so the endpoint may be disabled.
    pub may_be_gone: bool,
    /// The first request for a retry, a replay or a test.
    pub requeued: Option<Tick>,
    pub behaviour: Behaviour,
    pub in_flight: usize,
}

impl Endpoint {
    pub fn is_strict(&self) -> bool {
        self.configs[0].value.strict
    }

    /// Whether no deletion can have taken effect before this tick.
    pub fn exists_until(&self, to: Tick) -> bool {
        self.deleted.as_ref().is_none_or(|deleted| deleted.begin > to)
    }

    pub fn is_deleted(&self) -> bool {
        self.deleted.as_ref().is_some_and(|deleted| deleted.end.is_some())
    }
}

/// What an event must and may do to an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    pub must: bool,
    pub may: bool,
    pub may_skip: bool,
}

#[derive(Debug)]
pub struct Event {
    pub owner: usize,
    pub kind: u8,
    pub project: Option<u8>,
    pub external: Option<String>,
    pub marker: String,
    pub data: String,
    pub begin: Tick,
    pub end: Option<Tick>,
    pub id: Option<EventId>,
    pub acknowledged_at: Option<Duration>,
    /// The first erasure of its content. Its answer says that it has ended.
    pub erased: Option<Dated<()>>,
}

impl Event {
    pub fn is_erased(&self) -> bool {
        self.erased.as_ref().is_some_and(|erased| erased.end.is_some())
    }
}

/// A delivery, as its receiver sees it.
#[derive(Debug)]
pub struct Seen {
    pub event: Option<usize>,
    pub endpoint: Option<usize>,
    pub is_requeued: bool,
    /// Numbers of the attempts, and the status that the receiver answered.
    pub attempts: Vec<(u32, Option<u16>)>,
    pub is_in_flight: bool,
}

impl Seen {
    pub fn is_delivered(&self) -> bool {
        self.attempts.iter().any(|(_, status)| status.is_some_and(|status| (200..300).contains(&status)))
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub tick: Tick,
    pub endpoints: Vec<Endpoint>,
    pub events: Vec<Event>,
    pub seen: BTreeMap<String, Seen>,
    /// Creations without an answer: an endpoint that nobody knows may be theirs.
    pub unanswered_creations: usize,
    /// Strict orders go on after these, though they were not delivered: event and endpoint.
    pub released: Vec<(usize, usize)>,
    /// Deliveries by hand: to each of them there is a retry or a replay.
    pub in_flight: usize,
}

/// After it has lost its claim, a send may last as long as its lease.
pub const LEASE: Duration = Duration::from_secs(60);

impl Model {
    pub fn next_tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    pub fn endpoint(&self, id: EndpointId) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| endpoint.id == id)
    }

    /// The event whose content this is.
    pub fn event_of(&self, body: &str) -> Option<usize> {
        let marker = body[body.find("marker-")?..].split('"').next()?;
        self.events.iter().position(|event| event.marker == marker)
    }

    /// How an event matches an endpoint, over everything that may have been so when it was accepted.
    pub fn matching(&self, event: &Event, endpoint: &Endpoint) -> Match {
        if event.owner != endpoint.owner {
            return Match::default();
        }
        let to = event.end.unwrap_or(self.tick);
        let created = &endpoint.configs[0];
        let exists = created.end.is_some_and(|end| end < event.begin) && endpoint.exists_until(to);
        let may_exist = created.begin <= to
            && endpoint.deleted.as_ref().is_none_or(|deleted| deleted.end.is_none_or(|end| end >= event.begin));
        let mut of = Match { must: exists, may: false, may_skip: endpoint.may_be_gone };
        for config in possible(&endpoint.configs, event.begin, to).map(|dated| &dated.value) {
            let in_project = config.project.is_none() || config.project == event.project;
            let matches = in_project && config.events & 1 << event.kind != 0;
            of.must &= matches;
            of.may |= matches && may_exist;
            of.may_skip |= !config.active;
        }
        of
    }

    /// Checks the signatures of a request. `tests` are deliveries that no event caused.
    pub fn check_signature(&self, request: &Request<'_>) -> Result<(), String> {
        let Some(endpoint) = request.endpoint.map(|index| &self.endpoints[index]) else { return Ok(()) };
        let (from, to) = match request.event.filter(|_| !request.is_requeued) {
            Some(event) => (self.events[event].begin, self.events[event].end.unwrap_or(self.tick)),
            None => (endpoint.requeued.unwrap_or(self.tick), self.tick),
        };
        let enqueued: Vec<usize> = possible(&endpoint.secrets, from, to)
            .filter_map(|dated| endpoint.secrets.iter().position(|each| each.begin == dated.begin))
            .collect();
        let (Some(first), Some(last)) = (enqueued.first().copied(), enqueued.last().copied()) else {
            return Err("no secret can have existed".to_owned());
        };
        // A later rotation may have revoked what was enqueued: from then on only it, or a later one, signs.
        let revoking = endpoint.secrets.iter().enumerate().skip(first + 1).filter(|(_, dated)| dated.value.revokes);
        let mut allowed: Vec<usize> = enqueued.clone();
        for (index, dated) in revoking {
            allowed.extend(index..endpoint.secrets.len());
            let is_old = dated.end.is_some() && request.at > dated.value.answered_at + LEASE;
            if is_old && index > last {
                allowed.retain(|version| *version >= index);
            }
        }
        if allowed.iter().any(|version| endpoint.secrets[*version].value.text.is_none()) {
            return Ok(());
        }
        let is_signed_by = |version: usize| {
            let secret = endpoint.secrets[version].value.text.as_deref().unwrap_or_default();
            let signer = Webhook::new(secret).expect("a secret of ours");
            let expected = signer.sign(request.webhook_id, request.timestamp, request.body).expect("a signature");
            request.signature.split(' ').any(|signature| signature == expected)
        };
        if !allowed.iter().any(|version| is_signed_by(*version)) {
            return Err(format!("none of the secrets {allowed:?} signed it, which were valid when it was enqueued"));
        }
        let overlaps = first == last && allowed == enqueued && first > 0;
        let newest = &endpoint.secrets[first].value;
        let accepted = request.event.filter(|_| !request.is_requeued).map(|event| &self.events[event]);
        let in_overlap = accepted
            .and_then(|event| event.acknowledged_at)
            .is_some_and(|at| at < newest.overlap_until && endpoint.secrets[first].end.is_some());
        if overlaps && in_overlap && endpoint.secrets[first - 1].value.text.is_some() && !is_signed_by(first - 1) {
            return Err("in an overlap the secret before must sign too".to_owned());
        }
        Ok(())
    }

    /// In a strict order an event is sent once all before it are delivered, or were let go.
    pub fn check_order(&self, event: usize, endpoint: usize) -> Result<(), String> {
        let (this, of) = (&self.events[event], &self.endpoints[endpoint]);
        for (index, earlier) in self.events.iter().enumerate() {
            let is_earlier = earlier.end.is_some_and(|end| end < this.begin);
            if !is_earlier || earlier.erased.is_some() || !self.matching(earlier, of).must {
                continue;
            }
            let mut seen =
                self.seen.values().filter(|seen| seen.event == Some(index) && seen.endpoint == Some(endpoint));
            let is_over = seen.any(Seen::is_delivered) || self.released.contains(&(index, endpoint));
            if !is_over {
                return Err(format!("it was sent before {}, which was accepted earlier", earlier.marker));
            }
        }
        Ok(())
    }
}

/// A request that reached the transport.
#[derive(Debug)]
pub struct Request<'r> {
    pub at: Duration,
    pub endpoint: Option<usize>,
    /// `None` for a test.
    pub event: Option<usize>,
    pub is_requeued: bool,
    pub webhook_id: &'r str,
    pub timestamp: i64,
    pub signature: &'r str,
    pub body: &'r [u8],
    pub delivery: &'r str,
    pub attempt: u32,
}

impl Model {
    /// Checks a request, and notes it. Returns its problem.
    pub fn receive(&mut self, request: &Request<'_>, limits: (usize, usize)) -> Result<(), String> {
        let Request { endpoint, event, delivery, at, .. } = *request;
        delivery.parse::<DeliveryId>().map_err(|_| format!("{delivery} is no delivery id"))?;
        match endpoint.map(|index| &self.endpoints[index]) {
            None if self.unanswered_creations == 0 => return Err("an endpoint that nobody created".to_owned()),
            Some(of) if is_test(of.owner) => return Err("something of test mode was sent".to_owned()),
            Some(of) => {
                let deleted = of.deleted.as_ref().filter(|deleted| deleted.end.is_some());
                if deleted.is_some_and(|deleted| at > deleted.value + LEASE) {
                    return Err("its endpoint was deleted long before".to_owned());
                }
            }
            None => {}
        }
        if let Some(event) = event {
            let of = &mut self.events[event];
            let id: EventId = request.webhook_id.parse().map_err(|_| "its id is no event id".to_owned())?;
            match of.id {
                Some(known) if known != id => {
                    return Err(format!("its event is {id}, but was acknowledged as {known}"));
                }
                _ => of.id = Some(id),
            }
            if of.is_erased() {
                return Err("its content was erased before".to_owned());
            }
            if let Some(index) = endpoint
                && !self.matching(&self.events[event], &self.endpoints[index]).may
            {
                return Err("the endpoint never matched the event".to_owned());
            }
        }
        self.receive_attempt(request)?;
        self.check_signature(request)?;
        if let (Some(event), Some(index), false) = (event, endpoint, request.is_requeued)
            && self.endpoints[index].is_strict()
        {
            self.check_order(event, index)?;
        }
        self.check_limits(endpoint.filter(|_| event.is_some()), limits)
    }

    fn receive_attempt(&mut self, request: &Request<'_>) -> Result<(), String> {
        let Request { endpoint, event, is_requeued, attempt, .. } = *request;
        let seen = self.seen.entry(request.delivery.to_owned()).or_insert_with(|| Seen {
            event,
            endpoint,
            is_requeued,
            attempts: Vec::new(),
            is_in_flight: false,
        });
        // An attempt may come before the answer that names its event or its endpoint.
        let differs =
            |before: Option<usize>, now: Option<usize>| before.zip(now).is_some_and(|(before, now)| before != now);
        if differs(seen.event, event) || differs(seen.endpoint, endpoint) {
            return Err("the delivery was of another event or endpoint before".to_owned());
        }
        (seen.event, seen.endpoint) = (seen.event.or(event), seen.endpoint.or(endpoint));
        if std::mem::replace(&mut seen.is_in_flight, true) {
            return Err("another attempt of the delivery is in flight".to_owned());
        }
        if let Some((last, _)) = seen.attempts.last()
            && *last >= attempt
        {
            return Err(format!("attempt {attempt} comes after attempt {last}"));
        }
        seen.attempts.push((attempt, None));
        Ok(())
    }

    fn check_limits(&mut self, endpoint: Option<usize>, limits: (usize, usize)) -> Result<(), String> {
        let (slots, of_endpoint) = limits;
        self.in_flight += 1;
        if self.in_flight > slots {
            return Err(format!("{} attempts are in flight, more than {slots}", self.in_flight));
        }
        let Some(index) = endpoint else { return Ok(()) };
        let of = &mut self.endpoints[index];
        of.in_flight += 1;
        if of.in_flight > of_endpoint {
            return Err(format!("{} attempts to one endpoint are in flight, more than {of_endpoint}", of.in_flight));
        }
        Ok(())
    }

    /// The exchange has ended, or its process.
    pub fn leave(&mut self, delivery: &str, status: Option<u16>) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(seen) = self.seen.get_mut(delivery) else { return };
        seen.is_in_flight = false;
        if let (Some((_, answered)), Some(status)) = (seen.attempts.last_mut(), status) {
            *answered = Some(status);
        }
        if let (Some(index), true) = (seen.endpoint, seen.event.is_some()) {
            let of = &mut self.endpoints[index];
            of.in_flight = of.in_flight.saturating_sub(1);
        }
    }
}
