//! Accepting events: the requests of a group, with their events and deliveries, in one transaction.
//!
//! The requests of a group are evaluated one after the other, as if each had its own transaction: a later request sees
//! what an earlier one accepts. Then one statement per table writes all rows.
//!
//! Writes `events` and `publish_keys`.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{join3, join4};
use tokio_postgres::Row;

use postrider_domain::event::{EventReceipt, NewEvent};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{EventId, RowKey};
use postrider_domain::idempotency::{IdempotencyScope, IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::limits;
use postrider_domain::payload::PayloadState;
use postrider_domain::tenant::Tenant;
use postrider_domain::time::Timestamp;
use postrider_domain::trace_context::TraceContext;
use postrider_store::column::{mode_code, mode_from_code};
use postrider_store::publish::delivery::{NewDelivery, receipt_of};
use postrider_store::stored_bytes::{CountedPart, bytes_of};
use postrider_store::{AcceptError, Written};

use super::matching::{self, Subscribers};
use crate::idempotency;
use crate::machinery::column::{coded, get, key, number, unexpected};
use crate::machinery::fault::PgError;
use crate::machinery::transaction::WriteTx;
use crate::queue::enqueue;
use crate::stored_bytes::{self, Change, removed};

/// One request to accept events.
pub struct AcceptRequest {
    pub events: Vec<NewEvent>,
    pub recording: Option<Recording<Vec<EventReceipt>>>,
}

pub type Accepted = Result<Written<Vec<EventReceipt>>, AcceptError>;

/// Accepts or refuses each request.
pub async fn accept(tx: &mut WriteTx, requests: &[AcceptRequest]) -> Result<Vec<Accepted>, PgError> {
    let mut workspaces: Vec<RowKey> =
        requests.iter().flat_map(|request| &request.events).map(|event| event.tenant.workspace).collect();
    workspaces.sort_unstable();
    workspaces.dedup();
    let idempotent: Vec<&IdempotentRequest> =
        requests.iter().filter_map(|request| request.recording.as_ref()).map(|recording| &recording.request).collect();
    // Pipelined: sent together, run in this order. The versions are read once the locks are held.
    let (locked, answers, published, versions) = join4(
        tx.share_workspaces(workspaces.iter().copied()),
        find_answers(tx, &idempotent),
        find_published(tx, requests.iter().flat_map(|request| &request.events)),
        matching::versions(tx, &workspaces),
    )
    .await;
    locked?;
    matching::load_at(tx, versions?).await?;
    let mut group = AcceptGroup { answers: answers?, published: published?, ..AcceptGroup::default() };
    let mut accepted = Vec::with_capacity(requests.len());
    for request in requests {
        accepted.push(group.add(tx, request).await?);
    }
    group.write(tx).await?;
    Ok(accepted)
}

/// Accepts one event that cannot be refused, such as an operational event.
pub async fn accept_one(tx: &mut WriteTx, event: NewEvent) -> Result<(), PgError> {
    let refused = || unexpected("an event of our own");
    let request = AcceptRequest { events: vec![event], recording: None };
    accept(tx, &[request]).await?.pop().ok_or_else(refused)?.map(|_| ()).map_err(|_| refused())
}

/// Empties events: their envelopes and their `externalId`s, which may be published again from now on.
pub async fn erase(tx: &WriteTx, events: &Vec<i64>) -> Result<(), PgError> {
    tx.execute("DELETE FROM publish_keys WHERE event_key = ANY ($1)", &[events]).await?;
    let sql = "SELECT key, workspace_key, octet_length(envelope)::bigint AS bytes FROM events WHERE key = ANY ($1)";
    let rows = tx.query(sql, &[events]).await?;
    stored_bytes::count(tx, CountedPart::Events, removed(&rows)?.into_iter()).await?;
    let sql =
        "UPDATE events SET envelope = '', external_id = NULL, traceparent = NULL, payload = $2 WHERE key = ANY ($1)";
    tx.execute(sql, &[events, &PayloadState::Erased.code()]).await?;
    Ok(())
}

/// Writes an event. The caller queues its one delivery.
pub async fn insert_for_one(tx: &mut WriteTx, event: &NewEvent) -> Result<(), PgError> {
    let mut group = AcceptGroup::default();
    group.events.push((event.clone(), 1));
    group.write(tx).await
}

/// The unique key of an `externalId`.
type PublishKey = (Tenant, String);

/// The unique key of an idempotent request.
type IdempotencyKey = (IdempotencyScope, String);

struct Published {
    body_hash: Vec<u8>,
    receipt: EventReceipt,
}

/// The result of the requests evaluated so far.
#[derive(Default)]
struct AcceptGroup {
    answers: HashMap<IdempotencyKey, (Vec<u8>, RecordedAnswer)>,
    published: HashMap<PublishKey, Published>,
    /// Each with its number of queued deliveries.
    events: Vec<(NewEvent, usize)>,
    deliveries: Vec<NewDelivery>,
    recorded: Vec<(IdempotentRequest, RecordedAnswer)>,
}

fn key_of(request: &IdempotentRequest) -> IdempotencyKey {
    (request.scope.clone(), request.key.as_str().to_owned())
}

async fn find_answers(
    tx: &WriteTx,
    requests: &[&IdempotentRequest],
) -> Result<HashMap<IdempotencyKey, (Vec<u8>, RecordedAnswer)>, PgError> {
    let mut answers = HashMap::new();
    if requests.is_empty() {
        return Ok(answers);
    }
    for (request, found) in requests.iter().zip(idempotency::find_many(tx, tx.now, requests).await?) {
        match found {
            Some(Written::Replayed(answer)) => {
                answers.insert(key_of(request), (request.body_hash.to_vec(), answer));
            }
            // The answer to a publish is never sealed: it holds no secret.
            Some(Written::KeyReused | Written::SealedForOther) => {
                let no_answer = RecordedAnswer { status: 0, body: bytes::Bytes::new(), sealed: false };
                answers.insert(key_of(request), (Vec::new(), no_answer));
            }
            Some(Written::Done(())) | None => {}
        }
    }
    Ok(answers)
}

/// The earlier events of these `externalId`s.
pub const SELECT_PUBLISHED: &str =
    "SELECT p.workspace_key, p.mode, p.external_id, p.body_hash, p.event_key, e.type, e.project_id, e.deliveries
               FROM unnest($1, $2, $3) AS asked (workspace_key, mode, external_id)
               JOIN publish_keys p ON p.workspace_key = asked.workspace_key AND p.mode = asked.mode
                                  AND p.external_id = asked.external_id
               JOIN events e ON e.key = p.event_key";

/// The earlier events that used the `externalId`s of these events.
async fn find_published(
    tx: &WriteTx,
    events: impl Iterator<Item = &NewEvent>,
) -> Result<HashMap<PublishKey, Published>, PgError> {
    let (mut workspaces, mut modes, mut ids) = (Vec::new(), Vec::new(), Vec::new());
    for event in events {
        if let Some(external_id) = &event.external_id {
            workspaces.push(event.tenant.workspace.as_i64());
            modes.push(mode_code(event.tenant.mode));
            ids.push(external_id.as_str());
        }
    }
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = tx.query(SELECT_PUBLISHED, &[&workspaces, &modes, &ids]).await?;
    rows.iter().map(|row| published_from_row(tx, row)).collect()
}

fn published_from_row(tx: &WriteTx, row: &Row) -> Result<(PublishKey, Published), PgError> {
    let external_id: String = get(row, "external_id")?;
    let receipt = EventReceipt {
        id: EventId::new(key(row, "event_key")?, tx.tag),
        external_id: Some(external_id.clone()),
        event_type: EventTypeName::from_stored(get::<&str>(row, "type")?),
        project_id: get(row, "project_id")?,
        deliveries: number(row, "deliveries")?,
        replayed: true,
    };
    let published = Published { body_hash: get(row, "body_hash")?, receipt };
    let tenant = Tenant::whole(key(row, "workspace_key")?, coded(row, "mode", mode_from_code)?);
    Ok(((tenant, external_id), published))
}

impl AcceptGroup {
    async fn add(&mut self, tx: &mut WriteTx, request: &AcceptRequest) -> Result<Accepted, PgError> {
        if let Some(recording) = &request.recording
            && let Some((body_hash, answer)) = self.answers.get(&key_of(&recording.request))
        {
            let is_same = *body_hash == recording.request.body_hash;
            return Ok(Ok(if is_same { Written::Replayed(answer.clone()) } else { Written::KeyReused }));
        }
        let receipts = match self.accept(tx, &request.events).await? {
            Ok(receipts) => receipts,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(recording) = &request.recording {
            let answer = (recording.render)(&receipts);
            self.answers.insert(key_of(&recording.request), (recording.request.body_hash.to_vec(), answer.clone()));
            self.recorded.push((recording.request.clone(), answer));
        }
        Ok(Ok(Written::Done(receipts)))
    }

    async fn accept(
        &mut self,
        tx: &mut WriteTx,
        events: &[NewEvent],
    ) -> Result<Result<Vec<EventReceipt>, AcceptError>, PgError> {
        let mut found = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            match self.published_before(event) {
                Some(published) if published.body_hash != event.body_hash => {
                    return Ok(Err(AcceptError::ExternalIdReused { index }));
                }
                before => found.push(before.map(|published| published.receipt.clone())),
            }
        }
        let mut matches = Vec::with_capacity(events.len());
        let mut count = 0;
        for (event, _) in events.iter().zip(&found).filter(|(_, found)| found.is_none()) {
            let subscribers = matching::subscribers(tx, event.tenant.workspace).await?;
            let matching: Vec<RowKey> = subscribers.matching(event).map(|subscriber| subscriber.endpoint.key).collect();
            count += matching.len();
            matches.push((subscribers, matching));
        }
        if count > limits::DELIVERIES_PER_REQUEST {
            return Ok(Err(AcceptError::TooManyDeliveries { count, max: limits::DELIVERIES_PER_REQUEST }));
        }
        let new = events.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(event, _)| event);
        if let Some(max) = self.exceeded_budget(tx, new).await? {
            return Ok(Err(AcceptError::WorkspaceFull { max }));
        }
        let mut matches = matches.into_iter();
        let mut receipts = Vec::with_capacity(events.len());
        for (event, found) in events.iter().zip(found) {
            receipts.push(match found {
                Some(receipt) => receipt,
                None => {
                    let (subscribers, matching) = matches.next().ok_or_else(|| unexpected("a match"))?;
                    self.add_event(tx, event, &subscribers, &matching)
                }
            });
        }
        // Only now: an id that occurs twice in one request does not repeat an earlier one.
        for (event, receipt) in events.iter().zip(&receipts).filter(|(_, receipt)| !receipt.replayed) {
            if let Some(key) = publish_key(event) {
                let receipt = EventReceipt { replayed: true, ..receipt.clone() };
                self.published.insert(key, Published { body_hash: event.body_hash.to_vec(), receipt });
            }
        }
        Ok(Ok(receipts))
    }

    /// The budget of the events' workspace, if it has no room for them. The events of a request are of one workspace.
    async fn exceeded_budget<'e>(
        &self,
        tx: &WriteTx,
        events: impl Iterator<Item = &'e NewEvent> + Clone + Send,
    ) -> Result<Option<u64>, PgError> {
        if tx.database.stored.max.get().is_none() {
            return Ok(None);
        }
        let Some(workspace) = events.clone().next().map(|event| event.tenant.workspace) else { return Ok(None) };
        let new: usize = events.map(|event| event.envelope.len()).sum();
        let of_group = self.events.iter().filter(|(event, _)| event.tenant.workspace == workspace);
        let earlier: usize = of_group.map(|(event, _)| event.envelope.len()).sum();
        stored_bytes::exceeded_budget(tx, workspace, earlier + new).await
    }

    fn published_before(&self, event: &NewEvent) -> Option<&Published> {
        self.published.get(&publish_key(event)?)
    }

    fn add_event(
        &mut self,
        tx: &WriteTx,
        event: &NewEvent,
        subscribers: &Arc<Subscribers>,
        matching: &[RowKey],
    ) -> EventReceipt {
        let mut queued = 0;
        for subscriber in matching.iter().filter_map(|key| subscribers.get(*key)) {
            let delivery = NewDelivery::of_event(tx.next_key(), event, subscriber, tx.now);
            queued += usize::from(delivery.skipped.is_none());
            self.deliveries.push(delivery);
        }
        self.events.push((event.clone(), queued));
        receipt_of(event, queued)
    }

    async fn write(self, tx: &mut WriteTx) -> Result<(), PgError> {
        let Self { events, deliveries, recorded, .. } = self;
        let (written, keyed, bounds) =
            join3(insert_events(tx, &events), insert_publish_keys(tx, &events), enqueue::bounds(tx, &deliveries)).await;
        written.and(keyed)?;
        let added = events.iter().map(|(event, _)| Change {
            workspace: event.tenant.workspace,
            key: event.id.key(),
            bytes: bytes_of(event.envelope.len()),
        });
        stored_bytes::count(tx, CountedPart::Events, added).await?;
        if !recorded.is_empty() {
            let recorded: Vec<_> = recorded.iter().map(|(request, answer)| (request, answer.clone())).collect();
            idempotency::record_many(tx, &recorded).await?;
        }
        enqueue::insert(tx, deliveries, bounds?).await
    }
}

