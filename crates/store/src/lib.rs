//! What the rest of the house may ask of a store: one method, one transaction, one promise.
//!
//! The database is the queue and the only truth. Every promise below is stated by a test that runs on each back
//! end (`tests/it/store/conformance.rs`). Times are the store's own: callers give durations, never instants,
//! so that due times and leases go by one clock however many nodes there are.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;

use postrider_domain::access::{ApiKey, ApiKeyHash, ApiKeyName, Mode, Scopes};
use postrider_domain::attempt::Attempt;
use postrider_domain::audit::{AuditEntry, AuditFilter, Author};
use postrider_domain::delivery::{Delivery, DeliveryFilter};
use postrider_domain::endpoint::{
    Endpoint, EndpointChange, EndpointFilter, EndpointName, EndpointUrl, ProjectId, SecretVersion,
};
use postrider_domain::endpoint_options::{CertificateFacts, OptionsChange};
use postrider_domain::event::{Event, EventDetail, EventFilter, EventReceipt, NewEvent};
use postrider_domain::event_type::EventTypeName;
use postrider_domain::id::{ApiKeyId, DeliveryId, EndpointId, EventId, ReplayId, RowKey, StoreTag, WorkspaceId};
use postrider_domain::idempotency::{IdempotentRequest, RecordedAnswer, Recording};
use postrider_domain::page::{Page, PageRequest};
use postrider_domain::private_options::HeaderName;
use postrider_domain::replay::{Replay, ReplayCount, ReplayRange};
use postrider_domain::time::Timestamp;
use postrider_domain::workspace::{Workspace, WorkspaceName};

mod error;
mod queue;
mod refusal;
pub mod shared;

pub mod copy;
pub mod directory;

pub use error::{OpenError, StoreError, UnexpectedValue};
pub use queue::{
    AfterAttempt, Claim, ClaimToken, Claimed, EndpointTarget, HandOver, Lane, LaneKind, LaneQuota, OutcomeRecord,
    Recorded,
};
pub use refusal::{
    AcceptError, CreateApiKeyError, CreateEndpointError, DeleteEndpointError, RequeueError, RevokeApiKeyError,
    RotateSecretError, SkipDeliveryError, StopReplayError, UpdateEndpointError, WriteWorkspaceError,
};

/// What became of a write that may carry an idempotency key.
#[derive(Debug, PartialEq, Eq)]
pub enum Written<T> {
    Done(T),
    /// The same request came before; nothing was done now.
    Replayed(RecordedAnswer),
    /// The key came before with another body; nothing was done now.
    KeyReused,
}

/// A workspace to be made.
#[derive(Clone, Debug)]
pub struct NewWorkspace {
    pub id: WorkspaceId,
    pub name: WorkspaceName,
    pub author: Author,
}

/// A key to be made. The store never sees the key itself.
#[derive(Clone, Debug)]
pub struct NewApiKey {
    pub id: ApiKeyId,
    pub workspace_key: RowKey,
    pub name: Option<ApiKeyName>,
    pub mode: Mode,
    pub hash: ApiKeyHash,
    pub last4: String,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
    /// Keys of the workspace that may be in use at once.
    pub limit: u32,
    pub author: Author,
}

/// An endpoint to be made, its secret sealed.
#[derive(Clone, Debug)]
pub struct NewEndpoint {
    pub key: RowKey,
    pub id: EndpointId,
    pub workspace_key: RowKey,
    pub project_id: Option<ProjectId>,
    pub name: EndpointName,
    pub url: EndpointUrl,
    pub events: Vec<EventTypeName>,
    pub sealed_secret: Vec<u8>,
    pub secret_last4: String,
    pub options: OptionsChange,
    pub sealed: SealedOptions,
    pub limits: EndpointLimits,
    pub author: Author,
}

/// What an endpoint is to become.
#[derive(Clone, Debug)]
pub struct EndpointUpdate {
    pub change: EndpointChange,
    pub sealed: SealedOptions,
    pub limits: EndpointLimits,
}

