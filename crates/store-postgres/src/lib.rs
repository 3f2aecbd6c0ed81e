//! The store of several nodes: one PostgreSQL database, in which every promise of [`Store`] is kept by transactions.
//!
//! Any node takes any request and any delivery. What must not happen at the same time meets in a row or an advisory lock
//! (`transaction.rs`), never in the memory of a node. Events and outcomes, of which there are many, are written in groups with
//! statements for many rows (`group.rs`); everything else is a transaction of its own.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;

use postrider_domain::access::{ApiKey, ApiKeyHash, Mode};
use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter, Author};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::endpoint::{Endpoint, EndpointFilter, SecretVersion};
use postrider_domain::event::{Event, EventDetail, EventFilter, EventReceipt, NewEvent};
use postrider_domain::id::{ApiKeyId, DeliveryId, EndpointId, EventId, ReplayId, RowKey, StoreTag, WorkspaceId};
use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange};
use postrider_domain::workspace::{Workspace, WorkspaceName};

use postrider_store::{
    AcceptError, CatalogueAdoption, ClaimSink, ClaimToken, Claimed, CreateApiKeyError, CreateEndpointError,
    DeleteEndpointError, EndpointUpdate, LaneQuota, LogPart, NewApiKey, NewCatalogue, NewEndpoint, NewReplay,
    NewWorkspace, OutcomeRecord, Recorded, RequeueError, RevokeApiKeyError, RotateSecretError, SealedParts,
    SecretRotation, SkipDeliveryError, StopReplayError, Store, StoreError, UpdateEndpointError, WriteWorkspaceError,
    Written,
};

mod access;
mod audit;
mod catalogue;
mod column;
mod connect;
pub mod copy;
mod delivery;
mod due;
mod endpoint;
mod endpoint_options;
mod enqueue;
mod event;
mod event_log;
pub mod examine;
mod fault;
mod group;
mod health;
mod idempotency;
mod lane;
mod matching;
mod meta;
mod node;
mod open;
mod operation;
mod order;
mod outcome;
mod partition;
#[cfg(test)]
mod plans;
mod replay;
mod requeue;
mod retention;
mod schema;
mod session;
mod settings;
mod time;
mod transaction;
mod unsent;
mod workspace;

pub use connect::ConnectError;
pub use settings::{PostgresSettings, TimeSource};

use fault::PgError;
use group::Groups;
use transaction::{Shared, WriteTx};

/// The store in one database.
pub struct PostgresStore {
    shared: Arc<Shared>,
    groups: Groups,
    /// The node's own tasks: its lease, what it hears of others, partitions. None for a command.
    _node: Option<node::Node>,
}

/// What each transaction tells the planner: to use the indexes, which are made for the statements, whatever it thinks of the sizes.
/// Tables that grow from nothing are planned by what they were.
const PLANNER: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

const CLOCK_IS_OFF: &str = "this node's clock is more than 30 seconds off the database's";

/// An effect of a transaction that may be run again: its values are cloned for each run.
macro_rules! effect {
    ([$($value:ident),*] |$tx:ident| $body:expr) => {
        move |$tx: &mut WriteTx| {
            $(let $value = $value.clone();)*
            Box::pin(async move { $body.await })
        }
    };
}

