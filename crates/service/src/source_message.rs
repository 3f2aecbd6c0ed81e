//! Messages of sources: from a message to an event, or to a parked message with its reason.
//!
//! Every fault is one of two. A *poisonous* message can never become an event; it is parked. Everything else is a fault
//! of the store or of the moment, is returned as an error, and concerns the whole batch: the source keeps it and tries
//! again. A batch that comes again has no second effect, because each event has an `externalId`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::value::RawValue;

use postrider_domain::access::Principal;
use postrider_domain::endpoint::{OpaqueId, ProjectId};
use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::event_type::Catalogue;
use postrider_domain::id::ParkedMessageId;
use postrider_domain::idempotency::body_hash;
use postrider_domain::limits;
use postrider_domain::source::{FieldRule, ParkReason, SourceMessage, SourceTerms, value_at};
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::{TRACEPARENT, TraceContext};
use postrider_metrics::DeduplicatedBy;
use postrider_store::parked_message::{NewParkedMessage, ParkLimit, Parked};
use postrider_store::{AcceptError, Written};

use crate::blocking::run_blocking;
use crate::error::ServiceError;
use crate::event::{Naming, PublishEvent};
use crate::event_name::subscribable_event;
use crate::fields::{object, string};
use crate::json_body::JsonBody;
use crate::service::Service;
use crate::source::{Source, SourceCounts};

/// What became of a message. After all but [`Fate::Kept`] the source may forget it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is an event now.
    Accepted,
    /// It was an event before.
    Repeated,
    /// It can be no event, and is parked.
    Parked,
    /// It can be no event, and there is no room to park it. The source must keep it.
    Kept,
}

/// A message that can never become an event.
#[derive(Debug)]
pub(crate) struct Poison {
    pub reason: ParkReason,
    pub detail: String,
}

impl Poison {
    fn new(reason: ParkReason, detail: impl Into<String>) -> Self {
        // PostgreSQL has no text with U+0000, which a message may bring in here.
        let detail: String = detail.into();
        let shown = detail.chars().filter(|c| *c != '\0').take(limits::PARKED_DETAIL_CHARS).collect();
        Self { reason, detail: shown }
    }

    fn of(error: ServiceError) -> Self {
        match error {
            ServiceError::InvalidRequest { parameters } | ServiceError::Unprocessable { parameters, .. }
                if !parameters.is_empty() =>
            {
                let faults: Vec<String> = parameters.iter().map(|(name, fault)| format!("{name}: {fault}")).collect();
                Self::new(ParkReason::SchemaViolation, faults.join("; "))
            }
            other => Self::new(ParkReason::WrongShape, other.to_string()),
        }
    }
}

/// The fate of each message, and the receipt of each event.
struct Judged {
    fates: Vec<Option<Result<EventReceipt, Poison>>>,
}

impl Service {
    /// Accepts the messages of one batch: each becomes an event, or is parked. When this returns, that is on disk.
    ///
    /// # Errors
    /// When the store cannot take them now. Some of them may have been accepted; the same batch may come again.
    pub async fn accept_messages(
        self: &Arc<Self>,
        source: &Arc<Source>,
        messages: Arc<[SourceMessage]>,
    ) -> Result<Vec<Fate>, ServiceError> {
        self.check_sends()?;
        let principal = source.principal().ok_or(ServiceError::NotFound)?;
        let read = {
            let (service, principal, source, messages) =
                (Arc::clone(self), principal, Arc::clone(source), Arc::clone(&messages));
            run_blocking(move || Ok(service.read_messages(&principal, &source.terms, &messages))).await?
        };
        let judged = self.accept_read(read).await?;
        let mut fates = Vec::with_capacity(messages.len());
        let mut poisonous = Vec::new();
        let mut counts = SourceCounts::default();
        for (index, judged) in judged.fates.into_iter().enumerate() {
            fates.push(match judged {
                Some(Ok(receipt)) if receipt.replayed => Fate::Repeated,
                Some(Ok(_)) => Fate::Accepted,
                Some(Err(poison)) => {
                    poisonous.push((index, poison));
                    Fate::Parked
                }
                // A message that the loop below `accept_read` lost would be a defect; the source keeps it.
                None => Fate::Kept,
            });
        }
        if !poisonous.is_empty() {
            let indexes: Vec<usize> = poisonous.iter().map(|(index, _)| *index).collect();
            let parked = self.park(source, &messages, poisonous).await?;
            parked.without_room.into_iter().for_each(|position| fates[indexes[position]] = Fate::Kept);
        }
        for fate in &fates {
            match fate {
                Fate::Accepted => counts.accepted += 1,
                Fate::Repeated => counts.repeated += 1,
                Fate::Parked => counts.parked += 1,
                Fate::Kept => {}
            }
        }
        self.metrics.deduplicated.add(DeduplicatedBy::ExternalId, counts.repeated);
        source.count(counts, self.clock.now());
        Ok(fates)
    }