fn publish_key(event: &NewEvent) -> Option<PublishKey> {
    Some((event.tenant, event.external_id.as_ref()?.as_str().to_owned()))
}

/// Inserts events.
pub const INSERT_EVENTS: &str =
    "INSERT INTO events (key, workspace_key, mode, type, project_id, external_id, occurred_at, deliveries, envelope,
                         traceparent)
               SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

async fn insert_events(tx: &WriteTx, events: &[(NewEvent, usize)]) -> Result<(), PgError> {
    if events.is_empty() {
        return Ok(());
    }
    tx.count(|rollups| events.iter().for_each(|(event, _)| rollups.event(event)));
    let traces: Vec<_> = events.iter().map(|(event, _)| event.trace.map(TraceContext::to_bytes)).collect();
    tx.execute(
        INSERT_EVENTS,
        &[
            &events.iter().map(|(event, _)| event.id.key().as_i64()).collect::<Vec<i64>>(),
            &events.iter().map(|(event, _)| event.tenant.workspace.as_i64()).collect::<Vec<i64>>(),
            &events.iter().map(|(event, _)| mode_code(event.tenant.mode)).collect::<Vec<i64>>(),
            &events.iter().map(|(event, _)| event.event_type.as_str()).collect::<Vec<&str>>(),
            &events
                .iter()
                .map(|(event, _)| event.project_id.as_ref().map(|id| id.as_str()))
                .collect::<Vec<Option<&str>>>(),
            &events
                .iter()
                .map(|(event, _)| event.external_id.as_ref().map(|id| id.as_str()))
                .collect::<Vec<Option<&str>>>(),
            &events.iter().map(|(event, _)| event.occurred_at.map(Timestamp::millis)).collect::<Vec<Option<i64>>>(),
            &events.iter().map(|(_, deliveries)| i64::try_from(*deliveries).unwrap_or(i64::MAX)).collect::<Vec<i64>>(),
            &events.iter().map(|(event, _)| event.envelope.as_ref()).collect::<Vec<&[u8]>>(),
            &traces
                .iter()
                .map(|trace| trace.as_ref().map(<[u8; TraceContext::STORED_BYTES]>::as_slice))
                .collect::<Vec<Option<&[u8]>>>(),
        ],
    )
    .await?;
    Ok(())
}

