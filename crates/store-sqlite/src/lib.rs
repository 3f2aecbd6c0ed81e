//! The embedded store: one SQLite file in the data directory, written by one thread, read by a few.
//!
//! The process holds the directory alone, so whatever was claimed when it starts was claimed by a process that is
//! gone, and its claims are released at once instead of when their lease runs out.

use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::OptionalExtension;

use postrider_domain::access::{ApiKey, ApiKeyHash, Mode};
use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter, Author};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::endpoint::{Endpoint, EndpointFilter, SecretVersion};
use postrider_domain::event::{Event, EventDetail, EventFilter, EventReceipt, NewEvent};
use postrider_domain::id::{ApiKeyId, DeliveryId, EndpointId, EventId, ReplayId, RowKey, StoreTag, WorkspaceId};
use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::limits;
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange};
use postrider_domain::time::Clock;
use postrider_domain::workspace::{Workspace, WorkspaceName};

use postrider_store::directory::DirectoryLock;
use postrider_store::{
    AcceptError, CatalogueAdoption, ClaimSink, ClaimToken, Claimed, CreateApiKeyError, CreateEndpointError,
    DeleteEndpointError, EndpointUpdate, LaneQuota, LogPart, NewApiKey, NewCatalogue, NewEndpoint, NewReplay,
    NewWorkspace, OpenError, OutcomeRecord, Recorded, RequeueError, RevokeApiKeyError, RotateSecretError, SealedParts,
    SecretRotation, SkipDeliveryError, StopReplayError, Store, StoreError, UpdateEndpointError, WriteWorkspaceError,
    Written,
};

mod access;
mod audit;
mod catalogue;
pub mod ceiling;
mod checkpoint;
mod column;
pub mod copy;
mod delivery;
mod due;
mod endpoint;
mod endpoint_options;
mod event;
mod event_log;
mod health;
mod idempotency;
mod inbox;
mod lane;
mod matching;
mod meta;
mod open;
mod operation;
mod order;
mod reader;
mod replay;
mod requeue;
mod retention;
mod row_key;
mod schema;
mod sync;
mod unsent;
mod workspace;
mod writer;

use endpoint::{NotCreated, UpdateRefusal};
use event::AcceptRefusal;
use postrider_store::registry::endpoint_options::OptionsRefusal;
use postrider_store::replay::Scope;
use reader::Readers;
use writer::{JobSize, SharedKeys, WriteTx, Writer};

/// The store in one directory.
pub struct SqliteStore {
    // Fields drop in this order: the writer's channel closes before the threads are waited for, the lock goes last.
    writer: Option<Writer>,
    readers: Readers,
    clock: Arc<dyn Clock>,
    keys: SharedKeys,
    tag: StoreTag,
    /// The writer's, then those of flushing and of checkpoints, which end after it.
    threads: Vec<JoinHandle<()>>,
    _lock: DirectoryLock,
}

impl SqliteStore {
    async fn write<T, F>(&self, size: JobSize, effect: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnMut(&mut WriteTx<'_>) -> Result<T, rusqlite::Error> + Send + 'static,
    {
        self.writer()?.write(size, false, effect).await
    }

    fn writer(&self) -> Result<&Writer, StoreError> {
        self.writer.as_ref().ok_or_else(|| unavailable("the store is closing"))
    }

    /// A small write that a request may have asked to be remembered.
    async fn write_once<T, E, F>(
        &self,
        recording: Option<Recording<T>>,
        mut effect: F,
    ) -> Result<Result<Written<T>, E>, StoreError>
    where
        T: Send + 'static,
        E: Send + 'static,
        F: FnMut(&mut writer::WriteTx<'_>) -> Result<Result<T, E>, rusqlite::Error> + Send + 'static,
    {
        self.write(JobSize::ONE_ROW, move |tx| idempotency::once(tx, recording.as_ref(), |tx| effect(tx))).await
    }
}

impl From<workspace::Refused> for WriteWorkspaceError {
    fn from(refused: workspace::Refused) -> Self {
        match refused {
            workspace::Refused::NotFound => Self::NotFound,
            workspace::Refused::NameTaken => Self::NameTaken,
        }
    }
}

#[async_trait]
impl Store for SqliteStore {
    fn tag(&self) -> StoreTag {
        self.tag
    }

    fn next_key(&self) -> RowKey {
        self.keys.next(self.clock.now())
    }

    fn attach(&self, hand_over: Weak<dyn ClaimSink>) {
        if let Some(writer) = &self.writer {
            writer.attach(hand_over);
        }
    }

    fn report_operations(&self, workspace_key: RowKey) {
        if let Some(writer) = &self.writer {
            writer.report_operations(workspace_key);
        }
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.readers.read(|connection| connection.query_row("SELECT 1", [], |_row| Ok(()))).await?;
        self.write(JobSize::ONE_ROW, |_tx| Ok(())).await
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers
            .read(move |connection| {
                connection.query_row("SELECT value FROM meta WHERE name = ?1", [name], |row| row.get(0)).optional()
            })
            .await
    }

    async fn meta_or_insert(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| meta::meta_or_insert(tx.connection, name, &value)).await
    }

    async fn adopt_catalogue(&self, new: NewCatalogue) -> Result<CatalogueAdoption, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| catalogue::adopt(tx, &new)).await
    }