    /// Whether the source may park another message.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn may_park(&self, source: &Source) -> Result<bool, ServiceError> {
        Ok(self.count_parked(source).await? < u64::from(source.terms.parked_max))
    }

    /// How many messages the source has parked.
    ///
    /// # Errors
    /// When its workspace was not found yet, or the store fails.
    pub async fn count_parked(&self, source: &Source) -> Result<u64, ServiceError> {
        let tenant = source.tenant().ok_or(ServiceError::NotFound)?;
        Ok(self.store.count_parked_messages(tenant, source.terms.name.clone()).await?)
    }

    /// The event of a message, ready to be accepted.
    pub(crate) fn read_message(
        &self,
        principal: &Principal,
        terms: &SourceTerms,
        message: &SourceMessage,
    ) -> Result<NewEvent, Poison> {
        let event = read_event(&self.catalogue, terms, message)?;
        let checked = self.check_data(principal, std::slice::from_ref(&event), Naming::Alone).map_err(Poison::of)?;
        let is_misfit = checked.first().copied().unwrap_or_default();
        Ok(NewEvent { is_misfit, ..self.prepared(principal, event) })
    }

    fn read_messages(
        &self,
        principal: &Principal,
        terms: &SourceTerms,
        messages: &[SourceMessage],
    ) -> Vec<Result<NewEvent, Poison>> {
        messages.iter().map(|message| self.read_message(principal, terms, message)).collect()
    }

    /// Accepts what could be read: all in one transaction, unless one of them is refused.
    async fn accept_read(&self, read: Vec<Result<NewEvent, Poison>>) -> Result<Judged, ServiceError> {
        let mut judged = Judged { fates: read.iter().map(|_| None).collect() };
        let mut first_with: HashMap<OpaqueId, (usize, [u8; 32])> = HashMap::new();
        // Repeats inside the batch, each with the message that came first.
        let mut repeats = Vec::new();
        let mut events = Vec::new();
        for (index, read) in read.into_iter().enumerate() {
            let event = match read {
                Ok(event) => event,
                Err(poison) => {
                    judged.fates[index] = Some(Err(poison));
                    continue;
                }
            };
            let Some(id) = event.external_id.clone() else { continue };
            match first_with.get(&id) {
                Some((first, hash)) if *hash == event.body_hash => repeats.push((index, *first)),
                Some(_) => judged.fates[index] = Some(Err(id_reused(&id))),
                None => {
                    first_with.insert(id, (index, event.body_hash));
                    events.push((index, event));
                }
            }
        }
        self.accept_in_parts(events, &mut judged).await?;
        for (index, first) in repeats {
            judged.fates[index] = match &judged.fates[first] {
                Some(Ok(receipt)) => Some(Ok(EventReceipt { replayed: true, ..receipt.clone() })),
                Some(Err(poison)) => Some(Err(Poison::new(poison.reason, poison.detail.clone()))),
                None => None,
            };
        }
        Ok(judged)
    }

    /// Accepts the events in as few transactions as their faults allow.
    async fn accept_in_parts(&self, events: Vec<(usize, NewEvent)>, judged: &mut Judged) -> Result<(), ServiceError> {
        let mut parts = vec![events];
        while let Some(mut part) = parts.pop() {
            if part.is_empty() {
                continue;
            }
            let events = part.iter().map(|(_, event)| event.clone()).collect();
            match self.store.accept_events(events, None).await {
                Ok(Written::Done(receipts)) => {
                    for ((index, _), receipt) in part.into_iter().zip(receipts) {
                        judged.fates[index] = Some(Ok(receipt));
                    }
                }
                Ok(_) => {
                    return Err(ServiceError::Internal { source: "a write without a key was answered before".into() });
                }
                Err(AcceptError::ExternalIdReused { index }) if index < part.len() => {
                    let (at, event) = part.remove(index);
                    judged.fates[at] = event.external_id.as_ref().map(|id| Err(id_reused(id)));
                    parts.push(part);
                }
                Err(AcceptError::TooManyDeliveries { .. }) if part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    // The last one pushed comes first, so that the events keep their order.
                    parts.push(second);
                    parts.push(part);
                }
                Err(AcceptError::TooManyDeliveries { count, max }) => {
                    let detail = format!("the event would create {count} deliveries, more than {max}");
                    judged.fates[part[0].0] = Some(Err(Poison::new(ParkReason::TooManyDeliveries, detail)));
                }
                Err(AcceptError::WorkspaceFull { max }) => return Err(ServiceError::WorkspaceFull { max }),
                Err(AcceptError::Store(error)) => return Err(error.into()),
                Err(AcceptError::ExternalIdReused { .. }) => {
                    return Err(ServiceError::Internal {
                        source: "the store refused an event that it was not given".into(),
                    });
                }
            }
        }
        Ok(())
    }

    async fn park(
        &self,
        source: &Source,
        messages: &[SourceMessage],
        poisonous: Vec<(usize, Poison)>,
    ) -> Result<Parked, ServiceError> {
        let tenant = source.tenant().ok_or(ServiceError::NotFound)?;
        let terms = &source.terms;
        let parked = poisonous.into_iter().map(|(index, Poison { reason, detail })| {
            let message = &messages[index];
            NewParkedMessage {
                id: ParkedMessageId::from_letters(self.random.alphanumeric()),
                fingerprint: message.fingerprint(),
                project_id: project_of(terms, message),
                reason,
                detail,
                message: message.cut(),
                body_bytes: message.body.len() as u64,
            }
        });
        let limit = ParkLimit { source: terms.name.clone(), max: terms.parked_max, full: terms.parked_full };
        Ok(self.store.park_messages(tenant, limit, parked.collect()).await?)
    }
}