/// Inserts `externalId`s that are not in use.
pub const INSERT_PUBLISH_KEYS: &str =
    "INSERT INTO publish_keys (workspace_key, mode, external_id, event_key, body_hash)
               SELECT * FROM unnest($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";

/// Stores the `externalId`s of these events. Replaces an entry whose event is gone.
///
/// # Errors
/// [`PgError::Overtaken`] when another node has just used one of them.
async fn insert_publish_keys(tx: &WriteTx, events: &[(NewEvent, usize)]) -> Result<(), PgError> {
    let last_of_each: HashMap<PublishKey, &NewEvent> =
        events.iter().filter_map(|(event, _)| Some((publish_key(event)?, event))).collect();
    if last_of_each.is_empty() {
        return Ok(());
    }
    let mut keyed: Vec<((i64, i64, &str), &&NewEvent)> = last_of_each
        .iter()
        .map(|((tenant, id), event)| ((tenant.workspace.as_i64(), mode_code(tenant.mode), id.as_str()), event))
        .collect();
    keyed.sort_by_key(|(key, _)| *key);
    let workspaces: Vec<i64> = keyed.iter().map(|((workspace, ..), _)| *workspace).collect();
    let modes: Vec<i64> = keyed.iter().map(|((_, mode, _), _)| *mode).collect();
    let ids: Vec<&str> = keyed.iter().map(|((.., id), _)| *id).collect();
    let event_keys: Vec<i64> = keyed.iter().map(|(_, event)| event.id.key().as_i64()).collect();
    let hashes: Vec<&[u8]> = keyed.iter().map(|(_, event)| event.body_hash.as_slice()).collect();
    let mut written = tx.execute(INSERT_PUBLISH_KEYS, &[&workspaces, &modes, &ids, &event_keys, &hashes]).await?;
    if written < keyed.len() as u64 {
        // First lock, then check in a later statement whether the events are gone: a statement does not see an event
        // committed while it waited for the lock.
        let sql = "SELECT 1 FROM unnest($1, $2, $3) AS new (workspace_key, mode, external_id)
                   JOIN publish_keys p USING (workspace_key, mode, external_id)
                   ORDER BY p.workspace_key, p.mode, p.external_id FOR UPDATE OF p";
        tx.query(sql, &[&workspaces, &modes, &ids]).await?;
        let sql = "UPDATE publish_keys p SET event_key = new.event_key, body_hash = new.body_hash
                   FROM unnest($1, $2, $3, $4, $5) AS new (workspace_key, mode, external_id, event_key, body_hash)
                   WHERE p.workspace_key = new.workspace_key AND p.mode = new.mode AND p.external_id = new.external_id
                     AND p.event_key <> new.event_key AND NOT EXISTS (SELECT 1 FROM events WHERE key = p.event_key)";
        written += tx.execute(sql, &[&workspaces, &modes, &ids, &event_keys, &hashes]).await?;
    }
    if written == keyed.len() as u64 { Ok(()) } else { Err(PgError::Overtaken) }
}