impl PostgresStore {
    /// A write that a request may have asked to be remembered.
    async fn write_once<T, E, F>(
        &self,
        recording: Option<Recording<T>>,
        effect: F,
    ) -> Result<Result<Written<T>, E>, StoreError>
    where
        T: Send + Sync + 'static,
        E: Send + 'static,
        F: for<'t> Fn(&'t mut WriteTx) -> BoxFuture<'t, Result<Result<T, E>, PgError>> + Send + Sync + 'static,
    {
        let effect = Arc::new(effect);
        self.shared
            .write(move |tx| {
                let (recording, effect) = (recording.clone(), Arc::clone(&effect));
                Box::pin(async move { idempotency::once(tx, recording.as_ref(), effect.as_ref()).await })
            })
            .await
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn tag(&self) -> StoreTag {
        self.shared.tag
    }

    fn next_key(&self) -> RowKey {
        self.shared.next_key(self.shared.time.about_now())
    }

    fn attach(&self, hand_over: Weak<dyn ClaimSink>) {
        if self.shared.hand_over.set(hand_over).is_err() {
            tracing::error!("a second engine was attached to the store and is not handed anything");
        }
    }

    fn report_operations(&self, workspace_key: RowKey) {
        if self.shared.operations.set(workspace_key).is_err() {
            tracing::error!("the store was told twice where to report to");
        }
    }

    fn nodes(&self) -> usize {
        self.shared.nodes.load(Ordering::Relaxed)
    }

    async fn check(&self) -> Result<(), StoreError> {
        self.shared.write(effect!([] | tx | meta::check_writable(tx))).await?;
        if self.shared.time.is_off() { Err(unavailable(CLOCK_IS_OFF)) } else { Ok(()) }
    }

    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.read(move |session| Box::pin(meta::find(session, name))).await
    }

    async fn meta_or_insert(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError> {
        self.shared.write(effect!([value] | tx | meta::meta_or_insert(tx, name, &value))).await
    }

    async fn adopt_catalogue(&self, new: NewCatalogue) -> Result<CatalogueAdoption, StoreError> {
        self.shared.write(effect!([new] | tx | catalogue::adopt(tx, &new))).await
    }

    async fn catalogue(&self) -> Result<Option<String>, StoreError> {
        self.shared.read(|session| Box::pin(catalogue::find(session))).await
    }

    async fn ensure_workspace(&self, new: NewWorkspace) -> Result<Workspace, StoreError> {
        self.shared.write(effect!([new] | tx | workspace::ensure(tx, &new))).await
    }

    async fn create_workspace(
        &self,
        new: NewWorkspace,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(recording, effect!([new] | tx | workspace::create(tx, &new))).await?
    }

    async fn find_workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError> {
        self.shared.read(move |session| Box::pin(workspace::find(session, id))).await
    }

    async fn find_workspace_named(&self, name: WorkspaceName) -> Result<Option<Workspace>, StoreError> {
        self.shared.read(move |session| Box::pin(async move { workspace::find_named(session, &name).await })).await
    }

    async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, StoreError> {
        self.shared.read(move |session| Box::pin(workspace::list(session, page))).await
    }

    async fn rename_workspace(
        &self,
        id: WorkspaceId,
        name: WorkspaceName,
        author: Author,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError> {
        self.write_once(recording, effect!([name] | tx | workspace::rename(tx, id, &name, author))).await?
    }

    async fn delete_workspace(
        &self,
        id: WorkspaceId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, WriteWorkspaceError> {
        self.write_once(recording, effect!([] | tx | workspace::delete(tx, id, author))).await?
    }

    async fn create_api_key(
        &self,
        new: NewApiKey,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, CreateApiKeyError> {
        self.write_once(recording, effect!([new] | tx | access::create_api_key(tx, &new))).await?
    }

    async fn find_api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKey>, StoreError> {
        self.shared.read(move |session| Box::pin(access::find_api_key(session, hash))).await
    }

    async fn get_api_key(&self, workspace_key: Option<RowKey>, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError> {
        self.shared.read(move |session| Box::pin(access::get_api_key(session, workspace_key, id))).await
    }

    async fn list_api_keys(
        &self,
        workspace_key: Option<RowKey>,
        page: PageRequest,
    ) -> Result<Page<ApiKey>, StoreError> {
        self.shared.read(move |session| Box::pin(access::list_api_keys(session, workspace_key, page))).await
    }

    async fn revoke_api_key(
        &self,
        workspace_key: RowKey,
        id: ApiKeyId,
        author: Author,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, RevokeApiKeyError> {
        self.write_once(recording, effect!([] | tx | access::revoke_api_key(tx, workspace_key, id, author))).await?
    }

    async fn list_audit(
        &self,
        workspace_key: Option<RowKey>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError> {
        let tag = self.shared.tag;
        self.shared
            .read(move |session| Box::pin(async move { audit::list(session, tag, workspace_key, &filter, page).await }))
            .await
    }

    async fn find_answer<'r>(&self, request: &'r IdempotentRequest) -> Result<Option<Written<()>>, StoreError> {
        let (request, now) = (request.clone(), self.shared.time.about_now());
        self.shared.read(move |session| Box::pin(async move { idempotency::find(session, now, &request).await })).await
    }

    async fn record_answer(
        &self,
        request: IdempotentRequest,
        answer: RecordedAnswer,
    ) -> Result<Written<()>, StoreError> {
        self.shared.write(effect!([request, answer] | tx | idempotency::record_alone(tx, &request, &answer))).await
    }

    async fn create_endpoint(
        &self,
        new: NewEndpoint,
        recording: Option<Recording<Endpoint>>,
    ) -> Result<Written<Endpoint>, CreateEndpointError> {
        self.write_once(recording, effect!([new] | tx | endpoint::create(tx, &new))).await?
    }

    async fn find_endpoint(&self, workspace_key: RowKey, id: EndpointId) -> Result<Option<Endpoint>, StoreError> {
        self.shared.read(move |session| Box::pin(endpoint::find(session, workspace_key, id))).await
    }

    async fn list_endpoints(
        &self,
        workspace_key: RowKey,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, StoreError> {
        self.shared
            .read(move |session| Box::pin(async move { endpoint::list(session, workspace_key, &filter, page).await }))
            .await
    }

    async fn update_endpoint(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        update: EndpointUpdate,
        author: Author,
        recording: Option<Recording<Endpoint>>,
    ) -> Result<Written<Endpoint>, UpdateEndpointError> {
        self.write_once(recording, effect!([update] | tx | endpoint::update(tx, workspace_key, id, &update, author)))
            .await?
    }

    async fn delete_endpoint(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, DeleteEndpointError> {
        self.write_once(recording, effect!([] | tx | endpoint::delete(tx, workspace_key, id, author))).await?
    }

    async fn secret_version(&self, workspace_key: RowKey, id: EndpointId) -> Result<Option<SecretVersion>, StoreError> {
        self.shared.read(move |session| Box::pin(endpoint::secret_version(session, workspace_key, id))).await
    }

    async fn rotate_secret(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        rotation: SecretRotation,
        author: Author,
    ) -> Result<Endpoint, RotateSecretError> {
        self.shared
            .write(effect!([rotation] | tx | endpoint::rotate_secret(tx, workspace_key, id, &rotation, author)))
            .await?
    }

    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError> {
        self.shared.write(effect!([] | tx | endpoint::erase_unused_secrets(tx, limit))).await
    }

    async fn find_secret(&self, endpoint_key: RowKey, version: SecretVersion) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared.read(move |session| Box::pin(endpoint::find_secret(session, endpoint_key, version))).await
    }

    async fn find_signing_key(
        &self,
        endpoint_key: RowKey,
        version: SecretVersion,
    ) -> Result<Option<Vec<u8>>, StoreError> {
        self.shared
            .read(move |session| Box::pin(endpoint_options::find_signing_key(session, endpoint_key, version)))
            .await
    }

    async fn find_sealed_parts(&self, endpoint_key: RowKey) -> Result<Option<SealedParts>, StoreError> {
        self.shared.read(move |session| Box::pin(endpoint_options::find_sealed(session, endpoint_key))).await
    }

    async fn accept_events(
        &self,
        events: Vec<NewEvent>,
        recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Written<Vec<EventReceipt>>, AcceptError> {
        self.groups.accept(event::AcceptRequest { events, recording }).await?
    }

    async fn list_events(
        &self,
        workspace_key: RowKey,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, StoreError> {
        let tag = self.shared.tag;
        self.shared
            .read(move |session| {
                Box::pin(async move { event_log::list(session, tag, workspace_key, &filter, page).await })
            })
            .await
    }

    async fn find_event(&self, workspace_key: RowKey, id: EventId) -> Result<Option<EventDetail>, StoreError> {
        let tag = self.shared.tag;
        self.shared.read(move |session| Box::pin(event_log::find(session, tag, workspace_key, id))).await
    }

    async fn accept_test(
        &self,
        endpoint_id: EndpointId,
        event: NewEvent,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, RequeueError> {
        self.write_once(recording, effect!([event] | tx | requeue::accept_test(tx, endpoint_id, &event, author)))
            .await?
    }

    async fn retry_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, RequeueError> {
        self.write_once(recording, effect!([] | tx | requeue::retry(tx, workspace_key, id, author))).await?
    }

    async fn skip_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, SkipDeliveryError> {
        self.write_once(recording, effect!([] | tx | order::skip(tx, workspace_key, id, author)))
            .await?
            .map_err(Into::into)
    }

    async fn count_replayable(
        &self,
        endpoint_key: RowKey,
        mode: Mode,
        range: ReplayRange,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError> {
        self.shared
            .read(move |session| {
                Box::pin(async move {
                    let scope = replay::Scope { endpoint_key, mode, range: &range };
                    replay::count(session, scope, after).await
                })
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
        self.write_once(recording, effect!([new] | tx | replay::create(tx, workspace_key, endpoint_id, &new))).await?
    }

    async fn list_replays(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError> {
        let tag = self.shared.tag;
        self.shared.read(move |session| Box::pin(replay::list(session, tag, workspace_key, endpoint_id, page))).await
    }

    async fn find_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError> {
        let tag = self.shared.tag;
        self.shared.read(move |session| Box::pin(replay::find(session, tag, workspace_key, endpoint_id, id))).await
    }

    async fn stop_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        id: ReplayId,
        author: Author,
        recording: Option<Recording<Replay>>,
    ) -> Result<Written<Replay>, StopReplayError> {
        self.write_once(recording, effect!([] | tx | replay::stop(tx, workspace_key, endpoint_id, id, author))).await?
    }

    async fn advance_replays(&self) -> Result<Option<usize>, StoreError> {
        self.shared.write(effect!([] | tx | replay::advance(tx))).await
    }

    async fn list_deliveries(
        &self,
        workspace_key: RowKey,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError> {
        let tag = self.shared.tag;
        self.shared
            .read(move |session| {
                Box::pin(async move { delivery::list(session, tag, workspace_key, &filter, page).await })
            })
            .await
    }

    async fn find_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError> {
        let tag = self.shared.tag;
        self.shared.read(move |session| Box::pin(delivery::find(session, tag, workspace_key, id))).await
    }

    async fn claim_due(&self, limit: usize, lease: Duration, quota: Arc<dyn LaneQuota>) -> Result<Claimed, StoreError> {
        self.shared.write(effect!([quota] | tx | claim_if_clock_is_right(tx, limit, lease, &quota))).await
    }

    async fn give_back_if_claimed(&self, claims: Vec<(DeliveryId, ClaimToken)>) -> Result<(), StoreError> {
        self.shared.write(effect!([claims] | tx | due::give_back(tx, &claims))).await
    }

    async fn record_outcomes_if_claimed(&self, outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError> {
        let outcomes = Arc::new(outcomes);
        self.shared.write(effect!([outcomes] | tx | outcome::record(tx, &outcomes))).await
    }

    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError> {
        self.shared.write(effect!([] | tx | unsent::expire_waiting(tx, limit))).await
    }

    async fn remove_aged(
        &self,
        part: LogPart,
        age: Duration,
        after: RowKey,
        limit: usize,
    ) -> Result<Option<RowKey>, StoreError> {
        retention::remove(&self.shared, part, age, after, limit).await
    }

    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError> {
        self.shared.write(effect!([] | tx | idempotency::forget(tx, limit))).await
    }
}

/// The transaction has just asked for the time: so it is known whether the clock is off, and when it is right again.
async fn claim_if_clock_is_right(
    tx: &mut WriteTx,
    limit: usize,
    lease: Duration,
    quota: &Arc<dyn LaneQuota>,
) -> Result<Claimed, PgError> {
    if tx.shared.time.is_off() {
        return Err(PgError::Unavailable(CLOCK_IS_OFF));
    }
    due::claim(tx, limit, lease, quota).await
}

const fn unavailable(why: &'static str) -> StoreError {
    StoreError::Unavailable { why, source: None }
}

fn broken(what: &'static str) -> StoreError {
    StoreError::Broken(what.into())
}

fn unexpected_value(what: &'static str) -> PgError {
    postrider_store::UnexpectedValue(what).into()
}