/// What is sealed of an endpoint's options; what is absent stays.
#[derive(Clone, Debug, Default)]
pub struct SealedOptions {
    /// All the headers that there are to be.
    pub headers: Option<Vec<SealedHeader>>,
    pub client_certificate: Option<Option<SealedCertificate>>,
    /// For the newest version of the secret, should it need one. To be there whenever `v1a` is asked for.
    pub signing_key: Option<(SecretVersion, SealedSigningKey)>,
}

impl SealedOptions {
    /// Whether nothing changes by it.
    pub const fn is_empty(&self) -> bool {
        self.headers.is_none() && self.client_certificate.is_none()
    }
}

#[derive(Clone, Debug)]
pub struct SealedHeader {
    pub name: HeaderName,
    /// `None` keeps what is stored under this name.
    pub sealed: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
pub struct SealedCertificate {
    pub facts: CertificateFacts,
    pub sealed: Vec<u8>,
}

/// The private key of `v1a` signatures, sealed, and what verifies them.
#[derive(Clone, Debug)]
pub struct SealedSigningKey {
    pub sealed: Vec<u8>,
    pub public_key: String,
}

/// What is sealed of an endpoint's options, as it stands in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedParts {
    /// As in [`EndpointOptions`](postrider_domain::endpoint_options::EndpointOptions).
    pub version: u32,
    /// In the order in which they were given.
    pub headers: Vec<(HeaderName, Vec<u8>)>,
    pub client_certificate: Option<Vec<u8>>,
}

/// How many endpoints there may be.
#[derive(Clone, Copy, Debug)]
pub struct EndpointLimits {
    pub per_project: u32,
    pub per_workspace: u32,
}

/// A secret to sign with from now on.
#[derive(Clone, Debug)]
pub struct SecretRotation {
    /// The version that the sealed secret was made for: one more than the newest.
    pub version: SecretVersion,
    pub sealed: Vec<u8>,
    pub last4: String,
    /// Taken if the endpoint signs with `v1a`.
    pub signing_key: SealedSigningKey,
    /// How long what is enqueued is signed with the version before too.
    pub overlap: Duration,
    /// What is queued already is signed with the new secret instead of its own.
    pub revoke_queued: bool,
}

/// A replay to be made.
#[derive(Clone, Debug)]
pub struct NewReplay {
    /// Their mode is the replay's.
    pub author: Author,
    pub range: ReplayRange,
    pub total: u64,
}

/// A part of the log that age takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogPart {
    /// With their attempts.
    Deliveries,
    /// With their `externalId`s.
    Events,
}

/// What a new store is told apart by: drawn at random by whoever opens it.
#[derive(Clone, Copy, Debug)]
pub struct StoreSeed {
    /// The tag of the store's timed ids, if it has none yet.
    pub tag: StoreTag,
    /// Tells this process's row keys from those of another that shares the store; its lowest nine bits count.
    pub node: u16,
}

/// A catalogue of events to be the store's own.
#[derive(Clone, Debug)]
pub struct NewCatalogue {
    pub version: u32,
    /// The file as it was given.
    pub text: String,
    pub content_hash: [u8; 32],
    pub brand: String,
    /// Every name in it, retired ones too.
    pub names: Vec<String>,
}

/// What came of a catalogue that was given to a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CatalogueAdoption {
    /// It is the store's catalogue now, or was already.
    Adopted,
    /// The store holds a newer one, whose text this is.
    NewerStored { version: u32, text: String },
    /// The store holds another catalogue of the same version.
    OtherContent,
    /// It has another brand than the store's, whose API keys exist already.
    BrandFixed { stored: String },
    /// It lacks names that stored events or endpoints use.
    NamesInUse(Vec<String>),
}