fn id_reused(id: &OpaqueId) -> Poison {
    Poison::new(ParkReason::IdReused, format!("the id {} was published before with other content", id.as_str()))
}

/// The body of a message, as the rules read it.
struct Reader<'m> {
    message: &'m SourceMessage,
    body: &'m RawValue,
    /// The members of the body, if it is an object. Most rules look no deeper.
    members: BTreeMap<String, &'m RawValue>,
}

impl<'m> Reader<'m> {
    fn new(message: &'m SourceMessage) -> Result<Self, Poison> {
        let not_json = |_| Poison::new(ParkReason::NotJson, "the body is not JSON");
        let body: &RawValue = serde_json::from_slice(&message.body).map_err(not_json)?;
        Ok(Self { message, body, members: serde_json::from_str(body.get()).unwrap_or_default() })
    }

    fn value(&self, pointer: &str) -> Option<&'m RawValue> {
        match pointer.strip_prefix('/') {
            Some(name) if !name.contains(['/', '~']) && !self.members.is_empty() => self.members.get(name).copied(),
            _ => value_at(self.body, pointer),
        }
    }

    /// The text that the rule finds. A number counts as text; `null` is nothing.
    fn text(&self, rule: &FieldRule) -> Result<Option<String>, String> {
        let message = self.message;
        let found = match rule {
            FieldRule::Header(name) => message.header(name).map(str::to_owned),
            FieldRule::Subject => message.subject.clone(),
            FieldRule::Sequence => message.sequence.clone(),
            FieldRule::MessageId => message.message_id.clone(),
            FieldRule::Fixed(text) => Some(text.clone()),
            FieldRule::Hash => None,
            FieldRule::Pointer(pointer) => match self.value(pointer).map(RawValue::get) {
                None | Some("null") => None,
                Some(json) if json.starts_with('"') => {
                    Some(serde_json::from_str(json).map_err(|_| "must be Unicode text".to_owned())?)
                }
                Some(json) if json.starts_with(['{', '[', 't', 'f']) => return Err("must be a string".to_owned()),
                Some(number) => Some(number.to_owned()),
            },
        };
        Ok(found.filter(|text| !text.is_empty()))
    }
}