    async fn catalogue(&self) -> Result<Option<String>, StoreError> {
        self.readers.read(catalogue::find).await
    }

    async fn ensure_workspace(&self, new: NewWorkspace) -> Result<Workspace, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| workspace::ensure(tx, &new)).await
    }

    async fn create_workspace(
        &self,
        new: NewWorkspace,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(recording, move |tx| workspace::create(tx, &new)).await?.map_err(Into::into)
    }

    async fn find_workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        self.readers.read(move |connection| workspace::find(connection, id)).await
    }

    async fn find_workspace_named(&self, name: WorkspaceName) -> Result<Option<Workspace>, StoreError> {
        self.readers.read(move |connection| workspace::find_named(connection, &name)).await
    }

    async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, StoreError> {
        self.readers.read(move |connection| workspace::list(connection, page)).await
    }

    async fn rename_workspace(
        &self,
        id: WorkspaceId,
        name: WorkspaceName,
        author: Author,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(recording, move |tx| workspace::rename(tx, id, &name, author)).await?.map_err(Into::into)
    }

    async fn delete_workspace(
        &self,
        id: WorkspaceId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, WriteWorkspaceError> {
        self.write_once(recording, move |tx| workspace::delete(tx, id, author)).await?.map_err(Into::into)
    }

    async fn create_api_key(
        &self,
        new: NewApiKey,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, CreateApiKeyError> {
        let limit = new.limit;
        self.write_once(recording, move |tx| access::create_api_key(tx, &new)).await?.map_err(|no_key| match no_key {
            access::NoKey::Full => CreateApiKeyError::WorkspaceFull(limit),
            access::NoKey::WorkspaceGone => CreateApiKeyError::NoWorkspace,
        })
    }

    async fn find_api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKey>, StoreError> {
        self.readers.read(move |connection| access::find_api_key(connection, hash)).await
    }

    async fn get_api_key(&self, workspace_key: Option<RowKey>, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        self.readers.read(move |connection| access::get_api_key(connection, workspace_key, id)).await
    }

    async fn list_api_keys(
        &self,
        workspace_key: Option<RowKey>,
        page: PageRequest,
    ) -> Result<Page<ApiKey>, StoreError> {
        self.readers.read(move |connection| access::list_api_keys(connection, workspace_key, page)).await
    }

    async fn revoke_api_key(
        &self,
        workspace_key: RowKey,
        id: ApiKeyId,
        author: Author,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, RevokeApiKeyError> {
        self.write_once(recording, move |tx| {
            Ok(access::revoke_api_key(tx, workspace_key, id, author)?.ok_or(RevokeApiKeyError::NotFound))
        })
        .await?
    }

    async fn list_audit(
        &self,
        workspace_key: Option<RowKey>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| audit::list(connection, tag, workspace_key, &filter, page)).await
    }

    async fn find_answer<'r>(&self, request: &'r IdempotentRequest) -> Result<Option<Written<()>>, StoreError> {
        let (request, now) = (request.clone(), self.clock.now());
        self.readers.read(move |connection| idempotency::find(connection, now, &request)).await
    }

    async fn record_answer(
        &self,
        request: IdempotentRequest,
        answer: RecordedAnswer,
    ) -> Result<Written<()>, StoreError> {
        self.write(JobSize::ONE_ROW, move |tx| {
            if let Some(kept) = idempotency::find(tx.connection, tx.now, &request)? {
                return Ok(kept);
            }
            idempotency::record(tx, &request, &answer)?;
            Ok(Written::Done(()))
        })
        .await
    }

    async fn create_endpoint(
        &self,
        new: NewEndpoint,
        recording: Option<Recording<Endpoint>>,
    ) -> Result<Written<Endpoint>, CreateEndpointError> {
        let limits = new.limits;
        self.write_once(recording, move |tx| endpoint::create(tx, &new)).await?.map_err(|refusal| match refusal {
            NotCreated::ProjectFull => CreateEndpointError::ProjectFull(limits.per_project),
            NotCreated::WorkspaceFull => CreateEndpointError::WorkspaceFull(limits.per_workspace),
            NotCreated::Options(OptionsRefusal::NothingToKeep(name)) => {
                CreateEndpointError::NothingToKeep(name.as_str().to_owned())
            }
            NotCreated::Options(OptionsRefusal::SecretVersionChanged) => {
                CreateEndpointError::Store(broken("v1a was asked for without a key of the first version"))
            }
        })
    }

    async fn find_endpoint(&self, workspace_key: RowKey, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.readers.read(move |connection| endpoint::find(connection, workspace_key, id)).await
    }

    async fn list_endpoints(
        &self,
        workspace_key: RowKey,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, StoreError> {
        self.readers.read(move |connection| endpoint::list(connection, workspace_key, &filter, page)).await
    }

    async fn update_endpoint(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        update: EndpointUpdate,
        author: Author,
        recording: Option<Recording<Endpoint>>,
    ) -> Result<Written<Endpoint>, UpdateEndpointError> {
        let limits = update.limits;
        self.write(JobSize::ONE_ROW, move |tx| {
            let effect = |tx: &mut WriteTx<'_>| endpoint::update(tx, workspace_key, id, &update, author);
            idempotency::once(tx, recording.as_ref(), effect)
        })
        .await?
        .map_err(|refusal| match refusal {
            UpdateRefusal::NotFound => UpdateEndpointError::NotFound,
            UpdateRefusal::ProjectFull => UpdateEndpointError::ProjectFull(limits.per_project),
            UpdateRefusal::Options(OptionsRefusal::NothingToKeep(name)) => {
                UpdateEndpointError::NothingToKeep(name.as_str().to_owned())
            }
            UpdateRefusal::Options(OptionsRefusal::SecretVersionChanged) => UpdateEndpointError::SecretVersionChanged,
        })
    }

    async fn delete_endpoint(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, DeleteEndpointError> {
        self.write_once(recording, move |tx| endpoint::delete(tx, workspace_key, id, author))
            .await?
            .map_err(|endpoint::NotFound| DeleteEndpointError::NotFound)
    }

    async fn secret_version(&self, workspace_key: RowKey, id: EndpointId) -> Result<Option<SecretVersion>, StoreError> {
        self.readers.read(move |connection| endpoint::secret_version(connection, workspace_key, id)).await
    }

    async fn rotate_secret(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        rotation: SecretRotation,
        author: Author,
    ) -> Result<Endpoint, RotateSecretError> {
        self.write(JobSize::ONE_ROW, move |tx| endpoint::rotate_secret(tx, workspace_key, id, &rotation, author))
            .await?
            .map_err(|refusal| match refusal {
                endpoint::RotateRefusal::NotFound => RotateSecretError::NotFound,
                endpoint::RotateRefusal::Outrun => RotateSecretError::SecretVersionChanged,
            })
    }

    /// Looks for them while reading: nothing new can come to need a secret that is not the newest.
    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError> {
        let now = self.clock.now();
        let unused = self.readers.read(move |connection| endpoint::unused_secrets(connection, now, limit)).await?;
        if unused.is_empty() {
            return Ok(0);
        }
        self.write(JobSize::ONE_ROW, move |tx| endpoint::erase_secrets(tx, &unused)).await
    }

    async fn find_secret(&self, endpoint_key: RowKey, version: SecretVersion) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |connection| endpoint::find_secret(connection, endpoint_key, version)).await
    }

    async fn find_signing_key(
        &self,
        endpoint_key: RowKey,
        version: SecretVersion,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.readers.read(move |connection| endpoint_options::find_signing_key(connection, endpoint_key, version)).await
    }

    async fn find_sealed_parts(&self, endpoint_key: RowKey) -> Result<Option<SealedParts>, StoreError> {
        self.readers.read(move |connection| endpoint_options::find_sealed(connection, endpoint_key)).await
    }

    async fn accept_events(
        &self,
        events: Vec<NewEvent>,
        recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Written<Vec<EventReceipt>>, AcceptError> {
        if self.writer.as_ref().is_some_and(Writer::refuses_publishes) {
            return Err(unavailable("the write-ahead log has reached its limit").into());
        }
        let bytes = events.iter().map(|event| event.envelope.len()).sum();
        self.write(JobSize { rows: events.len(), bytes }, move |tx| {
            idempotency::once(tx, recording.as_ref(), |tx| event::accept(tx, &events))
        })
        .await?
        .map_err(|refusal| match refusal {
            AcceptRefusal::ExternalIdReused { index } => AcceptError::ExternalIdReused { index },
            AcceptRefusal::TooManyDeliveries { count } => {
                AcceptError::TooManyDeliveries { count, max: limits::DELIVERIES_PER_REQUEST }
            }
        })
    }

    async fn list_events(
        &self,
        workspace_key: RowKey,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| event_log::list(connection, tag, workspace_key, &filter, page)).await
    }

    async fn find_event(&self, workspace_key: RowKey, id: EventId) -> Result<Option<EventDetail>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| event_log::find(connection, tag, workspace_key, id)).await
    }

    async fn accept_test(
        &self,
        endpoint_id: EndpointId,
        event: NewEvent,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, RequeueError> {
        self.write(JobSize { rows: 1, bytes: event.envelope.len() }, move |tx| {
            idempotency::once(tx, recording.as_ref(), |tx| requeue::accept_test(tx, endpoint_id, &event, author))
        })
        .await?
        .map_err(Into::into)
    }

    async fn retry_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, RequeueError> {
        self.write_once(recording, move |tx| requeue::retry(tx, workspace_key, id, author)).await?.map_err(Into::into)
    }

    async fn skip_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, SkipDeliveryError> {
        self.write_once(recording, move |tx| order::skip(tx, workspace_key, id, author)).await?.map_err(Into::into)
    }

    async fn count_replayable(
        &self,
        endpoint_key: RowKey,
        mode: Mode,
        range: ReplayRange,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError> {
        self.readers
            .read(move |connection| {
                let scope = Scope { endpoint_key, mode, range: &range };
                replay::count(connection, scope, after)
            })
            .await
    }

    async fn create_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        new: NewReplay,
        recording: Option<Recording<Replay>>,
    ) -> Result<Written<Replay>, RequeueError> {
        self.write_once(recording, move |tx| replay::create(tx, workspace_key, endpoint_id, &new))
            .await?
            .map_err(Into::into)
    }

    async fn list_replays(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| replay::list(connection, tag, workspace_key, endpoint_id, page)).await
    }

    async fn find_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| replay::find(connection, tag, workspace_key, endpoint_id, id)).await
    }

    async fn stop_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        id: ReplayId,
        author: Author,
        recording: Option<Recording<Replay>>,
    ) -> Result<Written<Replay>, StopReplayError> {
        self.write_once(recording, move |tx| replay::stop(tx, workspace_key, endpoint_id, id, author))
            .await?
            .map_err(|endpoint::NotFound| StopReplayError::NotFound)
    }

    async fn advance_replays(&self) -> Result<Option<usize>, StoreError> {
        self.write(JobSize { rows: 500, bytes: 0 }, replay::advance).await
    }

    async fn list_deliveries(
        &self,
        workspace_key: RowKey,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| delivery::list(connection, tag, workspace_key, &filter, page)).await
    }

    async fn find_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError> {
        let tag = self.tag;
        self.readers.read(move |connection| delivery::find(connection, tag, workspace_key, id)).await
    }

    async fn claim_due(&self, limit: usize, lease: Duration, quota: Arc<dyn LaneQuota>) -> Result<Claimed, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| due::claim(tx, limit, lease, &quota)).await
    }

    async fn give_back_if_claimed(&self, claims: Vec<(DeliveryId, ClaimToken)>) -> Result<(), StoreError> {
        self.write(JobSize { rows: claims.len(), bytes: 0 }, move |tx| due::give_back(tx, &claims)).await
    }

    async fn record_outcomes_if_claimed(&self, outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError> {
        let size = JobSize { rows: outcomes.len(), bytes: outcomes.len() * 1024 };
        let can_wait = due::can_wait(&outcomes);
        self.writer()?.write(size, can_wait, move |tx| due::record_outcomes(tx, &outcomes)).await
    }

    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| unsent::expire_waiting(tx, limit)).await
    }

    async fn remove_aged(
        &self,
        part: LogPart,
        age: Duration,
        after: RowKey,
        limit: usize,
    ) -> Result<Option<RowKey>, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| {
            retention::remove(tx, part, RowKey::first_at(tx.now.minus(age)), after, limit)
        })
        .await
    }

    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError> {
        self.write(JobSize { rows: limit, bytes: 0 }, move |tx| idempotency::forget(tx, limit)).await
    }
}

fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable { why, source: None }
}

fn broken(what: &'static str) -> StoreError {
    StoreError::Broken(what.into())
}