/// A store of everything: configuration, log and queue. A write that takes an [`Author`] adds its entry to the audit log
/// in its own transaction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The tag in this store's timed ids.
    fn tag(&self) -> StoreTag;

    /// A new row key, larger than any given before by this process.
    fn next_key(&self) -> RowKey;

    /// From now on, deliveries that can start at once are handed over as they are accepted, as long as there is somebody to
    /// take them. Counts once.
    fn attach(&self, hand_over: Weak<dyn HandOver>);

    /// From now on, what becomes of endpoints and deliveries is published as operational events in this workspace, in the
    /// transaction in which it becomes so; what happens in that workspace itself is not. Counts once.
    fn report_operations(&self, workspace_key: RowKey);

    /// Processes that send what is due in this store, this one included, as last seen: what one endpoint may have is shared by
    /// them.
    fn nodes(&self) -> usize {
        1
    }

    /// Completes when the store can be read and written.
    async fn check(&self) -> Result<(), StoreError>;

    /// The value kept under `name` in the store's own facts.
    async fn meta(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError>;

    /// The value kept under `name` in the store's own facts; kept as `value` now if there was none.
    async fn meta_or_insert(&self, name: &'static str, value: Vec<u8>) -> Result<Vec<u8>, StoreError>;

    /// Makes the catalogue the store's own, unless what is stored stands against it. Nothing is written then.
    async fn adopt_catalogue(&self, new: NewCatalogue) -> Result<CatalogueAdoption, StoreError>;

    /// The text of the store's catalogue, if it has one yet.
    async fn catalogue(&self) -> Result<Option<String>, StoreError>;

    /// The workspace of this name, made now if there is none.
    async fn ensure_workspace(&self, new: NewWorkspace) -> Result<Workspace, StoreError>;

    async fn create_workspace(
        &self,
        new: NewWorkspace,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError>;

    async fn find_workspace(&self, id: WorkspaceId) -> Result<Option<Workspace>, StoreError>;

    async fn find_workspace_named(&self, name: WorkspaceName) -> Result<Option<Workspace>, StoreError>;

    async fn list_workspaces(&self, page: PageRequest) -> Result<Page<Workspace>, StoreError>;

    async fn rename_workspace(
        &self,
        id: WorkspaceId,
        name: WorkspaceName,
        author: Author,
        recording: Option<Recording<Workspace>>,
    ) -> Result<Written<Workspace>, WriteWorkspaceError>;

    /// From now on its keys are unknown, its endpoints and their secrets are gone, nothing of it is claimed any more; a
    /// long queue is struck from the log by and by. What was logged stays, and the name is free.
    async fn delete_workspace(
        &self,
        id: WorkspaceId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, WriteWorkspaceError>;

    async fn create_api_key(
        &self,
        new: NewApiKey,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, CreateApiKeyError>;

    async fn find_api_key(&self, hash: ApiKeyHash) -> Result<Option<ApiKey>, StoreError>;

    /// A key by its id, of one workspace or of any.
    async fn get_api_key(&self, workspace_key: Option<RowKey>, id: ApiKeyId) -> Result<Option<ApiKey>, StoreError>;

    /// Keys of one workspace or of all, revoked ones too.
    async fn list_api_keys(&self, workspace_key: Option<RowKey>, page: PageRequest)
    -> Result<Page<ApiKey>, StoreError>;

    /// The key as it is after it was revoked. Revoking twice keeps the first instant.
    async fn revoke_api_key(
        &self,
        workspace_key: RowKey,
        id: ApiKeyId,
        author: Author,
        recording: Option<Recording<ApiKey>>,
    ) -> Result<Written<ApiKey>, RevokeApiKeyError>;

    /// Entries of one workspace or of all.
    async fn list_audit(
        &self,
        workspace_key: Option<RowKey>,
        filter: AuditFilter,
        page: PageRequest,
    ) -> Result<Page<AuditEntry>, StoreError>;

    /// The answer kept for this request, if it came before within the window.
    async fn find_answer<'r>(&self, request: &'r IdempotentRequest) -> Result<Option<Written<()>>, StoreError>;

    /// Keeps the answer of a request that had no effect. What was kept before wins.
    async fn record_answer(
        &self,
        request: IdempotentRequest,
        answer: RecordedAnswer,
    ) -> Result<Written<()>, StoreError>;

    async fn create_endpoint(
        &self,
        new: NewEndpoint,
        recording: Option<Recording<Endpoint>>,
    ) -> Result<Written<Endpoint>, CreateEndpointError>;

    async fn find_endpoint(&self, workspace_key: RowKey, id: EndpointId) -> Result<Option<Endpoint>, StoreError>;

    async fn list_endpoints(
        &self,
        workspace_key: RowKey,
        filter: EndpointFilter,
        page: PageRequest,
    ) -> Result<Page<Endpoint>, StoreError>;

    /// Changes an endpoint. Switched on, it loses its reason and what waits goes on; switched off, what waits is held.
    async fn update_endpoint(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        update: EndpointUpdate,
        author: Author,
        recording: Option<Recording<Endpoint>>,
    ) -> Result<Written<Endpoint>, UpdateEndpointError>;

    /// Deletes an endpoint and its secrets and cancels its undelivered work. When this returns, none of it is claimed any
    /// more; a long queue is struck from the log by and by.
    async fn delete_endpoint(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        author: Author,
        recording: Option<Recording<()>>,
    ) -> Result<Written<()>, DeleteEndpointError>;

    /// The version of the secret that signs now.
    async fn secret_version(&self, workspace_key: RowKey, id: EndpointId) -> Result<Option<SecretVersion>, StoreError>;

    /// Signs what is enqueued from now on with another secret.
    async fn rotate_secret(
        &self,
        workspace_key: RowKey,
        id: EndpointId,
        rotation: SecretRotation,
        author: Author,
    ) -> Result<Endpoint, RotateSecretError>;

    /// Erases secrets that no delivery can need any more, up to `limit` of them.
    async fn erase_unused_secrets(&self, limit: usize) -> Result<usize, StoreError>;

    /// The sealed secret of this version, unless it was erased.
    async fn find_secret(&self, endpoint_key: RowKey, version: SecretVersion) -> Result<Option<Vec<u8>>, StoreError>;

    /// The sealed private key of this version's `v1a` signatures, if it has one and was not erased.
    async fn find_signing_key(
        &self,
        endpoint_key: RowKey,
        version: SecretVersion,
    ) -> Result<Option<Vec<u8>>, StoreError>;

    /// What is sealed of an endpoint's options; `None` once it is deleted.
    async fn find_sealed_parts(&self, endpoint_key: RowKey) -> Result<Option<SealedParts>, StoreError>;

    /// Accepts all events of one workspace and mode or none. When this returns, the events and a delivery for each
    /// matching endpoint are on disk. Endpoints are matched inside the transaction. For an endpoint with strict order, a live
    /// delivery takes the next place in that order, and is queued even when the endpoint is off.
    async fn accept_events(
        &self,
        events: Vec<NewEvent>,
        recording: Option<Recording<Vec<EventReceipt>>>,
    ) -> Result<Written<Vec<EventReceipt>>, AcceptError>;

    /// Newest first. The envelopes are not read.
    async fn list_events(
        &self,
        workspace_key: RowKey,
        filter: EventFilter,
        page: PageRequest,
    ) -> Result<Page<Event>, StoreError>;

    async fn find_event(&self, workspace_key: RowKey, id: EventId) -> Result<Option<EventDetail>, StoreError>;

    /// Accepts an event for one endpoint alone, which may be off, as a test.
    async fn accept_test(
        &self,
        endpoint_id: EndpointId,
        event: NewEvent,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, RequeueError>;

    /// Queues a new delivery of the same event to the same endpoint. A retry of a test is a test again. A live retry of the
    /// delivery at which an endpoint's strict order has stopped takes its place in the order; any other goes outside of it.
    async fn retry_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, RequeueError>;

    /// Gives up the delivery at which its endpoint's strict order has stopped: what waits behind it goes on.
    async fn skip_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
        author: Author,
        recording: Option<Recording<Delivery>>,
    ) -> Result<Written<Delivery>, SkipDeliveryError>;

    /// Counts what a replay with a key of this mode would send, in bounded steps: rows after `after`, and where to go on.
    async fn count_replayable(
        &self,
        endpoint_key: RowKey,
        mode: Mode,
        range: ReplayRange,
        after: RowKey,
    ) -> Result<(ReplayCount, Option<RowKey>), StoreError>;

    async fn create_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        new: NewReplay,
        recording: Option<Recording<Replay>>,
    ) -> Result<Written<Replay>, RequeueError>;

    async fn list_replays(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        page: PageRequest,
    ) -> Result<Option<Page<Replay>>, StoreError>;

    async fn find_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        id: ReplayId,
    ) -> Result<Option<Replay>, StoreError>;

    /// Stops a replay that runs; one that has ended stays as it is.
    async fn stop_replay(
        &self,
        workspace_key: RowKey,
        endpoint_id: EndpointId,
        id: ReplayId,
        author: Author,
        recording: Option<Recording<Replay>>,
    ) -> Result<Written<Replay>, StopReplayError>;

    /// Takes the running replays one step further and returns how many rows of the log they went, whatever came of these;
    /// `None` when none runs. A replay waits while its endpoint is off or has live deliveries due.
    async fn advance_replays(&self) -> Result<Option<usize>, StoreError>;

    /// A page may hold less than was asked for, even nothing, and yet say where to go on: a filter that passes few rows looks
    /// at only so many of them for one page.
    async fn list_deliveries(
        &self,
        workspace_key: RowKey,
        filter: DeliveryFilter,
        page: PageRequest,
    ) -> Result<Page<Delivery>, StoreError>;

    async fn find_delivery(
        &self,
        workspace_key: RowKey,
        id: DeliveryId,
    ) -> Result<Option<(Delivery, Vec<Attempt>)>, StoreError>;

    /// Claims up to `limit` due deliveries for the length of `lease`, lane by lane, as far as `quota` allows. Each claim
    /// allocates the next attempt number. A claim found lost is recorded as an `abandoned` attempt. Of the deliveries in
    /// an endpoint's strict order only the first that has not ended is ever claimed, and none once it has failed until that is
    /// skipped or retried.
    async fn claim_due(&self, limit: usize, lease: Duration, quota: Arc<dyn LaneQuota>) -> Result<Claimed, StoreError>;

    /// Gives claims back unused, with their attempt numbers, due at once.
    async fn give_back_if_claimed(&self, claims: Vec<(DeliveryId, ClaimToken)>) -> Result<(), StoreError>;

    /// Writes attempts and what follows from them, each only if its claim still holds.
    async fn record_outcomes_if_claimed(&self, outcomes: Vec<OutcomeRecord>) -> Result<Vec<Recorded>, StoreError>;

    /// Fails, as `expired`, up to `limit` deliveries that waited too long behind an endpoint that is off, or in a strict order
    /// that has stopped. In a strict order they expire from the front, and the order stops at the last of them.
    async fn expire_waiting(&self, limit: usize) -> Result<usize, StoreError>;

    /// Looks at the next `limit` rows of the log after `after` that are older than `age`, removes those that can go, and
    /// returns where to go on; `None` at the end. What is pending stays, and so does a delivery at which a strict order has
    /// stopped, and an event that a delivery refers to.
    async fn remove_aged(
        &self,
        part: LogPart,
        age: Duration,
        after: RowKey,
        limit: usize,
    ) -> Result<Option<RowKey>, StoreError>;

    /// Removes up to `limit` answers whose window is over.
    async fn forget_answers(&self, limit: usize) -> Result<usize, StoreError>;
}