fn wrong(field: &str, fault: impl std::fmt::Display) -> Poison {
    Poison::new(ParkReason::WrongShape, format!("{field}: {fault}"))
}

fn read_event(catalogue: &Catalogue, terms: &SourceTerms, message: &SourceMessage) -> Result<PublishEvent, Poison> {
    let rules = &terms.rules;
    if message.body.len() > limits::BODY_BYTES {
        let kilobytes = limits::BODY_BYTES / 1024;
        let detail = format!("the body has {} bytes, more than {kilobytes} KB", message.body.len());
        return Err(Poison::new(ParkReason::TooLarge, detail));
    }
    let json = JsonBody::parse(message.body.clone(), limits::JSON_DEPTH).map_err(|error| {
        let detail = match error {
            ServiceError::InvalidRequest { parameters } => parameters.into_iter().map(|(_, fault)| fault).collect(),
            other => other.to_string(),
        };
        Poison::new(ParkReason::NotJson, detail)
    })?;
    let reader = Reader::new(message)?;
    let name = reader.text(&rules.event_type).map_err(|fault| wrong("type", fault))?;
    let name = name.ok_or_else(|| wrong("type", "is missing"))?;
    let event_type =
        subscribable_event(catalogue, &name).map_err(|fault| Poison::new(ParkReason::UnknownType, fault))?;
    let FieldRule::Pointer(place) = &rules.data else { return Err(wrong("data", "has no place")) };
    let data = reader.value(place).ok_or_else(|| wrong("data", "is missing"))?;
    let data = object(data).map_err(|fault| wrong("data", fault))?;
    let project = reader.text(&rules.project).map_err(|fault| wrong("projectId", fault))?;
    let project_id = project.as_deref().map(ProjectId::parse).transpose().map_err(|fault| wrong("projectId", fault))?;
    let external_id = external_id(terms, &reader)?;
    let occurred_at = match reader.value("/occurredAt").filter(|_| !rules.takes_whole_body()) {
        None => None,
        Some(null) if null.get() == "null" => None,
        Some(raw) => Some(string(Timestamp::parse)(raw).map_err(|fault| wrong("occurredAt", fault))?),
    };
    let hash = match rules.reads_body_only() {
        // As the API hashes the same body, so that an event may come by both ways.
        true => json.hash(),
        false => {
            body_hash(&[&json.hash()[..], name.as_bytes(), b"\0", project.unwrap_or_default().as_bytes()].concat())
        }
    };
    let traces = message.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(TRACEPARENT));
    Ok(PublishEvent {
        event_type,
        data,
        project_id,
        external_id: Some(external_id),
        occurred_at,
        body_hash: hash,
        trace: TraceContext::of_headers(traces.map(|(_, value)| value.as_bytes())),
    })
}

/// The body's own `externalId`, else the id of the message behind the name of the source.
fn external_id(terms: &SourceTerms, reader: &Reader<'_>) -> Result<OpaqueId, Poison> {
    if !terms.rules.takes_whole_body() {
        let own = FieldRule::Pointer("/externalId".to_owned());
        if let Some(own) = reader.text(&own).map_err(|fault| wrong("externalId", fault))? {
            return OpaqueId::parse(&own).map_err(|fault| wrong("externalId", fault));
        }
    }
    if terms.rules.id == FieldRule::Hash {
        return Ok(terms.name.hashed_id(&reader.message.body));
    }
    let id = reader.text(&terms.rules.id).map_err(|fault| wrong("id", fault))?;
    let id = id.ok_or_else(|| Poison::new(ParkReason::NoId, "the message has no id where the setting `id` looks"))?;
    Ok(terms.name.external_id(&id))
}

/// The project of a message that is parked, so that an erasure of the project finds it.
fn project_of(terms: &SourceTerms, message: &SourceMessage) -> Option<ProjectId> {
    let text = match &terms.rules.project {
        FieldRule::Pointer(_) => Reader::new(message).ok()?.text(&terms.rules.project).ok()??,
        FieldRule::Header(name) => message.header(name)?.to_owned(),
        FieldRule::Fixed(text) => text.clone(),
        _ => return None,
    };
    ProjectId::parse(&text).ok()
}
